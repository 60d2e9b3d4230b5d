//! A running command with this side's streams and signals, until its end.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::input::Input;
use super::interrupts::{Event, Interrupts};
use super::output::{Sink, Written, reader_gone};
use super::raw;
use crate::engine::exec::{Child, ChildStdin, ExecError, ExitStatus, Signal, Signals};
use crate::engine::stop::Stop;

/// Once the program is ended: how long this side's reader may take nothing of what is left.
const STUCK_LIMIT: Duration = Duration::from_secs(5);

/// How long a second interrupt waits for the link to take the KILL.
const KILL_LIMIT: Duration = Duration::from_secs(2);

pub struct Drive {
    pub input: Option<Input>,
    pub stdout: Sink,
    pub stderr: Sink,
    /// This side's standard output may be a pipe whose reader goes away.
    pub watch_reader: bool,
    pub timeout: Option<Duration>,
    pub grace: Duration,
    pub signal_leader: bool,
    /// All hosts have to stop.
    pub stop: Stop,
}

/// Why a program was ended from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    TimedOut(Duration),
    Interrupted(Signal),
    /// All hosts have to stop.
    Stopped,
    ReaderGone,
}

pub struct Ended {
    /// `None` when it was left before it could tell.
    pub status: Option<Result<ExitStatus, ExecError>>,
    pub cause: Option<Cause>,
    pub stdout: Option<Written>,
    pub stderr: Option<Written>,
    /// This side's input could not be read to its end.
    pub input_failure: Option<io::Error>,
    pub dropped_bytes: u64,
}

pub async fn drive(mut child: Child, interrupts: &mut Interrupts, drive: Drive) -> Ended {
    let Drive { input, stdout, stderr, watch_reader, timeout, grace, signal_leader, stop } = drive;
    let signals = child.signals();
    let (stdin, stdout_end, stderr_end) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let moved = AtomicU64::new(0);
    let failed = Notify::new();
    let output = async {
        let stdout = async {
            let mut end = stdout_end?;
            let mut written = Written::new(stdout);
            while let Some(piece) = end.next().await {
                if !written.take(piece, &moved).await {
                    failed.notify_one();
                    break;
                }
            }
            written.finish().await;
            Some(written)
        };
        let stderr = async {
            let mut end = stderr_end?;
            let mut written = Written::new(stderr);
            while let Some(piece) = end.next().await {
                if !written.take(piece, &moved).await {
                    failed.notify_one();
                    break;
                }
            }
            written.finish().await;
            Some(written)
        };
        tokio::join!(stdout, stderr)
    };
    let finished = async { tokio::join!(child.wait(), output) };
    let feeding = feed(input, stdin);
    let gone = async {
        tokio::select! {
            () = reader_gone(), if watch_reader => {}
            () = failed.notified() => {}
        }
    };
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    tokio::pin!(finished, feeding, gone);

    let mut cause = None;
    let mut ending = None;
    let mut input_failure = None;
    let (mut fed, mut ended) = (false, false);
    let mut seen = 0;
    let done = loop {
        let end_by = |signal| Some(Box::pin(end(signals.clone(), signal, grace)));
        tokio::select! {
            done = &mut finished => break Some(done),
            failure = &mut feeding, if !fed => {
                fed = true;
                input_failure = failure;
            }
            () = until(deadline), if cause.is_none() => {
                cause = timeout.map(Cause::TimedOut);
                ending = end_by(Signal::TERM);
            }
            () = &mut gone, if cause.is_none() => {
                cause = Some(Cause::ReaderGone);
                ending = end_by(Signal::PIPE);
            }
            () = stop.stopped(), if cause.is_none() => {
                // An interrupt that stops all hosts has come here, too, and says more.
                let signal = match interrupts.next().now_or_never() {
                    Some(Event::End(signal)) => {
                        cause = Some(Cause::Interrupted(signal));
                        signal
                    }
                    _ => {
                        cause = Some(Cause::Stopped);
                        Signal::TERM
                    }
                };
                ending = end_by(signal);
            }
            event = interrupts.next() => match event {
                Event::End(signal) if cause.is_none() => {
                    cause = Some(Cause::Interrupted(signal));
                    ending = end_by(signal);
                }
                // Once more is not to be waited for.
                Event::End(_) => {
                    let _ = tokio::time::timeout(KILL_LIMIT, signals.kill()).await;
                    break None;
                }
                Event::Pass(signal) if signal_leader => {
                    signals.send_to_leader(signal).await;
                }
                Event::Pass(signal) => {
                    signals.send(signal).await;
                }
                Event::Resized => {
                    if let Some((columns, rows)) = raw::size() {
                        signals.resize(columns, rows);
                    }
                }
            },
            () = async { if let Some(ending) = &mut ending { ending.await } }, if ending.is_some() && !ended => {
                ended = true;
            }
            // A reader that has stopped must not keep what is over.
            () = sleep(STUCK_LIMIT), if ended => {
                let now = moved.load(Ordering::Relaxed);
                if now == seen {
                    break None;
                }
                seen = now;
            }
        }
    };
    // Nothing of the group may outlive it, not even what ended later than the program.
    if let (Some(ending), false) = (ending, ended) {
        ending.await;
    }
    let (status, (stdout, stderr)) = match done {
        Some((status, output)) => (Some(status), output),
        None => (None, (None, None)),
    };
    Ended { status, cause, stdout, stderr, input_failure, dropped_bytes: signals.dropped_bytes() }
}

async fn end(signals: Signals, first: Signal, grace: Duration) {
    signals.end(first, grace).await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Sends the input as it comes, and its end. A program that does not read it to the end is
/// no error.
async fn feed(input: Option<Input>, stdin: Option<ChildStdin>) -> Option<io::Error> {
    let (mut input, mut stdin) = (input?, stdin?);
    while let Some(piece) = input.next().await {
        match piece {
            Ok(piece) => {
                let sent = async {
                    stdin.write_all(&piece).await?;
                    stdin.flush().await
                };
                if sent.await.is_err() {
                    return None;
                }
            }
            Err(error) => return Some(error),
        }
    }
    let _ = stdin.shutdown().await;
    None
}
