//! Several hosts at once, each a real server.

mod exec;
mod memory;
mod put;
mod stage;
