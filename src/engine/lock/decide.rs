//! What another's lock means: refuse, wait, or take it over.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use super::acquire::Acquirer;
use super::held::describe;
use super::holder;
use super::look::{LockSeen, look};
use super::times::{RUN_ENTRIES_MAX, TEMP_ENTRIES_MAX};
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::monitor::Level;
use crate::engine::options::Wait;
use crate::model::lock_file::{self, LockContent, LockInfo, Verdict};
use crate::model::names::{Entry, Names, UserId};
use crate::model::run_id::RunId;
use crate::remote::Files;

/// What to do about `<target>:lock`.
pub(super) enum Decision {
    /// None is there.
    Free,
    /// It is this run's: the reply to its link was lost.
    Ours,
    Take(Box<LockSeen>, Ground),
}

/// Why a lock may be taken, which says what has to be true of the one that was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// Its process is gone, so the same run's lock is enough.
    Gone,
    /// Its heartbeat stood still, so it has to be the very same bytes.
    StoodStill,
    /// `--break-lock`.
    Broken,
}

/// What an observer has seen of one lock, by the observer's own clock.
pub(super) struct Watch {
    bytes: Vec<u8>,
    run: Option<RunId>,
    /// These bytes were there when this was noted.
    since: Instant,
    /// What the temp directory looked like, and when.
    progress: Option<(Fingerprint, Instant)>,
    alive: bool,
}

/// Of what changes while a holder works; `None` where it could not be read.
type Fingerprint = Option<u64>;

enum Life {
    /// Not watched for long enough.
    Unknown,
    Alive,
    Dead,
}

impl Acquirer {
    /// Looks, watches and waits until it is clear what to do. Changes nothing on the target.
    pub(super) async fn decide(&mut self, files: &dyn Files) -> Result<Decision, Failure> {
        loop {
            self.check_stop()?;
            let sent = Instant::now();
            let Some(seen) = look(files, &self.context.names, &self.context.host).await? else {
                self.watch = None;
                return Ok(Decision::Free);
            };
            if self.context.options.break_lock && seen.content != LockContent::Foreign {
                return Ok(self.own(&seen).unwrap_or(Decision::Take(Box::new(seen), Ground::Broken)));
            }
            let life = match &seen.content {
                LockContent::Foreign => {
                    return Err(self
                        .locked("what stands at the lock's name is not haul's")
                        .next_step("move it away by hand"));
                }
                LockContent::OtherVersion => Life::Alive,
                LockContent::Torn => match self.watch(files, &seen, sent).await? {
                    Life::Dead if self.may_be_own(files, &seen).await? => {
                        return Ok(Decision::Take(Box::new(seen), Ground::StoodStill));
                    }
                    Life::Dead => Life::Alive,
                    life => life,
                },
                LockContent::Whole(info) => {
                    if let Some(own) = self.own(&seen) {
                        return Ok(own);
                    }
                    match self.judge(files, &seen, info, sent).await? {
                        Ok(life) => life,
                        Err(ground) => return Ok(Decision::Take(Box::new(seen), ground)),
                    }
                }
            };
            match life {
                Life::Unknown => self.pause(self.context.times.look).await?,
                Life::Alive | Life::Dead => self.wait_for(&seen).await?,
            }
        }
    }

    /// A lock that this client linked, now or before it had to begin anew.
    fn own(&self, seen: &LockSeen) -> Option<Decision> {
        let run = seen.info()?.run;
        if run == self.run && self.made {
            return Some(Decision::Ours);
        }
        self.earlier.contains(&run).then(|| Decision::Take(Box::new(seen.clone()), Ground::Gone))
    }

    /// `Err` has the ground on which the lock may be taken over.
    async fn judge(
        &mut self,
        files: &dyn Files,
        seen: &LockSeen,
        info: &LockInfo,
        sent: Instant,
    ) -> Result<Result<Life, Ground>, Failure> {
        if info.user != self.context.names.user().as_str() {
            return Ok(Ok(Life::Alive));
        }
        // Whoever holds a lock has a private directory; one that was fenced has none.
        match files.lstat(self.context.names.run(info.run).directory()).await {
            Err(error) if error.is_not_found() => return Ok(Err(Ground::Gone)),
            Err(error) if error.is_link() => return Err(self.remote(&error)),
            Ok(_) | Err(_) => {}
        }
        Ok(match lock_file::judge(info, &self.context.here, holder::process_state) {
            Verdict::DeadAtOnce => Err(Ground::Gone),
            Verdict::AliveHere => Ok(Life::Alive),
            Verdict::Watch => match self.watch(files, seen, sent).await? {
                Life::Dead => Err(Ground::StoodStill),
                life => Ok(life),
            },
        })
    }

