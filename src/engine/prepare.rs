//! With the lock won and old runs fenced: takes over what can be believed of an earlier
//! upload, and lays the ground for this one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::decide::{hash_range, read_up_to};
use super::early::Early;
use super::failure::{Failure, FailureKind, Phase};
use super::io::{
    create_with, publish, read_small, remove_all_if_there, remove_if_there, sync_if_possible, write_all,
    write_file,
};
use super::merge::{publish_record, sftp, write_record};
use super::monitor::{Level, Monitor, Notice};
use super::options::{MergeMethod, PutOptions};
use super::placing::prove_placing;
use super::receipts::Receipts;
use super::site::Site;
use super::source::Source;
use super::temp::{self, TempState};
use super::upload::{Destination, ManifestFile};
use crate::model::checksum::{Chain, Method};
use crate::model::chunk::Geometry;
use crate::model::manifest::{self, Baseline, Manifest};
use crate::model::names::RunNames;
use crate::model::plan::{Found, Plan};
use crate::model::remote_path::RemotePath;
use crate::model::run_id::RunId;
use crate::remote::RemoteError;
use crate::remote::files::OpenMode;

pub const MERGED_MODE: u32 = 0o600;

/// What an upload goes on from.
pub struct Prepared {
    pub plan: Plan,
    pub manifest: Arc<ManifestFile>,
    /// The merged file, in this run's private directory.
    pub merged: RemotePath,
    pub generation: RunId,
    pub destination: Destination,
    /// Whether several handles may write to one file at once, and anywhere in it.
    pub several_handles: bool,
    /// Nothing of an earlier upload was there.
    pub fresh: bool,
    pub early: Option<Early>,
    pub receipts: Option<Receipts>,
}

pub struct Preparation<'a> {
    pub site: &'a Site,
    pub run: &'a RunNames,
    pub attempt: u64,
    /// `None`: only what is there can be used.
    pub source: Option<&'a Source>,
    pub before: Baseline,
    /// The manifest on the target is damaged: the source is read through and compared.
    pub distrust: bool,
    /// What this process knows of the source already.
    pub known: Option<Manifest>,
    pub options: &'a PutOptions,
    pub monitor: &'a Arc<dyn Monitor>,
    /// Names a merged file, should a new one be needed.
    pub new_generation: RunId,
    /// Nothing but this run's private directory stands in the temp directory.
    pub alone: bool,
    /// An upload that has begun into the private directory of `run`, to go on with where there
    /// is nothing else to go on from.
    pub early: Option<Early>,
}

struct Laid {
    early: Option<Early>,
    plan: Plan,
    manifest: Arc<ManifestFile>,
    merged: RemotePath,
    generation: RunId,
    fresh: bool,
}

/// What of an earlier upload stays.
struct Kept {
    manifest: Manifest,
    found: Found,
    merged: Option<(RemotePath, RunId)>,
}

