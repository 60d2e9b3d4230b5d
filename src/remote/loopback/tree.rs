//! A directory as the whole world: paths of clients are walked below it, link by link.
//!
//! Every step opens one component with O_NOFOLLOW, relative to the directory before it;
//! symbolic links are read and walked here, where `/` is the served directory and `..`
//! does not leave it. So no path and no link leads out, not even one that is swapped
//! between two steps.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// As many symbolic links as Linux follows in one path.
const LINKS_MAX: usize = 40;
/// Longest path, and longest content of a link, in bytes.
const PATH_MAX: usize = 4096;

/// Whether a symbolic link at the end of a path stands for what it points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLink {
    Follow,
    Keep,
}

#[derive(Debug, Clone)]
pub struct Tree {
    root: Arc<OwnedFd>,
}

/// Where a path ends: a name, which need not exist, in a directory that does.
#[derive(Debug)]
pub struct Place {
    pub directory: Arc<OwnedFd>,
    /// One component, or `.` for the directory itself.
    pub name: Vec<u8>,
    /// The whole path from the served directory, without links.
    pub path: Vec<u8>,
}

impl Tree {
    pub fn open(directory: &Path) -> io::Result<Tree> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory.as_os_str().as_bytes(), flags, Mode::empty())?;
        Ok(Tree { root: Arc::new(root) })
    }

    /// Walks `path`, which is relative to the served directory with or without a leading
    /// slash. `NOENT` when a directory on the way is missing.
    pub fn find(&self, path: &[u8], last: LastLink) -> rustix::io::Result<Place> {
        if path.len() > PATH_MAX {
            return Err(rustix::io::Errno::NAMETOOLONG);
        }
        if path.contains(&0) {
            return Err(rustix::io::Errno::INVAL);
        }
        let mut above: Vec<(Vec<u8>, Arc<OwnedFd>)> = Vec::new();
        let mut ahead: VecDeque<Vec<u8>> = components(path).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                above.pop();
                continue;
            }
            let here = above.last().map_or(&self.root, |(_, directory)| directory).clone();
            if ahead.is_empty() && last == LastLink::Keep {
                return Ok(place(here, &above, name));
            }
            match rustix::fs::readlinkat(&here, &name[..], Vec::new()) {
                Ok(target) => {
                    links += 1;
                    let target = target.into_bytes();
                    if links > LINKS_MAX || target.len() > PATH_MAX {
                        return Err(rustix::io::Errno::LOOP);
                    }
                    if target.first() == Some(&b'/') {
                        above.clear();
                    }
                    for component in components(&target).rev() {
                        ahead.push_front(component);
                    }
                }
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) if ahead.is_empty() => {
                    return Ok(place(here, &above, name));
                }
                Err(rustix::io::Errno::INVAL) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let directory = rustix::fs::openat(&here, &name[..], flags, Mode::empty())?;
                    above.push((name, Arc::new(directory)));
                }
                Err(error) => return Err(error),
            }
        }
        let path = joined(&above);
        let directory = above.pop().map_or_else(|| self.root.clone(), |(_, directory)| directory);
        Ok(Place { directory, name: b".".to_vec(), path })
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec)
}

fn place(directory: Arc<OwnedFd>, above: &[(Vec<u8>, Arc<OwnedFd>)], name: Vec<u8>) -> Place {
    let mut path = joined(above);
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(&name);
    Place { directory, name, path }
}

fn joined(above: &[(Vec<u8>, Arc<OwnedFd>)]) -> Vec<u8> {
    if above.is_empty() {
        return b"/".to_vec();
    }
    above.iter().flat_map(|(name, _)| [b"/", &name[..]].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn read(tree: &Tree, path: &str) -> rustix::io::Result<Vec<u8>> {
        let place = tree.find(path.as_bytes(), LastLink::Follow)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.directory, &place.name[..], flags, Mode::empty())?;
        let mut content = [0; 64];
        let length = rustix::io::read(&file, &mut content)?;
        Ok(content[..length].to_vec())
    }

    #[test]
    fn no_path_and_no_link_leads_out() {
        let outside = tempfile::tempdir().expect("a directory");
        std::fs::write(outside.path().join("secret"), "secret").expect("a file");
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("directories");
        std::fs::write(root.join("inside"), "inside").expect("a file");
        symlink("../../../secret", root.join("a/b/up")).expect("a link");
        symlink(outside.path().join("secret"), root.join("absolute")).expect("a link");
        symlink("..", root.join("a/b/parent")).expect("a link");
        symlink("/inside", root.join("a/b/rooted")).expect("a link");
        symlink("loop", root.join("loop")).expect("a link");
        symlink(outside.path(), root.join("whole")).expect("a link");

        let tree = Tree::open(&root).expect("the root");
        for path in ["../secret", "/../secret", "a/../../secret", "a/b/up", "absolute", "whole/secret"] {
            assert_eq!(read(&tree, path), Err(rustix::io::Errno::NOENT), "{path}");
        }
        for path in ["inside", "/inside", "../inside", "a/b/parent/../inside", "a/b/rooted", "./a//../inside"]
        {
            assert_eq!(read(&tree, path).as_deref(), Ok(&b"inside"[..]), "{path}");
        }
        assert_eq!(read(&tree, "loop"), Err(rustix::io::Errno::LOOP));
        assert_eq!(read(&tree, "inside/x"), Err(rustix::io::Errno::NOTDIR));
    }

    #[test]
    fn paths_come_back_without_links() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("a/b")).expect("directories");
        symlink("a/b", root.path().join("short")).expect("a link");
        let tree = Tree::open(root.path()).expect("the root");
        let path = |text: &str, last| tree.find(text.as_bytes(), last).map(|place| place.path);
        assert_eq!(path("", LastLink::Follow).as_deref(), Ok(&b"/"[..]));
        assert_eq!(path("../..", LastLink::Follow).as_deref(), Ok(&b"/"[..]));
        assert_eq!(path("short/", LastLink::Follow).as_deref(), Ok(&b"/a/b"[..]));
        assert_eq!(path("short", LastLink::Keep).as_deref(), Ok(&b"/short"[..]));
        assert_eq!(path("short/new", LastLink::Follow).as_deref(), Ok(&b"/a/b/new"[..]));
        assert!(path("absent/new", LastLink::Follow).is_err());
        assert!(tree.find(b"a\0b", LastLink::Follow).is_err());
        assert!(tree.find(&[b'a'; PATH_MAX + 1], LastLink::Follow).is_err());
    }
}
