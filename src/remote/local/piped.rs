//! A real `sftp-server` as a child process, spoken to over pipes.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::{Child, ChildStdout, Command};

use super::errors::remote_error;
use super::run_command;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::process::{ExecRequest, Process};
use crate::remote::sftp::{SftpClient, SftpOptions};
use crate::remote::{Connection, Connector, Files};

/// This machine behind a real `sftp-server`: its files are what that program makes of them.
#[derive(Debug, Clone)]
pub struct PipedConnector {
    sftp_server: PathBuf,
    extra_arguments: Vec<String>,
    shell: Option<PathBuf>,
    options: SftpOptions,
}

impl PipedConnector {
    /// `extra_arguments` go to the server as they are: `-P` and a list of requests makes
    /// it a poor one. `shell` runs commands, in `/`.
    pub fn new(
        sftp_server: impl Into<PathBuf>,
        extra_arguments: Vec<String>,
        shell: Option<PathBuf>,
    ) -> PipedConnector {
        let options = SftpOptions::default();
        PipedConnector { sftp_server: sftp_server.into(), extra_arguments, shell, options }
    }

    pub fn with_options(self, options: SftpOptions) -> PipedConnector {
        PipedConnector { options, ..self }
    }

    /// As [`Connector::connect`], with the type that knows its servers.
    pub fn open(&self) -> Arc<PipedConnection> {
        Arc::new(PipedConnection { connector: self.clone(), servers: Mutex::default() })
    }
}

#[async_trait]
impl Connector for PipedConnector {
    fn host(&self) -> &str {
        "local"
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, RemoteError> {
        Ok(self.open())
    }
}

/// Starts a server for every file channel.
pub struct PipedConnection {
    connector: PipedConnector,
    servers: Mutex<Vec<Weak<Server>>>,
}

impl PipedConnection {
    /// The process ids of the servers that run.
    pub fn server_processes(&self) -> Vec<u32> {
        self.servers().iter().filter_map(|server| server.lock().id()).collect()
    }

    fn servers(&self) -> Vec<Arc<Server>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|server| server.strong_count() > 0);
        servers.iter().filter_map(Weak::upgrade).collect()
    }
}

#[async_trait]
impl Connection for PipedConnection {
    async fn files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        let PipedConnector { sftp_server, extra_arguments, options, .. } = &self.connector;
        let failed = |error| remote_error(&format!("run {:?}", sftp_server.display()), &error);
        let mut command = Command::new(sftp_server);
        command.arg("-e").args(extra_arguments).current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(RemoteError::new(RemoteErrorKind::Failure, "the server's pipes are missing"));
        };
        let server = Arc::new(Server(Mutex::new(child)));
        let register = Arc::downgrade(&server);
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(register);
        let reader = ServerOutput { output, _server: server };
        Ok(Arc::new(SftpClient::start(reader, input, *options).await?))
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError> {
        run_command(self.connector.shell.as_deref(), Path::new("/"), &request)
    }

    fn server_name(&self) -> String {
        "piped sftp-server".to_owned()
    }

    /// Kills the servers.
    async fn disconnect(&self) {
        for server in self.servers() {
            // It fails where the server has ended by itself.
            let _ = server.lock().start_kill();
        }
    }
}

/// A server's process; killed when nothing refers to it any more.
struct Server(Mutex<Child>);

impl Server {
    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server says. It holds the process, which lives as long as the session.
struct ServerOutput {
    output: ChildStdout,
    _server: Arc<Server>,
}

impl AsyncRead for ServerOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, buffer)
    }
}
