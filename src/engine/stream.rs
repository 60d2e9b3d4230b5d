//! `haul put -`: a file of unknown size from a pipe, onto one host.
//!
//! The bytes go to their place in a merged file in the run's private directory, and count
//! for nothing until all of them are there: a pipe cannot be read again, so what a later
//! command could not go on from leaves no chunks. What is not acknowledged is kept in
//! memory, a few MiB, and sent again over a new connection when the link dies. Lock,
//! verification and commit are those of every upload.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use super::asked::Asked;
use super::attempts::{self, Job};
use super::commit::{Dress, Dressed, Ground, Replace, commit, mode_of, prove_replace, target_now};
use super::connect::{Link, or_stopped};
use super::decide::may_replace;
use super::failure::{Failure, FailureKind, Phase};
use super::guard::{Guard, Request};
use super::hash::{By, hash_existing, hash_on_target};
use super::io::write_file;
use super::leftovers;
use super::limiter::Limiter;
use super::monitor::{Level, Monitor, Notice, UNKNOWN_TOTAL};
use super::open::open_named;
use super::options::{PutOptions, VerifyMethod};
use super::random::run_id;
use super::report::{AttributesReport, BeforeReport, MergedBy, PutReport, PutStatus, VerifiedBy};
use super::site::Site;
use super::space::check_bytes;
use super::stop::Stop;
use super::temp;
use super::upload::Window;
use crate::model::checksum::{Checksum, Method};
use crate::model::digest::{Digest, Sha256Chain};
use crate::model::lock_file::SourceNote;
use crate::model::manifest::Baseline;
use crate::model::names::Names;
use crate::model::remote_path::RemotePath;
use crate::remote::Connector;
use crate::remote::files::{Attributes, OpenMode};

/// As open(2) is mostly called for a new file; the target's umask takes its share.
const NEW_FILE_MODE: u32 = 0o666;
const MERGED_MODE: u32 = 0o600;
/// Pieces that were read and wait to be sent.
const QUEUED_PIECES: usize = 8;

/// What is read, piece by piece; it ends where the pipe does.
pub type Pieces = mpsc::Receiver<std::io::Result<Bytes>>;

