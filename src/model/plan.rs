//! What is there and what has to be sent: a pure function of what was found.

use std::collections::BTreeSet;
use std::fmt;

use super::chunk::Geometry;

/// What was found in the temp directory, already checked against manifest and record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Chunks, from the first, that the merged file holds by the record.
    pub merged: u64,
    /// Chunks in files of their own, of the right size.
    pub stored: BTreeSet<u64>,
    /// Chunks that a receipt says are in the merged file.
    pub placed: BTreeSet<u64>,
}

impl Found {
    /// How many chunks the merged file holds from the first on.
    pub fn contiguous(&self) -> u64 {
        (self.merged..)
            .take_while(|n| *n == self.merged || self.placed.contains(n))
            .last()
            .unwrap_or(self.merged)
    }
}

/// What to do with each chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub geometry: Geometry,
    pub found: Found,
    /// Ascending.
    pub missing: Vec<u64>,
}

impl Plan {
    /// Chunks past `known` (those that the manifest can prove) are sent again.
    pub fn new(geometry: Geometry, known: u64, found: Found) -> Plan {
        let chunks = geometry.chunks();
        let provable = known.min(chunks);
        let merged = found.merged.min(provable);
        let keep = |n: &u64| *n > merged && *n <= provable;
        let stored: BTreeSet<u64> = found.stored.into_iter().filter(keep).collect();
        let placed: BTreeSet<u64> = found.placed.into_iter().filter(keep).collect();
        let missing = (merged + 1..=chunks).filter(|n| !stored.contains(n) && !placed.contains(n)).collect();
        Plan { geometry, found: Found { merged, stored, placed }, missing }
    }

    pub fn chunks_present(&self) -> u64 {
        self.geometry.chunks() - self.missing.len() as u64
    }

    pub fn missing_bytes(&self) -> u64 {
        self.missing.iter().map(|n| self.geometry.length(*n)).sum()
    }

    pub fn present_bytes(&self) -> u64 {
        self.geometry.size() - self.missing_bytes()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes in {} chunks: {} there ({} of them merged), {} to send ({} bytes)",
            self.geometry.size(),
            self.geometry.chunks(),
            self.chunks_present(),
            self.found.merged,
            self.missing.len(),
            self.missing_bytes()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chunk::ChunkSize;

    fn geometry(size: u64) -> Geometry {
        Geometry::new(size, ChunkSize::new(4096).expect("a size"))
    }

    fn found(merged: u64, stored: &[u64], placed: &[u64]) -> Found {
        Found { merged, stored: stored.iter().copied().collect(), placed: placed.iter().copied().collect() }
    }

    #[test]
    fn gaps_are_filled_and_nothing_else() {
        let plan = Plan::new(geometry(4096 * 9 + 1), 9, found(2, &[3, 5], &[7]));
        assert_eq!(plan.missing, [4, 6, 8, 9, 10]);
        assert_eq!(plan.missing_bytes(), 4 * 4096 + 1);
        assert_eq!(plan.present_bytes(), 5 * 4096);
    }

    #[test]
    fn what_the_manifest_cannot_prove_is_sent_again() {
        let plan = Plan::new(geometry(4096 * 5), 2, found(3, &[4], &[5]));
        assert_eq!(plan.found, found(2, &[], &[]));
        assert_eq!(plan.missing, [3, 4, 5]);
    }

    #[test]
    fn an_empty_file_needs_nothing() {
        assert_eq!(Plan::new(geometry(0), 0, found(0, &[], &[])).missing, Vec::<u64>::new());
    }

    #[test]
    fn numbers_that_cannot_be_are_dropped() {
        let plan = Plan::new(geometry(4096), 9, found(0, &[2, u64::MAX], &[0]));
        assert_eq!(plan.missing, [1]);
        assert_eq!(plan.chunks_present(), 0);
    }
}
