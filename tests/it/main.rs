//! The integration tests, one binary: real servers, real shells, the real program.
#![forbid(unsafe_code)]

mod ansible;
mod cli;
mod conformance;
mod connect;
mod container;
mod counts;
mod crash;
mod demo;
mod documented_tests;
mod engine;
mod exec;
mod exec_examples;
mod fake_server;
mod fleet;
mod harness;
mod hostile_names;
mod hostile_server;
mod kills;
mod known_hosts;
mod layers;
mod links;
mod local_commands;
mod local_users;
mod lock;
mod loopback;
mod parsers;
mod rows;
mod scripts;
mod servers;
mod soak;
mod ssh_config;
mod sudo;
