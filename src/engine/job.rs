//! Jobs: the commands that the engine runs on a target for itself.
//!
//! A job is a [`Script`] that goes in on standard input, ends by itself, and leaves output
//! of bounded size. Its channel is gone when the call returns or is dropped. A script on a
//! lifeline ends then, and with it what it has started in its group; it ends also when this
//! whole process is killed.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::model::escape::printable;
use crate::model::shell::{COMMAND, Script};
use crate::remote::process::{ProcessControl, ProcessEvent};
use crate::remote::{Connection, ExecRequest, RemoteError};

/// How long a job that has exited may still send output: a server may tell the status
/// before the rest, and a child left behind may hold the channel open for ever.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// What a job may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// From the start to the end; `None` for work whose length nobody knows.
    pub timeout: Option<Duration>,
    /// Longest time without any output or news; `None` where silence says nothing.
    pub silence: Option<Duration>,
    /// Bytes kept of each of standard output and standard error; more is read and dropped.
    pub max_output_bytes: usize,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStatus {
    Exited(u32),
    /// By a signal, named without "SIG".
    Signaled(String),
}

impl JobStatus {
    pub fn success(&self) -> bool {
        *self == JobStatus::Exited(0)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobStatus::Exited(code) => write!(f, "exit status {code}"),
            JobStatus::Signaled(name) => write!(f, "signal {}", printable(name.as_bytes())),
        }
    }
}

/// What a job left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOutput {
    pub status: JobStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// There was more output than was kept.
    pub truncated: bool,
}

/// Why there is no output. In every case but `Start` the job may have done its work, or
/// may still do it where it is on no lifeline.
#[derive(Debug, Clone)]
pub enum JobError {
    /// It could not be started.
    Start(RemoteError),
    TimedOut(Duration),
    /// Nothing was heard for so long.
    Silent(Duration),
    /// The channel or the connection ended before the job told its status.
    Lost,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::Start(error) => write!(f, "the command could not be started: {error}"),
            JobError::TimedOut(limit) => write!(f, "the command did not end within {} s", limit.as_secs()),
            JobError::Silent(limit) => write!(f, "the command was silent for {} s", limit.as_secs()),
            JobError::Lost => f.write_str("the connection ended before the command did"),
        }
    }
}

impl std::error::Error for JobError {}

/// Runs `script` to its end in a channel of its own. Its standard input holds nothing
/// beyond the script. Dropping the future closes the channel, which ends a script on a
/// lifeline; another may go on.
pub async fn run_script(
    connection: &dyn Connection,
    script: &Script,
    limits: JobLimits,
) -> Result<JobOutput, JobError> {
    watch_script(connection, script, limits, |_| ()).await
}

/// As [`run_script`], and hands each piece of standard output to `heard` as it comes.
pub async fn watch_script(
    connection: &dyn Connection,
    script: &Script,
    limits: JobLimits,
    mut heard: impl FnMut(&[u8]) + Send,
) -> Result<JobOutput, JobError> {
    let end = limits.timeout.map(|timeout| (Instant::now() + timeout, JobError::TimedOut(timeout)));
    let request = ExecRequest { command: COMMAND, terminal: None };
    let start = bounded(end.clone(), async { connection.exec(request).await.map_err(JobError::Start) });
    let mut process = start.await?;

    let line = script.line();
    let (over_in, over) = oneshot::channel();
    let mut over_in = script.is_on_lifeline().then_some(over_in);
    let mut input = Some(Box::pin(send(process.stdin, line.as_bytes(), over)));
    let mut gathered = Gathered::new(limits.max_output_bytes);
    let mut last_news = Instant::now();
    while !gathered.complete() {
        let quiet = match (&gathered.status, limits.silence) {
            (Some(_), _) => Some((last_news + EXIT_GRACE, None)),
            (None, Some(silence)) => Some((last_news + silence, Some(JobError::Silent(silence)))),
            (None, None) => None,
        };
        tokio::select! {
            event = process.events.recv() => match event {
                Some(event) => {
                    last_news = Instant::now();
                    if let ProcessEvent::Stdout(data) = &event {
                        heard(data);
                    }
                    gathered.take(event);
                    if gathered.status.is_some()
                        && let Some(over_in) = over_in.take()
                    {
                        // Nobody hears it where the input has been given up already.
                        let _ = over_in.send(());
                    }
                }
                None => break,
            },
            // A command that ends without reading its input breaks the pipe; what it
            // told is judged, not that.
            () = async { if let Some(input) = &mut input { input.await } }, if input.is_some() => input = None,
            () = until(end.as_ref().map(|(at, _)| *at)) => {
                // Asked, not awaited: the channel is closed right after.
                let _ = process.control.try_send(ProcessControl::Signal("TERM".to_owned()));
                return Err(end.map_or(JobError::Lost, |(_, error)| error));
            }
            () = until(quiet.as_ref().map(|(at, _)| *at)) => match quiet.and_then(|(_, error)| error) {
                Some(error) => return Err(error),
                None => break,
            },
        }
    }
    gathered.finish()
}

/// Sends the script, and EOF once `over` says so or nobody is there to say it. Ends early
/// where nobody reads.
async fn send(mut stdin: Box<dyn AsyncWrite + Send + Unpin>, script: &[u8], over: oneshot::Receiver<()>) {
    let sent = async {
        stdin.write_all(script).await?;
        stdin.flush().await
    };
    if sent.await.is_ok() {
        let _ = over.await;
        let _ = stdin.shutdown().await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn bounded<T>(
    end: Option<(Instant, JobError)>,
    work: impl Future<Output = Result<T, JobError>>,
) -> Result<T, JobError> {
    match end {
        Some((at, error)) => tokio::time::timeout_at(at, work).await.unwrap_or(Err(error)),
        None => work.await,
    }
}

/// What was heard of a process so far.
struct Gathered {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<JobStatus>,
    output_ended: bool,
    truncated: bool,
    limit: usize,
}

impl Gathered {
    fn new(limit: usize) -> Gathered {
        Gathered {
            stdout: Vec::new(),
            stderr: Vec::new(),
            status: None,
            output_ended: false,
            truncated: false,
            limit,
        }
    }

    fn take(&mut self, event: ProcessEvent) {
        let (kept, data) = match event {
            ProcessEvent::Stdout(data) => (&mut self.stdout, data),
            ProcessEvent::Stderr(data) => (&mut self.stderr, data),
            ProcessEvent::Eof => {
                self.output_ended = true;
                return;
            }
            ProcessEvent::Exited(code) => {
                self.status = Some(JobStatus::Exited(code));
                return;
            }
            ProcessEvent::Signaled { signal, .. } => {
                self.status = Some(JobStatus::Signaled(signal));
                return;
            }
        };
        let room = self.limit.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(&data[..room]);
        self.truncated |= room < data.len();
    }

    fn complete(&self) -> bool {
        self.output_ended && self.status.is_some()
    }

    fn finish(self) -> Result<JobOutput, JobError> {
        let status = self.status.ok_or(JobError::Lost)?;
        Ok(JobOutput { status, stdout: self.stdout, stderr: self.stderr, truncated: self.truncated })
    }
}
