//! One fault at call k, over all k: the client killed, the link lost, a call refused, bytes
//! that do not arrive. After each of them the target is the old file or the new one, and a
//! plain rerun finishes. `soak.rs` mixes the same cases with more faults, servers and states.
//!
//! Every second call is taken: before it and after it are all the places between two calls.
//!
//! Without a shell the runtime's clock stands still while anything is at work, so that ten
//! seconds of watching a dead lock pass in no time. `HAUL_CRASH_SEEDS=n` goes through each
//! sweep n times with other second faults, `HAUL_CRASH_EVERY=1` takes every call, also where
//! a shell makes that slow.

pub mod after_death;
pub mod cases;
pub mod client;
pub mod damage;
pub mod others;
pub mod scene;
mod server;
pub mod verdict;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cases::{cut, killed, next_random, refused, stands_whole, swallowed};
use client::{PLACED, PLACED_SHELL, POOR, Ran, SCRIPT, STORED, Way};
use haul::engine::failure::FailureKind;
use haul::engine::report::PutStatus;
use haul::remote::RemoteErrorKind;
use haul::remote::faulty::{Fault, FaultScript, Moment};
use scene::{Scene, Stands};
use verdict::{Broken, Finding, Verdict};

/// Cases that run at once.
const WORKERS: usize = 2;
/// The first calls make the connection: what goes wrong there is said, not retried.
const CONNECTING_CALLS: usize = 2;
/// Moments of the other client at which the one that was suspended wakes up.
const SUSPENSIONS: usize = 5;
/// Failed cases that are told in full.
const TOLD: usize = 3;

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a test's sweeps came to; the test fails when it is dropped, if any case did.
#[derive(Default)]
struct Sweeps {
    cases: usize,
    failed: Vec<String>,
}

impl Sweeps {
    /// Runs `case` with every number of `numbers`.
    fn sweep(&mut self, what: &str, numbers: &[usize], case: impl Fn(usize, u64) -> Verdict + Sync) {
        let seeds = from_environment("HAUL_CRASH_SEEDS", 1);
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let total = numbers.len() * seeds;
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(k) = numbers.get(i % numbers.len().max(1)).filter(|_| i < total) else {
                            return;
                        };
                        if let Err(story) = case(*k, i as u64) {
                            let story = format!("{what}, k = {k}, seed {i}: {story}");
                            failed.lock().expect("not poisoned").push(story);
                        }
                    }
                });
            }
        });
        let mut failed = failed.into_inner().expect("not poisoned");
        println!("{what}: {total} cases, {} failed", failed.len());
        self.cases += total;
        self.failed.append(&mut failed);
    }
}

impl Drop for Sweeps {
    fn drop(&mut self) {
        if self.failed.is_empty() || std::thread::panicking() {
            return;
        }
        let heads: Vec<String> =
            self.failed.iter().map(|story| story.lines().next().unwrap_or_default().to_owned()).collect();
        self.failed.sort_by_key(String::len);
        self.failed.truncate(TOLD);
        let told = self.failed.join("\n\n");
        panic!("{} of {} failed:\n{}\n\n{told}", heads.len(), self.cases, heads.join("\n"));
    }
}

/// Calls of a run in which nothing goes wrong.
fn calls_of(way: Way, replaces: bool) -> Ran {
    let ran = Scene::new(way, replaces).run(FaultScript::faultless(), 0);
    let report = ran.report().unwrap_or_else(|| panic!("nothing went wrong, and yet:\n{}", ran.story()));
    assert_eq!(report.status, PutStatus::Uploaded);
    ran
}

/// Every second call from `first` on; fewer with a shell, which takes real time.
fn chosen(way: Way, first: usize, calls: usize) -> Vec<usize> {
    let every = from_environment("HAUL_CRASH_EVERY", if way.shell { 9 } else { 2 });
    // Some calls come as the tasks happen to take turns, so a run may make a few more.
    (first..=calls + 5).step_by(every).collect()
}

