//! The examples of the README for `haul exec`, each run as it stands there, by a shell,
//! against real servers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::sshd::{terminals_work, write_script};
use crate::harness::{Sshd, haul, wait_until};

/// A machine where `haul` is in PATH and `a`, `b` and `web1` are hosts.
struct Desk {
    sshd: Sshd,
    work: PathBuf,
    /// Where detached commands keep their state.
    _remote_home: TempDir,
}

impl Desk {
    fn new() -> Desk {
        let remote_home = TempDir::new().expect("a temporary directory");
        let sshd = Sshd::builder().env("HOME", remote_home.path().to_str().expect("UTF-8")).start();
        let work = sshd.scratch();
        let hosts: Vec<String> = ["a", "b", "web1"]
            .iter()
            .map(|name| {
                format!(
                    "[hosts.{name}]\naddress = '127.0.0.1'\nport = {}\nuser = '{}'\nidentity_file = '{}'\nknown_hosts = '{}'\n",
                    sshd.port(),
                    sshd.user(),
                    sshd.key_path().display(),
                    sshd.known_hosts_path().display()
                )
            })
            .collect();
        std::fs::write(work.join("hosts.toml"), hosts.concat()).expect("write");
        let bin = sshd.home().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        write_script(
            &bin.join("haul"),
            &format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_haul")),
        );
        Desk { sshd, work, _remote_home: remote_home }
    }

    /// Its exit code, standard output and standard error.
    fn run(&self, line: &str) -> (i32, String, String) {
        let haul = haul(&self.sshd.home());
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).current_dir(&self.work).stdin(Stdio::null());
        for (name, value) in haul.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let path = std::env::var("PATH").expect("PATH");
        command.env("PATH", format!("{}:{path}", self.sshd.home().join("bin").display()));
        let output = command.output().expect("sh runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().expect("a status"), text(&output.stdout), text(&output.stderr))
    }

    fn shows(&self, line: &str, code: i32, stdout: &str, stderr: &str) {
        assert_eq!(self.run(line), (code, stdout.to_owned(), stderr.to_owned()), "{line}");
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.work).join(name)
    }
}

#[test]
fn b1_it_waits_and_gives_a_result() {
    let desk = Desk::new();
    desk.shows("haul exec web1 -- echo hello", 0, "hello\n", "");
    desk.shows("haul exec web1 -- sh -c 'exit 7'; echo $?", 0, "7\n", "");
    let (code, stdout, _) = desk.run("haul exec --capture web1 -- echo hello");
    assert_eq!(code, 0);
    let result: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&result["exit_status"], &result["stdout"]), (&0.into(), &"hello\n".into()));
}

#[test]
fn b2_arguments_need_no_second_quoting() {
    let desk = Desk::new();
    desk.shows("haul exec web1 -- printf '[%s]' 'a  b' '$HOME' \"it's\" ''", 0, "[a  b][$HOME][it's][]", "");
    desk.shows("haul exec --shell 'echo b a | tr \" \" \"\\n\" | sort' web1", 0, "a\nb\n", "");
}

#[test]
fn b3_check_makes_a_status_an_error() {
    let desk = Desk::new();
    desk.shows(
        "haul exec --check web1 -- sh -c 'echo no space >&2; exit 3'",
        3,
        "",
        "no space\nhaul: web1: 'sh' ended with exit status 3: no space\n",
    );
}

#[test]
fn b4_streams_apart_merged_or_discarded() {
    let desk = Desk::new();
    desk.shows("haul exec web1 -- sh -c 'echo out; echo err >&2' 2>/dev/null", 0, "out\n", "");
    desk.shows("haul exec --merge-stderr web1 -- sh -c 'echo 1; echo 2 >&2; echo 3'", 0, "1\n2\n3\n", "");
    desk.shows("haul exec --discard-output web1 -- sh -c 'echo 1; echo 2 >&2'", 0, "", "");
}

