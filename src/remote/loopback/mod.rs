//! An SSH server with SFTP inside this process, on loopback, for `haul demo` and tests.
//!
//! It lets one fresh key in, serves one directory and runs no commands. It can cut its
//! connections in the middle of an upload, as a pulled cable would.

mod link;
mod sftp;
mod ssh;
mod store;
mod tree;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use link::Traffic;
use ssh::{ClientConnection, Service};
use tree::Tree;

/// Connections at once; more are closed right away.
const CONNECTIONS_MAX: usize = 32;
/// A listener that cannot accept (no descriptors are left) tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long `stop` waits for sessions to finish what they are writing.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running server. Dropping it cuts its connections.
pub struct LoopbackServer {
    address: SocketAddr,
    host_key: PublicKey,
    client_key: PrivateKey,
    traffic: Arc<Traffic>,
    listener: JoinHandle<()>,
    /// Ends when every session has.
    sessions: mpsc::Receiver<Infallible>,
}

impl LoopbackServer {
    /// Serves the directory `root`, whose paths are `/` and below for clients, on an
    /// ephemeral port of 127.0.0.1. Has to be called within a tokio runtime.
    pub async fn start(root: PathBuf) -> io::Result<LoopbackServer> {
        let host_key = fresh_key()?;
        let client_key = fresh_key()?;
        let public_host_key = host_key.public_key().clone();
        let traffic = Arc::new(Traffic::new());
        let service = Arc::new(Service {
            tree: Tree::open(&root)?,
            traffic: traffic.clone(),
            client_key: client_key.public_key().clone(),
        });
        let configuration = Arc::new(ssh::configuration(host_key));
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let (alive, sessions) = mpsc::channel(1);
        let listener = tokio::spawn(listen(socket, configuration, service, alive));
        Ok(LoopbackServer { address, host_key: public_host_key, client_key, traffic, listener, sessions })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The public host key as `type base64`.
    pub fn host_key(&self) -> io::Result<String> {
        let key = PublicKey::from(self.host_key.key_data().clone());
        key.to_openssh().map_err(io::Error::other)
    }

    /// What stands for this server in a known_hosts file, with its newline.
    pub fn known_hosts_line(&self) -> io::Result<String> {
        Ok(format!("[{}]:{} {}\n", self.address.ip(), self.port(), self.host_key()?))
    }

    /// The one key that gets in, in OpenSSH's format, without a passphrase.
    pub fn client_key_pem(&self) -> io::Result<String> {
        let pem = self.client_key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        Ok(pem.to_string())
    }

    /// Cuts every connection once, as soon as `bytes` more have been written into files.
    /// The write that reaches the mark is carried out; its answer is likely lost.
    pub fn cut_after(&self, bytes: u64) {
        self.traffic.cut_after(bytes);
    }

    /// Cuts every connection now; new ones are taken as before.
    pub fn cut_now(&self) {
        self.traffic.cut_now();
    }

    /// How often connections were cut.
    pub fn cuts(&self) -> u64 {
        self.traffic.cuts()
    }

    /// Bytes that came over the link and were written into files, since the start.
    pub fn bytes_written(&self) -> u64 {
        self.traffic.bytes_written()
    }

    /// TCP connections taken since the start.
    pub fn connections(&self) -> u64 {
        self.traffic.connections()
    }

    /// Takes no more connections, cuts those there are, and returns when their last
    /// requests have been carried out, or after 5 s.
    pub async fn stop(mut self) {
        self.listener.abort();
        self.cut_now();
        // A session that hangs on its disk is left behind.
        let _ = tokio::time::timeout(STOP_LIMIT, self.sessions.recv()).await;
    }
}

impl Drop for LoopbackServer {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut_now();
    }
}

fn fresh_key() -> io::Result<PrivateKey> {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)
}

async fn listen(
    socket: TcpListener,
    configuration: Arc<russh::server::Config>,
    service: Arc<Service>,
    alive: mpsc::Sender<Infallible>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let client = serve(stream, configuration.clone(), service.clone(), alive.clone());
        tokio::spawn(async move {
            // How a connection ended is the client's business to tell.
            let _ = client.await;
            drop(place);
        });
    }
}

async fn serve(
    stream: TcpStream,
    configuration: Arc<russh::server::Config>,
    service: Arc<Service>,
    alive: mpsc::Sender<Infallible>,
) -> Result<(), russh::Error> {
    stream.set_nodelay(true)?;
    let stream = service.traffic.connection(stream);
    let client = ClientConnection::new(service, alive);
    russh::server::run_stream(configuration, stream, client).await?.await
}
