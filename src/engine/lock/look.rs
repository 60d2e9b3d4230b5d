//! Looking at `<target>:lock` without touching it.

use super::small_file;
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::model::lock_file::{self, LOCK_FILE_MAX_BYTES, LockContent, LockInfo};
use crate::model::names::Names;
use crate::model::remote_path::RemotePath;
use crate::remote::files::FileKind;
use crate::remote::{Files, RemoteError, RemoteErrorKind};

/// What stood at `<target>:lock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockSeen {
    pub content: LockContent,
    /// At most one byte more than a lock file has.
    pub bytes: Vec<u8>,
    /// The account that the file belongs to, where the server says.
    pub owner_uid: Option<u32>,
}

impl LockSeen {
    pub fn info(&self) -> Option<&LockInfo> {
        match &self.content {
            LockContent::Whole(info) => Some(info),
            LockContent::Torn | LockContent::OtherVersion | LockContent::Foreign => None,
        }
    }
}

/// Reads the lock, or says that none is there. A symbolic link or a directory in its
/// place is a failure of its own and is never followed. Changes nothing.
pub async fn look(files: &dyn Files, names: &Names, host: &str) -> Result<Option<LockSeen>, Failure> {
    let place = || format!("{host}:{}", names.lock());
    let remote = |error: RemoteError| Failure::remote(Phase::Lock, place(), &error);
    let attributes = match files.lstat(names.lock()).await {
        Ok(attributes) => attributes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(remote(error)),
    };
    let what = match attributes.kind {
        FileKind::File | FileKind::Unknown => None,
        FileKind::Directory => Some("a directory"),
        FileKind::Symlink => Some("a symbolic link"),
        FileKind::Other => Some("no regular file"),
    };
    if let Some(what) = what {
        return Err(Failure::new(
            FailureKind::Failed,
            Phase::Lock,
            place(),
            format!("{what} stands where the lock belongs"),
        )
        .next_step("haul did not make it: move it away by hand"));
    }
    match read_content(files, names.lock()).await {
        Ok((content, bytes)) => {
            let owner_uid = attributes.owner.map(|owner| owner.uid);
            Ok(Some(LockSeen { content, bytes, owner_uid }))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.kind == RemoteErrorKind::PermissionDenied => Err(remote(error)
            .next_step("another account's lock that this one may not read: ask its owner to remove it")),
        Err(error) => Err(remote(error)),
    }
}

/// Reads and parses a lock file by any of its names.
pub async fn read_content(
    files: &dyn Files,
    path: &RemotePath,
) -> Result<(LockContent, Vec<u8>), RemoteError> {
    let bytes = small_file::read(files, path, LOCK_FILE_MAX_BYTES + 1).await?;
    Ok((lock_file::parse(&bytes), bytes))
}
