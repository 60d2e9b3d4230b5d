//! A file that looks random, made fast, and its SHA-256.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::model::digest::{Digest, Sha256Chain};

const BLOCK_BYTES: usize = 1 << 20;

/// Writes `size` bytes that depend on nothing but `seed`.
pub fn generate(path: &Path, size: u64, seed: u64) -> io::Result<Digest> {
    let mut file = File::create_new(path)?;
    let mut state = seed;
    let mut chain = Sha256Chain::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = size;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&split_mix(&mut state).to_le_bytes());
        }
        let length = usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        chain.update(&block[..length]);
        file.write_all(&block[..length])?;
        left -= length as u64;
    }
    file.sync_all()?;
    Ok(chain.finish())
}

/// Reads the file as it stands on the disk.
pub fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut chain = Sha256Chain::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(chain.finish()),
            Ok(read) => chain.update(&block[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
    }

    #[test]
    fn what_was_generated_is_what_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        for size in [0, 1, BLOCK_BYTES as u64, BLOCK_BYTES as u64 + 13] {
            let path = directory.path().join(size.to_string());
            let generated = generate(&path, size, 7).expect("generated");
            assert_eq!(hash(&path).expect("read"), generated);
            assert_eq!(std::fs::metadata(&path).expect("metadata").len(), size);
        }
        let other = generate(&directory.path().join("other"), 1, 8).expect("generated");
        assert_ne!(other, hash(&directory.path().join("1")).expect("read"));
    }
}
