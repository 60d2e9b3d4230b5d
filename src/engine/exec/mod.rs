//! Commands on a host, as `std::process` runs them on this machine.
//!
//! [`Command`] says what to run; [`Command::spawn`] gives a [`Child`]. The program leads a
//! process group of its own on the target, and a guard beside it, in a second channel,
//! passes signals on and ends the whole group when this side is gone: killed, crashed or
//! cut off. Arguments, variables and directories arrive byte for byte, whatever the
//! account's login shell is.

mod carry;
mod child;
mod command;
mod detached;
mod dialogue;
mod error;
mod guard;
mod host;
mod signals;
mod start;
mod status;
mod streams;

pub use crate::model::exec::Attach;
pub use crate::model::signal::Signal;
pub use child::{Child, Output};
pub use command::{Command, DEFAULT_OUTPUT_LIMIT_BYTES, Stdio};
pub use detached::{Detached, attach, signal_detached};
pub use error::{ExecError, ExecErrorKind};
pub use host::Host;
pub use signals::Signals;
pub use status::ExitStatus;
pub use streams::{ChildStderr, ChildStdin, ChildStdout};
