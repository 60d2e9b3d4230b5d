//! One fault in a scene that is set, and what has to hold afterwards.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haul::engine::failure::{Failure, FailureKind, Phase};
use haul::engine::report::PutStatus;
use haul::remote::RemoteErrorKind;
use haul::remote::faulty::{Call, Fault, FaultScript, LateCall, Moment};

use super::scene::{CHUNKS, Errand, Ran, SIZE, Scene, Stands, published};
use super::verdict::{Broken, Finding, Verdict};

/// The first calls make the connection: what goes wrong there is said, not retried.
const CONNECTING_CALLS: usize = 2;
/// More than any case without a fault in the watching of a lock may take.
const SLOW: Duration = Duration::from_secs(30);

pub fn next_random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits")
}

/// What holds after every run, whatever became of it.
pub fn stands_whole(scene: &Scene, ran: &Ran) -> Verdict {
    let stands = scene.stands();
    let (broken, problem) = match ran.report() {
        _ if stands == Stands::Torn => (Broken::Torn, "the target is torn".to_owned()),
        _ if ran.outcome.is_none() => (Broken::Hung, "hung".to_owned()),
        Some(_) if stands != Stands::New => (Broken::False, format!("a false success: {stands:?} stands")),
        Some(report)
            if report.status == PutStatus::Uploaded
                && !ran.notices.contains("mode")
                && !scene.mode_is_right() =>
        {
            (Broken::False, "a success with another mode than was asked for".to_owned())
        }
        _ => return Ok(()),
    };
    Err(Finding::new(broken, format!("{problem}\n{}", ran.story())))
}

/// The run that has to finish. `before`: what must not be sent again.
pub fn finishes(scene: &Scene, before: &BTreeSet<u64>, stories: &str) -> Result<Ran, Finding> {
    let done = scene.stands() == Stands::New;
    let ran = scene.run(FaultScript::faultless(), 0);
    let (broken, problem) = if ran.outcome.is_none() {
        (Broken::Hung, "the last rerun hangs".to_owned())
    } else if let Some(failure) = ran.failure() {
        (Broken::Lost, format!("the last rerun fails: {failure}"))
    } else if scene.stands() != Stands::New {
        (Broken::False, "the last rerun says that it is done, and is not".to_owned())
    } else if !scene.litter().is_empty() {
        (Broken::Lost, format!("litter: {:?}", scene.litter()))
    } else if !ran.sent_after(0).is_disjoint(before) {
        (Broken::Lost, format!("sent again of {before:?}: {:?}", ran.sent_after(0)))
    } else if done && !ran.sent_after(0).is_empty() {
        (Broken::Lost, format!("sent although the target is there: {:?}", ran.sent_after(0)))
    } else {
        return Ok(ran);
    };
    Err(Finding::new(broken, format!("{problem}\n{stories}--- last\n{}", ran.story())))
}

/// Killed at call k, then killed again, then run to the end. `known_dead`: the killed
/// holder of the lock is seen to be gone, else it has to be watched.
pub fn killed(scene: &Scene, fault: Fault, k: usize, calls: usize, known_dead: bool, seed: u64) -> Verdict {
    let mut random = seed ^ 0x5eed;
    let mut stories = String::new();
    for k in [k, 1 + next_random(&mut random) % calls] {
        let (before, done) = (scene.published(), scene.stands() == Stands::New);
        if known_dead {
            scene.holder_dies();
        }
        let ran = scene.run(FaultScript::new(Moment::Call(k), fault, seed), 0);
        stories.push_str(&format!("--- {fault:?} at {k}\n{}", ran.story()));
        stands_whole(scene, &ran)?;
        let again = ran.sent_after(0);
        if !again.is_disjoint(&before) || done && !again.is_empty() {
            let story = format!("sent again of {before:?}: {again:?}\n{stories}");
            return Err(Finding::new(Broken::Lost, story));
        }
    }
    let before = scene.published();
    let at_once = known_dead && scene.holder_dies() || !scene.lock().exists();
    let ran = finishes(scene, &before, &stories)?;
    if at_once && scene.way.paused() && ran.took > Duration::from_secs(2) {
        let story = format!("a dead lock was not taken over at once\n{stories}--- last\n{}", ran.story());
        return Err(Finding::new(Broken::Hung, story));
    }
    Ok(())
}

