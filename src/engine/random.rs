//! Random names and keys.

use super::failure::{Failure, FailureKind, Phase};
use crate::model::gmac::Key;
use crate::model::run_id::RunId;

/// Fails only where the system gives no random numbers.
pub fn run_id() -> Result<RunId, Failure> {
    getrandom::u64().map(RunId::from_random).map_err(none)
}

/// A fresh key for a MAC.
pub fn mac_key() -> Result<Key, Failure> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map(|()| Key(key)).map_err(none)
}

fn none(error: getrandom::Error) -> Failure {
    let cause = format!("no random numbers from the system: {error}");
    Failure::new(FailureKind::Failed, Phase::Lock, "", cause)
}
