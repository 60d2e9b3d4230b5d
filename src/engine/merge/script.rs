//! The merge by the script on the target: put there, started apart from the connection,
//! and watched through the record it writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::RECORD_MODE;
use crate::engine::board::Board;
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::io::{create_with, read_small, remove_if_there};
use crate::engine::job::{JobError, JobLimits, run_script};
use crate::engine::monitor::Monitor;
use crate::engine::site::Site;
use crate::model::chunk::Geometry;
use crate::model::merge_script::{
    MergeCause, MergeScriptInputs, MergeState, Started, merge_script, start_script, state_path,
};
use crate::model::names::RunNames;
use crate::model::record::Record;
use crate::model::run_id::RunId;
use crate::remote::RemoteErrorKind;

/// Between two looks at the record.
const LOOK: Duration = Duration::from_millis(250);
const START_LIMITS: JobLimits =
    JobLimits { timeout: Some(Duration::from_secs(30)), silence: None, max_output_bytes: 16 << 10 };
/// Looks at the state of a script that has recorded everything and has not yet ended: it
/// still removes chunks.
const LOOKS_AFTER: u32 = 8;
/// A script whose state stands still for this long is started again.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Starts in a row without a chunk merged between them.
const STARTS: u32 = 3;

pub struct ScriptMerge {
    pub site: Site,
    pub run: RunNames,
    pub run_id: RunId,
    pub generation: RunId,
    pub geometry: Geometry,
    pub board: Arc<Board>,
    pub monitor: Arc<dyn Monitor>,
}

impl ScriptMerge {
    /// Returns when all chunks are merged. The script goes on by itself when this is
    /// dropped, until what is there is merged.
    pub async fn run(self) -> Result<(), Failure> {
        let mut starts = 0;
        while self.board.merged() < self.geometry.chunks() {
            let before = self.board.merged();
            self.start(before).await?;
            self.watch().await?;
            starts = if self.board.merged() > before { 0 } else { starts + 1 };
            if starts == STARTS {
                return Err(self
                    .failure("the merge script does not get on")
                    .next_step("use --merge sftp, which needs no shell"));
            }
        }
        Ok(())
    }

    async fn start(&self, merged: u64) -> Result<(), Failure> {
        let failed = self.site.failed(Phase::Merge);
        let files = self.site.files.as_ref();
        let record =
            Record::new(self.site.names.target().file_name(), self.geometry, merged, self.generation)
                .ok_or_else(|| self.failure("more chunks than there are"))?;
        let inputs = MergeScriptInputs { names: &self.site.names, run: self.run_id, record: &record };
        let text = Bytes::from(merge_script(&inputs));
        let length = text.len() as u64;
        let script =
            create_with(files, &self.run.merge_script(), text, RECORD_MODE).await.map_err(&failed)?;
        let size = files.stat_handle(&script).await.map(|attributes| attributes.size);
        files.close(script).await.map_err(&failed)?;
        // A full disk may swallow what it acknowledged; half a script would be waited for.
        if size.map_err(&failed)?.is_some_and(|size| size != length) {
            return Err(Failure::new(
                FailureKind::Storage,
                Phase::Merge,
                self.site.place(),
                "the server took the merge script but does not have all of it",
            )
            .next_step("look for a full disk or a quota on the target"));
        }
        let start = start_script(&self.site.names, self.run_id);
        let output =
            run_script(self.site.connection.as_ref(), &start, START_LIMITS).await.map_err(|error| {
                let kind = match &error {
                    JobError::Lost | JobError::Silent(_) => FailureKind::Link,
                    JobError::Start(error) if error.is_link() => FailureKind::Link,
                    JobError::Start(error) if error.kind == RemoteErrorKind::NoSpace => FailureKind::Storage,
                    JobError::Start(_) | JobError::TimedOut(_) => FailureKind::Failed,
                };
                Failure::new(kind, Phase::Merge, self.site.place(), error)
            })?;
        match Started::parse(&output.stdout) {
            Some(Started::Now(_) | Started::Before(_)) => Ok(()),
            Some(Started::Absent) => Err(self
                .failure("the shell does not see the directory that SFTP shows")
                .next_step("use --merge sftp")),
            Some(Started::Unable) => Err(Failure::new(
                FailureKind::Storage,
                Phase::Merge,
                self.site.place(),
                "the target's shell cannot write in the temp directory",
            )
            .next_step("look for a full disk on the target")),
            None => Err(self.failure("the merge script could not be started").next_step("use --merge sftp")),
        }
    }

