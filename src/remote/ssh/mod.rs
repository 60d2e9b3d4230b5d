//! SSH connections, on russh.
//!
//! - [`options`] says everything about one host, [`prompter`] asks a person;
//! - [`connector`] makes connections: `way` (`dial`, or a `hop`, or a `proxy` command) →
//!   `link` → key exchange with `algorithms` and `host_key` (which reads [`known_hosts`]) →
//!   `login`;
//! - [`connection`] opens channels: `subsystem` for files, `process` for commands, both as
//!   another user where `sudo` is asked for.
//!
//! Only this folder knows russh.

mod acknowledging;
mod algorithms;
mod attempt;
pub mod certificate;
pub mod config;
mod congestion;
mod connection;
mod connector;
mod dial;
mod handler;
mod hop;
mod host_key;
mod interactive;
mod keys;
pub mod known_hosts;
mod link;
mod login;
mod offers;
mod options;
mod process;
mod prompter;
mod proxy;
mod refusal;
mod restrictions;
mod signer;
mod subsystem;
mod sudo;
mod way;

pub use connector::SshConnector;
pub use hop::Hops;
pub use options::{
    AddressFamily, Authentication, DEFAULT_PORT, RekeyLimit, Secret, SshOptions, StrictHostKeyChecking, Via,
};
pub use prompter::{NoPrompter, Prompter, Question};
pub use sudo::SudoUser;
