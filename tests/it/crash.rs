//! One fault at call k, for every k: the client killed, the link lost, a call refused, bytes
//! that do not arrive. After each of them the target is the old file or the new one, and a
//! plain rerun finishes.
//!
//! Without a shell the runtime's clock stands still while anything is at work, so that ten
//! seconds of watching a dead lock pass in no time. `HAUL_CRASH_SEEDS=n` goes through each
//! sweep n times with other second faults, `HAUL_CRASH_EVERY=1` takes every call also where
//! a shell makes that slow.

mod damage;
mod scene;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haul::engine::failure::{Failure, FailureKind, Phase};
use haul::engine::report::PutStatus;
use haul::remote::RemoteErrorKind;
use haul::remote::faulty::{Fault, FaultScript, Moment};
use scene::{CHUNKS, PLACED, PLACED_SHELL, POOR, Ran, SCRIPT, STORED, Scene, Stands, Way, published};

/// Cases that run at once.
const WORKERS: usize = 2;
/// The first calls make the connection: what goes wrong there is said, not retried.
const CONNECTING_CALLS: usize = 2;
/// Failed cases that are told in full.
const TOLD: usize = 3;

type Verdict = Result<(), String>;

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

/// Every call without a shell; every few with one, which takes real time.
fn chosen(way: Way, calls: usize) -> Vec<usize> {
    let every = if way.shell { from_environment("HAUL_CRASH_EVERY", 9) } else { 1 };
    // Some calls come as the tasks happen to take turns, so a run may make a few more.
    (1..=calls + 5).step_by(every).collect()
}

fn next_random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits")
}

fn stands_whole(scene: &Scene, ran: &Ran) -> Verdict {
    match scene.stands() {
        Stands::Torn => Err(format!("the target is torn\n{}", ran.story())),
        _ if ran.outcome.is_none() => Err(format!("hung\n{}", ran.story())),
        Stands::Old if ran.report().is_some() => Err(format!("a false success\n{}", ran.story())),
        Stands::Old | Stands::New => Ok(()),
    }
}

/// The run that has to finish. `before`: what must not be sent again.
fn finishes(scene: &Scene, before: &BTreeSet<u64>, stories: &str) -> Result<Ran, String> {
    let done = scene.stands() == Stands::New;
    let ran = scene.run(FaultScript::faultless(), 0);
    let problem = if let Some(failure) = ran.failure() {
        format!("the last rerun fails: {failure}")
    } else if scene.stands() != Stands::New {
        "the last rerun does not finish".to_owned()
    } else if !scene.litter().is_empty() {
        format!("litter: {:?}", scene.litter())
    } else if !ran.sent_after(0).is_disjoint(before) {
        format!("sent again of {before:?}: {:?}", ran.sent_after(0))
    } else if done && !ran.sent_after(0).is_empty() {
        format!("sent although the target is there: {:?}", ran.sent_after(0))
    } else {
        return Ok(ran);
    };
    Err(format!("{problem}\n{stories}--- last\n{}", ran.story()))
}

/// Killed at call k, then killed again, then run to the end.
fn killed(way: Way, replaces: bool, fault: Fault, k: usize, calls: usize, seed: u64) -> Verdict {
    let scene = Scene::new(way, replaces);
    let mut random = seed ^ 0x5eed;
    // Half of the dead holders are seen to be gone, half have to be watched.
    let known_dead = way.shell || seed.is_multiple_of(2);
    let mut stories = String::new();
    for k in [k, 1 + next_random(&mut random) % calls] {
        let (before, done) = (scene.published(), scene.stands() == Stands::New);
        if known_dead {
            scene.holder_dies();
        }
        let ran = scene.run(FaultScript::new(Moment::Call(k), fault, seed), 0);
        stories.push_str(&format!("--- {fault:?} at {k}\n{}", ran.story()));
        stands_whole(&scene, &ran)?;
        let again = ran.sent_after(0);
        if !again.is_disjoint(&before) || done && !again.is_empty() {
            return Err(format!("sent again of {before:?}: {again:?}\n{stories}"));
        }
    }
    let before = scene.published();
    let at_once = known_dead && scene.holder_dies() || !scene.lock().exists();
    let ran = finishes(&scene, &before, &stories)?;
    if at_once && !way.shell && ran.took > Duration::from_secs(2) {
        return Err(format!("a dead lock was not taken over at once\n{stories}--- last\n{}", ran.story()));
    }
    Ok(())
}

