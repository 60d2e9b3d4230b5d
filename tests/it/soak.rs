//! The soak: cases of `crash.rs` and of `kills.rs`, mixed by a seed, for as long as it is
//! told to. `./.ci/soak` runs it; RELIABILITY.md says what is counted.
//!
//! The environment says what to do: `HAUL_SOAK_SECONDS`, `HAUL_SOAK_SEED`,
//! `HAUL_SOAK_PLANT` (a fault in haul itself, which has to be found), `HAUL_SOAK_CASE` (one
//! case alone), `HAUL_SOAK_QUICK=1` (only cases in which time stands still, to the first
//! failure), and `HAUL_SOAK_LINE`, a file for the line it ends with.

mod plan;
mod plants;
mod real;
mod tally;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plan::{Lane, Plan};
use real::Killing;
use tally::{ENOUGH, Tally};

use crate::crash::scene::Noted;
use crate::crash::verdict::{Broken, Finding, Verdict};

const DEFAULT_SECONDS: u64 = 60;
const PAUSED_WORKERS: usize = 2;
/// More than processors: they wait for others.
const REAL_WORKERS: usize = 5;
/// In real time, for any case; the machine may be slow.
const CASE_LIMIT: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(50);

fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str, default: u64) -> u64 {
    let Some(text) = from_environment(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
}

/// Shared by all that work.
struct Soak {
    plan: Plan,
    tally: Tally,
    until: Instant,
    failures: usize,
    ended: AtomicBool,
    /// What each worker is at, and since when.
    at_work: Mutex<Vec<Option<(String, Instant)>>>,
}

impl Soak {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until && self.tally.failed() < self.failures
    }

    /// Runs one case, whatever it does, and counts it.
    fn case(
        &self,
        worker: usize,
        name: &str,
        kind: &str,
        real: bool,
        case: impl FnOnce() -> (Noted, Verdict),
    ) {
        let set = |what| self.at_work.lock().expect("not poisoned")[worker] = what;
        set(Some((name.to_owned(), Instant::now())));
        let (noted, verdict) = catch_unwind(AssertUnwindSafe(case)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            let story = format!("panicked: {}", text.unwrap_or_default());
            (Noted::default(), Err(Finding::new(Broken::Lost, story)))
        });
        set(None);
        self.tally.add(name, kind, real, &noted, verdict);
    }

    fn planned(&self, worker: usize, case: plan::Case) {
        let (name, kind) = (self.plan.name(case), self.plan.kind_of(case));
        self.case(worker, &name, &kind, Plan::is_real(case), || {
            let (scene, verdict) = self.plan.run(case);
            (scene.noted.take(), verdict)
        });
    }

    fn killing(&self, worker: usize, killing: &Killing, number: u64) {
        self.case(worker, &killing.name(number), killing.kind(), true, || killing.run(number));
    }

    /// What no case can be blamed for.
    fn broke(&self, what: &str) {
        let finding = Finding::new(Broken::Lost, what);
        self.tally.add("(none)", "", false, &Noted::default(), Err(finding));
    }

    /// A case that takes longer than any may is not waited for.
    fn watch(&self) {
        while !self.ended.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
            let at_work = self.at_work.lock().expect("not poisoned").clone();
            let hung: Vec<String> = at_work
                .into_iter()
                .flatten()
                .filter(|(_, since)| since.elapsed() > CASE_LIMIT)
                .map(|(name, _)| name)
                .collect();
            for name in &hung {
                let finding = Finding::new(Broken::Hung, format!("not done after {CASE_LIMIT:?}"));
                self.tally.add(name, "", false, &Noted::default(), Err(finding));
            }
            if !hung.is_empty() {
                self.say();
                // Their threads cannot be ended.
                std::process::exit(1);
            }
        }
    }

    fn say(&self) {
        let line = self.tally.to_string();
        eprintln!("{line}");
        if let Some(path) = from_environment("HAUL_SOAK_LINE") {
            std::fs::write(path, line + "\n").expect("the file for the line");
        }
    }
}

#[test]
#[ignore = "goes on for as long as it is told to: ./.ci/soak"]
fn soak() {
    let seed = number("HAUL_SOAK_SEED", 1);
    if let Some(name) = from_environment("HAUL_SOAK_PLANT") {
        plants::plant(&name);
    }
    let quick = from_environment("HAUL_SOAK_QUICK").is_some();
    let soak = Soak {
        plan: Plan::new(seed),
        tally: Tally::default(),
        until: Instant::now() + Duration::from_secs(number("HAUL_SOAK_SECONDS", DEFAULT_SECONDS)),
        failures: if quick { 1 } else { ENOUGH },
        ended: AtomicBool::new(false),
        at_work: Mutex::new(vec![None; PAUSED_WORKERS + REAL_WORKERS + 1]),
    };
    match from_environment("HAUL_SOAK_CASE") {
        Some(name) => alone(&soak, &name),
        None => all(&soak, seed, quick),
    }
    soak.say();
    assert_eq!(soak.tally.failed(), 0, "see above");
}

fn alone(soak: &Soak, name: &str) {
    if let Some((killing, number)) = Killing::parse(name) {
        return soak.killing(0, &killing, number);
    }
    let case = soak.plan.parse(name).unwrap_or_else(|| panic!("no case has this name: {name}"));
    soak.planned(0, case);
}

fn all(soak: &Soak, seed: u64, quick: bool) {
    let mut lanes = vec![Lane::Paused; PAUSED_WORKERS];
    if !quick {
        lanes.extend([Lane::Real; REAL_WORKERS]);
    }
    let paused = Mutex::new(soak.plan.order(Lane::Paused));
    let real = Mutex::new(soak.plan.order(Lane::Real));
    let working = AtomicUsize::new(lanes.len() + usize::from(!quick));
    let done = || {
        if working.fetch_sub(1, Ordering::AcqRel) == 1 {
            soak.ended.store(true, Ordering::Release);
        }
    };
    std::thread::scope(|scope| {
        for (worker, lane) in lanes.iter().enumerate() {
            let (order, done) = (if *lane == Lane::Paused { &paused } else { &real }, &done);
            scope.spawn(move || {
                while soak.goes_on() {
                    match catch_unwind(AssertUnwindSafe(|| soak.plan.next(order))) {
                        Ok(Some(case)) => soak.planned(worker, case),
                        Ok(None) => {}
                        Err(_) => soak.broke("a run without a fault panicked"),
                    }
                }
                done();
            });
        }
        if !quick {
            let worker = lanes.len();
            scope.spawn(move || {
                kill_on(soak, worker, seed);
                done();
            });
        }
        soak.watch();
    });
}

/// The program on real servers, one after the other.
fn kill_on(soak: &Soak, worker: usize, seed: u64) {
    let Ok(killings) = catch_unwind(Killing::all) else {
        return soak.broke("no sshd could be started");
    };
    let numbers = seed.wrapping_mul(1_000_000)..;
    for (number, killing) in numbers.zip(killings.iter().cycle()) {
        if !soak.goes_on() {
            return;
        }
        soak.killing(worker, killing, number);
    }
}
