//! From what is there to the committed file: upload and merge, verify, commit, clean up.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::along::Along;
use super::asked::Asked;
use super::board::Board;
use super::commit::{self, Dress, Dressed, Ground, Replace, commit, prove_replace};
use super::early::Early;
use super::failure::{Failure, FailureKind, Phase};
use super::further::FurtherConnections;
use super::guard::Guard;
use super::hash::{By, hash_on_target};
use super::leftovers::{self, Leftovers};
use super::limiter::Limiter;
use super::lock::Made;
use super::merge::Merge;
use super::monitor::{Level, Monitor, Notice};
use super::options::{MergeMethod, PutOptions, VerifyMethod};
use super::pace::{self, Measured};
use super::plant::{Plant, is_planted};
use super::prepare::{Preparation, Prepared};
use super::random::run_id;
use super::receipts::Receipts;
use super::repair::rewind;
use super::report::{AttributesReport, BeforeReport, MergedBy, PutReport, PutStatus, VerifiedBy};
use super::site::{EarlyFiles, Site};
use super::source::Source;
use super::space;
use super::upload::{Destination, Lanes, ManifestFile, Permit, Sent, Upload};
use super::verify::{Merged, Verified, verify};
use crate::model::checksum::{Checksum, Method};
use crate::model::digest::Digest;
use crate::model::manifest::{self, Baseline, Manifest};
use crate::model::names::RunNames;
use crate::model::plan::{Found, Plan};
use crate::model::run_id::RunId;
use crate::remote::files::Attributes;

/// Times that damage is mended before it is given up.
const REPAIRS: u32 = 3;

/// One file on its way to one target, over as many attempts as it takes.
pub struct Transfer {
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    limiter: Arc<Limiter>,
    sent: Arc<Sent>,
    /// Of this attempt.
    further: Arc<FurtherConnections>,
    /// For the first lane of this attempt.
    channel: Option<EarlyFiles>,
    /// Of this attempt, and begun before the lock was won.
    early: Option<Early>,
    attempt: u64,
    /// What this process knows of the source.
    known: Option<Manifest>,
    /// The manifest on the target was found to be damaged, and not yet replaced.
    distrust: bool,
    /// What stood at the target when the transfer began.
    began_from: Option<(Baseline, Option<Attributes>)>,
    /// What a commit puts in place that was begun and whose outcome may be unknown.
    committing: Option<(Method, Checksum)>,
    /// What stood at the target may have been removed for that commit.
    removed_first: bool,
    /// What was asked of the target's attributes.
    asked: Asked,
    /// Of what stood at the target, where it was computed.
    existing_sha256: Option<Digest>,
    dressed: Dressed,
    size: u64,
    chunks_total: u64,
    chunks_skipped: Option<u64>,
    resumed: bool,
    sha256: Option<Digest>,
    pace: Option<Measured>,
    verified_by: Option<VerifiedBy>,
    merged_by: Option<MergedBy>,
    seconds: BTreeMap<&'static str, Duration>,
}

/// One time of sending what is missing.
struct Round {
    plan: Plan,
    board: Arc<Board>,
    early: Option<Begun>,
}

/// What was begun early, and the receipts for it.
type Begun = (Early, Option<Receipts>);

impl Transfer {
    pub fn new(size: u64, options: PutOptions, limiter: Arc<Limiter>, monitor: Arc<dyn Monitor>) -> Transfer {
        Transfer {
            options,
            monitor,
            limiter,
            sent: Arc::default(),
            further: FurtherConnections::none(),
            channel: None,
            early: None,
            attempt: 0,
            known: None,
            distrust: false,
            began_from: None,
            committing: None,
            removed_first: false,
            asked: Asked::default(),
            existing_sha256: None,
            dressed: Dressed::default(),
            size,
            chunks_total: 0,
            chunks_skipped: None,
            resumed: false,
            sha256: None,
            pace: None,
            verified_by: None,
            merged_by: None,
            seconds: BTreeMap::new(),
        }
    }

    /// Grows while something is achieved.
    pub fn progress(&self) -> u64 {
        self.sent.chunks.load(Ordering::Relaxed)
    }

    /// Before [`Transfer::begin`]; without it nothing was asked.
    pub fn ask(&mut self, asked: Asked) {
        self.asked = asked;
    }

    pub fn asked(&self) -> Asked {
        self.asked
    }

    pub fn note_existing(&mut self, sha256: Option<Digest>) {
        self.existing_sha256 = sha256;
    }

