//! Output of several hosts that is not shown as it comes: files of each host's own, and
//! outputs that are equal shown once.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::output::{Sink, Stream};
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::model::escape::printable;

/// What `--group-output` keeps of each stream of each host.
pub const GROUP_LIMIT_BYTES: usize = 1 << 20;
/// File systems take no longer names.
const MAX_FILE_NAME_BYTES: usize = 255;

/// `--per-host-output`.
pub struct Directory(PathBuf);

impl Directory {
    /// Makes the directory and empty files for all hosts, so that what cannot be written is
    /// said before anything runs, and nothing of an earlier run stays.
    pub fn prepare<'a>(path: &Path, hosts: impl Iterator<Item = &'a str>) -> Result<Directory, CliError> {
        let trouble = |path: &Path, error: &io::Error| {
            CliError::usage(format!("{}: {error}", printable(path.as_os_str().as_bytes())))
        };
        std::fs::create_dir_all(path).map_err(|error| trouble(path, &error))?;
        let directory = Directory(path.to_owned());
        for host in hosts {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let file = directory.path(host, stream);
                File::create(&file).map_err(|error| trouble(&file, &error))?;
            }
        }
        Ok(directory)
    }

    pub fn sink(&self, host: &str, stream: Stream) -> io::Result<Sink> {
        let file = File::create(self.path(host, stream))?;
        Ok(Sink::File(Arc::new(file.into())))
    }

    fn path(&self, host: &str, stream: Stream) -> PathBuf {
        self.0.join(file_name(host, stream))
    }
}

/// The host's name with all that could mean something to a file system or a shell as `%`
/// and two digits; no two hosts get the same one.
fn file_name(host: &str, stream: Stream) -> String {
    let mut name = String::new();
    for (index, byte) in host.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@' | b'+' | b',');
        if plain || (byte == b'.' && index > 0) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    let name = format!("{name}.{}", stream.name());
    debug_assert!(name.len() <= 3 * MAX_FILE_NAME_BYTES || host.len() > MAX_FILE_NAME_BYTES);
    name
}

/// `--group-output`.
#[derive(Default)]
pub struct Groups(Mutex<Vec<Group>>);

struct Group {
    /// As they were asked for, with the place of each.
    hosts: Vec<(usize, String)>,
    result: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    cut: bool,
}

impl Groups {
    pub fn add(&self, place: usize, host: &str, result: &str, stdout: Option<&Sink>, stderr: Option<&Sink>) {
        let ((stdout, out_cut), (stderr, err_cut)) = (captured(stdout), captured(stderr));
        let cut = out_cut || err_cut;
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let equal = groups.iter_mut().find(|group| {
            group.result == result && group.stdout == stdout && group.stderr == stderr && group.cut == cut
        });
        let host = (place, printable(host.as_bytes()));
        match equal {
            Some(group) => group.hosts.push(host),
            None => groups.push(Group {
                hosts: vec![host],
                result: result.to_owned(),
                stdout: stdout.to_vec(),
                stderr: stderr.to_vec(),
                cut,
            }),
        }
    }

    /// In the order in which the first host of each was asked for.
    pub fn print(&self) -> Result<(), CliError> {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for group in groups.iter_mut() {
            group.hosts.sort();
        }
        groups.sort_by_key(|group| group.hosts.first().map(|(place, _)| *place));
        for group in groups.iter() {
            let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
            stdout
                .write_all(group.head().as_bytes())
                .and_then(|()| stdout.write_all(&whole_lines(&group.stdout)))
                .and_then(|()| stdout.flush())
                .map_err(|error| CliError::output(&error))?;
            stderr
                .write_all(&whole_lines(&group.stderr))
                .map_err(|error| CliError::new(ExitCode::Failed, format!("standard error: {error}")))?;
        }
        Ok(())
    }
}

impl Group {
    /// `== web1, web2 (2 hosts, exit 0) ==`
    fn head(&self) -> String {
        let names: Vec<&str> = self.hosts.iter().map(|(_, name)| name.as_str()).collect();
        let count = match names.len() {
            1 => String::new(),
            count => format!("{count} hosts, "),
        };
        let cut = if self.cut { ", only the beginning" } else { "" };
        format!("== {} ({count}{}{cut}) ==\n", names.join(", "), self.result)
    }
}

fn captured(sink: Option<&Sink>) -> (&[u8], bool) {
    match sink {
        Some(Sink::Captured { bytes, cut, .. }) => (bytes, *cut),
        _ => (&[], false),
    }
}

fn whole_lines(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_safe_and_each_host_s_own() {
        for (host, expected) in [
            ("web1", "web1.stdout"),
            ("10.0.0.1", "10.0.0.1.stdout"),
            ("::1", "%3A%3A1.stdout"),
            ("..", "%2E..stdout"),
            (".hidden", "%2Ehidden.stdout"),
            ("a/b", "a%2Fb.stdout"),
            ("a%2Fb", "a%252Fb.stdout"),
            ("b\u{e9}", "b%C3%A9.stdout"),
        ] {
            assert_eq!(file_name(host, Stream::Stdout), expected);
        }
    }

    #[test]
    fn equal_outputs_are_one_group() {
        let sink = |text: &str| Sink::Captured { bytes: text.into(), limit: 10, cut: false };
        let groups = Groups::default();
        for (place, host, text, result) in [
            (2, "c", "x", "exit 0"),
            (0, "a", "y", "exit 0"),
            (1, "b", "x", "exit 0"),
            (3, "d", "x", "exit 1"),
        ] {
            groups.add(place, host, result, Some(&sink(text)), None);
        }
        let mut heads: Vec<String> = {
            let groups = groups.0.lock().expect("no panic");
            groups.iter().map(Group::head).collect()
        };
        heads.sort();
        assert_eq!(heads, ["== a (exit 0) ==\n", "== c, b (2 hosts, exit 0) ==\n", "== d (exit 1) ==\n"]);
    }
}
