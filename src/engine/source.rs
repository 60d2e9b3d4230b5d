//! The file that is uploaded, on this machine: read by position, never trusted to stay.
//!
//! Uploads to several hosts share one open file, what they read of it, and what they
//! hash of it.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::failure::{Failure, FailureKind, Phase};
use super::fleet::window::{Block, Window};
use crate::model::digest::Chain;
use crate::model::escape::printable;
use crate::model::identity::SourceIdentity;
use crate::model::manifest::SourceDescription;
use crate::remote::files::Times;

/// Bytes read and hashed in one go on a blocking thread.
pub const READ_BYTES: usize = 256 << 10;

/// What all hosts together may have read and the servers not acknowledged, beside the window.
/// So much a round trip is a gigabit a second where that takes 100 ms.
const UNACKNOWLEDGED_BYTES: usize = 12 << 20;
/// And what each of them may have all the same, however many they are.
const MIN_UNACKNOWLEDGED_BYTES: usize = 2 * READ_BYTES;

#[derive(Debug, Clone)]
pub struct Source {
    opened: Arc<Opened>,
    /// `None`: for one host alone.
    sharing: Option<Sharing>,
    pub description: SourceDescription,
    pub times: Times,
}

#[derive(Debug)]
struct Opened {
    file: File,
    path: PathBuf,
    bytes_read: AtomicU64,
    bytes_hashed: AtomicU64,
}

#[derive(Debug, Clone)]
struct Sharing {
    window: Arc<Window>,
    /// What this host may have on its way. Its own slowness fills it up, and stops nobody
    /// else.
    held: Arc<Semaphore>,
    held_bytes: usize,
}

/// A block in the hands of one host, and its place among what that host may have.
struct Held {
    block: Arc<Block>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.block.content.get().map_or(&[], Bytes::as_ref)
    }
}

/// What was done with the file so far, for all hosts together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes_read: u64,
    pub bytes_hashed: u64,
}

