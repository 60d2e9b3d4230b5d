//! haul against real servers, real shells and hostile ones: one binary for all.

mod conformance;
mod fake_server;
mod local_commands;
