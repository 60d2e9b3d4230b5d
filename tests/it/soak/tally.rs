//! What a soak came to, in one line.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Mutex;

use crate::crash::scene::Noted;
use crate::crash::verdict::{Broken, Verdict};

/// Failed cases that are told in full.
const TOLD: usize = 3;
/// Failed cases after which nothing more is to be learnt.
pub const ENOUGH: usize = 40;

#[derive(Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    cases: usize,
    distinct: HashSet<String>,
    /// How many of them there are of each server, and of each fault.
    of: BTreeMap<String, usize>,
    /// Of the distinct ones.
    real: usize,
    faults: usize,
    reruns: usize,
    broken: Vec<Broken>,
}

impl Tally {
    /// `kind`: fault, server and state; the operation was noted where the fault struck.
    pub fn add(&self, name: &str, kind: &str, real: bool, noted: &Noted, verdict: Verdict) {
        let mut counts = self.0.lock().expect("not poisoned");
        counts.cases += 1;
        counts.faults += noted.faults;
        counts.reruns += noted.runs.saturating_sub(1);
        if let Some(operation) = &noted.operation
            && counts.distinct.insert(format!("{operation} {kind}"))
        {
            counts.real += usize::from(real);
            let mut words = kind.split('/');
            for word in [words.next(), words.next_back()].into_iter().flatten() {
                *counts.of.entry(word.to_owned()).or_default() += 1;
            }
        }
        if let Err(finding) = verdict {
            let story = finding.to_string();
            let told = counts.broken.len() < TOLD;
            let shown = if told { story.as_str() } else { story.lines().next().unwrap_or_default() };
            eprintln!("FAILED, again with --case '{name}'\n{shown}");
            counts.broken.push(finding.broken);
        }
    }

    /// The distinct cases of each server and of each fault.
    pub fn spread(&self) -> String {
        let counts = self.0.lock().expect("not poisoned");
        let words: Vec<String> = counts.of.iter().map(|(word, count)| format!("{word} {count}")).collect();
        words.join(", ")
    }

    pub fn failed(&self) -> usize {
        self.0.lock().expect("not poisoned").broken.len()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock().expect("not poisoned");
        let of = |broken| counts.broken.iter().filter(|was| **was == broken).count();
        write!(
            f,
            "cases={} distinct={} faults={} reruns={} real_sshd={} torn={} lost={} false={} hung={}",
            counts.cases,
            counts.distinct.len(),
            counts.faults,
            counts.reruns,
            counts.real,
            of(Broken::Torn),
            of(Broken::Lost),
            of(Broken::False),
            of(Broken::Hung),
        )
    }
}
