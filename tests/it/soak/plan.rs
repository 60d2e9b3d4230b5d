//! Which cases there are and in which order they come: by the seed alone.
//!
//! A case is an operation, a fault, a server and the state before. Groups are all but the
//! operation. A round takes every group once, faults in turn, each with another operation
//! than the round before; so a short soak sees of everything something.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use haul::engine::options::MergeMethod;
use haul::remote::RemoteErrorKind;
use haul::remote::faulty::{Call, Fault, FaultScript};
use haul::remote::files::Features;

use crate::crash::after_death::{late, power_cut};
use crate::crash::cases::{cut, killed, next_random, refused, swallowed};
use crate::crash::client::{PLACED, PLACED_SHELL, POOR, SCRIPT, STORED, Way};
use crate::crash::damage::{Came, harms, moment};
use crate::crash::others::{interleaved, overtaken, source_changes, target_changes};
use crate::crash::scene::{Before, Scene};
use crate::crash::verdict::Verdict;

const NO_LINK: fn(&mut Features) = |features| features.hard_link = false;
const NO_COPY: fn(&mut Features) = |features| features.copy_data = false;
const NO_SYNC: fn(&mut Features) = |features| features.fsync = false;
const NO_STATVFS: fn(&mut Features) = |features| features.statvfs = false;
const NO_REPLACE: fn(&mut Features) = |features| features.posix_rename = false;
const SMALL: fn(&mut Features) = |features| (features.write_limit, features.read_limit) = (8 << 10, 8 << 10);

const fn named(way: Way, name: &'static str) -> Way {
    Way { name, ..way }
}

