//! `haul merge`: finish an upload whose chunks are all there, without the source.

use std::sync::Arc;

use super::attempts::{self, Job};
use super::commit::target_now;
use super::connect::Link;
use super::failure::{Failure, FailureKind, Phase};
use super::guard::{Guard, Request};
use super::limiter::Limiter;
use super::monitor::Monitor;
use super::open::open_named;
use super::options::{IfExists, PutOptions};
use super::report::PutReport;
use super::site::Site;
use super::stop::Stop;
use super::temp;
use super::transfer::Transfer;
use crate::model::lock_file::SourceNote;
use crate::model::manifest::Manifest;
use crate::remote::Connector;

/// `destination` as in [`PutJob`](super::put::PutJob), but it names the file itself. A
/// target that is no longer what it was when the upload began is replaced only with
/// `IfExists::Replace`.
pub async fn finish(
    connector: Arc<dyn Connector>,
    destination: Vec<u8>,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<PutReport, Failure> {
    let retries = options.retry.retries;
    let limiter = Arc::new(Limiter::new(options.bwlimit));
    let finish = Finish {
        transfer: Transfer::new(0, options.clone(), limiter, monitor.clone()),
        destination,
        options,
        monitor: monitor.clone(),
        stop: stop.clone(),
        request: Request::default(),
        guard: None,
    };
    attempts::run(finish, connector, retries, monitor, stop).await
}

struct Finish {
    destination: Vec<u8>,
    options: PutOptions,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
    transfer: Transfer,
    request: Request,
    guard: Option<Guard>,
}

impl Job for Finish {
    type Report = PutReport;

    fn progress(&self) -> u64 {
        self.transfer.progress()
    }

    fn take_guard(&mut self) -> Option<Guard> {
        self.guard.take()
    }

    async fn attempt(&mut self, link: &mut Link) -> Result<PutReport, Failure> {
        let (site, _) = open_named(link, &self.destination, &self.options.user).await?;
        site.prove_shell_meanwhile(&self.monitor);
        let guard = match &self.guard {
            Some(guard) => {
                guard.renew(&site).await?;
                guard.clone()
            }
            None => {
                // Nothing is made on a target where there is nothing to finish.
                let manifest = self.manifest(&site).await?;
                let note = SourceNote {
                    name: manifest.source.name.clone(),
                    identity: manifest.source.identity.to_string(),
                };
                let lock = &self.options.lock;
                Guard::acquire(&mut self.request, &site, note, lock, &self.monitor, &self.stop).await?
            }
        };
        self.guard = Some(guard.clone());
        guard.watch(self.locked(&site, &guard)).await
    }
}

impl Finish {
    async fn manifest(&self, site: &Site) -> Result<Manifest, Failure> {
        temp::read(site, Phase::Survey).await?.and_then(|state| state.manifest).ok_or_else(|| {
            Failure::new(FailureKind::Failed, Phase::Survey, site.place(), "there is no upload to finish")
                .next_step("see haul status; --user-id names another user's")
        })
    }

    async fn locked(&mut self, site: &Site, guard: &Guard) -> Result<PutReport, Failure> {
        guard.fence(site, &self.monitor).await?;
        if self.transfer.has_begun() {
            if self.transfer.was_committed(site).await? {
                return self.transfer.after_commit(site, guard, None).await;
            }
            return self.transfer.run(site, guard, None).await;
        }
        let manifest = self.manifest(site).await?;
        let (before, attributes) = target_now(site).await?;
        if before != manifest.baseline && !matches!(self.options.if_exists, IfExists::Replace) {
            return Err(Failure::new(
                FailureKind::Exists,
                Phase::Survey,
                site.place(),
                "the target is not what it was when the upload began",
            )
            .next_step("use --if-exists replace to replace it"));
        }
        self.transfer.begin(before, attributes, None);
        self.transfer.run(site, guard, None).await
    }
}