fn sweep_kills(way: Way) {
    let mut sweeps = Sweeps::default();
    for replaces in [false, true] {
        let calls = calls_of(way, replaces).calls.len();
        for fault in [Fault::Crash, Fault::CrashAfter] {
            let what = format!("{}, replaces {replaces}, {fault:?}", way.name);
            sweeps.sweep(&what, &chosen(way, calls), |k, seed| killed(way, replaces, fault, k, calls, seed));
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

/// The link dies once at call k: the same run finishes by itself.
fn cut(way: Way, replaces: bool, fault: Fault, k: usize, seed: u64) -> Verdict {
    let scene = begun(way, replaces, seed);
    let at_the_cut = Arc::new(Mutex::new(BTreeSet::new()));
    let script = FaultScript::new(Moment::Call(k), fault, seed).at_fault({
        let (seen, temp, names) = (at_the_cut.clone(), scene.temp(), scene.names());
        move || *seen.lock().expect("not poisoned") = published(&temp, &names)
    });
    let ran = scene.run(script, 5);
    stands_whole(&scene, &ran)?;
    let at_the_cut = at_the_cut.lock().expect("not poisoned").clone();
    let again = ran.sent_after(ran.fired_at.unwrap_or(0));
    let problem = match ran.failure() {
        Some(failure) if k <= CONNECTING_CALLS && failure.kind == FailureKind::Unreachable => return Ok(()),
        Some(failure) => format!("it did not go on by itself: {failure}"),
        None if scene.stands() != Stands::New => "not finished".to_owned(),
        None if !scene.litter().is_empty() => format!("litter: {:?}", scene.litter()),
        None if ran.fired_at.is_some() && !again.is_disjoint(&at_the_cut) => {
            format!("sent again of {at_the_cut:?}: {again:?}")
        }
        None if ran.took > Duration::from_secs(30) => format!("it took {:?}", ran.took),
        None => return Ok(()),
    };
    Err(format!("{problem}\n{}", ran.story()))
}

fn sweep_cuts(way: Way) {
    let mut sweeps = Sweeps::default();
    for replaces in [false, true] {
        let calls = calls_of(way, replaces).calls.len();
        for fault in [Fault::LinkLost, Fault::LinkLostAfter] {
            let what = format!("{}, replaces {replaces}, {fault:?}", way.name);
            sweeps.sweep(&what, &chosen(way, calls), |k, seed| cut(way, replaces, fault, k, seed));
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
                let problem = match ran.report() {
                    None => "it did not go on by itself".to_owned(),
                    Some(report) if report.status != PutStatus::Unchanged => format!("{:?}", report.status),
                    Some(_) if !scene.litter().is_empty() => format!("litter: {:?}", scene.litter()),
                    // An empty lock may be anybody's: it is watched.
                    Some(_) if ran.took > Duration::from_secs(if way.name == POOR.name { 15 } else { 5 }) => {
                        format!("it took {:?}", ran.took)
                    }
                    Some(_) => return Ok(()),
                };
                Err(format!("{problem}\n--- killed\n{}--- then\n{}", killed.story(), ran.story()))
            });
        }
    }
}

/// One call is refused, once: said with its cause, or got over. Nothing is left locked.
fn refused(way: Way, replaces: bool, kind: RemoteErrorKind, k: usize, seed: u64) -> Verdict {
    let scene = begun(way, replaces, seed);
    let dead = scene.lock_holder();
    let ran = scene.run(FaultScript::new(Moment::Call(k), Fault::Refuse(kind), seed), 5);
    stands_whole(&scene, &ran)?;
    let at_the_lock = ran
        .fired_at
        .and_then(|at| ran.calls.get(at - 1))
        .is_some_and(|call| call.object.contains(":lock") || call.object.contains("/taken."));
    // The lock itself cannot be moved or read: then it stays, which is said.
    let kept = |failure: &Failure| {
        at_the_lock && (failure.phase == Phase::Clean || failure.kind == FailureKind::Locked)
    };
    let problem = match ran.failure() {
        Some(failure)
            if kind == RemoteErrorKind::NoSpace
                && !matches!(failure.kind, FailureKind::Storage | FailureKind::Unreachable) =>
        {
            Some(format!("no room, and it says {:?}: {failure}", failure.kind))
        }
        Some(failure) if scene.lock().exists() && scene.lock_holder() != dead && !kept(failure) => {
            Some(format!("the lock is left after: {failure}"))
        }
        Some(failure) if failure.to_string().lines().count() != 1 => Some("more than one line".to_owned()),
        _ if ran.took > Duration::from_secs(30) => Some(format!("it took {:?}", ran.took)),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(format!("{problem}\n{}", ran.story()));
    }
    finishes(&scene, &scene.published(), &format!("--- refused\n{}", ran.story())).map(drop)
}

fn sweep_refusals(way: Way) {
    let mut sweeps = Sweeps::default();
    for replaces in [false, true] {
        let calls = calls_of(way, replaces).calls.len();
        for kind in [RemoteErrorKind::NoSpace, RemoteErrorKind::PermissionDenied, RemoteErrorKind::Failure] {
            let what = format!("{}, replaces {replaces}, {kind:?}", way.name);
            sweeps.sweep(&what, &chosen(way, calls), |k, seed| refused(way, replaces, kind, k, seed));
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

/// Bytes that the server took and does not have: never in the target, and mended by sending
/// what is bad.
fn swallowed(way: Way, operation: &'static str, fault: Fault, n: usize, seed: u64) -> Verdict {
    let scene = Scene::new(way, true);
    let ran = scene.run(FaultScript::new(Moment::Nth(operation, n), fault, seed), 5);
    stands_whole(&scene, &ran)?;
    if let Some(report) = ran.report() {
        if !scene.litter().is_empty() {
            return Err(format!("litter: {:?}\n{}", scene.litter(), ran.story()));
        }
        if report.chunks_sent > CHUNKS + 1 {
            return Err(format!("{} chunks sent to mend one\n{}", report.chunks_sent, ran.story()));
        }
        return Ok(());
    }
    if ran.took > Duration::from_secs(60) {
        return Err(format!("it took {:?}\n{}", ran.took, ran.story()));
    }
    finishes(&scene, &BTreeSet::new(), &format!("--- {fault:?}\n{}", ran.story())).map(drop)
}

fn sweep_swallowed(way: Way) {
    let mut sweeps = Sweeps::default();
    let calls = calls_of(way, true).calls;
    for (operation, fault) in
        [("write", Fault::DropWrite), ("write", Fault::CorruptWrite), ("copy-data", Fault::ShortCopy)]
    {
        let of_it = calls.iter().filter(|call| call.operation == operation).enumerate();
        // A wrong byte in the lock makes it foreign, and it is refused as such.
        let numbers: Vec<usize> =
            of_it.filter(|(_, call)| !call.object.ends_with("lock")).map(|(i, _)| i + 1).collect();
        let what = format!("{}, {fault:?}", way.name);
        sweeps.sweep(&what, &numbers, |n, seed| swallowed(way, operation, fault, n, seed));
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
