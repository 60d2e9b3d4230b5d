//! The integration tests, one binary: real servers, real shells, the real program.
#![forbid(unsafe_code)]

mod connect;
mod container;
mod demo;
mod harness;
mod layers;
mod loopback;
mod scripts;