    /// Follows the record until the script has ended or stands still.
    async fn watch(&self) -> Result<(), Failure> {
        let failed = self.site.failed(Phase::Merge);
        let files = self.site.files.as_ref();
        let mut last_state = None;
        let mut last_change = Instant::now();
        let mut looks_after = 0;
        loop {
            // The state first: once it is final, the record read after it is the last.
            let state = read_small(files, &state_path(&self.run), MergeState::MAX_BYTES as u64)
                .await
                .map_err(&failed)?
                .and_then(|text| MergeState::parse(&text));
            self.take_record().await?;
            match &state {
                Some(MergeState::Done | MergeState::Stopped | MergeState::Left) => return Ok(()),
                Some(MergeState::Failed(cause)) => return Err(self.cause(*cause).await?),
                Some(MergeState::Starting | MergeState::Running { .. }) | None => {}
            }
            if self.board.merged() == self.geometry.chunks() {
                // The record has the last word. Of two scripts, begun before either had said
                // that it runs, one may wait for ever for what the other has merged.
                looks_after += 1;
                if looks_after == LOOKS_AFTER {
                    return Ok(());
                }
            }
            self.check_next().await?;
            if state != last_state {
                last_state = state;
                last_change = Instant::now();
            } else if last_change.elapsed() > STANDSTILL {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// A chunk that was published and is gone has to be sent again.
    async fn check_next(&self) -> Result<(), Failure> {
        let merged = self.board.merged();
        let Some((n, _)) = self.board.next(1).first().copied() else { return Ok(()) };
        let chunk = self.site.names.chunk(n);
        match self.site.files.lstat(&chunk).await {
            Err(error) if error.is_not_found() => {}
            looked => return looked.map(drop).map_err(self.site.failed(Phase::Merge)),
        }
        self.take_record().await?;
        if self.board.merged() > merged {
            return Ok(());
        }
        // Recorded and removed come in this order, but another name may be looked at
        // between the two: only a record that stays behind tells of a loss.
        sleep(LOOK * 8).await;
        self.take_record().await?;
        if self.board.merged() > merged {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::Link,
            Phase::Merge,
            self.site.place_of(&chunk),
            "the chunk has vanished",
        ))
    }

    async fn take_record(&self) -> Result<(), Failure> {
        let text = read_small(self.site.files.as_ref(), &self.site.names.record(), Record::MAX_BYTES as u64)
            .await
            .map_err(self.site.failed(Phase::Merge))?;
        let Some(record) = text.and_then(|text| Record::parse(&text).ok()) else { return Ok(()) };
        if record.generation() == self.generation && record.geometry() == self.geometry {
            let before = self.geometry.end(self.board.merged());
            self.board.merge(record.merged_chunks());
            self.monitor.advance(Phase::Merge, record.merged_bytes().saturating_sub(before));
        }
        Ok(())
    }

    async fn cause(&self, cause: MergeCause) -> Result<Failure, Failure> {
        Ok(match cause {
            MergeCause::Chunk(n) => {
                // Out of the way, so that the next attempt sends it again.
                remove_if_there(self.site.files.as_ref(), &self.site.names.chunk(n))
                    .await
                    .map_err(self.site.failed(Phase::Merge))?;
                Failure::new(FailureKind::Link, Phase::Merge, self.site.place(), cause)
            }
            MergeCause::Cat | MergeCause::Record => {
                Failure::new(FailureKind::Storage, Phase::Merge, self.site.place(), cause)
                    .next_step("look for a full disk or a quota on the target")
            }
            _ => self.failure(cause).next_step("use --merge sftp, which needs no shell"),
        })
    }

    fn failure(&self, cause: impl std::fmt::Display) -> Failure {
        Failure::new(FailureKind::Failed, Phase::Merge, self.site.place(), cause)
    }
}
