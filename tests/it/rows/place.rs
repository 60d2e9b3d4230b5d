//! The target's side, looked at and changed without SSH.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::container::{ContainerSshd, TestHost};
use crate::harness::sshd::Sshd;

use super::client::wait_idle;

pub struct Place {
    host: Box<dyn TestHost>,
    /// Whether a client gets a shell.
    pub shell: bool,
}

impl Place {
    pub fn with_shell() -> Place {
        Place { host: Box::new(Sshd::start()), shell: true }
    }

    pub fn internal_sftp() -> Place {
        Place { host: Box::new(Sshd::builder().force_internal_sftp().start()), shell: false }
    }

    pub fn container() -> Place {
        Place { host: Box::new(ContainerSshd::start()), shell: true }
    }

    pub fn host(&self) -> &dyn TestHost {
        self.host.as_ref()
    }

    /// The merges that this host can be told to do.
    pub fn merges(&self) -> &'static [&'static str] {
        if self.shell { &["auto", "sftp", "script"] } else { &["auto", "sftp"] }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.host.scratch().join(name)
    }

    /// Runs a command, which has to succeed; what it prints.
    #[track_caller]
    pub fn run(&self, command: &str) -> String {
        run(self.host(), command)
    }

    #[track_caller]
    pub fn read(&self, path: &Path) -> Vec<u8> {
        self.host.read_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn names(&self, directory: &Path) -> Vec<String> {
        names(self.host(), directory)
    }

    pub fn beside(&self, target: &Path) -> Vec<String> {
        beside(self.host(), target)
    }

    pub fn published(&self, target: &Path) -> BTreeSet<u64> {
        published(self.host(), target)
    }

    pub fn wait_idle(&self) {
        wait_idle(self.host());
    }
}

#[track_caller]
pub fn run(host: &dyn TestHost, command: &str) -> String {
    let output = host.exec(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Empty where the directory is not there.
pub fn names(host: &dyn TestHost, directory: &Path) -> Vec<String> {
    let output = host.exec(&format!("ls -A '{}'", directory.display()));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// What haul keeps beside a target, which is nothing when no upload is under way.
pub fn beside(host: &dyn TestHost, target: &Path) -> Vec<String> {
    let prefix = format!("{}:", target.file_name().expect("a name").display());
    let parent = target.parent().expect("a parent");
    names(host, parent).into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

/// `<target>:alice`
pub fn temp_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(":alice");
    PathBuf::from(name)
}

/// The numbers of the chunks that stand in alice's temp directory or are merged.
pub fn published(host: &dyn TestHost, target: &Path) -> BTreeSet<u64> {
    let temp = temp_of(target);
    let prefix = format!("alice-{}:", target.file_stem().expect("a stem").display());
    let mut found = BTreeSet::new();
    for name in names(host, &temp) {
        if let Some(number) = name.strip_prefix(&prefix) {
            found.insert(number.split('.').next().unwrap_or("").parse().expect("a chunk's number"));
        }
    }
    if let Some(record) = record(host, target) {
        found.extend(1..=number_in(&record, "chunk"));
    }
    found
}

/// The text of the record `<stem>.txt`.
pub fn record(host: &dyn TestHost, target: &Path) -> Option<String> {
    let name = format!("{}.txt", target.file_stem().expect("a stem").display());
    let text = host.read_file(&temp_of(target).join(name)).ok()?;
    Some(String::from_utf8(text).expect("text"))
}

/// The value of a line `key: number`.
#[track_caller]
pub fn number_in(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key} in: {text}"))
}
