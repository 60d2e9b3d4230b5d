//! Encodes what an SFTP version 3 client asks. Pure.

use bytes::{BufMut, BytesMut};

use super::codec::{ATTR_MODE, ATTR_OWNER, ATTR_SIZE, ATTR_TIMES};
use crate::remote::files::{OpenMode, SetAttributes};

/// The version that is spoken.
pub const PROTOCOL_VERSION: u32 = 3;

const INIT: u8 = 1;
const EXTENDED: u8 = 200;

const OPEN_READ: u32 = 0x01;
const OPEN_WRITE: u32 = 0x02;
const OPEN_CREATE: u32 = 0x08;
const OPEN_TRUNCATE: u32 = 0x10;
const OPEN_EXCLUSIVE: u32 = 0x20;

/// The bytes of a packet's length field.
const LENGTH_BYTES: usize = 4;
/// A head has room for this much without growing; longer paths grow it.
const HEAD_BYTES: usize = 160;

/// One request; paths and handles are borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    Open {
        path: &'a [u8],
        how: OpenMode,
        mode: Option<u32>,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    /// The payload follows the head, uncopied.
    Write {
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    Stat {
        path: &'a [u8],
    },
    LinkStat {
        path: &'a [u8],
    },
    HandleStat {
        handle: &'a [u8],
    },
    SetStat {
        path: &'a [u8],
        attributes: SetAttributes,
    },
    SetHandleStat {
        handle: &'a [u8],
        attributes: SetAttributes,
    },
    OpenDirectory {
        path: &'a [u8],
    },
    ReadDirectory {
        handle: &'a [u8],
    },
    Remove {
        path: &'a [u8],
    },
    MakeDirectory {
        path: &'a [u8],
        mode: u32,
    },
    RemoveDirectory {
        path: &'a [u8],
    },
    RealPath {
        path: &'a [u8],
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    ReadLink {
        path: &'a [u8],
    },
    PosixRename {
        from: &'a [u8],
        to: &'a [u8],
    },
    HardLink {
        from: &'a [u8],
        to: &'a [u8],
    },
    Sync {
        handle: &'a [u8],
    },
    FileSystem {
        path: &'a [u8],
    },
    CopyData {
        from: &'a [u8],
        from_offset: u64,
        length: u64,
        to: &'a [u8],
        to_offset: u64,
    },
    Limits,
}

/// The packet that opens a session.
pub fn encode_init() -> BytesMut {
    let mut head = Head::new(INIT);
    head.0.put_u32(PROTOCOL_VERSION);
    head.finish(0)
}

impl Request<'_> {
    /// The whole packet; for a `Write`, all before its payload.
    pub fn encode(&self, id: u32) -> BytesMut {
        let mut head = Head::new(self.packet_type());
        head.0.put_u32(id);
        if let Some(name) = self.extension() {
            head.string(name.as_bytes());
        }
        let mut payload = 0;
        match *self {
            Request::Open { path, how, mode } => {
                head.string(path);
                head.0.put_u32(open_flags(how));
                head.attributes(SetAttributes { mode, ..SetAttributes::default() });
            }
            Request::Close { handle }
            | Request::HandleStat { handle }
            | Request::ReadDirectory { handle }
            | Request::Sync { handle } => head.string(handle),
            Request::Read { handle, offset, length } => {
                head.string(handle);
                head.0.put_u64(offset);
                head.0.put_u32(length);
            }
            Request::Write { handle, offset, length } => {
                head.string(handle);
                head.0.put_u64(offset);
                head.0.put_u32(length);
                payload = length;
            }
            Request::Stat { path }
            | Request::LinkStat { path }
            | Request::OpenDirectory { path }
            | Request::Remove { path }
            | Request::RemoveDirectory { path }
            | Request::RealPath { path }
            | Request::ReadLink { path }
            | Request::FileSystem { path } => head.string(path),
            Request::SetStat { path, attributes } => {
                head.string(path);
                head.attributes(attributes);
            }
            Request::SetHandleStat { handle, attributes } => {
                head.string(handle);
                head.attributes(attributes);
            }
            Request::MakeDirectory { path, mode } => {
                head.string(path);
                head.attributes(SetAttributes { mode: Some(mode), ..SetAttributes::default() });
            }
            Request::Rename { from, to }
            | Request::PosixRename { from, to }
            | Request::HardLink { from, to } => {
                head.string(from);
                head.string(to);
            }
            Request::CopyData { from, from_offset, length, to, to_offset } => {
                head.string(from);
                head.0.put_u64(from_offset);
                head.0.put_u64(length);
                head.string(to);
                head.0.put_u64(to_offset);
            }
            Request::Limits => {}
        }
        head.finish(payload)
    }

    fn packet_type(&self) -> u8 {
        match self {
            Request::Open { .. } => 3,
            Request::Close { .. } => 4,
            Request::Read { .. } => 5,
            Request::Write { .. } => 6,
            Request::LinkStat { .. } => 7,
            Request::HandleStat { .. } => 8,
            Request::SetStat { .. } => 9,
            Request::SetHandleStat { .. } => 10,
            Request::OpenDirectory { .. } => 11,
            Request::ReadDirectory { .. } => 12,
            Request::Remove { .. } => 13,
            Request::MakeDirectory { .. } => 14,
            Request::RemoveDirectory { .. } => 15,
            Request::RealPath { .. } => 16,
            Request::Stat { .. } => 17,
            Request::Rename { .. } => 18,
            Request::ReadLink { .. } => 19,
            Request::PosixRename { .. }
            | Request::HardLink { .. }
            | Request::Sync { .. }
            | Request::FileSystem { .. }
            | Request::CopyData { .. }
            | Request::Limits => EXTENDED,
        }
    }

    fn extension(&self) -> Option<&'static str> {
        match self {
            Request::PosixRename { .. } => Some("posix-rename@openssh.com"),
            Request::HardLink { .. } => Some("hardlink@openssh.com"),
            Request::Sync { .. } => Some("fsync@openssh.com"),
            Request::FileSystem { .. } => Some("statvfs@openssh.com"),
            Request::CopyData { .. } => Some("copy-data"),
            Request::Limits => Some("limits@openssh.com"),
            _ => None,
        }
    }
}

