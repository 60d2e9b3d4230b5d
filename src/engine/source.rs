//! The file that is uploaded, on this machine: read by position, never trusted to stay.
//!
//! Uploads to several hosts share one open file, what they read of it, and what they
//! hash of it.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::failure::{Failure, FailureKind, Phase};
use super::fleet::window::{Block, Window};
use super::random::mac_key;
use crate::model::checksum::Chain;
use crate::model::escape::printable;
use crate::model::gmac::Key;
use crate::model::identity::SourceIdentity;
use crate::model::manifest::SourceDescription;
use crate::remote::files::Times;

/// Bytes read and hashed in one go on a blocking thread: whole pages, and on a short way one
/// write to an OpenSSH server, which takes 255 KiB.
pub const READ_BYTES: usize = 252 << 10;

/// What all hosts together may have read and not yet sent, beside the window.
const UNSENT_BYTES: usize = 10 << 20;
/// And what each of them may have all the same, however many they are.
const MIN_UNSENT_BYTES: usize = 2 * READ_BYTES;

#[derive(Debug, Clone)]
pub struct Source {
    opened: Arc<Opened>,
    /// `None`: for one host alone.
    sharing: Option<Sharing>,
    pub description: SourceDescription,
    pub times: Times,
    /// For a MAC of it; the same for all hosts, so that what one computed serves all.
    pub mac_key: Key,
}

#[derive(Debug)]
struct Opened {
    file: File,
    path: PathBuf,
    bytes_read: AtomicU64,
    bytes_hashed: AtomicU64,
    hashing_nanoseconds: AtomicU64,
}

