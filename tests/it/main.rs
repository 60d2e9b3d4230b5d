//! The integration tests, one binary: real servers, real shells, the real program.
#![forbid(unsafe_code)]

mod connect;
mod container;
mod engine;
mod harness;
mod layers;
mod lock;
mod loopback;
mod scripts;
