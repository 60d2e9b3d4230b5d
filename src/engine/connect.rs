//! The way to one host, made again when it is lost.

use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use futures_util::poll;

use super::failure::{Failure, FailureKind, Phase};
use super::monitor::{Level, Monitor, Notice};
use super::site::EarlyFiles;
use super::stop::Stop;
use crate::model::escape::printable;
use crate::remote::{Connection, Connector, ExecRequest, Files, Process, RemoteError, RemoteErrorKind};

type Open = (Arc<dyn Connection>, Arc<dyn Files>);

pub struct Link {
    connector: Arc<dyn Connector>,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
    open: Option<Open>,
    was_open: bool,
    one_session: bool,
    wants_second: bool,
    second: Option<EarlyFiles>,
}

/// Opens sessions independently of each other, and answers in order what is asked for.
const OPENSSH: &str = "SSH-2.0-OpenSSH_";

/// A connection that gives no further file sessions.
struct OneSession(Arc<dyn Connection>);

#[async_trait]
impl Connection for OneSession {
    async fn files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        Err(RemoteError::new(RemoteErrorKind::ChannelRefused, "no further file session is asked for"))
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError> {
        self.0.exec(request).await
    }

    fn server_name(&self) -> String {
        self.0.server_name()
    }

    fn endures_loss(&self) -> bool {
        self.0.endures_loss()
    }

    async fn disconnect(&self) {
        self.0.disconnect().await;
    }
}

impl Link {
    pub fn new(connector: Arc<dyn Connector>, monitor: Arc<dyn Monitor>, stop: Stop) -> Link {
        Link {
            connector,
            monitor,
            stop,
            open: None,
            was_open: false,
            one_session: false,
            wants_second: false,
            second: None,
        }
    }

    pub fn host(&self) -> String {
        printable(self.connector.host().as_bytes())
    }

    /// The connection with its first file channel. Once there was one, a host that does
    /// not answer is a lost link, which is worth a retry.
    pub async fn get(&mut self) -> Result<Open, Failure> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let connecting = async {
            let connection = self.connector.connect().await?;
            let (files, second) = open_sessions(&connection, self.wants_second && !self.one_session).await?;
            if self.one_session {
                return Ok(((Arc::new(OneSession(connection)) as Arc<dyn Connection>, files), None));
            }
            Ok(((connection, files), second))
        };
        let connecting = async {
            connecting.await.map_err(|error: RemoteError| {
                let failure = Failure::remote(Phase::Connect, self.host(), &error);
                let lost = matches!(error.kind, RemoteErrorKind::Unreachable | RemoteErrorKind::LinkLost);
                let kind = match error.kind {
                    // Logged in, and sudo says no.
                    RemoteErrorKind::PermissionDenied => failure.kind,
                    _ if lost && self.was_open => FailureKind::Link,
                    _ => FailureKind::Unreachable,
                };
                Failure { kind, ..failure }
            })
        };
        let (open, second): (Open, _) =
            or_stopped(&self.stop, Phase::Connect, self.host(), connecting).await?;
        self.monitor.notice(Notice {
            level: Level::Detail,
            text: format!("{}: connected to {}", self.host(), printable(open.0.server_name().as_bytes())),
        });
        self.was_open = true;
        self.open = Some(open.clone());
        self.second = second;
        Ok(open)
    }

    /// From the next connection on everything goes through one file session: some servers
    /// mix up several. False where that is so already.
    pub fn keep_to_one_session(&mut self) -> bool {
        !std::mem::replace(&mut self.one_session, true)
    }

    /// From the next connection on a second file session is opened together with the first,
    /// where that does no harm.
    pub fn open_second_at_once(&mut self) {
        self.wants_second = true;
    }

    /// Once a connection.
    pub fn take_second(&mut self) -> Option<EarlyFiles> {
        self.second.take()
    }

    pub fn connector(&self) -> &Arc<dyn Connector> {
        &self.connector
    }

    /// Forgets a connection that is dead.
    pub fn lose(&mut self) {
        self.second = None;
        self.open = None;
    }

    pub fn files(&self) -> Option<Arc<dyn Files>> {
        self.open.as_ref().map(|(_, files)| files.clone())
    }

    pub async fn close(&mut self) {
        self.second = None;
        if let Some((connection, _)) = self.open.take() {
            connection.disconnect().await;
        }
    }
}

/// The first file session, and a second one that is being opened.
async fn open_sessions(
    connection: &Arc<dyn Connection>,
    wants_second: bool,
) -> Result<(Arc<dyn Files>, Option<EarlyFiles>), RemoteError> {
    let mut opening = connection.files();
    // The first comes first, as a server may give no more than one.
    if let Poll::Ready(files) = poll!(&mut opening) {
        return Ok((files?, None));
    }
    let at_once = wants_second && connection.server_name().starts_with(OPENSSH);
    let second = at_once.then(|| EarlyFiles::open(connection));
    Ok((opening.await?, second))
}

pub fn interrupted(phase: Phase, place: String) -> Failure {
    Failure::new(FailureKind::Interrupted, phase, place, "interrupted")
        .next_step("run the same command again to go on")
}

/// Does `work` unless asked to stop. For work that changes nothing on the target.
pub async fn or_stopped<T>(
    stop: &Stop,
    phase: Phase,
    place: String,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = stop.stopped() => Err(interrupted(phase, place)),
    }
}
