//! What a target is asked to do: the SFTP requests and the programs, by the logs of those
//! who get the requests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::harness::sshd::write_script;
use crate::harness::{Sshd, SshdBuilder};

/// What sshd and its SFTP servers say they were asked.
pub struct Log<'a> {
    sshd: &'a Sshd,
    read: [usize; 2],
}

impl Log<'_> {
    /// From here on.
    pub fn of(sshd: &Sshd) -> Log<'_> {
        Log { sshd, read: [sshd.log().len(), sshd.sftp_log().len()] }
    }

    pub fn new_lines(&mut self) -> Vec<String> {
        let logs = [self.sshd.log(), self.sshd.sftp_log()];
        let scratch = format!("{}/", self.sshd.scratch().display());
        let mut lines = Vec::new();
        for (log, read) in logs.iter().zip(&mut self.read) {
            let new = log.get(*read..).unwrap_or_default();
            *read = log.len();
            lines.extend(new.lines().filter_map(asked).map(|line| line.replace(&scratch, "")));
        }
        lines
    }
}

/// An SFTP server that logs every request.
pub fn logged() -> SshdBuilder {
    Sshd::builder().sftp_wrapper("DEBUG3")
}

const LOGIN: [&str; 3] = ["Connection from", "Accepted ", "Starting session"];

/// A request as the server logs it, or a step of a login.
fn asked(line: &str) -> Option<String> {
    let line = line.trim();
    if LOGIN.iter().any(|start| line.starts_with(start)) {
        return Some(line.to_owned());
    }
    // What has a name is logged in a line of its own, which says more.
    const NAMED: [&str; 16] = [
        "open ",
        "close ",
        "closedir ",
        "lstat ",
        "stat ",
        "opendir ",
        "mkdir ",
        "rmdir ",
        "remove ",
        "rename ",
        "posix-rename ",
        "hardlink ",
        "fsync ",
        "statvfs ",
        "set ",
        "realpath ",
    ];
    const UNNAMED: [&str; 6] = ["limits", "read", "write", "fstat", "readdir", "copy-data"];
    if NAMED.iter().any(|start| line.starts_with(start)) {
        return Some(line.to_owned());
    }
    let (_, request) = line.split_once("request ")?.1.split_once(": ")?;
    let word = request.split(' ').next()?;
    UNNAMED.contains(&word).then(|| request.to_owned())
}

/// Requests of an upload. Left out are those for the lock, which come as time passes, and the
/// first of a session, which may come to an end before it.
pub fn requests(lines: &[String]) -> impl Iterator<Item = &String> {
    lines.iter().filter(|line| {
        !LOGIN.iter().any(|start| line.starts_with(start))
            && *line != "limits"
            && !line.contains("/lock\"")
            && !line.contains(":lock\"")
    })
}

/// A PATH on which every program notes that it was started.
pub struct Programs {
    directory: tempfile::TempDir,
}

impl Programs {
    pub fn new() -> Programs {
        let directory = tempfile::Builder::new().prefix("haul-programs-").tempdir().expect("a directory");
        let programs = Programs { directory };
        let script = programs.path().join(".start");
        let text = format!(
            "#!/bin/sh\nname=${{0##*/}}\necho \"$name\" >>'{}'\nexec /usr/bin/\"$name\" \"$@\"\n",
            programs.log().display()
        );
        write_script(&script, &text);
        for entry in fs::read_dir("/usr/bin").expect("/usr/bin").flatten() {
            symlink(&script, programs.path().join(entry.file_name())).expect("a link");
        }
        programs
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> PathBuf {
        self.path().join(".log")
    }

    /// In the order in which they were started.
    pub fn started(&self) -> Vec<String> {
        fs::read_to_string(self.log()).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}
