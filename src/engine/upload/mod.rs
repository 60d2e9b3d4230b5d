//! Sends the missing chunks: one reader, several lanes over several connections, and the
//! order in which chunks are published.
//!
//! The reader takes the chunks in order, so the whole file's SHA-256 grows on the way and
//! the source is read once. Pieces go to whichever lane is free. A chunk is published
//! when all its bytes were acknowledged and the manifest can prove it.

mod crew;
mod lane;
mod manifest_file;
mod meter;
mod publish;
mod queue;
mod reader;
mod window;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::board::Board;
use super::failure::{Failure, FailureKind, Phase};
use super::further::FurtherConnections;
use super::guard::Guard;
use super::limiter::Limiter;
use super::monitor::Monitor;
use super::receipts::Receipts;
use super::site::{EarlyFiles, Site};
use super::source::Source;
use crate::model::names::RunNames;
use crate::model::plan::Plan;
use crate::model::remote_path::RemotePath;
use crate::model::run_id::RunId;
use crew::Crew;
pub use manifest_file::ManifestFile;
pub use meter::Meter;
use meter::{Time, processor_time};
use publish::Publisher;
use queue::Queue;
pub use window::Window;

/// Lanes on the first connection: what one waits for, the other uses, and while the further
/// connections are being made the window of one channel is little on a long way.
const LANES_OF_FIRST_CONNECTION: usize = 2;
/// Pieces that wait between the reader and the lanes.
const QUEUED_PIECES: usize = 8;
/// Events that wait for the coordinator.
const QUEUED_EVENTS: usize = 256;

/// Where chunks go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Into files of their own, merged later.
    Stored,
    /// To their place in the merged file.
    Placed { merged: RemotePath, generation: RunId },
}

/// The lock is held, older runs are fenced, and the manifest stands on the target: from here
/// on chunks may be published.
pub struct Permit {
    pub guard: Guard,
    /// Where they are prepared already.
    pub receipts: Option<Receipts>,
}

/// Everything that one upload needs.
pub struct Upload {
    pub site: Site,
    /// Names in this run's private directory, which is all that is touched before the permit.
    pub run: RunNames,
    /// Counts the attempts of this run, so that no private name is used twice.
    pub attempt: u64,
    pub source: Source,
    pub plan: Plan,
    pub manifest: Arc<ManifestFile>,
    pub board: Arc<Board>,
    pub destination: Destination,
    pub lanes: Lanes,
    /// For the first lane, where one is being opened.
    pub channel: Option<EarlyFiles>,
    pub further: Arc<FurtherConnections>,
    pub limiter: Arc<Limiter>,
    pub monitor: Arc<dyn Monitor>,
    pub sent: Arc<Sent>,
}

/// Whether several handles may write to one file at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    One,
    Several,
}

/// What was sent, all attempts together.
#[derive(Debug, Default)]
pub struct Sent {
    pub chunks: std::sync::atomic::AtomicU64,
    pub bytes: std::sync::atomic::AtomicU64,
    pub meter: Meter,
}

/// A part of a chunk on its way to a lane.
struct Piece {
    part: Part,
    /// `None` for one that a lane gave back: it is read again, since to keep all that is in
    /// flight would take memory on every link for the sake of the few that die.
    data: Option<bytes::Bytes>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    chunk: u64,
    /// From the chunk's start.
    offset: u64,
    bytes: usize,
}

enum Event {
    /// The server acknowledged bytes of a chunk.
    Written { chunk: u64, bytes: u64 },
    /// The reader has gone through a chunk; the manifest knows it.
    Hashed { chunk: u64 },
}

/// What is still awaited of a chunk.
struct Awaited {
    bytes: u64,
    hashed: bool,
}

