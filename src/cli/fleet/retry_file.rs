//! `--retry-file`: the hosts that failed, one name a line.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::model::escape::printable;

/// In one step: a reader sees the old file or the new one. Nobody failed: the file goes,
/// so that it is there exactly when there is something to try again.
pub fn write(path: &Path, failed: &[&str]) -> Result<(), CliError> {
    let done = if failed.is_empty() { remove(path) } else { replace(path, failed) };
    done.map_err(|error| trouble(ExitCode::Failed, path, &error))
}

/// Before anything is done: whether it could be written.
pub fn check(path: &Path) -> Result<(), CliError> {
    let checked = match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(std::io::Error::other("is no regular file")),
        _ => tempfile::Builder::new().prefix(".haul-").tempfile_in(directory(path)).map(drop),
    };
    checked.map_err(|error| trouble(ExitCode::Usage, path, &error))
}

fn trouble(code: ExitCode, path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(code, format!("retry file {}: {error}", printable(path.as_os_str().as_bytes())))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn replace(path: &Path, failed: &[&str]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // As any other new file: readable as far as the umask lets it be.
    let all = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".haul-").permissions(all).tempfile_in(directory(path))?;
    for name in failed {
        writeln!(file, "{name}")?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_exactly_when_somebody_failed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("failed");
        check(&path).expect("it can be written");
        write(&path, &["web1", "db"]).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "web1\ndb\n");
        write(&path, &["db"]).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "db\n");
        write(&path, &[]).expect("removed");
        write(&path, &[]).expect("gone already");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
        check(directory.path()).expect_err("a directory");
        check(&directory.path().join("absent/failed")).expect_err("no directory");
    }
}