fn open_flags(how: OpenMode) -> u32 {
    let OpenMode { read, write, create, truncate, exclusive } = how;
    [
        (read, OPEN_READ),
        (write, OPEN_WRITE),
        (create, OPEN_CREATE),
        (truncate, OPEN_TRUNCATE),
        (exclusive, OPEN_EXCLUSIVE),
    ]
    .into_iter()
    .fold(0, |flags, (wanted, flag)| if wanted { flags | flag } else { flags })
}

/// A packet that grows behind room for its length.
struct Head(BytesMut);

impl Head {
    fn new(kind: u8) -> Head {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        Head(bytes)
    }

    /// The caller has bounded `bytes` far below 4 GiB.
    fn string(&mut self, bytes: &[u8]) {
        self.0.put_u32(bytes.len() as u32);
        self.0.put_slice(bytes);
    }

    fn attributes(&mut self, attributes: SetAttributes) {
        let SetAttributes { size, mode, owner, times } = attributes;
        let mut flags = 0;
        flags |= if size.is_some() { ATTR_SIZE } else { 0 };
        flags |= if owner.is_some() { ATTR_OWNER } else { 0 };
        flags |= if mode.is_some() { ATTR_MODE } else { 0 };
        flags |= if times.is_some() { ATTR_TIMES } else { 0 };
        self.0.put_u32(flags);
        if let Some(size) = size {
            self.0.put_u64(size);
        }
        if let Some(owner) = owner {
            self.0.put_u32(owner.uid);
            self.0.put_u32(owner.gid);
        }
        if let Some(mode) = mode {
            self.0.put_u32(mode);
        }
        if let Some(times) = times {
            self.0.put_u32(times.accessed);
            self.0.put_u32(times.modified);
        }
    }

    fn finish(mut self, payload: u32) -> BytesMut {
        let length = (self.0.len() - LENGTH_BYTES) as u32 + payload;
        self.0[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::files::{Owner, Times};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn packets_are_as_the_draft_has_them() {
        let all = SetAttributes {
            size: Some(9),
            mode: Some(0o640),
            owner: Some(Owner { uid: 1, gid: 2 }),
            times: Some(Times { accessed: 3, modified: 4 }),
        };
        let table: [(BytesMut, &str); 8] = [
            (encode_init(), "000000050100000003"),
            (Request::Close { handle: b"\xff\0" }.encode(7), "0000000b040000000700000002ff00"),
            (
                Request::Open { path: b"a", how: OpenMode::CREATE_NEW, mode: Some(0o600) }.encode(1),
                "00000016030000000100000001610000002a0000000400000180",
            ),
            (
                Request::Write { handle: b"h", offset: 258, length: 5 }.encode(2),
                "0000001b06000000020000000168000000000000010200000005",
            ),
            (
                Request::SetStat { path: b"p", attributes: all }.encode(3),
                "0000002a090000000300000001700000000f00000000000000090000000100000002000001a00000000300000004",
            ),
            (Request::Rename { from: b"a", to: b"b" }.encode(4), "0000000f120000000400000001610000000162"),
            (
                Request::HardLink { from: b"a", to: b"b" }.encode(5),
                "00000027c80000000500000014686172646c696e6b406f70656e7373682e636f6d00000001610000000162",
            ),
            (
                Request::CopyData { from: b"a", from_offset: 1, length: 2, to: b"b", to_offset: 3 }.encode(6),
                "00000034c80000000600000009636f70792d6461746100000001610000000000000001000000000000000200000001620000000000000003",
            ),
        ];
        for (packet, expected) in table {
            assert_eq!(hex(&packet), expected);
        }
    }
}
