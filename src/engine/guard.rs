//! The lock around a job: taken, kept beating, watched, given back.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::connect::{Link, interrupted};
use super::failure::{Failure, FailureKind, Phase};
use super::lock::{Acquirer, Held, Keeper, LockContext, LockState, LockTimes, Made, fence, holder, release};
use super::monitor::Monitor;
use super::options::LockOptions;
use super::retry::Retry;
use super::site::Site;
use super::stop::Stop;
use crate::model::lock_file::SourceNote;
use crate::model::names::RunNames;
use crate::model::run_id::RunId;
use crate::remote::Files;

/// A lock that is being acquired; outlives a lost link.
pub struct Request {
    acquirer: Option<Acquirer>,
    made: watch::Sender<Option<Made>>,
    /// See [`LockContext::merged`].
    pub merged: Option<RunId>,
    /// See [`LockContext::nothing_there`].
    pub nothing_there: bool,
}

impl Default for Request {
    fn default() -> Request {
        Request { acquirer: None, made: watch::Sender::new(None), merged: None, nothing_there: false }
    }
}

impl Request {
    /// Tells of the run's private directory as soon as it stands, which is before the lock
    /// is won.
    pub fn made(&self) -> watch::Receiver<Option<Made>> {
        self.made.subscribe()
    }
}

/// A lock that is held. Cheap to clone.
#[derive(Clone)]
pub struct Guard {
    pub held: Arc<Held>,
    keeper: Arc<Mutex<Option<Keeper>>>,
    stop: Stop,
    place: String,
}

impl Guard {
    /// Wins the lock; [`Guard::fence`] has to follow. On a failure of kind `Link` call it
    /// again with the same `request` and a new site.
    pub async fn acquire(
        request: &mut Request,
        site: &Site,
        source: SourceNote,
        options: &LockOptions,
        monitor: &Arc<dyn Monitor>,
        stop: &Stop,
    ) -> Result<Guard, Failure> {
        let acquirer = match &mut request.acquirer {
            Some(acquirer) => acquirer,
            none => none.insert(Acquirer::new(LockContext {
                host: site.host.clone(),
                names: site.names.clone(),
                options: options.clone(),
                source,
                here: holder::here(options.holder.clone()),
                monitor: monitor.clone(),
                stop: stop.clone(),
                times: LockTimes::default(),
                made: request.made.clone(),
                merged: request.merged,
                nothing_there: request.nothing_there,
            })?),
        };
        let held = Arc::new(acquirer.acquire(site.files.as_ref()).await?);
        let keeper = Keeper::start(site.files.clone(), held.clone(), monitor.clone());
        let guard = Guard {
            held,
            keeper: Arc::new(Mutex::new(Some(keeper))),
            stop: stop.clone(),
            place: site.place(),
        };
        guard.move_beats(site);
        Ok(guard)
    }

    /// Moves the private directories of all other runs away. To be done before anything
    /// on the target is believed.
    pub async fn fence(&self, site: &Site, monitor: &Arc<dyn Monitor>) -> Result<(), Failure> {
        fence(site.files.as_ref(), &self.held, monitor).await.map(drop)
    }

    pub fn run_names(&self) -> &RunNames {
        self.held.private()
    }

    /// After a reconnect: beats go on through the new connection, and the lock is looked at.
    pub async fn renew(&self, site: &Site) -> Result<(), Failure> {
        if let Some(keeper) = self.keeper.lock().await.as_ref() {
            keeper.replace_files(site.files.clone());
        }
        self.move_beats(site);
        self.held.check(site.files.as_ref()).await
    }

    /// To a channel of their own, as soon as there is one, so that they do not queue behind
    /// data.
    fn move_beats(&self, site: &Site) {
        let (site, keeper) = (site.clone(), self.keeper.clone());
        tokio::spawn(async move {
            // A link that dies here shows wherever it is used.
            let Ok(files) = site.further_files().await else { return };
            if let Some(keeper) = keeper.lock().await.as_ref() {
                keeper.replace_files(files);
            }
        });
    }

    /// To be asked before anything that counts: looks at the lock where the last beat is
    /// older than it should be, as after a suspend.
    pub async fn ensure_fresh(&self) -> Result<(), Failure> {
        match self.keeper.lock().await.as_ref() {
            Some(keeper) => keeper.ensure_fresh().await,
            None => Ok(()),
        }
    }

    /// Does `work` for as long as the lock is held and nobody asks to stop.
    pub async fn watch<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let state = self.keeper.lock().await.as_ref().map(Keeper::state);
        let lost = async {
            let Some(mut state) = state else { return std::future::pending().await };
            let ended = state.wait_for(|state| *state != LockState::Held).await;
            match ended.map(|state| state.clone()) {
                Ok(LockState::Lost { by }) => by,
                // The keeper has ended without losing the lock: its own end is no loss.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            done = work => match done {
                Err(failure) => Err(self.explained(failure).await),
                done => done,
            },
            by = lost => Err(Failure::new(
                FailureKind::Locked,
                Phase::Lock,
                &self.place,
                format!("the lock was lost to {by}"),
            )
            .next_step("run the same command again once that run is done")),
            () = self.stop.stopped() => Err(interrupted(Phase::Upload, self.place.clone())),
        }
    }

    /// [`Guard::release`] at the end of a job, over a new connection where the link dies
    /// meanwhile: a file that is in place is not to stay locked.
    pub async fn give_back(&self, link: &mut Link, retry: &mut Retry) -> Result<(), Failure> {
        loop {
            let released = async {
                let (_, files) = link.get().await?;
                self.release(Some(files)).await
            };
            match released.await {
                Err(failure) if failure.kind == FailureKind::Link => {
                    link.lose();
                    retry.pause(failure, 0).await?;
                }
                released => return released,
            }
        }
    }

    /// Whoever takes the lock moves this run's files away, and the next request for one of
    /// them may fail before a look at the lock comes: then the lock is what to speak of.
    async fn explained(&self, failure: Failure) -> Failure {
        if matches!(failure.kind, FailureKind::Locked | FailureKind::Link | FailureKind::Interrupted) {
            return failure;
        }
        match self.keeper.lock().await.as_ref() {
            Some(keeper) => keeper.look_now().await.err().filter(|f| f.kind == FailureKind::Locked),
            None => None,
        }
        .unwrap_or(failure)
    }

    /// Gives the lock back; what is in the temp directory stays. Without a session the
    /// lock stays too, and whoever comes next sees that its holder is dead.
    pub async fn release(&self, files: Option<Arc<dyn Files>>) -> Result<(), Failure> {
        let keeper = self.keeper.lock().await.take();
        let lost = keeper.as_ref().is_some_and(|keeper| *keeper.state().borrow() != LockState::Held);
        if let Some(keeper) = keeper {
            keeper.stop().await;
        }
        // May be called again after a dead link; the keeper has ended by then.
        match files {
            Some(files) if !lost => release(files.as_ref(), &self.held).await,
            _ => Ok(()),
        }
    }
}
