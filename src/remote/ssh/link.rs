//! The byte stream under an SSH connection, watched: it ends when the network takes no
//! byte for too long, when it is told to, and it knows why it ended.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use super::way::Below;
use crate::model::escape::printable;

/// As much is kept of what a server says first.
const MAX_BEGINNING_BYTES: usize = 256;

/// Any stream that leads to a server.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Escaped.
    pub reason: String,
    /// The server said goodbye, with a reason of its own.
    pub by_message: bool,
}

/// What everybody who uses a connection may know about it.
#[derive(Debug)]
pub struct Link {
    ending: watch::Sender<Option<Ending>>,
    bytes_read: AtomicU64,
    /// What came first, for the message when it is no greeting.
    beginning: Mutex<Vec<u8>>,
    /// While a person is asked no deadline runs.
    asking: watch::Sender<bool>,
    server_name: OnceLock<String>,
    below: Below,
    /// What the server said when it last opened no channel, escaped.
    refusal: Mutex<Option<String>>,
}

impl Link {
    pub fn new(below: Below) -> Link {
        Link {
            ending: watch::Sender::new(None),
            bytes_read: AtomicU64::new(0),
            beginning: Mutex::new(Vec::new()),
            asking: watch::Sender::new(false),
            server_name: OnceLock::new(),
            below,
            refusal: Mutex::new(None),
        }
    }

    /// The first reason stands: what follows is its consequence.
    pub fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(ending);
            }
            first
        });
    }

    pub fn ending(&self) -> Option<Ending> {
        let ending = self.ending.borrow().clone()?;
        Some(self.explained(ending, self.below.reason()))
    }

    pub async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        loop {
            let known = ending.borrow_and_update().clone();
            if let Some(ending) = known {
                let below = self.below.last_words().await;
                return self.explained(ending, below);
            }
            if ending.changed().await.is_err() {
                // Not while `self` holds the sender.
                return Ending { reason: "the connection is gone".to_string(), by_message: false };
            }
        }
    }

    /// What ended below is the cause, unless the server has said goodbye itself.
    fn explained(&self, ending: Ending, below: Option<String>) -> Ending {
        match below {
            Some(reason) if !ending.by_message => Ending { reason, ..ending },
            _ => ending,
        }
    }

    /// Whether what is sent holds its rate when packets get lost.
    pub fn endures_loss(&self) -> bool {
        matches!(self.below, Below::Network(path) if path.by_bbr)
    }

    /// What carries this connection is over, and has said why.
    pub fn ended_below(&self) -> bool {
        self.below.reason().is_some()
    }

    pub fn set_refusal(&self, told: String) {
        if let Ok(mut refusal) = self.refusal.lock() {
            *refusal = Some(told);
        }
    }

    pub fn take_refusal(&self) -> Option<String> {
        self.refusal.lock().ok()?.take()
    }

    fn received(&self, bytes: &[u8]) {
        let before = self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if before < MAX_BEGINNING_BYTES as u64
            && let Ok(mut beginning) = self.beginning.lock()
        {
            let left = MAX_BEGINNING_BYTES.saturating_sub(beginning.len());
            beginning.extend_from_slice(&bytes[..bytes.len().min(left)]);
        }
    }

    /// A line that begins as SSH's greeting does has come (RFC 4253, 4.2: others may come
    /// before it).
    pub fn has_greeted(&self) -> bool {
        let Ok(beginning) = self.beginning.lock() else { return true };
        beginning.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"SSH-"))
    }

    /// What came in place of a greeting, in one escaped line; empty where nothing came.
    pub fn said_first(&self) -> String {
        let Ok(beginning) = self.beginning.lock() else { return String::new() };
        let mut lines = beginning.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
        printable(lines.find(|line| !line.is_empty()).unwrap_or_default())
    }

    /// What the server calls itself, escaped; empty before the key exchange.
    pub fn server_name(&self) -> String {
        self.server_name.get().cloned().unwrap_or_default()
    }

    pub fn set_server_name(&self, name: String) {
        // A repeated key exchange says the same again.
        let _ = self.server_name.set(name);
    }

    pub fn set_asking(&self, asking: bool) {
        self.asking.send_replace(asking);
    }

    /// Runs `work` with a deadline that stands still while a person is asked. `None` when
    /// the time is over.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut deadline = Instant::now() + limit;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.asking_is(true) => {}
                () = tokio::time::sleep_until(deadline) => return None,
            }
            let asked = Instant::now();
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.asking_is(false) => {}
            }
            deadline += asked.elapsed();
        }
    }

    async fn asking_is(&self, wanted: bool) {
        // Cannot fail: the sender lives as long as `self`.
        let _ = self.asking.subscribe().wait_for(|asking| *asking == wanted).await;
    }
}

/// The stream itself. It is used by one task only: reading and writing share a waker.
pub struct LinkStream {
    inner: Box<dyn ByteStream>,
    link: Arc<Link>,
    /// Resolves when nobody needs the connection any more.
    abandoned: Option<oneshot::Receiver<()>>,
    stall_timeout: Duration,
    /// Runs while a write waits.
    stalled: Pin<Box<Sleep>>,
    waiting: bool,
}

impl LinkStream {
    /// The connection is cut when `abandoned`'s sender is dropped.
    pub fn new(
        inner: Box<dyn ByteStream>,
        link: Arc<Link>,
        abandoned: oneshot::Receiver<()>,
        stall_timeout: Duration,
    ) -> LinkStream {
        LinkStream {
            inner,
            link,
            abandoned: Some(abandoned),
            stall_timeout,
            stalled: Box::pin(tokio::time::sleep(stall_timeout)),
            waiting: false,
        }
    }

    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(abandoned) = &mut self.abandoned
            && Pin::new(abandoned).poll(cx).is_ready()
        {
            self.abandoned = None;
        }
        if self.abandoned.is_none() {
            return Err(self.fail(io::ErrorKind::ConnectionAborted, "closed from this side".to_string()));
        }
        Ok(())
    }

    fn fail(&self, kind: io::ErrorKind, reason: String) -> io::Error {
        self.link.end(Ending { reason: reason.clone(), by_message: false });
        io::Error::new(kind, reason)
    }

    /// Watches over a write or flush: time runs only while nothing moves.
    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Ok(value)) => {
                self.waiting = false;
                Poll::Ready(Ok(value))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.fail(error.kind(), lost(&error)))),
            Poll::Pending => {
                if !self.waiting {
                    self.waiting = true;
                    self.stalled.as_mut().reset(Instant::now() + self.stall_timeout);
                }
                if self.stalled.as_mut().poll(cx).is_ready() {
                    let reason = format!("nothing could be sent for {} s", self.stall_timeout.as_secs_f32());
                    return Poll::Ready(Err(self.fail(io::ErrorKind::TimedOut, reason)));
                }
                Poll::Pending
            }
        }
    }
}

fn lost(error: &io::Error) -> String {
    format!("the connection broke: {error}")
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_abandoned(cx)?;
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len() - before;
                if count == 0 && buffer.remaining() > 0 {
                    // russh still works off what it has: its goodbye may be in there.
                    return Poll::Ready(Ok(()));
                }
                self.link.received(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.fail(error.kind(), lost(&error)))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_abandoned(cx)?;
        let result = Pin::new(&mut self.inner).poll_write(cx, data);
        self.watch(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
