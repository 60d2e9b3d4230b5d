//! Whether the holder of a lock lives, for those who only want to know.

use tokio::time::{Instant, sleep};

use super::holder;
use super::look::{LockSeen, look};
use super::times::LockTimes;
use crate::engine::failure::Failure;
use crate::model::lock_file::{Verdict, judge};
use crate::model::names::Names;
use crate::remote::Files;

/// Takes up to ten seconds where the holder is on another machine: only a heartbeat that
/// moves or stands still tells. `None`: the lock went away meanwhile, or is not haul's.
pub async fn is_alive(
    files: &dyn Files,
    names: &Names,
    host: &str,
    seen: &LockSeen,
) -> Result<Option<bool>, Failure> {
    let Some(info) = seen.info() else { return Ok(None) };
    match judge(info, &holder::here(String::new()), holder::process_state) {
        Verdict::DeadAtOnce => return Ok(Some(false)),
        Verdict::AliveHere => return Ok(Some(true)),
        Verdict::Watch => {}
    }
    let times = LockTimes::default();
    let began = Instant::now();
    while began.elapsed() < times.dead_after {
        sleep(times.look).await;
        match look(files, names, host).await? {
            None => return Ok(None),
            Some(now) if now.bytes != seen.bytes => return Ok(Some(true)),
            Some(_) => {}
        }
    }
    Ok(Some(false))
}
