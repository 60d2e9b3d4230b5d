//! The file operations of one SFTP session, as the kernel does them. Blocking.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh_sftp::protocol::{FileAttributes, OpenFlags};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, StatVfs, Timespec, Timestamps, Uid};
use rustix::io::{Errno, Result};

use super::tree::{LastLink, Place, Tree};

/// Open handles of one session.
pub const HANDLES_MAX: usize = 256;
/// Most bytes of one READ or WRITE, as OpenSSH has it.
pub const DATA_MAX: u32 = 261_120;
/// Names that one READDIR brings.
const NAMES_PER_REPLY: usize = 100;
/// Bytes that a copy moves at once.
const COPY_STEP: usize = 1 << 20;

/// One session's handles over the served tree.
pub struct Store {
    tree: Tree,
    handles: Mutex<Handles>,
}

#[derive(Default)]
struct Handles {
    /// Never used twice, so that a stale handle is no other file.
    next: u64,
    open: HashMap<String, Arc<Opened>>,
}

enum Opened {
    File {
        file: OwnedFd,
        append: bool,
    },
    /// `None` once all names were told.
    Directory {
        names: Mutex<Option<Dir>>,
        place: OwnedFd,
    },
}

impl Store {
    pub fn new(tree: Tree) -> Store {
        Store { tree, handles: Mutex::default() }
    }