impl Preparation<'_> {
    pub async fn run(mut self) -> Result<Prepared, Failure> {
        let mut receipts = None;
        let (several_handles, laid) = match self.early.take() {
            None => {
                let proving = async { prove_placing(self.site, self.run, self.attempt).await };
                let proving = async { proving.await.map_err(self.failed()) };
                if self.site.files.features().in_order {
                    tokio::try_join!(proving, self.lay_ground(None))?
                } else {
                    // Erlang's server keeps but two open files of a session apart.
                    (proving.await?, self.lay_ground(None).await?)
                }
            }
            Some(mut early) => {
                let groundwork = early.groundwork().await?;
                if groundwork.several_handles {
                    receipts = Some(groundwork.receipts);
                    (true, self.lay_ground(Some(early)).await?)
                } else {
                    // What was placed all the same is not used.
                    (false, self.lay_ground(None).await?)
                }
            }
        };
        let Laid { early, plan, manifest, merged, generation, fresh } = laid;
        let destination = match self.options.merge {
            MergeMethod::Auto if several_handles => {
                Destination::Placed { merged: merged.clone(), generation }
            }
            _ => Destination::Stored,
        };
        Ok(Prepared {
            plan,
            manifest,
            merged,
            generation,
            destination,
            several_handles,
            fresh,
            early,
            receipts,
        })
    }

    async fn lay_ground(&self, early: Option<Early>) -> Result<Laid, Failure> {
        let state = match (self.attempt == 1).then(|| self.run.directory()) {
            Some(_) if self.alone => TempState::default(),
            own => temp::read_beside(self.site, Phase::Survey, own).await?.unwrap_or_default(),
        };
        state.check_version(self.site)?;
        let kept = match (&state.manifest, self.source) {
            (Some(old), Some(source)) => {
                let method = self.method(source).await;
                if !self.same_source(old, source) {
                    self.keep_what_agrees(&state, old, source, method).await?
                } else if old.method().serves(method) {
                    self.keep_all(&state, old)
                } else {
                    self.keep_all_by(&state, old, source, method).await?
                }
            }
            (Some(old), None) => self.keep_all(&state, old),
            (None, Some(source)) => self.start(source, self.method(source).await),
            (None, None) => return Err(self.nothing_there()),
        };
        let mut kept = kept;
        let nothing_merged = kept.found.merged == 0 && kept.found.placed.is_empty();
        if !nothing_merged && !self.prove_going_on().await.map_err(self.failed())? {
            let text =
                "this server does not go on with a file that was closed: what was merged is sent again";
            self.notice(Level::Warning, text.to_owned());
            kept.found = Found { stored: kept.found.stored, ..Found::default() };
            kept.merged = None;
        }
        let geometry = kept.manifest.geometry();
        self.check_count(geometry)?;
        let plan = Plan::new(geometry, kept.manifest.known(), kept.found);

        // Whatever is not kept must be gone before the manifest vouches for what stays.
        self.remove_stored(&state, &plan).await?;
        let fresh = kept.merged.is_none() && state.record.is_none() && state.manifest.is_none();
        if fresh {
            let manifest = Arc::new(ManifestFile::new(kept.manifest));
            return self.lay_fresh_ground(state, plan, early, manifest).await;
        }
        let (generation, old_path) = match kept.merged {
            Some((path, generation)) => (generation, Some(path)),
            None => (self.new_generation, None),
        };
        let merged = self.run.merged(generation);
        // One that is only in an older run's directory goes with that.
        let recorded = state.has_record
            && state.record.as_ref().is_some_and(|record| {
                record.generation() == generation
                    && record.geometry() == geometry
                    && record.merged_chunks() == plan.found.merged
            });
        self.take_merged(old_path, &merged).await?;
        if !recorded {
            write_record(self.site, self.run, geometry, plan.found.merged, generation).await?;
        }
        let manifest = Arc::new(ManifestFile::new(kept.manifest));
        manifest.put_in_place(self.site, self.run, self.before).await.map_err(self.failed())?;
        self.remove_receipts(&state, generation, &plan).await?;
        self.clear_private(&state, &merged).await?;
        Ok(Laid { early: None, plan, manifest, merged, generation, fresh })
    }

    /// What none of them contradicts may come in any order.
    async fn lay_fresh_ground(
        &self,
        state: TempState,
        plan: Plan,
        early: Option<Early>,
        manifest: Arc<ManifestFile>,
    ) -> Result<Laid, Failure> {
        let geometry = plan.geometry;
        let same = |early: &Early| {
            early.manifest.manifest().geometry() == geometry && early.manifest.method() == manifest.method()
        };
        let early = early.filter(same);
        let (generation, manifest) = match &early {
            Some(early) => (early.generation, early.manifest.clone()),
            None => (self.new_generation, manifest),
        };
        let merged = self.run.merged(generation);
        let putting =
            async { manifest.put_in_place(self.site, self.run, self.before).await.map_err(self.failed()) };
        let recording = async {
            match &early {
                Some(_) => publish_record(self.site, self.run).await,
                None => write_record(self.site, self.run, geometry, plan.found.merged, generation).await,
            }
        };
        let taking = async { if early.is_some() { Ok(()) } else { self.take_merged(None, &merged).await } };
        tokio::try_join!(putting, taking, recording)?;
        self.remove_receipts(&state, generation, &plan).await?;
        self.clear_private(&state, &merged).await?;
        Ok(Laid { early, plan, manifest, merged, generation, fresh: true })
    }

    fn same_source(&self, old: &Manifest, source: &Source) -> bool {
        let identity = source.description.identity;
        !self.distrust && old.source.identity == identity && (!self.options.rehash || self.attempt > 1)
    }

    fn nothing_there(&self) -> Failure {
        Failure::new(FailureKind::Failed, Phase::Survey, self.site.place(), "there is no upload to finish")
            .next_step("see haul status")
    }

    /// Nothing is kept: what the manifest cannot prove is no use.
    fn start(&self, source: &Source, method: Method) -> Kept {
        let fresh = Manifest::new(source.description.clone(), self.options.chunk_size, self.before, method);
        let manifest = match &self.known {
            Some(known) if known.geometry() == fresh.geometry() && known.method().serves(method) => {
                known.clone()
            }
            _ => fresh,
        };
        Kept { manifest, found: Found::default(), merged: None }
    }

    fn keep_all(&self, state: &TempState, old: &Manifest) -> Kept {
        let chunk_size = old.geometry().chunk_size();
        if chunk_size != self.options.chunk_size {
            self.notice(
                Level::Info,
                format!(
                    "the upload under way has chunks of {} bytes, which stay as they are",
                    chunk_size.bytes()
                ),
            );
        }
        let manifest = match &self.known {
            Some(known)
                if known.geometry() == old.geometry()
                    && known.method() == old.method()
                    && known.known() > old.known() =>
            {
                known.clone()
            }
            _ => old.clone(),
        };
        let found = state.found(old.geometry());
        let merged =
            state.merged_so_far(old.geometry()).map(|(file, _)| (file.path.clone(), file.generation));
        Kept { manifest, found, merged }
    }

    async fn method(&self, source: &Source) -> Method {
        self.site.method(self.options.verify, source.mac_key, self.monitor).await
    }

    /// As [`Self::keep_all`], where more is asked for than the manifest can prove: the source's
    /// part of it is read again.
    async fn keep_all_by(
        &self,
        state: &TempState,
        old: &Manifest,
        source: &Source,
        method: Method,
    ) -> Result<Kept, Failure> {
        let text = format!("the upload under way was begun with a {}: reading for {method}", old.method());
        self.notice(Level::Info, text);
        let kept = self.keep_all(state, old);
        let chunk_size = old.geometry().chunk_size();
        let fresh = Manifest::new(source.description.clone(), chunk_size, self.before, method);
        let manifest = read_up_to(source, fresh, old.known(), self.monitor).await?;
        Ok(Kept { manifest, ..kept })
    }

    /// The source is not what it was, or may not be: reads it through, and keeps the
    /// chunks that agree.
    async fn keep_what_agrees(
        &self,
        state: &TempState,
        old: &Manifest,
        source: &Source,
        method: Method,
    ) -> Result<Kept, Failure> {
        let chunk_size = old.geometry().chunk_size();
        // One that serves is gone on with, so that what was hashed once need not be again.
        let method = if old.method().serves(method) { old.method() } else { method };
        let mut manifest = Manifest::new(source.description.clone(), chunk_size, self.before, method);
        let geometry = manifest.geometry();
        self.check_count(geometry)?;
        self.monitor.phase(Phase::Hash, 0, geometry.size());
        let mut agreed = BTreeSet::new();
        let mut chain = Chain::new(method);
        let mut all_so_far = method == old.method();
        for n in 1..=geometry.chunks() {
            let range = geometry.range(n);
            let comparable = n <= old.known() && old.geometry().range(n) == range;
            let mut before = None;
            if comparable && !all_so_far {
                before = old.chain_before(n);
            }
            chain = hash_range(source, range.clone(), chain, self.monitor).await?;
            let agrees = comparable
                && match before {
                    None => old.agrees(n, &chain),
                    // From the old state; the bytes come from the page cache.
                    Some(old_chain) => old.agrees(n, &hash_range(source, range, old_chain, &silent()).await?),
                };
            if agrees {
                agreed.insert(n);
            } else {
                all_so_far = false;
            }
            if manifest.note(n, &chain).is_none() {
                return Err(source.changed());
            }
        }
        source.check_unchanged()?;

        let found = state.found(old.geometry());
        let in_merged: BTreeSet<u64> =
            (1..=found.merged).chain(found.placed.iter().copied()).filter(|n| agreed.contains(n)).collect();
        let stored: BTreeSet<u64> = found.stored.intersection(&agreed).copied().collect();
        let old_merged = state.merged_so_far(old.geometry()).map(|(file, _)| file.path.clone());
        let placed = match old_merged {
            Some(path) if !in_merged.is_empty() => self.copy_agreed(&path, geometry, in_merged).await?,
            _ => BTreeSet::new(),
        };
        let had = found.merged + (found.placed.len() + found.stored.len()) as u64;
        let why = match old.source.identity == source.description.identity {
            true => "the source was read again",
            false => "the source is not the file it was",
        };
        self.notice(
            Level::Info,
            format!(
                "{why}: {} of the {had} chunks that were there agree with it and are kept",
                stored.len() + placed.len(),
            ),
        );
        let merged =
            (!placed.is_empty()).then(|| (self.run.merged(self.new_generation), self.new_generation));
        Ok(Kept { manifest, found: Found { merged: 0, stored, placed }, merged })
    }

    /// Into a new merged file, since an old run may still write to the one there is.
    async fn copy_agreed(
        &self,
        old: &RemotePath,
        geometry: Geometry,
        agreed: BTreeSet<u64>,
    ) -> Result<BTreeSet<u64>, Failure> {
        let failed = self.failed();
        let files = self.site.files.as_ref();
        if !files.features().copy_data {
            // Through this side each byte would cross the link twice, and sent but once.
            return Ok(BTreeSet::new());
        }
        let merged = self.run.merged(self.new_generation);
        let from = files.open(old, OpenMode::READ, None).await.map_err(&failed)?;
        let to = create_with(files, &merged, Bytes::new(), MERGED_MODE).await.map_err(&failed)?;
        let receipts = Receipts::prepare(self.site, self.run, self.attempt).await.map_err(&failed)?;
        let mut copied = BTreeSet::new();
        for n in agreed {
            let range = geometry.range(n);
            let whole =
                sftp::copy(self.site, &from, range.clone(), &to, range.start).await.map_err(&failed)?;
            let size = files.stat_handle(&to).await.map_err(&failed)?.size.unwrap_or(range.end);
            if whole && size >= range.end {
                receipts.make(n, self.new_generation).await.map_err(&failed)?;
                copied.insert(n);
            }
        }
        let synced = sync_if_possible(files, &to).await;
        files.close(to).await.map_err(&failed)?;
        synced.map_err(&failed)?;
        files.close(from).await.map_err(&failed)?;
        Ok(copied)
    }

    fn check_count(&self, geometry: Geometry) -> Result<(), Failure> {
        if geometry.chunks() <= manifest::MAX_CHUNKS {
            return Ok(());
        }
        let needed = geometry.size().div_ceil(manifest::MAX_CHUNKS).next_multiple_of(1 << 20);
        Err(Failure::new(
            FailureKind::Usage,
            Phase::Survey,
            self.site.place(),
            format!("{} chunks are more than the {} there can be", geometry.chunks(), manifest::MAX_CHUNKS),
        )
        .next_step(format!("use --chunk-size {}MiB or more", needed >> 20)))
    }

    async fn remove_stored(&self, state: &TempState, plan: &Plan) -> Result<(), Failure> {
        let outdated = state.stored.keys().filter(|n| !plan.found.stored.contains(n));
        let names = outdated.map(|n| self.site.names.chunk(*n));
        remove_all_if_there(self.site.files.as_ref(), names.collect()).await.map_err(self.failed())
    }

    async fn remove_receipts(
        &self,
        state: &TempState,
        generation: RunId,
        plan: &Plan,
    ) -> Result<(), Failure> {
        let outdated =
            state.receipts.iter().filter(|(n, of)| *of != generation || !plan.found.placed.contains(n));
        let names = outdated.map(|(n, of)| self.site.names.receipt(*n, *of));
        remove_all_if_there(self.site.files.as_ref(), names.collect()).await.map_err(self.failed())
    }

    /// Moves the merged file here, or makes a new one.
    async fn take_merged(&self, old: Option<RemotePath>, merged: &RemotePath) -> Result<(), Failure> {
        let files = self.site.files.as_ref();
        match old {
            Some(old) if old == *merged => Ok(()),
            Some(old) => publish(files, &old, merged).await.map_err(self.failed()),
            None => write_file(files, merged, Bytes::new(), MERGED_MODE, false).await.map_err(self.failed()),
        }
    }

    /// Everything private that is left of earlier runs and attempts.
    async fn clear_private(&self, state: &TempState, merged: &RemotePath) -> Result<(), Failure> {
        for directory in &state.private {
            let own = directory == self.run.directory();
            if own && self.attempt == 1 {
                // It is new.
                continue;
            }
            let keep = |name: &[u8]| {
                let outdated = name.starts_with(b"part.") || name.starts_with(b"merged.");
                own && (name == merged.file_name() || !outdated)
            };
            clear_directory(self.site, directory, keep).await.map_err(self.failed())?;
        }
        Ok(())
    }

    /// Whether a file that was closed can be written on where it ends, which a merge needs
    /// to go on from an earlier run's. rclone's server empties it, or takes no offset.
    async fn prove_going_on(&self) -> Result<bool, RemoteError> {
        let files = self.site.files.as_ref();
        let path = self.run.directory().join(format!("going-on.{}", self.attempt));
        let begun = create_with(files, &path, Bytes::from_static(b"one."), MERGED_MODE).await?;
        files.close(begun).await?;
        let going_on = async {
            let handle = files.open(&path, OpenMode::READ_WRITE, None).await?;
            let written = write_all(files, &handle, 4, Bytes::from_static(b"two.")).await;
            files.close(handle).await?;
            written?;
            read_small(files, &path, 64).await
        }
        .await;
        remove_if_there(files, &path).await?;
        match going_on {
            Err(error) if error.is_link() => Err(error),
            read => Ok(read.is_ok_and(|content| content.as_deref() == Some(b"one.two."))),
        }
    }

    fn failed(&self) -> impl Fn(RemoteError) -> Failure + '_ {
        self.site.failed(Phase::Survey)
    }

    fn notice(&self, level: Level, text: String) {
        self.monitor.notice(Notice { level, text: format!("{}: {text}", self.site.place()) });
    }
}

