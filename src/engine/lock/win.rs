//! The steps that count: moving a dead lock out of the way, linking one's own, and the
//! look that says whether it was won.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::acquire::{Acquirer, LOCK_MODE};
use super::decide::Ground;
use super::held::{Held, LockKind, Standing, describe, is_of};
use super::look::{LockSeen, look, read_content};
use super::small_file::{self, move_to_unused};
use super::times::UNEXPLAINED_TRIES;
use crate::engine::failure::Failure;
use crate::engine::monitor::Level;
use crate::model::lock_file::LockContent;
use crate::model::names::UserId;
use crate::remote::files::OpenMode;
use crate::remote::{Files, RemoteError, RemoteErrorKind};

impl Acquirer {
    /// Moves the lock that was judged into this run's directory and removes it. False:
    /// begin anew, something else happened first.
    ///
    /// The lock is looked at again now that the directory stands: a winner who had fenced
    /// before the directory was made shows in this look, and one who fences later takes the
    /// directory away, and the move with it. So no move of ours can hit a lock that was won
    /// and fenced for.
    pub(super) async fn take_over(
        &mut self,
        files: &dyn Files,
        judged: &LockSeen,
        ground: Ground,
    ) -> Result<bool, Failure> {
        self.watch = None;
        match look(files, &self.context.names, &self.context.host).await? {
            Some(seen) if is_the_judged(judged, &seen, ground) => {}
            Some(_) | None => return Ok(false),
        }
        if judged.info().is_none() && ground != Ground::Broken {
            let made = files.lstat(self.private().directory()).await.map_err(|error| self.remote(&error))?;
            let own = made.owner.map(|owner| owner.uid);
            self.own_uid = Some(own);
            if own != judged.owner_uid {
                return Ok(false);
            }
        }
        let who = describe(&judged.content);
        match ground {
            Ground::Gone => self.notice(Level::Info, format!("taking over the lock of {who}: it has ended")),
            Ground::StoodStill => {
                self.notice(Level::Info, format!("taking over the lock of {who}: it gives no sign of life"));
            }
            Ground::Broken => self.notice(Level::Warning, format!("breaking the lock of {who}")),
        }
        let aside = self.private().taken_lock(self.next_number());
        match move_to_unused(files, self.context.names.lock(), &aside).await {
            Ok(()) => {}
            Err(error) if error.is_link() => return Err(self.remote(&error)),
            Err(error) => return self.explain_failed_move(files, judged, &error).await,
        }
        let moved = match read_content(files, &aside).await {
            Ok((content, bytes)) => LockSeen { content, bytes, owner_uid: None },
            // This run's directory was fenced away, with the lock in it.
            Err(error) if error.is_not_found() => {
                self.begin_anew()?;
                return Ok(false);
            }
            Err(error) => return Err(self.remote(&error)),
        };
        if moved.content == LockContent::Foreign {
            return Err(self
                .failed(format!("what stood at the lock's name is not haul's; it is at {aside} now"))
                .next_step("move it to where it belongs"));
        }
        match files.remove(&aside).await {
            Err(error) if !error.is_not_found() => return Err(self.remote(&error)),
            Ok(()) | Err(_) => {}
        }
        if is_the_judged(judged, &moved, ground) {
            if let Some(info) = moved.info() {
                self.deposed = UserId::new(&info.user).ok().filter(|user| user != self.context.names.user());
            }
            return Ok(true);
        }
        // A living run's lock was moved. Nobody puts it back: its owner links it again at
        // its next beat, and has to find the name free.
        self.pause(self.context.times.step_back).await?;
        Ok(false)
    }

    async fn explain_failed_move(
        &mut self,
        files: &dyn Files,
        judged: &LockSeen,
        error: &RemoteError,
    ) -> Result<bool, Failure> {
        if !self.private_stands(files).await? {
            self.begin_anew()?;
            return Ok(false);
        }
        match look(files, &self.context.names, &self.context.host).await? {
            Some(seen) if seen.bytes == judged.bytes => Err(self.remote(error).next_step(
                "the lock's run is dead but this account may not move its lock: ask its owner to remove it",
            )),
            // Another was quicker.
            Some(_) | None => Ok(false),
        }
    }

