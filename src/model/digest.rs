//! SHA-256 of the whole file, taken chunk by chunk.
//!
//! The state of SHA-256 between two chunks (FIPS 180-4, 6.2: eight words) is kept in the
//! manifest. It serves twice: hashing goes on from it after a cut without reading what
//! went before, and a chunk is proven to be the one it was by hashing it from the state
//! before it and comparing the state after it.

use std::fmt;

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// 64 hexadecimal digits, either case.
    pub fn parse(text: &[u8]) -> Option<Digest> {
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes a file from its start or from a known state.
#[derive(Debug, Clone, Default)]
pub struct Sha256Chain {
    hasher: Sha256,
    hashed: u64,
}

impl Sha256Chain {
    pub fn new() -> Sha256Chain {
        Sha256Chain::default()
    }

    /// Goes on from `state`, SHA-256's eight words, big-endian, as they were after `offset`
    /// bytes; `None` when `offset` does not lie between two blocks.
    pub fn resume(state: [u8; 32], offset: u64) -> Option<Sha256Chain> {
        if !offset.is_multiple_of(64) {
            return None;
        }
        if offset == 0 {
            return Some(Sha256Chain::new());
        }
        let mut serialized = Sha256::new().serialize();
        for (word, bytes) in state.chunks_exact(4).enumerate() {
            for (i, byte) in bytes.iter().rev().enumerate() {
                serialized[word * 4 + i] = *byte;
            }
        }
        serialized[32..40].copy_from_slice(&(offset / 64).to_le_bytes());
        let hasher = Sha256::deserialize(&serialized).ok()?;
        Some(Sha256Chain { hasher, hashed: offset })
    }

    pub fn update(&mut self, data: &[u8]) {
        self.hasher.update(data);
        self.hashed += data.len() as u64;
    }

    /// The state here; `None` inside a block.
    pub fn state(&self) -> Option<[u8; 32]> {
        if !self.hashed.is_multiple_of(64) {
            return None;
        }
        let serialized = self.hasher.serialize();
        let mut state = [0; 32];
        for (word, bytes) in state.chunks_exact_mut(4).enumerate() {
            for (i, byte) in bytes.iter_mut().rev().enumerate() {
                *byte = serialized[word * 4 + i];
            }
        }
        Some(state)
    }

    pub fn finish(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_on_where_it_was() {
        let data: Vec<u8> = (0..100_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let whole = {
            let mut chain = Sha256Chain::new();
            chain.update(&data);
            chain.finish()
        };
        assert_eq!(whole.0[..], Sha256::digest(&data)[..]);
        for cut in [0, 64, 4096, 64 * 1500] {
            let mut first = Sha256Chain::new();
            first.update(&data[..cut]);
            let state = first.state().expect("between two blocks");
            let mut second = Sha256Chain::resume(state, cut as u64).expect("between two blocks");
            second.update(&data[cut..]);
            assert_eq!(second.finish(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_state_is_the_eight_words_of_the_standard() {
        let start = Sha256Chain::new().state().expect("nothing hashed yet");
        assert_eq!(start[..4], 0x6a09_e667u32.to_be_bytes());
        assert_eq!(start[28..], 0x5be0_cd19u32.to_be_bytes());
    }

    #[test]
    fn no_state_inside_a_block() {
        let mut chain = Sha256Chain::new();
        chain.update(b"abc");
        assert_eq!(chain.state(), None);
        assert!(Sha256Chain::resume([0; 32], 3).is_none());
    }

    #[test]
    fn digests_are_read_strictly() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::parse(text.as_bytes()).map(|d| d.to_string()).as_deref(), Some(text));
        assert_eq!(Digest::parse(&text.as_bytes()[1..]), None);
        assert_eq!(Digest::parse(&[b'g'; 64]), None);
    }
}