    /// What is replaced is what stands at the target now, and nothing that comes later.
    /// `hashed` is the source's manifest where it was read through already.
    pub fn begin(&mut self, before: Baseline, existing: Option<Attributes>, hashed: Option<Manifest>) {
        self.began_from = Some((before, existing));
        self.known = hashed;
    }

    pub fn has_begun(&self) -> bool {
        self.began_from.is_some()
    }

    /// To be called in each attempt that sends anything: those of the last one are gone.
    pub fn use_further(&mut self, further: Arc<FurtherConnections>) {
        self.further = further;
    }

    /// To be called in each attempt that may send anything: opens the first lane's channel,
    /// or takes the one that is being opened.
    pub fn open_channel(&mut self, site: &Site, begun: Option<EarlyFiles>) {
        self.channel = Some(site.further_files_meanwhile(begun));
        self.early = None;
    }

    /// Begins to send into the private directory that `made` will tell of. Where nothing of
    /// an earlier upload is there; elsewhere than on OpenSSH what is proven first counts. Gives
    /// the generation of the merged file, where it has begun.
    pub async fn begin_early(
        &mut self,
        site: &Site,
        source: &Source,
        made: watch::Receiver<Option<Made>>,
        hashed: Option<&Manifest>,
        baseline: Baseline,
    ) -> Result<Option<RunId>, Failure> {
        let method = site.method(self.options.verify, source.mac_key, &self.monitor).await;
        let fresh = || Manifest::new(source.description.clone(), self.options.chunk_size, baseline, method);
        let mut manifest = hashed.cloned().unwrap_or_else(fresh);
        manifest.baseline = baseline;
        let plan = Plan::new(manifest.geometry(), manifest.known(), Found::default());
        let may_begin = self.options.merge == MergeMethod::Auto && site.files.features().in_order;
        if !may_begin || plan.missing.is_empty() || plan.geometry.chunks() > manifest::MAX_CHUNKS {
            return Ok(None);
        }
        let (generation, manifest) = (run_id()?, Arc::new(ManifestFile::new(manifest)));
        let board = Arc::new(Board::new(Found::default()));
        let upload = {
            let (site, source, manifest, board) =
                (site.clone(), source.clone(), manifest.clone(), board.clone());
            let (limiter, monitor, sent) = (self.limiter.clone(), self.monitor.clone(), self.sent.clone());
            let (channel, further) = (self.channel.take(), self.further.clone());
            move |run: RunNames| Upload {
                attempt: 1,
                destination: Destination::Placed { merged: run.merged(generation), generation },
                lanes: Lanes::Several,
                run,
                site,
                source,
                plan,
                manifest,
                board,
                channel,
                further,
                limiter,
                monitor,
                sent,
            }
        };
        self.early =
            Some(Early::start(site, made, generation, manifest, board, self.monitor.clone(), upload));
        Ok(Some(generation))
    }

    /// When the lock was not won.
    pub fn give_up_early(&mut self) {
        self.early = None;
    }

    /// With the lock held, older runs fenced, and [`Transfer::begin`] called. `source` is
    /// `None` for `haul merge`. After a failure of kind `Link` it can be called again.
    pub async fn run(
        &mut self,
        site: &Site,
        guard: &Guard,
        source: Option<&Source>,
    ) -> Result<PutReport, Failure> {
        let outcome = self.run_once(site, guard, source).await;
        let Err(failure) = &outcome else { return outcome };
        if !self.distrust {
            return outcome;
        }
        let text = format!("{}: {}; reading the source again", failure.place, failure.cause);
        self.monitor.notice(Notice { level: Level::Warning, text });
        self.run_once(site, guard, source).await
    }

