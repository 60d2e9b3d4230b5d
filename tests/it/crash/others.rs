//! Others at work on the same target or the same source: another client while this one is
//! suspended, somebody who replaces the target, somebody who changes the source.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, mpsc};

use haul::engine::report::PutStatus;
use haul::remote::faulty::{Call, Fault, FaultScript, Moment};

use super::cases::{finishes, next_random, stands_whole};
use super::client::{Errand, Ran};
use super::scene::{SIZE, Scene, Stands};
use super::verdict::{Broken, Finding, Verdict};

/// The client stands still before call k for so long that another one, of the same user,
/// with another source, takes its lock for dead and does all its work. Then it wakes up.
pub fn overtaken(scene: &Scene, k: usize, seed: u64) -> Verdict {
    let errand = other_errand(scene);
    let other = Arc::new(Mutex::new(None));
    let script = FaultScript::new(Moment::Call(k), Fault::Nothing, seed).at_fault({
        let (other, errand) = (other.clone(), Mutex::new(Some(errand)));
        move || {
            let Some(errand) = errand.lock().expect("not poisoned").take() else { return };
            let run = std::thread::spawn(|| errand.run(Arc::new(FaultScript::faultless()), 0));
            *other.lock().expect("not poisoned") = Some(run.join().expect("the other client"));
        }
    });
    let ran = scene.run(script, 5);
    let other = other.lock().expect("not poisoned").take();
    let (Some(other), Some(fired_at)) = (other, ran.fired_at) else { return stands_whole(scene, &ran) };
    let stories = format!("--- suspended at {k}\n{}--- the other\n{}", ran.story(), other.story());
    let committed_at = position_of(&ran.calls, is_commit);
    let locked_at = position_of(&ran.calls, takes_the_lock);
    let stands = scene.stands();
    // It may have come to its lock only after the other had ended: then it replaces.
    let late = locked_at.is_some_and(|at| at >= fired_at);
    let (broken, problem) = match (ran.report(), other.report()) {
        _ if stands == Stands::Torn => (Broken::Torn, "the target is torn".to_owned()),
        _ if ran.outcome.is_none() || other.outcome.is_none() => (Broken::Hung, "hung".to_owned()),
        (_, None) => {
            let failure = other.failure().expect("it ended");
            (Broken::Lost, format!("the other did not take over: {failure}"))
        }
        (_, Some(_)) if stands != Stands::Other && !late => {
            (Broken::Lost, format!("the one that woke up put back what was replaced: {stands:?}"))
        }
        (Some(report), Some(_))
            if stands == Stands::Other
                && report.status == PutStatus::Uploaded
                && committed_at.is_none_or(|at| at > fired_at) =>
        {
            (Broken::False, "a false success of the one that woke up".to_owned())
        }
        _ if !says_one_line(&ran) => (Broken::False, "more than one line".to_owned()),
        _ => return finishes(scene, &BTreeSet::new(), &stories).map(drop),
    };
    Err(Finding::new(broken, format!("{problem}\n{stories}")))
}

