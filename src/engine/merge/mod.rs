//! Brings stored and placed chunks together into the merged file, in order.
//!
//! Order of steps, whoever does them: bytes written → synced → record → chunk removed.

mod script;
pub mod sftp;

use std::sync::Arc;

use bytes::Bytes;

use self::script::ScriptMerge;
use self::sftp::SftpMerge;
use super::board::Board;
use super::failure::{Failure, FailureKind, Phase};
use super::io::{publish, write_file};
use super::monitor::{Level, Monitor, Notice};
use super::options::MergeMethod;
use super::report::MergedBy;
use super::site::Site;
use crate::model::chunk::Geometry;
use crate::model::names::RunNames;
use crate::model::record::Record;
use crate::model::run_id::RunId;

const RECORD_MODE: u32 = 0o600;

/// The merge of one upload, by whoever can do it.
pub struct Merge {
    pub site: Site,
    pub run: RunNames,
    pub run_id: RunId,
    pub generation: RunId,
    pub geometry: Geometry,
    pub board: Arc<Board>,
    pub monitor: Arc<dyn Monitor>,
    pub method: MergeMethod,
    /// Chunks are placed: nothing but the record is left to do.
    pub placed: bool,
    /// Placed chunks are there from an earlier run, which the script does not know.
    pub mixture: bool,
}

impl Merge {
    /// Merges chunks as they are published; returns when all are merged.
    pub async fn run(self) -> Result<MergedBy, Failure> {
        if !self.by_script().await? {
            if self.placed && sftp::nothing_but_placed(&self.board, self.geometry.chunks()).await {
                return Ok(MergedBy::Placed);
            }
            self.over_sftp().await?.run().await?;
            return Ok(if self.placed { MergedBy::Placed } else { MergedBy::Sftp });
        }
        let script = ScriptMerge {
            site: self.site.clone(),
            run: self.run.clone(),
            run_id: self.run_id,
            generation: self.generation,
            geometry: self.geometry,
            board: self.board.clone(),
            monitor: self.monitor.clone(),
        };
        match script.run().await {
            Ok(()) => Ok(MergedBy::Script),
            Err(failure) if self.method == MergeMethod::Auto && failure.kind == FailureKind::Failed => {
                let text = format!("{}: merging over SFTP instead: {}", self.site.place(), failure.cause);
                self.monitor.notice(Notice { level: Level::Info, text });
                self.over_sftp().await?.run().await?;
                Ok(MergedBy::Sftp)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn by_script(&self) -> Result<bool, Failure> {
        let nothing_to_merge = self.board.merged() == self.geometry.chunks();
        if self.placed || self.mixture || nothing_to_merge || self.method == MergeMethod::Sftp {
            return Ok(false);
        }
        let shell = self.site.shell(&self.monitor).await;
        if self.method == MergeMethod::Auto {
            return Ok(shell.is_some_and(|shell| shell.wide_arithmetic));
        }
        if shell.is_some() {
            return Ok(true);
        }
        // A link that died meanwhile shows here, and is no missing shell.
        self.site.files.lstat(self.site.names.temp()).await.map_err(self.site.failed(Phase::Merge))?;
        let cause = "the target has no shell to run the merge script";
        Err(Failure::new(FailureKind::Failed, Phase::Merge, self.site.place(), cause)
            .next_step("use --merge auto or --merge sftp"))
    }

    async fn over_sftp(&self) -> Result<SftpMerge, Failure> {
        Ok(SftpMerge {
            site: self.site.with_further_files().await.map_err(self.site.failed(Phase::Merge))?,
            run: self.run.clone(),
            generation: self.generation,
            geometry: self.geometry,
            board: self.board.clone(),
            monitor: self.monitor.clone(),
            eager: !self.placed,
        })
    }
}

/// Writes the record: complete under a private name, then renamed, so it is never torn
/// and a fenced run cannot replace it.
pub async fn write_record(
    site: &Site,
    run: &RunNames,
    geometry: Geometry,
    merged: u64,
    generation: RunId,
) -> Result<(), Failure> {
    write_private_record(site, run, geometry, merged, generation).await?;
    publish_record(site, run).await
}

/// The first half of [`write_record`].
pub async fn write_private_record(
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
    let content = Bytes::from(record.to_string());
    // One that claims nothing need not outlive a power cut.
    let durable = merged > 0;
    write_file(site.files.as_ref(), &run.new_record(), content, RECORD_MODE, durable).await.map_err(failed)
}

/// The second half of [`write_record`].
pub async fn publish_record(site: &Site, run: &RunNames) -> Result<(), Failure> {
    let (private, record) = (run.new_record(), site.names.record());
    publish(site.files.as_ref(), &private, &record).await.map_err(site.failed(Phase::Merge))
}
