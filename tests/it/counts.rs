//! What an upload costs, counted: round trips, requests, programs started on the target,
//! bytes on the wire, bytes read of the source. None of it depends on how fast the machine
//! is, so a change that costs more of any is seen here. Whoever saves some lowers the limit.
//!
//! `cargo test --test it counts -- --nocapture` prints the numbers, and what was asked in
//! each round trip.

mod lockstep;
mod quiet;
mod target;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Sshd, haul};
use crate::rows::client::{Client, Running};
use lockstep::{Lockstep, Round};
use target::{Log, Programs, logged, requests};
use wire::Wire;

const MIB: u64 = 1 << 20;

/// On a busy machine a beat of the lock may be under way when the lock is given back, which
/// waits for it. So the best of so many runs counts.
const RUNS: usize = 5;

/// Somebody who runs haul against one server.
struct Stage {
    sshd: Sshd,
    client: Client,
}

impl Stage {
    fn new(sshd: Sshd) -> Stage {
        let client = Client::of(&sshd);
        Stage { sshd, client }
    }

    fn target(&self) -> PathBuf {
        self.sshd.scratch().join("target")
    }

    /// `haul COMMAND` by way of `port`.
    fn haul(&self, command: &str, port: u16) -> Command {
        let known_hosts = self.client.home().join("known_hosts");
        let line = format!("[127.0.0.1]:{port} {}\n", self.sshd.host_key());
        fs::write(&known_hosts, line).expect("known_hosts");
        let mut haul = haul(self.client.home());
        haul.arg(command).arg("-P").arg(port.to_string()).arg("-i").arg(self.sshd.key_path());
        haul.args(["-o", &format!("UserKnownHostsFile={}", known_hosts.display())]);
        haul.args(["-o", "IdentitiesOnly=yes"]);
        haul
    }

    fn put(&self, source: &Path, port: u16) -> Command {
        let mut haul = self.haul("put", port);
        haul.args(["--json", "--user-id", "alice", "--if-exists", "replace"]).arg(source);
        haul.arg(format!("{}@127.0.0.1:{}", self.sshd.user(), self.target().display()));
        haul
    }

    /// The round trips of one run.
    fn rounds(&self, command: impl Fn(u16) -> Command) -> Vec<Round> {
        let mut lockstep = Lockstep::before(self.sshd.address());
        let mut log = Log::of(&self.sshd);
        let mut running = Running::start(command(lockstep.port()), self.client.home());
        let roots = [running.pid(), self.sshd.pid()];
        lockstep.carry(roots, || running.is_running(), || log.new_lines());
        running.wait().expect(0);
        lockstep.rounds
    }

    /// Fails when it takes more than `limit` round trips.
    fn check(&self, what: &str, limit: usize, prepare: impl Fn(), command: impl Fn(u16) -> Command) {
        let mut fewest = usize::MAX;
        for run in 1..=RUNS {
            prepare();
            let rounds = self.rounds(&command);
            let count = rounds.iter().filter(|round| !ends_beats(round)).count();
            fewest = fewest.min(count);
            println!("{what}: {count} round trips, {limit} at most");
            if run == 1 || count > limit {
                print(&rounds);
            }
            if fewest <= limit {
                return;
            }
        }
        panic!("{what} takes {fewest} round trips, more than {limit}");
    }
}

/// The handle of the beats is closed, which is there only where 2 s passed meanwhile.
fn ends_beats(round: &Round) -> bool {
    matches!(&round.log[..], [line] if line.starts_with("close ") && line.contains("/lock\" bytes read 0 written "))
}

fn print(rounds: &[Round]) {
    for (i, round) in rounds.iter().enumerate() {
        let dialled = if round.dialled == 0 { "" } else { ", TCP connects" };
        println!("  {:3}  {:7} → {:7} ←{dialled}", i + 1, round.to_server, round.to_client);
        for line in &round.log {
            println!("         {line}");
        }
    }
}