/// The client stands still before call k, and another one of the same user, with another
/// source, takes its lock for dead and comes as far as its call `j`. Then the first wakes up
/// and goes on to its end, and after it the other.
pub fn interleaved(scene: &Scene, k: usize, calls: usize, seed: u64) -> Verdict {
    let mut random = seed ^ 0x7_1e55;
    let j = 1 + next_random(&mut random) % (calls + 40);
    let errand = other_errand(scene);
    let (wake, woken) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel::<()>();
    let other_script = FaultScript::new(Moment::Call(j), Fault::Nothing, seed).at_fault({
        let (wake, ended) = (wake.clone(), Mutex::new(ended));
        move || {
            let _ = wake.send(());
            // It ends with an error when the first one has ended, which is what is waited for.
            let _ = ended.lock().expect("not poisoned").recv();
        }
    });
    let other_script = Arc::new(other_script);
    let other = Arc::new(Mutex::new(None));
    let script = FaultScript::new(Moment::Call(k), Fault::Nothing, seed).at_fault({
        let (other, errand) = (other.clone(), Mutex::new(Some((errand, other_script.clone(), wake))));
        let woken = Mutex::new(woken);
        move || {
            let Some((errand, script, wake)) = errand.lock().expect("not poisoned").take() else { return };
            let run = std::thread::spawn(move || {
                let ran = errand.run(script, 5);
                let _ = wake.send(());
                ran
            });
            *other.lock().expect("not poisoned") = Some(run);
            let _ = woken.lock().expect("not poisoned").recv();
        }
    });
    let ran = scene.run(script, 5);
    drop(end);
    let Some(other) = other.lock().expect("not poisoned").take() else { return stands_whole(scene, &ran) };
    let other = other.join().expect("the other client");
    let fired_at = ran.fired_at.expect("the other began then");
    let stories =
        format!("--- suspended at {k}\n{}--- the other, suspended at {j}\n{}", ran.story(), other.story());
    // Until its directory is moved away it may commit: the other looks only after that.
    let locked_at = position_of(&ran.calls, takes_the_lock);
    let committed_at = position_of(&ran.calls, is_commit).filter(|_| uploaded(&ran));
    let fenced_at = other.calls.iter().position(fences).map(|at| at + 1);
    let others_commit = position_of(&other.calls, is_commit).filter(|_| uploaded(&other));
    let suspended = other.fired_at.unwrap_or(usize::MAX);
    let deposed = locked_at.is_some_and(|at| at < fired_at) && fenced_at.is_some_and(|at| at < suspended);
    let stands = scene.stands();
    let expected = match (committed_at, others_commit) {
        (_, Some(at)) if at > suspended => Some(Stands::Other),
        (Some(at), _) if at > fired_at => Some(Stands::New),
        (_, Some(_)) => Some(Stands::Other),
        (Some(_), None) => Some(Stands::New),
        (None, None) => None,
    };
    let (broken, problem) = match expected {
        _ if stands == Stands::Torn => (Broken::Torn, "the target is torn".to_owned()),
        _ if ran.outcome.is_none() || other.outcome.is_none() => (Broken::Hung, "hung".to_owned()),
        _ if deposed && committed_at.is_some_and(|at| at > fired_at) => {
            (Broken::Lost, "a deposed client committed".to_owned())
        }
        Some(expected) if stands != expected => {
            (Broken::False, format!("{stands:?} stands where {expected:?} was said to be"))
        }
        _ if [&ran, &other].iter().any(|ran| !says_one_line(ran)) => {
            (Broken::False, "more than one line".to_owned())
        }
        _ => {
            scene.holder_dies();
            return finishes(scene, &BTreeSet::new(), &stories).map(drop);
        }
    };
    Err(Finding::new(broken, format!("{problem}\n{stories}")))
}

fn other_errand(scene: &Scene) -> Errand {
    let source = scene.path("other-source");
    fs::write(&source, Scene::other_content()).expect("a source");
    Errand { source, ..scene.errand() }
}

fn uploaded(ran: &Ran) -> bool {
    ran.report().is_some_and(|report| report.status == PutStatus::Uploaded)
}

fn says_one_line(ran: &Ran) -> bool {
    ran.failure().is_none_or(|failure| failure.to_string().lines().count() == 1)
}

/// Counted from 1: the last such call.
fn position_of(calls: &[Call], is: fn(&Call) -> bool) -> Option<usize> {
    calls.iter().rposition(is).map(|at| at + 1)
}

pub fn is_commit(call: &Call) -> bool {
    matches!(call.operation, "rename" | "posix-rename" | "hardlink")
        && call.object.contains("/merged.")
        && call.object.ends_with("/target.bin")
}

/// Moves an older run's private directory away.
fn fences(call: &Call) -> bool {
    let last = |path: &str, start: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with(start));
    let paths = call.object.split_once(" -> ");
    paths.is_some_and(|(from, to)| last(from, "run.") && last(to, "fenced."))
}

fn takes_the_lock(call: &Call) -> bool {
    matches!(call.operation, "hardlink" | "create" | "rename") && call.object.ends_with("target.bin:lock")
}

