//! One target on one host, connected: what every step of a job works with.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::failure::{Failure, Phase};
use super::monitor::{Level, Monitor, Notice};
use super::probe::{Shell, Witness, probe};
use crate::model::escape::printable;
use crate::model::names::Names;
use crate::model::remote_path::RemotePath;
use crate::remote::{Connection, Files, RemoteError, RemoteErrorKind};

#[derive(Clone)]
pub struct Site {
    pub host: String,
    pub names: Names,
    pub connection: Arc<dyn Connection>,
    /// The channel for everything but bulk data.
    pub files: Arc<dyn Files>,
    shell: Arc<OnceCell<Option<Shell>>>,
}

impl Site {
    pub fn new(host: &str, names: Names, connection: Arc<dyn Connection>, files: Arc<dyn Files>) -> Site {
        Site { host: host.to_owned(), names, connection, files, shell: Arc::default() }
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

    /// A further file channel; where the server opens no more, whatever it says of that,
    /// the one there is. Fails only with a dead link.
    pub async fn further_files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        match self.connection.files().await {
            Err(error) if !error.is_link() => Ok(self.files.clone()),
            other => other,
        }
    }

    /// A further file channel, opened while other things are done.
    pub fn further_files_meanwhile(&self) -> EarlyFiles {
        let site = self.clone();
        EarlyFiles(tokio::spawn(async move { site.further_files().await }))
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

    /// The same connection, and other names on the target.
    pub fn named(&self, names: Names) -> Site {
        Site { names, ..self.clone() }
    }

    /// Proves the shell while other things are done.
    pub fn prove_shell_meanwhile(&self, monitor: &Arc<dyn Monitor>) {
        let (site, monitor) = (self.clone(), monitor.clone());
        tokio::spawn(async move {
            site.shell(&monitor).await;
        });
    }
}

/// A file channel that is being opened.
pub struct EarlyFiles(JoinHandle<Result<Arc<dyn Files>, RemoteError>>);

impl EarlyFiles {
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
