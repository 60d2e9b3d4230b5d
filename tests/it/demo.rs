//! `haul demo`, whole: the server inside, the cut, the resume and the figures.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use haul::cli::commands::demo::{Audience, DemoRequest, demo};
use haul::engine::failure::{Failure, FailureKind};
use haul::engine::monitor::Silent;
use haul::engine::stop::stop_pair;
use haul::model::names::UserId;

use crate::harness::haul;

/// A hang is a failure; the machine may be slow.
const LIMIT: Duration = Duration::from_secs(180);

fn request(temp: &Path, size: u64) -> DemoRequest {
    DemoRequest {
        keep: false,
        size,
        user: UserId::new("alice").expect("a user id"),
        holder: "alice@laptop".to_owned(),
        temp: temp.to_owned(),
        program: "haul".to_owned(),
    }
}

#[derive(Default)]
struct Told(String);

impl Audience for Told {
    fn tell(&mut self, text: &str) -> std::io::Result<()> {
        self.0.push_str(text);
        self.0.push('\n');
        Ok(())
    }
}

/// Does not survive a test that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(request: DemoRequest) -> (Result<(), Failure>, String) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let mut output = Told::default();
    let (_switch, stop) = stop_pair();
    let demo =
        async { tokio::time::timeout(LIMIT, demo(request, &mut output, Arc::new(Silent), stop)).await };
    let result = runtime.block_on(demo).expect("the demo ends");
    (result, output.0)
}

fn words_of<'a>(output: &'a str, key: &str) -> Vec<Vec<&'a str>> {
    let lines = output.lines().filter(|line| line.split_whitespace().next() == Some(key));
    lines.map(|line| line.split_whitespace().skip(1).collect()).collect()
}

#[test]
fn it_is_cut_off_resumes_and_arrives_whole() {
    for size in [64 << 20, (100 << 20) + 1] {
        let temp = tempfile::tempdir().expect("temp directory");
        let (result, output) = run(request(temp.path(), size));
        println!("{output}");
        if let Err(failure) = result {
            panic!("{size} bytes: {failure}\n{output}");
        }
        assert!(output.lines().count() <= 15, "{output}");
        let digests = words_of(&output, "sha256");
        assert_eq!(digests.len(), 2, "{output}");
        assert!(digests[0][0].len() == 64 && digests[0][0] == digests[1][0], "{output}");
        let chunks = &words_of(&output, "chunks")[0];
        let [all, kept, sent] = [0, 3, 5].map(|at| chunks[at].parse::<u64>().expect(&output));
        assert!(kept > 0 && sent > 0 && kept + sent == all, "{output}");
        let left: Vec<_> = std::fs::read_dir(temp.path()).expect("temp").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let temp = tempfile::tempdir().expect("temp directory");
    let (result, output) = run(request(temp.path(), 1));
    assert_eq!(result.expect_err("too small").kind, FailureKind::Usage);
    let (result, _) = run(request(temp.path(), u64::MAX / 8));
    let failure = result.expect_err("too large");
    assert_eq!(failure.kind, FailureKind::Storage);
    assert!(failure.to_string().contains("TMPDIR"), "{failure}");
    assert!(output.is_empty() && std::fs::read_dir(temp.path()).expect("temp").next().is_none());
}

#[test]
fn the_server_that_is_kept_takes_the_printed_command() {
    let home = tempfile::tempdir().expect("temp directory");
    let temp = home.path().join("it's$temporary");
    std::fs::create_dir(&temp).expect("temp");
    let child = haul(home.path())
        .args(["demo", "--size", "64MiB", "--keep"])
        .env("TMPDIR", &temp)
        .stdout(Stdio::piped())
        .spawn()
        .expect("haul runs");
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().expect("stdout")).lines();
    let line = lines.by_ref().map(|line| line.expect("a line")).find(|line| line.starts_with("  "));
    let line = line.expect("the command");
    let served =
        std::fs::read_dir(&temp).expect("temp").next().expect("one").expect("entry").path().join("served");

    let mut shell = Command::new("sh");
    for (name, value) in haul(home.path()).get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.args(["-c", line.trim()]).output().expect("sh runs");
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    let sent = std::fs::read(served.join("again.img")).expect("again.img");
    assert!(sent == std::fs::read(served.join("demo.img")).expect("demo.img"));

    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("Ctrl-C");
    assert!(running.0.wait().expect("haul ends").success());
    assert!(std::fs::read_dir(&temp).expect("temp").next().is_none());
}
