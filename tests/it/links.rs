//! Links that fail under an upload, between the real program and a real sshd: cut at any
//! byte, half open, dripping, silent; and a program that was stopped for longer than any
//! deadline. haul notices, connects again, goes on where it was, and never hangs.

use std::time::Duration;

use crate::harness::sshd::Sshd;
use crate::harness::tcp_proxy::{Direction, Fault, TcpProxy, Treatment};
use crate::rows::client::{CHUNK, Client, Outcome, content};
use crate::rows::place::{beside, published};

use Direction::{ToClient, ToServer};
use Treatment::{After, Refusal, Silence, Whole};

const CHUNKS: u64 = 24;
/// Deadlines of a second or two, where 28 and 30 s are the defaults.
const SOON: [&str; 5] = [
    "--stall-timeout=2s",
    "-oServerAliveInterval=1",
    "-oServerAliveCountMax=1",
    "-oConnectTimeout=2",
    "--retries=5",
];
/// Where the link dies in the middle of the upload.
const MIDDLE: u64 = 600_000;

fn retries(outcome: &Outcome) -> Vec<f64> {
    let events = outcome.events();
    let retries = events.iter().filter(|event| event["event"] == "retry");
    retries.map(|event| event["pause_seconds"].as_f64().expect("a pause")).collect()
}

/// The file is whole, and nothing is left beside it.
#[track_caller]
fn assert_arrived(sshd: &Sshd, name: &str, chunks: u64, context: &str) {
    let target = sshd.scratch().join(name);
    assert!(std::fs::read(&target).expect("the target") == content(chunks * CHUNK, 1), "{context}");
    assert_eq!(beside(sshd, &target), Vec::<String>::new(), "{context}");
}

/// Uploads through a proxy that treats connection `n` as `plan` says.
fn upload(plan: impl Fn(usize) -> Treatment + Send + 'static, more: &[&str]) -> (Outcome, usize) {
    let sshd = Sshd::start();
    let proxy = TcpProxy::before(&sshd, plan);
    let client = Client::of(&proxy);
    let source = client.source("source", CHUNKS * CHUNK, 1);
    let outcome = client.put(&source, sshd.scratch().join("disk.img"), more).expect(0);
    assert_arrived(&sshd, "disk.img", CHUNKS, &outcome.stdout);
    (outcome, proxy.accepted())
}

/// Seeded places in a stream of `bytes`: in the login, where sessions, lock and survey are, at
/// the very end, and anywhere.
fn places(bytes: u64, count: u64, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % bound.min(bytes).max(1)
    };
    (0..count)
        .map(|number| match number % 4 {
            0 => below(2 * 1024),
            1 => below(24 * 1024),
            2 => bytes - below(6 * 1024) - 1,
            _ => below(bytes),
        })
        .collect()
}

#[test]
fn cut_after_any_number_of_bytes() {
    const PLACES: u64 = 12;
    const AT_ONCE: usize = 4;
    let sshd = Sshd::builder().config("MaxStartups 100").start();
    let clean = TcpProxy::before(&sshd, |_| Whole);
    let client = Client::of(&clean);
    let source = client.source("source", CHUNKS * CHUNK, 1);
    client.put(&source, sshd.scratch().join("clean"), &[]).expect(0);
    let mut cases = Vec::new();
    for (seed, direction) in [(1, ToServer), (2, ToClient)] {
        cases.extend(
            places(clean.passed(direction), PLACES, seed).into_iter().map(|bytes| (bytes, direction)),
        );
    }
    // Whether it was cut before it was connected.
    let case = |(bytes, direction)| {
        let context = format!("cut after {bytes} bytes {direction:?}");
        let plan = move |n| if n == 0 { After(bytes, direction, Fault::Cut) } else { Whole };
        let proxy = TcpProxy::before(&sshd, plan);
        let client = Client::of(&proxy);
        let source = client.source("source", CHUNKS * CHUNK, 1);
        let name = format!("{bytes}-{direction:?}");
        let put = || client.put(&source, sshd.scratch().join(&name), &[]);
        let outcome = put();
        assert!(outcome.stderr.lines().count() <= 1, "{context}: {}", outcome.stderr);
        let never = outcome.code == Some(10) && retries(&outcome).is_empty();
        if never {
            assert!(outcome.stderr.starts_with("haul: 127.0.0.1: connect: "), "{context}: {outcome:?}");
            assert!(!sshd.scratch().join(&name).exists(), "{context}");
            put().expect(0);
        } else {
            outcome.expect(0);
        }
        assert_arrived(&sshd, &name, CHUNKS, &context);
        never
    };
    let (mut at_login, mut later) = (0, 0);
    for cases in cases.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let running: Vec<_> = cases.iter().map(|one| scope.spawn(|| case(*one))).collect();
            for thread in running {
                *(if thread.join().expect("a case") { &mut at_login } else { &mut later }) += 1;
            }
        });
    }
    assert!(at_login >= 2 && later >= 8, "{at_login} at login, {later} later: too few of one kind");
}

