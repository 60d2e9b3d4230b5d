//! What haul runs in a target's shell, run in real shells.

mod encoding;
mod merge;
mod merge_kills;
mod probe;
pub mod scene;
pub mod shells;
