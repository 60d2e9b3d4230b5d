//! Random names.

use super::failure::{Failure, FailureKind, Phase};
use crate::model::run_id::RunId;

/// Fails only where the system gives no random numbers.
pub fn run_id() -> Result<RunId, Failure> {
    getrandom::u64().map(RunId::from_random).map_err(|error| {
        Failure::new(
            FailureKind::Failed,
            Phase::Lock,
            "",
            format!("no random numbers from the system: {error}"),
        )
    })
}