    /// Compares with what was seen before. `sent` is when the look began: a lock is known
    /// to have stood still only from the end of one look to the beginning of another.
    async fn watch(&mut self, files: &dyn Files, seen: &LockSeen, sent: Instant) -> Result<Life, Failure> {
        let times = self.context.times.clone();
        let run = seen.info().map(|info| info.run);
        let mut watch = match self.watch.take() {
            Some(watch) if watch.bytes == seen.bytes => watch,
            earlier => {
                let alive = run.is_some() && earlier.is_some_and(|earlier| earlier.run == run);
                let bytes = seen.bytes.clone();
                self.watch = Some(Watch { bytes, run, since: Instant::now(), progress: None, alive });
                return Ok(if alive { Life::Alive } else { Life::Unknown });
            }
        };
        let still = sent.saturating_duration_since(watch.since);
        let life = match watch.progress {
            // Listing a directory costs more than reading the lock, so it has to wait for
            // a beat that is overdue.
            None => {
                if still >= times.beat * 3 / 2 {
                    watch.progress = Some((self.fingerprint(files, seen).await?, Instant::now()));
                }
                None
            }
            Some((before, at)) => {
                let compared = sent.saturating_duration_since(at);
                if still < times.dead_after || compared < times.dead_after / 2 {
                    None
                } else {
                    let now = self.fingerprint(files, seen).await?;
                    if now != before {
                        // That it could be read only once says nothing of the holder.
                        if now.is_some() && before.is_some() {
                            watch.alive = true;
                            watch.since = Instant::now();
                        }
                        watch.progress = Some((now, Instant::now()));
                    }
                    (now == before).then_some(Life::Dead)
                }
            }
        };
        let alive = watch.alive;
        self.watch = Some(watch);
        Ok(life.unwrap_or(if alive { Life::Alive } else { Life::Unknown }))
    }

    /// Stands for everything in the holder's temp directory that changes while it works.
    /// A directory that this account may not read shows no progress.
    async fn fingerprint(&self, files: &dyn Files, seen: &LockSeen) -> Result<Fingerprint, Failure> {
        let names = &self.context.names;
        let info = seen.info();
        let user = info.and_then(|info| UserId::new(&info.user).ok());
        let theirs = user.map_or_else(|| names.clone(), |user| Names::new(names.target(), &user));
        let mut directories = vec![(theirs.temp().clone(), TEMP_ENTRIES_MAX)];
        if let Some(info) = info {
            directories.push((theirs.run(info.run).directory().clone(), RUN_ENTRIES_MAX));
        }
        let mut hasher = DefaultHasher::new();
        for (directory, limit) in directories {
            let mut entries = match files.list(&directory, limit).await {
                Ok(entries) => entries,
                Err(error) if error.is_link() => {
                    return Err(Failure::remote(Phase::Lock, self.place(), &error));
                }
                Err(error) if error.is_not_found() => Vec::new(),
                Err(_) => return Ok(None),
            };
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                // Others who want the lock come and go.
                if matches!(theirs.entry(&entry.name), Entry::Run(_) | Entry::Fenced) {
                    continue;
                }
                entry.name.hash(&mut hasher);
                entry.attributes.size.hash(&mut hasher);
                entry.attributes.times.map(|times| times.modified).hash(&mut hasher);
            }
        }
        Ok(Some(hasher.finish()))
    }

    /// Whether an incomplete lock may be this user's: it belongs to the same account, and does
    /// not name another user. No run has won by a lock that was never completed, and the run
    /// whose complete one a power cut took is gone.
    async fn may_be_own(&self, files: &dyn Files, torn: &LockSeen) -> Result<bool, Failure> {
        if !lock_file::may_begin(&torn.bytes, self.context.names.user().as_str()) {
            return Ok(false);
        }
        if let Some(own) = self.own_uid {
            return Ok(own == torn.owner_uid);
        }
        match files.lstat(self.context.names.temp()).await {
            Ok(attributes) => Ok(attributes.owner.map(|owner| owner.uid) == torn.owner_uid),
            // What account this is shows once this run has made its directory.
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(self.remote(&error)),
        }
    }

    /// A lock that is not to be taken: waits a little for it to go, or refuses.
    async fn wait_for(&mut self, seen: &LockSeen) -> Result<(), Failure> {
        let left = match self.context.options.wait {
            Wait::No => Duration::ZERO,
            Wait::Forever => Duration::MAX,
            Wait::AtMost(limit) => limit.saturating_sub(self.began.elapsed()),
        };
        if left.is_zero() {
            return Err(self.refusal(seen));
        }
        let who = describe(&seen.content);
        let run = seen.info().map(|info| info.run);
        if self.waiting_for != Some(run) {
            self.waiting_for = Some(run);
            self.notice(Level::Info, format!("waiting for the lock held by {who}"));
        }
        self.pause(self.context.times.look.min(left)).await
    }

    fn refusal(&self, seen: &LockSeen) -> Failure {
        let cause = format!("locked by {}", describe(&seen.content));
        let Some(info) = seen.info() else {
            return self.locked(cause).next_step(
                "if no haul is at work on this target, take the lock with --break-lock; else --wait waits",
            );
        };
        if info.user != self.context.names.user().as_str() {
            return self
                .locked(cause)
                .next_step("--wait waits for it; --break-lock takes it from a run that you know is dead");
        }
        match lock_file::judge(info, &self.context.here, holder::process_state) {
            Verdict::AliveHere => self
                .locked(format!("{cause}, and that process is running on this machine"))
                .next_step("--wait waits for it; ending it keeps what it has sent"),
            Verdict::DeadAtOnce | Verdict::Watch => self
                .locked(format!("{cause}, and it is at work"))
                .next_step("--wait waits for it; --break-lock takes the lock from it"),
        }
    }

    pub(super) fn locked(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::new(FailureKind::Locked, Phase::Lock, self.place(), cause)
    }
}
