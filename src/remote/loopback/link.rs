//! The TCP side: connections that can be cut in the middle of a packet, and counters.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Never reached by a counter: no cut is wanted.
const NEVER: u64 = u64::MAX;

/// What all connections of a server share.
#[derive(Debug)]
pub struct Traffic {
    bytes_written: AtomicU64,
    connections: AtomicU64,
    cuts: AtomicU64,
    /// The count of `bytes_written` at which everything is cut, once.
    cut_at: AtomicU64,
    /// Counts up; a connection that was there before is cut.
    generation: watch::Sender<u64>,
}

impl Traffic {
    pub fn new() -> Traffic {
        Traffic {
            bytes_written: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            cut_at: AtomicU64::new(NEVER),
            generation: watch::Sender::new(0),
        }
    }

    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }

    pub fn cut_after(&self, bytes: u64) {
        self.cut_at.store(self.bytes_written().saturating_add(bytes), Ordering::SeqCst);
        // A write may have been counted between the two.
        self.cut_when_due();
    }

    pub fn cut_now(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::SeqCst);
        self.cut_when_due();
    }

    /// A connection that ends with the next cut.
    pub fn connection(&self, stream: TcpStream) -> CuttableStream {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut receiver = self.generation.subscribe();
        let cut = Box::pin(async move {
            // An error means that the server is gone, which is a cut too.
            let _ = receiver.changed().await;
        });
        CuttableStream { stream, cut, is_cut: false }
    }

    fn cut_when_due(&self) {
        let at = self.cut_at.load(Ordering::SeqCst);
        let due = at != NEVER && self.bytes_written() >= at;
        if due && self.cut_at.compare_exchange(at, NEVER, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.cut_now();
        }
    }
}

/// A TCP connection that breaks off with a reset, without a goodbye of SSH's or TCP's.
pub struct CuttableStream {
    stream: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

impl CuttableStream {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.is_cut && self.cut.as_mut().poll(context).is_ready() {
            self.is_cut = true;
            // Makes the close, which follows, a reset.
            self.stream.set_zero_linger()?;
        }
        if self.is_cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
