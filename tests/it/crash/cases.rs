//! One fault in a scene that is set, and what has to hold afterwards.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haul::engine::failure::{Failure, FailureKind, Phase};
use haul::engine::report::PutStatus;
use haul::remote::RemoteErrorKind;
use haul::remote::faulty::{Fault, FaultScript, Moment};

use super::client::Ran;
use super::scene::{CHUNKS, Scene, Stands, published};
use super::verdict::{Broken, Finding, Verdict};

/// The first calls make the connection: what goes wrong there is said, not retried.
const CONNECTING_CALLS: usize = 2;
/// More than any case without a fault in the watching of a lock may take.
pub const SLOW: Duration = Duration::from_secs(30);

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
    let mut before = BTreeSet::new();
    for k in [k, 1 + next_random(&mut random) % calls] {
        let done = scene.stands() == Stands::New;
        before.append(&mut scene.published());
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
        if !scene.damaged.get() {
            before.append(&mut ran.seen_published());
        }
    }
    before.append(&mut scene.published());
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
    at_the_cut.append(&mut ran.seen_published_before(ran.fired_at.unwrap_or(0)));
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
