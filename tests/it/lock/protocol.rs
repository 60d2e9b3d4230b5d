//! The lock's protocol as a small model, explored exhaustively: every interleaving of three
//! runs, each request to the target one step.
//!
//! Nobody is assumed to judge well: a run may take any other for dead at any time. So a run
//! that is never scheduled again has crashed, one that goes on after it was taken for dead
//! was only slow, and a request that is carried out long after it was sent is the step of
//! such a run. Keepers put a vanished lock back between any two steps.

use std::collections::HashSet;

const RUNS: usize = 3;
/// How often a run begins anew before it gives up.
const TRIES: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Look,
    MakeDirectory,
    LookAgain,
    MoveAway,
    ReadMoved,
    Link,
    LookAtWin,
    ListOthers,
    /// Bits of the runs that were listed and are still to be renamed away.
    Fence(u8),
    LookAfterFence,
    Survey,
    LookBeforeCommit,
    Commit,
    RemovePrivateName,
    MoveBack,
    RemoveDirectory,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Run {
    step: Step,
    judged: Option<u8>,
    /// The private directory stands under its own name, with the lock file in it or not.
    directory: bool,
    private_name: bool,
    /// The lock that was moved into the directory, by whose it is.
    moved: Option<u8>,
    tries: u8,
    /// The version of the target that the survey saw.
    surveyed: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    lock: Option<u8>,
    /// Counts commits.
    target: u8,
    runs: [Run; RUNS],
}

/// The protocol, or one with a step left out, which the exploration has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    AsBuilt,
    WithoutFencing,
    CommitFromAnywhere,
    SurveyBeforeFencing,
}

impl World {
    fn new() -> World {
        let run = Run {
            step: Step::Look,
            judged: None,
            directory: false,
            private_name: false,
            moved: None,
            tries: 0,
            surveyed: 0,
        };
        World { lock: None, target: 0, runs: [run; RUNS] }
    }

    fn holds_on(&self, r: usize) -> bool {
        matches!(
            self.runs[r].step,
            Step::ListOthers
                | Step::Fence(_)
                | Step::LookAfterFence
                | Step::Survey
                | Step::LookBeforeCommit
                | Step::Commit
        )
    }

    /// Surveyed, not fenced, and about to commit.
    fn is_at_work(&self, r: usize) -> bool {
        self.runs[r].directory && matches!(self.runs[r].step, Step::LookBeforeCommit | Step::Commit)
    }

    fn go(mut self, r: usize, step: Step) -> World {
        self.runs[r].step = step;
        self
    }

    fn anew(mut self, r: usize) -> World {
        let run = &mut self.runs[r];
        run.tries += 1;
        // A run that was fenced takes a fresh id; here it is another of the runs.
        let goes_on = run.tries < TRIES && run.directory;
        if !goes_on {
            // The loser removes what it made.
            (run.directory, run.private_name) = (false, false);
        }
        self.go(r, if goes_on { Step::Look } else { Step::Ended })
    }

    /// What a look at one's own lock finds and does: `next` when it is ours, a link or a
    /// move where that is called for (each a step of its own), the end when it is lost.
    fn standing(self, r: usize, next: Step) -> Vec<World> {
        let own = u8::try_from(r).expect("few");
        if !self.runs[r].directory || !self.runs[r].private_name {
            return vec![self.go(r, Step::Ended)];
        }
        match self.lock {
            Some(holder) if holder == own => vec![self.go(r, next)],
            None => {
                // Between the look and the link anything may happen: the keeper's link is a
                // step of its own, so here it is only waited for.
                vec![]
            }
            Some(holder) if !self.runs[usize::from(holder)].directory => {
                let mut world = self;
                world.lock = None;
                vec![world]
            }
            Some(_) => vec![self.go(r, Step::Ended)],
        }
    }