impl Upload {
    /// Returns when every missing chunk is published. Dropped or failed, it leaves what
    /// was published; parts stay in the private directory.
    pub async fn run(mut self, permit: oneshot::Receiver<Permit>) -> Result<(), Failure> {
        let geometry = self.plan.geometry;
        let (began, processor_began) = (tokio::time::Instant::now(), processor_time());
        let pieces = Arc::new(Queue::new(QUEUED_PIECES));
        let (events, mut event_queue) = mpsc::channel(QUEUED_EVENTS);
        let mut tasks = JoinSet::new();
        let crew = Crew::new(
            self.site.clone(),
            self.monitor.clone(),
            Arc::new(lane::Work {
                pieces: pieces.clone(),
                events: events.clone(),
                limiter: self.limiter.clone(),
                sent: self.sent.clone(),
                source: self.source.clone(),
            }),
            lane::Ground {
                run: self.run.clone(),
                attempt: self.attempt,
                destination: self.destination.clone(),
                geometry,
            },
        );
        let mut more_lanes = self.lanes == Lanes::Several;
        let lanes_here = if more_lanes { LANES_OF_FIRST_CONNECTION } else { 1 };
        for _ in 0..lanes_here {
            crew.start_here(self.channel.take(), &mut tasks);
        }
        tasks.spawn(
            reader::Reader {
                source: self.source.clone(),
                missing: self.plan.missing.clone(),
                geometry,
                manifest: self.manifest.clone(),
                board: self.board.clone(),
                sent: self.sent.clone(),
                limit_stored: matches!(self.destination, Destination::Stored),
                piece_bytes: self
                    .limiter
                    .piece_bytes(self.site.files.features().write_limit, self.site.files.round_trip()),
                pieces,
                events,
            }
            .run(),
        );
        let lanes = crew.lanes();
        let mut permitted = pin!(self.prepare_publishing(permit, lanes.clone()));
        let mut publisher: Option<Arc<Publisher>> = None;
        // All of them is there; they wait for the permit.
        let mut complete = Vec::new();

        let mut awaited: BTreeMap<u64, Awaited> = self
            .plan
            .missing
            .iter()
            .map(|n| (*n, Awaited { bytes: geometry.length(*n), hashed: false }))
            .collect();
        let placed = matches!(self.destination, Destination::Placed { .. });
        let mut publishing = FuturesUnordered::new();
        let mut known = 0;
        let mut closed = false;
        let end = self.plan.missing.last().map(|last| geometry.end(*last));
        let mut closing = pin!(publish::close(&self.site, &lanes, &self.destination, end));
        while !closed || publisher.is_none() || !publishing.is_empty() {
            tokio::select! {
                Some(event) = event_queue.recv() => {
                    let chunk = match event {
                        Event::Written { chunk, bytes } => {
                            self.monitor.advance(Phase::Upload, bytes);
                            if let Some(chunk) = awaited.get_mut(&chunk) {
                                chunk.bytes = chunk.bytes.saturating_sub(bytes);
                            }
                            chunk
                        }
                        Event::Hashed { chunk } => {
                            if let Some(chunk) = awaited.get_mut(&chunk) {
                                chunk.hashed = true;
                            }
                            chunk
                        }
                    };
                    if awaited.get(&chunk).is_some_and(|chunk| chunk.bytes == 0 && chunk.hashed) {
                        awaited.remove(&chunk);
                        if placed {
                            self.board.fill(chunk);
                        }
                        match &publisher {
                            Some(publisher) => publishing.push(publisher.clone().publish(chunk)),
                            None => complete.push(chunk),
                        }
                    }
                }
                prepared = &mut permitted, if publisher.is_none() => {
                    let prepared = Arc::new(prepared?);
                    publishing.extend(complete.drain(..).map(|chunk| prepared.clone().publish(chunk)));
                    tasks.spawn(write_lines(self.manifest.clone(), self.site.place()));
                    publisher = Some(prepared);
                }
                Some(published) = publishing.next(), if !publishing.is_empty() => {
                    let (chunk, how) = published?;
                    self.sent.chunks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    self.board.publish(chunk, how);
                }
                // Placed chunks are published by name; of stored ones publishing closes what is open.
                outcome = &mut closing, if !closed && awaited.is_empty()
                    && (placed || (publishing.is_empty() && complete.is_empty())) => {
                    outcome?;
                    closed = true;
                }
                (opened, may_come) = self.further.beyond(known), if more_lanes => {
                    known += opened.len();
                    more_lanes = may_come;
                    for further in opened.into_iter().filter(|further| !further.is_dead()) {
                        crew.start_on(further, &mut tasks);
                    }
                }
                Some(ended) = tasks.join_next() => ended.map_err(|error| self.crashed(&error))??,
                else => return Err(self.crashed(&"the upload stood still")),
            }
        }
        let meter = &self.sent.meter;
        meter.add(Time::Whole, began.elapsed());
        meter.add(Time::Processor, processor_time().saturating_sub(processor_began));
        Ok(())
    }

    async fn prepare_publishing(
        &self,
        permit: oneshot::Receiver<Permit>,
        lanes: crew::Lanes,
    ) -> Result<Publisher, Failure> {
        let Ok(Permit { guard, receipts }) = permit.await else {
            return Err(self.crashed(&"it was given up"));
        };
        let receipts = match receipts {
            Some(receipts) => receipts,
            None => Receipts::prepare(&self.site, &self.run, self.attempt)
                .await
                .map_err(self.site.failed(Phase::Upload))?,
        };
        Ok(Publisher {
            site: self.site.clone(),
            guard,
            run: self.run.clone(),
            attempt: self.attempt,
            destination: self.destination.clone(),
            geometry: self.plan.geometry,
            manifest: self.manifest.clone(),
            receipts,
            lanes,
        })
    }

    fn crashed(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(FailureKind::Failed, Phase::Upload, self.site.place(), error)
    }
}

async fn write_lines(manifest: Arc<ManifestFile>, place: String) -> Result<(), Failure> {
    manifest.write_lines().await.map_err(|error| Failure::remote(Phase::Upload, place, &error))
}