impl Source {
    /// Blocking, but only for as long as an open and a stat take.
    pub fn open(path: &Path) -> Result<Source, Failure> {
        let failure = |error: std::io::Error| Failure::local(Phase::Source, path, &error);
        let before = std::fs::metadata(path).map_err(failure)?;
        if !before.is_file() {
            let what = if before.is_dir() { "is a directory" } else { "is not a regular file" };
            return Err(Failure::new(FailureKind::Usage, Phase::Source, show(path), what)
                .next_step("pack it into a file first, for example with tar"));
        }
        let file = File::open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).as_bytes().to_vec();
        let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
        Ok(Source {
            opened: Arc::new(Opened {
                file,
                path: path.to_owned(),
                bytes_read: AtomicU64::new(0),
                bytes_hashed: AtomicU64::new(0),
            }),
            sharing: None,
            description: SourceDescription {
                name,
                identity: identity(&metadata),
                mode: metadata.mode() & 0o7777,
            },
            times: Times { accessed: seconds(metadata.atime()), modified: seconds(metadata.mtime()) },
        })
    }

    /// The same file for as many uploads as go side by side: what they read and hash is
    /// shared from now on. [`Source::for_host`] makes each one's own.
    #[must_use]
    pub fn shared_by(self, hosts: usize) -> Source {
        let held_bytes = (UNACKNOWLEDGED_BYTES / hosts.max(1)).max(MIN_UNACKNOWLEDGED_BYTES);
        let held = Arc::new(Semaphore::new(held_bytes));
        Source { sharing: Some(Sharing { window: Arc::default(), held, held_bytes }), ..self }
    }

    #[must_use]
    pub fn for_host(&self) -> Source {
        let sharing = self
            .sharing
            .as_ref()
            .map(|sharing| Sharing { held: Arc::new(Semaphore::new(sharing.held_bytes)), ..sharing.clone() });
        Source { sharing, ..self.clone() }
    }

    pub fn size(&self) -> u64 {
        self.description.identity.size
    }

    /// The path as a person may see it.
    pub fn shown(&self) -> String {
        show(&self.opened.path)
    }

    pub fn usage(&self) -> Usage {
        Usage {
            bytes_read: self.opened.bytes_read.load(Ordering::Relaxed),
            bytes_hashed: self.opened.bytes_hashed.load(Ordering::Relaxed),
        }
    }

    /// Reads exactly `length` bytes and takes them through `chain` on the way.
    pub async fn read(&self, offset: u64, length: usize, chain: Chain) -> Result<(Bytes, Chain), Failure> {
        let Some(sharing) = &self.sharing else { return self.read_file(offset, length, Some(chain)).await };
        let place = self.place(sharing, length).await?;
        let window = &sharing.window;
        let block = window.block(offset, length);
        let mut after = window.after(offset, length, &chain);
        let reading = async {
            let wanted = if after.is_none() { Some(chain.clone()) } else { None };
            let hashes = wanted.is_some();
            let (bytes, hashed) = self.read_file(offset, length, wanted).await?;
            if hashes {
                window.remember(offset, length, &chain, &hashed);
                after = Some(hashed);
            }
            Ok::<_, Failure>(bytes)
        };
        let bytes = block.content.get_or_try_init(|| reading).await?.clone();
        // Whoever read it may have come from the same state.
        let after = match after.or_else(|| window.after(offset, length, &chain)) {
            Some(after) => after,
            None => {
                let hashed = self.hash_bytes(bytes, chain.clone()).await?;
                window.remember(offset, length, &chain, &hashed);
                hashed
            }
        };
        Ok((Bytes::from_owner(Held { block, _place: place }), after))
    }

    /// As [`Source::read`], for whoever does not want the bytes: what was hashed for one
    /// host is not read for the next.
    pub async fn hash(&self, offset: u64, length: usize, chain: Chain) -> Result<Chain, Failure> {
        let known = self.sharing.as_ref().and_then(|shared| shared.window.after(offset, length, &chain));
        match known {
            Some(after) => Ok(after),
            None => Ok(self.read(offset, length, chain).await?.1),
        }
    }

    async fn place(&self, sharing: &Sharing, length: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let wanted = u32::try_from(length.min(sharing.held_bytes)).unwrap_or(u32::MAX);
        let permit = sharing.held.clone().acquire_many_owned(wanted).await;
        permit.map_err(|error| self.broke_off(&error))
    }

    /// `None` hashes nothing.
    async fn read_file(
        &self,
        offset: u64,
        length: usize,
        chain: Option<Chain>,
    ) -> Result<(Bytes, Chain), Failure> {
        let opened = self.opened.clone();
        let task = spawn_blocking(move || {
            let mut buffer = BytesMut::zeroed(length);
            opened.file.read_exact_at(&mut buffer, offset)?;
            opened.bytes_read.fetch_add(length as u64, Ordering::Relaxed);
            let chain = chain.map(|chain| opened.hash(&buffer, chain)).unwrap_or_default();
            std::io::Result::Ok((buffer.freeze(), chain))
        });
        match task.await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(error) => Err(self.broke_off(&error)),
        }
    }

    async fn hash_bytes(&self, bytes: Bytes, chain: Chain) -> Result<Chain, Failure> {
        let opened = self.opened.clone();
        let task = spawn_blocking(move || opened.hash(&bytes, chain));
        task.await.map_err(|error| self.broke_off(&error))
    }

    /// Fails when the open file is no longer what it was when it was opened.
    pub fn check_unchanged(&self) -> Result<(), Failure> {
        let metadata = self.opened.file.metadata().map_err(|error| self.failed(&error))?;
        if identity(&metadata) == self.description.identity { Ok(()) } else { Err(self.changed()) }
    }

    pub fn changed(&self) -> Failure {
        Failure::new(
            FailureKind::Failed,
            Phase::Source,
            self.shown(),
            "the source changed while it was being sent; the target was not touched",
        )
        .next_step("run the same command again once it is at rest: what still agrees is kept")
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::local(Phase::Source, &self.opened.path, error)
    }

    fn broke_off(&self, error: &dyn std::fmt::Display) -> Failure {
        let cause = format!("reading was cut off: {error}");
        Failure::new(FailureKind::Failed, Phase::Source, self.shown(), cause)
    }
}

impl Opened {
    fn hash(&self, bytes: &[u8], mut chain: Chain) -> Chain {
        chain.update(bytes);
        self.bytes_hashed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        chain
    }
}

fn show(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

fn identity(metadata: &std::fs::Metadata) -> SourceIdentity {
    let nanoseconds = |seconds: i64, part: i64| i128::from(seconds) * 1_000_000_000 + i128::from(part);
    SourceIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}
