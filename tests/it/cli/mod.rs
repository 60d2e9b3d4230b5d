//! The command line as a person or a script meets it.

mod hosts;
mod pages;
mod refusals;
mod terminal;
mod uploads;

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::harness::{Sshd, haul};

/// A directory that is home and current directory, with files to name.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().expect("a directory"));
        home.write("img", "content");
        home.write("other/img", "content");
        home.write("key", "no key");
        fs::create_dir(home.path().join("dir")).expect("a directory");
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn haul(&self, arguments: &[&str]) -> Output {
        haul(self.path()).args(arguments).stdin(Stdio::null()).output().expect("haul starts")
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8 on standard output")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8 on standard error")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// One line on standard error, nothing on standard output.
fn assert_refused(output: &Output, expected_code: i32, expected: &str, what: &str) {
    let text = stderr(output);
    assert_eq!(code(output), expected_code, "{what}: {text}");
    assert!(text.starts_with("haul: "), "{what}: {text}");
    assert!(text.contains(expected), "{what}: {text}");
    assert_eq!(text.matches('\n').count(), 1, "{what}: {text}");
    assert!(text.ends_with('\n'), "{what}: {text}");
    assert!(output.stdout.is_empty(), "{what}: {}", stdout(output));
}

/// The flags that reach a server of the harness.
fn way_to(sshd: &Sshd) -> Vec<String> {
    vec![
        "-P".to_owned(),
        sshd.port().to_string(),
        "-i".to_owned(),
        sshd.key_path().display().to_string(),
        "-o".to_owned(),
        format!("UserKnownHostsFile={}", sshd.known_hosts_path().display()),
    ]
}

fn run(home: &Home, sshd: &Sshd, command: &str, arguments: &[&str]) -> Output {
    let mut haul = haul(home.path());
    haul.arg(command).args(way_to(sshd)).args(arguments).stdin(Stdio::null());
    haul.output().expect("haul starts")
}

fn events(output: &Output) -> Vec<serde_json::Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}
