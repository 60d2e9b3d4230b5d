//! `haul put`: one file onto one host.

use std::path::PathBuf;
use std::sync::Arc;

use super::asked::{self, Asked};
use super::attempts::{self, Job};
use super::commit::{baseline, target_now};
use super::connect::{Link, or_stopped};
use super::decide::{Decision, decide};
use super::failure::{Failure, Phase};
use super::further::{self, FurtherConnections, Path};
use super::guard::{Guard, Request};
use super::hash::hash_existing;
use super::leftovers;
use super::limiter::Limiter;
use super::monitor::Monitor;
use super::options::PutOptions;
use super::report::{AttributesReport, BeforeReport, PutReport, PutStatus, VerifiedBy};
use super::site::Site;
use super::source::Source;
use super::stop::Stop;
use super::survey::Survey;
use super::target::{Meaning, Target, absolute, resolve_written};
use super::transfer::Transfer;
use crate::model::digest::Digest;
use crate::model::lock_file::SourceNote;
use crate::model::manifest::{Baseline, Manifest};
use crate::model::names::Names;
use crate::model::plan::Plan;
use crate::model::remote_path::RemotePath;
use crate::remote::Connector;
use crate::remote::files::Attributes;

/// What is uploaded and where to.
#[derive(Debug, Clone)]
pub struct PutJob {
    pub source: PathBuf,
    /// As the person wrote it: may be relative to the remote home, start with `~/`, be
    /// empty (the home), or name a directory, which then takes the source's name.
    pub destination: Vec<u8>,
    /// Several sources: the destination has to be a directory.
    pub into_directory: bool,
}