    async fn run_once(
        &mut self,
        site: &Site,
        guard: &Guard,
        source: Option<&Source>,
    ) -> Result<PutReport, Failure> {
        let Some((before, existing)) = self.began_from else {
            return Err(Failure::new(FailureKind::Failed, Phase::Survey, site.place(), "not begun"));
        };
        self.attempt += 1;
        let run = guard.run_names();
        let replace = match before {
            Baseline::Absent => Replace::Posix,
            Baseline::Present { .. } => prove_replace(site, run, &self.options, &self.monitor).await?,
        };
        let early = self.take_early(site, run).await;
        let mut prepared = Preparation {
            site,
            run,
            attempt: self.attempt,
            source,
            before,
            distrust: self.distrust,
            known: self.known.take(),
            options: &self.options,
            monitor: &self.monitor,
            new_generation: run_id()?,
            alone: guard.held.is_alone(),
            early,
        }
        .run()
        .await?;
        let early = prepared.early.take().map(|early| (early, prepared.receipts.take()));
        let mut early = early;
        self.distrust = false;
        self.take_plan(site, &prepared);
        if !(prepared.fresh && matches!(prepared.destination, Destination::Placed { .. })) {
            // Else the first look has seen it.
            space::check(site, &prepared.plan, &prepared.destination).await?;
        }

        let sent_before = self.sent.bytes.load(Ordering::Relaxed);
        let source_mode = prepared.manifest.manifest().source.mode;
        let options = self.options.clone();
        let (outcome, mode) = tokio::join!(
            self.fill(site, guard, source, &prepared, &mut early),
            // It takes round trips that the upload does not have to wait for.
            commit::mode_of(site, run, &options, source_mode, existing),
        );
        // What was learnt of the source is kept, whatever came of the rest.
        self.distrust = prepared.manifest.is_contradicted();
        self.known = (!self.distrust).then(|| prepared.manifest.manifest());
        let (verified_by, ground) = match outcome {
            Ok(verified) => verified,
            Err(failure) => {
                let sent = self.sent.bytes.load(Ordering::Relaxed) - sent_before;
                return Err(space::explained(site, run, failure, &prepared.plan, sent).await);
            }
        };
        prepared.manifest.close().await.map_err(site.failed(Phase::Upload))?;
        if let Some(source) = source {
            source.check_unchanged()?;
        }
        self.verified_by = Some(verified_by);
        self.judge_pace(site, source);
        let checksum = prepared.manifest.checksum().ok_or_else(|| {
            Failure::new(
                FailureKind::Verification,
                Phase::Verify,
                site.place(),
                "the source's checksum is unknown",
            )
        })?;
        self.sha256 = checksum.sha256();

        let began = Instant::now();
        let manifest = prepared.manifest.manifest();
        let times = source.map(|source| source.times);
        let dress = Dress::new(mode?, &self.options, &manifest, times, self.asked, existing);
        self.committing = Some((manifest.method(), checksum));
        self.removed_first = replace == Replace::RemoveFirst;
        self.monitor.phase(Phase::Commit, 0, 0);
        let committing = commit(site, &guard.held, ground, before, replace, dress, self.monitor.as_ref());
        let looking = async {
            // What is to be removed afterwards stands there now; one that fails looks again.
            if site.files.features().in_order { leftovers::look(site, guard).await.ok() } else { None }
        };
        let (dressed, seen) = tokio::join!(committing, looking);
        self.dressed = dressed?;
        self.took(Phase::Commit, began);
        self.after_commit(site, guard, seen).await
    }

    /// What was begun early for this run. From here on it is hashed on the target as well.
    async fn take_early(&mut self, site: &Site, run: &RunNames) -> Option<Early> {
        let mut early = self.early.take()?;
        if !early.is_of(run).await {
            return None;
        }
        if self.options.verify != VerifyMethod::Size {
            let (merged, manifest) = (run.merged(early.generation), &early.manifest);
            let (geometry, method) = (manifest.manifest().geometry(), manifest.method());
            early.along = Some(Along::start(site, &merged, geometry, method, &early.board, &self.monitor));
        }
        Some(early)
    }

    /// Says what set the pace.
    fn judge_pace(&mut self, site: &Site, source: Option<&Source>) {
        let measured = Measured {
            bytes: self.sent.bytes.load(Ordering::Relaxed),
            hashing: source.map_or(Duration::ZERO, Source::hashing),
            round_trip: site.files.round_trip(),
            ..self.sent.meter.measured()
        };
        let Some(line) = pace::explained(&measured) else { return };
        self.pace = Some(measured);
        self.monitor.notice(Notice { level: Level::Detail, text: format!("{}: {line}", site.place()) });
    }

    fn take_plan(&mut self, site: &Site, prepared: &Prepared) {
        let plan = &prepared.plan;
        self.size = plan.geometry.size();
        self.chunks_total = plan.geometry.chunks();
        let present = plan.chunks_present();
        if self.chunks_skipped.is_none() {
            self.chunks_skipped = Some(present);
            self.resumed = present > 0;
            if present > 0 {
                let text = format!(
                    "{}: resuming: {present} of {} chunks are there already, {} to send",
                    site.place(),
                    self.chunks_total,
                    plan.missing.len()
                );
                self.monitor.notice(Notice { level: Level::Info, text });
            }
        }
        self.monitor.notice(Notice { level: Level::Detail, text: format!("{}: {plan}", site.place()) });
    }

