//! Keeps a lock that was won: beats, and looks whether it still is this run's.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::held::{Held, Standing};
use crate::engine::failure::Failure;
use crate::engine::monitor::{Level, Monitor, Notice};
use crate::remote::{Files, RemoteError};

/// What is known of a lock that is being kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockState {
    Held,
    /// Everything has to stop. By whom, in words, escaped.
    Lost {
        by: String,
    },
}

/// A task that beats every `LockTimes::beat` and looks as often. A dead link is not a
/// lost lock: the keeper waits for [`Keeper::replace_files`]. Dropping it stops the beats.
pub struct Keeper {
    held: Arc<Held>,
    shared: Arc<Shared>,
    state: watch::Receiver<LockState>,
    task: Option<JoinHandle<()>>,
}

struct Shared {
    held: Arc<Held>,
    monitor: Arc<dyn Monitor>,
    files: watch::Sender<Arc<dyn Files>>,
    state: watch::Sender<LockState>,
    stop: watch::Sender<bool>,
}

impl Keeper {
    /// Begins to beat through `files`, best a session of its own so that beats do not
    /// queue behind data. Has to be called inside a tokio runtime.
    pub fn start(files: Arc<dyn Files>, held: Arc<Held>, monitor: Arc<dyn Monitor>) -> Keeper {
        let (state_sender, state) = watch::channel(LockState::Held);
        let shared = Arc::new(Shared {
            held: held.clone(),
            monitor,
            files: watch::channel(files).0,
            state: state_sender,
            stop: watch::channel(false).0,
        });
        let task = match held.kind {
            super::LockKind::Without => None,
            _ => Some(tokio::spawn(shared.clone().keep())),
        };
        Keeper { held, shared, state, task }
    }

    /// Changes once, to `Lost`.
    pub fn state(&self) -> watch::Receiver<LockState> {
        self.state.clone()
    }

    /// Goes on through another session, after a reconnect.
    pub fn replace_files(&self, files: Arc<dyn Files>) {
        self.shared.files.send_replace(files);
    }

    /// What has to pass before anything that others rely on: nothing to do while a beat
    /// that was sent lately is acknowledged, else a look. `Locked` when the lock is lost,
    /// `Link` when nothing could be seen.
    pub async fn ensure_fresh(&self) -> Result<(), Failure> {
        if let LockState::Lost { by } = &*self.state.borrow() {
            return Err(self.held.lost(by));
        }
        if self.held.kind == super::LockKind::Without || self.held.beat_age() <= self.held.times.stale_after {
            return Ok(());
        }
        self.look_now().await
    }

    /// A look in between. `Locked` when the lock is lost, `Link` when nothing could be seen.
    pub async fn look_now(&self) -> Result<(), Failure> {
        let files = self.shared.files.borrow().clone();
        self.held.check(&*files).await
    }

    /// Ends the beats and returns when nothing of the keeper is on its way any more. To be
    /// called before the release.
    pub async fn stop(mut self) {
        self.shared.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // A panic in the task has been reported by the runtime; the beats have ended.
            let _ = task.await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Shared {
    async fn keep(self: Arc<Self>) {
        tokio::join!(self.beat_again_and_again(), self.look_again_and_again());
    }

    /// Beats have a rhythm of their own: on a slow link a look takes several round trips.
    async fn beat_again_and_again(&self) {
        let mut files = self.files.subscribe();
        let mut session = files.borrow_and_update().clone();
        let mut handle = None;
        // The first beat was written when the lock was won.
        let mut beat: u64 = 1;
        while self.pause().await {
            if files.has_changed().unwrap_or(false) {
                session = files.borrow_and_update().clone();
                // A handle is good for the session that made it.
                handle = None;
            }
            beat += 1;
            match self.held.beat(&*session, &mut handle, beat).await {
                Err(error) if error.is_link() => {
                    if !self.other_session(&mut files).await {
                        return;
                    }
                }
                // Whether the lock is still ours the look will say.
                Err(error) => self.detail("heartbeat", &error),
                Ok(()) => {}
            }
        }
        if let Some(handle) = handle {
            // Every beat that counts was acknowledged by its write.
            let _ = session.close_unheard(handle).await;
        }
    }

    async fn look_again_and_again(&self) {
        let mut files = self.files.subscribe();
        while self.pause().await {
            let session = files.borrow_and_update().clone();
            match self.held.standing(&*session).await {
                Ok(Standing::Ours { .. }) => {}
                Ok(Standing::Lost(by)) => {
                    self.state.send_replace(LockState::Lost { by });
                    self.stop.send_replace(true);
                    return;
                }
                Err(error) if error.is_link() => {
                    if !self.other_session(&mut files).await {
                        return;
                    }
                }
                Err(error) => self.detail("look at the lock", &error),
            }
        }
    }

    /// Waits for the next beat's time; false when asked to stop.
    async fn pause(&self) -> bool {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => false,
            () = sleep(self.held.times.beat) => true,
        }
    }

    /// Waits for a session in place of the dead one; false when asked to stop.
    async fn other_session(&self, files: &mut watch::Receiver<Arc<dyn Files>>) -> bool {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => false,
            changed = files.changed() => {
                files.mark_changed();
                changed.is_ok()
            }
        }
    }

    fn detail(&self, what: &str, error: &RemoteError) {
        let text = format!("{}: {what}: {error}", self.held.place());
        self.monitor.notice(Notice { level: Level::Detail, text });
    }
}