/// Uploads, or goes on with an upload. Whatever happens, the target is the old file or
/// the new one, whole; published chunks stay for the next run, and the lock is given
/// back unless the link is gone for good.
pub async fn put(
    connector: Arc<dyn Connector>,
    job: PutJob,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<PutReport, Failure> {
    let source = Source::open(&job.source)?;
    let shared = Shared { source, limiter: Arc::new(Limiter::new(options.bwlimit)) };
    put_shared(connector, job, shared, options, monitor, stop).await
}

/// What uploads to several hosts have in common.
#[derive(Clone)]
pub struct Shared {
    /// This host's own: see [`Source::for_host`].
    pub source: Source,
    pub limiter: Arc<Limiter>,
}

/// As [`put`], with `job.source` opened already.
pub async fn put_shared(
    connector: Arc<dyn Connector>,
    job: PutJob,
    shared: Shared,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<PutReport, Failure> {
    let Shared { source, limiter } = shared;
    let retries = options.retry.retries;
    let put = Put {
        transfer: Transfer::new(source.size(), options.clone(), limiter, monitor.clone()),
        source,
        job,
        options,
        monitor: monitor.clone(),
        stop: stop.clone(),
        request: Request::default(),
        guard: None,
        hashed: None,
        present_bytes: 0,
        path: None,
    };
    attempts::run(put, connector, retries, monitor, stop).await
}

struct Put {
    job: PutJob,
    source: Source,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
    transfer: Transfer,
    request: Request,
    guard: Option<Guard>,
    /// The source, where all of it was read before the upload.
    hashed: Option<Manifest>,
    /// What an earlier run left on the target and will not have to be sent.
    present_bytes: u64,
    /// The target, once the lock beside it is held.
    path: Option<RemotePath>,
}

impl Job for Put {
    type Report = PutReport;

    fn progress(&self) -> u64 {
        self.transfer.progress()
    }

    fn take_guard(&mut self) -> Option<Guard> {
        self.guard.take()
    }

    async fn attempt(&mut self, link: &mut Link) -> Result<PutReport, Failure> {
        let stop = self.stop.clone();
        if !self.options.dry_run {
            link.open_second_at_once();
        }
        let (connection, files) = link.get().await?;
        let second = link.take_second();
        if let (Some(guard), Some(path)) = (self.guard.clone(), self.path.clone()) {
            let names = Names::new(&path, &self.options.user);
            let site = Site::new(&link.host(), names, connection, files);
            site.prove_shell_meanwhile(&self.monitor);
            self.transfer.open_channel(&site, second);
            self.open_further(link, &site);
            guard.renew(&site).await?;
            return guard.watch(self.go_on(&site, &guard)).await;
        }
        let looking = async {
            let meaning = Meaning {
                source_name: Some(&self.source.description.name),
                into_directory: self.job.into_directory,
            };
            let host = link.host();
            let written = absolute(files.as_ref(), &host, &self.job.destination).await?;
            let at = |path: &RemotePath| {
                let names = Names::new(path, &self.options.user);
                Site::new(&host, names, connection.clone(), files.clone())
            };
            let size = self.source.size();
            // Most destinations are the file itself: what stands beside it is asked for at once.
            let guess = (!written.names_directory() && !self.job.into_directory).then(|| at(&written));
            let guessing = async {
                let site = guess?;
                site.prove_shell_meanwhile(&self.monitor);
                let survey = Survey::of(&site, size).await;
                Some((site, survey))
            };
            let (target, guessed) = tokio::join!(
                biased;
                resolve_written(files.as_ref(), &host, &written, meaning),
                guessing
            );
            let target = target?;
            let (site, survey) = match guessed {
                Some(guessed) if target.path == written => guessed,
                _ => {
                    let site = at(&target.path);
                    site.prove_shell_meanwhile(&self.monitor);
                    let survey = Survey::of(&site, size).await;
                    (site, survey)
                }
            };
            let is_locked = survey.is_locked();
            if !self.options.dry_run {
                self.transfer.open_channel(&site, second);
            }
            let done = self.look_first(&site, &target, survey).await?;
            Ok((site, target, is_locked, done))
        };
        let (site, target, is_locked, done) = or_stopped(&stop, Phase::Survey, link.host(), looking).await?;
        if let Some(report) = done {
            return Ok(report);
        }
        // Whoever finds another run's lock may not send anything.
        if !is_locked {
            self.open_further(link, &site);
        }
        // Where it is not known how the target can be replaced, that is found out first.
        // And who had to wait for the lock looks again before anything is sent.
        if self.request.nothing_there && (target.attributes.is_none() || site.files.features().posix_rename) {
            let made = self.request.made();
            let before = target.attributes.map_or(Baseline::Absent, |attributes| baseline(&attributes));
            let hashed = self.hashed.as_ref();
            self.request.merged =
                self.transfer.begin_early(&site, &self.source, made, hashed, before).await?;
        }
        let note = SourceNote {
            name: self.source.description.name.clone(),
            identity: self.source.description.identity.to_string(),
        };
        let (options, monitor) = (&self.options.lock, &self.monitor);
        let guard = Guard::acquire(&mut self.request, &site, note, options, monitor, &stop).await;
        if guard.is_err() {
            self.transfer.give_up_early();
        }
        let guard = guard?;
        if is_locked {
            self.open_further(link, &site);
        }
        self.guard = Some(guard.clone());
        self.path = Some(target.path.clone());
        let (fenced, seen) = tokio::join!(guard.fence(&site, &self.monitor), target_now(&site));
        fenced?;
        // Where there was another run, it may have put its file in place meanwhile.
        let seen = if guard.held.is_alone() { seen? } else { target_now(&site).await? };
        guard.watch(self.begin(&site, &guard, target, seen)).await
    }
}

impl Put {
    /// Whether there is anything to do, before anything is changed on the target.
    async fn look_first(
        &mut self,
        site: &Site,
        target: &Target,
        survey: Survey,
    ) -> Result<Option<PutReport>, Failure> {
        self.request.nothing_there = survey.nothing_there();
        let Survey { state, room, .. } = survey;
        let state = state?;
        state.as_ref().map_or(Ok(()), |state| state.check_version(site))?;
        let asked = Asked::find(site, &self.options, Some(&self.source), &self.monitor).await?;
        self.transfer.ask(asked);
        let under_way = state.as_ref().and_then(|state| state.manifest.as_ref());
        let same_source = under_way.filter(|m| m.source.identity == self.source.description.identity);
        self.present_bytes = state.as_ref().zip(same_source).map_or(0, |(state, manifest)| {
            let geometry = manifest.geometry();
            Plan::new(geometry, manifest.known(), state.found(geometry)).present_bytes()
        });
        let decision = decide(
            site,
            &self.source,
            target.attributes,
            same_source.map(|manifest| manifest.baseline),
            &self.options,
            &self.monitor,
        );
        match decision.await? {
            Decision::Upload(hashed) => {
                self.hashed = hashed;
                let sha256 = hash_existing(site, target.attributes, &self.options, &self.monitor).await?;
                self.transfer.note_existing(sha256);
                if self.options.dry_run {
                    let attributes = would_be(asked, target.attributes, sha256);
                    let report = self.report(site, PutStatus::WouldUpload, None, None);
                    return Ok(Some(PutReport { attributes, ..report }));
                }
                if state.is_none() {
                    room?;
                }
                Ok(None)
            }
            Decision::Done { status, sha256, verified_by } => {
                let mut attributes = as_before(target.attributes, sha256);
                if let Some(seen) = target.attributes
                    && status == PutStatus::Unchanged
                    && asked.differs_from(&seen)
                {
                    attributes.changed = true;
                    let now = if self.options.dry_run {
                        asked.applied_to(&seen)
                    } else {
                        let (request, lock) = (&mut self.request, &self.options.lock);
                        asked::adjust(request, site, asked, seen, lock, &self.monitor, &self.stop).await?
                    };
                    (attributes.mode, attributes.owner) = (now.mode, now.owner);
                } else if status == PutStatus::Unchanged && state.is_some() && !self.options.dry_run {
                    let (lock, monitor) = (&self.options.lock, &self.monitor);
                    leftovers::clean_after_commit(&mut self.request, site, lock, monitor, &self.stop).await?;
                }
                let report = self.report(site, status, sha256, verified_by);
                Ok(Some(PutReport { attributes, ..report }))
            }
        }
    }

    /// In the background, so that they are there when the first byte is.
    fn open_further(&mut self, link: &Link, site: &Site) {
        let bytes = self.source.size().saturating_sub(self.present_bytes);
        let rate_is_limited = self.options.bwlimit.is_some();
        let round_trip = site.files.round_trip();
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let way = Path { round_trip, endures_loss: site.connection.endures_loss(), processors };
        let count = further::wanted(self.options.connections, bytes, rate_is_limited, way);
        self.transfer.use_further(FurtherConnections::make(link.connector(), count, &self.monitor));
    }

    /// With the lock held and older runs fenced: what changed since the first look
    /// decides anew.
    async fn begin(
        &mut self,
        site: &Site,
        guard: &Guard,
        target: Target,
        seen: (Baseline, Option<Attributes>),
    ) -> Result<PutReport, Failure> {
        let (before, attributes) = seen;
        let first_look = target.attributes.map_or(Baseline::Absent, |attributes| baseline(&attributes));
        if attributes.is_some() && first_look != before {
            let decision = decide(site, &self.source, attributes, None, &self.options, &self.monitor).await?;
            match decision {
                Decision::Upload(hashed) => self.hashed = hashed,
                Decision::Done { status, sha256, verified_by } => {
                    leftovers::remove_all(site, guard).await?;
                    let mut about = as_before(attributes, sha256);
                    let asked = self.transfer.asked();
                    if let Some(seen) = attributes
                        && status == PutStatus::Unchanged
                        && asked.differs_from(&seen)
                    {
                        let now = asked::set(site, asked, seen).await?;
                        about.changed = true;
                        (about.mode, about.owner) = (now.mode, now.owner);
                    }
                    let report = self.report(site, status, sha256, verified_by);
                    return Ok(PutReport { attributes: about, ..report });
                }
            }
        }
        self.transfer.begin(before, attributes, self.hashed.take());
        self.transfer.run(site, guard, Some(&self.source)).await
    }

    /// After a link that died while the lock was held.
    async fn go_on(&mut self, site: &Site, guard: &Guard) -> Result<PutReport, Failure> {
        guard.fence(site, &self.monitor).await?;
        if !self.transfer.has_begun() {
            let seen = target_now(site).await?;
            let target = Target { path: site.names.target().clone(), attributes: seen.1 };
            return self.begin(site, guard, target, seen).await;
        }
        if self.transfer.was_committed(site).await? {
            return self.transfer.after_commit(site, guard, None).await;
        }
        self.transfer.run(site, guard, Some(&self.source)).await
    }

    fn report(
        &self,
        site: &Site,
        status: PutStatus,
        sha256: Option<Digest>,
        verified_by: Option<VerifiedBy>,
    ) -> PutReport {
        PutReport { status, sha256, verified_by, ..self.transfer.report(site) }
    }
}

/// Of a target that stays as it is.
fn as_before(existing: Option<Attributes>, sha256: Option<Digest>) -> AttributesReport {
    AttributesReport {
        mode: existing.and_then(|existing| existing.mode),
        owner: existing.and_then(|existing| existing.owner),
        changed: false,
        before: existing.map(|attributes| BeforeReport { attributes, sha256 }),
    }
}

/// Of a target that an upload would replace: it keeps what nothing else was asked of. What
/// a new file would get beyond that is not known without making one.
fn would_be(asked: Asked, existing: Option<Attributes>, sha256: Option<Digest>) -> AttributesReport {
    let after = existing.map(|existing| asked.applied_to(&existing));
    AttributesReport {
        mode: after.and_then(|after| after.mode).or(asked.mode),
        owner: after.and_then(|after| after.owner),
        ..as_before(existing, sha256)
    }
}
