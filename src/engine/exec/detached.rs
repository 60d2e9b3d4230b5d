//! Commands that go on without this side, and the way back to them.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::child::Child;
use super::command::{Command, DEFAULT_GRACE, Stdio};
use super::dialogue::Dialogue;
use super::error::{ExecError, ExecErrorKind};
use super::host::Host;
use super::start::{nonce, refusal, start};
use crate::model::exec::{
    Attach, ErrorStream, GO, Said, Streams, attach_script, detach_script, signal_script,
};
use crate::model::run_id::RunId;
use crate::model::signal::Signal;

/// Bytes of input that are read at once.
const INPUT_PIECE_BYTES: usize = 32 * 1024;

/// A program that runs apart from any connection. Its state lies in
/// `~/.local/state/haul/exec/<id>/` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detached {
    pub id: RunId,
    /// Its process id on the host.
    pub leader: u32,
}

impl Command {
    /// Starts it and leaves it to itself. `input` is its standard input with its length;
    /// all of it is sent before the program starts.
    pub async fn detach(
        &self,
        host: &Host,
        input: Option<(&mut (dyn AsyncRead + Send + Unpin), u64)>,
    ) -> Result<Detached, ExecError> {
        self.check()?;
        let streams = Streams { stdin: input.is_some(), ..self.streams(Stdio::Piped) };
        let (nonce, id) = (nonce()?, nonce()?);
        let bytes = input.as_ref().map_or(0, |(_, bytes)| *bytes);
        let script = detach_script(&self.program, &streams, nonce, id, bytes);
        let mark = Said::mark(nonce);
        let mut dialogue = Dialogue::open(host.connection.as_ref(), &script, None).await?;
        match Said::parse(&dialogue.next_line(&mark).await?) {
            Some(Said::Ready { .. }) => {}
            other => return Err(refusal(other, Some(&self.program))),
        }
        dialogue.send(GO).await?;
        if let Some((input, bytes)) = input {
            send(&mut dialogue, input, bytes).await?;
        }
        // The script starts nothing when its input is cut off; from here on it may have.
        let maybe = |error| ExecError { started: true, ..error };
        dialogue.process.stdin.shutdown().await.map_err(|_| maybe(ExecError::lost()))?;
        match Said::parse(&dialogue.next_line(&mark).await.map_err(maybe)?) {
            Some(Said::Detached { leader }) => Ok(Detached { id, leader }),
            other => Err(refusal(other, Some(&self.program))),
        }
    }
}

async fn send(
    dialogue: &mut Dialogue,
    input: &mut (dyn AsyncRead + Send + Unpin),
    bytes: u64,
) -> Result<(), ExecError> {
    let unreadable = |error: std::io::Error| {
        ExecError::new(ExecErrorKind::InvalidInput, format!("the input cannot be read: {error}"))
    };
    let mut left = bytes;
    let mut buffer = vec![0; INPUT_PIECE_BYTES];
    while left > 0 {
        let count = input.read(&mut buffer).await.map_err(unreadable)?;
        if count == 0 {
            return Err(ExecError::new(
                ExecErrorKind::InvalidInput,
                "the input became shorter while it was read",
            ));
        }
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        dialogue.send(&buffer[..count]).await?;
        left -= count as u64;
    }
    Ok(())
}

/// Gives the output of what was detached from its beginning, as the output of a child, and
/// with `wait` also what is still to come; then the child ends with its status. A death by
/// signal is told as 128 + n, as its shell had it. Dropping the child ends only the looking.
pub async fn attach(host: &Host, attach: &Attach) -> Result<Child, ExecError> {
    let nonce = nonce()?;
    let script = attach_script(attach, nonce);
    let started = start(host, &script, nonce, None, DEFAULT_GRACE, None).await?;
    let streams = Streams { stdin: false, stdout: true, stderr: ErrorStream::Own };
    Ok(Child::new(started, streams, false))
}

/// Sends a signal to what was detached: to its group, or to the program alone.
pub async fn signal_detached(
    host: &Host,
    id: RunId,
    signal: Signal,
    to_leader: bool,
) -> Result<(), ExecError> {
    let nonce = nonce()?;
    let script = signal_script(id, signal, to_leader, nonce);
    let mut dialogue = Dialogue::open(host.connection.as_ref(), &script, None).await?;
    match Said::parse(&dialogue.next_line(&Said::mark(nonce)).await?) {
        Some(Said::Sent) => Ok(()),
        other => Err(refusal(other, None)),
    }
}
