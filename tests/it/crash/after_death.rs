//! What goes on after the client's death: a request that is still on its way, and a power cut
//! that takes what was not synced.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use haul::remote::faulty::{Fault, FaultScript, LateCall, Moment};

use super::cases::{SLOW, finishes, next_random, stands_whole};
use super::scene::{Scene, Stands};
use super::verdict::{Broken, Finding, Verdict};

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
    give_work(scene);
    finishes(scene, &scene.published(), &stories).map(drop)
}

/// Where all was done when an incomplete lock came up: whoever has something to do has to get
/// past it.
fn give_work(scene: &Scene) {
    if scene.lock_is_torn() && scene.stands() == Stands::New {
        fs::remove_file(scene.target()).expect("the target");
    }
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
/// not synced is zeroed, or gone.
pub fn power_cut(scene: &Scene, k: usize, calls: usize, seed: u64) -> Verdict {
    let mut random = seed ^ 0xda4c;
    let mut stories = String::new();
    for k in [k, 1 + next_random(&mut random) % calls] {
        let ran = scene.run(FaultScript::new(Moment::Call(k), Fault::CrashAfter, seed), 0);
        let gone = next_random(&mut random).is_multiple_of(2);
        stories.push_str(&format!("--- power fails at {k}, bytes gone: {gone}\n{}", ran.story()));
        stands_whole(scene, &ran)?;
        for file in scene.cache.unsynced() {
            let path = String::from_utf8(file.path).expect("a path of this test");
            let first = file.ranges.iter().map(|range| range.start).min().unwrap_or(0);
            let ranges = file.ranges.iter().map(|range| (range.start, range.end));
            let there = if gone { shorten(Path::new(&path), first) } else { blank(Path::new(&path), ranges) };
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
    give_work(scene);
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
