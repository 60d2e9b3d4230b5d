//! The CRC of POSIX `cksum` (IEEE Std 1003.1, cksum), taken piece by piece.
//!
//! It has the polynomial of zip's CRC-32 with all bits the other way round, and ends with
//! the length. So zip's, which processors are good at, does it with every byte reversed.

use crc32fast::Hasher;

/// Bytes that are reversed at a time; they stay in the cache.
const REVERSED_BYTES: usize = 4096;
/// zip's way of writing down an empty register.
const EMPTY: u32 = u32::MAX;

/// Under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc(u32);

impl Crc {
    pub fn new() -> Crc {
        Crc(EMPTY)
    }

    pub fn resume(state: u32) -> Crc {
        Crc(state)
    }

    pub fn state(self) -> u32 {
        self.0
    }

    pub fn update(&mut self, data: &[u8]) {
        let mut hasher = Hasher::new_with_initial(self.0);
        let mut reversed = [0; REVERSED_BYTES];
        for part in data.chunks(REVERSED_BYTES) {
            for (to, from) in reversed.iter_mut().zip(part) {
                *to = from.reverse_bits();
            }
            hasher.update(&reversed[..part.len()]);
        }
        self.0 = hasher.finalize();
    }

    /// What `cksum` prints for all `length` bytes.
    pub fn finish(mut self, length: u64) -> u32 {
        let bytes = length.to_le_bytes();
        let significant = bytes.len() - length.leading_zeros() as usize / 8;
        self.update(&bytes[..significant]);
        !(!self.0).reverse_bits()
    }
}

impl Default for Crc {
    fn default() -> Crc {
        Crc::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_cksum_has_it() {
        for (data, expected) in [
            (&b""[..], 4_294_967_295),
            (b"abc", 1_219_131_554),
            (b"0123456789abcdef0123456789abcdef!", 1_739_839_717),
            (&[0; 70_000], 1_774_371_287),
        ] {
            for cut in [0, data.len() / 3, data.len()] {
                let mut first = Crc::new();
                first.update(&data[..cut]);
                let mut second = Crc::resume(first.state());
                second.update(&data[cut..]);
                assert_eq!(second.finish(data.len() as u64), expected, "cut at {cut}");
            }
        }
    }
}
