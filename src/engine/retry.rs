//! How often a lost link is made again, and with what pauses.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::connect::interrupted;
use super::failure::Failure;
use super::monitor::Monitor;
use super::stop::Stop;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

pub struct Retry {
    limit: u32,
    attempt: u32,
    progress: u64,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
}

impl Retry {
    /// `limit`: retries in a row without any progress between them.
    pub fn new(limit: u32, monitor: Arc<dyn Monitor>, stop: Stop) -> Retry {
        Retry { limit, attempt: 0, progress: 0, monitor, stop }
    }

    /// Waits before the next attempt, longer each time; fails when enough was tried or
    /// when asked to stop. `progress` grows with what was achieved.
    pub async fn pause(&mut self, failure: Failure, progress: u64) -> Result<(), Failure> {
        if progress > self.progress {
            self.progress = progress;
            self.attempt = 0;
        }
        if self.attempt == self.limit {
            return Err(match failure.next_step.is_empty() {
                true => failure.next_step("run the same command again to go on"),
                false => failure,
            });
        }
        self.attempt += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.attempt - 1).min(16)).min(LONGEST_PAUSE);
        self.monitor.retry(&failure, self.attempt, self.limit, pause);
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = self.stop.stopped() => Err(interrupted(failure.phase, failure.place)),
        }
    }
}
