//! A remote command's channel as a [`Process`].
//!
//! Back-pressure: russh opens a channel's receive window again when data arrives, not
//! when somebody has read it, and then waits for room in the channel's queue
//! (`CHANNEL_QUEUE_PACKETS`). So a reader that stands still holds at most that queue and
//! ours, some 3 MiB, and then holds up the whole connection, keepalives and other
//! channels included. A command whose output may be left lying belongs on a connection
//! of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};

use super::connection::Shared;
use crate::remote::process::{Process, ProcessControl, ProcessEvent};

/// Events that wait for the reader: each at most one packet.
const EVENT_QUEUE: usize = 16;
const CONTROL_QUEUE: usize = 8;
/// SSH_EXTENDED_DATA_STDERR (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// Takes over a channel in which a command was started.
pub fn start(shared: Arc<Shared>, channel: Channel<Msg>, early: Vec<ChannelMsg>) -> Process {
    let (events_in, events) = mpsc::channel(EVENT_QUEUE);
    let (control, control_out) = mpsc::channel(CONTROL_QUEUE);
    let (closed_in, closed) = watch::channel(false);
    let stdin = Stdin {
        inner: Box::pin(channel.make_writer()),
        gone: Box::pin(gone(shared.clone(), closed.clone())),
        finished: false,
    };
    let (read, write) = channel.split();
    let write = Arc::new(write);
    // Two tasks: a signal must get through while the output waits for its reader.
    tokio::spawn(pump(shared.clone(), read, write.clone(), early, events_in, closed_in));
    tokio::spawn(steer(shared, write, control_out, closed));
    Process { stdin: Box::new(stdin), events, control }
}

/// Carries output until the channel or its reader is gone.
async fn pump(
    shared: Arc<Shared>,
    mut read: ChannelReadHalf,
    write: Arc<ChannelWriteHalf<Msg>>,
    early: Vec<ChannelMsg>,
    events: mpsc::Sender<ProcessEvent>,
    closed: watch::Sender<bool>,
) {
    for message in early {
        if let Some(event) = event_of(message)
            && events.send(event).await.is_err()
        {
            break;
        }
    }
    let mut closed_by_server = false;
    loop {
        let message = tokio::select! {
            biased;
            message = read.wait() => message,
            () = events.closed() => break,
        };
        match message {
            None => break,
            Some(ChannelMsg::Close) => {
                closed_by_server = true;
                break;
            }
            Some(message) => {
                if let Some(event) = event_of(message)
                    && events.send(event).await.is_err()
                {
                    break;
                }
            }
        }
    }
    // First of all, so that russh does not wait for a reader that is gone.
    drop(read);
    closed.send_replace(true);
    if !closed_by_server {
        tokio::select! {
            biased;
            _ = write.close() => {}
            _ = shared.link.ended() => {}
        }
    }
}

fn event_of(message: ChannelMsg) -> Option<ProcessEvent> {
    match message {
        ChannelMsg::Data { data } => Some(ProcessEvent::Stdout(data)),
        ChannelMsg::ExtendedData { data, ext: STDERR } => Some(ProcessEvent::Stderr(data)),
        ChannelMsg::Eof => Some(ProcessEvent::Eof),
        ChannelMsg::ExitStatus { exit_status } => Some(ProcessEvent::Exited(exit_status)),
        ChannelMsg::ExitSignal { signal_name, core_dumped, .. } => {
            Some(ProcessEvent::Signaled { signal: signal_name_of(signal_name), core_dumped })
        }
        _ => None,
    }
}

/// Sends signals and sizes until the channel is closed or nobody can send any more.
async fn steer(
    shared: Arc<Shared>,
    write: Arc<ChannelWriteHalf<Msg>>,
    mut control: mpsc::Receiver<ProcessControl>,
    closed: watch::Receiver<bool>,
) {
    let gone = gone(shared, closed);
    tokio::pin!(gone);
    loop {
        let order = tokio::select! {
            biased;
            () = &mut gone => return,
            order = control.recv() => order,
        };
        let Some(order) = order else { return };
        let sent = async {
            match order {
                ProcessControl::Signal(name) => write.signal(signal_of(&name)).await,
                ProcessControl::Resize { columns, rows } => write.window_change(columns, rows, 0, 0).await,
                ProcessControl::Close => write.close().await,
            }
        };
        // What cannot be sent any more has nobody to reach.
        tokio::select! {
            biased;
            () = &mut gone => return,
            _ = sent => {}
        }
    }
}

/// Resolves when nothing can be written to the channel any more.
async fn gone(shared: Arc<Shared>, mut closed: watch::Receiver<bool>) {
    tokio::select! {
        _ = closed.wait_for(|closed| *closed) => {}
        _ = shared.link.ended() => {}
    }
}

/// Standard input. russh's own writer waits for ever when the channel closes while its
/// window is used up; this one does not.
struct Stdin<W> {
    inner: Pin<Box<W>>,
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
    finished: bool,
}

impl<W: AsyncWrite> Stdin<W> {
    fn or_gone<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() || self.finished {
            return result;
        }
        if self.gone.as_mut().poll(cx).is_ready() {
            self.finished = true;
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Pending
    }
}

impl<W: AsyncWrite> AsyncWrite for Stdin<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let result = self.inner.as_mut().poll_write(cx, data);
        self.or_gone(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    /// Sends EOF, once.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        let result = self.inner.as_mut().poll_shutdown(cx);
        let result = self.or_gone(cx, result);
        if result.is_ready() {
            self.finished = true;
        }
        result
    }
}

fn signal_of(name: &str) -> Sig {
    match name {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(other.to_string()),
    }
}

fn signal_name_of(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => crate::model::escape::printable(name.as_bytes()),
        // The variants are called as the signals are.
        known => format!("{known:?}"),
    }
}
