//! A link on which time is counted in round trips and nothing else.
//!
//! What the client sends is held until the client has nothing left to do but wait; then all
//! of it goes to the server at once. What the server answers is held until the server waits
//! too, and goes back at once. Each such exchange is one round trip, so the number of them
//! is what an upload takes on a link that is infinitely wide and infinitely long. It does not
//! depend on how fast the machine is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::quiet::Watched;

/// Longer than any of it takes on a machine that builds other things meanwhile.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// One exchange.
#[derive(Debug, Default)]
pub struct Round {
    pub dialled: usize,
    pub to_server: usize,
    pub to_client: usize,
    /// What the caller's log had grown by.
    pub log: Vec<String>,
}

pub struct Lockstep {
    listener: TcpListener,
    server: SocketAddr,
    pairs: Vec<Pair>,
    pub rounds: Vec<Round>,
}

struct Pair {
    client: End,
    /// Not there before the first round trip of the connection, in which TCP makes it.
    server: Option<End>,
}

/// One side of a connection, and what came from there and has not gone on.
struct End {
    stream: TcpStream,
    held: Vec<u8>,
    ended: bool,
    told_of_end: bool,
}

impl End {
    fn new(stream: TcpStream) -> End {
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("no delay");
        End { stream, held: Vec::new(), ended: false, told_of_end: false }
    }

    /// Takes what is there; whether anything was.
    fn drain(&mut self) -> bool {
        let (before, mut buffer) = (self.held.len(), vec![0; 256 << 10]);
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.held.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
        self.held.len() > before
    }
}

impl Lockstep {
    pub fn before(server: SocketAddr) -> Lockstep {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        Lockstep { listener, server, pairs: Vec::new(), rounds: Vec::new() }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// Carries until `runs` says that the client has ended. `roots`: client and server, by
    /// process. `new_log` gives what was logged since it was last asked.
    pub fn carry(
        &mut self,
        roots: [u32; 2],
        mut runs: impl FnMut() -> bool,
        mut new_log: impl FnMut() -> Vec<String>,
    ) {
        let begin = Instant::now();
        let mut watched = Watched::new(roots, [self.port(), self.server.port()]);
        loop {
            if !self.settle(&mut watched, &mut runs) {
                return;
            }
            assert!(begin.elapsed() < LIMIT, "no end after {} round trips", self.rounds.len());
            let mut round = Round::default();
            // Of a new connection only TCP's own exchange takes place.
            let greeted = self.pairs.iter().filter(|pair| pair.server.is_some()).count();
            for i in 0..self.pairs.len() {
                match &self.pairs[i].server {
                    None => {
                        let stream = TcpStream::connect(self.server).expect("the server");
                        self.pairs[i].server = Some(End::new(stream));
                        round.dialled += 1;
                    }
                    Some(_) => round.to_server += self.hand_on(i, true),
                }
            }
            if !self.settle(&mut watched, &mut runs) {
                return;
            }
            for i in 0..greeted {
                round.to_client += self.hand_on(i, false);
            }
            if round.dialled + round.to_server + round.to_client > 0 {
                round.log = new_log();
                self.rounds.push(round);
            } else {
                // Somebody sleeps, and no round trip passes.
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// Waits until nobody has anything to do; false when the client has ended.
    fn settle(&mut self, watched: &mut Watched, runs: &mut impl FnMut() -> bool) -> bool {
        let begin = Instant::now();
        while runs() {
            assert!(begin.elapsed() < LIMIT, "it never comes to rest");
            self.drain();
            if watched.is_quiet() && !self.drain() {
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        false
    }

    fn drain(&mut self) -> bool {
        let mut came = false;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.pairs.push(Pair { client: End::new(stream), server: None });
                    came = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("accept: {error}"),
            }
        }
        for pair in &mut self.pairs {
            came |= pair.client.drain();
            came |= pair.server.as_mut().is_some_and(End::drain);
        }
        came
    }

    /// Hands on what is held of one direction; how many bytes that were.
    fn hand_on(&mut self, i: usize, to_server: bool) -> usize {
        let (mut given, mut total) = (0, usize::MAX);
        let mut content = Vec::new();
        while given < total {
            let Pair { client, server } = &mut self.pairs[i];
            let Some(server) = server else { return 0 };
            let (from, to) = if to_server { (client, server) } else { (server, client) };
            if total == usize::MAX {
                content = std::mem::take(&mut from.held);
                total = content.len();
            }
            match to.stream.write(&content[given..]) {
                Ok(count) => given += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Its answers may be what it waits to get rid of.
                    self.drain();
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let Pair { client, server: Some(server) } = &mut self.pairs[i] else { return given };
        let (from, to) = if to_server { (client, server) } else { (server, client) };
        if from.ended && from.held.is_empty() && !from.told_of_end {
            from.told_of_end = true;
            ignore_gone(to.stream.shutdown(std::net::Shutdown::Write));
        }
        given
    }
}

/// The other side may have gone already.
fn ignore_gone(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    }
}
