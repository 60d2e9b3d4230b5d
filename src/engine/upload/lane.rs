//! One channel through which pieces are written, with a bounded number of bytes in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, OnceCell, mpsc};
use tokio::time::Instant;

use super::queue::Queue;
use super::window::Window;
use super::{Destination, Event, Part, Piece, Sent, Time};
use crate::engine::failure::Failure;
use crate::engine::limiter::Limiter;
use crate::engine::source::Source;
use crate::model::chunk::Geometry;
use crate::model::names::RunNames;
use crate::model::remote_path::RemotePath;
use crate::remote::RemoteError;
use crate::remote::files::{Files, Handle, OpenMode};

/// Part files are readable by their owner only, until the merged file gets its own mode.
const PART_MODE: u32 = 0o600;

/// Opens for writing what may be there already; never empties it, which Erlang's server does
/// to what is not opened for reading too.
const OPEN_PART: OpenMode =
    OpenMode { read: true, write: true, create: true, truncate: false, exclusive: false };

/// What all lanes of an upload write to.
#[derive(Clone)]
pub struct Ground {
    pub run: RunNames,
    pub attempt: u64,
    pub destination: Destination,
    pub geometry: Geometry,
}

pub struct Lane {
    files: Arc<dyn Files>,
    ground: Ground,
    /// By chunk; placed chunks share one handle under 0.
    handles: Mutex<HashMap<u64, Arc<OnceCell<Handle>>>>,
    /// Its link is dead, and others have taken over its pieces.
    dead: AtomicBool,
}

pub struct Work {
    pub pieces: Arc<Queue>,
    pub events: mpsc::Sender<Event>,
    pub limiter: Arc<Limiter>,
    pub sent: Arc<Sent>,
    pub source: Source,
}

/// Why a lane ended.
pub enum LaneError {
    Remote(RemoteError),
    /// The source could not be read.
    Source(Failure),
}

impl From<RemoteError> for LaneError {
    fn from(error: RemoteError) -> LaneError {
        LaneError::Remote(error)
    }
}

impl Lane {
    pub fn new(files: Arc<dyn Files>, ground: Ground) -> Lane {
        Lane { files, ground, handles: Mutex::default(), dead: AtomicBool::new(false) }
    }

    async fn handle(&self, chunk: u64) -> Result<Handle, RemoteError> {
        let (key, path, how): (u64, RemotePath, OpenMode) = match &self.ground.destination {
            Destination::Stored => (chunk, self.ground.run.part(chunk, self.ground.attempt), OPEN_PART),
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
            // What was acknowledged on a dead link counts; its handles are gone with it.
            Some(_) if self.dead.load(Ordering::Acquire) => Ok(()),
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

    pub fn bury(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

/// Writes pieces until there are no more and all are acknowledged. After an error what
/// was not acknowledged is in the queue again.
pub async fn work(lane: &Lane, work: &Work) -> Result<(), LaneError> {
    let mut unacknowledged = HashMap::new();
    let outcome = write_all(lane, work, &mut unacknowledged).await;
    work.sent.meter.landed(unacknowledged.values().map(|part: &Part| part.bytes as u64).sum());
    work.pieces.give_back(unacknowledged.into_values());
    outcome
}

async fn write_all(
    lane: &Lane,
    work: &Work,
    unacknowledged: &mut HashMap<u64, Part>,
) -> Result<(), LaneError> {
    let mut acknowledgements = FuturesUnordered::new();
    let mut window = Window::new(Instant::now());
    let mut number = 0;
    let meter = &work.sent.meter;
    loop {
        let began = Instant::now();
        let waits_for = match (window.is_open(), window.is_full()) {
            (true, _) => Time::Pieces,
            (false, true) => Time::FullWindow,
            (false, false) => Time::Acknowledgements,
        };
        tokio::select! {
            biased;
            Some(acknowledged) = acknowledgements.next() => {
                let (number, departure, outcome): (u64, _, Result<(), RemoteError>) = acknowledged;
                outcome?;
                meter.add(waits_for, began.elapsed());
                let Some(part) = unacknowledged.remove(&number) else { continue };
                window.arrive(Instant::now(), part.bytes, departure);
                meter.landed(part.bytes as u64);
                work.pieces.acknowledge();
                let written = Event::Written { chunk: part.chunk, bytes: part.bytes as u64 };
                if work.events.send(written).await.is_err() {
                    return Ok(());
                }
            }
            piece = work.pieces.take(), if window.is_open() => {
                let Some(Piece { part, data }) = piece else { return Ok(()) };
                meter.add(waits_for, began.elapsed());
                number += 1;
                unacknowledged.insert(number, part);
                meter.departed(part.bytes as u64);
                let handle = lane.handle(part.chunk).await?;
                let start = lane.ground.geometry.range(part.chunk).start;
                let data = match data {
                    Some(data) => data,
                    None => work.read_again(start + part.offset, part.bytes).await?,
                };
                let base = match lane.ground.destination {
                    Destination::Stored => 0,
                    Destination::Placed { .. } => start,
                };
                let began = Instant::now();
                work.limiter.take(part.bytes as u64).await;
                meter.add(Time::Limiter, began.elapsed());
                let departure = window.depart(Instant::now(), part.bytes);
                let began = Instant::now();
                let pending = lane.files.submit_write(&handle, base + part.offset, data).await?;
                meter.add(Time::Connection, began.elapsed());
                work.sent.bytes.fetch_add(part.bytes as u64, Ordering::Relaxed);
                let number = number;
                acknowledgements.push(async move { (number, departure, pending.await) });
            }
        }
    }
}

impl Work {
    async fn read_again(&self, offset: u64, bytes: usize) -> Result<Bytes, LaneError> {
        // Its digest is known; that the source has not changed is seen at the end.
        self.source.read_again(offset, bytes).await.map_err(LaneError::Source)
    }
}
