//! Several hosts at once, each a real server.

mod put;
mod stage;
