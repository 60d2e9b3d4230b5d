//! haul carries big files to hosts over SSH.
//!
//! The layers, arrows one way only: `cli → engine → remote → model`. ARCHITECTURE.md
//! has the map; FORMAT.md has every byte that stands on a target's disk.
#![forbid(unsafe_code)]

pub mod cli;
pub mod engine;
pub mod model;
pub mod remote;
