//! Decodes what an SFTP version 3 server sends. Pure: bytes in, values or an error out.
//!
//! Nothing here trusts a length or a count: each is checked against what has really
//! arrived, and no input panics.

use std::fmt;

use bytes::{Buf, Bytes};

use crate::remote::files::{Attributes, FileKind, Owner, Times};

/// The longest packet that is taken from a server, without its length field: what
/// OpenSSH allows, and room for the header of a full-sized DATA.
pub const MAX_REPLY_BYTES: usize = 256 * 1024 + 1024;
/// The longest handle (draft, section 6.2).
pub const MAX_HANDLE_BYTES: usize = 256;
/// The longest path in a NAME reply, and the longest that we ask about.
pub const MAX_PATH_BYTES: usize = 32 * 1024;
/// Extensions beyond this many in a VERSION are not looked at.
const MAX_EXTENSIONS: usize = 64;
/// Data shorter than this is copied out of the receive buffer, so that a few bytes
/// that live long do not hold a whole buffer.
const SHARE_FROM_BYTES: usize = 16 * 1024;

pub(super) const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

pub(super) const ATTR_SIZE: u32 = 0x1;
pub(super) const ATTR_OWNER: u32 = 0x2;
pub(super) const ATTR_MODE: u32 = 0x4;
pub(super) const ATTR_TIMES: u32 = 0x8;
const ATTR_EXTENDED: u32 = 0x8000_0000;

const MODE_TYPE: u32 = 0o170_000;
const MODE_BITS: u32 = 0o7777;

/// How a packet broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A field ends behind the end of its packet.
    Short,
    /// The length of a packet, or of a field in it, is past its limit.
    TooLong,
    /// A packet of this type is no reply.
    UnknownType(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Short => f.write_str("a packet that ends too early"),
            DecodeError::TooLong => f.write_str("a packet past the limits"),
            DecodeError::UnknownType(kind) => write!(f, "a packet of the unknown type {kind}"),
        }
    }
}

/// The server's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub version: u32,
    /// Names and versions as announced.
    pub extensions: Vec<(Bytes, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: u32,
    /// The server's words: any bytes, often none.
    pub text: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub name: Vec<u8>,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Status(Status),
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Name>),
    Attributes(Attributes),
    Extended(Bytes),
}

/// What `limits@openssh.com` answers; 0 where the server does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub packet_bytes: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub open_handles: u64,
}

/// What `statvfs@openssh.com` answers, without the fields nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    pub fragment_bytes: u64,
    pub blocks: u64,
    pub available_blocks: u64,
    pub inodes: u64,
    pub available_inodes: u64,
    pub flags: u64,
    pub name_max: u64,
}

impl Attributes {
    /// Of which the server said nothing.
    pub(super) const UNKNOWN: Attributes =
        Attributes { kind: FileKind::Unknown, size: None, mode: None, owner: None, times: None };
}

/// The length that the first four bytes of `received` announce, if they are there.
pub fn packet_length(received: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some(field) = received.first_chunk::<4>() else {
        return Ok(None);
    };
    match u32::from_be_bytes(*field) as usize {
        length @ 1..=MAX_REPLY_BYTES => Ok(Some(length)),
        0 => Err(DecodeError::Short),
        _ => Err(DecodeError::TooLong),
    }
}

/// Decodes a VERSION; `packet` comes without its length field.
pub fn decode_greeting(packet: Bytes) -> Result<Greeting, DecodeError> {
    let mut fields = Fields(packet);
    match fields.byte()? {
        VERSION => {}
        kind => return Err(DecodeError::UnknownType(kind)),
    }
    let version = fields.u32()?;
    let mut extensions = Vec::new();
    while !fields.0.is_empty() && extensions.len() < MAX_EXTENSIONS {
        extensions.push((fields.string(MAX_REPLY_BYTES)?, fields.string(MAX_REPLY_BYTES)?));
    }
    Ok(Greeting { version, extensions })
}

/// Decodes a reply and the id of its request; `packet` comes without its length field.
pub fn decode_reply(packet: Bytes) -> Result<(u32, Reply), DecodeError> {
    let mut fields = Fields(packet);
    let kind = fields.byte()?;
    let id = fields.u32()?;
    let reply = match kind {
        STATUS => Reply::Status(fields.status()?),
        HANDLE => Reply::Handle(Bytes::copy_from_slice(&fields.string(MAX_HANDLE_BYTES)?)),
        DATA => {
            let data = fields.string(MAX_REPLY_BYTES)?;
            Reply::Data(if data.len() < SHARE_FROM_BYTES { Bytes::copy_from_slice(&data) } else { data })
        }
        NAME => Reply::Names(fields.names()?),
        ATTRS => Reply::Attributes(fields.attributes()?),
        EXTENDED_REPLY => Reply::Extended(fields.0),
        kind => return Err(DecodeError::UnknownType(kind)),
    };
    Ok((id, reply))
}

