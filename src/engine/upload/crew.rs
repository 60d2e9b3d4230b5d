//! The lanes of one upload: begun one by one, on the first connection and on others, which
//! may die without harm.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use super::lane::{self, Ground, Lane, LaneError, Work};
use crate::engine::failure::{Failure, Phase};
use crate::engine::further::Further;
use crate::engine::monitor::{Level, Monitor, Notice};
use crate::engine::site::{EarlyFiles, Site};

type Tasks = JoinSet<Result<(), Failure>>;

pub struct Crew {
    site: Site,
    monitor: Arc<dyn Monitor>,
    work: Arc<Work>,
    ground: Ground,
    lanes: Lanes,
    /// Beside the first.
    connections: AtomicU64,
}

/// All lanes that were begun, in any order.
#[derive(Clone, Default)]
pub struct Lanes(Arc<Mutex<Vec<Arc<Lane>>>>);

impl Lanes {
    fn add(&self, lane: &Arc<Lane>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(lane.clone());
    }

    pub fn all(&self) -> Vec<Arc<Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Crew {
    pub fn new(site: Site, monitor: Arc<dyn Monitor>, work: Arc<Work>, ground: Ground) -> Crew {
        Crew { site, monitor, work, ground, lanes: Lanes::default(), connections: AtomicU64::new(0) }
    }

    pub fn lanes(&self) -> Lanes {
        self.lanes.clone()
    }

    /// A lane in a further channel of the first connection. It ends the upload if it fails.
    pub fn start_here(&self, opened: Option<EarlyFiles>, tasks: &mut Tasks) {
        let (site, work, ground) = (self.site.clone(), self.work.clone(), self.ground.clone());
        let lanes = self.lanes.clone();
        self.work.sent.meter.carried_by(1);
        tasks.spawn(async move {
            let working = async {
                let files = match opened {
                    Some(opened) => opened.ready().await?,
                    None => site.further_files().await?,
                };
                let lane = Arc::new(Lane::new(files, ground));
                lanes.add(&lane);
                lane::work(&lane, &work).await
            };
            working.await.map_err(|error| failure(&site, error))
        });
    }

    /// A lane on another connection. When that dies, the others take over what it had.
    pub fn start_on(&self, further: Arc<Further>, tasks: &mut Tasks) {
        let lane = Arc::new(Lane::new(further.files.clone(), self.ground.clone()));
        self.lanes.add(&lane);
        let others = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        self.work.sent.meter.carried_by(1 + others);
        let (site, work, monitor) = (self.site.clone(), self.work.clone(), self.monitor.clone());
        tasks.spawn(async move {
            match lane::work(&lane, &work).await {
                Err(LaneError::Remote(error)) if error.is_link() => {
                    lane.bury();
                    further.bury();
                    let text = format!(
                        "{}: one of the connections is lost; the others go on: {}",
                        site.place(),
                        error.message
                    );
                    monitor.notice(Notice { level: Level::Info, text });
                    Ok(())
                }
                outcome => outcome.map_err(|error| failure(&site, error)),
            }
        });
    }
}

fn failure(site: &Site, error: LaneError) -> Failure {
    match error {
        LaneError::Remote(error) => Failure::remote(Phase::Upload, site.place(), &error),
        LaneError::Source(failure) => failure,
    }
}
