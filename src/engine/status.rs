//! `haul status`: what stands at a target. Changes nothing there.

use std::sync::Arc;

use super::connect::Link;
use super::failure::{Failure, Phase};
use super::lock;
use super::monitor::Silent;
use super::open::open_named;
use super::report::{LockStatus, StatusReport, TargetState, UploadStatus};
use super::site::Site;
use super::stop::stop_pair;
use super::temp::{self, TempState};
use crate::model::escape::printable;
use crate::model::names::UserId;
use crate::model::plan::Plan;
use crate::remote::Connector;

pub async fn status(
    connector: Arc<dyn Connector>,
    destination: Vec<u8>,
    user: UserId,
) -> Result<StatusReport, Failure> {
    // The switch is kept, so that nothing is ever stopped.
    let (_switch, stop) = stop_pair();
    let mut link = Link::new(connector, Arc::new(Silent), stop);
    let (site, target) = open_named(&mut link, &destination, &user).await?;
    let temp = temp::read(&site, Phase::Survey).await?;
    let upload = temp.as_ref().and_then(upload_status);
    let lock = lock_status(&site).await?;
    let state = match (&upload, target.attributes) {
        (Some(upload), _) if upload.chunks_present == upload.chunks_total => TargetState::Merging,
        (Some(_), _) => TargetState::Partial,
        // A temp directory that nothing is known of yet: an upload has just begun.
        (None, _) if temp.is_some() && lock.is_some() => TargetState::Partial,
        (None, Some(_)) => TargetState::Complete,
        (None, None) => TargetState::Absent,
    };
    let report = StatusReport {
        target: site.names.target().to_string(),
        state,
        size: target.attributes.and_then(|attributes| attributes.size),
        modified: target.attributes.and_then(|attributes| attributes.times).map(|times| times.modified),
        upload,
        lock,
    };
    link.close().await;
    Ok(report)
}

fn upload_status(temp: &TempState) -> Option<UploadStatus> {
    let manifest = temp.manifest.as_ref()?;
    let geometry = manifest.geometry();
    let plan = Plan::new(geometry, manifest.known(), temp.found(geometry));
    Some(UploadStatus {
        chunks_total: geometry.chunks(),
        chunks_present: plan.chunks_present(),
        chunks_merged: plan.found.merged,
        chunk_size: geometry.chunk_size().bytes(),
        source_name: printable(&manifest.source.name),
        source_size: geometry.size(),
        source_identity: manifest.source.identity.to_string(),
    })
}

async fn lock_status(site: &Site) -> Result<Option<LockStatus>, Failure> {
    let Some(seen) = lock::look(site.files.as_ref(), &site.names, &site.host).await? else {
        return Ok(None);
    };
    let alive = lock::is_alive(site.files.as_ref(), &site.names, &site.host, &seen).await?;
    let Some(info) = seen.info() else {
        return Ok(Some(LockStatus {
            user: "?".to_owned(),
            holder: "?".to_owned(),
            run: "?".to_owned(),
            since: 0,
            alive,
        }));
    };
    Ok(Some(LockStatus {
        user: printable(info.user.as_bytes()),
        holder: printable(info.holder.as_bytes()),
        run: info.run.to_string(),
        since: info.since,
        alive,
    }))
}