#[derive(Debug, Clone)]
struct Sharing {
    window: Arc<Window>,
    /// What this host may have read and not yet sent. Its own slowness fills it up, and stops nobody
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
                hashing_nanoseconds: AtomicU64::new(0),
            }),
            sharing: None,
            description: SourceDescription {
                name,
                identity: identity(&metadata),
                mode: metadata.mode() & 0o7777,
            },
            times: Times { accessed: seconds(metadata.atime()), modified: seconds(metadata.mtime()) },
            mac_key: mac_key()?,
        })
    }

    /// The same file for as many uploads as go side by side: what they read and hash is
    /// shared from now on. [`Source::for_host`] makes each one's own.
    #[must_use]
    pub fn shared_by(self, hosts: usize) -> Source {
        let held_bytes = (UNSENT_BYTES / hosts.max(1)).max(MIN_UNSENT_BYTES);
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

    /// How long that took, on all threads.
    pub fn hashing(&self) -> Duration {
        Duration::from_nanos(self.opened.hashing_nanoseconds.load(Ordering::Relaxed))
    }

    /// Reads exactly `length` bytes and takes them through `chain` on the way.
    pub async fn read(&self, offset: u64, length: usize, chain: Chain) -> Result<(Bytes, Chain), Failure> {
        let Some(sharing) = &self.sharing else {
            return self.read_and_hash(offset, length, chain).await;
        };
        let place = self.place(sharing, length).await?;
        let window = &sharing.window;
        let block = window.block(offset, length);
        let mut after = window.after(offset, length, &chain);
        let reading = async {
            if after.is_some() {
                return self.read_again(offset, length).await;
            }
            let (bytes, hashed) = self.read_and_hash(offset, length, chain.clone()).await?;
            window.remember(offset, length, &chain, &hashed);
            after = Some(hashed);
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

    /// Reads again what was hashed already, for a piece that was lost on the way. It waits
    /// for nothing that is to be sent after it.
    pub async fn read_again(&self, offset: u64, length: usize) -> Result<Bytes, Failure> {
        self.read_file(offset, length, |_, bytes| bytes).await
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

    async fn read_and_hash(
        &self,
        offset: u64,
        length: usize,
        chain: Chain,
    ) -> Result<(Bytes, Chain), Failure> {
        let hash = |opened: &Opened, bytes: Bytes| {
            let chain = opened.hash(&bytes, chain);
            (bytes, chain)
        };
        self.read_file(offset, length, hash).await
    }

    /// `then` is done with the bytes on the same thread.
    async fn read_file<T: Send + 'static>(
        &self,
        offset: u64,
        length: usize,
        then: impl FnOnce(&Opened, Bytes) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let opened = self.opened.clone();
        let task = spawn_blocking(move || {
            let bytes = opened.read_exact_at(offset, length)?;
            opened.bytes_read.fetch_add(length as u64, Ordering::Relaxed);
            std::io::Result::Ok(then(&opened, bytes))
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
    /// Into memory that nobody has to clear first.
    fn read_exact_at(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            match pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // There may have been room for more than was asked for.
        bytes.truncate(length);
        Ok(bytes.into())
    }

    fn hash(&self, bytes: &[u8], mut chain: Chain) -> Chain {
        let began = Instant::now();
        chain.update(bytes);
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.hashing_nanoseconds.fetch_add(took, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::super::fleet::window::WINDOW_BYTES;
    use super::*;
    use crate::model::checksum::Method;
    use std::io::Write;

    /// A source of so many bytes, no two blocks of it alike.
    fn source(bytes: usize) -> (tempfile::NamedTempFile, Source) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let content: Vec<u8> = (0..bytes).map(|n| (n / 251 + n) as u8).collect();
        file.write_all(&content).expect("written");
        let source = Source::open(file.path()).expect("opened");
        (file, source)
    }

    async fn read_all(source: &Source) -> String {
        let (mut at, mut chain) = (0, Chain::new(Method::Sha256));
        while at < source.size() {
            let length = READ_BYTES.min((source.size() - at) as usize);
            let (bytes, after) = source.read(at, length, chain).await.expect("read");
            assert_eq!(bytes.len(), length);
            (chain, at) = (after, at + length as u64);
        }
        chain.finish().to_string()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_hosts_read_and_hash_what_fits_once() {
        let (_file, source) = source(3 * READ_BYTES + 77);
        let alone = read_all(&source).await;
        let size = source.size();
        assert_eq!(source.usage(), Usage { bytes_read: size, bytes_hashed: size });
        let source = source.shared_by(20);
        let hosts = (0..20).map(|_| source.for_host());
        let readers = hosts.map(|host| tokio::spawn(async move { read_all(&host).await }));
        for reader in readers.collect::<Vec<_>>() {
            assert_eq!(reader.await.expect("no panic"), alone);
        }
        assert_eq!(source.usage(), Usage { bytes_read: 2 * size, bytes_hashed: 2 * size });
    }

    #[tokio::test]
    async fn who_falls_behind_reads_again_and_hashes_nothing() {
        let (_file, source) = source(2 * WINDOW_BYTES);
        let size = source.size();
        let source = source.shared_by(2);
        let first = read_all(&source.for_host()).await;
        assert_eq!(read_all(&source.for_host()).await, first);
        assert_eq!(source.usage(), Usage { bytes_read: 2 * size, bytes_hashed: size });
        // Who only hashes does not even read.
        let mut chain = Chain::new(Method::Sha256);
        for at in (0..size).step_by(READ_BYTES) {
            let length = READ_BYTES.min((size - at) as usize);
            chain = source.hash(at, length, chain).await.expect("hashed");
        }
        assert_eq!(chain.finish().to_string(), first);
        assert_eq!(source.usage(), Usage { bytes_read: 2 * size, bytes_hashed: size });
        // From another state than the file's own, hashing is done anew.
        let (_, other) = source.read(64, 64, Chain::new(Method::Sha256)).await.expect("read");
        assert_eq!(other.hashed(), 64);
        assert_eq!(source.usage().bytes_hashed, size + 64);
    }

    #[tokio::test]
    async fn a_host_that_sends_nothing_holds_up_only_itself() {
        let (_file, source) = source(4 * MIN_UNSENT_BYTES);
        let source = source.shared_by(1000);
        let (slow, fast) = (source.for_host(), source.for_host());
        let mut kept = Vec::new();
        for at in (0..MIN_UNSENT_BYTES).step_by(READ_BYTES) {
            kept.push(slow.read(at as u64, READ_BYTES, Chain::new(Method::Sha256)).await.expect("read").0);
        }
        let next = slow.read(MIN_UNSENT_BYTES as u64, READ_BYTES, Chain::new(Method::Sha256));
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        read_all(&fast).await;
        // What was lost on the way does not wait for what comes after it.
        assert_eq!(slow.read_again(0, 100).await.expect("read").len(), 100);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        kept.pop();
        next.await.expect("there is room");
    }
}
