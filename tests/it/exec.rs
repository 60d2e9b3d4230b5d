//! Commands on a host, held against what subprocess does on this machine.

mod detached;
mod endings;
mod jobs;
mod leaks;
mod library;
mod rows;
pub mod stage;
mod streams;
mod table;
mod terminal;
