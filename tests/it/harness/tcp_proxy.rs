//! A proxy between the program and a real sshd that treats each connection as it is told:
//! cuts it after so many bytes, falls silent, lets a byte a second pass, or never answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::container::TestHost;
use super::sshd::Sshd;

/// How often a thread that waits looks whether the proxy is to end.
const LOOK: Duration = Duration::from_millis(20);
const DRIP_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both sides see the end.
    Cut,
    /// Half open: nothing passes any more in either direction, and nobody is told.
    Stall,
    /// A byte a second passes in this direction.
    Drip,
}

/// What becomes of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    Whole,
    After(u64, Direction, Fault),
    /// Is accepted, and never hears a byte.
    Silence,
    /// Is accepted and closed.
    Refusal,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicUsize,
    to_server: AtomicU64,
    to_client: AtomicU64,
    ending: AtomicBool,
}

impl Counters {
    fn of(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// A host to connect to in place of `sshd`.
pub struct TcpProxy<'a> {
    sshd: &'a Sshd,
    known_hosts: NamedTempFile,
    address: SocketAddr,
    counters: Arc<Counters>,
    listener: Option<JoinHandle<()>>,
}

impl<'a> TcpProxy<'a> {
    /// `plan` says how the connections are treated, which are counted from 0.
    pub fn before(sshd: &'a Sshd, plan: impl Fn(usize) -> Treatment + Send + 'static) -> TcpProxy<'a> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let known_hosts = NamedTempFile::new().expect("a file");
        let line = format!("[127.0.0.1]:{} {}\n", address.port(), sshd.host_key());
        std::fs::write(known_hosts.path(), line).expect("known hosts");
        let counters = Arc::new(Counters::default());
        let (server, shared) = (sshd.address(), counters.clone());
        let listener = std::thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((client, _)) = listener.accept() {
                if shared.is_ending() {
                    break;
                }
                let treatment = plan(shared.accepted.fetch_add(1, Ordering::Relaxed));
                let shared = shared.clone();
                serving.push(std::thread::spawn(move || serve(client, server, treatment, &shared)));
            }
            for thread in serving {
                thread.join().expect("a connection's thread");
            }
        });
        TcpProxy { sshd, known_hosts, address, counters, listener: Some(listener) }
    }

    pub fn accepted(&self) -> usize {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// Bytes that passed, on all connections together.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.counters.of(direction).load(Ordering::Relaxed)
    }
}

impl Drop for TcpProxy<'_> {
    fn drop(&mut self) {
        self.counters.ending.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl TestHost for TcpProxy<'_> {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn user(&self) -> &str {
        self.sshd.user()
    }

    fn key_path(&self) -> PathBuf {
        self.sshd.key_path()
    }

    fn known_hosts_path(&self) -> PathBuf {
        self.known_hosts.path().to_path_buf()
    }

    fn scratch(&self) -> PathBuf {
        self.sshd.scratch()
    }

    fn exec(&self, command: &str) -> Output {
        TestHost::exec(self.sshd, command)
    }

    fn read_file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        TestHost::read_file(self.sshd, path)
    }

    fn is_idle(&self) -> bool {
        TestHost::is_idle(self.sshd)
    }
}

fn serve(client: TcpStream, server: SocketAddr, treatment: Treatment, counters: &Arc<Counters>) {
    match treatment {
        Treatment::Refusal => return,
        Treatment::Silence => {
            while !counters.is_ending() {
                std::thread::sleep(LOOK);
            }
            return;
        }
        Treatment::Whole | Treatment::After(..) => {}
    }
    // The server may be stopped or full at the moment.
    let Ok(server) = TcpStream::connect(server) else { return };
    let stalled = Arc::new(AtomicBool::new(false));
    let fault_of = |direction| match treatment {
        Treatment::After(bytes, of, fault) if of == direction => Some((bytes, fault)),
        _ => None,
    };
    let pipe = |from: &TcpStream, to: &TcpStream, direction| Pipe {
        from: from.try_clone().expect("a socket"),
        to: to.try_clone().expect("a socket"),
        direction,
        fault: fault_of(direction),
        stalled: stalled.clone(),
        counters: counters.clone(),
    };
    let back = pipe(&server, &client, Direction::ToClient);
    let there = pipe(&client, &server, Direction::ToServer);
    let back = std::thread::spawn(move || back.run());
    there.run();
    back.join().expect("the way back");
}

struct Pipe {
    from: TcpStream,
    to: TcpStream,
    direction: Direction,
    fault: Option<(u64, Fault)>,
    stalled: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

impl Pipe {
    fn run(mut self) {
        let _ = self.from.set_read_timeout(Some(LOOK));
        let (mut passed, mut buffer) = (0, [0; 16 * 1024]);
        loop {
            if self.counters.is_ending() {
                return self.close();
            }
            if self.stalled.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                continue;
            }
            let left = self.fault.map_or(u64::MAX, |(bytes, _)| bytes.saturating_sub(passed));
            if left == 0 {
                match self.fault {
                    Some((_, Fault::Stall)) => {
                        self.stalled.store(true, Ordering::Relaxed);
                        continue;
                    }
                    Some((_, Fault::Drip)) => std::thread::sleep(DRIP_PAUSE),
                    _ => return self.close(),
                }
            }
            let most = usize::try_from(left.max(1)).unwrap_or(usize::MAX).min(buffer.len());
            match self.from.read(&mut buffer[..most]) {
                Ok(0) => {
                    let _ = self.to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) => {
                    if self.to.write_all(&buffer[..count]).is_err() {
                        return self.close();
                    }
                    passed += count as u64;
                    self.counters.of(self.direction).fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => return self.close(),
            }
        }
    }

    fn close(&self) {
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }
}
