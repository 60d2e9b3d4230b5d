//! A controller with ansible-core, the collection and the program, and hosts to work on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::account::Account;
use crate::harness::sshd::Sshd;
use crate::rows::client::content;

pub const SIZE: u64 = 300_001;

pub struct Stage {
    directory: TempDir,
    inventory: String,
    runs: AtomicU32,
}

impl Stage {
    /// With the collection as it stands in the sources, and the source `disk.img` where a
    /// playbook finds it.
    pub fn new() -> Stage {
        let stage = Stage::bare();
        let collections = stage.path().join("collections/ansible_collections/haul");
        fs::create_dir_all(&collections).expect("a directory");
        symlink(collection(), collections.join("haul")).expect("a link");
        stage
    }

    /// Without the collection.
    pub fn bare() -> Stage {
        let directory = tempfile::Builder::new().prefix("haul-ansible-").tempdir().expect("a directory");
        let stage = Stage { directory, inventory: String::new(), runs: AtomicU32::new(0) };
        for name in ["bin", "files", "callbacks", "collections"] {
            fs::create_dir(stage.path().join(name)).expect("a directory");
        }
        symlink(env!("CARGO_BIN_EXE_haul"), stage.path().join("bin/haul")).expect("a link");
        symlink(sources().join("tests/it/ansible/record.py"), stage.path().join("callbacks/record.py"))
            .expect("a link");
        stage.source(1);
        stage
    }

    /// What `src: disk.img` stands for, other bytes for each seed.
    pub fn source(&self, seed: u64) -> Vec<u8> {
        let bytes = content(SIZE, seed);
        fs::write(self.path().join("files/disk.img"), &bytes).expect("a source");
        bytes
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A host of the group `web`; `more` are further variables.
    pub fn host(mut self, name: &str, sshd: &Sshd, more: &str) -> Stage {
        self.inventory.push_str(&format!(
            "{name} ansible_host=127.0.0.1 ansible_port={} images={} \
             ansible_ssh_common_args='-o UserKnownHostsFile={} -o GlobalKnownHostsFile=none -o IdentityAgent=none' {more}\n",
            sshd.port(),
            sshd.scratch().display(),
            sshd.known_hosts_path().display(),
        ));
        self
    }

    /// As [`Stage::host`], with the key that lets the tests' own account in.
    pub fn own_host(self, name: &str, sshd: &Sshd) -> Stage {
        let more = format!("ansible_user={} {}", sshd.user(), key(sshd));
        self.host(name, sshd, &more)
    }

    /// A program of ansible-core, with nothing of the developer's own settings around it.
    pub fn ansible(&self, program: &str) -> Command {
        let mut command = Command::new(environment().join("bin").join(program));
        let own = self.path();
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", own.join("bin").display()))
            .env("HOME", own)
            .env("LC_ALL", "C.UTF-8")
            .env("ANSIBLE_HOME", own.join(".ansible"))
            .env("ANSIBLE_COLLECTIONS_PATH", own.join("collections"))
            .env("ANSIBLE_CALLBACK_PLUGINS", own.join("callbacks"))
            .env("ANSIBLE_CALLBACKS_ENABLED", "record")
            .env("ANSIBLE_NOCOLOR", "1")
            // The collection is the one in the sources, and stays as it is.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("ANSIBLE_SSH_TIMEOUT", "60")
            .current_dir(own)
            .stdin(Stdio::null());
        command
    }

    /// Writes a playbook and gives the command that runs it on the hosts of this stage.
    pub fn playbook(&self, text: &str) -> Play {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let [playbook, inventory, record] =
            ["yml", "ini", "record"].map(|kind| self.path().join(format!("run-{number}.{kind}")));
        fs::write(&playbook, text).expect("a playbook");
        fs::write(&inventory, format!("[web]\n{}", self.inventory)).expect("an inventory");
        let mut command = self.ansible("ansible-playbook");
        command.arg("-i").arg(inventory).arg(&playbook).env("RECORD", &record);
        Play { command, record }
    }

    /// A playbook of one task, `haul_put` with `parameters` and keywords `more`.
    pub fn task(&self, parameters: &[&str], more: &[&str]) -> Play {
        self.playbook(&task(parameters, more))
    }
}

/// A play of one task: each parameter and each keyword is a line of YAML.
pub fn task(parameters: &[&str], keywords: &[&str]) -> String {
    tasks(&[("put", parameters, keywords)])
}

/// A play of several tasks, each with its name.
pub fn tasks(tasks: &[(&str, &[&str], &[&str])]) -> String {
    let mut text = "- hosts: web\n  gather_facts: false\n  tasks:\n".to_owned();
    for (name, parameters, keywords) in tasks {
        text.push_str(&format!("    - name: '{name}'\n      haul.haul.haul_put:\n"));
        parameters.iter().for_each(|line| text.push_str(&format!("        {line}\n")));
        keywords.iter().for_each(|line| text.push_str(&format!("      {line}\n")));
    }
    text
}

pub struct Play {
    pub command: Command,
    record: PathBuf,
}

impl Play {
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Play {
        self.command.arg(argument);
        self
    }

