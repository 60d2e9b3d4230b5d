//! Getting the lock: look, make a private directory and lock file, link, look again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::decide::{Decision, Watch};
use super::held::{Held, LockKind};
use super::release::{clear_early, clear_private, give_back_own};
use super::small_file;
use super::times::{ACQUIRE_TRIES, LockTimes, MAKE_TRIES};
use super::{holder, look};
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::io::remove_if_there;
use crate::engine::monitor::{Level, Monitor, Notice};
use crate::engine::options::LockOptions;
use crate::engine::prepare::MERGED_MODE;
use crate::engine::stop::Stop;
use crate::model::lock_file::{Here, LOCK_FILE_MAX_BYTES, LockInfo, SourceNote};
use crate::model::names::{Names, RunNames, UserId};
use crate::model::run_id::RunId;
use crate::remote::files::{Attributes, FileKind, Handle, OpenMode, SetAttributes};
use crate::remote::{Files, RemoteError};

/// Other accounts may read whose the lock is; the private name is out of their reach.
pub(super) const LOCK_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What is wanted, and by whom.
#[derive(Clone)]
pub struct LockContext {
    /// For messages.
    pub host: String,
    pub names: Names,
    pub options: LockOptions,
    pub source: SourceNote,
    /// From [`holder::here`].
    pub here: Here,
    pub monitor: Arc<dyn Monitor>,
    pub stop: Stop,
    pub times: LockTimes,
    /// Told of the private directory as soon as it stands, and when it is given up.
    pub made: watch::Sender<Option<Made>>,
    /// An empty merged file of this generation is made together with the private directory,
    /// where that costs no round trip.
    pub merged: Option<RunId>,
    /// A moment ago neither a lock nor a temp directory was there: the first try does not
    /// look again before it acts, since what it does fails where there is one by then.
    pub nothing_there: bool,
}

/// A private directory that stands.
#[derive(Debug, Clone)]
pub struct Made {
    pub run: RunNames,
    /// With the merged file of [`LockContext::merged`] in it.
    pub has_merged: bool,
}

/// One client's attempt to get the lock of one target. It outlives a dead link: after a
/// failure of kind `Link`, call [`Acquirer::acquire`] again with a new session, and it
/// finds out what had come of the request that was not answered.
pub struct Acquirer {
    pub(super) context: LockContext,
    pub(super) run: RunId,
    /// Runs that this client began under, and gave up because they were fenced.
    pub(super) earlier: Vec<RunId>,
    /// The private directory and lock file are complete, and the primitive is proven.
    pub(super) made: bool,
    /// Something may stand on the target.
    attempted: bool,
    /// Somebody was told of the private directory, and may have written into it.
    used_early: bool,
    /// The merged file was made.
    has_merged: AtomicBool,
    /// The account that this run's directory belongs to, once that was looked at.
    pub(super) own_uid: Option<Option<u32>>,
    /// `<target>:lock` may be this run's.
    pub(super) linking: bool,
    pub(super) kind: LockKind,
    /// The private lock file, in the session of this call of [`Acquirer::acquire`].
    pub(super) beating: Option<Handle>,
    /// For names that are never used twice; shared with every [`Held`] of this run.
    pub(super) number: Arc<AtomicU64>,
    /// The lock was won before, and what the winner did may be half done.
    pub(super) won: bool,
    pub(super) deposed: Option<UserId>,
    pub(super) info: LockInfo,
    pub(super) began: Instant,
    pub(super) watch: Option<Watch>,
    pub(super) waiting_for: Option<Option<RunId>>,
}

