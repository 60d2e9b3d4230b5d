//! Where a program's output goes on this side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use data_encoding::BASE64;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::lines::HostLines;
use crate::cli::json::JsonSender;

/// Of standard error, for the error line of `--check`.
const TAIL_BYTES: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

pub enum Sink {
    /// A descriptor of this process, as bytes.
    Local(Arc<OwnedFd>),
    /// Kept for the result, up to so many bytes.
    Captured {
        bytes: Vec<u8>,
        limit: usize,
        cut: bool,
    },
    /// On the same descriptor as other hosts: whole lines, each with the host's name.
    Lines(HostLines),
    /// A file of this host's own.
    File(Arc<OwnedFd>),
    Events {
        sender: JsonSender,
        host: String,
        stream: Stream,
    },
}

impl Stream {
    /// This process's own.
    pub fn descriptor(self) -> io::Result<Arc<OwnedFd>> {
        let descriptor = match self {
            Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        Ok(Arc::new(descriptor?))
    }
}

impl Sink {
    pub async fn take(&mut self, piece: Bytes) -> io::Result<()> {
        match self {
            Sink::Local(descriptor) | Sink::File(descriptor) => {
                let descriptor = descriptor.clone();
                spawn_blocking(move || write_all(&descriptor, &piece)).await.map_err(io::Error::other)?
            }
            Sink::Lines(lines) => lines.take(&piece).await,
            Sink::Captured { bytes, limit, cut } => {
                let room = limit.saturating_sub(bytes.len()).min(piece.len());
                bytes.extend_from_slice(&piece[..room]);
                *cut |= room < piece.len();
                Ok(())
            }
            Sink::Events { sender, host, stream } => {
                let (sender, host, stream) = (sender.clone(), host.clone(), *stream);
                spawn_blocking(move || sender.send(&OutputEvent::new(&host, stream, &piece)))
                    .await
                    .map_err(io::Error::other)
            }
        }
    }
}

impl Sink {
    /// This side's standard output is where it goes.
    pub fn is_stdout(&self) -> bool {
        match self {
            Sink::Local(_) | Sink::Lines(_) => true,
            Sink::File(_) | Sink::Captured { .. } | Sink::Events { .. } => false,
        }
    }
}

/// All of it, also where another process made the descriptor non-blocking.
pub fn write_all(descriptor: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(descriptor, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Output with what was learnt of it on the way.
pub struct Written {
    pub sink: Sink,
    pub tail: Vec<u8>,
    /// This side's reader is gone.
    pub failure: Option<io::Error>,
}

impl Written {
    pub fn new(sink: Sink) -> Written {
        Written { sink, tail: Vec::new(), failure: None }
    }

    /// No more will come.
    pub async fn finish(&mut self) {
        if let Sink::Lines(lines) = &mut self.sink
            && let Err(error) = lines.finish().await
        {
            self.failure.get_or_insert(error);
        }
    }

    /// Takes a piece and counts it in `moved`. False when no more can be taken.
    pub async fn take(&mut self, piece: Bytes, moved: &AtomicU64) -> bool {
        self.tail.extend_from_slice(&piece[piece.len().saturating_sub(TAIL_BYTES)..]);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        match self.sink.take(piece).await {
            Ok(()) => {
                moved.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }
}

#[derive(Serialize)]
struct OutputEvent<'a> {
    event: &'static str,
    host: &'a str,
    stream: &'static str,
    #[serde(flatten)]
    data: Data,
}

impl<'a> OutputEvent<'a> {
    fn new(host: &'a str, stream: Stream, bytes: &[u8]) -> OutputEvent<'a> {
        OutputEvent { event: "output", host, stream: stream.name(), data: Data::new(bytes) }
    }
}

/// Bytes in JSON: `text` where they are UTF-8, else `base64`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    Text(String),
    Base64(String),
}

impl Data {
    pub fn new(bytes: &[u8]) -> Data {
        match std::str::from_utf8(bytes) {
            Ok(text) => Data::Text(text.to_owned()),
            Err(_) => Data::Base64(BASE64.encode(bytes)),
        }
    }
}

/// Waits until nobody reads this process's standard output any more; for ever where that
/// cannot be seen.
pub async fn reader_gone() {
    let Ok(descriptor) = io::stdout().as_fd().try_clone_to_owned() else {
        return std::future::pending().await;
    };
    // A thread that is left behind goes with the process.
    let (gone_in, gone) = tokio::sync::oneshot::channel();
    let watch = move || {
        loop {
            let mut waiting = [PollFd::new(&descriptor, PollFlags::empty())];
            match poll(&mut waiting, None) {
                Err(Errno::INTR) => {}
                Ok(_) if waiting[0].revents().contains(PollFlags::ERR) => {
                    let _ = gone_in.send(());
                    return;
                }
                _ => return,
            }
        }
    };
    let started = std::thread::Builder::new().name("stdout".to_owned()).spawn(watch);
    if started.is_err() || gone.await.is_err() {
        std::future::pending().await
    }
}