#[test]
fn b5_a_timeout_ends_everything() {
    let desk = Desk::new();
    desk.shows(
        "haul exec --timeout 1s --grace 1s web1 -- sh -c 'echo begun; sleep 1000'",
        124,
        "begun\n",
        "haul: web1: 'sh' timed out after 1 s and was ended\n",
    );
    wait_until("the end of all", std::time::Duration::from_secs(60), || {
        desk.sshd.session_processes().is_empty()
    });
}

#[test]
fn b6_input_is_forwarded() {
    let desk = Desk::new();
    desk.shows("printf '3\\n1\\n2\\n' | haul exec web1 -- sort", 0, "1\n2\n3\n", "");
    std::fs::write(desk.file("list.txt"), "x\ny\n").expect("write");
    desk.shows("haul exec --stdin list.txt web1 -- wc -l", 0, "2\n", "");
    desk.shows(
        "printf 'one\\ntwo\\n' | while read -r word; do haul exec -n web1 -- echo \"$word\"; done",
        0,
        "one\ntwo\n",
        "",
    );
}

#[test]
fn b7_pipelines_between_hosts() {
    let desk = Desk::new();
    for name in ["from", "to"] {
        std::fs::create_dir(desk.file(name)).expect("a directory");
    }
    std::fs::write(desk.file("from/data"), [0, 255, 10, 13, 0]).expect("write");
    let (from, to) = (desk.file("from"), desk.file("to"));
    let line =
        format!("haul exec a -- tar c -C {} data | haul exec b -- tar x -C {}", from.display(), to.display());
    desk.shows(&line, 0, "", "");
    assert_eq!(std::fs::read(desk.file("to/data")).expect("read"), [0, 255, 10, 13, 0]);
    desk.shows("haul exec a -- yes | head -n 2", 0, "y\ny\n", "");
}

#[test]
fn b8_signals_are_passed_on() {
    let desk = Desk::new();
    let line = "haul exec --signal-leader web1 -- sh -c 'trap \"echo reloaded; exit 0\" HUP; echo up; while :; do sleep 0.1; done' > log &
        until grep -q up log 2>/dev/null; do sleep 0.1; done
        kill -HUP $!; wait $!; cat log";
    desk.shows(line, 0, "up\nreloaded\n", "");
}

#[test]
fn b9_detached_on_purpose_and_found_again() {
    let desk = Desk::new();
    let line = "id=$(haul exec --detach web1 -- sh -c 'echo working; sleep 1; exit 4')
        haul exec --attach $id --forget web1";
    desk.shows(line, 4, "working\n", "");
    let line = "id=$(haul exec --detach web1 -- sleep 1000)
        haul exec --attach $id --signal TERM web1
        haul exec --attach $id --forget web1";
    desk.shows(line, 143, "", "");
}

#[test]
fn b10_directory_and_environment() {
    let desk = Desk::new();
    desk.shows("haul exec --chdir /usr web1 -- pwd", 0, "/usr\n", "");
    desk.shows("haul exec --env 'GREETING=a b' web1 -- sh -c 'echo \"$GREETING\"'", 0, "a b\n", "");
    desk.shows("haul exec --clear-env --env A=1 web1 -- env", 0, "A=1\n", "");
}

#[test]
fn statuses_are_a_shells() {
    let desk = Desk::new();
    desk.shows("haul exec web1 -- nosuch", 127, "", "haul: web1: there is no program 'nosuch' on the host\n");
    desk.shows("haul exec web1 -- sh -c 'kill -9 $$'", 137, "", "haul: web1: 'sh' died of SIGKILL\n");
    let (code, _, stderr) = desk.run("haul exec -P 1 web1 -- true");
    assert_eq!(code, 255, "{stderr}");
}

#[test]
fn a_terminal_where_one_is_wanted() {
    if !terminals_work() {
        return;
    }
    let desk = Desk::new();
    desk.shows("haul exec -t web1 -- test -t 0", 0, "", "");
}
