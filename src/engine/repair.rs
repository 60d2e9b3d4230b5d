//! Goes back to before the first damaged chunk, keeping the good ones after it.

use super::failure::{Failure, Phase};
use super::merge::write_record;
use super::prepare::Prepared;
use super::receipts::Receipts;
use super::site::Site;
use crate::model::names::RunNames;
use crate::model::plan::{Found, Plan};

/// The plan that mends `damaged`, ascending and not empty. All else stays where it is in
/// the merged file, with receipts; only where the server was not seen to write into the
/// middle of a file are all chunks that follow sent again.
pub async fn rewind(
    site: &Site,
    run: &RunNames,
    prepared: &Prepared,
    damaged: &[u64],
    attempt: u64,
) -> Result<Plan, Failure> {
    let failed = site.failed(Phase::Verify);
    let geometry = prepared.plan.geometry;
    let merged = damaged.first().map_or(geometry.chunks(), |first| first - 1);
    let mut found = Found { merged, ..Found::default() };
    if prepared.several_handles {
        let generation = prepared.generation;
        let receipts = Receipts::prepare(site, run, attempt).await.map_err(&failed)?;
        for n in (merged + 1..=geometry.chunks()).filter(|n| !damaged.contains(n)) {
            receipts.make(n, generation).await.map_err(&failed)?;
            found.placed.insert(n);
        }
    }
    write_record(site, run, geometry, merged, prepared.generation).await?;
    Ok(Plan::new(geometry, prepared.manifest.manifest().known(), found))
}
