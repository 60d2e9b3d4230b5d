//! Row A2: who may upload to one path, and what the others are told.

use std::process::Command;
use std::time::{Duration, Instant};

use super::client::{CHUNK, Client, content};
use super::place::{Place, beside, published};
use crate::harness::sshd::is_root;

const SLOW: &str = "--bwlimit=512KiB";

#[test]
fn two_runs_of_one_user_at_once_have_one_winner() {
    let place = Place::with_shell();
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 24 * CHUNK, 1), place.path("disk.img"));
    // Both begin in the same moment, several times.
    for round in 0..4 {
        let runs = [0, 1].map(|_| client.start_put(&source, &target, &[SLOW]));
        let mut codes = runs.map(|run| run.wait().code.expect("no signal"));
        codes.sort_unstable();
        // A loser that came after the end has found the file unchanged.
        assert!(codes == [0, 11] || codes == [0, 0], "round {round}: {codes:?}");
        assert!(place.read(&target) == content(24 * CHUNK, 1));
        assert_eq!(place.beside(&target), Vec::<String>::new());
        std::fs::remove_file(&target).expect("the target");
    }
}

#[test]
fn who_waits_gets_the_lock_when_it_is_free_or_gives_up_in_time() {
    let place = Place::with_shell();
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 40 * CHUNK, 1), place.path("disk.img"));
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("a chunk", || !published(place.host(), &target).is_empty());
    let begin = Instant::now();
    client.put(&source, &target, &["--user-id", "bob", "--wait=1s"]).expect(11).says("alice");
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let waiting = client.start_put(&source, &target, &["--user-id", "bob", "--wait"]);
    run.wait().expect(0);
    let waited = waiting.wait().expect(0);
    assert_eq!((waited.status().as_str(), waited.number("bytes_sent")), ("unchanged", 0));
    assert_eq!(place.beside(&target), Vec::<String>::new());
}

#[test]
fn a_broken_lock_stops_its_holder() {
    let place = Place::with_shell();
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 200 * CHUNK, 1), place.path("disk.img"));
    let theirs = client.source("theirs", 7 * CHUNK, 2);
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("a chunk", || !published(place.host(), &target).is_empty());
    let outcome = client.put(&theirs, &target, &["--user-id", "bob", "--break-lock"]).expect(0);
    assert_eq!(outcome.status(), "uploaded");
    assert!(outcome.stdout.contains("alice"), "it is said whose lock was broken: {}", outcome.stdout);
    run.wait_for(Duration::from_secs(60)).expect(11);
    assert!(place.read(&target) == content(7 * CHUNK, 2));
    assert!(!place.names(&place.path("")).contains(&"disk.img:lock".to_owned()));
}

#[test]
fn a_holder_that_was_killed_here_is_taken_over_at_once() {
    let place = Place::with_shell();
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 24 * CHUNK, 1), place.path("disk.img"));
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("a chunk", || !published(place.host(), &target).is_empty());
    run.kill();
    // The lock's phase, by the program's own clock, so that a slow machine changes nothing.
    let outcome = client.put(&source, &target, &["--wait=8s"]).expect(0);
    assert_eq!(outcome.status(), "uploaded");
    let lock = outcome.last()["seconds"]["lock"].as_f64();
    assert!(lock.is_none_or(|seconds| seconds < 8.0), "{outcome:?}");
}

/// What ran in other namespaces is on another machine, as far as anybody can tell.
#[test]
fn a_holder_elsewhere_is_taken_over_after_its_heartbeat_stood_still() {
    if !is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root to make namespaces");
        eprintln!("NOT TESTED: another machine's holder needs root to make namespaces");
        return;
    }
    let place = Place::with_shell();
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 200 * CHUNK, 1), place.path("disk.img"));
    let put = client.put_command(&source, &target, &[SLOW]);
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(put.get_program());
    elsewhere.args(put.get_args()).current_dir(client.home()).env("HOME", client.home());
    let mut run = client.start(elsewhere);
    run.until("a chunk", || !published(place.host(), &target).is_empty());
    // Alive, so the same user is refused, however long that takes to see.
    client.put(&source, &target, &[]).expect(11);
    run.kill();
    place.wait_idle();
    let begin = Instant::now();
    let outcome = client.put(&source, &target, &[]).expect(0);
    assert!(begin.elapsed() >= Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(outcome.number("chunks_skipped") > 0);
    assert!(place.read(&target) == content(200 * CHUNK, 1));
    assert_eq!(beside(place.host(), &target), Vec::<String>::new());
}

#[test]
fn ids_that_no_name_can_hold_are_refused_before_anything_connects() {
    let place = Place::with_shell();
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", CHUNK, 1), place.path("disk.img"));
    for id in ["a/b", "", "lock", "a\nb", &"x".repeat(65)] {
        let outcome = client.put(&source, &target, &["--user-id", id]).expect(2);
        assert!(outcome.stderr.contains("user id"), "{id}: {}", outcome.stderr);
    }
    assert!(place.names(&place.path("")).is_empty());
}