/// Reads all of `input` on a thread of its own, since nothing can end a read of a pipe.
pub fn read_pieces(mut input: impl Read + Send + 'static, piece_bytes: usize) -> Pieces {
    let (sender, pieces) = mpsc::channel(QUEUED_PIECES);
    std::thread::spawn(move || {
        loop {
            let mut piece = BytesMut::zeroed(piece_bytes);
            // What is there goes at once; while all lanes are busy the pipe gathers more.
            let piece = match input.read(&mut piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map(|bytes| piece.split_to(bytes).freeze()),
            };
            let last = piece.as_ref().map_or(true, Bytes::is_empty);
            // Nobody listens any more: the upload is over.
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    pieces
}

/// Uploads what `input` yields. `destination` names the file itself.
pub async fn put_stream(
    connector: Arc<dyn Connector>,
    input: impl Read + Send + 'static,
    destination: Vec<u8>,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<PutReport, Failure> {
    let retries = options.retry.retries;
    let limiter = Limiter::new(options.bwlimit);
    let stream = Stream {
        pieces: read_pieces(input, limiter.piece_bytes(usize::MAX, None)),
        limiter,
        destination,
        options,
        monitor: monitor.clone(),
        stop: stop.clone(),
        request: Request::default(),
        guard: None,
        begun: None,
        read: 0,
        acknowledged: 0,
        at_end: false,
        chain: Sha256Chain::new(),
        kept: VecDeque::new(),
        done: None,
        dressed: Dressed::default(),
        uploading: std::time::Duration::ZERO,
    };
    attempts::run(stream, connector, retries, monitor, stop).await
}

struct Stream {
    destination: Vec<u8>,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
    limiter: Limiter,
    request: Request,
    guard: Option<Guard>,
    begun: Option<Begun>,
    pieces: Pieces,
    /// Bytes taken from the pipe, of which `acknowledged` are on the target.
    read: u64,
    acknowledged: u64,
    at_end: bool,
    chain: Sha256Chain,
    /// What was read and is not acknowledged, by offset.
    kept: VecDeque<(u64, Bytes)>,
    done: Option<Done>,
    dressed: Dressed,
    uploading: std::time::Duration,
}

/// Once the lock is held and the ground is laid.
#[derive(Clone)]
struct Begun {
    path: RemotePath,
    merged: RemotePath,
    before: Baseline,
    existing: Option<Attributes>,
    existing_sha256: Option<Digest>,
    replace: Replace,
    mode: u32,
    asked: Asked,
}

#[derive(Clone, Copy)]
struct Done {
    digest: Digest,
    verified_by: VerifiedBy,
}

impl Job for Stream {
    type Report = PutReport;

    fn progress(&self) -> u64 {
        self.acknowledged
    }

    fn take_guard(&mut self) -> Option<Guard> {
        self.guard.take()
    }

    async fn attempt(&mut self, link: &mut Link) -> Result<PutReport, Failure> {
        let stop = self.stop.clone();
        if let (Some(guard), Some(begun)) = (self.guard.clone(), self.begun.clone()) {
            let (connection, files) = link.get().await?;
            let names = Names::new(&begun.path, &self.options.user);
            let site = Site::new(&link.host(), names, connection, files);
            site.prove_shell_meanwhile(&self.monitor);
            guard.renew(&site).await?;
            let going_on = async {
                guard.fence(&site, &self.monitor).await?;
                if self.was_committed(&site).await? {
                    return self.after_commit(&site, &guard).await;
                }
                self.send_and_commit(&site, &guard, begun).await
            };
            return guard.watch(going_on).await;
        }
        let host = link.host();
        let looking = async {
            let (site, target) = open_named(link, &self.destination, &self.options.user).await?;
            site.prove_shell_meanwhile(&self.monitor);
            if let Some(state) = temp::read(&site, Phase::Survey).await? {
                state.check_version(&site)?;
            }
            Ok((site, target))
        };
        let (site, target) = or_stopped(&stop, Phase::Survey, host, looking).await?;
        if let Some(existing) = &target.attributes
            && !may_replace(&site, existing, None, &self.options).await?
        {
            return Ok(self.report(&site, PutStatus::Skipped));
        }
        if self.options.dry_run {
            return Ok(self.report(&site, PutStatus::WouldUpload));
        }
        check_bytes(&site, &site.names.target().parent(), self.options.chunk_size.bytes()).await?;
        let note = SourceNote { name: b"-".to_vec(), identity: String::new() };
        let lock = &self.options.lock;
        let guard = Guard::acquire(&mut self.request, &site, note, lock, &self.monitor, &stop).await?;
        self.guard = Some(guard.clone());
        let beginning = async {
            guard.fence(&site, &self.monitor).await?;
            let begun = self.begin(&site, &guard).await?;
            self.begun = Some(begun.clone());
            self.send_and_commit(&site, &guard, begun).await
        };
        guard.watch(beginning).await
    }
}

impl Stream {
    async fn begin(&self, site: &Site, guard: &Guard) -> Result<Begun, Failure> {
        let run = guard.run_names();
        let (before, existing) = target_now(site).await?;
        // Of an upload of something else: nothing in it can be told to be of this pipe.
        leftovers::remove_all(site, guard).await?;
        let replace = match before {
            Baseline::Absent => Replace::Posix,
            Baseline::Present { .. } => prove_replace(site, run, &self.options, &self.monitor).await?,
        };
        let mode = mode_of(site, run, &self.options, NEW_FILE_MODE, existing).await?;
        let asked = Asked::find(site, &self.options, None, &self.monitor).await?;
        let existing_sha256 = hash_existing(site, existing, &self.options, &self.monitor).await?;
        let merged = run.merged(run_id()?);
        let failed = site.failed(Phase::Upload);
        write_file(site.files.as_ref(), &merged, Bytes::new(), MERGED_MODE, false).await.map_err(failed)?;
        let text = format!(
            "{}: from standard input: a lost link is made again, but once this command has ended \
             nothing can go on from what it sent",
            site.place()
        );
        self.monitor.notice(Notice { level: Level::Info, text });
        self.monitor.phase(Phase::Upload, 0, UNKNOWN_TOTAL);
        let path = site.names.target().clone();
        Ok(Begun { path, merged, before, existing, existing_sha256, replace, mode, asked })
    }

    async fn send_and_commit(
        &mut self,
        site: &Site,
        guard: &Guard,
        begun: Begun,
    ) -> Result<PutReport, Failure> {
        let began = Instant::now();
        let sent = self.send(site, &begun.merged).await;
        self.uploading += began.elapsed();
        if let Err(failure) = sent {
            return Err(self.explained(site, failure).await);
        }
        let done = self.verify(site, &begun.merged).await?;
        self.done = Some(done);
        self.monitor.phase(Phase::Commit, 0, 0);
        let dress = Dress {
            mode: Some(begun.mode),
            owner: begun.existing.and_then(|existing| existing.owner),
            times: None,
            size: self.read,
            asked: begun.asked,
        };
        let monitor = self.monitor.as_ref();
        let ground = Ground::lay(site, &begun.merged).await?;
        self.dressed = commit(site, &guard.held, ground, begun.before, begun.replace, dress, monitor).await?;
        self.after_commit(site, guard).await
    }

    /// Returns when the pipe has ended and every byte is acknowledged.
    async fn send(&mut self, site: &Site, merged: &RemotePath) -> Result<(), Failure> {
        let failed = site.failed(Phase::Upload);
        let files = site.further_files().await.map_err(&failed)?;
        let handle = files.open(merged, OpenMode::WRITE, None).await.map_err(&failed)?;
        let now = tokio::time::Instant::now;
        let mut window = Window::new(now());
        let mut acknowledgements = FuturesUnordered::new();
        // What a lost link may have swallowed goes first.
        let mut again: VecDeque<(u64, Bytes)> = self.kept.clone();
        while !(self.at_end && again.is_empty() && acknowledgements.is_empty()) {
            let (offset, data) = tokio::select! {
                biased;
                Some(acknowledged) = acknowledgements.next() => {
                    let (offset, bytes, departure, outcome): (u64, usize, _, Result<(), _>) = acknowledged;
                    outcome.map_err(&failed)?;
                    window.arrive(now(), bytes, departure);
                    self.acknowledged += bytes as u64;
                    self.kept.retain(|(kept, _)| *kept != offset);
                    self.monitor.advance(Phase::Upload, bytes as u64);
                    continue;
                }
                Some(piece) = async { again.pop_front() }, if window.is_open() && !again.is_empty() => piece,
                piece = self.pieces.recv(), if window.is_open() && !self.at_end => match piece {
                    Some(Ok(data)) if !data.is_empty() => {
                        let offset = self.read;
                        self.read += data.len() as u64;
                        self.chain.update(&data);
                        self.kept.push_back((offset, data.clone()));
                        (offset, data)
                    }
                    Some(Err(error)) => return Err(broken(&error)),
                    Some(Ok(_)) | None => {
                        self.at_end = true;
                        continue;
                    }
                },
            };
            // A server may take less at a time than the pipe gives.
            let limit = files.features().write_limit.max(1);
            self.limiter.take(data.len() as u64).await;
            let mut pending = Vec::with_capacity(1);
            let departure = window.depart(now(), data.len());
            for at in (0..data.len()).step_by(limit) {
                let part = data.slice(at..data.len().min(at + limit));
                pending.push(files.submit_write(&handle, offset + at as u64, part).await.map_err(&failed)?);
            }
            let bytes = data.len();
            acknowledgements.push(async move {
                let outcome = futures_util::future::try_join_all(pending).await.map(drop);
                (offset, bytes, departure, outcome)
            });
        }
        drop(acknowledgements);
        files.close(handle).await.map_err(&failed)?;
        let size = site.files.lstat(merged).await.map_err(&failed)?.size;
        if size.is_some_and(|size| size != self.read) {
            return Err(Failure::new(
                FailureKind::Storage,
                Phase::Upload,
                site.place(),
                format!("not all {} bytes are there, although every write was acknowledged", self.read),
            )
            .next_step("look for a full disk or a quota on the target"));
        }
        Ok(())
    }

    async fn verify(&self, site: &Site, merged: &RemotePath) -> Result<Done, Failure> {
        let digest = self.chain.clone().finish();
        if self.options.verify == VerifyMethod::Size {
            return Ok(Done { digest, verified_by: VerifiedBy::Size });
        }
        self.monitor.phase(Phase::Verify, 0, self.read);
        let hashed =
            hash_on_target(site, merged, self.read, Method::Sha256, By::Either, Phase::Verify, &self.monitor);
        let (found, verified_by) = hashed.await?;
        if found == Checksum::Sha256(digest) {
            return Ok(Done { digest, verified_by });
        }
        Err(Failure::new(
            FailureKind::Verification,
            Phase::Verify,
            site.place(),
            format!("SHA-256 on the target is {found}, of what was read it is {digest}"),
        )
        .next_step("the target was not touched; run the whole command again"))
    }

    async fn was_committed(&self, site: &Site) -> Result<bool, Failure> {
        let Some(done) = self.done else { return Ok(false) };
        match site.files.lstat(site.names.target()).await {
            Ok(attributes) if attributes.size == Some(self.read) => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(Failure::remote(Phase::Commit, site.place(), &error)),
        }
        let target = site.names.target();
        let hashed =
            hash_on_target(site, target, self.read, Method::Sha256, By::Either, Phase::Verify, &self.monitor);
        Ok(hashed.await?.0 == Checksum::Sha256(done.digest))
    }

    async fn after_commit(&self, site: &Site, guard: &Guard) -> Result<PutReport, Failure> {
        match leftovers::remove_all(site, guard).await {
            Ok(()) => {}
            Err(failure) if failure.kind == FailureKind::Link => return Err(failure),
            // The file is in place: what is left does no harm and goes with the next run.
            Err(failure) => self.monitor.notice(Notice { level: Level::Warning, text: failure.to_string() }),
        }
        Ok(self.report(site, PutStatus::Uploaded))
    }

    /// Looks whether the disk is full, which SFTP does not tell.
    async fn explained(&self, site: &Site, failure: Failure) -> Failure {
        if failure.kind != FailureKind::Failed || failure.phase == Phase::Source {
            return failure;
        }
        let waiting: u64 = self.kept.iter().map(|(_, data)| data.len() as u64).sum();
        match check_bytes(site, site.names.temp(), waiting.max(1)).await {
            Err(full) if full.kind == FailureKind::Storage => Failure { phase: failure.phase, ..full },
            _ => failure,
        }
    }

    fn report(&self, site: &Site, status: PutStatus) -> PutReport {
        let chunks = self.read.div_ceil(self.options.chunk_size.bytes());
        let uploaded = status == PutStatus::Uploaded;
        PutReport {
            status,
            target: site.names.target().to_string(),
            size: self.read,
            sha256: self.done.map(|done| done.digest),
            verified_by: self.done.map(|done| done.verified_by),
            merge: uploaded.then_some(MergedBy::Placed),
            chunks_total: chunks,
            chunks_sent: if uploaded { chunks } else { 0 },
            chunks_skipped: 0,
            bytes_sent: self.read,
            resumed: false,
            seconds: [(Phase::Upload.name(), self.uploading)].into(),
            pace: None,
            attributes: AttributesReport {
                mode: self.dressed.mode,
                owner: self.dressed.owner,
                changed: false,
                before: self.begun.as_ref().and_then(|begun| {
                    let sha256 = begun.existing_sha256;
                    begun.existing.map(|attributes| BeforeReport { attributes, sha256 })
                }),
            },
        }
    }
}

fn broken(error: &std::io::Error) -> Failure {
    let cause = format!("cannot be read: {error}");
    Failure::new(FailureKind::Failed, Phase::Source, "standard input", cause)
        .next_step("the target was not touched; run the whole command again")
}
