//! SFTP version 3 over one channel, on russh-sftp's server side.
//!
//! That library carries paths as text: a path that is no UTF-8 is refused here, and a
//! name that is no UTF-8 is listed with U+FFFD in the place of what was lost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
    Version,
};
use russh_sftp::server::StatusReply;
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::link::Traffic;
use super::store::{DATA_MAX, HANDLES_MAX, Store};
use super::tree::{LastLink, Tree};

/// Longest packet, as OpenSSH has it: the data and what stands around them.
pub const PACKET_MAX: u32 = 262_144;

const EXTENSIONS: [(&str, &str); 6] = [
    ("posix-rename@openssh.com", "1"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("limits@openssh.com", "1"),
    ("copy-data", "1"),
];

pub struct SftpSession {
    store: Arc<Store>,
    traffic: Arc<Traffic>,
    /// Dropped with the session, which is how the server knows that it has ended.
    _alive: mpsc::Sender<Infallible>,
}

impl SftpSession {
    pub fn new(tree: Tree, traffic: Arc<Traffic>, alive: mpsc::Sender<Infallible>) -> SftpSession {
        SftpSession { store: Arc::new(Store::new(tree)), traffic, _alive: alive }
    }

    /// Does `work`, which blocks, off the threads that serve connections.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> rustix::io::Result<T> + Send + 'static,
    ) -> Result<T, StatusReply> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(status_of),
            Err(error) => Err(StatusCode::Failure.with_message(error.to_string())),
        }
    }

    async fn extension(&self, id: u32, request: &str, data: Vec<u8>) -> Result<Packet, StatusReply> {
        let mut fields = Fields(&data);
        match request {
            "posix-rename@openssh.com" => {
                let (from, to) = (fields.path()?, fields.path()?);
                self.on_disk(move |store| store.rename_over(&from, &to)).await?;
            }
            "hardlink@openssh.com" => {
                let (from, to) = (fields.path()?, fields.path()?);
                self.on_disk(move |store| store.hard_link(&from, &to)).await?;
            }
            "fsync@openssh.com" => {
                let handle = fields.text()?;
                self.on_disk(move |store| store.sync(&handle)).await?;
            }
            "copy-data" => {
                let (from, from_offset, length) = (fields.text()?, fields.number()?, fields.number()?);
                let (to, to_offset) = (fields.text()?, fields.number()?);
                self.on_disk(move |store| store.copy(&from, from_offset, length, &to, to_offset)).await?;
            }
            "statvfs@openssh.com" => {
                let path = fields.path()?;
                let space = self.on_disk(move |store| store.space(&path)).await?;
                // ST_RDONLY and ST_NOSUID have the values that the protocol gives them.
                let flags = space.f_flag.bits() & 3;
                let counts = [space.f_bsize, space.f_frsize, space.f_blocks, space.f_bfree, space.f_bavail];
                let inodes = [space.f_files, space.f_ffree, space.f_favail];
                let rest = [space.f_fsid, flags, space.f_namemax];
                return Ok(numbers(id, counts.into_iter().chain(inodes).chain(rest)));
            }
            "limits@openssh.com" => {
                let data_max = u64::from(DATA_MAX);
                return Ok(numbers(id, [PACKET_MAX.into(), data_max, data_max, HANDLES_MAX as u64]));
            }
            _ => return Err(StatusCode::OpUnsupported.into()),
        }
        Ok(ok(id).into())
    }
}