/// The link dies once at call k: the same run finishes by itself.
pub fn cut(scene: &Scene, fault: Fault, k: usize, seed: u64) -> Verdict {
    let at_the_cut = Arc::new(Mutex::new(BTreeSet::new()));
    let script = FaultScript::new(Moment::Call(k), fault, seed).at_fault({
        let (seen, temp, names) = (at_the_cut.clone(), scene.temp(), scene.names());
        move || *seen.lock().expect("not poisoned") = published(&temp, &names)
    });
    let ran = scene.run(script, 5);
    stands_whole(scene, &ran)?;
    let mut at_the_cut = at_the_cut.lock().expect("not poisoned").clone();
    if scene.damaged.get() {
        at_the_cut.clear();
    }
    let again = ran.sent_after(ran.fired_at.unwrap_or(0));
    let (broken, problem) = match ran.failure() {
        Some(failure) if k <= CONNECTING_CALLS && failure.kind == FailureKind::Unreachable => return Ok(()),
        Some(failure) => (Broken::Lost, format!("it did not go on by itself: {failure}")),
        None if !scene.litter().is_empty() => (Broken::Lost, format!("litter: {:?}", scene.litter())),
        None if ran.fired_at.is_some() && !again.is_disjoint(&at_the_cut) => {
            (Broken::Lost, format!("sent again of {at_the_cut:?}: {again:?}"))
        }
        None if ran.took > SLOW => (Broken::Hung, format!("it took {:?}", ran.took)),
        None => return Ok(()),
    };
    Err(Finding::new(broken, format!("{problem}\n{}", ran.story())))
}

/// One call is refused, once: said with its cause, or got over. Nothing is left locked.
pub fn refused(scene: &Scene, kind: RemoteErrorKind, k: usize, seed: u64) -> Verdict {
    let dead = scene.lock_holder();
    let ran = scene.run(FaultScript::new(Moment::Call(k), Fault::Refuse(kind), seed), 5);
    stands_whole(scene, &ran)?;
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
            Some((Broken::False, format!("no room, and it says {:?}: {failure}", failure.kind)))
        }
        Some(failure) if scene.lock().exists() && scene.lock_holder() != dead && !kept(failure) => {
            Some((Broken::Lost, format!("the lock is left after: {failure}")))
        }
        Some(failure) if failure.to_string().lines().count() != 1 => {
            Some((Broken::False, "more than one line".to_owned()))
        }
        _ if ran.took > SLOW => Some((Broken::Hung, format!("it took {:?}", ran.took))),
        _ => None,
    };
    if let Some((broken, problem)) = problem {
        return Err(Finding::new(broken, format!("{problem}\n{}", ran.story())));
    }
    finishes(scene, &scene.published(), &format!("--- refused\n{}", ran.story())).map(drop)
}

/// Bytes that the server took and does not have: never in the target, and mended by sending
/// what is bad.
pub fn swallowed(scene: &Scene, operation: &'static str, fault: Fault, n: usize, seed: u64) -> Verdict {
    let ran = scene.run(FaultScript::new(Moment::Nth(operation, n), fault, seed), 5);
    stands_whole(scene, &ran)?;
    if let Some(report) = ran.report() {
        if !scene.litter().is_empty() {
            let story = format!("litter: {:?}\n{}", scene.litter(), ran.story());
            return Err(Finding::new(Broken::Lost, story));
        }
        if report.chunks_sent > CHUNKS + 1 {
            let story = format!("{} chunks sent to mend one\n{}", report.chunks_sent, ran.story());
            return Err(Finding::new(Broken::Lost, story));
        }
        return Ok(());
    }
    if ran.took > 2 * SLOW {
        return Err(Finding::new(Broken::Hung, format!("it took {:?}\n{}", ran.took, ran.story())));
    }
    finishes(scene, &BTreeSet::new(), &format!("--- {fault:?}\n{}", ran.story())).map(drop)
}

/// Killed with call k still on its way, which the server carries out during the next run,
/// or when that is done.
pub fn late(scene: &Scene, k: usize, calls: usize, known_dead: bool, seed: u64) -> Verdict {
    let script = Arc::new(FaultScript::new(Moment::Call(k), Fault::CrashLate, seed).on(scene.cache.clone()));
    let killed = scene.run_shared(&script, 0);
    stands_whole(scene, &killed)?;
    if known_dead {
        scene.holder_dies();
    }
    let call = Arc::new(Mutex::new(script.take_late()));
    let mut random = seed ^ 0x1a7e;
    let moment = match next_random(&mut random) % 4 {
        0 => Moment::Never,
        _ => Moment::Call(1 + next_random(&mut random) % calls),
    };
    let before = scene.published();
    let hook = FaultScript::new(moment, Fault::Nothing, seed).at_fault({
        let call = call.clone();
        move || carry_out(&call)
    });
    let ran = scene.run(hook, 0);
    let stories = format!("--- killed\n{}--- then, its call at {moment:?}\n{}", killed.story(), ran.story());
    stands_whole(scene, &ran)
        .map_err(|finding| Finding::new(finding.broken, format!("{}\n{stories}", finding.story)))?;
    carry_out(&call);
    let stands = scene.stands();
    let problem = match ran.failure() {
        _ if stands == Stands::Torn => Some((Broken::Torn, "the late call tore the target".to_owned())),
        None if stands != Stands::New => {
            Some((Broken::Lost, format!("the late call put back what was replaced: {stands:?}")))
        }
        Some(failure) if failure.to_string().lines().count() != 1 => {
            Some((Broken::False, "more than one line".to_owned()))
        }
        _ if ran.took > SLOW => Some((Broken::Hung, format!("it took {:?}", ran.took))),
        _ if !ran.sent_after(0).is_disjoint(&before) => {
            Some((Broken::Lost, format!("sent again of {before:?}: {:?}", ran.sent_after(0))))
        }
        _ => None,
    };
    if let Some((broken, problem)) = problem {
        return Err(Finding::new(broken, format!("{problem}\n{stories}")));
    }
    scene.holder_dies();
    finishes(scene, &scene.published(), &stories).map(drop)
}

