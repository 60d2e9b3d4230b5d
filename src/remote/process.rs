//! A command that runs on a target.

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

/// What to run. `command` goes to the login shell as it is, so it is always one of
/// haul's own constant strings; everything variable travels on standard input.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    pub command: &'static str,
    pub terminal: Option<Terminal>,
}

/// A pseudo-terminal to be had with the command (RFC 4254, 6.2).
#[derive(Debug, Clone)]
pub struct Terminal {
    pub term: String,
    pub columns: u32,
    pub rows: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The remote end closed its output; exit status may still follow.
    Eof,
    Exited(u32),
    /// Died of a signal, by its name without "SIG" (RFC 4254, 6.10).
    Signaled {
        signal: String,
        core_dumped: bool,
    },
}

#[derive(Debug, Clone)]
pub enum ProcessControl {
    /// Name without "SIG". Many servers ignore it.
    Signal(String),
    Resize {
        columns: u32,
        rows: u32,
    },
    /// Closes the channel from this side.
    Close,
}

/// A running command. `events` is bounded, so a slow reader slows the command down; it
/// ends (`None`) when the channel or the connection is closed. Dropping the `Process`
/// closes the channel; what runs on the target may go on.
pub struct Process {
    /// Shutting it down sends EOF.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub events: mpsc::Receiver<ProcessEvent>,
    pub control: mpsc::Sender<ProcessControl>,
}
