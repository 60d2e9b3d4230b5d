//! The integration tests, one binary: real servers, real shells, the real program.
#![forbid(unsafe_code)]

mod connect;
mod harness;
mod known_hosts;