/// The kinds of server, and how the upload goes about it there.
pub const SERVERS: &[Way] = &[
    named(PLACED, "local"),
    named(STORED, "local-stored"),
    named(POOR, "local-poor"),
    named(PLACED.in_order(), "local-in-order"),
    named(STORED.in_order(), "local-in-order-stored"),
    named(PLACED.in_order().lacking(NO_LINK), "local-in-order-no-link"),
    named(PLACED.lacking(NO_LINK), "local-no-link"),
    named(STORED.lacking(NO_LINK), "local-stored-no-link"),
    named(STORED.lacking(NO_COPY), "local-stored-no-copy"),
    named(PLACED.lacking(NO_SYNC), "local-no-sync"),
    named(PLACED.lacking(NO_STATVFS), "local-no-statvfs"),
    named(PLACED.lacking(NO_REPLACE).removing_first(), "local-no-replace"),
    named(PLACED.lacking(SMALL), "local-small-packets"),
    named(PLACED_SHELL, "local-shell"),
    named(SCRIPT, "local-script"),
    named(PLACED.through_openssh(&[]), "openssh"),
    named(STORED.through_openssh(&[]), "openssh-stored"),
    named(PLACED.through_openssh(&["-P", "hardlink"]), "openssh-no-link"),
    named(STORED.through_openssh(&["-P", "copy-data"]), "openssh-stored-no-copy"),
    named(PLACED.through_openssh(&["-P", "fsync,statvfs,limits"]), "openssh-no-sync"),
    named(PLACED.through_openssh(&["-P", "posix-rename"]).removing_first(), "openssh-no-replace"),
    named(
        STORED.through_openssh(&["-P", "copy-data,hardlink,fsync,statvfs,posix-rename"]).removing_first(),
        "openssh-poor",
    ),
    named(PLACED_SHELL.through_openssh(&[]), "openssh-shell"),
    named(SCRIPT.through_openssh(&[]), "openssh-script"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Killed(Fault),
    Late,
    PowerCut,
    Cut(Fault),
    Refused(RemoteErrorKind),
    Swallowed(&'static str, Fault),
    Overtaken,
    Interleaved,
    TargetChanges,
    SourceChanges,
}

const FAULTS: &[(&str, Kind)] = &[
    ("killed-before", Kind::Killed(Fault::Crash)),
    ("killed-after", Kind::Killed(Fault::CrashAfter)),
    ("killed-and-carried-out-late", Kind::Late),
    ("power-cut", Kind::PowerCut),
    ("link-lost", Kind::Cut(Fault::LinkLost)),
    ("reply-lost", Kind::Cut(Fault::LinkLostAfter)),
    ("no-space", Kind::Refused(RemoteErrorKind::NoSpace)),
    ("permission-denied", Kind::Refused(RemoteErrorKind::PermissionDenied)),
    ("failure", Kind::Refused(RemoteErrorKind::Failure)),
    ("write-dropped", Kind::Swallowed("write", Fault::DropWrite)),
    ("write-corrupted", Kind::Swallowed("write", Fault::CorruptWrite)),
    ("copy-short", Kind::Swallowed("copy-data", Fault::ShortCopy)),
    ("suspended-and-overtaken", Kind::Overtaken),
    ("suspended-and-interleaved", Kind::Interleaved),
    ("target-changes", Kind::TargetChanges),
    ("source-changes", Kind::SourceChanges),
];

#[derive(Debug, Clone, Copy)]
enum Past {
    Nothing,
    Killed(Came),
    /// The new file is in place, and what the upload needed still lies beside it.
    Committed,
}

/// What stands on the target when the case begins.
#[derive(Clone)]
struct State {
    name: String,
    before: Before,
    past: Past,
    /// Nothing tells that the killed holder of the lock is dead.
    watched: bool,
    /// Of [`harms`].
    harm: Option<usize>,
}

/// One in so many of the groups with damage is taken in a round.
const DAMAGED_ONE_IN: usize = 6;

fn states() -> Vec<State> {
    let state =
        |name: &str, before, past| State { name: name.to_owned(), before, past, watched: false, harm: None };
    let half = Past::Killed(Came::HalfWay);
    let merged = Past::Killed(Came::ToTheCommit);
    let mut states = vec![
        state("absent", Before::Absent, Past::Nothing),
        state("old", Before::Old, Past::Nothing),
        state("longer", Before::Longer, Past::Nothing),
        state("same", Before::Same, Past::Nothing),
        state("half-absent", Before::Absent, half),
        state("half-old", Before::Old, half),
        State { watched: true, ..state("half-watched", Before::Old, half) },
        state("merged-absent", Before::Absent, merged),
        state("merged-old", Before::Old, merged),
        State { watched: true, ..state("merged-watched", Before::Longer, merged) },
        state("committed", Before::Old, Past::Committed),
    ];
    for (harm, (what, of_the_lock)) in harms().enumerate().filter_map(|(i, harm)| Some((i, harm?))) {
        let what = what.replace(' ', "-").replace('\'', "");
        for (came, past) in [("half", half), ("merged", merged)] {
            let damaged = state(&format!("{came}-{what}"), Before::Old, past);
            states.push(State { harm: Some(harm), watched: of_the_lock, ..damaged });
        }
    }
    states
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Group {
    server: usize,
    state: usize,
    fault: usize,
}

/// One case, as it is named: it can be run again alone.
#[derive(Clone, Copy)]
pub struct Case {
    group: Group,
    /// Which operation, from 1: of all, or of those that the fault is about.
    k: usize,
    seed: u64,
}

/// Where cases go one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Time stands still in them; they take the processor.
    Paused,
    /// They wait for servers and commands most of the time.
    Real,
}

type Calls = Arc<Vec<Call>>;

pub struct Plan {
    seed: u64,
    states: Vec<State>,
    /// Of runs in which nothing goes wrong, by server and state.
    calls: Mutex<HashMap<(usize, usize), Calls>>,
}

/// What is left of a round.
pub struct Order {
    lane: Lane,
    round: usize,
    rest: Vec<Group>,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        Plan { seed, states: states(), calls: Mutex::default() }
    }

    pub fn order(&self, lane: Lane) -> Order {
        Order { lane, round: 0, rest: self.round(lane, 0) }
    }

    /// The next group, with the number of its round.
    fn next_group(&self, order: &mut Order) -> (Group, usize) {
        loop {
            if let Some(group) = order.rest.pop() {
                return (group, order.round);
            }
            order.round += 1;
            order.rest = self.round(order.lane, order.round);
        }
    }

    /// The next case; `None` where its group has no operation that the fault is about.
    pub fn next(&self, order: &Mutex<Order>) -> Option<Case> {
        let (group, round) = self.next_group(&mut order.lock().expect("not poisoned"));
        let count = self.operations(group);
        if count == 0 {
            return None;
        }
        // A step without a common divisor comes to every operation before it comes to one twice.
        let step = (1..=count).rev().find(|step| *step * 13 <= count * 8 && divisor(*step, count) == 1);
        let start = mixed(self.seed, &[group.server, group.state, group.fault]) % count;
        let k = (start + round * step.unwrap_or(1)) % count + 1;
        Some(Case { group, k, seed: self.seed.wrapping_mul(1000).wrapping_add(round as u64) })
    }

    fn round(&self, lane: Lane, round: usize) -> Vec<Group> {
        let mut by_fault: Vec<Vec<(usize, Group)>> = vec![Vec::new(); FAULTS.len()];
        for server in 0..SERVERS.len() {
            for state in 0..self.states.len() {
                for (fault, groups) in by_fault.iter_mut().enumerate() {
                    let group = Group { server, state, fault };
                    let rank = mixed(self.seed ^ round as u64, &[server, state, fault]);
                    let turn = mixed(self.seed, &[fault, state, server]) % DAMAGED_ONE_IN;
                    let its_turn = self.states[state].harm.is_none() || turn == round % DAMAGED_ONE_IN;
                    if its_turn && self.fits(group, lane) {
                        groups.push((rank, group));
                    }
                }
            }
        }
        // Every fault is spread over the whole round, however many groups it has.
        let mut order: Vec<(usize, usize, Group)> = Vec::new();
        for (fault, mut groups) in by_fault.into_iter().enumerate() {
            groups.sort_by_key(|(rank, _)| *rank);
            let count = groups.len().max(1);
            let place = |i: usize| i * 1_000_000 / count;
            order.extend(groups.into_iter().enumerate().map(|(i, (_, group))| (place(i), fault, group)));
        }
        order.sort_by_key(|(place, fault, _)| (*place, *fault));
        order.into_iter().rev().map(|(_, _, group)| group).collect()
    }

    fn fits(&self, group: Group, lane: Lane) -> bool {
        let (way, state, (_, kind)) =
            (&SERVERS[group.server], &self.states[group.state], FAULTS[group.fault]);
        if way.paused() != (lane == Lane::Paused) {
            return false;
        }
        // To watch a lock takes ten seconds where time passes.
        if !way.paused() && state.watched {
            return false;
        }
        let mut features = Features { fsync: true, copy_data: true, ..Features::default() };
        (way.features)(&mut features);
        let whole = state.harm.is_none();
        match kind {
            Kind::Killed(_) | Kind::Cut(_) | Kind::Refused(_) | Kind::SourceChanges => true,
            Kind::Late => way.paused(),
            // Without a sync nothing can be promised. What a command writes is not seen. A lock
            // that is zeroed where a run's private files are gone may be another user's.
            Kind::PowerCut => way.paused() && features.fsync && whole,
            Kind::Overtaken | Kind::Interleaved => way.paused() && !way.remove_first,
            Kind::TargetChanges => !way.remove_first,
            Kind::Swallowed(operation, _) => {
                whole && (operation != "copy-data" || features.copy_data && way.merge == MergeMethod::Sftp)
            }
        }
    }

    /// How many operations there are that the fault is about.
    fn operations(&self, group: Group) -> usize {
        let calls = self.calls(group.server, group.state);
        match FAULTS[group.fault].1 {
            Kind::Swallowed(operation, _) => {
                let is_about = |call: &&Call| call.operation == operation && !call.object.ends_with("lock");
                calls.iter().filter(is_about).count()
            }
            _ => calls.len(),
        }
    }

    fn calls(&self, server: usize, state: usize) -> Calls {
        if let Some(known) = self.calls.lock().expect("not poisoned").get(&(server, state)) {
            return known.clone();
        }
        let scene = self.set_up(server, &self.states[state], 0);
        let calls: Calls = Arc::new(scene.run(FaultScript::faultless(), 5).calls);
        self.calls.lock().expect("not poisoned").insert((server, state), calls.clone());
        calls
    }

    fn set_up(&self, server: usize, state: &State, seed: u64) -> Scene {
        let way = SERVERS[server];
        let scene = Scene::with(way, state.before);
        let fresh = |plan: &Plan| {
            let fresh = |other: &&State| {
                matches!(other.past, Past::Nothing) && other.before == state.before && other.harm.is_none()
            };
            let at = plan.states.iter().position(|other| fresh(&other)).expect("one state for each");
            plan.calls(server, at)
        };
        let killed_at = match state.past {
            Past::Nothing => None,
            Past::Killed(came) => {
                let calls = fresh(self);
                let published = if state.harm.is_some() { 5 } else { 2 + seed as usize % 4 };
                Some(moment(&calls, came, published).unwrap_or(calls.len() * 2 / 3))
            }
            Past::Committed => {
                let calls = fresh(self);
                let is_commit = |call: &Call| {
                    call.object.contains("/merged.")
                        && call.object.contains(" -> ")
                        && call.object.ends_with("/target.bin")
                };
                Some(calls.iter().position(is_commit).map_or(calls.len(), |at| at + 2))
            }
        };
        if let Some(k) = killed_at {
            use haul::remote::faulty::Moment;
            scene.run(FaultScript::new(Moment::Call(k), Fault::Crash, seed), 0);
        }
        scene.watched.set(state.watched);
        scene.holder_dies();
        if let Some(harm) = state.harm {
            crate::crash::damage::harm(&scene, harm);
            scene.damaged.set(true);
        }
        scene.noted.borrow_mut().operation = None;
        scene
    }

    /// Runs a case in a scene of its own, which tells afterwards what was done.
    pub fn run(&self, case: Case) -> (Scene, Verdict) {
        let Case { group: Group { server, state, fault }, k, seed } = case;
        let calls = self.calls(server, state).len().max(1);
        let scene = self.set_up(server, &self.states[state], seed);
        let known_dead = !scene.way.paused() || seed.is_multiple_of(2);
        let verdict = match FAULTS[fault].1 {
            Kind::Killed(fault) => killed(&scene, fault, k, calls, known_dead, seed),
            Kind::Late => late(&scene, k, calls, known_dead, seed),
            Kind::PowerCut => power_cut(&scene, k, calls, seed),
            Kind::Cut(fault) => cut(&scene, fault, k, seed),
            Kind::Refused(kind) => refused(&scene, kind, k, seed),
            Kind::Swallowed(operation, fault) => swallowed(&scene, operation, fault, k, seed),
            Kind::Overtaken => overtaken(&scene, k, seed),
            Kind::Interleaved => interleaved(&scene, k, calls, seed),
            Kind::TargetChanges => target_changes(&scene, k, seed),
            Kind::SourceChanges => source_changes(&scene, k, seed),
        };
        (scene, verdict)
    }

    /// All but the operation.
    pub fn kind_of(&self, case: Case) -> String {
        let Group { server, state, fault } = case.group;
        format!("{}/{}/{}", SERVERS[server].name, self.states[state].name, FAULTS[fault].0)
    }

    pub fn name(&self, case: Case) -> String {
        format!("{}/{}/{}", self.kind_of(case), case.k, case.seed)
    }

    pub fn is_real(case: Case) -> bool {
        !SERVERS[case.group.server].is_local()
    }

    /// The case of a name that [`Plan::name`] gave.
    pub fn parse(&self, name: &str) -> Option<Case> {
        let mut words = name.split('/');
        let (server, state, fault) = (words.next()?, words.next()?, words.next()?);
        let (k, seed) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let group = Group {
            server: SERVERS.iter().position(|way| way.name == server)?,
            state: self.states.iter().position(|known| known.name == state)?,
            fault: FAULTS.iter().position(|(known, _)| *known == fault)?,
        };
        words.next().is_none().then_some(Case { group, k, seed })
    }
}

fn mixed(seed: u64, numbers: &[usize]) -> usize {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut mixed = next_random(&mut state);
    for number in numbers {
        state ^= (*number as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^= next_random(&mut state);
    }
    mixed
}

fn divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { divisor(b, a % b) }
}
