//! Damage between two runs: the rerun makes the right file and sends only what is bad, or
//! refuses with a clear word.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use haul::engine::failure::FailureKind;
use haul::remote::faulty::{Call, Fault, FaultScript, Moment};

use super::cases::finishes;
use super::client::{PLACED, POOR, SCRIPT, STORED, Way};
use super::scene::{CHUNK, CHUNKS, Scene, Stands, merged_files, names_in};
use super::verdict::{Broken, Finding, Verdict};
use super::{Sweeps, calls_of, chosen};

/// How far the upload had come when its client was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// Four chunks are published.
    HalfWay,
    /// Everything is merged and verified, and nothing is committed.
    ToTheCommit,
}

/// What has to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The right file, with at most so many chunks sent besides those that were missing.
    Mended(usize),
    /// Refused, and done once what stands in the way is removed.
    Refused(FailureKind),
}

/// Gives false where there is nothing of this kind to damage.
type Harm = fn(&Scene) -> bool;

const ALL: Then = Then::Mended(CHUNKS as usize);

/// Each file of an upload, each kind of damage.
const MATRIX: &[(&str, Harm, Then)] = &[
    ("nothing", |_| true, Then::Mended(0)),
    ("manifest deleted", |scene| delete(manifest(scene)), ALL),
    ("manifest empty", |scene| cut(manifest(scene), 0), ALL),
    ("manifest cut in its header", |scene| cut(manifest(scene), 50), ALL),
    ("manifest cut in its lines", |scene| cut(manifest(scene), 320), ALL),
    ("manifest's first line damaged", |scene| flip_line(scene, 1), Then::Mended(2)),
    ("manifest's third line damaged", |scene| flip_line(scene, 3), Then::Mended(2)),
    ("manifest's last line damaged", flip_last_line, Then::Mended(2)),
    ("manifest's size damaged", |scene| swap(manifest(scene), "\nsize: ", "\nsize: 9"), ALL),
    ("manifest of nobody", |scene| write(manifest(scene), b"hello\n"), ALL),
    (
        "manifest of another version",
        |scene| swap(manifest(scene), "haul-manifest: 1", "haul-manifest: 9"),
        Then::Refused(FailureKind::Failed),
    ),
    ("record deleted", |scene| delete(record(scene)), ALL),
    ("record empty", |scene| cut(record(scene), 0), ALL),
    ("record torn", |scene| cut(record(scene), 60), ALL),
    ("record of another version", |scene| swap(record(scene), "haul-record: 1", "haul-record: 2"), ALL),
    ("record of nobody", |scene| write(record(scene), b"hello\n"), ALL),
    ("record behind", |scene| record_says(scene, 0), ALL),
    ("record ahead", |scene| record_says(scene, CHUNKS), Then::Mended(0)),
    ("record of another merged file", record_of_another, ALL),
    ("chunk deleted", |scene| delete(chunk(scene)), Then::Mended(1)),
    ("chunk empty", |scene| cut(chunk(scene), 0), Then::Mended(1)),
    ("chunk cut", |scene| cut(chunk(scene), 100), Then::Mended(1)),
    ("chunk damaged", |scene| flip(chunk(scene), 100), Then::Mended(1)),
    ("chunk too long", |scene| append(chunk(scene)), Then::Mended(1)),
    ("receipt deleted", |scene| delete(receipt(scene)), Then::Mended(1)),
    ("receipt of another merged file", receipt_of_another, Then::Mended(1)),
    ("receipts for all", receipts_for_all, Then::Mended(0)),
    ("merged file deleted", |scene| delete(merged(scene)), ALL),
    ("merged file empty", |scene| cut(merged(scene), 0), ALL),
    ("merged file cut", |scene| cut(merged(scene), 2 * CHUNK), ALL),
    ("merged file damaged", |scene| flip(merged(scene), CHUNK + 7), Then::Mended(1)),
    ("merged file damaged twice", flip_two, Then::Mended(2)),
    ("merged file too long", |scene| append(merged(scene)), Then::Mended(0)),
    ("lock deleted", |scene| delete(Some(scene.lock())), Then::Mended(0)),
    ("lock empty", |scene| cut(Some(scene.lock()), 0), Then::Mended(0)),
    ("lock torn", |scene| cut(Some(scene.lock()), 100), Then::Mended(0)),
    ("lock zeroed", |scene| zero(scene.lock()), Then::Mended(0)),
    (
        "lock of nobody",
        |scene| replace(scene.lock(), b"a file of mine\n"),
        Then::Refused(FailureKind::Locked),
    ),
    (
        "lock of another user",
        |scene| replaced(scene.lock(), "user: alice", "user: bobby"),
        Then::Refused(FailureKind::Locked),
    ),
    (
        "lock of another version",
        |scene| replaced(scene.lock(), "haul-lock: 1", "haul-lock: 2"),
        Then::Refused(FailureKind::Locked),
    ),
    (
        "lock is a directory",
        |scene| delete(Some(scene.lock())) && fs::create_dir(scene.lock()).is_ok(),
        Then::Refused(FailureKind::Failed),
    ),
    ("a file of nobody in the temp directory", |scene| write(Some(scene.temp().join("mine")), b"x"), ALL),
    ("merge state of nobody", |scene| write(private(scene, "merge.state"), b"running for ever\n"), ALL),
    ("private files gone", empty_private, ALL),
];

