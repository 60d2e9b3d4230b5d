//! What proves that bytes are the same: SHA-256, or with `--verify fast` a keyed MAC or a CRC.
//!
//! All three are taken chunk by chunk, and have a state between two chunks from which they
//! go on. The manifest keeps that of every chunk.

use std::fmt;

use super::crc::Crc;
use super::digest::{Digest, Sha256Chain};
use super::gmac::{Gmac, Key};

/// Blocks of this size are whole blocks of each method.
pub const BLOCK_BYTES: u64 = 64;

/// How it is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Sha256,
    /// GMAC with AES-128 and this key.
    Gmac(Key),
    /// As POSIX `cksum`.
    Crc,
}

impl Method {
    /// Whether it is at least as strong as `wanted`.
    pub fn serves(self, wanted: Method) -> bool {
        self == Method::Sha256 || wanted != Method::Sha256
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Sha256 => "SHA-256",
            Method::Gmac(_) => "GMAC",
            Method::Crc => "CRC",
        })
    }
}

/// Of a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    Sha256(Digest),
    Gmac([u8; 16]),
    Crc(u32),
}

impl Checksum {
    pub fn sha256(self) -> Option<Digest> {
        match self {
            Checksum::Sha256(digest) => Some(digest),
            Checksum::Gmac(_) | Checksum::Crc(_) => None,
        }
    }

    /// As the last line of a manifest has it.
    pub fn to_line(self) -> [u8; 32] {
        match self {
            Checksum::Sha256(digest) => digest.0,
            Checksum::Gmac(tag) => filled_up(&tag),
            Checksum::Crc(crc) => filled_up(&crc.to_be_bytes()),
        }
    }

    pub fn from_line(method: Method, line: [u8; 32]) -> Checksum {
        match method {
            Method::Sha256 => Checksum::Sha256(Digest(line)),
            Method::Gmac(_) => Checksum::Gmac(beginning(line)),
            Method::Crc => Checksum::Crc(u32::from_be_bytes(beginning(line))),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Checksum::Sha256(digest) => digest.fmt(f),
            Checksum::Gmac(tag) => tag.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Checksum::Crc(crc) => crc.fmt(f),
        }
    }
}

/// What a method knows between two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainState {
    pub method: Method,
    /// As a line of a manifest has it.
    pub line: [u8; 32],
}

/// Takes a file's bytes, from its start or from a known state on.
#[derive(Debug, Clone)]
pub struct Chain {
    under_way: UnderWay,
    taken: u64,
}

#[derive(Debug, Clone)]
enum UnderWay {
    Sha256(Sha256Chain),
    Gmac(Key, Box<Gmac>),
    Crc(Crc),
}

impl Chain {
    pub fn new(method: Method) -> Chain {
        let under_way = match method {
            Method::Sha256 => UnderWay::Sha256(Sha256Chain::new()),
            Method::Gmac(key) => UnderWay::Gmac(key, Box::new(Gmac::new(key))),
            Method::Crc => UnderWay::Crc(Crc::new()),
        };
        Chain { under_way, taken: 0 }
    }

    /// Goes on from `state`, reached after `offset` bytes; `None` when `offset` does not lie
    /// between two blocks.
    pub fn resume(state: ChainState, offset: u64) -> Option<Chain> {
        if !offset.is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        if offset == 0 {
            return Some(Chain::new(state.method));
        }
        let under_way = match state.method {
            Method::Sha256 => UnderWay::Sha256(Sha256Chain::resume(state.line, offset)?),
            Method::Gmac(key) => UnderWay::Gmac(key, Box::new(Gmac::resume(key, beginning(state.line)))),
            Method::Crc => UnderWay::Crc(Crc::resume(u32::from_be_bytes(beginning(state.line)))),
        };
        Some(Chain { under_way, taken: offset })
    }

    pub fn method(&self) -> Method {
        match &self.under_way {
            UnderWay::Sha256(_) => Method::Sha256,
            UnderWay::Gmac(key, _) => Method::Gmac(*key),
            UnderWay::Crc(_) => Method::Crc,
        }
    }

    pub fn update(&mut self, data: &[u8]) {
        match &mut self.under_way {
            UnderWay::Sha256(chain) => chain.update(data),
            UnderWay::Gmac(_, gmac) => gmac.update(data),
            UnderWay::Crc(crc) => crc.update(data),
        }
        self.taken += data.len() as u64;
    }

    /// How many bytes of the file, from its start, it knows of.
    pub fn hashed(&self) -> u64 {
        self.taken
    }

    /// The state here; `None` inside a block.
    pub fn state(&self) -> Option<ChainState> {
        if !self.taken.is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        let line = match &self.under_way {
            UnderWay::Sha256(chain) => chain.state()?,
            UnderWay::Gmac(_, gmac) => filled_up(&gmac.state()?),
            UnderWay::Crc(crc) => filled_up(&crc.state().to_be_bytes()),
        };
        Some(ChainState { method: self.method(), line })
    }

    pub fn finish(self) -> Checksum {
        match self.under_way {
            UnderWay::Sha256(chain) => Checksum::Sha256(chain.finish()),
            UnderWay::Gmac(_, gmac) => Checksum::Gmac(gmac.finish(self.taken)),
            UnderWay::Crc(crc) => Checksum::Crc(crc.finish(self.taken)),
        }
    }
}

fn filled_up(bytes: &[u8]) -> [u8; 32] {
    let mut line = [0; 32];
    line[..bytes.len()].copy_from_slice(bytes);
    line
}

fn beginning<const N: usize>(line: [u8; 32]) -> [u8; N] {
    std::array::from_fn(|i| line[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_goes_on_where_it_was() {
        let data: Vec<u8> = (0..10_000u32).map(|n| (n * 7 % 251) as u8).collect();
        for method in [Method::Sha256, Method::Gmac(Key([7; 16])), Method::Crc] {
            let mut whole = Chain::new(method);
            whole.update(&data);
            for cut in [0, 64, 4096, 9984] {
                let mut first = Chain::new(method);
                first.update(&data[..cut]);
                let state = first.state().expect("between two blocks");
                let mut second = Chain::resume(state, cut as u64).expect("between two blocks");
                assert_eq!((second.method(), second.hashed()), (method, cut as u64));
                second.update(&data[cut..]);
                assert_eq!(second.finish(), whole.clone().finish(), "{method:?} cut at {cut}");
            }
            assert_eq!(whole.state(), None);
            let checksum = whole.finish();
            assert_eq!(Checksum::from_line(method, checksum.to_line()), checksum);
        }
        let state = Chain::new(Method::Crc).state().expect("at the start");
        assert!(Chain::resume(state, 3).is_none());
    }

    #[test]
    fn what_is_weaker_does_not_serve() {
        let mac = Method::Gmac(Key([1; 16]));
        assert!(Method::Sha256.serves(mac) && mac.serves(Method::Crc) && Method::Crc.serves(mac));
        assert!(!mac.serves(Method::Sha256) && !Method::Crc.serves(Method::Sha256));
    }
}
