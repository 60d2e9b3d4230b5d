//! SRC: what can be uploaded, checked before anything connects.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::model::escape::printable;

/// What stands for standard input.
pub const STANDARD_INPUT: &str = "-";

/// `-` is the one source there is.
pub fn is_standard_input(sources: &[PathBuf]) -> bool {
    matches!(sources, [source] if source.as_os_str() == STANDARD_INPUT)
}

/// Every source is a regular file that can be read, and no two get the same name.
pub fn check(sources: &[PathBuf]) -> Result<(), CliError> {
    let mut names = HashSet::new();
    for source in sources {
        if let Err(problem) = check_one(source) {
            let shown = printable(source.as_os_str().as_bytes());
            return Err(CliError::usage(format!("source '{shown}': {problem}")));
        }
        if !names.insert(source.file_name()) {
            let name = printable(source.file_name().unwrap_or_default().as_bytes());
            return Err(CliError::usage(format!("two sources are called '{name}': upload them one by one")));
        }
    }
    Ok(())
}

fn check_one(source: &Path) -> Result<(), String> {
    if source.as_os_str().is_empty() {
        return Err("the name is empty".to_owned());
    }
    if source.as_os_str() == STANDARD_INPUT {
        return Err("standard input goes alone (a file of that name is ./-)".to_owned());
    }
    let metadata = fs::metadata(source).map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("is a directory; pack it first, for example with tar, and upload the archive".to_owned());
    }
    // Opening anything else could block or act.
    if !metadata.is_file() {
        return Err("is no regular file".to_owned());
    }
    File::open(source).map(drop).map_err(|error| error.to_string())
}
