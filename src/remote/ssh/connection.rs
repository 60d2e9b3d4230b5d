//! One authenticated connection, and the channels that it opens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, Disconnect};
use tokio::sync::oneshot;

use super::handler::ClientHandler;
use super::link::Link;
use super::options::SshOptions;
use super::process;
use super::subsystem;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::process::{ExecRequest, Process};
use crate::remote::{Connection, Files};

/// How long a goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// Packets of output that may come before the server says that a command was started.
const MAX_EARLY_PACKETS: usize = 16;

pub struct SshConnection {
    shared: Arc<Shared>,
}

/// What a connection and all its channels hold together. The connection is cut when the
/// last of them is dropped.
pub struct Shared {
    pub options: Arc<SshOptions>,
    pub link: Arc<Link>,
    handle: Handle<ClientHandler>,
    _keep: oneshot::Sender<()>,
}

impl SshConnection {
    pub(super) fn new(
        options: Arc<SshOptions>,
        handle: Handle<ClientHandler>,
        link: Arc<Link>,
        keep: oneshot::Sender<()>,
    ) -> SshConnection {
        SshConnection { shared: Arc::new(Shared { options, link, handle, _keep: keep }) }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

/// What a file channel asks for, for messages.
pub const SUBSYSTEM: &str = "the SFTP subsystem";

#[async_trait]
impl Connection for SshConnection {
    async fn files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        let channel = self.shared.open_channel("file transfer").await?;
        match &self.shared.options.sudo {
            None => self.shared.wait_for(SUBSYSTEM, channel.request_subsystem(true, "sftp")).await?,
            Some(user) => self.shared.wait_for(SUBSYSTEM, channel.exec(true, user.sftp_command())).await?,
        }
        subsystem::start_sftp(self.shared.clone(), channel).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError> {
        let mut channel = self.shared.open_channel("a command").await?;
        if let Some(terminal) = &request.terminal {
            let wish = channel.request_pty(true, &terminal.term, terminal.columns, terminal.rows, 0, 0, &[]);
            self.shared.wait_for("a terminal", wish).await?;
            self.shared.granted("a terminal", &mut channel).await?;
        }
        let command = match &self.shared.options.sudo {
            None => request.command.to_string(),
            Some(user) => user.command(request.command),
        };
        self.shared.wait_for("a command", channel.exec(true, command)).await?;
        let early = self.shared.granted("a command", &mut channel).await?;
        Ok(process::start(self.shared.clone(), channel, early))
    }

    fn server_name(&self) -> String {
        self.shared.link.server_name()
    }

    fn endures_loss(&self) -> bool {
        self.shared.link.endures_loss()
    }

    async fn disconnect(&self) {
        let goodbye = async {
            if self.shared.handle.disconnect(Disconnect::ByApplication, "", "").await.is_ok() {
                self.shared.link.ended().await;
            }
        };
        // A server that does not hear it loses nothing.
        let _ = tokio::time::timeout(GOODBYE_LIMIT, goodbye).await;
    }
}

impl Shared {
    /// A stream from the server's end to `host` and `port` (RFC 4254, 7.2).
    pub async fn open_forward(&self, host: &str, port: u16) -> Result<Channel<Msg>, russh::Error> {
        self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await
    }

    /// The error for everything that the end of the connection cut short.
    pub fn lost(&self, what: &str) -> RemoteError {
        let reason = match self.link.ending() {
            Some(ending) => ending.reason,
            None => "the connection is gone".to_string(),
        };
        RemoteError::new(
            RemoteErrorKind::LinkLost,
            format!("{}: {what}: connection lost: {reason}", self.options.host),
        )
    }

    async fn open_channel(&self, what: &str) -> Result<Channel<Msg>, RemoteError> {
        match self.limited(what, self.handle.channel_open_session()).await? {
            Ok(channel) => Ok(channel),
            Err(russh::Error::ChannelOpenFailure(reason)) => Err(RemoteError::new(
                RemoteErrorKind::ChannelRefused,
                format!("{}: the server opens no channel for {what}: {reason:?}", self.options.host),
            )),
            Err(_) => Err(self.ended(what).await),
        }
    }

    /// Sends a request; its answer is for [`Shared::granted`] to read.
    async fn wait_for(
        &self,
        what: &str,
        sent: impl Future<Output = Result<(), russh::Error>>,
    ) -> Result<(), RemoteError> {
        match self.limited(what, sent).await? {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended(what).await),
        }
    }

    /// Waits for the answer to the last request. Gives what else came before it.
    async fn granted(&self, what: &str, channel: &mut Channel<Msg>) -> Result<Vec<ChannelMsg>, RemoteError> {
        let answer = async {
            let mut early = Vec::new();
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) => return Ok(early),
                    Some(ChannelMsg::WindowAdjusted { .. }) => {}
                    Some(message @ (ChannelMsg::Data { .. } | ChannelMsg::ExtendedData { .. }))
                        if early.len() < MAX_EARLY_PACKETS =>
                    {
                        early.push(message);
                    }
                    // A server that cannot serve it says no, or closes the channel.
                    Some(_) => return Err(true),
                    None => return Err(false),
                }
            }
        };
        match self.limited(what, answer).await? {
            Ok(early) => Ok(early),
            Err(true) => {
                // Best effort: the error is what counts.
                let _ = tokio::time::timeout(GOODBYE_LIMIT, channel.close()).await;
                Err(RemoteError::new(
                    RemoteErrorKind::Unsupported,
                    format!("{}: the server does not provide {what}", self.options.host),
                ))
            }
            Err(false) => Err(self.ended(what).await),
        }
    }

    /// Runs `work` until it is done, the connection ends, or the server is too slow.
    async fn limited<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T, RemoteError> {
        let limit = self.options.stall_timeout;
        tokio::select! {
            biased;
            done = work => Ok(done),
            _ = self.link.ended() => Err(self.lost(what)),
            () = tokio::time::sleep(limit) => Err(RemoteError::new(
                RemoteErrorKind::LinkLost,
                format!("{}: {what}: no answer within {:.1} s", self.options.host, limit.as_secs_f32()),
            )),
        }
    }

    /// The connection is over or about to be: waits shortly for the reason.
    pub async fn ended(&self, what: &str) -> RemoteError {
        let _ = tokio::time::timeout(GOODBYE_LIMIT, self.link.ended()).await;
        self.lost(what)
    }
}
