//! One job over as many connections as it takes, and the lock given back at the end.

use std::sync::Arc;

use super::connect::Link;
use super::failure::{Failure, FailureKind, Phase};
use super::guard::Guard;
use super::monitor::{Level, Monitor, Notice};
use super::retry::Retry;
use super::stop::Stop;
use crate::remote::Connector;

/// A job that holds a lock while it works, and can go on after a lost link.
pub trait Job {
    type Report;

    /// From a fresh connection as far as it goes. `Link` asks for another attempt.
    async fn attempt(&mut self, link: &mut Link) -> Result<Self::Report, Failure>;

    /// Grows while something is achieved: retries count from the last progress.
    fn progress(&self) -> u64;

    /// The lock, where one was won. Asked once, at the end.
    fn take_guard(&mut self) -> Option<Guard>;
}

pub async fn run<J: Job>(
    mut job: J,
    connector: Arc<dyn Connector>,
    retries: u32,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<J::Report, Failure> {
    let mut link = Link::new(connector, monitor.clone(), stop.clone());
    let mut retry = Retry::new(retries, monitor.clone(), stop);
    let mut lost_at = None;
    let outcome = loop {
        match job.attempt(&mut link).await {
            Err(failure) if failure.kind == FailureKind::Link => {
                link.lose();
                // A server that mixes up sessions may also leave requests unanswered.
                if lost_at.replace(job.progress()) == Some(job.progress()) {
                    link.keep_to_one_session();
                }
                if let Err(failure) = retry.pause(failure, job.progress()).await {
                    break Err(failure);
                }
            }
            Err(failure) if may_be_mixed_up(&failure) && link.keep_to_one_session() => {
                let text = format!("{failure}; trying again with one file session");
                monitor.notice(Notice { level: Level::Warning, text });
                link.close().await;
            }
            outcome => break outcome,
        }
    };
    if let Some(guard) = job.take_guard() {
        let given_up = outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Link);
        let released =
            if given_up { guard.release(None).await } else { guard.give_back(&mut link, &mut retry).await };
        if let Err(failure) = released {
            // What the job came to counts for more; a lock that stays has a dead holder.
            let text = format!("the lock could not be given back: {failure}");
            monitor.notice(Notice { level: Level::Warning, text });
        }
    }
    link.close().await;
    outcome
}

/// Whether a server that gets several file sessions of one connection mixed up, as ProFTPD's
/// does under load ("Invalid handle"), may be what is behind a failure.
fn may_be_mixed_up(failure: &Failure) -> bool {
    failure.kind == FailureKind::Failed
        && matches!(failure.phase, Phase::Upload | Phase::Merge | Phase::Verify)
}
