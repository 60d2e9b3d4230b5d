//! A lock that was won, and the look that says whether it still is ours.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::look::read_content;
use super::small_file;
use super::times::{LockTimes, RELINK_TRIES};
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::model::lock_file::{self, LOCK_FILE_MAX_BYTES, LockContent, LockInfo};
use crate::model::names::{Names, RunNames, UserId};
use crate::model::run_id::RunId;
use crate::remote::files::{Handle, OpenMode, SetAttributes};
use crate::remote::{Files, RemoteError, RemoteErrorKind};

/// What makes the lock on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// `<target>:lock` is a hard link to the private name: a beat written there shows.
    Linked,
    /// The server's link fails on an existing name, but makes a copy.
    Copied,
    /// `<target>:lock` was created exclusively.
    Exclusive,
    /// `--no-lock`.
    Without,
}

/// The lock, held by this run until it is released or lost. Shared by the keeper and the
/// engine.
#[derive(Debug)]
pub struct Held {
    pub(super) names: Names,
    pub(super) host: String,
    pub(super) run: RunId,
    pub(super) private: RunNames,
    pub(super) kind: LockKind,
    pub(super) info: LockInfo,
    pub(super) times: LockTimes,
    /// Whose lock was broken to get it, when that was another user.
    pub(super) deposed: Option<UserId>,
    /// Numbers for names that are never used twice.
    pub(super) number: Arc<AtomicU64>,
    /// A fence may have been cut off half way.
    pub(super) fencing_began: AtomicBool,
    /// Fencing has seen nothing in the temp directory but this run's own directory.
    pub(super) alone: AtomicBool,
    /// Set once and for good: there is nothing to give back any more.
    pub(super) lost: AtomicBool,
    /// When the last acknowledged beat was sent, by a clock that counts suspend.
    pub(super) beat_sent: Mutex<Duration>,
}

/// What a look at one's own lock found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// With the beat that shows in it.
    Ours { beat: u64 },
    /// By whom, in words, escaped.
    Lost(String),
}

impl Held {
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The names in this run's private directory, which stands already.
    pub fn private(&self) -> &RunNames {
        &self.private
    }

    /// With the lock held and after fencing: whether nothing but this run's own directory
    /// stands in the temp directory.
    pub fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    pub fn kind(&self) -> LockKind {
        self.kind
    }

    /// The user whose lock `--break-lock` took, when that was another one.
    pub fn deposed(&self) -> Option<&UserId> {
        self.deposed.as_ref()
    }

    /// Looks whether the lock is still this run's, and links it again where it only
    /// vanished: what has to pass right before anything that counts, the commit above
    /// all. `Locked` when it was lost; `Link` when the link died (nothing is decided).
    pub async fn check(&self, files: &dyn Files) -> Result<(), Failure> {
        match self.standing(files).await {
            Ok(Standing::Ours { .. }) => Ok(()),
            Ok(Standing::Lost(by)) => Err(self.lost(&by)),
            Err(error) => Err(Failure::remote(Phase::Lock, self.place(), &error)),
        }
    }