fn silent() -> Arc<dyn Monitor> {
    Arc::new(super::monitor::Silent)
}

/// Names that a private directory may hold.
const MAX_PRIVATE_ENTRIES: usize = 100_000;

/// The names in a private directory; none where it has gone.
pub async fn entries_of(site: &Site, directory: &RemotePath) -> Result<Vec<Vec<u8>>, RemoteError> {
    match site.files.list(directory, MAX_PRIVATE_ENTRIES).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        entries => Ok(entries?.into_iter().map(|entry| entry.name).collect()),
    }
}

/// Removes what is in a private directory and is not kept, and the directory when it is
/// empty then.
async fn clear_directory(
    site: &Site,
    directory: &RemotePath,
    keep: impl Fn(&[u8]) -> bool,
) -> Result<(), RemoteError> {
    let files = site.files.as_ref();
    let entries = entries_of(site, directory).await?;
    let (kept, outdated): (Vec<_>, Vec<_>) = entries.into_iter().partition(|name| keep(name));
    let outdated = outdated.iter().map(|name| directory.join(name)).collect();
    remove_all_if_there(files, outdated).await?;
    if !kept.is_empty() {
        return Ok(());
    }
    match files.remove_directory(directory).await {
        Err(error) if error.is_link() => Err(error),
        // An empty directory that stays is in nobody's way.
        Ok(()) | Err(_) => Ok(()),
    }
}
