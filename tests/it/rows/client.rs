//! A person's side: a home directory, sources in it, and runs of the program.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::harness::container::TestHost;
use crate::harness::{haul, wait_until};

/// A hang is a failure; the machine may be slow.
pub const LIMIT: Duration = Duration::from_secs(180);
pub const CHUNK: u64 = 64 << 10;
const CHUNK_SIZE: &str = "64KiB";

pub struct Client {
    home: TempDir,
    connection: Vec<OsString>,
    login: String,
}

impl Client {
    pub fn of(host: &dyn TestHost) -> Client {
        let connection: Vec<OsString> = vec![
            "-P".into(),
            host.port().to_string().into(),
            "-i".into(),
            host.key_path().into(),
            "-o".into(),
            format!("UserKnownHostsFile={}", host.known_hosts_path().display()).into(),
        ];
        Client {
            home: tempfile::tempdir().expect("a home"),
            connection,
            login: format!("{}@127.0.0.1", host.user()),
        }
    }

    /// Logs in as somebody else, with the same key.
    pub fn log_in_as(mut self, user: &str) -> Client {
        self.login = format!("{user}@127.0.0.1");
        self
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn source(&self, name: impl AsRef<OsStr>, size: u64, seed: u64) -> PathBuf {
        let path = self.home().join(name.as_ref());
        fs::write(&path, content(size, seed)).expect("a source");
        path
    }

    pub fn destination(&self, path: impl AsRef<OsStr>) -> OsString {
        let mut text = OsString::from(&self.login);
        text.push(":");
        text.push(path.as_ref());
        text
    }

    /// With what is needed to connect; everything else is still to be added.
    pub fn haul(&self, command: &str) -> Command {
        let mut haul = haul(self.home());
        haul.arg(command).args(&self.connection);
        haul
    }

    /// `haul <command> --user-id alice --json … DEST`, for status, merge and clean.
    pub fn on(&self, command: &str, target: impl AsRef<OsStr>, more: &[&str]) -> Outcome {
        let mut haul = self.haul(command);
        haul.args(["--json", "--user-id", "alice"]).args(more).arg(self.destination(target));
        self.run(haul)
    }

    pub fn put_command(&self, source: &Path, target: impl AsRef<OsStr>, more: &[&str]) -> Command {
        let mut haul = self.haul("put");
        haul.args(["--json", "--user-id", "alice", "--chunk-size", CHUNK_SIZE]).args(more);
        haul.arg("--").arg(source).arg(self.destination(target));
        haul
    }

    pub fn put(&self, source: &Path, target: impl AsRef<OsStr>, more: &[&str]) -> Outcome {
        self.run(self.put_command(source, target, more))
    }

    pub fn start_put(&self, source: &Path, target: impl AsRef<OsStr>, more: &[&str]) -> Running {
        self.start(self.put_command(source, target, more))
    }

    pub fn run(&self, command: Command) -> Outcome {
        self.start(command).wait()
    }

    pub fn start(&self, command: Command) -> Running {
        Running::start(command, self.home())
    }
}

/// A run under way; dropped, it is killed.
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// With its output in files of `directory`.
    pub fn start(mut command: Command, directory: &Path) -> Running {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] =
            ["stdout", "stderr"].map(|name| directory.join(format!(".run-{number}.{name}")));
        command.stdin(Stdio::null());
        command.stdout(File::create(&stdout).expect("stdout"));
        command.stderr(File::create(&stderr).expect("stderr"));
        Running { child: command.spawn().expect("haul runs"), stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What is printed, as it comes.
    pub fn stdout_path(&self) -> PathBuf {
        self.stdout.clone()
    }

    pub fn stderr_path(&self) -> PathBuf {
        self.stderr.clone()
    }

    pub fn stderr(&self) -> String {
        lossy(&self.stderr)
    }

    pub fn stdout(&self) -> String {
        lossy(&self.stdout)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Waits for the end. Gives the bytes that it asked for of files, by the kernel's books.
    pub fn read_bytes_at_end(&mut self) -> u64 {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let pid = Pid::from_raw(self.pid().try_into().expect("a pid")).expect("a pid");
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("waitid");
        let books = fs::read_to_string(format!("/proc/{}/io", self.pid())).expect("its books");
        let read = books.lines().find_map(|line| line.strip_prefix("rchar: "));
        read.expect("rchar").trim().parse().expect("a number")
    }

    /// Waits for `condition`, which has to come true while haul runs.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        loop {
            let ended = !self.is_running();
            if condition() {
                return;
            }
            assert!(!ended, "haul ended before: {what}\n{}{}", self.stdout(), self.stderr());
            assert!(begin.elapsed() < LIMIT, "in vain: {what}\n{}{}", self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    /// SIGKILL, and nothing more of it is left.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        let status = self.child.wait().expect("wait");
        assert_eq!(status.signal(), Some(9), "it ended by itself: {}{}", self.stdout(), self.stderr());
    }

    pub fn wait(self) -> Outcome {
        self.wait_for(LIMIT)
    }

    /// With the most memory that it had, in KiB.
    pub fn wait_and_weigh(mut self) -> (u64, Outcome) {
        let (begin, status) = (Instant::now(), format!("/proc/{}/status", self.pid()));
        let mut peak = 0;
        while self.is_running() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            peak = peak.max(kib.unwrap_or(0));
            assert!(begin.elapsed() < LIMIT, "haul hangs: {}{}", self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
        (peak, self.wait())
    }

    pub fn wait_for(mut self, limit: Duration) -> Outcome {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(begin.elapsed() < limit, "haul hangs: {}{}", self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        };
        Outcome { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub struct Outcome {
    /// `None`: it died by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    pub fn events(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The last object on standard output.
    #[track_caller]
    pub fn last(&self) -> Value {
        self.events().pop().unwrap_or_else(|| panic!("nothing was printed; stderr: {}", self.stderr))
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.last()["status"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        self.last()[key].as_u64().unwrap_or_else(|| panic!("{key}: {self:?}"))
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Outcome {
        assert!(self.stderr.contains(text), "not said: {text}\n{}", self.stderr);
        self
    }
}

/// Bytes that differ from chunk to chunk and from seed to seed.
pub fn content(size: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends a signal; that the process has gone already is no error.
pub fn signal(name: &str, pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match name {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "KILL" => Signal::KILL,
        other => panic!("no such signal here: {other}"),
    };
    let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
    if let Err(error) = kill_process(pid, signal) {
        assert_eq!(error, rustix::io::Errno::SRCH, "{name} to {pid:?}");
    }
}

/// `'…'` for a POSIX shell.
pub fn quoted(text: impl AsRef<OsStr>) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in text.as_ref().as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    quoted
}

fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Polls until nothing of a killed run's sessions works any more.
pub fn wait_idle(host: &dyn TestHost) {
    wait_until("the end of the sessions", LIMIT, || host.is_idle());
}
