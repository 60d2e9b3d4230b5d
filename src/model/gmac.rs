//! GMAC (NIST SP 800-38D) with AES-128, taken chunk by chunk.
//!
//! Between two blocks of 16 bytes all that GHASH knows is one block, so it can stop and go
//! on there like SHA-256, at a third of the cost. The key guards against damage and not
//! against people: it is made for one upload and stands in the manifest.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use data_encoding::HEXLOWER_PERMISSIVE;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

const BLOCK_BYTES: usize = 16;

type Block = [u8; BLOCK_BYTES];

/// An AES-128 key, as it is written in 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl Key {
    pub fn to_hex(self) -> String {
        HEXLOWER_PERMISSIVE.encode(&self.0)
    }

    /// 32 hexadecimal digits, either case.
    pub fn parse(text: &[u8]) -> Option<Key> {
        HEXLOWER_PERMISSIVE.decode(text).ok()?.try_into().ok().map(Key)
    }
}

/// Under way. The initialization vector is zero, as the key is used once.
#[derive(Debug, Clone)]
pub struct Gmac {
    key: Key,
    ghash: GHash,
    /// The state to go on from, which the next block takes in.
    before: Block,
    /// Whether `ghash` has taken a block, and with it `before`.
    begun: bool,
    partial: Block,
    partial_bytes: usize,
}

impl Gmac {
    pub fn new(key: Key) -> Gmac {
        Gmac::resume(key, [0; BLOCK_BYTES])
    }

    /// Goes on from a state that was reached after whole blocks.
    pub fn resume(key: Key, before: Block) -> Gmac {
        Gmac {
            key,
            ghash: GHash::new(&encrypt(key, [0; BLOCK_BYTES]).into()),
            before,
            begun: false,
            partial: [0; BLOCK_BYTES],
            partial_bytes: 0,
        }
    }

    pub fn update(&mut self, mut data: &[u8]) {
        if self.partial_bytes > 0 || !self.begun {
            let taken = data.len().min(BLOCK_BYTES - self.partial_bytes);
            self.partial[self.partial_bytes..self.partial_bytes + taken].copy_from_slice(&data[..taken]);
            self.partial_bytes += taken;
            data = &data[taken..];
            if self.partial_bytes < BLOCK_BYTES {
                return;
            }
            self.take(self.partial);
            self.partial_bytes = 0;
        }
        let (whole, rest) = data.split_at(data.len() - data.len() % BLOCK_BYTES);
        self.ghash.update_padded(whole);
        self.partial[..rest.len()].copy_from_slice(rest);
        self.partial_bytes = rest.len();
    }

    fn take(&mut self, mut block: Block) {
        if !self.begun {
            block.iter_mut().zip(self.before).for_each(|(byte, before)| *byte ^= before);
            self.begun = true;
        }
        self.ghash.update(&[block.into()]);
    }

    /// The state here; `None` inside a block.
    pub fn state(&self) -> Option<Block> {
        match (self.partial_bytes, self.begun) {
            (0, true) => Some(self.ghash.clone().finalize().into()),
            (0, false) => Some(self.before),
            _ => None,
        }
    }

    /// The tag of all `length` bytes.
    pub fn finish(mut self, length: u64) -> Block {
        if self.partial_bytes > 0 {
            let mut last = [0; BLOCK_BYTES];
            last[..self.partial_bytes].copy_from_slice(&self.partial[..self.partial_bytes]);
            self.take(last);
        }
        // All of it is data to be authenticated, none is enciphered.
        let mut lengths = [0; BLOCK_BYTES];
        lengths[..8].copy_from_slice(&length.wrapping_mul(8).to_be_bytes());
        self.take(lengths);
        let mut tag: Block = self.ghash.finalize().into();
        let mut counter = [0; BLOCK_BYTES];
        counter[BLOCK_BYTES - 1] = 1;
        tag.iter_mut().zip(encrypt(self.key, counter)).for_each(|(byte, pad)| *byte ^= pad);
        tag
    }
}

fn encrypt(key: Key, block: Block) -> Block {
    let mut block = block.into();
    Aes128::new(&key.0.into()).encrypt_block(&mut block);
    block.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    fn tag(pieces: &[&[u8]]) -> String {
        let mut gmac = Gmac::new(KEY);
        pieces.iter().for_each(|piece| gmac.update(piece));
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        gmac.finish(length).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `openssl mac -cipher AES-128-GCM -macopt hexkey:000102…0f -macopt hexiv:00…00 GMAC`.
    #[test]
    fn as_openssl_has_it() {
        for (data, expected) in [
            (&b""[..], "7346139595c0b41e497bbde365f42d0a"),
            (b"abc", "71c97e7265176abb1ea435384743293d"),
            (b"0123456789abcdef", "0bf321d441f9080306400b95f4037ccd"),
            (b"0123456789abcdef0123456789abcdef!", "a0500ba1d50f506d662594ef5978a555"),
        ] {
            assert_eq!(tag(&[data]), expected);
            for cut in 0..data.len() {
                assert_eq!(tag(&[&data[..cut], &data[cut..]]), expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn it_goes_on_where_it_was() {
        let data: Vec<u8> = (0..1000u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut whole = Gmac::new(KEY);
        whole.update(&data);
        for cut in [0, 16, 64, 512, 992] {
            let mut first = Gmac::new(KEY);
            first.update(&data[..cut]);
            let state = first.state().expect("between two blocks");
            let mut second = Gmac::resume(KEY, state);
            assert_eq!(second.state(), Some(state));
            second.update(&data[cut..]);
            assert_eq!(second.finish(1000), whole.clone().finish(1000), "cut at {cut}");
        }
        assert_eq!(whole.state(), None);
    }
}
