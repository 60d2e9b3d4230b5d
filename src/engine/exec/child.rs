//! A program that runs on a host.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::carry::{Carrier, State};
use super::error::{ExecError, ExecErrorKind};
use super::guard::{Asked, Guard};
use super::signals::{Signals, Watched};
use super::start::Started;
use super::status::ExitStatus;
use super::streams::{ChildStderr, ChildStdin, ChildStdout, PIPE_PIECES};
use crate::model::exec::{ErrorStream, Streams};
use crate::model::signal::Signal;

/// Bytes that are read at once.
const READ_BYTES: usize = 32 * 1024;

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// There was more than was kept.
    pub truncated: bool,
}

/// A running program, as `std::process::Child`, with one difference: dropping it while the
/// program runs ends the program and its whole group, by TERM, and after the grace by
/// KILL. The host does that by itself, so it happens also when this process is killed.
pub struct Child {
    /// `None` unless it was piped.
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    pub stderr: Option<ChildStderr>,
    leader: u32,
    signals: Signals,
    unguarded: Option<ExecError>,
    /// The guard goes when this does.
    _orders: Option<mpsc::Sender<Asked>>,
    _carrier: Carrying,
}

struct Carrying(JoinHandle<()>);

impl Drop for Carrying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Child {
    pub(super) fn new(started: Started, streams: Streams, terminal: bool) -> Child {
        let Started { process, early, leader, guard, unguarded } = started;
        let (stdout_in, stdout) = pipe(streams.stdout);
        let (stderr_in, stderr) = pipe(streams.stderr == ErrorStream::Own && !terminal);
        let (state_in, state) = watch::channel(State::Running);
        let (urgent_in, urgent) = watch::channel(0);
        let (dropped_in, dropped) = watch::channel(0);
        let (orders, watched) = match guard {
            Some(Guard { orders, ended }) => {
                let watched = Watched { orders: orders.downgrade(), ended };
                (Some(orders), Some(watched))
            }
            None => (None, None),
        };
        let carrier = Carrier {
            events: process.events,
            early: early.into(),
            stdout: stdout_in,
            stderr: stderr_in,
            state: state_in,
            urgent,
            dropped: dropped_in,
            guard: orders.clone(),
        };
        Child {
            stdin: streams.stdin.then(|| ChildStdin::new(process.stdin)),
            stdout: stdout.map(ChildStdout::new),
            stderr: stderr.map(ChildStderr::new),
            leader,
            signals: Signals {
                guard: watched,
                control: process.control,
                urgent: Arc::new(urgent_in),
                state,
                dropped,
            },
            unguarded,
            _orders: orders,
            _carrier: Carrying(tokio::spawn(carrier.run())),
        }
    }

    /// The program's process id on the host, and that of its group.
    pub fn id(&self) -> u32 {
        self.leader
    }

    /// Why nothing on the host would end the program when this side is lost, and signals
    /// go by a request that servers may ignore. `None` where all is well.
    pub fn unguarded(&self) -> Option<&ExecError> {
        self.unguarded.as_ref()
    }

    /// Sends signals from elsewhere while this is waited for.
    pub fn signals(&self) -> Signals {
        self.signals.clone()
    }

    /// KILL to the whole group.
    pub async fn kill(&mut self) -> bool {
        self.signals.kill().await
    }

    /// To the whole group. False when there was nobody left to get it.
    pub async fn signal(&mut self, signal: Signal) -> bool {
        self.signals.send(signal).await
    }

    /// TERM to the whole group, and KILL once `grace` is over. Returns when nothing of it
    /// is left.
    pub async fn end(&mut self, grace: Duration) {
        self.signals.end(Signal::TERM, grace).await;
    }

    /// Closes standard input, and waits for the program's end. Its output has to be read
    /// meanwhile, or it may never get there. Cancelled, nothing is lost.
    pub async fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        self.stdin = None;
        let mut state = self.signals.state.clone();
        let state = state.wait_for(|state| *state != State::Running).await;
        match state.map(|state| state.clone()) {
            Ok(State::Ended(status)) => Ok(status),
            _ => Err(ExecError::lost()),
        }
    }

    /// `None` while it runs.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        match &*self.signals.state.borrow() {
            State::Running => Ok(None),
            State::Ended(status) => Ok(Some(status.clone())),
            State::Lost => Err(ExecError::lost()),
        }
    }

    /// Closes standard input, reads both streams to their ends, and waits. Keeps at most
    /// `limit_bytes` of each.
    pub async fn wait_with_output(self, limit_bytes: usize) -> Result<Output, ExecError> {
        self.collect(None, Duration::ZERO, limit_bytes).await
    }

    pub(super) async fn collect(
        mut self,
        limit: Option<Duration>,
        grace: Duration,
        limit_bytes: usize,
    ) -> Result<Output, ExecError> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let reading = async { tokio::join!(keep(stdout, limit_bytes), keep(stderr, limit_bytes)) };
        let signals = self.signals();
        let all = async { tokio::join!(self.wait(), reading) };
        tokio::pin!(all);
        let ((status, (stdout, stderr)), timed_out) = match limit {
            None => (all.await, None),
            Some(limit) => match timeout(limit, &mut all).await {
                Ok(done) => (done, None),
                Err(_) => (tokio::join!(all, signals.end(Signal::TERM, grace)).0, Some(limit)),
            },
        };
        let truncated = stdout.cut || stderr.cut;
        let output = Output { status: status?, stdout: stdout.bytes, stderr: stderr.bytes, truncated };
        match timed_out {
            None => Ok(output),
            Some(limit) => {
                let message = format!("timed out after {} s", limit.as_secs_f32());
                let error = ExecError::new(ExecErrorKind::TimedOut, message);
                Err(ExecError { started: true, output: Some(Box::new(output)), ..error })
            }
        }
    }
}

fn pipe(wanted: bool) -> (Option<mpsc::Sender<bytes::Bytes>>, Option<mpsc::Receiver<bytes::Bytes>>) {
    if !wanted {
        return (None, None);
    }
    let (sender, receiver) = mpsc::channel(PIPE_PIECES);
    (Some(sender), Some(receiver))
}

struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

/// Reads to the end, keeps the first `limit` bytes.
async fn keep(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Kept {
    let mut kept = Kept { bytes: Vec::new(), cut: false };
    let Some(mut stream) = stream else { return kept };
    let mut buffer = vec![0; READ_BYTES];
    // A child's pipes end, they do not fail.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = limit.saturating_sub(kept.bytes.len()).min(count);
        kept.bytes.extend_from_slice(&buffer[..room]);
        kept.cut |= room < count;
    }
    kept
}