fn sweep_kills(way: Way) {
    let mut sweeps = Sweeps::default();
    for replaces in [false, true] {
        let calls = calls_of(way, replaces).calls.len();
        for fault in [Fault::Crash, Fault::CrashAfter] {
            let what = format!("{}, replaces {replaces}, {fault:?}", way.name);
            sweeps.sweep(&what, &chosen(way, 1, calls), |k, seed| {
                // Half of the dead holders are seen to be gone, half have to be watched.
                let known_dead = way.shell || seed.is_multiple_of(2);
                killed(&Scene::new(way, replaces), fault, k, calls, known_dead, seed)
            });
        }
    }
}

#[test]
fn killed_anywhere_placed() {
    sweep_kills(PLACED);
}

#[test]
fn killed_anywhere_stored() {
    sweep_kills(STORED);
}

#[test]
fn killed_anywhere_on_a_poor_server() {
    sweep_kills(POOR);
}

#[test]
fn killed_anywhere_placed_with_a_shell() {
    sweep_kills(PLACED_SHELL);
}

#[test]
fn killed_anywhere_merged_by_the_script() {
    sweep_kills(SCRIPT);
}

/// A new upload, or for every other seed one that goes on after a client that was killed.
fn begun(way: Way, replaces: bool, seed: u64) -> Scene {
    let scene = Scene::new(way, replaces);
    if seed % 2 == 1 {
        let mut random = seed ^ 0xbe90;
        let k = 30 + next_random(&mut random) % 150;
        scene.run(FaultScript::new(Moment::Call(k), Fault::Crash, seed), 0);
        scene.holder_dies();
    }
    scene
}

fn sweep_cuts(way: Way) {
    let mut sweeps = Sweeps::default();
    for replaces in [false, true] {
        let calls = calls_of(way, replaces).calls.len();
        for fault in [Fault::LinkLost, Fault::LinkLostAfter] {
            let what = format!("{}, replaces {replaces}, {fault:?}", way.name);
            sweeps.sweep(&what, &chosen(way, 1, calls), |k, seed| {
                cut(&begun(way, replaces, seed), fault, k, seed)
            });
        }
    }
}

#[test]
fn cut_anywhere_placed() {
    sweep_cuts(PLACED);
}

#[test]
fn cut_anywhere_stored() {
    sweep_cuts(STORED);
}

#[test]
fn cut_anywhere_on_a_poor_server() {
    sweep_cuts(POOR);
}

#[test]
fn cut_anywhere_placed_with_a_shell() {
    sweep_cuts(PLACED_SHELL);
}

#[test]
fn cut_anywhere_merged_by_the_script() {
    sweep_cuts(SCRIPT);
}

/// The link dies while a run removes what one left behind that was killed after its commit.
#[test]
fn cut_while_cleaning_up_after_a_commit() {
    let mut sweeps = Sweeps::default();
    for way in [PLACED, STORED, POOR] {
        let calls = calls_of(way, true).calls;
        let commit = calls.iter().position(|call| {
            call.object.contains("/merged.")
                && call.object.contains(" -> ")
                && call.object.ends_with("/target.bin")
        });
        let after_it = commit.expect("a commit") + 2;
        for fault in [Fault::LinkLost, Fault::LinkLostAfter] {
            let what = format!("{}, committed and left, {fault:?}", way.name);
            sweeps.sweep(&what, &(CONNECTING_CALLS + 1..=90).collect::<Vec<_>>(), |k, seed| {
                let scene = Scene::new(way, true);
                let killed = scene.run(FaultScript::new(Moment::Call(after_it), Fault::Crash, seed), 0);
                if scene.stands() != Stands::New {
                    // The calls took other turns this time.
                    return Ok(());
                }
                scene.holder_dies();
                let ran = scene.run(FaultScript::new(Moment::Call(k), fault, seed), 5);
                stands_whole(&scene, &ran)?;
                let (broken, problem) = match ran.report() {
                    None => (Broken::Lost, "it did not go on by itself".to_owned()),
                    Some(report) if report.status != PutStatus::Unchanged => {
                        (Broken::False, format!("{:?}", report.status))
                    }
                    Some(_) if !scene.litter().is_empty() => {
                        (Broken::Lost, format!("litter: {:?}", scene.litter()))
                    }
                    // An empty lock may be anybody's: it is watched.
                    Some(_) if ran.took > Duration::from_secs(if way.name == POOR.name { 15 } else { 5 }) => {
                        (Broken::Hung, format!("it took {:?}", ran.took))
                    }
                    Some(_) => return Ok(()),
                };
                let story = format!("{problem}\n--- killed\n{}--- then\n{}", killed.story(), ran.story());
                Err(Finding::new(broken, story))
            });
        }
    }
}

