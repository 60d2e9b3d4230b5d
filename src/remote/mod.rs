//! How a machine is reached: its files, its commands, and the way there.
//!
//! The engine sees four traits, each with at least two real implementations: an SSH
//! server, and a local directory that poses as a host.
//!
//! - [`Connector`] makes connections, again and again, without asking a person twice;
//! - [`Connection`] opens channels: files and commands;
//! - [`Files`] is one SFTP session (or its equal);
//! - [`Process`](process::Process) is one running command.

pub mod error;
pub mod faulty;
pub mod files;
pub mod local;
pub mod loopback;
pub mod process;
pub mod sftp;
pub mod ssh;

use std::sync::Arc;

use async_trait::async_trait;

pub use error::{RemoteError, RemoteErrorKind};
pub use files::Files;
pub use process::{ExecRequest, Process};

/// Knows one host and how to log in there. Shared by every task that needs the host.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The host's name as the user knows it; used in messages and JSON.
    fn host(&self) -> &str;

    /// Makes a new connection. The first call may ask a person (password, unknown
    /// host key); later calls repeat what the first one learnt and never ask again.
    async fn connect(&self) -> Result<Arc<dyn Connection>, RemoteError>;

    /// Why [`Connector::connect`] cannot give another connection without asking a person
    /// again (a code, a touch), in a few words; known once the first one stands. While it
    /// says something, `connect` asks the host nothing and fails with
    /// `RemoteErrorKind::NeedsPerson`.
    fn needs_person(&self) -> Option<String> {
        None
    }
}

/// One authenticated connection. Dropping the last reference closes it.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Opens a new file channel (an SFTP session). A server may refuse a second
    /// channel: `RemoteErrorKind::ChannelRefused`.
    async fn files(&self) -> Result<Arc<dyn Files>, RemoteError>;

    /// Starts a command in a channel of its own. `RemoteErrorKind::Unsupported` or
    /// `ChannelRefused` where the server does not run commands. That a command
    /// "started" proves nothing: some servers answer anything (probe with a nonce).
    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError>;

    /// What the server calls itself (the SSH identification string), for messages
    /// and `-v` only; never a reason to trust a capability.
    fn server_name(&self) -> String;

    /// Whether what is sent holds its rate when packets get lost, as BBR's does and cubic's
    /// does not: then fewer connections do.
    fn endures_loss(&self) -> bool {
        false
    }

    /// Says goodbye. Errors are not interesting any more; nothing is lost by them.
    async fn disconnect(&self);
}
