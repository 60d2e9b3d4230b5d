//! The talk with one of haul's scripts over a channel, before or beside a program.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::error::{ExecError, ExecErrorKind};
use crate::model::escape::printable;
use crate::model::exec::find_line;
use crate::model::shell::{COMMAND, Script, TERMINAL_COMMAND, TERMINAL_READY};
use crate::remote::process::{Process, ProcessEvent, Terminal};
use crate::remote::{Connection, ExecRequest, RemoteError};

/// How long a login may take until the shell takes its script, and each answer after that.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// What a login may say before it, and is kept.
const MAX_NOISE_BYTES: usize = 64 * 1024;
/// How much of that is shown in an error.
const SHOWN_NOISE_BYTES: usize = 200;

pub struct Dialogue {
    pub process: Process,
    /// What stands behind the last line that was waited for.
    pub heard: Vec<u8>,
    errors: Vec<u8>,
    /// The command has ended by its own will, or has closed its output.
    ended: bool,
}

impl Dialogue {
    /// Starts the shell and hands it the script.
    pub async fn open(
        connection: &dyn Connection,
        script: &Script,
        terminal: Option<Terminal>,
    ) -> Result<Dialogue, OpenError> {
        let has_terminal = terminal.is_some();
        let command = if has_terminal { TERMINAL_COMMAND } else { COMMAND };
        let process = connection.exec(ExecRequest { command, terminal }).await.map_err(OpenError::Channel)?;
        let mut dialogue = Dialogue { process, heard: Vec::new(), errors: Vec::new(), ended: false };
        if has_terminal {
            dialogue.next_line(TERMINAL_READY).await?;
        }
        dialogue.send(script.line().as_bytes()).await?;
        Ok(dialogue)
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        let sent = async {
            self.process.stdin.write_all(bytes).await?;
            self.process.stdin.flush().await
        };
        match timeout(ANSWER_LIMIT, sent).await {
            Ok(Ok(())) => Ok(()),
            // What was said before the end tells more than a broken pipe.
            Ok(Err(_)) => {
                let drained = timeout(ANSWER_LIMIT, async { while self.hear().await {} }).await;
                drop(drained);
                Err(self.not_heard())
            }
            Err(_) => Err(silent()),
        }
    }

    /// What stands behind `mark` in the next line that has it. All else is passed over.
    pub async fn next_line(&mut self, mark: &str) -> Result<Vec<u8>, ExecError> {
        let line = async {
            loop {
                if let Some((line, end)) = find_line(&self.heard, mark) {
                    let line = line.to_vec();
                    self.heard.drain(..end);
                    return Some(line);
                }
                if !self.hear().await {
                    return None;
                }
            }
        };
        match timeout(ANSWER_LIMIT, line).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.not_heard()),
            Err(_) => Err(silent()),
        }
    }

    /// False when nothing more will come.
    async fn hear(&mut self) -> bool {
        let (kept, data) = match self.process.events.recv().await {
            None => return false,
            Some(ProcessEvent::Stdout(data)) => (&mut self.heard, data),
            Some(ProcessEvent::Stderr(data)) => (&mut self.errors, data),
            Some(ProcessEvent::Eof | ProcessEvent::Exited(_) | ProcessEvent::Signaled { .. }) => {
                self.ended = true;
                return true;
            }
        };
        kept.extend_from_slice(&data);
        let surplus = kept.len().saturating_sub(MAX_NOISE_BYTES);
        kept.drain(..surplus);
        true
    }

    /// The error for the end of a channel that has not said what it should have.
    fn not_heard(&self) -> ExecError {
        if !self.ended {
            return ExecError::new(
                ExecErrorKind::Link,
                "the connection ended before the command was started",
            );
        }
        let said = if self.errors.is_empty() { &self.heard } else { &self.errors };
        let said = said.trim_ascii();
        let said = if said.is_empty() {
            "nothing".to_owned()
        } else {
            format!("'{}'", printable(&said[said.len().saturating_sub(SHOWN_NOISE_BYTES)..]))
        };
        ExecError::new(
            ExecErrorKind::NoShell,
            format!("no POSIX shell answers there, it said {said}; commands need one"),
        )
    }
}

fn silent() -> ExecError {
    let message = format!("no POSIX shell answered within {} s", ANSWER_LIMIT.as_secs());
    ExecError::new(ExecErrorKind::NoShell, message)
}

/// Why there is no dialogue.
pub enum OpenError {
    /// No channel, or no command in it.
    Channel(RemoteError),
    Talk(ExecError),
}

impl From<ExecError> for OpenError {
    fn from(error: ExecError) -> OpenError {
        OpenError::Talk(error)
    }
}

impl From<OpenError> for ExecError {
    fn from(error: OpenError) -> ExecError {
        match error {
            OpenError::Channel(error) => ExecError::remote(&error, false),
            OpenError::Talk(error) => error,
        }
    }
}
