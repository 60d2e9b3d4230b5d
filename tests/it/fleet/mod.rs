//! Several hosts at once, each a real server.

mod memory;
mod put;
mod stage;
