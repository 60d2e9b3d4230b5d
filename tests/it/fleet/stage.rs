//! Many real servers, each on a port of its own, and an inventory that names them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::sshd::SshdBuilder;
use crate::harness::{Sshd, haul};
use crate::rows::client::{Outcome, Running};

/// Servers that are started at the same time.
const STARTS_AT_ONCE: usize = 4;

pub struct Fleet {
    home: TempDir,
    pub hosts: Vec<Sshd>,
}

impl Fleet {
    /// `web01` and so on, all in the group `web`.
    pub fn of(count: usize) -> Fleet {
        Fleet::with(count, |_, builder| builder)
    }

    pub fn with(count: usize, build: impl Fn(usize, SshdBuilder) -> SshdBuilder + Sync) -> Fleet {
        let numbers: Vec<usize> = (1..=count).collect();
        let mut hosts = Vec::new();
        for some in numbers.chunks(STARTS_AT_ONCE) {
            std::thread::scope(|scope| {
                let start = |number: &usize| {
                    let (number, build) = (*number, &build);
                    scope.spawn(move || build(number, Sshd::builder()).start())
                };
                let started: Vec<_> = some.iter().map(start).collect();
                hosts.extend(started.into_iter().map(|host| host.join().expect("a server")));
            });
        }
        let fleet = Fleet { home: tempfile::tempdir().expect("a home"), hosts };
        fleet.write_inventory();
        fleet
    }

    pub fn name(number: usize) -> String {
        format!("web{number:02}")
    }

    /// Also in place of one that says something wrong.
    pub fn write_inventory(&self) {
        let mut text = String::from("[defaults]\naddress = '127.0.0.1'\nuser_id = 'alice'\n");
        for (index, sshd) in self.hosts.iter().enumerate() {
            text.push_str(&format!(
                "[hosts.{}]\nport = {}\nuser = '{}'\nidentity_file = '{}'\nknown_hosts = '{}'\n",
                Fleet::name(index + 1),
                sshd.port(),
                sshd.user(),
                sshd.key_path().display(),
                sshd.known_hosts_path().display()
            ));
        }
        text.push_str(&format!("[groups]\nweb = ['web[01-{:02}]']\n", self.hosts.len()));
        fs::write(self.home().join("hosts.toml"), text).expect("an inventory");
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn host(&self, number: usize) -> &Sshd {
        &self.hosts[number - 1]
    }

    /// A path that is each host's own, though all of them serve one file system: the
    /// scratch directories are linked below one directory by the hosts' names.
    pub fn path(&self, name: &str) -> String {
        let by_name = self.home().join("by-name");
        fs::create_dir_all(&by_name).expect("a directory");
        for (index, sshd) in self.hosts.iter().enumerate() {
            let link = by_name.join(Fleet::name(index + 1));
            if !link.exists() {
                std::os::unix::fs::symlink(sshd.scratch(), link).expect("a link");
            }
        }
        format!("{}/{{host}}/{name}", by_name.display())
    }

    pub fn target(&self, number: usize, name: &str) -> PathBuf {
        self.host(number).scratch().join(name)
    }

    pub fn haul(&self, arguments: &[&str]) -> Command {
        let mut command = haul(self.home());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).wait()
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.haul(arguments), self.home())
    }
}

/// The result of a host, by its name.
#[track_caller]
pub fn result_of(events: &[Value], host: &str) -> Value {
    let is_result = |event: &&Value| event["event"] == "result" && event["host"] == host;
    events.iter().find(is_result).cloned().unwrap_or_else(|| panic!("no result of {host}: {events:?}"))
}

/// Every name below a directory, with size and time of change of each.
pub fn snapshot(directory: &Path) -> Vec<String> {
    let output = Command::new("find")
        .arg(directory)
        .args(["-printf", "%P %s %C@ %i %m\n"])
        .output()
        .expect("find runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
