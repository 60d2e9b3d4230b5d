//! This side's standard input on its way to the program.
//!
//! A byte that was read is gone for whoever reads the same input after haul, so nothing is
//! read before there is room for it, and a wait for input can be given up.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 32 * 1024;

/// Reads until its end; dropped, it reads no more.
pub struct Input {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Its end wakes the thread.
    _cancel: PipeWriter,
}

impl Input {
    /// Of this process. A closed one has nothing.
    pub fn stdin() -> io::Result<Input> {
        Input::start(io::stdin().as_fd().try_clone_to_owned()?)
    }

    pub fn file(file: File) -> io::Result<Input> {
        Input::start(file.into())
    }

    fn start(source: OwnedFd) -> io::Result<Input> {
        let (cancelled, cancel) = io::pipe()?;
        // One piece on its way, one in the hands of who sends it.
        let (sender, pieces) = mpsc::channel(1);
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || read(&source, &cancelled, &sender, &runtime))?;
        Ok(Input { pieces, _cancel: cancel })
    }

    /// `None` at its end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.pieces.recv().await
    }
}

fn read(
    source: &OwnedFd,
    cancelled: &PipeReader,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    runtime: &Handle,
) {
    loop {
        let Ok(room) = runtime.block_on(sender.reserve()) else { return };
        let piece = match next_piece(source, cancelled) {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        room.send(piece);
        if failed {
            return;
        }
    }
}

/// `None` at the end, and when nobody wants more.
fn next_piece(source: &OwnedFd, cancelled: &PipeReader) -> io::Result<Option<Bytes>> {
    loop {
        let mut waiting = [PollFd::new(source, PollFlags::IN), PollFd::new(cancelled, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if !waiting[1].revents().is_empty() {
            return Ok(None);
        }
        if waiting[0].revents().is_empty() {
            continue;
        }
        let mut buffer = vec![0; PIECE_BYTES];
        match rustix::io::read(source, &mut buffer[..]) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                buffer.truncate(count);
                return Ok(Some(buffer.into()));
            }
            // Someone who shares it may have taken it, or made it non-blocking.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
