//! The program killed (SIGKILL) on a real sshd, at random moments and in every phase: the
//! target is the old file or the new one, and what was published is not sent again, by the
//! SFTP server's own count.
//!
//! `HAUL_KILLS=n` makes n random kills of each kind instead of a few.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::crash::verdict::{Broken, Finding, Verdict};
use crate::harness::sshd::Sshd;
use crate::rows::client::{CHUNK, Client, LIMIT, Running, content, wait_idle};
use crate::rows::place::{beside, published};

const CHUNKS: u64 = 40;
const SIZE: u64 = CHUNKS * CHUNK - 1000;
/// So slow that most of the random moments fall into the upload.
const SLOW: &str = "--bwlimit=4MiB";
const PHASES: [&str; 6] = ["hash", "upload", "merge", "verify", "commit", "clean"];

pub struct Scene {
    sshd: Sshd,
    client: Client,
    merge: &'static str,
    source: PathBuf,
}

impl Scene {
    pub fn new(merge: &'static str) -> Scene {
        let sshd = Sshd::builder().sftp_wrapper("INFO").start();
        let client = Client::of(&sshd);
        let source = client.source("source", SIZE, 1);
        Scene { sshd, client, merge, source }
    }

    /// A target of its own for each case, an old file of the same size.
    pub fn target(&self, name: &str) -> PathBuf {
        let target = self.sshd.scratch().join(name);
        std::fs::write(&target, content(SIZE, 2)).expect("an old file");
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = std::fs::OpenOptions::new().write(true).open(&target).expect("the old file");
        file.set_modified(long_ago).expect("a time");
        target
    }

    fn start(&self, target: &Path) -> Running {
        let more = ["--merge", self.merge, "--if-exists", "replace", SLOW];
        self.client.start_put(&self.source, target, &more)
    }

    /// SIGKILL, or nothing where it has ended by itself.
    fn kill(&self, mut run: Running) {
        if run.is_running() {
            run.signal("KILL");
        }
        let outcome = run.wait();
        assert!(matches!(outcome.code, None | Some(0)), "it failed before the kill: {outcome:?}");
        wait_idle(&self.sshd);
    }

    /// Whether the target is the new file; anything but the old or the new one is torn.
    fn is_done(&self, target: &Path, what: &str) -> Result<bool, Finding> {
        let stands = std::fs::read(target)
            .map_err(|error| Finding::new(Broken::Lost, format!("{what}: the target: {error}")))?;
        let done = stands == content(SIZE, 1);
        if done || stands == content(SIZE, 2) {
            return Ok(done);
        }
        Err(Finding::new(Broken::Torn, format!("{what}: torn, {} bytes", stands.len())))
    }

    /// Runs to the end, and counts what the server says was written to chunks.
    pub fn finish(&self, target: &Path, what: &str) -> Verdict {
        let lost = |text: String| Err(Finding::new(Broken::Lost, format!("{what}: {text}")));
        let done = self.is_done(target, what)?;
        let there: BTreeSet<u64> = published(&self.sshd, target);
        let before = self.sshd.sftp_log().len();
        let more = ["--merge", self.merge, "--if-exists", "replace"];
        let began = Instant::now();
        let outcome = self.client.put(&self.source, target, &more);
        let took = began.elapsed();
        wait_idle(&self.sshd);
        if outcome.code != Some(0) {
            return lost(format!("the last rerun: {outcome:?}"));
        }
        if !self.is_done(target, what)? {
            return Err(Finding::new(Broken::False, format!("{what}: a false success")));
        }
        let written = bytes_written(&self.sshd.sftp_log()[before..], self.merge);
        let missing: u64 =
            (1..=CHUNKS).filter(|n| !there.contains(n)).map(|n| CHUNK.min(SIZE - (n - 1) * CHUNK)).sum();
        let expected = if done { 0 } else { missing };
        if written > expected {
            return lost(format!("{written} bytes where {expected} were missing\n{outcome:?}"));
        }
        let litter = beside(&self.sshd, target);
        if !litter.is_empty() {
            return lost(format!("litter: {litter:?}"));
        }
        // A lock whose holder is seen to be gone is not watched for ten seconds.
        if outcome.stderr.contains("no sign of life") {
            let text = format!("{what}: after {took:?}: {}", outcome.stderr);
            return Err(Finding::new(Broken::Hung, text));
        }
        std::fs::remove_file(target).expect("the target");
        Ok(())
    }

