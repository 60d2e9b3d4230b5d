//! `haul status`: what stands at a target. Changes nothing there.

use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::report::StatusReport;
use crate::model::names::UserId;
use crate::remote::Connector;

pub async fn status(
    connector: Arc<dyn Connector>,
    destination: Vec<u8>,
    user: UserId,
) -> Result<StatusReport, Failure> {
    let _ = (user, destination);
    Err(Failure::new(FailureKind::Failed, Phase::Survey, connector.host(), "not built yet"))
}
