//! One target on one host, connected: what every step of a job works with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::failure::{Failure, Phase};
use super::monitor::{Level, Monitor, Notice};
use super::options::VerifyMethod;
use super::probe::{Fast, HashProgram, Shell, Witness, probe, probe_fast};
use crate::model::checksum::Method;
use crate::model::escape::printable;
use crate::model::gmac::Key;
use crate::model::names::Names;
use crate::model::remote_path::RemotePath;
use crate::remote::{Connection, Files, RemoteError, RemoteErrorKind};

/// How long a server may take to open a further file channel, and to show afterwards that
/// the link is well. Some never answer a second one, neither yes nor no.
const FURTHER_CHANNEL_LIMIT: Duration = Duration::from_secs(10);

/// The task that proves the shell.
struct Proving(AbortHandle);

impl Drop for Proving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
pub struct Site {
    pub host: String,
    pub names: Names,
    pub connection: Arc<dyn Connection>,
    /// The channel for everything but bulk data.
    pub files: Arc<dyn Files>,
    shell: Arc<OnceCell<Option<Shell>>>,
    fast: Arc<OnceCell<Fast>>,
    proving: Arc<OnceLock<Proving>>,
    /// The server opens no further file channel.
    one_channel: Arc<AtomicBool>,
}

impl Site {
    pub fn new(host: &str, names: Names, connection: Arc<dyn Connection>, files: Arc<dyn Files>) -> Site {
        Site {
            host: host.to_owned(),
            names,
            connection,
            files,
            shell: Arc::default(),
            fast: Arc::default(),
            proving: Arc::default(),
            one_channel: Arc::default(),
        }
    }

    /// `host:path` of the target, for messages.
    pub fn place(&self) -> String {
        place(&self.host, self.names.target())
    }

    pub fn place_of(&self, path: &RemotePath) -> String {
        place(&self.host, path)
    }