impl Acquirer {
    /// Touches nothing yet. Fails only when the system gives no random numbers.
    pub fn new(context: LockContext) -> Result<Acquirer, Failure> {
        let run = fresh_run(&context)?;
        let info = LockInfo {
            user: context.names.user().as_str().to_owned(),
            holder: context.here.holder.clone(),
            process: context.here.process,
            machine: context.here.machine.clone(),
            run,
            source: context.source.clone(),
            since: holder::seconds_since_epoch(),
            beat: 0,
        };
        Ok(Acquirer {
            context,
            run,
            earlier: Vec::new(),
            made: false,
            attempted: false,
            used_early: false,
            has_merged: AtomicBool::new(false),
            own_uid: None,
            linking: false,
            kind: LockKind::Without,
            beating: None,
            number: Arc::new(AtomicU64::new(1)),
            won: false,
            deposed: None,
            info,
            began: Instant::now(),
            watch: None,
            waiting_for: None,
        })
    }

    /// Gets the lock, waiting as `LockOptions` says, and leaves nothing behind when it does
    /// not. The winner has to start a [`Keeper`](super::Keeper) and to [`fence`](super::fence)
    /// before it surveys the target.
    ///
    /// `Locked`: another holds it, and nothing was made on the target. `Link`: call again
    /// with a new session. `Interrupted`: asked to stop.
    pub async fn acquire(&mut self, files: &dyn Files) -> Result<Held, Failure> {
        let outcome = self.try_to_acquire(files).await;
        if let Err(failure) = &outcome
            && failure.kind != FailureKind::Link
        {
            self.undo(files).await;
        }
        outcome
    }

    async fn try_to_acquire(&mut self, files: &dyn Files) -> Result<Held, Failure> {
        self.beating = None;
        if self.attempted && !self.made {
            // The link died while the directory was being made; what of it is still on its
            // way must not meet what is made now.
            self.undo(files).await;
            self.begin_anew()?;
            self.context.nothing_there = false;
        }
        if self.context.options.no_lock {
            return self.go_without(files).await;
        }
        for _ in 0..ACQUIRE_TRIES {
            let decision = match self.context.nothing_there {
                true => Decision::Free,
                false => self.decide(files).await?,
            };
            let made = self.made || self.make(files).await?;
            self.context.nothing_there = false;
            if !made {
                self.begin_anew()?;
                continue;
            }
            let linked = match decision {
                Decision::Ours => true,
                Decision::Free => self.link(files).await?,
                Decision::Take(seen, ground) => {
                    self.take_over(files, &seen, ground).await? && self.link(files).await?
                }
            };
            if linked && let Some(held) = self.look_at_the_win(files).await? {
                return Ok(held);
            }
        }
        Err(self.locked("other runs got the lock each time").next_step("try again, or use --wait"))
    }

    async fn go_without(&mut self, files: &dyn Files) -> Result<Held, Failure> {
        if let Some(seen) = look::look(files, &self.context.names, &self.context.host).await? {
            let who = super::held::describe(&seen.content);
            self.notice(Level::Warning, format!("going on without a lock beside the lock of {who}"));
        }
        self.attempted = true;
        self.make_directories(files).await?;
        self.tell_made();
        self.made = true;
        self.kind = LockKind::Without;
        Ok(self.held())
    }

