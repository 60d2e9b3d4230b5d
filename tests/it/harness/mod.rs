//! What the tests stand on: servers, accounts and the program under test.
//!
//! Whatever this starts is ended when its owner is dropped, also when the test panics.
#![allow(dead_code, unused_imports)]

pub mod account;
pub mod agent;
pub mod container;
pub mod program;
pub mod script;
pub mod sshd;
pub mod sudoers;
pub mod tcp_proxy;
pub mod token;
pub mod wait;

pub use container::{ContainerSshd, TestHost};
pub use program::haul;
pub use sshd::{Sshd, SshdBuilder};
pub use wait::wait_until;