impl russh_sftp::server::Handler for SftpSession {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Result<Version, StatusReply> {
        let mut version = Version::new();
        version.extensions.extend(EXTENSIONS.map(|(name, data)| (name.to_owned(), data.to_owned())));
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        path: String,
        how: OpenFlags,
        attributes: FileAttributes,
    ) -> Result<Handle, StatusReply> {
        let path = checked(path)?;
        let handle = self.on_disk(move |store| store.open(&path, how, &attributes)).await?;
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusReply> {
        self.on_disk(move |store| store.close(&handle)).await?;
        Ok(ok(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, length: u32) -> Result<Data, StatusReply> {
        let data = self.on_disk(move |store| store.read(&handle, offset, length)).await?;
        if data.is_empty() && length > 0 {
            return Err(StatusCode::Eof.into());
        }
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusReply> {
        let length = data.len() as u64;
        self.on_disk(move |store| store.write(&handle, offset, &data)).await?;
        self.traffic.wrote(length);
        Ok(ok(id))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let path = checked(path)?;
        let attrs = self.on_disk(move |store| store.stat(&path, LastLink::Keep)).await?;
        Ok(Attrs { id, attrs })
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let path = checked(path)?;
        let attrs = self.on_disk(move |store| store.stat(&path, LastLink::Follow)).await?;
        Ok(Attrs { id, attrs })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusReply> {
        let attrs = self.on_disk(move |store| store.stat_handle(&handle)).await?;
        Ok(Attrs { id, attrs })
    }

    async fn setstat(
        &mut self,
        id: u32,
        path: String,
        attributes: FileAttributes,
    ) -> Result<Status, StatusReply> {
        let path = checked(path)?;
        self.on_disk(move |store| store.set_attributes(&path, &attributes)).await?;
        Ok(ok(id))
    }

    async fn fsetstat(
        &mut self,
        id: u32,
        handle: String,
        attributes: FileAttributes,
    ) -> Result<Status, StatusReply> {
        self.on_disk(move |store| store.set_handle_attributes(&handle, &attributes)).await?;
        Ok(ok(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusReply> {
        let path = checked(path)?;
        let handle = self.on_disk(move |store| store.open_directory(&path)).await?;
        Ok(Handle { id, handle })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusReply> {
        let names = self.on_disk(move |store| store.read_names(&handle)).await?;
        if names.is_empty() {
            return Err(StatusCode::Eof.into());
        }
        let file = |(name, attributes): (Vec<u8>, _)| File::new(String::from_utf8_lossy(&name), attributes);
        Ok(Name { id, files: names.into_iter().map(file).collect() })
    }

    async fn remove(&mut self, id: u32, path: String) -> Result<Status, StatusReply> {
        let path = checked(path)?;
        self.on_disk(move |store| store.remove(&path)).await?;
        Ok(ok(id))
    }

    async fn mkdir(
        &mut self,
        id: u32,
        path: String,
        attributes: FileAttributes,
    ) -> Result<Status, StatusReply> {
        let path = checked(path)?;
        self.on_disk(move |store| store.make_directory(&path, &attributes)).await?;
        Ok(ok(id))
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Result<Status, StatusReply> {
        let path = checked(path)?;
        self.on_disk(move |store| store.remove_directory(&path)).await?;
        Ok(ok(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        let path = checked(path)?;
        let real = self.on_disk(move |store| store.real_path(&path)).await?;
        name_reply(id, real)
    }

    async fn readlink(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        let path = checked(path)?;
        let target = self.on_disk(move |store| store.read_link(&path)).await?;
        name_reply(id, target)
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, StatusReply> {
        let (from, to) = (checked(from)?, checked(to)?);
        self.on_disk(move |store| store.rename(&from, &to)).await?;
        Ok(ok(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Result<Packet, StatusReply> {
        self.extension(id, &request, data).await
    }
}

/// What is left of an extended request's data.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], StatusReply> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(StatusCode::BadMessage)?;
        self.0 = rest;
        Ok(field)
    }

    fn number(&mut self) -> Result<u64, StatusReply> {
        let bytes = self.take(8)?.try_into().map_err(|_| StatusCode::BadMessage)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn text(&mut self) -> Result<String, StatusReply> {
        let length = self.take(4)?.try_into().map_err(|_| StatusCode::BadMessage)?;
        let bytes = self.take(u32::from_be_bytes(length) as usize)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn path(&mut self) -> Result<Vec<u8>, StatusReply> {
        checked(self.text()?)
    }
}

/// The path's bytes, if they are the ones that the client sent.
fn checked(path: String) -> Result<Vec<u8>, StatusReply> {
    if path.contains(char::REPLACEMENT_CHARACTER) {
        return Err(StatusCode::Failure.with_message("this server takes UTF-8 names only"));
    }
    Ok(path.into_bytes())
}

fn name_reply(id: u32, path: Vec<u8>) -> Result<Name, StatusReply> {
    let text = String::from_utf8(path)
        .map_err(|_| StatusCode::Failure.with_message("the name is no UTF-8, which this server needs"))?;
    Ok(Name { id, files: vec![File::dummy(text)] })
}

fn numbers(id: u32, numbers: impl IntoIterator<Item = u64>) -> Packet {
    ExtendedReply { id, data: numbers.into_iter().flat_map(u64::to_be_bytes).collect() }.into()
}

fn ok(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Success".into(), language_tag: String::new() }
}

/// As OpenSSH maps them.
fn status_of(error: Errno) -> StatusReply {
    let code = match error {
        Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => StatusCode::NoSuchFile,
        Errno::PERM | Errno::ACCESS => StatusCode::PermissionDenied,
        Errno::NAMETOOLONG | Errno::INVAL => StatusCode::BadMessage,
        Errno::NOSYS => StatusCode::OpUnsupported,
        _ => StatusCode::Failure,
    };
    code.with_message(std::io::Error::from(error).to_string())
}
