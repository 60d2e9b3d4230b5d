//! `haul merge`: finish an upload whose chunks are all there, without the source.

use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::monitor::Monitor;
use super::options::PutOptions;
use super::report::PutReport;
use super::stop::Stop;
use crate::remote::Connector;

/// `destination` as in [`PutJob`](super::put::PutJob), but it names the file itself.
pub async fn finish(
    connector: Arc<dyn Connector>,
    destination: Vec<u8>,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<PutReport, Failure> {
    let _ = (options, monitor, stop, destination);
    Err(Failure::new(FailureKind::Failed, Phase::Merge, connector.host(), "not built yet"))
}
