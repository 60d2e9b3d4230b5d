//! The manifest on the target, growing line by line while chunks are hashed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::engine::io::{create_with, publish, write_all};
use crate::engine::site::Site;
use crate::model::checksum::{Chain, Checksum, Method};
use crate::model::manifest::{Baseline, Manifest};
use crate::model::names::RunNames;
use crate::remote::files::{Files, Handle};
use crate::remote::{RemoteError, RemoteErrorKind};

/// Readable by its owner only, like all in the temp directory.
const MODE: u32 = 0o600;

/// Lines are noted as they become known and written by [`ManifestFile::write_lines`], as
/// many at a time as there are.
pub struct ManifestFile {
    state: Mutex<State>,
    /// How many lines are noted, and how many of them the target has acknowledged.
    noted: watch::Sender<u64>,
    written: watch::Sender<u64>,
    /// The file on the target, once there is one.
    open: Mutex<Option<(Arc<dyn Files>, Handle)>>,
    contradicted: AtomicBool,
}

struct State {
    manifest: Manifest,
    /// Lines that are noted and not yet written, in order.
    waiting: String,
    waiting_from: u64,
}

impl ManifestFile {
    /// One that is not on the target yet.
    pub fn new(manifest: Manifest) -> ManifestFile {
        let known = manifest.known();
        ManifestFile {
            state: Mutex::new(State { manifest, waiting: String::new(), waiting_from: known + 1 }),
            noted: watch::Sender::new(known),
            written: watch::Sender::new(0),
            open: Mutex::default(),
            contradicted: AtomicBool::new(false),
        }
    }

    /// In place of the one that is there, as a new file: a handle that an old run still
    /// holds speaks of the old one. To be called before lines are written.
    pub async fn put_in_place(
        &self,
        site: &Site,
        run: &RunNames,
        baseline: Baseline,
    ) -> Result<(), RemoteError> {
        if self.open().is_none() || self.lock().manifest.baseline != baseline {
            self.write_private(site, run, baseline).await?;
        }
        publish(site.files.as_ref(), &run.new_manifest(), &site.names.manifest()).await
    }

    /// The first half of it, which nobody else sees.
    pub async fn write_private(
        &self,
        site: &Site,
        run: &RunNames,
        baseline: Baseline,
    ) -> Result<(), RemoteError> {
        let (content, known) = {
            let mut state = self.lock();
            state.manifest.baseline = baseline;
            state.waiting.clear();
            (Bytes::from(state.manifest.encode()), state.manifest.known())
        };
        let handle = create_with(site.files.as_ref(), &run.new_manifest(), content, MODE).await?;
        let old = self.open_lock().replace((site.files.clone(), handle));
        if let Some((files, outdated)) = old {
            files.close_unheard(outdated).await?;
        }
        self.written.send_replace(known);
        Ok(())
    }

    fn open_lock(&self) -> MutexGuard<'_, Option<(Arc<dyn Files>, Handle)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Option<(Arc<dyn Files>, Handle)> {
        self.open_lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn chain_before(&self, n: u64) -> Option<Chain> {
        self.lock().manifest.chain_before(n)
    }

    pub fn method(&self) -> Method {
        self.lock().manifest.method()
    }

    pub fn checksum(&self) -> Option<Checksum> {
        self.lock().manifest.checksum()
    }

    /// A copy as it stands now, for the next attempt.
    pub fn manifest(&self) -> Manifest {
        self.lock().manifest.clone()
    }

    /// Takes what `chain` says of chunk `n` after going through it: a new line, or a
    /// comparison with the one there is. False when they differ.
    pub fn note(&self, n: u64, chain: &Chain) -> bool {
        let mut state = self.lock();
        if n <= state.manifest.known() {
            return state.manifest.agrees(n, chain);
        }
        let Some(line) = state.manifest.note(n, chain) else { return false };
        if state.waiting.is_empty() {
            state.waiting_from = n;
        }
        state.waiting.push_str(&line);
        drop(state);
        self.noted.send_replace(n);
        true
    }

    /// To be told when the source, which did not change, is not what the manifest says.
    pub fn contradict(&self) {
        self.contradicted.store(true, Ordering::Relaxed);
    }

    /// Whether the manifest turned out to be damaged.
    pub fn is_contradicted(&self) -> bool {
        self.contradicted.load(Ordering::Relaxed)
    }

    /// Writes lines as they are noted. Ends only with an error; drop it when done.
    pub async fn write_lines(&self) -> Result<(), RemoteError> {
        let Some((files, handle)) = self.open() else {
            return Err(RemoteError::new(RemoteErrorKind::Failure, "the manifest is not there yet"));
        };
        let mut noted = self.noted.subscribe();
        loop {
            let (lines, offset, last) = {
                let mut state = self.lock();
                let lines = std::mem::take(&mut state.waiting);
                (lines, state.manifest.line_offset(state.waiting_from), state.manifest.known())
            };
            if lines.is_empty() {
                if noted.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            write_all(files.as_ref(), &handle, offset, Bytes::from(lines)).await?;
            self.written.send_replace(last);
        }
    }

    /// Returns when the lines 1 to `n` are acknowledged.
    pub async fn wait_written(&self, n: u64) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.written.subscribe().wait_for(|written| *written >= n).await;
    }

    /// Every line that counts was acknowledged.
    pub async fn close(&self) -> Result<(), RemoteError> {
        let open = self.open_lock().take();
        match open {
            Some((files, handle)) => files.close_unheard(handle).await,
            None => Ok(()),
        }
    }
}