    pub(super) fn lost(&self, by: &str) -> Failure {
        Failure::new(FailureKind::Locked, Phase::Lock, self.place(), format!("the lock was lost to {by}"))
            .next_step("wait until that run is done, or use --break-lock")
    }

    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.host, self.names.target())
    }

    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks, and links again what vanished.
    pub(super) async fn standing(&self, files: &dyn Files) -> Result<Standing, RemoteError> {
        if self.kind == LockKind::Without {
            return Ok(Standing::Ours { beat: 0 });
        }
        let private_lock = self.private.lock();
        let mut denied = 0;
        for _ in 0..RELINK_TRIES {
            let (lock, private) =
                tokio::join!(read_content(files, self.names.lock()), files.lstat(&private_lock));
            let private_stands = match private {
                Ok(_) => true,
                Err(error) if error.is_not_found() => false,
                Err(error) => return Err(error),
            };
            match lock {
                Ok((LockContent::Whole(info), _)) if info.run == self.run => {
                    return Ok(if private_stands {
                        Standing::Ours { beat: info.beat }
                    } else {
                        self.lost_to(FENCED)
                    });
                }
                Ok((LockContent::Whole(info), _))
                    if private_stands && self.outlived(files, &info).await? =>
                {
                    self.take_back(files, info.run).await?;
                }
                Ok((LockContent::Torn | LockContent::Foreign, bytes))
                    if private_stands && self.is_own_damaged(files, &bytes).await? =>
                {
                    self.write_again(files).await?;
                }
                Ok((content, _)) => return Ok(self.lost_to(describe(&content))),
                // This run's own lock is readable to its own account. One refusal may be a
                // server's bad moment.
                Err(error) if error.kind == RemoteErrorKind::PermissionDenied && private_stands => {
                    denied += 1;
                    if denied == RELINK_TRIES {
                        return Ok(self.lost_to("another account's run"));
                    }
                    tokio::time::sleep(self.times.denied_pause).await;
                }
                Err(error) if !error.is_not_found() => return Err(error),
                Err(_) if !private_stands => return Ok(self.lost_to(VANISHED)),
                Err(_) => self.put_again(files).await?,
            }
        }
        Err(RemoteError::new(RemoteErrorKind::Failure, "the lock vanishes again and again"))
    }

    /// Whether an unreadable lock is this run's own file: a link to the private name shows
    /// the same bytes. A server that garbled a beat must not make the lock everybody's.
    async fn is_own_damaged(&self, files: &dyn Files, bytes: &[u8]) -> Result<bool, RemoteError> {
        if self.kind != LockKind::Linked {
            return Ok(false);
        }
        match small_file::read(files, &self.private.lock(), LOCK_FILE_MAX_BYTES + 1).await {
            Ok(own) => Ok(!own.is_empty() && own == bytes),
            Err(error) if error.is_link() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Writes the whole lock file again, through the private name and without creating it.
    async fn write_again(&self, files: &dyn Files) -> Result<(), RemoteError> {
        let text = self.info.to_text();
        let handle = files.open(&self.private.lock(), OpenMode::WRITE, None).await?;
        let size = SetAttributes { size: Some(text.len() as u64), ..SetAttributes::default() };
        let cut = files.set_handle_attributes(&handle, size).await;
        let written = small_file::write_handle(files, &handle, 0, &text).await;
        files.close(handle).await?;
        match cut {
            Err(error) if error.is_link() => Err(error),
            _ => written,
        }
    }

    /// Whether the holder that `<target>:lock` names is a run of the same user whose private
    /// directory is gone while this run's stands: it was fenced, by this run or by one that
    /// came no further, and can do nothing any more. It had got the lock when a late move
    /// by a third run left the name free.
    async fn outlived(&self, files: &dyn Files, info: &LockInfo) -> Result<bool, RemoteError> {
        if info.user != self.names.user().as_str() {
            return Ok(false);
        }
        match files.lstat(self.names.run(info.run).directory()).await {
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(false),
        }
    }

    /// Moves the lock of `run`, which was outlived, out of the way. If it was another's by
    /// then, its owner links it again, or the next look says so.
    async fn take_back(&self, files: &dyn Files, run: RunId) -> Result<(), RemoteError> {
        let aside = self.private.taken_lock(self.next_number());
        match small_file::move_to_unused(files, self.names.lock(), &aside).await {
            Err(error) if error.is_link() => return Err(error),
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
        let moved = match read_content(files, &aside).await {
            Ok((moved, _)) => is_of(&moved, run) || is_of(&moved, self.run),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        files.remove(&aside).await?;
        if !moved {
            tokio::time::sleep(self.times.step_back).await;
        }
        Ok(())
    }

    fn lost_to(&self, by: impl Into<String>) -> Standing {
        self.lost.store(true, Ordering::Relaxed);
        Standing::Lost(by.into())
    }

    /// Puts a lock that vanished in place again. Only a dead link is an error: what came
    /// of it is for the next look to say.
    async fn put_again(&self, files: &dyn Files) -> Result<(), RemoteError> {
        let outcome = match self.kind {
            LockKind::Linked | LockKind::Copied => {
                files.hard_link(&self.private.lock(), self.names.lock()).await
            }
            LockKind::Exclusive => {
                small_file::write_new(
                    files,
                    self.names.lock(),
                    &self.info.to_text(),
                    super::acquire::LOCK_MODE,
                )
                .await
            }
            LockKind::Without => Ok(()),
        };
        match outcome {
            Err(error) if error.is_link() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes a beat where `<target>:lock` shows it, and remembers when it was sent once it
    /// is acknowledged. Never creates anything, and never writes to another's lock: the
    /// private name is opened without CREATE, once a session (`handle` keeps it); a lock
    /// that is no link to it is read through the same handle first, each time.
    pub(super) async fn beat(
        &self,
        files: &dyn Files,
        handle: &mut Option<Handle>,
        beat: u64,
    ) -> Result<(), RemoteError> {
        let linked = match self.kind {
            LockKind::Without => return Ok(()),
            LockKind::Linked => true,
            LockKind::Copied | LockKind::Exclusive => false,
        };
        let open = match handle.take() {
            Some(open) => open,
            None if linked => files.open(&self.private.lock(), OpenMode::WRITE, None).await?,
            None => files.open(self.names.lock(), OpenMode::READ_WRITE, None).await?,
        };
        let written = self.beat_through(files, &open, beat, linked).await;
        if linked && written.is_ok() {
            *handle = Some(open);
        } else {
            files.close(open).await?;
        }
        let sent = written?;
        *self.beat_sent.lock().unwrap_or_else(PoisonError::into_inner) = sent;
        Ok(())
    }

    /// Gives the time when the beat was sent.
    async fn beat_through(
        &self,
        files: &dyn Files,
        handle: &Handle,
        beat: u64,
        linked: bool,
    ) -> Result<Duration, RemoteError> {
        if !linked {
            let content = small_file::read_handle(files, handle, LOCK_FILE_MAX_BYTES + 1).await?;
            if !is_of(&lock_file::parse(&content), self.run) {
                return Err(RemoteError::new(RemoteErrorKind::Failure, "the lock is another's"));
            }
        }
        let offset = lock_file::beat_offset(self.info.to_text().len());
        let sent = boot_clock();
        small_file::write_handle(files, handle, offset, &lock_file::beat_digits(beat)).await?;
        Ok(sent)
    }

    /// How long ago the last acknowledged beat was sent.
    pub(super) fn beat_age(&self) -> Duration {
        let sent = *self.beat_sent.lock().unwrap_or_else(PoisonError::into_inner);
        boot_clock().saturating_sub(sent)
    }
}

const FENCED: &str = "a newer run, which has moved this run's private directory away";
/// No lock, and nothing of this run's: a newer run may be about to link its own.
const VANISHED: &str =
    "a newer run, or whoever has removed or moved the target's directory or what haul keeps in it";

pub(super) fn is_of(content: &LockContent, run: RunId) -> bool {
    matches!(content, LockContent::Whole(info) if info.run == run)
}

/// Whose lock it is, for people.
pub(super) fn describe(content: &LockContent) -> String {
    match content {
        LockContent::Whole(info) => info.to_string(),
        LockContent::Torn => "a run whose lock file is incomplete".to_owned(),
        LockContent::OtherVersion => "a run of another version of haul".to_owned(),
        LockContent::Foreign => "something that haul did not write".to_owned(),
    }
}

/// Time since the boot, time in suspend included.
pub(super) fn boot_clock() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock is what comes nearest.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
