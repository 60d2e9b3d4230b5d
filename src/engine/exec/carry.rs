//! Carries a program's output from its channel to whoever reads it.
//!
//! A reader that stands still holds up the program, which is as it should be, and with it
//! the whole connection, which must not keep an order from the guard. So while an order is
//! under way output is taken in beyond the usual bound, and past a second bound dropped.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::guard::Asked;
use super::status::ExitStatus;
use crate::model::exec::Order;
use crate::model::signal::Signal;
use crate::remote::process::ProcessEvent;

/// What waits for its readers while all goes well.
const QUEUE_BYTES: usize = 256 * 1024;
/// What waits for its readers while an order is under way; more is dropped, and counted.
const URGENT_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// A program that has ended may have left a child behind that holds its pipes for ever.
/// What the program itself wrote comes without a pause.
const QUIET_GRACE: Duration = Duration::from_secs(1);
/// And a child that goes on writing is no backlog once this long...
const BACKLOG_GRACE: Duration = Duration::from_secs(5);
/// ...plus the time that a slow link needs for what came...
const BACKLOG_BYTES_PER_SECOND: u64 = 16 * 1024;
/// ...or this much is over: windows and pipes hold less.
const MAX_BACKLOG_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Running,
    Ended(ExitStatus),
    /// The channel is gone, and nobody knows.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

pub struct Carrier {
    pub events: mpsc::Receiver<ProcessEvent>,
    /// Standard output that came before.
    pub early: Bytes,
    /// `None` where nobody reads from the start.
    pub stdout: Option<mpsc::Sender<Bytes>>,
    pub stderr: Option<mpsc::Sender<Bytes>>,
    pub state: watch::Sender<State>,
    /// How many orders are under way.
    pub urgent: watch::Receiver<usize>,
    /// Bytes that were dropped because of it.
    pub dropped: watch::Sender<u64>,
    pub guard: Option<mpsc::Sender<Asked>>,
}

impl Carrier {
    /// Until all output is with its readers or will not come.
    pub async fn run(mut self) {
        let mut queue: VecDeque<(Stream, Bytes)> = VecDeque::new();
        let mut queued = 0;
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.keep(Stream::Stdout, early, &mut queue, &mut queued);
        }
        let mut over = Over::default();
        let mut open = true;
        while open || !queue.is_empty() {
            let urgent = *self.urgent.borrow_and_update() > 0;
            let front = queue.front().map(|(stream, _)| *stream);
            let reading = open && (queued < QUEUE_BYTES || urgent);
            if !reading {
                over.hold();
            }
            let deadline = over.deadline().filter(|_| reading);
            let sink = front.and_then(|stream| self.sink(stream)).cloned();
            tokio::select! {
                biased;
                changed = self.urgent.changed() => {
                    // The child was dropped, and with it every reader's reason.
                    if changed.is_err() { return; }
                }
                permit = room(sink.as_ref()), if front.is_some() => {
                    let Some((stream, data)) = queue.pop_front() else { continue };
                    queued -= data.len();
                    match permit {
                        Some(permit) => permit.send(data),
                        None => self.nobody_reads(stream),
                    }
                }
                event = self.events.recv(), if reading => match event {
                    None => open = false,
                    Some(ProcessEvent::Stdout(data)) => {
                        over.heard(data.len());
                        self.keep(Stream::Stdout, data, &mut queue, &mut queued);
                    }
                    Some(ProcessEvent::Stderr(data)) => {
                        over.heard(data.len());
                        self.keep(Stream::Stderr, data, &mut queue, &mut queued);
                    }
                    Some(ProcessEvent::Eof) => {
                        over.eof = true;
                        open = !over.is_complete();
                    }
                    Some(ProcessEvent::Exited(code)) => {
                        open = self.ended(ExitStatus::Exited(code), &mut over);
                    }
                    Some(ProcessEvent::Signaled { signal, core_dumped }) => {
                        open = self.ended(ExitStatus::Signaled { signal, core_dumped }, &mut over);
                    }
                },
                () = until(deadline) => open = false,
            }
        }
        if *self.state.borrow() == State::Running {
            self.state.send_replace(State::Lost);
        }
    }

    /// Whether there may be more to read.
    fn ended(&self, status: ExitStatus, over: &mut Over) -> bool {
        self.state.send_replace(State::Ended(status));
        over.exited = Some(Instant::now());
        over.last_news = Instant::now();
        !over.is_complete()
    }

    fn sink(&self, stream: Stream) -> Option<&mpsc::Sender<Bytes>> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    fn keep(&self, stream: Stream, data: Bytes, queue: &mut VecDeque<(Stream, Bytes)>, queued: &mut usize) {
        if *queued + data.len() > URGENT_QUEUE_BYTES {
            self.dropped.send_modify(|count| *count += data.len() as u64);
            return;
        }
        *queued += data.len();
        queue.push_back((stream, data));
    }

    /// A program that writes into a pipe without a reader gets a signal for it.
    fn nobody_reads(&mut self, stream: Stream) {
        let sink = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if sink.take().is_some()
            && let Some(guard) = &self.guard
        {
            let (answer, _) = tokio::sync::oneshot::channel();
            // A full queue holds worse than this one.
            let _ = guard.try_send((Order::Signal(Signal::PIPE), answer));
        }
    }
}

/// Room for one piece; `None` where nobody reads.
async fn room(sink: Option<&mpsc::Sender<Bytes>>) -> Option<mpsc::Permit<'_, Bytes>> {
    sink?.reserve().await.ok()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What is known about the end.
struct Over {
    exited: Option<Instant>,
    eof: bool,
    last_news: Instant,
    bytes_since: u64,
}

impl Default for Over {
    fn default() -> Over {
        Over { exited: None, eof: false, last_news: Instant::now(), bytes_since: 0 }
    }
}

impl Over {
    fn heard(&mut self, bytes: usize) {
        self.last_news = Instant::now();
        if self.exited.is_some() {
            self.bytes_since += bytes as u64;
        }
    }

    /// Time does not count while the readers are what is waited for.
    fn hold(&mut self) {
        self.last_news = Instant::now();
        self.exited = self.exited.map(|_| self.last_news);
    }

    fn is_complete(&self) -> bool {
        self.eof && self.exited.is_some()
    }

    /// When to stop waiting for more.
    fn deadline(&self) -> Option<Instant> {
        let exited = self.exited?;
        if self.bytes_since > MAX_BACKLOG_BYTES {
            return Some(exited);
        }
        let transfer = Duration::from_secs(self.bytes_since / BACKLOG_BYTES_PER_SECOND);
        Some((self.last_news + QUIET_GRACE).min(exited + BACKLOG_GRACE + transfer))
    }
}
