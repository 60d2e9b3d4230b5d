//! Receipts: empty files whose name says that a chunk stands in the merged file.

use super::io::publish;
use super::site::Site;
use crate::model::names::RunNames;
use crate::model::remote_path::RemotePath;
use crate::model::run_id::RunId;
use crate::remote::RemoteError;
use crate::remote::files::OpenMode;

const MODE: u32 = 0o600;

/// Makes receipts by a link or a rename from a private name, so that a fenced run can
/// make none.
pub struct Receipts {
    site: Site,
    run: RunNames,
    attempt: u64,
    links: bool,
}

impl Receipts {
    pub async fn prepare(site: &Site, run: &RunNames, attempt: u64) -> Result<Receipts, RemoteError> {
        let links = site.files.features().hard_link;
        let receipts = Receipts { site: site.clone(), run: run.clone(), attempt, links };
        if links {
            receipts.create_empty(&run.receipt()).await?;
        }
        Ok(receipts)
    }

    pub async fn make(&self, n: u64, generation: RunId) -> Result<(), RemoteError> {
        let files = self.site.files.as_ref();
        let receipt = self.site.names.receipt(n, generation);
        if self.links {
            match files.hard_link(&self.run.receipt(), &receipt).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_link() || error.is_not_found() => return Err(error),
                // Too many links to one file, or the receipt is there: a rename does.
                Err(_) => {}
            }
        }
        let private = self.run.part(n, self.attempt);
        self.create_empty(&private).await?;
        publish(files, &private, &receipt).await
    }

    async fn create_empty(&self, path: &RemotePath) -> Result<(), RemoteError> {
        let files = self.site.files.as_ref();
        let handle = files.open(path, OpenMode::CREATE, Some(MODE)).await?;
        if files.features().in_order {
            // Nothing was written that a close could tell of.
            return files.close_unheard(handle).await;
        }
        files.close(handle).await
    }
}