    pub fn run(mut self) -> Played {
        let output = self.command.output().expect("ansible-playbook runs");
        let record = fs::read_to_string(&self.record).unwrap_or_default();
        let results = record.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        Played { output, results }
    }
}

pub struct Played {
    output: Output,
    pub results: Vec<Value>,
}

impl Played {
    #[track_caller]
    pub fn expect(self, code: i32) -> Played {
        assert_eq!(self.output.status.code(), Some(code), "{}", self.text());
        self
    }

    pub fn text(&self) -> String {
        let (out, err) = (&self.output.stdout, &self.output.stderr);
        format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
    }

    /// What haul_put said of this host.
    #[track_caller]
    pub fn of(&self, host: &str) -> &Value {
        let put = |result: &&Value| result["inventory_host"] == host;
        // A play's first task is haul_put's.
        self.results.iter().find(put).unwrap_or_else(|| panic!("nothing of {host}: {}", self.text()))
    }

    /// What the task of this name said.
    #[track_caller]
    pub fn task(&self, name: &str) -> &Value {
        let named = |result: &&Value| result["task"] == name;
        self.results.iter().find(named).unwrap_or_else(|| panic!("nothing of {name}: {}", self.text()))
    }

    /// The only host's.
    #[track_caller]
    pub fn one(&self) -> &Value {
        assert_eq!(self.results.len(), 1, "{}", self.text());
        &self.results[0]
    }
}

/// `ansible_ssh_private_key_file=…`.
pub fn key(sshd: &Sshd) -> String {
    format!("ansible_ssh_private_key_file={}", sshd.key_path().display())
}

pub fn as_account(account: &Account, sshd: &Sshd) -> String {
    format!("ansible_user={} {}", account.name(), key(sshd))
}

pub fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn collection() -> PathBuf {
    sources().join("ansible")
}

/// Where ./.ci/test has put ansible-core: beside what cargo builds.
pub fn environment() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/");
    let environment = target.join("test-ansible");
    assert!(
        environment.join("complete").exists(),
        "there is no ansible-core in {}: ./.ci/test installs it",
        environment.display()
    );
    environment
}

/// Everything about a tree that a run could have changed.
pub fn snapshot(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = vec![directory.to_path_buf()];
    while let Some(path) = rest.pop() {
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let content = if metadata.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
        lines.push(format!(
            "{} {:o} {}:{} inode {} changed {}.{} modified {}.{} {}",
            path.display(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.ino(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            crate::rows::client::sha256(&content),
        ));
        if metadata.is_dir() {
            rest.extend(
                fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()),
            );
        }
    }
    lines.sort();
    lines
}
