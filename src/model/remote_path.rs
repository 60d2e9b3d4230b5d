//! A path on a target: bytes, never a local path and never part of a command line.

use std::fmt;

use super::escape::printable;

/// A path as the target's SFTP server names it. Any byte but NUL may occur in it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(Vec<u8>);

/// Why bytes are no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    Empty,
    Nul,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathError::Empty => "the path is empty",
            PathError::Nul => "the path contains a NUL byte",
        })
    }
}

impl std::error::Error for PathError {}

impl RemotePath {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<RemotePath, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        Ok(RemotePath(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_absolute(&self) -> bool {
        self.0.first() == Some(&b'/')
    }

    /// True for a path that can only name a directory: it ends in `/`, `/.` or `/..`.
    pub fn names_directory(&self) -> bool {
        matches!(self.0.rsplit(|b| *b == b'/').next(), Some(b"" | b"." | b".."))
    }

    /// `self/name`. An absolute `name` replaces `self`.
    pub fn join(&self, name: impl AsRef<[u8]>) -> RemotePath {
        let name = name.as_ref();
        if name.first() == Some(&b'/') {
            return RemotePath(name.to_vec());
        }
        let mut joined = self.0.clone();
        if joined.last() != Some(&b'/') {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        RemotePath(joined)
    }

    /// The directory that holds the path; `.` for a bare name, `/` for the root.
    pub fn parent(&self) -> RemotePath {
        let trimmed = self.trimmed();
        match trimmed.iter().rposition(|b| *b == b'/') {
            None => RemotePath(b".".to_vec()),
            Some(0) => RemotePath(b"/".to_vec()),
            Some(slash) => RemotePath(trimmed[..slash].to_vec()),
        }
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        self.trimmed().rsplit(|b| *b == b'/').next().unwrap_or(b"")
    }

    fn trimmed(&self) -> &[u8] {
        let end = self.0.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
        &self.0[..end]
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::new(text.as_bytes().to_vec()).expect("a path")
    }

    #[test]
    fn parent_and_name() {
        assert_eq!(path("/srv/img").parent(), path("/srv"));
        assert_eq!(path("/img").parent(), path("/"));
        assert_eq!(path("img").parent(), path("."));
        assert_eq!(path("/srv/img/").file_name(), b"img");
        assert_eq!(path("/").file_name(), b"");
        assert_eq!(path("/srv").join("a"), path("/srv/a"));
        assert_eq!(path("/").join("a"), path("/a"));
        assert_eq!(path("/srv").join("/a"), path("/a"));
    }

    #[test]
    fn refuses_what_no_path_can_be() {
        assert_eq!(RemotePath::new(Vec::new()), Err(PathError::Empty));
        assert_eq!(RemotePath::new(b"a\0b".to_vec()), Err(PathError::Nul));
    }

    #[test]
    fn knows_a_directory_by_its_form() {
        assert!(path("/srv/").names_directory());
        assert!(path("..").names_directory());
        assert!(!path("/srv/a").names_directory());
    }
}