fn manifest(scene: &Scene) -> Option<PathBuf> {
    Some(scene.temp().join("manifest"))
}

fn record(scene: &Scene) -> Option<PathBuf> {
    Some(scene.temp().join("target.txt"))
}

/// The first stored chunk.
fn chunk(scene: &Scene) -> Option<PathBuf> {
    named(scene, |rest| !rest.contains('.'))
}

fn receipt(scene: &Scene) -> Option<PathBuf> {
    named(scene, |rest| rest.contains('.'))
}

fn named(scene: &Scene, wanted: fn(&str) -> bool) -> Option<PathBuf> {
    let names = names_in(&scene.temp());
    let name = names.iter().find(|name| name.strip_prefix("alice-target:").is_some_and(wanted))?;
    Some(scene.temp().join(name))
}

fn merged(scene: &Scene) -> Option<PathBuf> {
    let mut found = HashMap::new();
    merged_files(&scene.temp(), &mut found);
    found.into_values().map(|(path, _)| path).next()
}

fn private(scene: &Scene, file: &str) -> Option<PathBuf> {
    let name = names_in(&scene.temp()).into_iter().find(|name| name.starts_with("run."))?;
    Some(scene.temp().join(name).join(file))
}

fn delete(path: Option<PathBuf>) -> bool {
    path.is_some_and(|path| fs::remove_file(path).is_ok())
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Cuts a file to `to` bytes, in place.
fn cut(path: Option<PathBuf>, to: u64) -> bool {
    let Some(path) = path.filter(|path| length(path) > to) else { return false };
    OpenOptions::new().write(true).open(path).expect("it opens").set_len(to).is_ok()
}

fn flip(path: Option<PathBuf>, at: u64) -> bool {
    let Some(path) = path.filter(|path| length(path) > at) else { return false };
    let file = OpenOptions::new().read(true).write(true).open(path).expect("it opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).is_ok()
}

fn append(path: Option<PathBuf>) -> bool {
    let Some(path) = path else { return false };
    let file = OpenOptions::new().write(true).open(&path).expect("it opens");
    file.write_all_at(b"more", length(&path)).is_ok()
}

fn write(path: Option<PathBuf>, content: &[u8]) -> bool {
    path.is_some_and(|path| fs::write(path, content).is_ok())
}

fn zero(path: PathBuf) -> bool {
    let zeros = vec![0; usize::try_from(length(&path)).expect("small")];
    !zeros.is_empty() && fs::write(path, zeros).is_ok()
}

/// A new file in place of the old one, which keeps its other names.
fn replace(path: PathBuf, content: &[u8]) -> bool {
    fs::remove_file(&path).is_ok() && fs::write(path, content).is_ok()
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn swap(path: Option<PathBuf>, from: &str, to: &str) -> bool {
    let Some(path) = path else { return false };
    text(&path)
        .is_some_and(|text| text.contains(from) && fs::write(&path, text.replacen(from, to, 1)).is_ok())
}

fn replaced(path: PathBuf, from: &str, to: &str) -> bool {
    text(&path)
        .is_some_and(|text| text.contains(from) && replace(path, text.replacen(from, to, 1).as_bytes()))
}

fn flip_line(scene: &Scene, n: usize) -> bool {
    let path = scene.temp().join("manifest");
    let Some(text) = text(&path) else { return false };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let header = lines.iter().position(|line| line == "chunk-lines:").expect("a header") + 1;
    let Some(line) = lines.get_mut(header + n - 1) else { return false };
    let other = if line.starts_with('0') { "1" } else { "0" };
    line.replace_range(0..1, other);
    fs::write(path, lines.join("\n") + "\n").is_ok()
}

fn flip_last_line(scene: &Scene) -> bool {
    let lines = text(&scene.temp().join("manifest")).map_or(0, |text| text.lines().count());
    lines > 8 && flip_line(scene, lines - 8)
}

/// The record as if `merged` chunks were merged.
fn record_says(scene: &Scene, merged: u64) -> bool {
    let path = scene.temp().join("target.txt");
    let Some(text) = text(&path) else { return false };
    let size = (merged * CHUNK).min(super::scene::SIZE);
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.split(':').next() {
            Some("size") => format!("size: {size}"),
            Some("chunk") => format!("chunk: {merged}"),
            Some("end") => format!("end: {merged}"),
            _ => line.to_owned(),
        })
        .collect();
    let changed = lines.join("\n") + "\n";
    changed != text && fs::write(path, changed).is_ok()
}

fn record_of_another(scene: &Scene) -> bool {
    let path = scene.temp().join("target.txt");
    let Some(text) = text(&path) else { return false };
    let Some(line) = text.lines().find(|line| line.starts_with("merged: ")) else { return false };
    fs::write(&path, text.replace(line, "merged: 0123456789abcdef")).is_ok()
}

fn receipt_of_another(scene: &Scene) -> bool {
    let Some(path) = receipt(scene) else { return false };
    fs::rename(&path, path.with_extension("0123456789abcdef")).is_ok()
}

/// Also for chunks that are not in the merged file.
fn receipts_for_all(scene: &Scene) -> bool {
    let Some(path) = receipt(scene) else { return false };
    let generation = path.extension().expect("a generation").to_string_lossy().into_owned();
    (1..=CHUNKS).all(|n| write(Some(scene.temp().join(format!("alice-target:{n}.{generation}"))), b""))
}

fn flip_two(scene: &Scene) -> bool {
    flip(merged(scene), 9) && flip(merged(scene), 2 * CHUNK + 9)
}

fn empty_private(scene: &Scene) -> bool {
    private(scene, "").is_some_and(|path| fs::remove_dir_all(path).is_ok())
}

/// Every kind of damage: what it is and whether the lock is what it is done to. `None` where
/// haul has to refuse, or a file has to stay.
pub fn harms() -> impl Iterator<Item = Option<(&'static str, bool)>> {
    MATRIX.iter().map(|(what, _, then)| {
        let stays = matches!(then, Then::Refused(_)) || what.starts_with("a file of nobody");
        (!stays).then(|| (*what, what.starts_with("lock")))
    })
}

/// Does that damage; false where there is nothing of this kind.
pub fn harm(scene: &Scene, which: usize) -> bool {
    MATRIX[which].1(scene)
}

/// Of these calls the one at which a run has come so far; half way is with so many chunks
/// published.
pub fn moment(calls: &[Call], came: Came, enough: usize) -> Option<usize> {
    let mut published = 0;
    let found = calls.iter().position(|call| match came {
        Came::HalfWay => {
            published +=
                usize::from(call.object.contains(" -> ") && call.object.contains(":alice/alice-target:"));
            published == enough
        }
        Came::ToTheCommit => call.operation == "setstat" && call.object.contains("/merged."),
    });
    found.map(|at| at + 1)
}

fn damaged(way: Way, moment: Moment, which: usize) -> Verdict {
    let (what, harm, mut then) = MATRIX[which];
    if way.name == POOR.name && what.starts_with("manifest's") {
        // Without copy-data nothing can be kept of a merged file.
        then = ALL;
    }
    let scene = Scene::new(way, true);
    let killed = scene.run(FaultScript::new(moment, Fault::Crash, 0), 0);
    let missing = CHUNKS as usize - scene.published().len();
    // Only a lock that is damaged itself has to be watched.
    let of_the_lock = what.starts_with("lock");
    if !of_the_lock || way.shell {
        scene.holder_dies();
    }
    if !harm(&scene) {
        return Ok(());
    }
    let ran = scene.run(FaultScript::faultless(), 5);
    let sent = ran.report().map_or(0, |report| report.chunks_sent) as usize;
    let (broken, problem) = match (then, ran.failure()) {
        _ if ran.outcome.is_none() => (Broken::Hung, "hung".to_owned()),
        _ if scene.stands() == Stands::Torn => (Broken::Torn, "torn".to_owned()),
        (Then::Mended(_), Some(failure)) => (Broken::Lost, format!("not mended: {failure}")),
        (Then::Mended(_), None) if scene.stands() != Stands::New => {
            (Broken::False, "a false success".to_owned())
        }
        (Then::Mended(most), None) if sent > missing + most => {
            (Broken::Lost, format!("{sent} chunks sent where {missing} were missing"))
        }
        (Then::Mended(_), None) => {
            // A file that is not haul's stays, and with it the directory it lies in.
            let mine = scene.temp().join("mine").exists();
            match scene.litter() {
                litter if litter.is_empty() || mine => return Ok(()),
                litter => (Broken::Lost, format!("litter: {litter:?}")),
            }
        }
        (Then::Refused(_), None) => (Broken::False, "not refused".to_owned()),
        (Then::Refused(kind), Some(failure)) if failure.kind != kind || failure.next_step.is_empty() => {
            (Broken::False, format!("not this refusal: {:?} {failure}", failure.kind))
        }
        (Then::Refused(_), Some(_)) if scene.stands() != Stands::Old => {
            (Broken::Lost, "refused and replaced".to_owned())
        }
        (Then::Refused(_), Some(_)) => {
            // What stands in the way is removed by hand.
            let _ = fs::remove_file(scene.lock());
            let _ = fs::remove_dir(scene.lock());
            swap(manifest(&scene), "haul-manifest: 9", "haul-manifest: 1");
            let published = scene.published();
            return finishes(&scene, &published, &ran.story()).map(drop);
        }
    };
    let story = format!("{what}: {problem}\n--- killed\n{}--- then\n{}", killed.story(), ran.story());
    Err(Finding::new(broken, story))
}

fn sweep_damage(way: Way) {
    let mut sweeps = Sweeps::default();
    for came in [Came::HalfWay, Came::ToTheCommit] {
        let calls = calls_of(way, true).calls;
        let at = moment(&calls, came, 5).expect("it comes so far");
        // How many calls a merge takes differs from run to run; which setstat it is does not.
        let moment = match came {
            Came::HalfWay => Moment::Call(at),
            Came::ToTheCommit => {
                let nth = calls[..at].iter().filter(|call| call.operation == "setstat").count();
                Moment::Nth("setstat", nth)
            }
        };
        let every = if way.shell { chosen(way, 1, MATRIX.len() - 5) } else { (1..=MATRIX.len()).collect() };
        let which: Vec<usize> = every.into_iter().map(|i| i - 1).collect();
        sweeps
            .sweep(&format!("{}, killed {came:?}", way.name), &which, |which, _| damaged(way, moment, which));
    }
}

#[test]
fn damage_is_mended_placed() {
    sweep_damage(PLACED);
}

#[test]
fn damage_is_mended_stored() {
    sweep_damage(STORED);
}

#[test]
fn damage_is_mended_on_a_poor_server() {
    sweep_damage(POOR);
}

#[test]
fn damage_is_mended_under_the_script() {
    sweep_damage(SCRIPT);
}
