//! Brings stored and placed chunks together into the merged file, in order.
//!
//! Order of steps, whoever does them: bytes written → synced → record → chunk removed.

pub mod script;
pub mod sftp;

use bytes::Bytes;

use super::failure::{Failure, FailureKind, Phase};
use super::io::{create_with, publish, sync_if_possible};
use super::site::Site;
use crate::model::chunk::Geometry;
use crate::model::names::RunNames;
use crate::model::record::Record;
use crate::model::run_id::RunId;

const RECORD_MODE: u32 = 0o600;

/// Writes the record: complete under a private name, then renamed, so it is never torn
/// and a fenced run cannot replace it.
pub async fn write_record(
    site: &Site,
    run: &RunNames,
    geometry: Geometry,
    merged: u64,
    generation: RunId,
) -> Result<(), Failure> {
    let failed = site.failed(Phase::Merge);
    let record =
        Record::new(site.names.target().file_name(), geometry, merged, generation).ok_or_else(|| {
            Failure::new(FailureKind::Failed, Phase::Merge, site.place(), "more chunks than there are")
        })?;
    let private = run.new_record();
    let files = site.files.as_ref();
    let handle =
        create_with(files, &private, Bytes::from(record.to_string()), RECORD_MODE).await.map_err(&failed)?;
    let synced = sync_if_possible(files, &handle).await;
    files.close(handle).await.map_err(&failed)?;
    synced.map_err(&failed)?;
    publish(files, &private, &site.names.record()).await.map_err(&failed)
}