    fn next(self, r: usize, variant: Variant) -> Vec<World> {
        let own = u8::try_from(r).expect("few");
        let run = self.runs[r];
        let mut world = self;
        match run.step {
            Step::Look => match self.lock {
                None => {
                    world.runs[r].judged = None;
                    vec![world.go(r, Step::MakeDirectory)]
                }
                Some(holder) if holder == own => vec![self.go(r, Step::LookAtWin)],
                // Living: refused. Dead, rightly or not: taken.
                Some(holder) => {
                    world.runs[r].judged = Some(holder);
                    vec![world.go(r, Step::MakeDirectory), self.anew(r).go(r, Step::Ended)]
                }
            },
            Step::MakeDirectory => {
                if run.tries == 0 {
                    world.runs[r].directory = true;
                    world.runs[r].private_name = true;
                }
                let step = if run.judged.is_some() { Step::LookAgain } else { Step::Link };
                vec![world.go(r, step)]
            }
            Step::LookAgain => {
                if self.lock == run.judged {
                    vec![self.go(r, Step::MoveAway)]
                } else {
                    vec![self.anew(r)]
                }
            }
            Step::MoveAway => match self.lock {
                Some(_) if run.directory => {
                    world.runs[r].moved = world.lock.take();
                    vec![world.go(r, Step::ReadMoved)]
                }
                _ => vec![self.anew(r)],
            },
            Step::ReadMoved => {
                let was_judged = run.moved == run.judged;
                world.runs[r].moved = None;
                if was_judged && run.directory { vec![world.go(r, Step::Link)] } else { vec![world.anew(r)] }
            }
            Step::Link => {
                if run.directory && run.private_name && self.lock.is_none() {
                    world.lock = Some(own);
                    vec![world.go(r, Step::LookAtWin)]
                } else {
                    vec![self.anew(r)]
                }
            }
            Step::LookAtWin => {
                let next = match variant {
                    Variant::WithoutFencing | Variant::SurveyBeforeFencing => Step::Survey,
                    Variant::AsBuilt | Variant::CommitFromAnywhere => Step::ListOthers,
                };
                self.standing(r, next)
            }
            Step::ListOthers => {
                let others = (0..RUNS).filter(|other| *other != r && self.runs[*other].directory);
                let bits = others.fold(0, |bits, other| bits | 1 << other);
                vec![self.go(r, Step::Fence(bits))]
            }
            Step::Fence(0) => {
                let after = if variant == Variant::SurveyBeforeFencing {
                    Step::LookBeforeCommit
                } else {
                    Step::LookAfterFence
                };
                vec![self.go(r, after)]
            }
            Step::Fence(bits) => {
                let other = usize::try_from(bits.trailing_zeros()).expect("few");
                // Into this run's own directory: without that nothing is renamed.
                if run.directory {
                    world.runs[other].directory = false;
                }
                vec![world.go(r, Step::Fence(bits & (bits - 1)))]
            }
            Step::LookAfterFence => self.standing(r, Step::Survey),
            Step::Survey => {
                world.runs[r].surveyed = self.target;
                let next = if variant == Variant::SurveyBeforeFencing {
                    Step::ListOthers
                } else {
                    Step::LookBeforeCommit
                };
                vec![world.go(r, next)]
            }
            Step::LookBeforeCommit => self.standing(r, Step::Commit),
            Step::Commit => {
                if run.directory || variant == Variant::CommitFromAnywhere {
                    world.target += 1;
                    vec![world.go(r, Step::RemovePrivateName)]
                } else {
                    vec![self.go(r, Step::Ended)]
                }
            }
            Step::RemovePrivateName => {
                if run.directory {
                    world.runs[r].private_name = false;
                }
                vec![world.go(r, Step::MoveBack)]
            }
            Step::MoveBack => {
                // Whatever stands there now: a newer run's comes back by its keeper.
                if run.directory {
                    world.lock = None;
                }
                vec![world.go(r, Step::RemoveDirectory)]
            }
            Step::RemoveDirectory => {
                world.runs[r].directory = false;
                vec![world.go(r, Step::Ended)]
            }
            Step::Ended => vec![],
        }
    }

    /// The keeper's part, between any two steps.
    fn kept(self, r: usize) -> Option<World> {
        let run = self.runs[r];
        let may = self.holds_on(r) || run.step == Step::LookAtWin;
        (may && self.lock.is_none() && run.directory && run.private_name).then(|| {
            let mut world = self;
            world.lock = Some(u8::try_from(r).expect("few"));
            world
        })
    }
}

/// What must never be, seen as run `r` goes from one world to the next.
fn violation(before: &World, after: &World, r: usize) -> Option<&'static str> {
    let at_work = (0..RUNS).filter(|run| after.is_at_work(*run)).count();
    if at_work > 1 {
        return Some("two runs that were not fenced have surveyed and are about to commit");
    }
    if after.target == before.target {
        return None;
    }
    if !before.runs[r].directory {
        return Some("a run commits after it was fenced");
    }
    if (0..RUNS).any(|other| other != r && before.is_at_work(other)) {
        return Some("a run commits under another that has surveyed");
    }
    (before.target != before.runs[r].surveyed).then_some("a run replaces what it has not surveyed")
}

struct Explored {
    worlds: usize,
    commits: usize,
    violation: Option<&'static str>,
}

fn explore(variant: Variant) -> Explored {
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    let mut explored = Explored { worlds: 0, commits: 0, violation: None };
    while let Some(world) = open.pop() {
        for r in 0..RUNS {
            for after in world.next(r, variant).into_iter().chain(world.kept(r)) {
                explored.violation = explored.violation.or(violation(&world, &after, r));
                explored.commits = explored.commits.max(usize::from(after.target));
                if explored.violation.is_some() {
                    return explored;
                }
                if seen.insert(after) {
                    open.push(after);
                }
            }
        }
    }
    explored.worlds = seen.len();
    explored
}

#[test]
fn no_interleaving_of_three_runs_breaks_the_promise() {
    let explored = explore(Variant::AsBuilt);
    assert_eq!(explored.violation, None);
    assert_eq!(explored.commits, RUNS, "not every run can get through, so little is shown");
    assert!(explored.worlds > 500_000, "only {} worlds", explored.worlds);
}

#[test]
fn each_step_that_was_left_out_is_found() {
    for variant in [Variant::WithoutFencing, Variant::CommitFromAnywhere, Variant::SurveyBeforeFencing] {
        assert!(explore(variant).violation.is_some(), "{variant:?} is as good");
    }
}
