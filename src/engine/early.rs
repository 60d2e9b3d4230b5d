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
use super::monitor::Monitor;
use super::prepare::MERGED_MODE;
use super::site::Site;
use super::upload::{ManifestFile, Permit, Upload};
use crate::model::names::RunNames;
use crate::model::run_id::RunId;
use crate::remote::files::OpenMode;

pub struct Early {
    pub generation: RunId,
    pub manifest: Arc<ManifestFile>,
    pub board: Arc<Board>,
    /// Once the lock is held.
    pub along: Option<Along>,
    /// Where the merged file stands, once it does.
    begun: watch::Receiver<Option<RunNames>>,
    permit: oneshot::Sender<Permit>,
    task: Task,
    site: Site,
}

struct Task(JoinHandle<Result<(), Failure>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Early {
    /// Begins as soon as `made` tells of a private directory. `upload` makes what goes into
    /// the merged file of `generation` there.
    pub fn start(
        site: &Site,
        mut made: watch::Receiver<Option<RunNames>>,
        generation: RunId,
        manifest: Arc<ManifestFile>,
        board: Arc<Board>,
        monitor: Arc<dyn Monitor>,
        upload: impl FnOnce(RunNames) -> Upload + Send + 'static,
    ) -> Early {
        let (permit, permitted) = oneshot::channel();
        let (begin, begun) = watch::channel(None);
        let here = site.clone();
        let task = tokio::spawn(async move {
            let run = match made.wait_for(Option::is_some).await {
                Ok(run) => run.clone(),
                Err(_) => None,
            };
            let Some(run) = run else { return Err(given_up(&here)) };
            let failed = here.failed(Phase::Upload);
            let how = OpenMode::CREATE_NEW;
            let created = here.files.open(&run.merged(generation), how, Some(MERGED_MODE)).await;
            here.files.close_unheard(created.map_err(&failed)?).await.map_err(&failed)?;
            begin.send_replace(Some(run.clone()));
            let upload = upload(run);
            monitor.phase(Phase::Upload, 0, upload.plan.geometry.size());
            upload.run(permitted).await
        });
        Early {
            generation,
            manifest,
            board,
            along: None,
            begun,
            permit,
            task: Task(task),
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

    /// Lets it publish what it has sent, and returns when all of it is.
    pub async fn go_on(mut self, permit: Permit) -> Result<(), Failure> {
        // One that has failed says why.
        let _ = self.permit.send(permit);
        match (&mut self.task.0).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Failure::new(FailureKind::Failed, Phase::Upload, self.site.place(), error)),
        }
    }
}

fn given_up(site: &Site) -> Failure {
    Failure::new(FailureKind::Failed, Phase::Upload, site.place(), "it was given up before it began")
}
