//! Real `sftp-server` processes of one client, and the end of them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use haul::remote::local::{PipedConnection, PipedConnector};
use haul::remote::{Connection, Connector, RemoteError};

use crate::harness::sshd::sftp_server;

/// They are killed with their client; a machine under load may take its time.
const ENDED: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct PipedServers(Arc<Mutex<Vec<Arc<PipedConnection>>>>);

/// The processes that ran when their client ended.
pub struct Processes(Vec<u32>);

struct Watched {
    inner: PipedConnector,
    connections: Arc<Mutex<Vec<Arc<PipedConnection>>>>,
}

impl PipedServers {
    pub fn connector(&self, arguments: &[&str], shell: Option<PathBuf>) -> impl Connector + use<> {
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let inner = PipedConnector::new(sftp_server(), arguments, shell);
        Watched { inner, connections: self.0.clone() }
    }

    pub fn processes(self) -> Processes {
        let connections = self.0.lock().expect("not poisoned");
        Processes(connections.iter().flat_map(|connection| connection.server_processes()).collect())
    }
}

impl Processes {
    /// A dead server does nothing more, so what is seen after this is what stays.
    pub fn wait(self) {
        let began = Instant::now();
        while self.0.iter().any(|process| runs(*process)) {
            assert!(began.elapsed() < ENDED, "a killed sftp-server does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Not as a zombie: that one is only not yet asked for.
fn runs(process: u32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    let state = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| !matches!(state, "Z" | "X"))
}

#[async_trait]
impl Connector for Watched {
    fn host(&self) -> &str {
        self.inner.host()
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, RemoteError> {
        let connection = self.inner.open();
        self.connections.lock().expect("not poisoned").push(connection.clone());
        Ok(connection)
    }
}
