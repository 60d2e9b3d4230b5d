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
use crate::model::remote_path::RemotePath;
use crate::remote::RemoteError;

pub struct Publisher {
    pub site: Site,
    pub guard: Guard,
    pub attempt: u64,
    pub destination: Destination,
    pub geometry: Geometry,
    pub manifest: Arc<ManifestFile>,
    pub receipts: Receipts,
    pub lanes: Lanes,
}

impl Publisher {
    pub async fn publish(&self, n: u64) -> Result<(u64, Published), Failure> {
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
        let part = self.guard.run_names().part(n, self.attempt);
        let files = self.site.files.as_ref();
        let size = files.lstat(&part).await.map_err(self.failed())?.size;
        let length = self.geometry.length(n);
        if size.is_some_and(|size| size != length) {
            return Err(self.not_all_there(&part, length));
        }
        publish(files, &part, &self.site.names.chunk(n)).await.map_err(self.failed())
    }

    /// With every byte acknowledged, up to chunk `last`.
    pub async fn close(&self, last: Option<u64>) -> Result<(), Failure> {
        let lanes = self.lanes.all();
        let closing = async {
            try_join_all(lanes.iter().map(|lane| lane.close_all())).await.map_err(self.failed()).map(drop)
        };
        let (Destination::Placed { merged, .. }, Some(last)) = (&self.destination, last) else {
            return closing.await;
        };
        let files = self.site.files.as_ref();
        // There are servers that tell a file's size only once it is closed.
        let looked = if files.features().in_order {
            let (closed, looked) = tokio::join!(closing, files.lstat(merged));
            closed.map(|()| looked)?
        } else {
            closing.await?;
            files.lstat(merged).await
        };
        let (size, end) = (looked.map_err(self.failed())?.size, self.geometry.end(last));
        if size.is_some_and(|size| size < end) { Err(self.not_all_there(merged, end)) } else { Ok(()) }
    }

    fn not_all_there(&self, path: &RemotePath, bytes: u64) -> Failure {
        Failure::new(
            FailureKind::Storage,
            Phase::Upload,
            self.site.place_of(path),
            format!("not all {bytes} bytes are there, although every write was acknowledged"),
        )
        .next_step("look for a full disk or a quota on the target")
    }

    fn failed(&self) -> impl Fn(RemoteError) -> Failure + '_ {
        self.site.failed(Phase::Upload)
    }
}
