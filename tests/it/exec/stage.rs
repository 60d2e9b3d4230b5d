//! `haul exec` against a real server, and a count of what it leaves there.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::sshd::SshdBuilder;
use crate::harness::{Sshd, haul, wait_until};

/// For what a machine that builds other things meanwhile does some day.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    pub sshd: Sshd,
    /// The account's home while it is served by this.
    home: TempDir,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Stage {
    pub fn new() -> Stage {
        Stage::with(Sshd::builder())
    }

    pub fn with(builder: SshdBuilder) -> Stage {
        // Detached commands keep their state below the account's home, and shells theirs.
        let home = TempDir::new().expect("a temporary directory");
        let sshd = builder.env("HOME", home.path().to_str().expect("UTF-8")).start();
        Stage { sshd, home }
    }

    /// Every command of a client is run by this shell, as sshd runs a login shell.
    pub fn login_shell(program: &str) -> Stage {
        Stage::with(
            Sshd::builder().match_block(&format!("ForceCommand exec {program} -c \"$SSH_ORIGINAL_COMMAND\"")),
        )
    }

    /// `haul exec` with everything it needs to get there; options, host and command are
    /// still to come.
    pub fn exec(&self) -> Command {
        let mut command = haul(&self.sshd.home());
        command.arg("exec").arg("-P").arg(self.sshd.port().to_string()).arg("-i").arg(self.sshd.key_path());
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.sshd.known_hosts_path().display()));
        command.arg("-o").arg(format!("User={}", self.sshd.user())).stdin(Stdio::null());
        command
    }

    /// Runs `haul exec OPTIONS 127.0.0.1 -- WORDS`.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Outcome {
        self.run_with_input(options, words, None)
    }

    pub fn run_with_input(&self, options: &[&str], words: &[&str], input: Option<&[u8]>) -> Outcome {
        let mut command = self.exec();
        command.args(options).arg("127.0.0.1");
        if !words.is_empty() {
            command.arg("--").args(words);
        }
        outcome(command, input)
    }

    /// Starts it with its output in pipes.
    pub fn start(&self, options: &[&str], words: &[&str]) -> Child {
        let mut command = self.exec();
        command.args(options).arg("127.0.0.1");
        if !words.is_empty() {
            command.arg("--").args(words);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("haul starts")
    }

    /// A name that occurs in no other process's arguments.
    pub fn unique(&self) -> String {
        let mut random = [0; 4];
        getrandom::fill(&mut random).expect("random bytes");
        // As an argument of sleep: about a day.
        format!("86400.{}", u32::from_le_bytes(random))
    }

    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    pub fn scratch(&self, name: &str) -> PathBuf {
        self.sshd.scratch().join(name)
    }

    /// Waits until the server serves nobody and runs nothing.
    pub fn assert_all_gone(&self) {
        wait_until("the end of all sessions", PATIENCE, || self.sshd.session_processes().is_empty());
    }
}

pub fn outcome(mut command: Command, input: Option<&[u8]>) -> Outcome {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("haul starts");
    let stdin = child.stdin.take();
    let input = input.map(<[u8]>::to_vec);
    let writer = std::thread::spawn(move || {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // The program need not read it.
            let _ = stdin.write_all(&input);
        }
    });
    let output = child.wait_with_output().expect("haul ends");
    writer.join().expect("the writer ends");
    let code = output.status.code().unwrap_or_else(|| panic!("haul ended by {:?}", output.status));
    Outcome { code, stdout: output.stdout, stderr: output.stderr }
}

/// Processes, zombies apart, with `word` as an argument of their own.
pub fn processes_with(word: &str) -> Vec<u32> {
    let word = word.as_bytes();
    std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == word))
        })
        .collect()
}

pub fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success(), "kill -{name} {pid}");
}
