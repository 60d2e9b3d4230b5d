//! What to run, as `std::process::Command` says it.

use std::time::Duration;

use super::child::{Child, Output};
use super::error::{ExecError, ExecErrorKind};
use super::host::Host;
use super::start::{nonce, start};
use super::status::ExitStatus;
use crate::model::exec::{ErrorStream, Program, Streams, start_script};
use crate::remote::process::Terminal;

/// How long a group that was asked to end has until it is killed.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);
/// What [`Command::output`] keeps of each stream unless told.
pub const DEFAULT_OUTPUT_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// Where one of a child's streams leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// To `/dev/null` on the host.
    Null,
    /// To the [`Child`].
    Piped,
    /// Of standard error: to where standard output goes, in the order in which the program
    /// writes.
    ToStdout,
}

/// A program with arguments, to be run on any host, any number of times.
///
/// Without other orders its standard input is empty, and its output goes nowhere with
/// [`spawn`](Command::spawn) and [`status`](Command::status), and is kept with
/// [`output`](Command::output).
#[derive(Debug, Clone)]
pub struct Command {
    pub(super) program: Program,
    stdin: Stdio,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    terminal: Option<Terminal>,
    timeout: Option<Duration>,
    grace: Duration,
    output_limit_bytes: usize,
}

impl Command {
    /// A name is searched for in the PATH of the host's account.
    pub fn new(program: impl AsRef<[u8]>) -> Command {
        Command {
            program: Program { name: program.as_ref().to_vec(), ..Program::default() },
            stdin: Stdio::Null,
            stdout: None,
            stderr: None,
            terminal: None,
            timeout: None,
            grace: DEFAULT_GRACE,
            output_limit_bytes: DEFAULT_OUTPUT_LIMIT_BYTES,
        }
    }

    /// One string for the host's `sh`.
    pub fn shell(text: impl AsRef<[u8]>) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(text);
        command
    }

    pub fn arg(&mut self, argument: impl AsRef<[u8]>) -> &mut Command {
        self.program.arguments.push(argument.as_ref().to_vec());
        self
    }

    pub fn args<A: AsRef<[u8]>>(&mut self, arguments: impl IntoIterator<Item = A>) -> &mut Command {
        self.program.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_vec()));
        self
    }

    /// The value may be any bytes but NUL.
    pub fn env(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Command {
        self.program.environment.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Nothing but what [`env`](Command::env) sets, before or after this call.
    pub fn env_clear(&mut self) -> &mut Command {
        self.program.clear_environment = true;
        self
    }

    /// Where to start; from the account's home when relative. One that is not there is an
    /// error before anything has started.
    pub fn current_dir(&mut self, directory: impl AsRef<[u8]>) -> &mut Command {
        self.program.directory = Some(directory.as_ref().to_vec());
        self
    }

    pub fn stdin(&mut self, stdin: Stdio) -> &mut Command {
        self.stdin = stdin;
        self
    }

    pub fn stdout(&mut self, stdout: Stdio) -> &mut Command {
        self.stdout = Some(stdout);
        self
    }

    pub fn stderr(&mut self, stderr: Stdio) -> &mut Command {
        self.stderr = Some(stderr);
        self
    }

    /// The program gets a terminal for its three streams; what it writes comes by the
    /// child's stdout.
    pub fn terminal(&mut self, terminal: Terminal) -> &mut Command {
        self.terminal = Some(terminal);
        self
    }

    /// For [`status`](Command::status) and [`output`](Command::output): from the start.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Command {
        self.timeout = Some(timeout);
        self
    }

    /// How long its group has to end once asked, by [`Child::end`], a timeout or the loss
    /// of this side, until it is killed.
    pub fn grace(&mut self, grace: Duration) -> &mut Command {
        self.grace = grace;
        self
    }

    /// Bytes that [`output`](Command::output) keeps of each stream; more is read and dropped.
    pub fn output_limit(&mut self, bytes: usize) -> &mut Command {
        self.output_limit_bytes = bytes;
        self
    }

    /// Starts it. The error says whether it can have started.
    pub async fn spawn(&self, host: &Host) -> Result<Child, ExecError> {
        self.spawn_with(host, Stdio::Null).await
    }

    /// Runs it to its end.
    pub async fn status(&self, host: &Host) -> Result<ExitStatus, ExecError> {
        let child = self.spawn_with(host, Stdio::Null).await?;
        Ok(child.collect(self.timeout, self.grace, self.output_limit_bytes).await?.status)
    }

    /// Runs it to its end and keeps its output.
    pub async fn output(&self, host: &Host) -> Result<Output, ExecError> {
        let child = self.spawn_with(host, Stdio::Piped).await?;
        child.collect(self.timeout, self.grace, self.output_limit_bytes).await
    }

    pub(super) fn streams(&self, default: Stdio) -> Streams {
        Streams {
            stdin: self.stdin == Stdio::Piped,
            stdout: self.stdout.unwrap_or(default) != Stdio::Null,
            stderr: match self.stderr.unwrap_or(default) {
                Stdio::Null => ErrorStream::Null,
                Stdio::Piped => ErrorStream::Own,
                Stdio::ToStdout => ErrorStream::WithStdout,
            },
        }
    }

    async fn spawn_with(&self, host: &Host, default: Stdio) -> Result<Child, ExecError> {
        self.check()?;
        let streams = match self.terminal {
            Some(_) => Streams { stdin: true, stdout: true, stderr: ErrorStream::Own },
            None => self.streams(default),
        };
        let nonce = nonce()?;
        let script = start_script(&self.program, &streams, nonce);
        let terminal = self.terminal.clone();
        let started = start(host, &script, nonce, terminal, self.grace, Some(&self.program)).await?;
        Ok(Child::new(started, streams, self.terminal.is_some()))
    }

    pub(super) fn check(&self) -> Result<(), ExecError> {
        self.program
            .check()
            .map_err(|problem| ExecError::new(ExecErrorKind::InvalidInput, problem.to_string()))
    }
}
