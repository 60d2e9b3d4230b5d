//! The merge by file operations: `copy-data` where the server has it, else through here.

use std::ops::Range;
use std::sync::Arc;

use super::write_record;
use crate::engine::board::{Board, Published};
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::io::{
    publish, read_range, remove_all_if_there, remove_if_there, size_of_open, sync_if_possible, write_all,
};
use crate::engine::monitor::Monitor;
use crate::engine::plant::{Plant, is_planted};
use crate::engine::site::Site;
use crate::model::chunk::Geometry;
use crate::model::names::RunNames;
use crate::model::plan::Found;
use crate::model::remote_path::RemotePath;
use crate::model::run_id::RunId;
use crate::remote::files::{Handle, OpenMode};
use crate::remote::{RemoteError, RemoteErrorKind};

/// Stored chunks merged between two records: few, since they stand twice on the disk.
const STORED_BATCH: usize = 2;
/// Placed chunks are only noted; each record costs a sync.
const PLACED_BATCH: usize = 32;

pub struct SftpMerge {
    /// With a file channel of its own, where there is one: a sync takes long.
    pub site: Site,
    pub run: RunNames,
    pub generation: RunId,
    pub geometry: Geometry,
    pub board: Arc<Board>,
    pub monitor: Arc<dyn Monitor>,
    /// Takes placed chunks as they come, since the upload waits for the merge.
    pub eager: bool,
}

impl SftpMerge {
    /// Merges chunks as they are published; returns when all are merged.
    pub async fn run(self) -> Result<(), Failure> {
        let failed = self.site.failed(Phase::Merge);
        let merged = self.run.merged(self.generation);
        let handle = self.site.files.open(&merged, OpenMode::READ_WRITE, None).await.map_err(&failed)?;
        let outcome = self.merge_all(&handle).await;
        let closed = match outcome {
            Ok(false) => self.site.files.close_unheard(handle).await,
            _ => self.site.files.close(handle).await,
        };
        outcome?;
        closed.map_err(&failed)
    }

    /// Whether anything was written through the handle.
    async fn merge_all(&self, merged: &Handle) -> Result<bool, Failure> {
        let chunks = self.geometry.chunks();
        let mut written = false;
        loop {
            let from = self.board.merged();
            if from == chunks {
                return Ok(written);
            }
            self.board.wait_until(|found| ready(from, chunks, self.eager, found)).await;
            let mut batch = self.board.next(PLACED_BATCH);
            // A batch is all placed or all stored, up to the first that is otherwise.
            let how = batch.first().map(|(_, how)| *how);
            let limit = if how == Some(Published::Stored) { STORED_BATCH } else { PLACED_BATCH };
            let length = batch.iter().take(limit).take_while(|(_, h)| Some(*h) == how).count();
            batch.truncate(length);
            let Some((last, _)) = batch.last().copied() else { continue };
            if last == chunks && how == Some(Published::Placed) {
                // Receipts say the same as a record would, and the commit looks and syncs.
                self.board.merge(last);
                return Ok(written);
            }
            for (n, how) in &batch {
                if *how == Published::Stored {
                    written = true;
                    self.append(merged, *n).await?;
                    self.monitor.advance(Phase::Merge, self.geometry.length(*n));
                }
            }
            self.check_size(merged, last).await?;
            sync_if_possible(self.site.files.as_ref(), merged)
                .await
                .map_err(self.site.failed(Phase::Merge))?;
            if is_planted(Plant::RemoveBeforeRecord) {
                for (n, _) in &batch {
                    self.remove_stored(*n).await?;
                }
            }
            write_record(&self.site, &self.run, self.geometry, last, self.generation).await?;
            if how == Some(Published::Stored) {
                for (n, _) in &batch {
                    self.remove_stored(*n).await?;
                }
            } else {
                let receipts = batch.iter().map(|(n, _)| self.site.names.receipt(*n, self.generation));
                remove_all_if_there(self.site.files.as_ref(), receipts.collect())
                    .await
                    .map_err(self.site.failed(Phase::Merge))?;
            }
            self.board.merge(last);
        }
    }