#[test]
fn every_connection_dies_after_a_while() {
    let sshd = Sshd::start();
    // More than what may be in flight, so that each connection achieves something.
    let proxy = TcpProxy::before(&sshd, |_| After(4 << 20, ToServer, Fault::Cut));
    let client = Client::of(&proxy);
    let source = client.source("source", 8 * CHUNKS * CHUNK, 1);
    let more = ["--retries=2", "--connections=1"];
    let outcome = client.put(&source, sshd.scratch().join("disk.img"), &more).expect(0);
    assert_arrived(&sshd, "disk.img", 8 * CHUNKS, &outcome.stdout);
    assert!(retries(&outcome).len() > 2, "as often as --retries: {:?}", retries(&outcome));
    // It went on where it was: what was in flight was lost each time, and no more.
    let least = 8 * CHUNKS * CHUNK;
    assert!(proxy.passed(ToServer) < 4 * least, "{} bytes for {least}", proxy.passed(ToServer));
}

#[test]
fn a_half_open_link_is_noticed() {
    for direction in [ToServer, ToClient] {
        let bytes = if direction == ToServer { MIDDLE } else { 12_000 };
        let plan = move |n| if n == 0 { After(bytes, direction, Fault::Stall) } else { Whole };
        let (outcome, accepted) = upload(plan, &SOON);
        assert!(accepted >= 2 && !retries(&outcome).is_empty(), "{accepted}: {}", outcome.stdout);
    }
}

#[test]
fn a_link_that_drips_is_noticed() {
    for direction in [ToServer, ToClient] {
        let bytes = if direction == ToServer { MIDDLE } else { 12_000 };
        let plan = move |n| if n == 0 { After(bytes, direction, Fault::Drip) } else { Whole };
        let (outcome, accepted) = upload(plan, &SOON);
        assert!(accepted >= 2 && !retries(&outcome).is_empty(), "{accepted}: {}", outcome.stdout);
    }
}

#[test]
fn a_server_that_accepts_and_never_answers_is_tried_again() {
    let plan = |n| match n {
        0 => After(MIDDLE, ToServer, Fault::Cut),
        1 => Silence,
        2 => Refusal,
        _ => Whole,
    };
    let (outcome, accepted) = upload(plan, &SOON);
    // The pauses grow while nothing is achieved.
    let pauses = retries(&outcome);
    assert!(accepted >= 4 && pauses.len() >= 3, "{accepted}, {pauses:?}");
    assert!(pauses[..3] == [0.5, 1.0, 2.0], "{pauses:?}");
}

#[test]
fn one_of_several_connections_dies_and_the_others_go_on() {
    for fault in [Fault::Cut, Fault::Stall] {
        let plan = move |n| if n == 2 { After(150_000, ToServer, fault) } else { Whole };
        let more = [&SOON[..], &["--connections=3", "--bwlimit=1MiB"]].concat();
        let (outcome, accepted) = upload(plan, &more);
        assert_eq!(retries(&outcome), Vec::<f64>::new(), "{fault:?}: the others went on");
        assert!(accepted >= 3, "{fault:?}: {accepted}");
    }
}

#[test]
fn stopped_for_longer_than_the_deadlines() {
    let sshd = Sshd::builder().config("ClientAliveInterval 1").config("ClientAliveCountMax 1").start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNKS * CHUNK, 1);
    let target = sshd.scratch().join("disk.img");
    let more = [&SOON[..], &["--bwlimit=512KiB"]].concat();
    let mut run = client.start_put(&source, &target, &more);
    run.until("chunks", || published(&sshd, &target).len() >= 4);
    run.signal("STOP");
    // The server has given it up.
    crate::harness::wait_until("the end of the sessions", Duration::from_secs(60), || {
        sshd.session_processes().is_empty()
    });
    run.signal("CONT");
    let outcome = run.wait().expect(0);
    assert!(!retries(&outcome).is_empty(), "{}", outcome.stdout);
    assert_arrived(&sshd, "disk.img", CHUNKS, "stopped");
}

#[test]
fn a_server_that_renews_its_keys_all_the_time_gets_the_file() {
    let sshd = Sshd::builder().config("RekeyLimit 1M").log_level("DEBUG1").start();
    let client = Client::of(&sshd);
    let source = client.source("source", 160 * CHUNK, 1);
    for (name, more) in [("theirs", &[][..]), ("both", &["-oRekeyLimit=1M", "--connections=2"])] {
        let outcome = client.put(&source, sshd.scratch().join(name), more).expect(0);
        assert_eq!(retries(&outcome), Vec::<f64>::new(), "{name}");
        assert_arrived(&sshd, name, 160, name);
    }
    assert!(sshd.log().matches("rekeying").count() > 8, "{}", sshd.log());
}
