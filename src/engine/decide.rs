//! What stands at the target already, and whether it may be replaced.

use std::sync::Arc;

use super::commit::baseline;
use super::failure::{Failure, FailureKind, Phase};
use super::hash::{By, hash_on_target};
use super::monitor::Monitor;
use super::options::{Existing, IfExists, PutOptions};
use super::report::{PutStatus, VerifiedBy};
use super::site::Site;
use super::source::{READ_BYTES, Source};
use crate::model::checksum::{Chain, Method};
use crate::model::chunk::ChunkSize;
use crate::model::digest::Digest;
use crate::model::manifest::{Baseline, Manifest};
use crate::remote::files::Attributes;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is there, or it is to be replaced. With the source's manifest where the
    /// source was read through.
    Upload(Option<Manifest>),
    /// The content is there already, or is left alone.
    Done { status: PutStatus, sha256: Option<Digest>, verified_by: Option<VerifiedBy> },
}

/// `known_different`: the manifest of an upload under way, which began from a target of
/// this baseline.
pub async fn decide(
    site: &Site,
    source: &Source,
    existing: Option<Attributes>,
    known_different: Option<Baseline>,
    options: &PutOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Decision, Failure> {
    let Some(existing) = existing else { return Ok(Decision::Upload(None)) };
    let mut manifest = None;
    let same_size = existing.size.is_none_or(|size| size == source.size());
    if options.quick && same_size && existing.times.map(|t| t.modified) == Some(source.times.modified) {
        return Ok(Decision::Done {
            status: PutStatus::Unchanged,
            sha256: None,
            verified_by: Some(VerifiedBy::Size),
        });
    }
    if same_size && known_different != Some(baseline(&existing)) && !options.quick {
        let method = site.method(options.verify, source.mac_key, monitor).await;
        let (target, size) = (site.names.target(), source.size());
        let hashed = tokio::try_join!(
            read_through(source, options.chunk_size, baseline(&existing), method, monitor),
            hash_on_target(site, target, size, method, By::Either, Phase::Verify, monitor),
        )?;
        let (of_source, (checksum, by)) = hashed;
        if of_source.checksum() == Some(checksum) {
            return Ok(Decision::Done {
                status: PutStatus::Unchanged,
                sha256: checksum.sha256(),
                verified_by: Some(by),
            });
        }
        manifest = Some(of_source);
    }
    match may_replace(site, &existing, Some(source.size()), options).await? {
        true => Ok(Decision::Upload(manifest)),
        false => Ok(Decision::Done { status: PutStatus::Skipped, sha256: None, verified_by: None }),
    }
}

/// Whether different content at the target is replaced; false: it is left and that is right.
pub async fn may_replace(
    site: &Site,
    existing: &Attributes,
    source_size: Option<u64>,
    options: &PutOptions,
) -> Result<bool, Failure> {
    match &options.if_exists {
        IfExists::Replace => Ok(true),
        IfExists::Skip => Ok(false),
        IfExists::Fail => Err(exists(site, "the target exists with different content")
            .next_step("use --if-exists replace to replace it, --if-exists skip to leave it")),
        // What would be asked is not known until someone is there to answer.
        IfExists::Ask(_) if options.dry_run => Ok(true),
        IfExists::Ask(person) => {
            let question = Existing {
                target: site.place(),
                size: existing.size.unwrap_or(0),
                modified: existing.times.map(|times| times.modified),
                source_size,
            };
            let person = person.clone();
            let answer = tokio::task::spawn_blocking(move || person.replace(&question)).await;
            if answer.unwrap_or(false) {
                Ok(true)
            } else {
                Err(exists(site, "the target exists with different content and was left as it is"))
            }
        }
    }
}

fn exists(site: &Site, cause: &str) -> Failure {
    Failure::new(FailureKind::Exists, Phase::Survey, site.place(), cause)
}

/// Reads and hashes the whole source.
pub async fn read_through(
    source: &Source,
    chunk_size: ChunkSize,
    baseline: Baseline,
    method: Method,
    monitor: &Arc<dyn Monitor>,
) -> Result<Manifest, Failure> {
    let fresh = Manifest::new(source.description.clone(), chunk_size, baseline, method);
    let chunks = fresh.geometry().chunks();
    read_up_to(source, fresh, chunks, monitor).await
}

/// Reads and hashes the source's first chunks into a manifest that knows none yet.
pub async fn read_up_to(
    source: &Source,
    mut manifest: Manifest,
    last: u64,
    monitor: &Arc<dyn Monitor>,
) -> Result<Manifest, Failure> {
    let geometry = manifest.geometry();
    monitor.phase(Phase::Hash, 0, geometry.end(last));
    let mut chain = Chain::new(manifest.method());
    for n in 1..=last {
        chain = hash_range(source, geometry.range(n), chain, monitor).await?;
        if manifest.note(n, &chain).is_none() {
            return Err(source.changed());
        }
    }
    source.check_unchanged()?;
    Ok(manifest)
}

/// Takes a range of the source through `chain`.
pub async fn hash_range(
    source: &Source,
    range: std::ops::Range<u64>,
    mut chain: Chain,
    monitor: &Arc<dyn Monitor>,
) -> Result<Chain, Failure> {
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        chain = source.hash(at, length, chain).await?;
        monitor.advance(Phase::Hash, length as u64);
        at += length as u64;
    }
    Ok(chain)
}