/// Decodes the body of the reply to `limits@openssh.com`.
pub fn decode_limits(body: Bytes) -> Result<Limits, DecodeError> {
    let mut fields = Fields(body);
    Ok(Limits {
        packet_bytes: fields.u64()?,
        read_bytes: fields.u64()?,
        write_bytes: fields.u64()?,
        open_handles: fields.u64()?,
    })
}

/// Decodes the body of the reply to `statvfs@openssh.com`.
pub fn decode_file_system(body: Bytes) -> Result<FileSystem, DecodeError> {
    let mut fields = Fields(body);
    let _block_bytes = fields.u64()?;
    let fragment_bytes = fields.u64()?;
    let blocks = fields.u64()?;
    let _free_blocks = fields.u64()?;
    let available_blocks = fields.u64()?;
    let inodes = fields.u64()?;
    let _free_inodes = fields.u64()?;
    let available_inodes = fields.u64()?;
    let _id = fields.u64()?;
    let flags = fields.u64()?;
    let name_max = fields.u64()?;
    Ok(FileSystem { fragment_bytes, blocks, available_blocks, inodes, available_inodes, flags, name_max })
}

/// What is left of a packet.
struct Fields(Bytes);

impl Fields {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.0.try_get_u8().map_err(|_| DecodeError::Short)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.0.try_get_u32().map_err(|_| DecodeError::Short)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.0.try_get_u64().map_err(|_| DecodeError::Short)
    }

    fn string(&mut self, limit: usize) -> Result<Bytes, DecodeError> {
        let length = self.u32()? as usize;
        if length > limit {
            return Err(DecodeError::TooLong);
        }
        if length > self.0.len() {
            return Err(DecodeError::Short);
        }
        Ok(self.0.split_to(length))
    }

    /// Servers leave out the words, and the language after them.
    fn status(&mut self) -> Result<Status, DecodeError> {
        let code = self.u32()?;
        let text = if self.0.is_empty() { Bytes::new() } else { self.string(MAX_REPLY_BYTES)? };
        Ok(Status { code, text })
    }

    fn names(&mut self) -> Result<Vec<Name>, DecodeError> {
        let count = self.u32()?;
        // Grows as entries are really there: the count alone reserves nothing.
        let mut names = Vec::new();
        for _ in 0..count {
            let name = self.string(MAX_PATH_BYTES)?.to_vec();
            // The answer to a REALPATH may lack what says nothing there anyway.
            let attributes = if self.0.is_empty() {
                Attributes::UNKNOWN
            } else {
                let _long_name = self.string(MAX_REPLY_BYTES)?;
                if self.0.is_empty() { Attributes::UNKNOWN } else { self.attributes()? }
            };
            names.push(Name { name, attributes });
        }
        Ok(names)
    }

    fn attributes(&mut self) -> Result<Attributes, DecodeError> {
        let flags = self.u32()?;
        let mut attributes = Attributes::UNKNOWN;
        if flags & ATTR_SIZE != 0 {
            attributes.size = Some(self.u64()?);
        }
        if flags & ATTR_OWNER != 0 {
            attributes.owner = Some(Owner { uid: self.u32()?, gid: self.u32()? });
        }
        if flags & ATTR_MODE != 0 {
            let mode = self.u32()?;
            attributes.kind = kind_of(mode);
            attributes.mode = Some(mode & MODE_BITS);
        }
        if flags & ATTR_TIMES != 0 {
            attributes.times = Some(Times { accessed: self.u32()?, modified: self.u32()? });
        }
        if flags & ATTR_EXTENDED != 0 {
            for _ in 0..self.u32()? {
                self.string(MAX_REPLY_BYTES)?;
                self.string(MAX_REPLY_BYTES)?;
            }
        }
        Ok(attributes)
    }
}

/// The kind that the type bits of a POSIX mode name.
fn kind_of(mode: u32) -> FileKind {
    match mode & MODE_TYPE {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        0 => FileKind::Unknown,
        _ => FileKind::Other,
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
