//! A target directory with chunks in it, and the merge script in a real shell.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use haul::model::chunk::{ChunkSize, Geometry};
use haul::model::merge_script::{MergeScriptInputs, MergeState, merge_script, state_path};
use haul::model::names::{Names, RunNames, UserId};
use haul::model::record::Record;
use haul::model::remote_path::RemotePath;
use haul::model::run_id::RunId;
use tempfile::TempDir;

use super::shells::Machine;

const DEADLINE: Duration = Duration::from_secs(60);

pub struct Scene {
    _directory: Option<TempDir>,
    pub names: Names,
    pub run: RunId,
    pub generation: RunId,
    pub geometry: Geometry,
    pub source: Vec<u8>,
    beat: u64,
}

pub fn local(path: &RemotePath) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.as_bytes()))
}

impl Scene {
    pub fn new(target: &[u8], chunks: u64, chunk_bytes: u64, last_bytes: u64) -> Scene {
        let directory = TempDir::new().expect("a temporary directory");
        let mut scene = Scene::inside(directory.path(), target, chunks, chunk_bytes, last_bytes);
        scene._directory = Some(directory);
        scene
    }

    /// `target` is a file name in `directory`.
    pub fn inside(directory: &Path, target: &[u8], chunks: u64, chunk_bytes: u64, last_bytes: u64) -> Scene {
        let size = (chunks - 1) * chunk_bytes + last_bytes;
        let geometry = Geometry::new(size, ChunkSize::new(chunk_bytes).expect("a chunk size"));
        assert_eq!(geometry.chunks(), chunks);
        let mut source = vec![0; usize::try_from(size).expect("a small file")];
        getrandom::fill(&mut source).expect("random bytes");
        let path = RemotePath::new(directory.as_os_str().as_bytes()).expect("a path").join(target);
        let names = Names::new(&path, &UserId::new("o'neil $x").expect("a user id"));
        let run = RunId::from_random(0x1234);
        fs::create_dir(local(names.temp())).expect("the temp directory");
        fs::create_dir(local(names.run(run).directory())).expect("the private directory");
        let generation = RunId::from_random(0xfeed);
        let mut scene = Scene { _directory: None, names, run, generation, geometry, source, beat: 0 };
        scene.beat();
        scene
    }

    pub fn private(&self) -> RunNames {
        self.names.run(self.run)
    }

    pub fn temp(&self) -> PathBuf {
        local(self.names.temp())
    }

    pub fn merged(&self) -> PathBuf {
        local(&self.private().merged(self.generation))
    }

    pub fn chunk(&self, n: u64) -> PathBuf {
        local(&self.names.chunk(n))
    }

    /// What a living client does every two seconds.
    pub fn beat(&mut self) {
        self.beat += 1;
        let text = format!("haul-lock: 1\nuser: a b\nbeat: {:020}\n", self.beat);
        fs::write(local(&self.private().lock()), text).expect("the beat");
    }

    pub fn chunk_bytes(&self, n: u64) -> &[u8] {
        let range = self.geometry.range(n);
        let index = |offset: u64| usize::try_from(offset).expect("a small file");
        &self.source[index(range.start)..index(range.end)]
    }

    /// Publishes chunks as haul does, by rename.
    pub fn put_chunks(&self, chunks: impl IntoIterator<Item = u64>) {
        for n in chunks {
            let part = local(&self.private().part(n, 0));
            fs::write(&part, self.chunk_bytes(n)).expect("a part");
            fs::rename(&part, self.chunk(n)).expect("a rename");
        }
    }

    /// How far the merge has come by its record; nothing where there is none.
    pub fn recorded(&self) -> u64 {
        match fs::read(local(&self.names.record())) {
            Ok(bytes) => Record::parse(&bytes).expect("a whole record").merged_chunks(),
            Err(_) => 0,
        }
    }

