//! `haul put`: one file onto one host.

use std::path::PathBuf;
use std::sync::Arc;

use super::commit::target_now;
use super::connect::Link;
use super::decide::{Decision, decide};
use super::failure::{Failure, FailureKind, Phase};
use super::guard::Guard;
use super::leftovers;
use super::lock::holder;
use super::monitor::Monitor;
use super::options::PutOptions;
use super::report::{PutReport, PutStatus, VerifiedBy};
use super::retry::Retry;
use super::site::Site;
use super::source::Source;
use super::stop::Stop;
use super::target::{Meaning, Target, resolve};
use super::temp;
use super::transfer::Transfer;
use crate::model::digest::Digest;
use crate::model::lock_file::SourceNote;
use crate::model::manifest::Manifest;
use crate::model::names::Names;
use crate::model::remote_path::RemotePath;
use crate::remote::Connector;

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
    let mut link = Link::new(connector, monitor.clone(), stop.clone(), options.retry.stall_timeout);
    let mut retry = Retry::new(options.retry.retries, monitor.clone(), stop.clone());
    let mut put = Put {
        transfer: Transfer::new(source.size(), options.clone(), monitor.clone()),
        source,
        job,
        options,
        monitor,
        stop,
        guard: None,
        hashed: None,
        path: None,
    };
    let outcome = loop {
        let attempt = async {
            let (connection, files) = link.get().await?;
            put.attempt(connection, files).await
        };
        match attempt.await {
            Err(failure) if failure.kind == FailureKind::Link => {
                link.lose();
                if let Err(failure) = retry.pause(failure, put.transfer.progress()).await {
                    break Err(failure);
                }
            }
            outcome => break outcome,
        }
    };
    if let (Some(guard), Some(files)) = (put.guard.take(), link.files()) {
        let released = guard.release(files.as_ref()).await;
        if outcome.is_ok() {
            released?;
        }
    }
    link.close().await;
    outcome
}

struct Put {
    job: PutJob,
    source: Source,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
    transfer: Transfer,
    guard: Option<Guard>,
    /// The source, where all of it was read before the upload.
    hashed: Option<Manifest>,
    /// The target, once it is resolved.
    path: Option<RemotePath>,
}

impl Put {
    async fn attempt(
        &mut self,
        connection: Arc<dyn crate::remote::Connection>,
        files: Arc<dyn crate::remote::Files>,
    ) -> Result<PutReport, Failure> {
        let host = connection_host(self);
        let target = match &self.path {
            Some(path) if self.guard.is_some() => Target { path: path.clone(), attributes: None },
            _ => {
                let meaning = Meaning {
                    source_name: Some(&self.source.description.name),
                    into_directory: self.job.into_directory,
                };
                resolve(files.as_ref(), &host, &self.job.destination, meaning).await?
            }
        };
        self.path = Some(target.path.clone());
        let names = Names::new(&target.path, &self.options.user);
        let site = Site::new(&host, names, connection, files);
        site.prove_shell_meanwhile(&self.monitor);

        if self.guard.is_none() {
            if let Some(report) = self.look_first(&site, &target).await? {
                return Ok(report);
            }
            if self.options.dry_run {
                return Ok(self.report(&site, PutStatus::WouldUpload, None, None));
            }
        }
        let guarded = self.guard.is_some();
        let guard = match &mut self.guard {
            Some(guard) => {
                guard.renew(&site).await?;
                guard
            }
            none => {
                let note = SourceNote {
                    name: self.source.description.name.clone(),
                    identity: self.source.description.identity.to_string(),
                };
                let guard = Guard::acquire(&site, note, &self.options.lock, &self.monitor, &self.stop).await?;
                none.insert(guard)
            }
        };
        let guard = guard.clone();
        guard.watch(self.locked(&site, target, guarded)).await
    }

    /// Whether there is anything to do, before anything is changed on the target.
    async fn look_first(&mut self, site: &Site, target: &Target) -> Result<Option<PutReport>, Failure> {
        let state = match target.attributes {
            Some(_) => temp::read(site, Phase::Survey).await?,
            None => None,
        };
        let under_way = state.as_ref().and_then(|state| state.manifest.as_ref());
        let same_source = under_way.filter(|m| m.source.identity == self.source.description.identity);
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
                Ok(None)
            }
            Decision::Done { status, sha256, verified_by } => {
                if status == PutStatus::Unchanged && state.is_some() && !self.options.dry_run {
                    leftovers::clean_after_commit(site, &self.options.lock, &self.monitor, &self.stop).await?;
                }
                Ok(Some(self.report(site, status, sha256, verified_by)))
            }
        }
    }

    /// With the lock held: what changed since the first look decides anew.
    async fn locked(&mut self, site: &Site, target: Target, again: bool) -> Result<PutReport, Failure> {
        let guard = self.guard.clone().ok_or_else(|| {
            Failure::new(FailureKind::Failed, Phase::Lock, site.place(), "the lock is not held")
        })?;
        if again && self.transfer.was_committed(site, &guard).await? {
            return self.transfer.after_commit(site, &guard).await;
        }
        let (before, attributes) = target_now(site).await?;
        let first_look = target.attributes.map(|a| super::commit::baseline(&a));
        if !again && attributes.is_some() && first_look != Some(before) {
            let decision = decide(site, &self.source, attributes, None, &self.options, &self.monitor).await?;
            match decision {
                Decision::Upload(hashed) => self.hashed = hashed,
                Decision::Done { status, sha256, verified_by } => {
                    leftovers::remove_all(site, &guard).await?;
                    return Ok(self.report(site, status, sha256, verified_by));
                }
            }
        }
        self.transfer.run(site, &guard, &self.source, before, attributes, self.hashed.take()).await
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
