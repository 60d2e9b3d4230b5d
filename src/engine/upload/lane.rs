//! One channel through which pieces are written, with a bounded number of bytes in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, OnceCell, mpsc};

use super::{Destination, Event, Piece, Sent};
use crate::engine::failure::{Failure, Phase};
use crate::engine::limiter::Limiter;
use crate::model::chunk::Geometry;
use crate::model::names::RunNames;
use crate::model::remote_path::RemotePath;
use crate::remote::RemoteError;
use crate::remote::files::{Files, Handle, OpenMode};

/// Bytes a lane has in flight: a channel's window carries no more than this in a round
/// trip anyway.
const IN_FLIGHT_BYTES: usize = 2 << 20;
/// Part files are readable by their owner only, until the merged file gets its own mode.
const PART_MODE: u32 = 0o600;

/// Opens for writing what may be there already; never empties it.
const OPEN_PART: OpenMode =
    OpenMode { read: false, write: true, create: true, truncate: false, exclusive: false };

pub struct Lane {
    files: Arc<dyn Files>,
    run: RunNames,
    attempt: u64,
    destination: Destination,
    geometry: Geometry,
    /// By chunk; placed chunks share one handle under 0.
    handles: Mutex<HashMap<u64, Arc<OnceCell<Handle>>>>,
}

pub struct Work {
    pub pieces: Arc<Mutex<mpsc::Receiver<Piece>>>,
    pub events: mpsc::Sender<Event>,
    pub limiter: Arc<Limiter>,
    pub sent: Arc<Sent>,
    pub place: String,
}

impl Lane {
    pub fn new(
        files: Arc<dyn Files>,
        run: RunNames,
        attempt: u64,
        destination: Destination,
        geometry: Geometry,
    ) -> Lane {
        Lane { files, run, attempt, destination, geometry, handles: Mutex::default() }
    }

    async fn handle(&self, chunk: u64) -> Result<Handle, RemoteError> {
        let (key, path, how): (u64, RemotePath, OpenMode) = match &self.destination {
            Destination::Stored => (chunk, self.run.part(chunk, self.attempt), OPEN_PART),
            Destination::Placed { merged, .. } => (0, merged.clone(), OpenMode::READ_WRITE),
        };
        let cell = self.handles.lock().await.entry(key).or_default().clone();
        let open = || self.files.open(&path, how, Some(PART_MODE));
        cell.get_or_try_init(open).await.cloned()
    }

    /// Closes what this lane has open of a stored chunk. Some servers tell only here
    /// that a write failed.
    pub async fn close(&self, chunk: u64) -> Result<(), RemoteError> {
        let cell = self.handles.lock().await.remove(&chunk);
        match cell.and_then(|cell| cell.get().cloned()) {
            Some(handle) => self.files.close(handle).await,
            None => Ok(()),
        }
    }

    pub async fn close_all(&self) -> Result<(), RemoteError> {
        let keys: Vec<u64> = self.handles.lock().await.keys().copied().collect();
        for key in keys {
            self.close(key).await?;
        }
        Ok(())
    }
}

/// Writes pieces until there are no more and all are acknowledged.
pub async fn work(lane: Arc<Lane>, work: Work) -> Result<(), Failure> {
    let failed = |error: RemoteError| Failure::remote(Phase::Upload, &work.place, &error);
    let mut acknowledgements = FuturesUnordered::new();
    let mut in_flight = 0;
    let mut more = true;
    while more || in_flight > 0 {
        tokio::select! {
            biased;
            Some(acknowledged) = acknowledgements.next(), if in_flight > 0 => {
                let acknowledged: Result<(u64, usize), RemoteError> = acknowledged;
                let (chunk, bytes) = acknowledged.map_err(failed)?;
                in_flight -= bytes;
                if work.events.send(Event::Written { chunk, bytes: bytes as u64 }).await.is_err() {
                    return Ok(());
                }
            }
            piece = next(&work.pieces), if more && in_flight < IN_FLIGHT_BYTES => {
                let Some(piece) = piece else {
                    more = false;
                    continue;
                };
                let handle = lane.handle(piece.chunk).await.map_err(failed)?;
                let base = match lane.destination {
                    Destination::Stored => 0,
                    Destination::Placed { .. } => lane.geometry.range(piece.chunk).start,
                };
                let (chunk, bytes) = (piece.chunk, piece.data.len());
                work.limiter.take(bytes as u64).await;
                let pending = lane
                    .files
                    .submit_write(&handle, base + piece.offset, piece.data)
                    .await
                    .map_err(failed)?;
                work.sent.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                in_flight += bytes;
                acknowledgements.push(async move { pending.await.map(|()| (chunk, bytes)) });
            }
        }
    }
    Ok(())
}

async fn next(pieces: &Mutex<mpsc::Receiver<Piece>>) -> Option<Piece> {
    pieces.lock().await.recv().await
}