    /// Puts this run's lock in place. False: another's is there, or this run was fenced.
    pub(super) async fn link(&mut self, files: &dyn Files) -> Result<bool, Failure> {
        let mut tries = 0;
        self.linking = true;
        loop {
            let outcome = match self.kind {
                LockKind::Exclusive => self.create_lock(files).await?,
                _ => files.hard_link(&self.private().lock(), self.context.names.lock()).await,
            };
            let error = match outcome {
                Ok(()) => return Ok(true),
                Err(error) if error.is_link() => return Err(self.remote(&error)),
                Err(error) => error,
            };
            if let Some(seen) = look(files, &self.context.names, &self.context.host).await? {
                return Ok(is_of(&seen.content, self.run));
            }
            if !self.private_stands(files).await? {
                self.begin_anew()?;
                return Ok(false);
            }
            // No lock in the way and yet it failed: one that has just gone, or a cause
            // that stays.
            tries += 1;
            if tries == UNEXPLAINED_TRIES || error.kind == RemoteErrorKind::PermissionDenied {
                return Err(self.remote(&error).next_step(
                    "the lock cannot be made beside the target: check that this account may write there",
                ));
            }
        }
    }

    /// Without links: the lock is created exclusively and then written. The outer error is
    /// for one that was created and could not be written.
    async fn create_lock(&mut self, files: &dyn Files) -> Result<Result<(), RemoteError>, Failure> {
        let lock = self.context.names.lock().clone();
        let handle = match files.open(&lock, OpenMode::CREATE_NEW, Some(LOCK_MODE)).await {
            Ok(handle) => handle,
            Err(error) => return Ok(Err(error)),
        };
        let written = small_file::write_handle(files, &handle, 0, &self.info.to_text()).await;
        let closed = files.close(handle).await;
        let Err(error) = written.and(closed) else {
            return Ok(Ok(()));
        };
        if !error.is_link() {
            let aside = self.private().taken_lock(self.next_number());
            if move_to_unused(files, &lock, &aside).await.is_ok() {
                // The write's failure is what counts; a leftover is cleared with the rest.
                let _ = files.remove(&aside).await;
            }
        }
        Err(self.remote(&error))
    }

    /// Writes the first beat and looks whether it shows in the lock: only then it is won.
    /// `None`: it is another's already.
    pub(super) async fn look_at_the_win(&mut self, files: &dyn Files) -> Result<Option<Held>, Failure> {
        let mut held = self.held();
        // Of a lock that is no link the beats go elsewhere.
        let mut handle = self.beating.take();
        if let Some(unused) = handle.take_if(|_| self.kind != LockKind::Linked) {
            files.close_unheard(unused).await.map_err(|error| self.remote(&error))?;
        }
        let was_open = handle.is_some();
        let beating = held.beat(files, &mut handle, 1);
        let (beaten, standing) = if was_open && files.features().in_order {
            tokio::join!(biased; beating, held.standing(files))
        } else {
            (beating.await, held.standing(files).await)
        };
        let closed = match handle {
            // Every beat that counts is acknowledged by its write.
            Some(handle) => files.close_unheard(handle).await,
            None => Ok(()),
        };
        let standing = standing.map_err(|error| self.remote(&error))?;
        let Standing::Ours { beat } = standing else {
            if !self.private_stands(files).await? {
                self.begin_anew()?;
            }
            return Ok(None);
        };
        match beaten.and(closed) {
            // It vanished before the beat and has been put back since.
            Err(error) if held.kind != LockKind::Linked && !error.is_link() => return Ok(None),
            outcome => outcome.map_err(|error| self.remote(&error))?,
        }
        if held.kind == LockKind::Linked && beat == 0 {
            // Its link makes copies: beats have to go to the copy.
            held.kind = LockKind::Copied;
            held.beat(files, &mut None, 1).await.map_err(|error| self.remote(&error))?;
        }
        self.won = true;
        Ok(Some(held))
    }

    pub(super) fn held(&self) -> Held {
        Held {
            names: self.context.names.clone(),
            host: self.context.host.clone(),
            run: self.run,
            private: self.private(),
            kind: self.kind,
            info: self.info.clone(),
            times: self.context.times.clone(),
            deposed: self.deposed.clone(),
            number: self.number.clone(),
            fencing_began: AtomicBool::new(self.won),
            alone: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            beat_sent: Mutex::new(Duration::ZERO),
        }
    }

    async fn private_stands(&self, files: &dyn Files) -> Result<bool, Failure> {
        match files.lstat(&self.private().lock()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(self.remote(&error)),
        }
    }
}

/// Whether what was moved is what was judged. A run whose process is gone does not beat;
/// one whose heartbeat stood still must not have beaten since.
fn is_the_judged(judged: &LockSeen, moved: &LockSeen, ground: Ground) -> bool {
    match (ground, judged.info()) {
        (Ground::Gone | Ground::Broken, Some(info)) => is_of(&moved.content, info.run),
        // An incomplete lock may have been completed since.
        (Ground::Broken, None) => true,
        (Ground::StoodStill, _) | (Ground::Gone, None) => moved.bytes == judged.bytes,
    }
}
