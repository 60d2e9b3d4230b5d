//! The SFTP client on an SSH channel: bytes in, packets out without a copy.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{oneshot, watch};

use super::connection::{SUBSYSTEM, Shared};
use super::sudo::Complaint;
use crate::remote::Files;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::sftp::{PacketSink, SftpClient, SftpOptions};

/// A payload up to this size is copied behind its head, so that both are one SSH packet.
const JOIN_BYTES: usize = 4 * 1024;
/// SSH_EXTENDED_DATA_STDERR (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// Takes over a channel in which an SFTP server was asked for, the subsystem or one of
/// another user; the answer is not waited for, since it comes before the first packet or
/// instead of it.
pub async fn start_sftp(shared: Arc<Shared>, channel: Channel<Msg>) -> Result<Arc<dyn Files>, RemoteError> {
    let options = SftpOptions {
        handshake_timeout: shared.options.stall_timeout,
        stall_timeout: shared.options.stall_timeout,
        in_order: shared.link.server_name().starts_with("SSH-2.0-OpenSSH_"),
        compare_handles: true,
    };
    let (read, write) = channel.split();
    let write = Arc::new(write);
    let refused = Arc::new(AtomicBool::new(false));
    let (open, dropped) = oneshot::channel();
    let (closed_in, closed) = watch::channel(false);
    let complaint = Arc::new(Mutex::new(Complaint::default()));
    let reader = ChannelReader {
        next: next_message(read),
        data: Bytes::new(),
        complaint: complaint.clone(),
        at_end: false,
        shared: shared.clone(),
        closed: closed_in,
        refused: refused.clone(),
        _open: open,
    };
    tokio::spawn(close_after(shared.clone(), write.clone(), dropped));
    let ended = closed.clone();
    let sink = ChannelSink { write, shared: shared.clone(), closed };
    match SftpClient::start_with_sink(reader, sink, options).await {
        Ok(client) => Ok(Arc::new(client)),
        Err(_) if refused.load(Ordering::Acquire) => {
            let what = match &shared.options.sudo {
                None => SUBSYSTEM,
                Some(_) => "commands, which sudo needs",
            };
            Err(RemoteError::new(
                RemoteErrorKind::Unsupported,
                format!("{}: the server does not provide {what}", shared.options.host),
            ))
        }
        Err(error) => Err(no_session(&shared, error, *ended.borrow(), &complaint)),
    }
}

/// Where sudo was to start the server, and the channel ended while the connection stands,
/// sudo is the reason.
fn no_session(
    shared: &Shared,
    error: RemoteError,
    channel_ended: bool,
    complaint: &Mutex<Complaint>,
) -> RemoteError {
    let host = &shared.options.host;
    match &shared.options.sudo {
        Some(user) if channel_ended && shared.link.ending().is_none() => {
            let complaint = complaint.lock().unwrap_or_else(PoisonError::into_inner);
            let reason = user.explain(complaint.bytes());
            RemoteError::new(RemoteErrorKind::PermissionDenied, format!("{host}: {reason}"))
        }
        _ => RemoteError::new(error.kind, format!("{host}: {}", error.message)),
    }
}

fn note_complaint(complaint: &Mutex<Complaint>, message: &ChannelMsg) {
    if let ChannelMsg::ExtendedData { data, ext: STDERR } = message {
        complaint.lock().unwrap_or_else(PoisonError::into_inner).add(data);
    }
}

/// Closes the channel once its reader is gone.
async fn close_after(shared: Arc<Shared>, write: Arc<ChannelWriteHalf<Msg>>, dropped: oneshot::Receiver<()>) {
    let close = async {
        // Nothing is ever sent: the sender is dropped.
        let _ = dropped.await;
        write.close().await
    };
    tokio::select! {
        _ = close => {}
        _ = shared.link.ended() => {}
    }
}

type NextMessage = Pin<Box<dyn Future<Output = (ChannelReadHalf, Option<ChannelMsg>)> + Send>>;

fn next_message(mut read: ChannelReadHalf) -> NextMessage {
    Box::pin(async move {
        let message = read.wait().await;
        (read, message)
    })
}

/// What comes on the channel. What the server's program says on its standard error is kept
/// apart, up to a limit.
struct ChannelReader {
    next: NextMessage,
    data: Bytes,
    complaint: Arc<Mutex<Complaint>>,
    at_end: bool,
    shared: Arc<Shared>,
    closed: watch::Sender<bool>,
    /// The server does not start the subsystem.
    refused: Arc<AtomicBool>,
    _open: oneshot::Sender<()>,
}

impl AsyncRead for ChannelReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.data.is_empty() {
                let count = self.data.len().min(buffer.remaining());
                buffer.put_slice(&self.data[..count]);
                self.data.advance(count);
                return Poll::Ready(Ok(()));
            }
            if self.at_end {
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready((read, message)) = self.next.as_mut().poll(cx) else { return Poll::Pending };
            match message {
                Some(ChannelMsg::Data { data }) => {
                    self.data = data;
                    self.next = next_message(read);
                }
                Some(ChannelMsg::Failure) => {
                    self.refused.store(true, Ordering::Release);
                    self.at_end = true;
                    self.closed.send_replace(true);
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) => {
                    self.at_end = true;
                    self.closed.send_replace(true);
                }
                None => {
                    self.at_end = true;
                    self.closed.send_replace(true);
                    if let Some(ending) = self.shared.link.ending() {
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::ConnectionReset,
                            ending.reason,
                        )));
                    }
                }
                Some(other) => {
                    note_complaint(&self.complaint, &other);
                    self.next = next_message(read);
                }
            }
        }
    }
}

/// Hands packets to russh as they are. It waits for the channel's window.
struct ChannelSink {
    write: Arc<ChannelWriteHalf<Msg>>,
    shared: Arc<Shared>,
    closed: watch::Receiver<bool>,
}

impl ChannelSink {
    /// russh waits for ever on the window of a channel that is gone; this does not.
    async fn or_gone(&mut self, work: impl Future<Output = Result<(), russh::Error>>) -> io::Result<()> {
        tokio::select! {
            biased;
            done = work => done.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error.to_string())),
            _ = self.closed.wait_for(|closed| *closed) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "the server closed the channel"))
            }
            ending = self.shared.link.ended() => {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, ending.reason))
            }
        }
    }
}

#[async_trait]
impl PacketSink for ChannelSink {
    async fn send(&mut self, head: Bytes, payload: Bytes) -> io::Result<()> {
        let write = self.write.clone();
        self.or_gone(async move {
            if payload.len() <= JOIN_BYTES {
                let mut packet = BytesMut::with_capacity(head.len() + payload.len());
                packet.extend_from_slice(&head);
                packet.extend_from_slice(&payload);
                return write.data_bytes(packet.freeze()).await;
            }
            write.data_bytes(head).await?;
            write.data_bytes(payload).await
        })
        .await
    }

    async fn finish(&mut self) -> io::Result<()> {
        let write = self.write.clone();
        self.or_gone(async move { write.eof().await }).await
    }
}
