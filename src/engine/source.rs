//! The file that is uploaded, on this machine: read by position, never trusted to stay.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::failure::{Failure, FailureKind, Phase};
use crate::model::digest::Chain;
use crate::model::escape::printable;
use crate::model::identity::SourceIdentity;
use crate::model::manifest::SourceDescription;
use crate::remote::files::Times;

/// Bytes read and hashed in one go on a blocking thread.
pub const READ_BYTES: usize = 1 << 20;

#[derive(Debug, Clone)]
pub struct Source {
    file: Arc<File>,
    path: PathBuf,
    pub description: SourceDescription,
    pub times: Times,
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
            file: Arc::new(file),
            path: path.to_owned(),
            description: SourceDescription {
                name,
                identity: identity(&metadata),
                mode: metadata.mode() & 0o7777,
            },
            times: Times { accessed: seconds(metadata.atime()), modified: seconds(metadata.mtime()) },
        })
    }

    pub fn size(&self) -> u64 {
        self.description.identity.size
    }

    /// The path as a person may see it.
    pub fn shown(&self) -> String {
        show(&self.path)
    }

    /// Reads exactly `length` bytes and takes them through `chain` on the way.
    pub async fn read(
        &self,
        offset: u64,
        length: usize,
        mut chain: Chain,
    ) -> Result<(Bytes, Chain), Failure> {
        let file = self.file.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut buffer = BytesMut::zeroed(length);
            file.read_exact_at(&mut buffer, offset)?;
            chain.update(&buffer);
            std::io::Result::Ok((buffer.freeze(), chain))
        });
        match task.await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Ok(Err(error)) => Err(Failure::local(Phase::Source, &self.path, &error)),
            Err(_) => {
                Err(Failure::new(FailureKind::Failed, Phase::Source, self.shown(), "reading was cut off"))
            }
        }
    }

    /// Fails when the open file is no longer what it was when it was opened.
    pub fn check_unchanged(&self) -> Result<(), Failure> {
        let metadata =
            self.file.metadata().map_err(|error| Failure::local(Phase::Source, &self.path, &error))?;
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