    /// How long a run takes in which nothing happens.
    pub fn whole_run(&self) -> Duration {
        let target = self.target("whole.img");
        let began = Instant::now();
        self.start(&target).wait().expect(0);
        let whole = began.elapsed();
        std::fs::remove_file(target).expect("the target");
        whole
    }

    /// Starts a run and kills it. Where it was then, unless it had ended.
    pub fn killed_after(
        &self,
        target: &Path,
        after: Duration,
        what: &str,
    ) -> Result<Option<String>, Finding> {
        let mut run = self.start(target);
        std::thread::sleep(after);
        let was_running = run.is_running();
        let said = run.stdout_path();
        self.kill(run);
        self.is_done(target, what)?;
        let said = std::fs::read_to_string(said).unwrap_or_default();
        let phase = said.lines().rev().find_map(|line| {
            line.contains("\"event\":\"phase\"").then(|| line.split("\"phase\":\"").nth(1))?
        });
        let phase = phase.and_then(|rest| rest.split('"').next()).unwrap_or("connect");
        let chunks = published(&self.sshd, target).len();
        Ok(was_running.then(|| format!("SIGKILL in {phase} with {chunks} chunks published")))
    }
}

/// Bytes of chunks that came over the wire. A merge over SFTP writes to the merged file too,
/// from chunks that are there.
fn bytes_written(log: &str, merge: &str) -> u64 {
    let counts = |name: &str| name.starts_with("part.") || merge == "auto" && name.starts_with("merged.");
    log.lines()
        .filter_map(|line| line.split_once("close \"")?.1.split_once('"'))
        .filter(|(path, _)| path.contains("/run.") && counts(path.rsplit('/').next().unwrap_or("")))
        .map(|(_, rest)| {
            let written = rest.rsplit("written ").next().expect("a number");
            written.trim().parse::<u64>().unwrap_or_else(|error| panic!("{error}: {rest}"))
        })
        .sum()
}

/// Returns as soon as the run says that it is in `phase`.
fn wait_for_phase(run: &mut Running, phase: &str) {
    let (event, named) = ("\"event\":\"phase\"", format!("\"phase\":\"{phase}\""));
    let began = Instant::now();
    loop {
        let ended = !run.is_running();
        let said = run.stdout();
        if said.lines().any(|line| line.contains(event) && line.contains(&named)) {
            return;
        }
        assert!(!ended && began.elapsed() < LIMIT, "no phase {phase}:\n{said}{}", run.stderr());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn killed_in_every_phase(merge: &'static str) {
    let scene = Scene::new(merge);
    // Nothing is merged where chunks are placed.
    for phase in PHASES.into_iter().filter(|phase| merge != "auto" || *phase != "merge") {
        let target = scene.target(&format!("{phase}.img"));
        let mut run = scene.start(&target);
        wait_for_phase(&mut run, phase);
        scene.kill(run);
        scene
            .finish(&target, &format!("{merge}, killed in {phase}"))
            .unwrap_or_else(|found| panic!("{found}"));
    }
}

fn killed_at_random(merge: &'static str, seed: u64) {
    let scene = Scene::new(merge);
    let whole = scene.whole_run();
    let kills = std::env::var("HAUL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let mut random = seed;
    let mut case = 0;
    let mut made = 0;
    while made < kills {
        case += 1;
        let target = scene.target(&format!("{case}.img"));
        // One to three kills before the run that is let to its end.
        let mut what = format!("{merge}, seed {seed}, case {case}");
        for _ in 0..1 + next_random(&mut random) % 3 {
            let after = whole.mul_f64((next_random(&mut random) % 1000) as f64 / 1000.0);
            what = format!("{what}, after {after:?}");
            scene.killed_after(&target, after, &what).unwrap_or_else(|found| panic!("{found}"));
            made += 1;
        }
        scene.finish(&target, &what).unwrap_or_else(|found| panic!("{found}"));
    }
}

#[test]
fn killed_in_every_phase_placed() {
    killed_in_every_phase("auto");
}

#[test]
fn killed_in_every_phase_under_the_script() {
    killed_in_every_phase("script");
}

#[test]
fn killed_in_every_phase_merging_over_sftp() {
    killed_in_every_phase("sftp");
}

#[test]
fn killed_at_random_placed() {
    killed_at_random("auto", 1);
}

#[test]
fn killed_at_random_under_the_script() {
    killed_at_random("script", 2);
}

#[test]
fn killed_at_random_merging_over_sftp() {
    killed_at_random("sftp", 3);
}
