//! How a file is sliced.

use std::fmt;
use std::ops::Range;

/// A chunk's size in bytes: a multiple of 64, so that SHA-256 stands between two
/// blocks at every chunk's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSize(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizeError;

impl fmt::Display for ChunkSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chunk has between 4 KiB and 4 GiB")
    }
}

impl std::error::Error for ChunkSizeError {}

impl ChunkSize {
    pub const DEFAULT: ChunkSize = ChunkSize(10 << 20);
    pub const MIN: u64 = 4 << 10;
    pub const MAX: u64 = 4 << 30;

    /// Rounds up to a multiple of 64 bytes.
    pub fn new(bytes: u64) -> Result<ChunkSize, ChunkSizeError> {
        if !(ChunkSize::MIN..=ChunkSize::MAX).contains(&bytes) {
            return Err(ChunkSizeError);
        }
        Ok(ChunkSize(bytes.next_multiple_of(64)))
    }

    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// A file's size and its slices. Chunks are numbered from 1, as their names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    chunk_size: ChunkSize,
}

impl Geometry {
    pub fn new(size: u64, chunk_size: ChunkSize) -> Geometry {
        Geometry { size, chunk_size }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn chunk_size(&self) -> ChunkSize {
        self.chunk_size
    }

    /// An empty file has no chunks.
    pub fn chunks(&self) -> u64 {
        self.size.div_ceil(self.chunk_size.0)
    }

    /// The bytes of chunk `n`; empty past the end.
    pub fn range(&self, n: u64) -> Range<u64> {
        let start = n.saturating_sub(1).saturating_mul(self.chunk_size.0).min(self.size);
        start..start.saturating_add(self.chunk_size.0).min(self.size)
    }

    pub fn length(&self, n: u64) -> u64 {
        let range = self.range(n);
        range.end - range.start
    }

    /// Bytes in the chunks 1 to `n`.
    pub fn end(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.range(n).end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks_of(size: u64) -> Vec<u64> {
        let geometry = Geometry::new(size, ChunkSize::new(4096).expect("a size"));
        (1..=geometry.chunks()).map(|n| geometry.length(n)).collect()
    }

    #[test]
    fn edges() {
        assert_eq!(chunks_of(0), Vec::<u64>::new());
        assert_eq!(chunks_of(1), [1]);
        assert_eq!(chunks_of(4095), [4095]);
        assert_eq!(chunks_of(4096), [4096]);
        assert_eq!(chunks_of(4097), [4096, 1]);
    }

    #[test]
    fn sizes_are_whole_hash_blocks() {
        assert_eq!(ChunkSize::new(5000).map(ChunkSize::bytes), Ok(5056));
        assert!(ChunkSize::new(0).is_err());
        assert!(ChunkSize::new(u64::MAX).is_err());
    }
}
