//! The manifest on the target, growing line by line while chunks are hashed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::engine::io::{create_with, publish, write_all};
use crate::engine::site::Site;
use crate::model::checksum::{Chain, Checksum, Method};
use crate::model::manifest::Manifest;
use crate::model::names::RunNames;
use crate::remote::RemoteError;
use crate::remote::files::{Files, Handle};

/// Readable by its owner only, like all in the temp directory.
const MODE: u32 = 0o600;

/// Lines are noted as they become known and written by [`ManifestFile::write_lines`], as
/// many at a time as there are.
pub struct ManifestFile {
    state: Mutex<State>,
    /// How many lines are noted, and how many of them the target has acknowledged.
    noted: watch::Sender<u64>,
    written: watch::Sender<u64>,
    files: Arc<dyn Files>,
    handle: Handle,
    contradicted: AtomicBool,
}

struct State {
    manifest: Manifest,
    /// Lines that are noted and not yet written, in order.
    waiting: String,
    waiting_from: u64,
}

impl ManifestFile {
    /// Puts `manifest` in place of the one that is there, as a new file: a handle that
    /// an old run still holds speaks of the old one.
    pub async fn create(
        site: &Site,
        run: &RunNames,
        manifest: Manifest,
    ) -> Result<ManifestFile, RemoteError> {
        let private = run.new_manifest();
        let content = Bytes::from(manifest.encode());
        let handle = create_with(site.files.as_ref(), &private, content, MODE).await?;
        publish(site.files.as_ref(), &private, &site.names.manifest()).await?;
        let known = manifest.known();
        let state = State { manifest, waiting: String::new(), waiting_from: known + 1 };
        Ok(ManifestFile {
            state: Mutex::new(state),
            noted: watch::Sender::new(known),
            written: watch::Sender::new(known),
            files: site.files.clone(),
            handle,
            contradicted: AtomicBool::new(false),
        })
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
            write_all(self.files.as_ref(), &self.handle, offset, Bytes::from(lines)).await?;
            self.written.send_replace(last);
        }
    }

    /// Returns when the lines 1 to `n` are acknowledged.
    pub async fn wait_written(&self, n: u64) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.written.subscribe().wait_for(|written| *written >= n).await;
    }

    pub async fn close(&self) -> Result<(), RemoteError> {
        self.files.close(self.handle.clone()).await
    }
}
