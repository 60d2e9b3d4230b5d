//! The id of one run: 64 random bits that are never used again.

use std::fmt;

/// Names everything private to one run. Random, so no two runs share it; a run that has
/// to begin anew (its private directory was fenced away) takes a fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId(u64);

impl RunId {
    pub fn from_random(bits: u64) -> RunId {
        RunId(bits)
    }

    /// Exactly sixteen lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<RunId> {
        let lower = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 16 || !lower {
            return None;
        }
        std::str::from_utf8(text).ok().and_then(|t| u64::from_str_radix(t, 16).ok()).map(RunId)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