fn carry_out(call: &Mutex<Option<LateCall>>) {
    let Some(call) = call.lock().expect("not poisoned").take() else { return };
    // A runtime of its own, since it may be called from within one.
    let server = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(call);
    });
    server.join().expect("the late call");
}

/// The target's power fails at call k, and the client dies with it; then once more. What was
/// not synced is zeroed, or gone. Where that takes the text of a lock whose run has removed
/// its private files already, nobody can tell whose it was: a person is asked to remove it.
pub fn power_cut(scene: &Scene, k: usize, calls: usize, seed: u64) -> Verdict {
    let mut random = seed ^ 0xda4c;
    let mut stories = String::new();
    for k in [k, 1 + next_random(&mut random) % calls] {
        let ran = scene.run(FaultScript::new(Moment::Call(k), Fault::CrashAfter, seed), 0);
        let gone = next_random(&mut random) % 2 == 0;
        stories.push_str(&format!("--- power fails at {k}, bytes gone: {gone}\n{}", ran.story()));
        stands_whole(scene, &ran)?;
        for file in scene.cache.unsynced() {
            let path = String::from_utf8(file.path).expect("a path of this test");
            let first = file.ranges.iter().map(|range| range.start).min().unwrap_or(0);
            let ranges = file.ranges.iter().map(|range| (range.start, range.end));
            let there = if gone { shorten(Path::new(&path), first) } else { blank(Path::new(&path), ranges) };
            let of_nobody = Path::new(&path) == scene.lock() && !scene.has_private_lock();
            if there && of_nobody && scene.lock_is_torn() {
                fs::remove_file(scene.lock()).expect("the lock");
            }
            if there {
                stories.push_str(&format!("  not synced: {path} {:?}\n", file.ranges));
            }
        }
        if scene.stands() == Stands::Torn {
            let story = format!("the target was not synced when it was put in place\n{stories}");
            return Err(Finding::new(Broken::Torn, story));
        }
        scene.holder_dies();
    }
    finishes(scene, &BTreeSet::new(), &stories).map(drop)
}

fn shorten(path: &Path, to: u64) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return false };
    let length = file.metadata().expect("a length").len();
    length > to && file.set_len(to).is_ok()
}

fn blank(path: &Path, ranges: impl Iterator<Item = (u64, u64)>) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return false };
    let length = file.metadata().expect("a length").len();
    for (start, end) in ranges {
        let zeros = vec![0; usize::try_from(end.min(length).saturating_sub(start)).expect("small")];
        file.write_all_at(&zeros, start).expect("a write");
    }
    true
}

/// The client stands still before call k for so long that another one, of the same user,
/// with another source, takes its lock for dead and does all its work. Then it wakes up.
pub fn overtaken(scene: &Scene, k: usize, seed: u64) -> Verdict {
    let source = scene.path("other-source");
    fs::write(&source, Scene::other_content()).expect("a source");
    let errand = Errand { source, ..scene.errand() };
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
        (None, _) if ran.failure().is_some_and(|failure| failure.to_string().lines().count() != 1) => {
            (Broken::False, "more than one line".to_owned())
        }
        _ => return finishes(scene, &BTreeSet::new(), &stories).map(drop),
    };
    Err(Finding::new(broken, format!("{problem}\n{stories}")))
}

/// Counted from 1: the last such call.
fn position_of(calls: &[Call], is: fn(&Call) -> bool) -> Option<usize> {
    calls.iter().rposition(is).map(|at| at + 1)
}

fn is_commit(call: &Call) -> bool {
    matches!(call.operation, "rename" | "posix-rename" | "hardlink")
        && call.object.contains("/merged.")
        && call.object.ends_with("/target.bin")
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
    // What stands there at the first look with the lock is what is replaced.
    let locked_at = position_of(&ran.calls, takes_the_lock);
    let begun_at =
        locked_at.and_then(|locked| Some(locked + 1 + ran.calls[locked..].iter().position(looks)?));
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
        None if ran.failure().is_some_and(|failure| failure.to_string().lines().count() != 1) => {
            (Broken::False, "more than one line".to_owned())
        }
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
        None if ran.failure().is_some_and(|failure| failure.to_string().lines().count() != 1) => {
            (Broken::False, "more than one line".to_owned())
        }
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
