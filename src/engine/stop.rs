//! The wish to stop: Ctrl-C, `--fail-fast`, a lost lock.

use tokio::sync::watch;

/// The end that asks to stop.
#[derive(Debug)]
pub struct StopSwitch(watch::Sender<bool>);

/// The end that is asked; cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

pub fn stop_pair() -> (StopSwitch, Stop) {
    let (sender, receiver) = watch::channel(false);
    (StopSwitch(sender), Stop(receiver))
}

impl StopSwitch {
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when asked to stop; never when the switch was dropped unused. Safe to
    /// drop and call again.
    pub async fn stopped(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
