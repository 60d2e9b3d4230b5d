//! A jump host: logged in to as any other host, and then asked for a stream to the next.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use russh::ChannelOpenFailure;
use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;

use super::connection::Shared;
use super::connector::SshConnector;
use super::options::SshOptions;
use super::prompter::Prompter;
use crate::model::escape::printable;
use crate::remote::Connector;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// How much longer than the next host's own `connect_timeout` the hop may take to say that
/// it cannot reach it.
const ANSWER_ALLOWANCE: Duration = Duration::from_secs(1);

pub struct Hop {
    connector: Box<SshConnector>,
    /// The last connection that was made; `None` before the first. Whoever makes the first
    /// holds the lock meanwhile, so that a person is asked once.
    last: Mutex<Option<Weak<Shared>>>,
}

impl Hop {
    pub fn new(options: SshOptions, prompter: Arc<dyn Prompter>) -> Hop {
        Hop { connector: Box::new(SshConnector::new(options, prompter)), last: Mutex::new(None) }
    }

    /// A stream to the host of `options`, from the hop's end. The hop's connection lives as
    /// long as the stream.
    pub async fn stream(&self, options: &SshOptions) -> Result<(HopStream, Arc<Shared>), RemoteError> {
        let named = |error: RemoteError| {
            RemoteError::new(error.kind, format!("{}: on the way there: {}", options.host, error.message))
        };
        let hop = self.connection().await.map_err(named)?;
        let limit = options.connect_timeout + ANSWER_ALLOWANCE;
        let opened = tokio::select! {
            biased;
            opened = hop.open_forward(&options.address, options.port) => opened,
            _ = hop.link.ended() => return Err(named(hop.lost("a stream to the next host"))),
            () = tokio::time::sleep(limit) => return Err(self.not_opened(
                options,
                &format!("cannot reach {}: no answer within {:.1} s", place(options), limit.as_secs_f32()),
            )),
        };
        match opened {
            Ok(channel) => Ok((HopStream { stream: channel.into_stream(), _hop: hop.clone() }, hop)),
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                let told = hop.link.take_refusal().filter(|told| !told.is_empty());
                let told = told.map(|told| format!(": {told}")).unwrap_or_default();
                let what = match reason {
                    ChannelOpenFailure::AdministrativelyProhibited => format!(
                        "does not forward to {}{told}; does its sshd_config say AllowTcpForwarding no, or \
                         PermitOpen?",
                        place(options)
                    ),
                    ChannelOpenFailure::ConnectFailed => format!("cannot reach {}{told}", place(options)),
                    other => format!("opens no stream to {}: {other:?}{told}", place(options)),
                };
                Err(self.not_opened(options, &what))
            }
            Err(_) => Err(named(hop.ended("a stream to the next host").await)),
        }
    }

    /// One connection a stream, as each has a limit of its own; those that stand are shared
    /// where no further one is to be had.
    async fn connection(&self) -> Result<Arc<Shared>, RemoteError> {
        let mut last = self.last.lock().await;
        let Some(before) = &*last else {
            let first = self.connector.open().await?;
            *last = Some(Arc::downgrade(&first));
            return Ok(first);
        };
        let standing = before.upgrade().filter(|standing| standing.link.ending().is_none());
        drop(last);
        if let Some(standing) = &standing
            && self.connector.needs_person().is_some()
        {
            return Ok(standing.clone());
        }
        match self.connector.open().await {
            Ok(another) => {
                *self.last.lock().await = Some(Arc::downgrade(&another));
                Ok(another)
            }
            Err(error) => match standing {
                Some(standing) if standing.link.ending().is_none() => Ok(standing),
                _ => Err(error),
            },
        }
    }

    fn not_opened(&self, options: &SshOptions, what: &str) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Unreachable,
            format!("{}: the jump host {} {what}", options.host, self.connector.host()),
        )
    }
}

fn place(options: &SshOptions) -> String {
    format!("{} port {}", printable(options.address.as_bytes()), options.port)
}

/// Keeps the hop's connection open.
pub struct HopStream {
    stream: ChannelStream<Msg>,
    _hop: Arc<Shared>,
}

impl AsyncRead for HopStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for HopStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