    /// Uploads, merges, verifies; mends what turns out to be damaged.
    async fn fill(
        &mut self,
        site: &Site,
        guard: &Guard,
        source: Option<&Source>,
        prepared: &Prepared,
        early: &mut Option<Begun>,
    ) -> Result<(VerifiedBy, Ground), Failure> {
        let mut plan = prepared.plan.clone();
        for repair in 0..=REPAIRS {
            let board = match early {
                Some((early, _)) => early.board.clone(),
                None => Arc::new(Board::new(plan.found.clone())),
            };
            let hashed_along = self.options.verify != VerifyMethod::Size && !plan.missing.is_empty();
            let along = early.as_mut().and_then(|(early, _)| early.along.take()).or_else(|| {
                let method = prepared.manifest.method();
                let start =
                    || Along::start(site, &prepared.merged, plan.geometry, method, &board, &self.monitor);
                hashed_along.then(start)
            });
            let round = Round { plan: plan.clone(), board, early: early.take() };
            // What the commit needs is looked up as soon as the last byte is there.
            let in_order = site.files.features().in_order && plan.found.stored.is_empty();
            let placed = matches!(prepared.destination, Destination::Placed { .. });
            let last = plan.geometry.chunks().saturating_sub(1);
            let filled = round.board.clone();
            let mut laying = pin!(Ground::lay(site, &prepared.merged));
            let mut ground = None;
            {
                let mut filled = pin!(filled.filled_beyond(last));
                let mut sending = pin!(self.send_and_merge(site, guard, source, prepared, round));
                let mut may_lay = false;
                let sent = loop {
                    tokio::select! {
                        sent = &mut sending => break sent,
                        _ = &mut filled, if placed && in_order && !may_lay => may_lay = true,
                        laid = &mut laying, if may_lay && ground.is_none() => ground = Some(laid),
                    }
                };
                if let Err(failure) = sent {
                    if let Some(Ok(ground)) = ground {
                        // The failure that led here is what counts.
                        let _ = ground.leave(site).await;
                    }
                    return Err(failure);
                }
            }
            let ground = async {
                match ground {
                    Some(ground) => ground,
                    None => laying.await,
                }
            };
            if is_planted(Plant::CommitBeforeVerify) {
                return Ok((VerifiedBy::Sha256Target, ground.await?));
            }
            let began = Instant::now();
            self.monitor.phase(Phase::Verify, 0, plan.geometry.size());
            let manifest = prepared.manifest.manifest();
            let hashed = async {
                match along {
                    Some(along) => along.finish(site, &self.monitor).await,
                    None => None,
                }
            };
            let (ground, hashed) = tokio::join!(ground, hashed);
            let ground = ground?;
            let merged = Merged { path: &prepared.merged, size: ground.size(), hashed };
            let verified = verify(site, merged, &manifest, self.options.verify, &self.monitor).await?;
            self.took(Phase::Verify, began);
            let damaged = match verified {
                Verified::Good(by) => return Ok((by, ground)),
                Verified::Damaged(damaged) => damaged,
            };
            ground.leave(site).await?;
            let text = format!(
                "{}: {} of {} chunks are damaged on the target{}",
                site.place(),
                damaged.len(),
                self.chunks_total,
                if repair < REPAIRS { "; sending them again" } else { "" }
            );
            self.monitor.notice(Notice { level: Level::Warning, text });
            plan = rewind(site, guard.run_names(), prepared, &damaged, self.attempt).await?;
        }
        Err(Failure::new(
            FailureKind::Verification,
            Phase::Verify,
            site.place(),
            "the merged file is damaged again and again; the target was not touched",
        )
        .next_step("look at the target's disk and memory"))
    }

