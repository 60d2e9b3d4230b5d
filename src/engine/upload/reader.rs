//! Reads the source in order, hashes it once, and hands out pieces.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::manifest_file::ManifestFile;
use super::queue::Queue;
use super::{Event, Part, Piece, Sent, Time};
use crate::engine::board::Board;
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::source::{READ_BYTES, Source};
use crate::model::checksum::Chain;
use crate::model::chunk::Geometry;

/// Bytes of stored chunks that may wait for the merge: what the target's disk holds
/// twice at most.
const UNMERGED_BYTES: u64 = 64 << 20;

pub struct Reader {
    pub source: Source,
    /// Ascending.
    pub missing: Vec<u64>,
    pub geometry: Geometry,
    pub manifest: Arc<ManifestFile>,
    pub board: Arc<Board>,
    pub sent: Arc<Sent>,
    /// Whether a slow merge has to slow the upload.
    pub limit_stored: bool,
    pub piece_bytes: usize,
    pub pieces: Arc<Queue>,
    pub events: mpsc::Sender<Event>,
}

impl Reader {
    pub async fn run(self) -> Result<(), Failure> {
        let ahead = (UNMERGED_BYTES / self.geometry.chunk_size().bytes()).max(1);
        for n in &self.missing {
            if self.limit_stored {
                let began = Instant::now();
                self.board.wait_until(|found| *n <= found.merged + ahead).await;
                self.sent.meter.add(Time::Merging, began.elapsed());
            }
            let chain = self.manifest.chain_before(*n).ok_or_else(|| self.source.changed())?;
            let chain = self.send(*n, chain).await?;
            if !self.manifest.note(*n, &chain) {
                self.source.check_unchanged()?;
                self.manifest.contradict();
                return Err(self.contradiction(*n));
            }
            if self.events.send(Event::Hashed { chunk: *n }).await.is_err() {
                // The other end gave up; its own error says why.
                return Ok(());
            }
        }
        self.pieces.complete();
        self.source.check_unchanged()
    }

    fn contradiction(&self, n: u64) -> Failure {
        let cause = format!("chunk {n} is not what the manifest on the target says of it");
        Failure::new(FailureKind::Failed, Phase::Upload, self.source.shown(), cause)
            .next_step("run the same command again with --rehash")
    }

    async fn send(&self, n: u64, mut chain: Chain) -> Result<Chain, Failure> {
        let range = self.geometry.range(n);
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
            let began = Instant::now();
            let (data, hashed): (Bytes, Chain) = self.source.read(at, length, chain).await?;
            self.sent.meter.add(Time::Reading, began.elapsed());
            chain = hashed;
            let mut taken = 0;
            while taken < data.len() {
                let end = data.len().min(taken + self.piece_bytes);
                let offset = at - range.start + taken as u64;
                let part = Part { chunk: n, offset, bytes: end - taken };
                self.pieces.push(Piece { part, data: Some(data.slice(taken..end)) }).await;
                taken = end;
            }
            at += length as u64;
        }
        Ok(chain)
    }
}
