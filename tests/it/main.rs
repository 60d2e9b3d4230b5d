//! One binary for all integration tests, so that they are linked once.

mod connect;
mod container;
mod demo;
mod engine;
mod harness;
mod known_hosts;
mod layers;
mod lock;
mod loopback;
mod scripts;