    /// Writes the bytes of stored chunk `n` to their place.
    async fn append(&self, merged: &Handle, n: u64) -> Result<(), Failure> {
        let failed = self.site.failed(Phase::Merge);
        let files = &self.site.files;
        let range = self.geometry.range(n);
        let name = self.site.names.chunk(n);
        let chunk = files.open(&name, OpenMode::READ, None).await.map_err(&failed)?;
        let length = range.end - range.start;
        let outcome = async {
            let size = size_of_open(files.as_ref(), &chunk, &name).await?;
            if size != Some(length) {
                return Ok(false);
            }
            copy(&self.site, &chunk, 0..length, merged, range.start).await
        }
        .await;
        let closed = files.close(chunk).await;
        let whole = outcome.map_err(&failed)?;
        closed.map_err(&failed)?;
        if whole {
            return Ok(());
        }
        // Out of the way, so that the next attempt sends it again.
        self.remove(&name).await?;
        Err(Failure::new(FailureKind::Link, Phase::Merge, self.site.place_of(&name), "the chunk is damaged"))
    }

    /// `copy-data` says OK although a disk was full; the size tells.
    async fn check_size(&self, merged: &Handle, last: u64) -> Result<(), Failure> {
        let path = self.run.merged(self.generation);
        let size = size_of_open(self.site.files.as_ref(), merged, &path)
            .await
            .map_err(self.site.failed(Phase::Merge))?;
        if size.is_some_and(|size| size < self.geometry.end(last)) {
            return Err(Failure::new(
                FailureKind::Storage,
                Phase::Merge,
                self.site.place(),
                "the merged file is shorter than what was written to it",
            )
            .next_step("look for a full disk or a quota on the target"));
        }
        Ok(())
    }

    /// By way of the private directory: a late removal hits no chunk of another run.
    async fn remove_stored(&self, n: u64) -> Result<(), Failure> {
        let private = self.run.merged_chunk(n);
        match publish(self.site.files.as_ref(), &self.site.names.chunk(n), &private).await {
            Err(error) if error.is_not_found() => return Ok(()),
            moved => moved.map_err(self.site.failed(Phase::Merge))?,
        }
        self.remove(&private).await
    }

    async fn remove(&self, path: &RemotePath) -> Result<(), Failure> {
        remove_if_there(self.site.files.as_ref(), path).await.map_err(self.site.failed(Phase::Merge))
    }
}

/// Returns when there is something to merge. True: the rest is one batch of placed chunks,
/// whose receipts say the same as a record would, and the commit looks and syncs.
pub async fn nothing_but_placed(board: &Board, chunks: u64) -> bool {
    let from = board.merged();
    board.wait_until(|found| from == chunks || ready(from, chunks, false, found)).await;
    let rest = board.next(PLACED_BATCH);
    let placed = rest.iter().all(|(_, how)| *how == Published::Placed);
    let all = from + rest.len() as u64 == chunks;
    if all && placed {
        board.merge(chunks);
    }
    all && placed
}

/// A batch of placed chunks is worth a sync only when it is full or the last; a stored
/// one is merged at once.
fn ready(from: u64, chunks: u64, eager: bool, found: &Found) -> bool {
    if found.stored.contains(&(from + 1)) {
        return true;
    }
    let placed = (from + 1..=chunks).take_while(|n| found.placed.contains(n)).take(PLACED_BATCH).count();
    let next = from + 1 + placed as u64;
    placed == PLACED_BATCH || (placed > 0 && (eager || next > chunks || found.stored.contains(&next)))
}

/// Copies a range between two open files of one session. False when the source of the
/// copy ended early.
pub async fn copy(
    site: &Site,
    from: &Handle,
    range: Range<u64>,
    to: &Handle,
    to_offset: u64,
) -> Result<bool, RemoteError> {
    let files = &site.files;
    let length = range.end - range.start;
    if files.features().copy_data {
        match files.copy_data(from, range.start, length, to, to_offset).await {
            Ok(()) => return Ok(true),
            Err(error) if error.kind == RemoteErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
    }
    let mut at = range.start;
    while at < range.end {
        // Bounded memory: a part is read, then written.
        let part_end = range.end.min(at + (4 << 20));
        let mut parts = Vec::new();
        let reached = read_range(files, from, at..part_end, |part| parts.push(part)).await?;
        let mut offset = to_offset + (at - range.start);
        for part in parts {
            let length = part.len() as u64;
            write_all(files.as_ref(), to, offset, part).await?;
            offset += length;
        }
        if reached < part_end {
            return Ok(false);
        }
        at = part_end;
    }
    Ok(true)
}
