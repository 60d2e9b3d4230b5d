//! Makes a chunk count: the last step, and only after everything was acknowledged.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::crew::Lanes;
use super::{Destination, ManifestFile};
use crate::engine::board::Published;
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::guard::Guard;
use crate::engine::io::publish;
use crate::engine::receipts::Receipts;
use crate::engine::site::Site;
use crate::model::chunk::Geometry;
use crate::model::names::RunNames;
use crate::model::remote_path::RemotePath;
use crate::remote::RemoteError;

pub struct Publisher {
    pub site: Site,
    pub guard: Guard,
    pub run: RunNames,
    pub attempt: u64,
    pub destination: Destination,
    pub geometry: Geometry,
    pub manifest: Arc<ManifestFile>,
    pub receipts: Receipts,
    pub lanes: Lanes,
}

impl Publisher {
    pub async fn publish(self: Arc<Self>, n: u64) -> Result<(u64, Published), Failure> {
        self.manifest.wait_written(n).await;
        self.guard.ensure_fresh().await?;
        match &self.destination {
            Destination::Stored => {
                self.publish_stored(n).await?;
                Ok((n, Published::Stored))
            }
            Destination::Placed { generation, .. } => {
                self.receipts.make(n, *generation).await.map_err(self.failed())?;
                Ok((n, Published::Placed))
            }
        }
    }

    async fn publish_stored(&self, n: u64) -> Result<(), Failure> {
        let lanes = self.lanes.all();
        try_join_all(lanes.iter().map(|lane| lane.close(n))).await.map_err(self.failed())?;
        let part = self.run.part(n, self.attempt);
        let files = self.site.files.as_ref();
        let size = files.lstat(&part).await.map_err(self.failed())?.size;
        let length = self.geometry.length(n);
        if size.is_some_and(|size| size != length) {
            return Err(not_all_there(&self.site, &part, length));
        }
        publish(files, &part, &self.site.names.chunk(n)).await.map_err(self.failed())
    }

    fn failed(&self) -> impl Fn(RemoteError) -> Failure + '_ {
        self.site.failed(Phase::Upload)
    }
}

/// With every byte acknowledged, up to `end` in the merged file.
pub async fn close(
    site: &Site,
    lanes: &Lanes,
    destination: &Destination,
    end: Option<u64>,
) -> Result<(), Failure> {
    let closing = async {
        let lanes = lanes.all();
        let closing = lanes.iter().map(|lane| lane.close_all());
        try_join_all(closing).await.map(drop).map_err(site.failed(Phase::Upload))
    };
    let (Destination::Placed { merged, .. }, Some(end)) = (destination, end) else {
        return closing.await;
    };
    let files = site.files.as_ref();
    // There are servers that tell a file's size only once it is closed.
    let looked = if files.features().in_order {
        let (closed, looked) = tokio::join!(closing, files.lstat(merged));
        closed.map(|()| looked)?
    } else {
        closing.await?;
        files.lstat(merged).await
    };
    match looked.map_err(site.failed(Phase::Upload))?.size {
        Some(size) if size < end => Err(not_all_there(site, merged, end)),
        _ => Ok(()),
    }
}

fn not_all_there(site: &Site, path: &RemotePath, bytes: u64) -> Failure {
    Failure::new(
        FailureKind::Storage,
        Phase::Upload,
        site.place_of(path),
        format!("not all {bytes} bytes are there, although every write was acknowledged"),
    )
    .next_step("look for a full disk or a quota on the target")
}
