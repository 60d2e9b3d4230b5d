//! What to do on a target: survey, lock, upload, merge, verify, commit.

pub mod clean;
pub mod failure;
pub mod finish;
pub mod job;
pub mod lock;
pub mod monitor;
pub mod options;
pub mod probe;
pub mod put;
pub mod report;
pub mod status;
pub mod stop;
