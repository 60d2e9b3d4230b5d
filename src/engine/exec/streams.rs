//! The ends of a child's pipes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;

/// Pieces between the channel and its reader.
pub(super) const PIPE_PIECES: usize = 4;

/// Standard input. Shut down or dropped, the program reads its end. Writing fails with
/// `BrokenPipe` once the program is gone.
pub struct ChildStdin {
    /// `None` once it was dropped.
    inner: Option<Box<dyn AsyncWrite + Send + Unpin>>,
}

impl ChildStdin {
    pub(super) fn new(inner: Box<dyn AsyncWrite + Send + Unpin>) -> ChildStdin {
        ChildStdin { inner: Some(inner) }
    }

    fn inner(&mut self) -> io::Result<Pin<&mut (dyn AsyncWrite + Send + Unpin)>> {
        match &mut self.inner {
            Some(inner) => Ok(Pin::new(&mut **inner)),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        let inner = self.inner.take();
        if let (Some(mut inner), Ok(runtime)) = (inner, tokio::runtime::Handle::try_current()) {
            // The program may have ended, then nobody waits for it.
            runtime.spawn(async move { inner.shutdown().await });
        }
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_shutdown(context)
    }
}

macro_rules! output_end {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Pieces);

        impl $name {
            pub(super) fn new(pieces: mpsc::Receiver<Bytes>) -> $name {
                $name(Pieces { pieces, rest: Bytes::new() })
            }

            /// The next piece as it came over the wire; `None` at the end.
            pub async fn next(&mut self) -> Option<Bytes> {
                self.0.next().await
            }
        }

        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.0.poll_read(context, buffer)
            }
        }
    };
}

output_end! {
    /// Standard output. Unread it slows the program down; dropped, the program gets a PIPE
    /// signal at its next write, as on this machine.
    ChildStdout
}
output_end! {
    /// Standard error, as [`ChildStdout`].
    ChildStderr
}

struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Pieces {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.rest.is_empty() {
            return Some(std::mem::take(&mut self.rest));
        }
        self.pieces.recv().await
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.pieces.poll_recv(context)) {
                Some(piece) => self.rest = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}
