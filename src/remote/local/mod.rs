//! This machine posing as a host, for tests and for scripts run here.
//!
//! - [`LocalConnector`]: a directory of this machine, by plain file calls;
//! - [`PipedConnector`]: a real `sftp-server` as a child process, over pipes.
//!
//! Both run commands as a child of this process, through a shell.

mod errors;
mod files;
mod piped;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

pub use files::LocalFiles;
pub use piped::{PipedConnection, PipedConnector};

use super::{Connection, Connector, ExecRequest, Files, Process, RemoteError};

/// A directory of this machine that poses as a host.
///
/// Its files are found below `root`, as if that were `/`. Symbolic links are followed
/// as the local system follows them, so it keeps nobody in who can make them.
#[derive(Debug, Clone)]
pub struct LocalConnector {
    root: PathBuf,
    shell: Option<PathBuf>,
    in_order: bool,
}

impl LocalConnector {
    /// `shell` runs commands, in `root`; they see this machine's real paths. Without it
    /// the host runs no commands. `busybox` is called as `busybox sh`.
    pub fn new(root: impl Into<PathBuf>, shell: Option<PathBuf>) -> LocalConnector {
        LocalConnector { root: root.into(), shell, in_order: false }
    }

    /// The whole machine: files and commands mean the same by a path.
    pub fn whole_machine(shell: Option<PathBuf>) -> LocalConnector {
        LocalConnector::new("/", shell)
    }

    /// Carries out requests one after the other, as OpenSSH's server does.
    #[must_use]
    pub fn in_order(self) -> LocalConnector {
        LocalConnector { in_order: true, ..self }
    }
}

#[async_trait]
impl Connector for LocalConnector {
    fn host(&self) -> &str {
        "local"
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, RemoteError> {
        Ok(Arc::new(LocalConnection(self.clone())))
    }
}

struct LocalConnection(LocalConnector);

#[async_trait]
impl Connection for LocalConnection {
    async fn files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        let files = LocalFiles::new(&self.0.root);
        Ok(Arc::new(if self.0.in_order { files.in_order() } else { files }))
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError> {
        run_command(self.0.shell.as_deref(), &self.0.root, &request)
    }

    fn server_name(&self) -> String {
        "local directory".to_owned()
    }

    async fn disconnect(&self) {}
}

/// Runs `request` through `shell` in `directory`.
fn run_command(
    shell: Option<&Path>,
    directory: &Path,
    request: &ExecRequest,
) -> Result<Process, RemoteError> {
    let unsupported = |why: &str| {
        Err(RemoteError::new(super::RemoteErrorKind::Unsupported, format!("run a command: {why}")))
    };
    match shell {
        None => unsupported("this host runs none"),
        Some(_) if request.terminal.is_some() => unsupported("this host has no terminals"),
        Some(shell) => process::spawn(shell, directory, request.command),
    }
}
