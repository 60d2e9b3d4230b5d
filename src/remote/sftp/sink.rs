//! Where packets go: the writing half of a session.

use std::io::{self, IoSlice};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Takes packets for the server, one call after the other.
#[async_trait]
pub trait PacketSink: Send {
    /// Sends `head`, then `payload`, which may be empty, and keeps nothing back. Waits
    /// while the connection takes no more; this is where back-pressure begins.
    /// The session is over when it fails, or when its future is dropped half way.
    async fn send(&mut self, head: Bytes, payload: Bytes) -> io::Result<()>;

    /// Says that nothing follows.
    async fn finish(&mut self) -> io::Result<()>;
}

/// A sink over any writer. Head and payload leave in one vectored write where the
/// writer has such.
pub struct StreamSink<W> {
    writer: W,
}

impl<W: AsyncWrite + Send + Unpin> StreamSink<W> {
    pub fn new(writer: W) -> StreamSink<W> {
        StreamSink { writer }
    }
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin> PacketSink for StreamSink<W> {
    async fn send(&mut self, head: Bytes, payload: Bytes) -> io::Result<()> {
        let mut packet = head.chain(payload);
        while packet.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 2];
            let count = packet.chunks_vectored(&mut slices);
            match self.writer.write_vectored(&slices[..count]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => packet.advance(written),
            }
        }
        self.writer.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }
}
