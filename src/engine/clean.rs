//! `haul clean`: removes temp directory and lock, and nothing that haul did not make.

use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::monitor::Monitor;
use super::report::CleanReport;
use crate::model::names::UserId;
use crate::remote::Connector;

/// With `force` also another user's or a living run's, which is said as a warning.
pub async fn clean(
    connector: Arc<dyn Connector>,
    destination: Vec<u8>,
    user: UserId,
    force: bool,
    monitor: Arc<dyn Monitor>,
) -> Result<CleanReport, Failure> {
    let _ = (user, force, monitor, destination);
    Err(Failure::new(FailureKind::Failed, Phase::Clean, connector.host(), "not built yet"))
}