/// Somebody else replaces the target before call k.
pub fn target_changes(scene: &Scene, k: usize, seed: u64) -> Verdict {
    let foreign = scene.path("foreign");
    fs::write(&foreign, Scene::other_content()).expect("a file");
    let script = FaultScript::new(Moment::Call(k), Fault::Nothing, seed).at_fault({
        let (foreign, target) = (foreign, scene.target());
        move || fs::rename(&foreign, &target).expect("a rename")
    });
    let ran = scene.run(script, 5);
    let Some(fired_at) = ran.fired_at else { return stands_whole(scene, &ran) };
    let stands = scene.stands();
    let committed_at = position_of(&ran.calls, is_commit);
    let looks = |call: &Call| call.operation == "lstat" && call.object.ends_with("/target.bin");
    let looked_at = committed_at.and_then(|commit| position_of(&ran.calls[..commit], looks));
    // From its last look to the rename nothing can be done where there is no compare and swap.
    let seen = looked_at.is_none_or(|at| fired_at <= at);
    // What stands there at the look before, when the upload begins, is what is replaced.
    let begun_at = looked_at.and_then(|last| position_of(&ran.calls[..last - 1], looks));
    let begins = begun_at.is_none_or(|at| fired_at <= at);
    let (broken, problem) = match ran.report() {
        _ if stands == Stands::Torn => (Broken::Torn, "the target is torn".to_owned()),
        _ if ran.outcome.is_none() => (Broken::Hung, "hung".to_owned()),
        // It came before: the run found it, and replaced it as it was told.
        Some(report) if report.status == PutStatus::Uploaded && begins && stands == Stands::New => {
            return Ok(());
        }
        Some(report)
            if report.status == PutStatus::Uploaded
                && stands == Stands::Other
                && committed_at.is_none_or(|at| fired_at < at) =>
        {
            (Broken::False, "a false success".to_owned())
        }
        _ if stands == Stands::New && seen && !begins => {
            (Broken::Lost, "somebody else's file was replaced".to_owned())
        }
        _ if !says_one_line(&ran) => (Broken::False, "more than one line".to_owned()),
        _ => {
            let story = format!("--- the target changes at {k}\n{}", ran.story());
            return finishes(scene, &scene.published(), &story).map(drop);
        }
    };
    Err(Finding::new(broken, format!("{problem}\n{}", ran.story())))
}

/// The source changes before call k: one byte of it, its length, or its name.
pub fn source_changes(scene: &Scene, k: usize, seed: u64) -> Verdict {
    let script = FaultScript::new(Moment::Call(k), Fault::Nothing, seed).at_fault({
        let source = scene.source();
        move || {
            let file = OpenOptions::new().write(true).open(&source).expect("the source");
            match seed % 3 {
                0 => file.write_all_at(b"?", seed % SIZE).expect("a write"),
                1 => file.set_len(seed % SIZE).expect("a length"),
                _ => fs::remove_file(&source).expect("the source"),
            }
        }
    });
    let ran = scene.run(script, 5);
    let changed = fs::read(scene.source()).ok();
    let target = fs::read(scene.target()).ok();
    // What the source is now is as good as what it was, if it is all of it.
    let is_changed = changed.is_some() && changed == target;
    let stands = if is_changed { Stands::New } else { scene.stands() };
    let (broken, problem) = match ran.report() {
        _ if stands == Stands::Torn => (Broken::Torn, "a mixture at the target".to_owned()),
        _ if ran.outcome.is_none() => (Broken::Hung, "hung".to_owned()),
        Some(_) if stands != Stands::New => (Broken::False, "a false success".to_owned()),
        _ if !says_one_line(&ran) => (Broken::False, "more than one line".to_owned()),
        _ => {
            fs::write(scene.source(), scene.new_content()).expect("the source");
            let story = format!("--- the source changes at {k}\n{}", ran.story());
            if is_changed {
                return Ok(());
            }
            return finishes(scene, &BTreeSet::new(), &story).map(drop);
        }
    };
    Err(Finding::new(broken, format!("{problem}\n{}", ran.story())))
}