    /// Makes everything private to this run; false when another run fenced it meanwhile.
    async fn make(&mut self, files: &dyn Files) -> Result<bool, Failure> {
        self.attempted = true;
        self.make_directories(files).await?;
        self.tell_made();
        let text = self.info.to_text();
        match small_file::write_new(files, &self.private().lock(), &text, LOCK_MODE).await {
            Err(error) if error.is_not_found() => return Ok(false),
            outcome => outcome.map_err(|error| self.remote(&error))?,
        }
        let private_lock = self.private().lock();
        let reading = async {
            if !files.features().in_order {
                let read = small_file::read(files, &private_lock, LOCK_FILE_MAX_BYTES + 1).await?;
                return Ok((None, Ok(read)));
            }
            // The first beat goes through the same handle.
            let handle = files.open(&private_lock, OpenMode::READ_WRITE, None).await?;
            let read = small_file::read_handle(files, &handle, LOCK_FILE_MAX_BYTES + 1).await;
            Ok((Some(handle), read))
        };
        let (written, proven, read) = tokio::join!(files.lstat(&private_lock), self.prove(files), reading);
        let read = match read {
            Ok((handle, read)) => {
                if let Some(handle) = handle {
                    self.keep_open(files, handle).await.map_err(|error| self.remote(&error))?;
                }
                read
            }
            Err(error) => Err(error),
        };
        match written {
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(self.remote(&error)),
            // A full disk may swallow the bytes and the close alike.
            Ok(attributes) if attributes.size.is_some_and(|size| size != text.len() as u64) => {
                return Err(Failure::new(
                    FailureKind::Storage,
                    Phase::Lock,
                    self.place(),
                    "the server took the lock file but does not have all of it",
                )
                .next_step("make room on the target and try again"));
            }
            Ok(_) => {}
        }
        // Before anything of it can be seen by others: a lock that cannot be read, or says
        // something else than was written, would be in everybody's way for good.
        let Some(kind) = proven? else { return Ok(false) };
        match read {
            Ok(bytes) if bytes == text => {}
            Ok(_) => {
                return Err(self
                    .failed("the server took the lock file but does not keep what was written to it")
                    .next_step("look at the target's disk and at its SSH server"));
            }
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => {
                let next = "haul has to read back what it writes: ask for an account that may read";
                return Err(self.remote(&error).next_step(next));
            }
        }
        self.kind = kind;
        self.made = true;
        Ok(true)
    }

    /// For the first beat, where that may go through an open handle.
    async fn keep_open(&mut self, files: &dyn Files, handle: Handle) -> Result<(), RemoteError> {
        match self.beating.replace(handle) {
            Some(old) => files.close_unheard(old).await,
            None => Ok(()),
        }
    }

    /// Makes the temp directory where it is missing, and this run's directory in it. Others
    /// remove the temp directory when it is empty, so it may vanish in between.
    async fn make_directories(&self, files: &dyn Files) -> Result<(), Failure> {
        for _ in 1..MAKE_TRIES {
            if self.try_to_make_directories(files).await?.is_none() {
                return Ok(());
            }
        }
        match self.try_to_make_directories(files).await? {
            None => Ok(()),
            Some(error) => Err(self.remote(&error)),
        }
    }

    /// Gives what failed where another try may do better.
    async fn try_to_make_directories(&self, files: &dyn Files) -> Result<Option<RemoteError>, Failure> {
        let names = &self.context.names;
        let private = self.private();
        let making_temp = files.make_directory(names.temp(), DIRECTORY_MODE);
        let making = files.make_directory(private.directory(), DIRECTORY_MODE);
        let look = async || tokio::join!(files.lstat(names.temp()), files.lstat(private.directory()));
        // A name that others made may lead elsewhere: then one thing after the other.
        let (made_temp, rest) = if files.features().in_order && self.context.nothing_there {
            let (made_temp, made, seen, merged) =
                tokio::join!(biased; making_temp, making, look(), self.make_merged(files));
            merged.map_err(|error| self.remote(&error))?;
            (made_temp, Some((made, Some(seen))))
        } else {
            (making_temp.await, None)
        };
        if let Err(error) = made_temp {
            match files.lstat(names.temp()).await {
                Ok(attributes) if attributes.kind == FileKind::Directory => {}
                Ok(attributes) if attributes.kind == FileKind::Unknown => {}
                Ok(_) => return Err(self.bad_temp("is no directory")),
                Err(again) if again.is_link() => return Err(self.remote(&again)),
                // Another run's was there and has just been removed, or a cause that the
                // server does not tell: the next try shows which.
                Err(again) if again.is_not_found() && is_exists_or_bare(&error) => return Ok(Some(error)),
                // That the name is there is no cause; why it cannot be looked at is.
                Err(again) if is_exists_or_bare(&error) => return Err(self.remote(&again)),
                Err(_) => return Err(self.remote(&error)),
            }
        }
        let (made, seen) = match rest {
            Some(rest) => rest,
            None => (files.make_directory(private.directory(), DIRECTORY_MODE).await, None),
        };
        match made {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return Ok(Some(error)),
            Err(error) => return Err(self.remote(&error)),
        }
        let (temp, run) = match seen {
            Some((Ok(temp), Ok(run))) => (Ok(temp), Ok(run)),
            _ => look().await,
        };
        let temp = temp.map_err(|error| self.remote(&error))?;
        match run {
            Ok(run) => self.check_temp(files, temp, run).await.map(|()| None),
            // Fenced already: what is made in it next will not find it, and that name is not
            // made a second time.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(self.remote(&error)),
        }
    }