    pub fn open(&self, path: &[u8], how: OpenFlags, attributes: &FileAttributes) -> Result<String> {
        let exclusive = how.contains(OpenFlags::CREATE | OpenFlags::EXCLUDE);
        // O_EXCL does not follow a link, so the walk does not either.
        let place = self.tree.find(path, if exclusive { LastLink::Keep } else { LastLink::Follow })?;
        // NONBLOCK: a FIFO must not hold the session up.
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags |= match (how.contains(OpenFlags::READ), how.contains(OpenFlags::WRITE)) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (true, false) => OFlags::RDONLY,
            (false, false) => return Err(Errno::INVAL),
        };
        for (flag, system) in [
            (OpenFlags::CREATE, OFlags::CREATE),
            (OpenFlags::TRUNCATE, OFlags::TRUNC),
            (OpenFlags::APPEND, OFlags::APPEND),
        ] {
            if how.contains(flag) {
                flags |= system;
            }
        }
        if exclusive {
            flags |= OFlags::EXCL;
        }
        let mode = Mode::from_raw_mode(attributes.permissions.unwrap_or(0o666) & 0o7777);
        let mut handles = self.handles();
        handles.check_room()?;
        let file = rustix::fs::openat(&place.directory, &place.name[..], flags, mode)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Err(Errno::INVAL);
        }
        Ok(handles.add(Opened::File { file, append: how.contains(OpenFlags::APPEND) }))
    }

    pub fn open_directory(&self, path: &[u8]) -> Result<String> {
        let place = self.tree.find(path, LastLink::Follow)?;
        let mut handles = self.handles();
        handles.check_room()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&place.directory, &place.name[..], flags, Mode::empty())?;
        let names = Dir::read_from(&directory)?;
        Ok(handles.add(Opened::Directory { names: Mutex::new(Some(names)), place: directory }))
    }

    pub fn close(&self, handle: &str) -> Result<()> {
        self.handles().open.remove(handle).map(drop).ok_or(Errno::BADF)
    }

    /// Fewer bytes at the end of the file, none after it.
    pub fn read(&self, handle: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
        let opened = self.get(handle)?;
        let mut data = vec![0; length.min(DATA_MAX) as usize];
        let read = read_full(opened.file()?, &mut data, offset)?;
        data.truncate(read);
        Ok(data)
    }

    pub fn write(&self, handle: &str, offset: u64, data: &[u8]) -> Result<()> {
        let opened = self.get(handle)?;
        if let Opened::File { file, append: true } = &*opened {
            let mut rest = data;
            while !rest.is_empty() {
                rest = &rest[wrote_something(rustix::io::write(file, rest)?)?..];
            }
            return Ok(());
        }
        write_full(opened.file()?, data, offset)
    }

    /// The next names of a directory; empty when all were told.
    pub fn read_names(&self, handle: &str) -> Result<Vec<(Vec<u8>, FileAttributes)>> {
        let opened = self.get(handle)?;
        let Opened::Directory { names, place } = &*opened else { return Err(Errno::BADF) };
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        while let Some(directory) = names.as_mut()
            && found.len() < NAMES_PER_REPLY
        {
            let Some(entry) = directory.read() else {
                *names = None;
                break;
            };
            let entry = entry?;
            // A name that went away since it was listed is not told.
            if let Ok(stat) = rustix::fs::statat(place, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                found.push((entry.file_name().to_bytes().to_vec(), attributes_of(&stat)));
            }
        }
        Ok(found)
    }

    pub fn stat(&self, path: &[u8], last: LastLink) -> Result<FileAttributes> {
        let place = self.tree.find(path, last)?;
        let stat = rustix::fs::statat(&place.directory, &place.name[..], AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(attributes_of(&stat))
    }

    pub fn stat_handle(&self, handle: &str) -> Result<FileAttributes> {
        Ok(attributes_of(&rustix::fs::fstat(self.get(handle)?.descriptor())?))
    }

    /// Through a descriptor, so that the name cannot be swapped meanwhile; what this
    /// account can neither read nor write stays as it is.
    pub fn set_attributes(&self, path: &[u8], attributes: &FileAttributes) -> Result<()> {
        let place = self.tree.find(path, LastLink::Follow)?;
        let open = |access| {
            let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            rustix::fs::openat(&place.directory, &place.name[..], flags, Mode::empty())
        };
        let first = if attributes.size.is_some() { OFlags::WRONLY } else { OFlags::RDONLY };
        let file = match open(first) {
            Err(Errno::ACCESS) => open(OFlags::WRONLY)?,
            opened => opened?,
        };
        set(&file, attributes)
    }

    pub fn set_handle_attributes(&self, handle: &str, attributes: &FileAttributes) -> Result<()> {
        set(self.get(handle)?.descriptor(), attributes)
    }

    pub fn make_directory(&self, path: &[u8], attributes: &FileAttributes) -> Result<()> {
        let place = self.tree.find(path, LastLink::Keep)?;
        let mode = Mode::from_raw_mode(attributes.permissions.unwrap_or(0o777) & 0o7777);
        rustix::fs::mkdirat(&place.directory, &place.name[..], mode)
    }

    pub fn remove_directory(&self, path: &[u8]) -> Result<()> {
        let place = self.tree.find(path, LastLink::Keep)?;
        rustix::fs::unlinkat(&place.directory, &place.name[..], AtFlags::REMOVEDIR)
    }

    pub fn remove(&self, path: &[u8]) -> Result<()> {
        let place = self.tree.find(path, LastLink::Keep)?;
        rustix::fs::unlinkat(&place.directory, &place.name[..], AtFlags::empty())
    }

    /// Fails when `to` exists: by link and unlink, as OpenSSH has it, or for a directory,
    /// which cannot be linked, after a look.
    pub fn rename(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = self.two_places(from, to)?;
        let stat = rustix::fs::statat(&from.directory, &from.name[..], AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            link(&from, &to)?;
            return rustix::fs::unlinkat(&from.directory, &from.name[..], AtFlags::empty());
        }
        match rustix::fs::statat(&to.directory, &to.name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => {
                rustix::fs::renameat(&from.directory, &from.name[..], &to.directory, &to.name[..])
            }
            Err(error) => Err(error),
        }
    }

    pub fn rename_over(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = self.two_places(from, to)?;
        rustix::fs::renameat(&from.directory, &from.name[..], &to.directory, &to.name[..])
    }

    pub fn hard_link(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = self.two_places(from, to)?;
        link(&from, &to)
    }

    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let place = self.tree.find(path, LastLink::Keep)?;
        Ok(rustix::fs::readlinkat(&place.directory, &place.name[..], Vec::new())?.into_bytes())
    }

    /// The path without links; its last component need not exist.
    pub fn real_path(&self, path: &[u8]) -> Result<Vec<u8>> {
        Ok(self.tree.find(path, LastLink::Follow)?.path)
    }

    pub fn sync(&self, handle: &str) -> Result<()> {
        rustix::fs::fsync(self.get(handle)?.descriptor())
    }

    /// Of the file system that the whole tree is taken to stand on.
    pub fn space(&self, path: &[u8]) -> Result<StatVfs> {
        let place = self.tree.find(path, LastLink::Follow)?;
        rustix::fs::statat(&place.directory, &place.name[..], AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::fstatvfs(&place.directory)
    }

    /// `length` 0 is up to the end of the file. Gives the bytes copied; a source that
    /// ends early is no error, as with OpenSSH.
    pub fn copy(&self, from: &str, from_offset: u64, length: u64, to: &str, to_offset: u64) -> Result<u64> {
        let (from, to) = (self.get(from)?, self.get(to)?);
        let (from, to) = (from.file()?, to.file()?);
        let length = if length == 0 { u64::MAX } else { length };
        let mut buffer = vec![0; COPY_STEP];
        let mut copied = 0;
        while copied < length {
            let step = usize::try_from(length - copied).unwrap_or(COPY_STEP).min(COPY_STEP);
            let read = read_full(from, &mut buffer[..step], offset_after(from_offset, copied)?)?;
            if read == 0 {
                break;
            }
            write_full(to, &buffer[..read], offset_after(to_offset, copied)?)?;
            copied += read as u64;
        }
        Ok(copied)
    }

    fn two_places(&self, from: &[u8], to: &[u8]) -> Result<(Place, Place)> {
        Ok((self.tree.find(from, LastLink::Keep)?, self.tree.find(to, LastLink::Keep)?))
    }

    fn get(&self, handle: &str) -> Result<Arc<Opened>> {
        self.handles().open.get(handle).cloned().ok_or(Errno::BADF)
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handles {
    fn check_room(&self) -> Result<()> {
        if self.open.len() < HANDLES_MAX { Ok(()) } else { Err(Errno::MFILE) }
    }

    fn add(&mut self, opened: Opened) -> String {
        self.next += 1;
        let handle = self.next.to_string();
        self.open.insert(handle.clone(), Arc::new(opened));
        handle
    }
}

impl Opened {
    fn file(&self) -> Result<&OwnedFd> {
        match self {
            Opened::File { file, .. } => Ok(file),
            Opened::Directory { .. } => Err(Errno::BADF),
        }
    }

    fn descriptor(&self) -> &OwnedFd {
        match self {
            Opened::File { file, .. } => file,
            Opened::Directory { place, .. } => place,
        }
    }
}

fn link(from: &Place, to: &Place) -> Result<()> {
    rustix::fs::linkat(&from.directory, &from.name[..], &to.directory, &to.name[..], AtFlags::empty())
}

fn read_full(file: &OwnedFd, data: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pread(file, &mut data[done..], offset_after(offset, done as u64)?) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn write_full(file: &OwnedFd, data: &[u8], offset: u64) -> Result<()> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(file, &data[done..], offset_after(offset, done as u64)?) {
            Ok(wrote) => done += wrote_something(wrote)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wrote_something(bytes: usize) -> Result<usize> {
    if bytes == 0 { Err(Errno::IO) } else { Ok(bytes) }
}

fn offset_after(offset: u64, bytes: u64) -> Result<u64> {
    offset.checked_add(bytes).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::FBIG)
}

/// Size, mode, times, owner, in the order that OpenSSH takes.
fn set(file: &OwnedFd, attributes: &FileAttributes) -> Result<()> {
    if let Some(size) = attributes.size {
        rustix::fs::ftruncate(file, size)?;
    }
    if let Some(mode) = attributes.permissions {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?;
    }
    if let (Some(accessed), Some(modified)) = (attributes.atime, attributes.mtime) {
        let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        rustix::fs::futimens(
            file,
            &Timestamps { last_access: at(accessed), last_modification: at(modified) },
        )?;
    }
    if let (Some(uid), Some(gid)) = (attributes.uid, attributes.gid) {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// The library's own conversion calls a symbolic link a regular file.
fn attributes_of(stat: &Stat) -> FileAttributes {
    // The protocol has 32 bits of seconds; what does not fit is told as its limit.
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    FileAttributes {
        size: u64::try_from(stat.st_size).ok(),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
        permissions: Some(stat.st_mode),
        atime: Some(seconds(stat.st_atime)),
        mtime: Some(seconds(stat.st_mtime)),
        ..FileAttributes::default()
    }
}