    /// Writes `merge.sh` so that it goes on from the record.
    pub fn write_script(&self) {
        let name = self.names.target().file_name();
        let record = Record::new(name, self.geometry, self.recorded(), self.generation).expect("a record");
        let text = merge_script(&MergeScriptInputs { names: &self.names, run: self.run, record: &record });
        fs::write(local(&self.private().merge_script()), text).expect("the script");
    }

    pub fn command(&self, machine: &Machine) -> Command {
        let mut command = machine.command(machine.sh());
        let directory = OsStr::from_bytes(self.private().directory().file_name()).to_owned();
        command
            .arg(Path::new(".").join(directory).join("merge.sh"))
            .current_dir(self.temp())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Writes the script and runs it.
    pub fn start(&self, machine: &Machine) -> Child {
        self.write_script();
        self.command(machine).spawn().expect("the shell runs")
    }

    pub fn state(&self) -> MergeState {
        let content = fs::read(local(&state_path(&self.private()))).unwrap_or_default();
        MergeState::parse(&content).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&content)))
    }

    /// Runs the script to its end.
    pub fn merge(&self, machine: &Machine) -> MergeState {
        let mut child = self.start(machine);
        let said = wait(&mut child);
        let state = self.state();
        assert!(state.is_final(), "{state:?}: {said}");
        if state == MergeState::Done {
            assert_eq!(said, "");
        }
        state
    }

    /// The record is never ahead of the data, and every chunk of `published` is either
    /// merged by the record or still there, whole.
    pub fn assert_nothing_lost(&self, published: impl IntoIterator<Item = u64>, context: &str) {
        let recorded = self.recorded();
        let merged = fs::read(self.merged()).unwrap_or_default();
        let reach = usize::try_from(self.geometry.end(recorded)).expect("a small file");
        assert!(merged.len() >= reach, "{context}: the record is ahead");
        assert!(merged[..reach] == self.source[..reach], "{context}: wrong bytes are recorded");
        for n in published {
            if n > recorded {
                let bytes =
                    fs::read(self.chunk(n)).unwrap_or_else(|error| panic!("{context}: chunk {n}: {error}"));
                assert!(bytes == self.chunk_bytes(n), "{context}: chunk {n} was changed");
            }
        }
    }

    /// The merge is complete and has left only what the commit needs.
    pub fn assert_done(&self, context: &str) {
        assert_eq!(self.state(), MergeState::Done, "{context}");
        assert_eq!(self.recorded(), self.geometry.chunks(), "{context}");
        assert!(fs::read(self.merged()).expect("the merged file") == self.source, "{context}");
        let names = |path: &Path| -> Vec<Vec<u8>> {
            let entries = fs::read_dir(path).expect("a directory");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name().as_bytes().to_vec()).collect();
            names.sort();
            names
        };
        let private = self.private();
        let mut left = vec![private.directory().file_name().to_vec(), self.names.record_name().to_vec()];
        left.sort();
        assert_eq!(names(&self.temp()), left, "{context}");
        let merged = private.merged(self.generation);
        assert_eq!(
            names(&local(private.directory())),
            [&b"lock"[..], b"merge.sh", b"merge.state", merged.file_name()],
            "{context}"
        );
    }
}

/// Waits for the end and returns what was said on standard error.
pub fn wait(child: &mut Child) -> String {
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        assert!(start.elapsed() < DEADLINE, "the script does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut said);
    }
    said
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn kill_group(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
}

/// Every file below `directory` with its content, but for the merged file: a fenced script
/// may still write there through its open descriptor, and nowhere else.
pub fn unwritten(scene: &Scene, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let merged = scene.private().merged(scene.generation);
    let merged = OsStr::from_bytes(merged.file_name());
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(current) = directories.pop() {
        for entry in fs::read_dir(&current).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                directories.push(entry.path());
            } else if entry.file_name() != merged {
                let relative = entry.path().strip_prefix(directory).expect("below").to_owned();
                files.insert(relative, fs::read(entry.path()).expect("a file"));
            }
        }
    }
    files
}
