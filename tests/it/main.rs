//! One binary for all integration tests, so that they are linked once.

mod cli;
mod connect;
mod container;
mod engine;
mod harness;
mod layers;
mod lock;
mod loopback;
mod scripts;