fn sweep_refusals(way: Way) {
    let mut sweeps = Sweeps::default();
    for replaces in [false, true] {
        let calls = calls_of(way, replaces).calls.len();
        // Each call is refused in one way at least.
        let kinds = [RemoteErrorKind::NoSpace, RemoteErrorKind::PermissionDenied, RemoteErrorKind::Failure];
        for (kind, first) in kinds.into_iter().zip([1, 2, 1]) {
            let what = format!("{}, replaces {replaces}, {kind:?}", way.name);
            sweeps.sweep(&what, &chosen(way, first, calls), |k, seed| {
                refused(&begun(way, replaces, seed), kind, k, seed)
            });
        }
    }
}

#[test]
fn refused_anywhere_placed() {
    sweep_refusals(PLACED);
}

#[test]
fn refused_anywhere_stored() {
    sweep_refusals(STORED);
}

#[test]
fn refused_anywhere_on_a_poor_server() {
    sweep_refusals(POOR);
}

#[test]
fn refused_anywhere_merged_by_the_script() {
    sweep_refusals(SCRIPT);
}

fn sweep_swallowed(way: Way) {
    let mut sweeps = Sweeps::default();
    let calls = calls_of(way, true).calls;
    for (operation, fault) in
        [("write", Fault::DropWrite), ("write", Fault::CorruptWrite), ("copy-data", Fault::ShortCopy)]
    {
        // A wrong byte in the lock makes it foreign, and it is refused as such.
        let of_it = calls.iter().filter(|call| call.operation == operation && !call.object.ends_with("lock"));
        let numbers: Vec<usize> = (1..=of_it.count()).collect();
        let what = format!("{}, {fault:?}", way.name);
        sweeps.sweep(&what, &numbers, |n, seed| swallowed(&Scene::new(way, true), operation, fault, n, seed));
    }
}

#[test]
fn bytes_that_are_swallowed_placed() {
    sweep_swallowed(PLACED);
}

#[test]
fn bytes_that_are_swallowed_stored() {
    sweep_swallowed(STORED);
}

#[test]
fn bytes_that_are_swallowed_by_a_poor_server() {
    sweep_swallowed(POOR);
}

#[test]
fn bytes_that_are_swallowed_under_the_script() {
    sweep_swallowed(SCRIPT);
}

/// A client stands still while it cleans up after its commit, for so long that another takes
/// its lock for dead: when it wakes up, it leaves alone what is the other's.
#[test]
fn suspended_while_cleaning_up_after_a_commit() {
    let mut sweeps = Sweeps::default();
    for way in [PLACED, STORED] {
        let calls = calls_of(way, true).calls;
        let commit = calls.iter().position(others::is_commit).expect("a commit") + 1;
        let numbers: Vec<usize> = (commit + 1..=calls.len()).flat_map(|k| [k; SUSPENSIONS]).collect();
        let what = format!("{}, committed, suspended, and another", way.name);
        sweeps.sweep(&what, &numbers, |k, seed| {
            others::interleaved(&Scene::new(way, true), k, calls.len(), seed)
        });
    }
}

/// A dead holder is watched, and what it works in cannot be listed once: no sign of life.
#[test]
fn a_listing_that_fails_once_is_no_sign_of_life() {
    let refused = Fault::Refuse(RemoteErrorKind::Failure);
    let mut failed = Vec::new();
    for n in 1..=6 {
        let scene = Scene::new(PLACED, true);
        scene.run(FaultScript::new(Moment::Call(80), Fault::Crash, 0), 0);
        let ran = scene.run(FaultScript::new(Moment::Nth("list", n), refused, 0), 0);
        if let Some(failure) = ran.failure().filter(|failure| failure.kind == FailureKind::Locked) {
            failed.push(format!("listing {n}: {failure}\n{}", ran.story()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