    /// Only a dead link is an error: whoever needs the file makes it where it is missing.
    async fn make_merged(&self, files: &dyn Files) -> Result<(), RemoteError> {
        let Some(generation) = self.context.merged else { return Ok(()) };
        let path = self.private().merged(generation);
        match files.open(&path, OpenMode::CREATE_NEW, Some(MERGED_MODE)).await {
            Ok(handle) => {
                self.has_merged.store(true, Ordering::Relaxed);
                files.close_unheard(handle).await
            }
            Err(error) if error.is_link() => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// The temp directory may have been there: it has to be a directory of this account
    /// that no other can write to. What this account makes is seen in `run`.
    async fn check_temp(&self, files: &dyn Files, temp: Attributes, run: Attributes) -> Result<(), Failure> {
        if !matches!(temp.kind, FileKind::Directory | FileKind::Unknown) {
            return Err(self.bad_temp("is no directory"));
        }
        if let (Some(temp), Some(run)) = (temp.owner, run.owner)
            && temp.uid != run.uid
        {
            return Err(self.bad_temp("belongs to another account"));
        }
        let writable = |mode: Option<u32>| mode.is_some_and(|mode| mode & WRITABLE_BY_OTHERS != 0);
        // A server that shows bits that were never set keeps no modes at all.
        if !writable(temp.mode) || writable(run.mode) {
            return Ok(());
        }
        let tighter = SetAttributes { mode: Some(DIRECTORY_MODE), ..SetAttributes::default() };
        let path = self.context.names.temp();
        files.set_attributes(path, tighter).await.map_err(|error| self.remote(&error))?;
        let again = files.lstat(path).await.map_err(|error| self.remote(&error))?;
        if writable(again.mode) { Err(self.bad_temp("can be written by other accounts")) } else { Ok(()) }
    }

    /// Proves on names of this run's own what makes the lock on this server; `None` when
    /// this run was fenced meanwhile.
    async fn prove(&self, files: &dyn Files) -> Result<Option<LockKind>, Failure> {
        let private_lock = self.private().lock();
        if files.features().hard_link {
            let probe = self.private().taken_lock(self.next_number());
            // Two at once: in whatever order the server takes them, one has to fail.
            let outcomes =
                tokio::join!(files.hard_link(&private_lock, &probe), files.hard_link(&private_lock, &probe));
            for outcome in [&outcomes.0, &outcomes.1] {
                if let Err(error) = outcome
                    && error.is_link()
                {
                    return Err(self.remote(error));
                }
            }
            let made = outcomes.0.is_ok() || outcomes.1.is_ok();
            if made {
                remove_if_there(files, &probe).await.map_err(|error| self.remote(&error))?;
            }
            if outcomes.0.is_ok() != outcomes.1.is_ok() {
                return Ok(Some(LockKind::Linked));
            }
        }
        match files.open(&private_lock, OpenMode::CREATE_NEW, Some(LOCK_MODE)).await {
            Ok(handle) => files.close(handle).await.map_err(|error| self.remote(&error))?,
            Err(error) if error.is_link() => return Err(self.remote(&error)),
            Err(_) => match look::read_content(files, &private_lock).await {
                Ok((_, bytes)) if bytes == self.info.to_text() => return Ok(Some(LockKind::Exclusive)),
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(self.remote(&error)),
            },
        }
        Err(self
            .failed("this server has neither a link nor a create that fails on an existing name, so no lock")
            .next_step("make sure that nobody else uploads to this target, and use --no-lock"))
    }

    /// Removes what this run made. The failure that led here is what counts, so what goes
    /// wrong now is only a detail: the next run clears it away.
    async fn undo(&mut self, files: &dyn Files) {
        if !self.attempted {
            return;
        }
        self.context.made.send_replace(None);
        let private = self.private();
        let aside = private.taken_lock(self.next_number());
        let linking = std::mem::take(&mut self.linking);
        let names = &self.context.names;
        let beating = self.beating.take();
        let removing = async {
            if let Some(handle) = beating {
                files.close_unheard(handle).await?;
            }
            remove_if_there(files, &private.lock()).await?;
            if linking {
                give_back_own(files, names, self.run, &aside).await?;
            }
            if self.used_early || self.has_merged.swap(false, Ordering::Relaxed) {
                clear_early(files, &private).await?;
            }
            clear_private(files, names, &private).await
        };
        let removed = removing.await;
        if let Err(error) = removed {
            self.notice(Level::Detail, format!("clearing away: {error}"));
        }
        self.made = false;
    }

    fn tell_made(&mut self) {
        self.used_early |= self.context.made.receiver_count() > 0;
        let has_merged = self.has_merged.load(Ordering::Relaxed);
        self.context.made.send_replace(Some(Made { run: self.private(), has_merged }));
    }

    /// Takes a fresh run id after this run's directory was fenced away.
    pub(super) fn begin_anew(&mut self) -> Result<(), Failure> {
        self.context.made.send_replace(None);
        self.earlier.push(self.run);
        self.run = fresh_run(&self.context)?;
        self.info.run = self.run;
        self.has_merged.store(false, Ordering::Relaxed);
        self.made = false;
        self.attempted = false;
        self.won = false;
        Ok(())
    }

    pub(super) fn private(&self) -> RunNames {
        self.context.names.run(self.run)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn check_stop(&self) -> Result<(), Failure> {
        if !self.context.stop.is_stopped() {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Interrupted, Phase::Lock, self.place(), "stopped"))
    }

    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = self.context.stop.stopped() => self.check_stop(),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    pub(super) fn notice(&self, level: Level, text: String) {
        self.context.monitor.notice(Notice { level, text: format!("{}: {text}", self.place()) });
    }

    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.context.host, self.context.names.target())
    }

    pub(super) fn remote(&self, error: &RemoteError) -> Failure {
        Failure::remote(Phase::Lock, self.place(), error)
    }

    pub(super) fn failed(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::new(FailureKind::Failed, Phase::Lock, self.place(), cause)
    }

    fn bad_temp(&self, what: &str) -> Failure {
        let place = format!("{}:{}", self.context.host, self.context.names.temp());
        Failure::new(FailureKind::Storage, Phase::Lock, place, format!("the temp directory {what}"))
            .next_step("haul will not use it: move it away, or choose another --user-id")
    }
}

/// Whether an error may mean that the name exists.
fn is_exists_or_bare(error: &RemoteError) -> bool {
    use crate::remote::RemoteErrorKind::{AlreadyExists, Failure};
    matches!(error.kind, AlreadyExists | Failure)
}

fn fresh_run(context: &LockContext) -> Result<RunId, Failure> {
    match getrandom::u64() {
        Ok(bits) => Ok(RunId::from_random(bits)),
        Err(error) => Err(Failure::new(
            FailureKind::Failed,
            Phase::Lock,
            &context.host,
            format!("no random numbers from the system: {error}"),
        )),
    }
}
