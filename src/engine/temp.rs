//! Reads a temp directory: what it holds, and which of it can be believed.

use std::collections::BTreeMap;

use futures_util::stream::{StreamExt, TryStreamExt, iter};

use super::failure::{Failure, FailureKind, Phase};
use super::io::{STREAM_REQUESTS, read_small};
use super::site::Site;
use crate::model::chunk::Geometry;
use crate::model::manifest::{self, Manifest, ManifestError};
use crate::model::names::{Entry, RunNames};
use crate::model::plan::Found;
use crate::model::record::Record;
use crate::model::remote_path::RemotePath;
use crate::model::run_id::RunId;
use crate::remote::files::{DirectoryEntry, FileKind};

/// Names that a temp directory, or a private directory in it, may hold at most.
const MAX_ENTRIES: usize = 2 * manifest::MAX_CHUNKS as usize + 1000;

/// What was found in a temp directory.
#[derive(Debug, Default)]
pub struct TempState {
    /// Sizes of the stored chunks, by number.
    pub stored: BTreeMap<u64, u64>,
    /// Every receipt: chunk and generation.
    pub receipts: Vec<(u64, RunId)>,
    pub has_manifest: bool,
    pub manifest: Option<Manifest>,
    /// Another version of haul wrote the manifest: nothing is known of what is there.
    pub of_other_version: bool,
    pub has_record: bool,
    pub record: Option<Record>,
    /// The private directories of runs, fenced or not.
    pub private: Vec<RemotePath>,
    pub merged: Vec<MergedFile>,
    /// Names that are not haul's.
    pub foreign: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedFile {
    pub path: RemotePath,
    pub generation: RunId,
    pub size: u64,
}

/// `None` when there is no temp directory. A symbolic link in its place is an error.
pub async fn read(site: &Site, phase: Phase) -> Result<Option<TempState>, Failure> {
    read_beside(site, phase, None).await
}

/// As [`read`], without looking into `own`: a private directory that is new.
pub async fn read_beside(
    site: &Site,
    phase: Phase,
    own: Option<&RemotePath>,
) -> Result<Option<TempState>, Failure> {
    let Some(mut state) = names(site, phase).await? else { return Ok(None) };
    let (record, manifest) = (site.names.record(), site.names.manifest());
    let (record, manifest) = tokio::try_join!(
        async { if state.has_record { read_record(site, &record, phase).await } else { Ok(None) } },
        async { if state.has_manifest { read_manifest(site, &manifest, phase).await } else { Ok(None) } },
    )?;
    state.record = record;
    state.of_other_version = matches!(manifest, Some(Err(ManifestError::OtherVersion)));
    state.manifest = manifest.and_then(Result::ok);
    let (has_record, has_manifest) = (state.has_record, state.has_manifest);
    let mut reading = Vec::new();
    for directory in state.private.iter().filter(|directory| Some(*directory) != own) {
        reading.push(read_private(site, phase, directory.clone(), has_record, has_manifest));
    }
    let found: Vec<Private> = iter(reading).buffered(STREAM_REQUESTS).try_collect().await?;
    for private in found {
        state.merged.extend(private.merged);
        let known = |manifest: &Manifest| manifest.known();
        state.manifest = state.manifest.into_iter().chain(private.manifest).max_by_key(known);
        state.record = state.record.into_iter().chain(private.record).max_by_key(Record::merged_chunks);
    }
    Ok(Some(state))
}

/// The names in a temp directory, and the sizes of stored chunks; no content.
pub async fn names(site: &Site, phase: Phase) -> Result<Option<TempState>, Failure> {
    let temp = site.names.temp();
    let failed = |error| Failure::remote(phase, site.place_of(temp), &error);
    let (attributes, entries) = tokio::join!(site.files.lstat(temp), site.files.list(temp, MAX_ENTRIES));
    match attributes {
        Ok(attributes) if matches!(attributes.kind, FileKind::Directory | FileKind::Unknown) => {}
        Ok(_) => {
            return Err(Failure::new(
                FailureKind::Failed,
                phase,
                site.place_of(temp),
                "stands where haul's temp directory belongs, and is no directory",
            )
            .next_step("move it away, or take another --user-id"));
        }
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let mut state = TempState::default();
    for entry in entries.map_err(failed)? {
        match site.names.entry(&entry.name) {
            Entry::Chunk(n) => {
                state.stored.insert(n, size_of(site, temp, &entry, phase).await?);
            }
            Entry::Receipt(n, generation) => state.receipts.push((n, generation)),
            Entry::Record => state.has_record = true,
            Entry::Manifest => state.has_manifest = true,
            Entry::Run(_) | Entry::Fenced => state.private.push(temp.join(&entry.name)),
            Entry::Foreign => state.foreign.push(entry.name),
        }
    }
    Ok(Some(state))
}

/// What a private directory adds.
#[derive(Default)]
struct Private {
    merged: Vec<MergedFile>,
    manifest: Option<Manifest>,
    record: Option<Record>,
}

async fn read_private(
    site: &Site,
    phase: Phase,
    directory: RemotePath,
    has_record: bool,
    has_manifest: bool,
) -> Result<Private, Failure> {
    let mut private = Private::default();
    let entries = match site.files.list(&directory, MAX_ENTRIES).await {
        Ok(entries) => entries,
        // Its run has just cleaned up or was fenced: what matters is seen next time.
        Err(error) if error.is_not_found() => return Ok(private),
        Err(error) => return Err(Failure::remote(phase, site.place_of(&directory), &error)),
    };
    // Without posix-rename the old one is removed before the new one takes its name: a run
    // that died between the two left it here.
    let run = RunNames::in_directory(directory.clone());
    for entry in entries {
        if let Some(generation) = entry.name.strip_prefix(b"merged.").and_then(RunId::parse) {
            let size = size_of(site, &directory, &entry, phase).await?;
            private.merged.push(MergedFile { path: directory.join(&entry.name), generation, size });
        }
        if !has_manifest && entry.name == run.new_manifest().file_name() {
            private.manifest = read_manifest(site, &run.new_manifest(), phase).await?.and_then(Result::ok);
        }
        if !has_record && entry.name == run.new_record().file_name() {
            private.record = read_record(site, &run.new_record(), phase).await?;
        }
    }
    Ok(private)
}

/// A record that cannot be read is none: the merge begins anew.
async fn read_record(site: &Site, path: &RemotePath, phase: Phase) -> Result<Option<Record>, Failure> {
    let text = read_small(site.files.as_ref(), path, Record::MAX_BYTES as u64)
        .await
        .map_err(|error| Failure::remote(phase, site.place_of(path), &error))?;
    Ok(text.and_then(|text| Record::parse(&text).ok()))
}

async fn read_manifest(
    site: &Site,
    path: &RemotePath,
    phase: Phase,
) -> Result<Option<Result<Manifest, ManifestError>>, Failure> {
    let text = read_small(site.files.as_ref(), path, manifest::MAX_BYTES)
        .await
        .map_err(|error| Failure::remote(phase, site.place_of(path), &error))?;
    Ok(text.map(|text| Manifest::parse(&text)))
}

async fn size_of(
    site: &Site,
    directory: &RemotePath,
    entry: &DirectoryEntry,
    phase: Phase,
) -> Result<u64, Failure> {
    if let Some(size) = entry.attributes.size {
        return Ok(size);
    }
    let path = directory.join(&entry.name);
    match site.files.lstat(&path).await {
        Ok(attributes) => Ok(attributes.size.unwrap_or(0)),
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(Failure::remote(phase, site.place_of(&path), &error)),
    }
}

impl TempState {
    /// What another version of haul began is neither gone on with nor thrown away.
    pub fn check_version(&self, site: &Site) -> Result<(), Failure> {
        if !self.of_other_version {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Failed, Phase::Survey, site.place(), ManifestError::OtherVersion)
            .next_step("finish it with that version, or start anew after haul clean"))
    }

    /// The merged file to go on with, and how many chunks it holds from the first: the
    /// record's where that file is there, else the one that most receipts speak of.
    pub fn merged_so_far(&self, geometry: Geometry) -> Option<(&MergedFile, u64)> {
        let record = self.record.as_ref().filter(|record| record.geometry() == geometry);
        if let Some(record) = record
            && let Some(file) = self.merged.iter().find(|file| file.generation == record.generation())
        {
            let held = if file.size >= record.merged_bytes() {
                record.merged_chunks()
            } else {
                // A record ahead of its data: believe the data.
                file.size / geometry.chunk_size().bytes()
            };
            return Some((file, held));
        }
        let receipts = |file: &&MergedFile| {
            self.receipts.iter().filter(|(_, generation)| *generation == file.generation).count()
        };
        self.merged.iter().filter(|file| receipts(file) > 0).max_by_key(receipts).map(|file| (file, 0))
    }

    /// What can be believed of the chunks of an upload of this geometry.
    pub fn found(&self, geometry: Geometry) -> Found {
        let stored = self
            .stored
            .iter()
            .filter(|(n, size)| **size == geometry.length(**n) && **size > 0)
            .map(|(n, _)| *n)
            .collect();
        let Some((file, merged)) = self.merged_so_far(geometry) else {
            return Found { merged: 0, stored, placed: Default::default() };
        };
        let placed = self
            .receipts
            .iter()
            .filter(|(n, generation)| *generation == file.generation && geometry.end(*n) <= file.size)
            .map(|(n, _)| *n)
            .collect();
        Found { merged, stored, placed }
    }
}
