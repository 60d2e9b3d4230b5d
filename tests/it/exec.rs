//! Commands on a host, held against what subprocess does on this machine.

mod detached;
mod endings;
mod leaks;
mod library;
mod rows;
mod stage;
mod streams;
mod table;
mod terminal;
