//! Sends signals to a program and ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::carry::State;
use super::guard::Asked;
use crate::model::exec::{GuardSaid, Order};
use crate::model::signal::Signal;
use crate::remote::process::ProcessControl;

/// How long an order may take to be answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long KILL may take beyond the grace; the guard itself waits five seconds.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Reaches one program and all it has started in its group. Does not keep it alive: once
/// the [`Child`](super::Child) is dropped there is nobody to reach.
#[derive(Clone)]
pub struct Signals {
    /// `None` where the server opens a single channel; then signals go by SSH's own
    /// request, which servers may ignore.
    pub(super) guard: Option<Watched>,
    pub(super) control: mpsc::Sender<ProcessControl>,
    pub(super) urgent: Arc<watch::Sender<usize>>,
    pub(super) state: watch::Receiver<State>,
    pub(super) dropped: watch::Receiver<u64>,
}

#[derive(Clone)]
pub(super) struct Watched {
    pub orders: mpsc::WeakSender<Asked>,
    pub ended: watch::Receiver<bool>,
}

impl Signals {
    /// To the whole group. False when there was nobody left to get it, or no way.
    pub async fn send(&self, signal: Signal) -> bool {
        match self.order(Order::Signal(signal)).await {
            Some(said) => said == GuardSaid::Done,
            None => self.request(signal),
        }
    }

    /// To the program alone, not to what it has started.
    pub async fn send_to_leader(&self, signal: Signal) -> bool {
        match self.order(Order::ToLeader(signal)).await {
            Some(said) => said == GuardSaid::Done,
            None => self.request(signal),
        }
    }

    /// Asks the group to end by `first`, then by TERM, and kills it once `grace` is over.
    /// Returns when nothing of it is left, or nothing more can be done.
    pub async fn end(&self, first: Signal, grace: Duration) {
        let _urgent = Urgent::new(&self.urgent);
        let ordered = self.order(Order::End { first, grace }).await;
        match (&self.guard, ordered) {
            (Some(guard), Some(_)) => {
                let mut ended = guard.ended.clone();
                let limit = grace.saturating_add(KILL_LIMIT);
                // A guard that is gone has done what it could.
                let _ = timeout(limit, ended.wait_for(|ended| *ended)).await;
            }
            _ => {
                self.request(first);
                let mut state = self.state.clone();
                if timeout(grace, state.wait_for(|state| *state != State::Running)).await.is_err() {
                    self.request(Signal::KILL);
                    let _ = timeout(KILL_LIMIT, state.wait_for(|state| *state != State::Running)).await;
                }
            }
        }
    }

    /// KILL to the whole group, at once.
    pub async fn kill(&self) -> bool {
        let _urgent = Urgent::new(&self.urgent);
        self.send(Signal::KILL).await
    }

    /// The window of the program's terminal has another size.
    pub fn resize(&self, columns: u32, rows: u32) {
        // The next size makes up for one that found no room.
        let _ = self.control.try_send(ProcessControl::Resize { columns, rows });
    }

    /// Bytes of output that nobody took in time while a signal had to get through.
    pub fn dropped_bytes(&self) -> u64 {
        *self.dropped.borrow()
    }

    /// `None` when there is no guard, or it does not answer.
    async fn order(&self, order: Order) -> Option<GuardSaid> {
        let orders = self.guard.as_ref()?.orders.upgrade()?;
        let _urgent = Urgent::new(&self.urgent);
        let (answer, answered) = oneshot::channel();
        timeout(ANSWER_LIMIT, async {
            orders.send((order, answer)).await.ok()?;
            answered.await.ok()
        })
        .await
        .ok()?
    }

    fn request(&self, signal: Signal) -> bool {
        self.control.try_send(ProcessControl::Signal(signal.name().to_owned())).is_ok()
    }
}

/// While it lives, output must not hold up the connection.
struct Urgent(Arc<watch::Sender<usize>>);

impl Urgent {
    fn new(count: &Arc<watch::Sender<usize>>) -> Urgent {
        count.send_modify(|count| *count += 1);
        Urgent(count.clone())
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
