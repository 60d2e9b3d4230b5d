//! What can be wrong about a case, in the four words of RELIABILITY.md.

use std::fmt;

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// The target was neither the complete old nor the complete new file.
    Torn,
    /// The old file or another's was destroyed, published chunks were sent again, or a rerun
    /// did not finish, or not without leaving something behind.
    Lost,
    /// Something was said that was not so: a success, `unchanged`, or the cause of a failure.
    False,
    /// It took longer than it may.
    Hung,
}

pub struct Finding {
    pub broken: Broken,
    /// What is wrong in the first line, then all that was done.
    pub story: String,
}

impl Finding {
    pub fn new(broken: Broken, story: impl Into<String>) -> Finding {
        Finding { broken, story: story.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.broken, self.story)
    }
}

pub type Verdict = Result<(), Finding>;