    /// For `map_err`: a failed operation somewhere beside the target.
    pub fn failed(&self, phase: Phase) -> impl Fn(RemoteError) -> Failure + '_ {
        move |error| Failure::remote(phase, self.place(), &error)
    }

    /// A further file channel; where the server opens no more, whatever it says of that or
    /// when it says nothing, the one there is. Fails only with a dead link.
    pub async fn further_files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        self.further_files_from(self.connection.files()).await
    }

    async fn further_files_from(
        &self,
        opening: impl Future<Output = Result<Arc<dyn Files>, RemoteError>>,
    ) -> Result<Arc<dyn Files>, RemoteError> {
        if self.one_channel.load(Ordering::Relaxed) {
            return Ok(self.files.clone());
        }
        match timeout(FURTHER_CHANNEL_LIMIT, opening).await {
            Ok(Ok(files)) => return Ok(files),
            Ok(Err(error)) if error.is_link() => self.still_answers(Some(error)).await?,
            Ok(Err(_)) => {}
            Err(_) => self.still_answers(None).await?,
        }
        self.one_channel.store(true, Ordering::Relaxed);
        Ok(self.files.clone())
    }

    /// Whether the link is well although a further channel was not opened.
    async fn still_answers(&self, error: Option<RemoteError>) -> Result<(), RemoteError> {
        match timeout(FURTHER_CHANNEL_LIMIT, self.files.lstat(&self.names.target().parent())).await {
            Ok(Err(dead)) if dead.is_link() => Err(error.unwrap_or(dead)),
            Ok(_) => Ok(()),
            Err(_) => Err(error.unwrap_or_else(|| {
                let text = format!(
                    "{}: no answer within {FURTHER_CHANNEL_LIMIT:?}",
                    printable(self.host.as_bytes())
                );
                RemoteError::new(RemoteErrorKind::LinkLost, text)
            })),
        }
    }

    /// A further file channel, opened while other things are done; `begun` is one that is
    /// being opened already.
    pub fn further_files_meanwhile(&self, begun: Option<EarlyFiles>) -> EarlyFiles {
        let site = self.clone();
        EarlyFiles(tokio::spawn(async move {
            match begun {
                Some(begun) => site.further_files_from(begun.ready()).await,
                None => site.further_files().await,
            }
        }))
    }

    /// The same site with a file channel of its own.
    pub async fn with_further_files(&self) -> Result<Site, RemoteError> {
        let files = self.further_files().await?;
        Ok(Site { files, ..self.clone() })
    }

    /// The target's shell, proven once; `None` where there is none to trust.
    pub async fn shell(&self, monitor: &Arc<dyn Monitor>) -> Option<&Shell> {
        let prove = async || {
            let witness = Witness::Directory(self.names.target().parent());
            match probe(self.connection.as_ref(), &witness).await {
                Ok(shell) => Some(shell),
                Err(reason) => {
                    let text = format!("{}: no shell to use: {reason}", printable(self.host.as_bytes()));
                    monitor.notice(Notice { level: Level::Detail, text });
                    None
                }
            }
        };
        self.shell.get_or_init(prove).await.as_ref()
    }

    /// What `--verify fast` can do here, asked once.
    async fn fast(&self, monitor: &Arc<dyn Monitor>) -> Fast {
        if self.shell(monitor).await.is_none() {
            return Fast::default();
        }
        *self.fast.get_or_init(|| probe_fast(self.connection.as_ref())).await
    }

    /// How the content of an upload is to be proven: as was asked for, where the target has a
    /// program for it. What has to be read back anyway goes fast by GMAC.
    pub async fn method(&self, verify: VerifyMethod, key: Key, monitor: &Arc<dyn Monitor>) -> Method {
        if verify != VerifyMethod::Fast {
            return Method::Sha256;
        }
        match self.fast(monitor).await {
            Fast { gmac: true, .. } => Method::Gmac(key),
            Fast { crc: true, .. } => Method::Crc,
            _ if self.program(Method::Sha256, monitor).await.is_some() => Method::Sha256,
            _ => Method::Gmac(key),
        }
    }

    /// The program that computes it on the target.
    pub async fn program(&self, method: Method, monitor: &Arc<dyn Monitor>) -> Option<HashProgram> {
        match method {
            Method::Sha256 => self.shell(monitor).await.and_then(|shell| shell.hash),
            Method::Gmac(_) => self.fast(monitor).await.gmac.then_some(HashProgram::OpenSslGmac),
            Method::Crc => self.fast(monitor).await.crc.then_some(HashProgram::PosixCksum),
        }
    }

    /// The same connection, and other names on the target.
    pub fn named(&self, names: Names) -> Site {
        Site { names, ..self.clone() }
    }

    /// Proves the shell while other things are done; it ends with the last use of this site,
    /// so that nothing is told of it once the job's outcome is.
    pub fn prove_shell_meanwhile(&self, monitor: &Arc<dyn Monitor>) {
        let (site, monitor) = (Site { proving: Arc::default(), ..self.clone() }, monitor.clone());
        let task = tokio::spawn(async move {
            site.shell(&monitor).await;
        });
        // Once for a site.
        let _ = self.proving.set(Proving(task.abort_handle()));
    }
}

/// A file channel that is being opened.
pub struct EarlyFiles(JoinHandle<Result<Arc<dyn Files>, RemoteError>>);

impl EarlyFiles {
    pub fn open(connection: &Arc<dyn Connection>) -> EarlyFiles {
        let connection = connection.clone();
        EarlyFiles(tokio::spawn(async move { connection.files().await }))
    }

    pub async fn ready(mut self) -> Result<Arc<dyn Files>, RemoteError> {
        match (&mut self.0).await {
            Ok(files) => files,
            Err(error) => Err(RemoteError::new(RemoteErrorKind::LinkLost, error.to_string())),
        }
    }
}

impl Drop for EarlyFiles {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn place(host: &str, path: &RemotePath) -> String {
    format!("{}:{path}", printable(host.as_bytes()))
}