#[test]
fn round_trips() {
    for (what, sshd, limits) in [
        ("with a shell", logged().start(), [30, 15, 30, 30]),
        ("SFTP only", logged().env("PATH", "/nowhere").start(), [34, 15, 34, 34]),
    ] {
        let stage = Stage::new(sshd);
        let (small, larger) =
            (stage.client.source("small", 100_000, 1), stage.client.source("larger", MIB, 2));
        let remove = || {
            let _ = fs::remove_file(stage.target());
        };
        let [new, unchanged, replaced, mebibyte] = limits;
        stage.check(&format!("{what}: a new small file"), new, remove, |port| stage.put(&small, port));
        stage.check(&format!("{what}: unchanged"), unchanged, || (), |port| stage.put(&small, port));
        let old = || fs::write(stage.target(), "old").expect("an old file");
        stage.check(&format!("{what}: replaced"), replaced, old, |port| stage.put(&small, port));
        stage.check(&format!("{what}: a new file of 1 MiB"), mebibyte, remove, |port| {
            stage.put(&larger, port)
        });
    }
}

#[test]
fn round_trips_of_a_command() {
    let stage = Stage::new(logged().start());
    stage.check(
        "haul exec … true",
        13,
        || (),
        |port| {
            let mut command = stage.haul("exec", port);
            command.arg(format!("{}@127.0.0.1", stage.sshd.user())).args(["--", "true"]);
            command
        },
    );
}

/// What one upload asked for.
struct Asked {
    /// SFTP requests by what they are, without those for the lock.
    requests: BTreeMap<String, usize>,
    programs: Vec<String>,
    sessions: usize,
    wire_bytes: u64,
    read_bytes: u64,
}

fn upload(size: u64) -> Asked {
    let programs = Programs::new();
    let path = programs.path().to_str().expect("UTF-8").to_owned();
    let stage = Stage::new(logged().env("PATH", &path).start());
    let wire = Wire::before(stage.sshd.address());
    let source = stage.client.source("source", size, 1);
    let mut log = Log::of(&stage.sshd);
    let mut put = stage.put(&source, wire.port());
    // How many it takes by itself depends on the round trip, and that on the machine.
    put.args(["--connections", "1"]);
    let mut running = Running::start(put, stage.client.home());
    let read_bytes = running.read_bytes_at_end();
    running.wait().expect(0);
    let lines = log.new_lines();
    let mut by_word = BTreeMap::new();
    for line in requests(&lines) {
        let word = line.split(' ').next().unwrap_or_default();
        *by_word.entry(word.to_owned()).or_default() += 1;
    }
    let sessions = lines.iter().filter(|line| line.starts_with("Starting session")).count();
    let asked = Asked {
        requests: by_word,
        programs: programs.started(),
        sessions,
        wire_bytes: wire.bytes(),
        read_bytes,
    };
    println!(
        "{size} bytes: requests {} {:?}, {} sessions, {} programs {:?}, {} bytes on the wire, {} read",
        asked.all_requests(),
        asked.requests,
        asked.sessions,
        asked.programs.len(),
        asked.programs,
        asked.wire_bytes,
        asked.read_bytes
    );
    asked
}

impl Asked {
    fn all_requests(&self) -> usize {
        self.requests.values().sum()
    }
}

#[test]
fn what_an_upload_asks_for() {
    /// What the program itself needs: its libraries, accounts, keys.
    const OWN_READS: u64 = MIB;
    let small = upload(100_000);
    let large = upload(64 * MIB);
    for asked in [&small, &large] {
        assert!(asked.sessions <= 7, "{} sessions", asked.sessions);
        assert!(asked.programs.len() <= 7, "{} programs: {:?}", asked.programs.len(), asked.programs);
    }
    assert!(small.all_requests() <= 89, "{} requests: {:?}", small.all_requests(), small.requests);
    let writes = large.requests["write"] - small.requests["write"];
    assert!(writes <= 517, "{writes} more writes");
    // Of 7 chunks and of 1.
    let other = (large.all_requests() - small.all_requests() - writes) as f64 / 6.0;
    assert!(other <= 2.4, "{other} requests a chunk beside its writes");
    let on_the_wire = large.wire_bytes as f64 / (64 * MIB) as f64;
    assert!(on_the_wire <= 1.01, "{on_the_wire} bytes on the wire for each byte of the file");
    for (size, asked) in [(100_000, &small), (64 * MIB, &large)] {
        assert!(asked.read_bytes <= size + OWN_READS, "{} bytes read of {size}", asked.read_bytes);
        assert!(asked.read_bytes >= size, "{} bytes read of {size}", asked.read_bytes);
    }
}
