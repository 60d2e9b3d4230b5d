//! The same job on many hosts: so many at a time, each with an end of its own.
//!
//! A host that is slow, broken or gone holds up nobody but itself: every job is a task of
//! its own, and a panic in one is that host's failure.

pub mod window;

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::stop::{Stop, StopSwitch, stop_pair};

/// Hosts at a time, unless told.
pub const DEFAULT_FORKS: usize = 8;
/// Each host at a time takes a connection and a few file descriptors.
pub const MAX_FORKS: usize = 1000;

/// How many hosts at a time, and how long they have once asked to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub forks: usize,
    /// Who takes longer to stop is left behind as it is.
    pub stop_limit: Duration,
}

/// How one host's job came to its end.
#[derive(Debug)]
pub enum Ended<R> {
    /// Well or not: that is the report's to say.
    Done(R),
    /// By a defect of this program, in these words.
    Crashed(String),
    /// It was asked to stop and did not within the limit.
    LeftBehind,
    /// It was never begun, since all had to stop first.
    NotStarted,
}

/// What the one who hears of an end wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// Nothing more is begun, and what runs is asked to stop.
    StopAll,
}

/// Runs `start` once for each of `jobs`, in their order, and calls `ended` once for each,
/// in the order in which they end. `ended` is called from this future, never at once for
/// two hosts. `stop` stops all.
pub async fn run<J, F, R>(
    jobs: Vec<J>,
    limits: Limits,
    stop: &Stop,
    start: impl Fn(usize, J, Stop) -> F,
    mut ended: impl FnMut(usize, Ended<R>) -> Next,
) where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let (switch, inner) = stop_pair();
    let mut waiting = jobs.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut hosts: HashMap<Id, usize> = HashMap::new();
    let mut deadline = None;
    loop {
        while deadline.is_none() && running.len() < limits.forks.max(1) {
            let Some((index, job)) = waiting.next() else { break };
            let task = running.spawn(start(index, job, inner.clone()));
            hosts.insert(task.id(), index);
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            Some(done) = running.join_next_with_id() => {
                let (index, end) = match done {
                    Ok((id, report)) => (hosts.remove(&id), Ended::Done(report)),
                    Err(error) => (hosts.remove(&error.id()), broken(error)),
                };
                let Some(index) = index else { continue };
                if ended(index, end) == Next::StopAll {
                    stop_all(&switch, &mut deadline, limits);
                }
            }
            () = stop.stopped(), if deadline.is_none() => stop_all(&switch, &mut deadline, limits),
            () = until(deadline), if deadline.is_some() => running.abort_all(),
        }
    }
    for (index, _) in waiting {
        // Whatever is wanted now, there is nothing left to stop.
        let _ = ended(index, Ended::NotStarted);
    }
}

fn stop_all(switch: &StopSwitch, deadline: &mut Option<Instant>, limits: Limits) {
    switch.stop();
    deadline.get_or_insert_with(|| Instant::now() + limits.stop_limit);
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn broken<R>(error: JoinError) -> Ended<R> {
    match error.try_into_panic() {
        Err(_) => Ended::LeftBehind,
        Ok(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            Ended::Crashed(text.unwrap_or_else(|| "no reason was given".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
