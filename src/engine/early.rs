//! An upload that begins before its lock is won.
//!
//! Nobody but this run writes into its private directory, so what is sent there needs no
//! lock: on a long link the data is on its way while lock, fence and manifest take their
//! round trips. No chunk counts before the [`Permit`]; without it all of this goes with the
//! private directory.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::along::Along;
use super::board::Board;
use super::failure::{Failure, FailureKind, Phase};
use super::lock::Made;
use super::merge::write_private_record;
use super::monitor::Monitor;
use super::placing::prove_placing;
use super::prepare::MERGED_MODE;
use super::receipts::Receipts;
use super::site::Site;
use super::upload::{ManifestFile, Permit, Upload};
use crate::model::manifest::Manifest;
use crate::model::names::RunNames;
use crate::model::run_id::RunId;
use crate::remote::files::OpenMode;

/// Of those that a run makes; only the first is begun early.
const FIRST_ATTEMPT: u64 = 1;

pub struct Early {
    pub generation: RunId,
    pub manifest: Arc<ManifestFile>,
    pub board: Arc<Board>,
    /// Once the lock is held.
    pub along: Option<Along>,
    /// Where the merged file stands, once it does.
    begun: watch::Receiver<Option<RunNames>>,
    permit: oneshot::Sender<Permit>,
    sending: Task<()>,
    groundwork: Task<Groundwork>,
    site: Site,
}

/// What else needs no lock, since it stands in the private directory.
pub struct Groundwork {
    /// See [`prove_placing`].
    pub several_handles: bool,
    pub receipts: Receipts,
}

struct Task<T>(JoinHandle<Result<T, Failure>>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Task<T> {
    async fn outcome(&mut self, site: &Site) -> Result<T, Failure> {
        match (&mut self.0).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Failure::new(FailureKind::Failed, Phase::Upload, site.place(), error)),
        }
    }
}

impl Early {
    /// Begins as soon as `made` tells of a private directory. `upload` makes what goes into
    /// the merged file of `generation` there.
    pub fn start(
        site: &Site,
        mut made: watch::Receiver<Option<Made>>,
        generation: RunId,
        manifest: Arc<ManifestFile>,
        board: Arc<Board>,
        monitor: Arc<dyn Monitor>,
        upload: impl FnOnce(RunNames) -> Upload + Send + 'static,
    ) -> Early {
        let (permit, permitted) = oneshot::channel();
        let (begin, begun) = watch::channel(None);
        let preparing = {
            let (site, mut made, manifest) = (site.clone(), made.clone(), manifest.clone());
            async move {
                let Made { run, .. } = private_directory(&site, &mut made).await?;
                lay_groundwork(&site, &run, generation, &manifest).await
            }
        };
        let here = site.clone();
        let sending = async move {
            let Made { run, has_merged } = private_directory(&here, &mut made).await?;
            if !has_merged {
                let failed = here.failed(Phase::Upload);
                let how = OpenMode::CREATE_NEW;
                let created = here.files.open(&run.merged(generation), how, Some(MERGED_MODE)).await;
                here.files.close_unheard(created.map_err(&failed)?).await.map_err(&failed)?;
            }
            begin.send_replace(Some(run.clone()));
            let upload = upload(run);
            monitor.phase(Phase::Upload, 0, upload.plan.geometry.size());
            upload.run(permitted).await
        };
        Early {
            generation,
            manifest,
            board,
            along: None,
            begun,
            permit,
            sending: Task(tokio::spawn(sending)),
            groundwork: Task(tokio::spawn(preparing)),
            site: site.clone(),
        }
    }

    /// Whether it sends into the private directory of `run`.
    pub async fn is_of(&mut self, run: &RunNames) -> bool {
        match self.begun.wait_for(Option::is_some).await {
            Ok(begun) => begun.as_ref().is_some_and(|begun| begun.directory() == run.directory()),
            // It ended before.
            Err(_) => false,
        }
    }

    /// Once; what was laid for this run.
    pub async fn groundwork(&mut self) -> Result<Groundwork, Failure> {
        self.groundwork.outcome(&self.site).await
    }

    /// Lets it publish what it has sent, and returns when all of it is.
    pub async fn go_on(mut self, permit: Permit) -> Result<(), Failure> {
        // One that has failed says why.
        let _ = self.permit.send(permit);
        self.sending.outcome(&self.site).await
    }
}

async fn private_directory(site: &Site, made: &mut watch::Receiver<Option<Made>>) -> Result<Made, Failure> {
    match made.wait_for(Option::is_some).await.ok().and_then(|made| made.clone()) {
        Some(made) => Ok(made),
        None => {
            let cause = "it was given up before it began";
            Err(Failure::new(FailureKind::Failed, Phase::Upload, site.place(), cause))
        }
    }
}

async fn lay_groundwork(
    site: &Site,
    run: &RunNames,
    generation: RunId,
    manifest: &ManifestFile,
) -> Result<Groundwork, Failure> {
    let failed = site.failed(Phase::Survey);
    let Manifest { baseline, .. } = manifest.manifest();
    let geometry = manifest.manifest().geometry();
    let (several_handles, (), (), receipts) = tokio::try_join!(
        async { prove_placing(site, run, FIRST_ATTEMPT).await.map_err(&failed) },
        async { manifest.write_private(site, run, baseline).await.map_err(&failed) },
        write_private_record(site, run, geometry, 0, generation),
        async { Receipts::prepare(site, run, FIRST_ATTEMPT).await.map_err(&failed) },
    )?;
    Ok(Groundwork { several_handles, receipts })
}
