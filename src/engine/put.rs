//! `haul put`: one file onto one host.

use std::path::PathBuf;
use std::sync::Arc;

use super::failure::{Failure, FailureKind, Phase};
use super::monitor::Monitor;
use super::options::PutOptions;
use super::report::PutReport;
use super::stop::Stop;
use crate::remote::Connector;

/// What is uploaded and where to.
#[derive(Debug, Clone)]
pub struct PutJob {
    pub source: PathBuf,
    /// As the person wrote it: may be relative to the remote home, start with `~/`, be
    /// empty (the home), or name a directory, which then takes the source's name.
    pub destination: Vec<u8>,
    /// Several sources: the destination has to be a directory.
    pub into_directory: bool,
}

/// Uploads, or goes on with an upload.
pub async fn put(
    connector: Arc<dyn Connector>,
    job: PutJob,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<PutReport, Failure> {
    let _ = (options, monitor, stop, job);
    Err(Failure::new(FailureKind::Failed, Phase::Source, connector.host(), "not built yet"))
}