    async fn send_and_merge(
        &mut self,
        site: &Site,
        guard: &Guard,
        source: Option<&Source>,
        prepared: &Prepared,
        round: Round,
    ) -> Result<(), Failure> {
        let Round { plan, board, early } = round;
        let geometry = plan.geometry;
        if !plan.missing.is_empty() && source.is_none() {
            return Err(Failure::new(
                FailureKind::Failed,
                Phase::Merge,
                site.place(),
                format!("{} of {} chunks are missing", plan.missing.len(), geometry.chunks()),
            )
            .next_step("run haul put again with the source"));
        }
        let began = Instant::now();
        let merging = Merge {
            site: site.clone(),
            run: guard.run_names().clone(),
            run_id: guard.held.run(),
            generation: prepared.generation,
            geometry,
            board: board.clone(),
            monitor: self.monitor.clone(),
            method: self.options.merge,
            placed: matches!(prepared.destination, Destination::Placed { .. }),
            mixture: !plan.found.placed.is_empty(),
        };
        // Placed chunks are where they belong: there is nothing to watch a merge of.
        if matches!(prepared.destination, Destination::Stored) || !plan.found.stored.is_empty() {
            self.monitor.phase(Phase::Merge, geometry.end(plan.found.merged), geometry.size());
        }
        let uploading = async {
            let mut permit = Permit { guard: guard.clone(), receipts: None };
            if let Some((early, receipts)) = early {
                permit.receipts = receipts;
                return early.go_on(permit).await;
            }
            let Some(source) = source.filter(|_| !plan.missing.is_empty()) else { return Ok(()) };
            self.monitor.phase(Phase::Upload, plan.present_bytes(), geometry.size());
            let upload = Upload {
                site: site.clone(),
                run: guard.run_names().clone(),
                attempt: self.attempt,
                source: source.clone(),
                plan: plan.clone(),
                manifest: prepared.manifest.clone(),
                board: board.clone(),
                destination: prepared.destination.clone(),
                lanes: if prepared.several_handles { Lanes::Several } else { Lanes::One },
                channel: self.channel.take(),
                further: self.further.clone(),
                limiter: self.limiter.clone(),
                monitor: self.monitor.clone(),
                sent: self.sent.clone(),
            };
            let (permitting, permitted) = oneshot::channel();
            // It is taken at once.
            let _ = permitting.send(permit);
            upload.run(permitted).await
        };
        let uploaded_at = async {
            uploading.await?;
            Ok(Instant::now())
        };
        let (uploaded, merged_by) = tokio::try_join!(uploaded_at, merging.run())?;
        self.merged_by = Some(merged_by);
        *self.seconds.entry(Phase::Upload.name()).or_default() += uploaded - began;
        self.took(Phase::Merge, uploaded);
        Ok(())
    }

    /// After a link that died during the commit: whether the rename happened.
    pub async fn was_committed(&mut self, site: &Site) -> Result<bool, Failure> {
        let Some((method, checksum)) = self.committing else { return Ok(false) };
        if is_planted(Plant::TrustLostReply) {
            return Ok(true);
        }
        match site.files.lstat(site.names.target()).await {
            Ok(attributes) if attributes.size == Some(self.size) => {
                self.dressed = Dressed { mode: attributes.mode, owner: attributes.owner };
            }
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => {
                if self.removed_first
                    && let Some((before, _)) = &mut self.began_from
                {
                    *before = Baseline::Absent;
                }
                return Ok(false);
            }
            Err(error) => return Err(Failure::remote(Phase::Commit, site.place(), &error)),
        }
        let hashed = hash_on_target(
            site,
            site.names.target(),
            self.size,
            method,
            By::Either,
            Phase::Verify,
            &self.monitor,
        );
        Ok(hashed.await?.0 == checksum)
    }

    /// Removes what is no longer needed; the lock goes with the release.
    pub async fn after_commit(
        &mut self,
        site: &Site,
        guard: &Guard,
        seen: Option<Leftovers>,
    ) -> Result<PutReport, Failure> {
        let began = Instant::now();
        self.monitor.phase(Phase::Clean, 0, 0);
        let removed = match seen {
            Some(seen) => leftovers::remove(site, seen).await,
            None => leftovers::remove_all(site, guard).await,
        };
        match removed {
            Ok(()) => {}
            Err(failure) if failure.kind == FailureKind::Link => return Err(failure),
            // The file is in place: what is left does no harm and goes with the next run.
            Err(failure) => self.monitor.notice(Notice { level: Level::Warning, text: failure.to_string() }),
        }
        self.took(Phase::Clean, began);
        Ok(self.report(site))
    }

    fn took(&mut self, phase: Phase, since: Instant) {
        *self.seconds.entry(phase.name()).or_default() += since.elapsed();
    }

    pub fn report(&self, site: &Site) -> PutReport {
        PutReport {
            status: PutStatus::Uploaded,
            target: site.names.target().to_string(),
            size: self.size,
            sha256: self.sha256,
            verified_by: self.verified_by,
            merge: self.merged_by,
            chunks_total: self.chunks_total,
            chunks_sent: self.sent.chunks.load(Ordering::Relaxed),
            chunks_skipped: self.chunks_skipped.unwrap_or(0),
            bytes_sent: self.sent.bytes.load(Ordering::Relaxed),
            resumed: self.resumed,
            seconds: self.seconds.clone(),
            pace: self.pace,
            attributes: AttributesReport {
                mode: self.dressed.mode,
                owner: self.dressed.owner,
                changed: false,
                before: self
                    .began_from
                    .and_then(|(_, existing)| existing)
                    .map(|attributes| BeforeReport { attributes, sha256: self.existing_sha256 }),
            },
        }
    }
}
