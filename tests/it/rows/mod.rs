//! The acceptance list: what the program does on a real OpenSSH server, row by row.
//!
//! Everything here runs the built binary and looks at the target from the side. What holds
//! on every kind of host is in `everywhere`, which runs against an sshd with a shell, one
//! that serves SFTP alone, and one in a container; the rest needs a server of its own making.

mod attributes;
pub mod client;
mod connecting;
mod demo;
pub mod errors;
mod everywhere;
mod fast;
mod hosts;
mod interrupts;
mod locks;
mod merging;
mod names;
mod pipes;
pub mod place;
mod progress;
mod resuming;
mod storage;
mod terminal;
mod unmerged;
