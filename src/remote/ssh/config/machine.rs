//! The real [`World`]: this machine's files, the environment as it was handed in, and
//! its shell.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::ToSocketAddrs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::World;
use super::pattern;
use crate::model::escape::printable;
use crate::remote::ssh::options::{AddressFamily, DEFAULT_PORT};

/// A configuration file larger than this, in bytes, is refused.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// One Include takes no more files than this.
const MAX_INCLUDED: usize = 10_000;
/// For a command of `Match exec`.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_POLL: Duration = Duration::from_millis(5);
const FALLBACK_SHELL: &str = "/bin/sh";
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Others than the owner may write.
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;

pub struct Machine {
    pub variables: BTreeMap<String, String>,
}

impl World for Machine {
    fn read(&self, path: &Path, trusted_only: bool) -> Result<Option<Vec<u8>>, String> {
        let opened = File::open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
        if trusted_only {
            check_owner(&metadata)?;
        }
        if metadata.is_dir() {
            // ssh takes a directory for an empty file.
            return Ok(Some(Vec::new()));
        }
        let mut bytes = Vec::new();
        let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err("is larger than 16 MiB".to_owned());
        }
        Ok(Some(bytes))
    }

    fn glob(&self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        let mut found = vec![PathBuf::new()];
        for component in pattern.components() {
            let mut next = Vec::new();
            for directory in &found {
                match component {
                    Component::Normal(name) => entries(directory, name.as_bytes(), &mut next),
                    other => next.push(directory.join(other)),
                }
                if next.len() > MAX_INCLUDED {
                    let shown = printable(pattern.as_os_str().as_bytes());
                    return Err(format!("{shown} fits more than {MAX_INCLUDED} files"));
                }
            }
            found = next;
        }
        Ok(found)
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn home_of(&self, user: &str) -> Option<String> {
        let users = fs::read_to_string(USERS).ok()?;
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.len() >= 6 && fields[0] == user).then(|| fields[5].to_owned())
        })
    }

    fn has_address(&self, name: &str, family: AddressFamily) -> bool {
        let found = (name, DEFAULT_PORT).to_socket_addrs();
        found.into_iter().flatten().any(|address| match family {
            AddressFamily::Any => true,
            AddressFamily::V4 => address.is_ipv4(),
            AddressFamily::V6 => address.is_ipv6(),
        })
    }

    fn succeeds(&self, command: &str) -> Result<bool, String> {
        let shell = self.variables.get("SHELL").map_or(FALLBACK_SHELL, String::as_str);
        let failed = |what: &str| format!("'{command}': {what}");
        let mut child = Command::new(shell)
            .arg("-c")
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| failed(&format!("{shell}: {error}")))?;
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    let code = status.code().ok_or_else(|| failed("was ended by a signal"))?;
                    return Ok(code == 0);
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(COMMAND_POLL),
                Ok(None) => {
                    // It may have ended meanwhile; there is nothing to do about either.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(&format!("took longer than {} s", COMMAND_LIMIT.as_secs())));
                }
                Err(error) => return Err(failed(&error.to_string())),
            }
        }
    }
}

/// As ssh: only root and the person themselves may have written what a command can stand
/// in. A group that is the owner's alone is no other, as some distributions have it.
fn check_owner(metadata: &fs::Metadata) -> Result<(), String> {
    let me = rustix::process::getuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != me {
        return Err("bad owner: it belongs to somebody else, who could change it".to_owned());
    }
    let by_others = metadata.mode() & OTHERS_WRITE != 0;
    let by_group = metadata.mode() & GROUP_WRITES != 0
        && !is_private_group(
            metadata.uid(),
            metadata.gid(),
            &fs::read_to_string(USERS).unwrap_or_default(),
            &fs::read_to_string(GROUPS).unwrap_or_default(),
        );
    if by_others || by_group {
        return Err("bad permissions: others can write to it; chmod 600 takes that away".to_owned());
    }
    Ok(())
}

/// Whether the texts of passwd(5) and group(5) show `owner` and nobody else in `group`.
fn is_private_group(owner: u32, group: u32, users: &str, groups: &str) -> bool {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let mut owners_name = None;
    let mut only_owner = true;
    for user in users.lines().map(fields).filter(|user| user.len() >= 4) {
        if user[2].parse() == Ok(owner) {
            owners_name = Some(user[0].clone());
        } else if user[3].parse() == Ok(group) {
            only_owner = false;
        }
    }
    let Some(name) = owners_name else { return false };
    let listed = groups.lines().map(fields).find(|entry| entry.len() >= 4 && entry[2].parse() == Ok(group));
    let Some(listed) = listed else { return false };
    let members: Vec<&str> = listed[3].split(',').filter(|member| !member.is_empty()).collect();
    let is_primary = users
        .lines()
        .map(fields)
        .any(|user| user.len() >= 4 && user[2].parse() == Ok(owner) && user[3].parse() == Ok(group));
    only_owner && members.iter().all(|member| *member == name) && (is_primary || !members.is_empty())
}

/// The names in `directory` that fit `pattern`, sorted; one without wildcards is only
/// looked for.
fn entries(directory: &Path, pattern: &[u8], found: &mut Vec<PathBuf>) {
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    if !pattern.contains(['*', '?', '[', '\\']) {
        let path = directory.join(pattern);
        if path.symlink_metadata().is_ok() {
            found.push(path);
        }
        return;
    }
    let Ok(listing) = fs::read_dir(directory) else { return };
    let mut names: Vec<String> =
        listing.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| (!name.starts_with('.') || pattern.starts_with('.')) && pattern::glob(pattern, name));
    names.sort();
    found.extend(names.into_iter().map(|name| directory.join(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt", "x[1]"] {
            fs::write(directory.path().join(name), "").expect("a file");
        }
        fs::create_dir(directory.path().join("sub")).expect("a directory");
        fs::write(directory.path().join("sub/a.conf"), "").expect("a file");
        let machine = Machine { variables: BTreeMap::new() };
        for (pattern, expected) in [
            ("*.conf", &["a.conf", "b.conf"][..]),
            ("*/a.conf", &["sub/a.conf"]),
            ("[ab].conf", &["a.conf", "b.conf"]),
            ("[!a].conf", &["b.conf"]),
            ("x\\[1]", &["x[1]"]),
            (".*.conf", &[".hidden.conf"]),
            ("a.conf", &["a.conf"]),
            ("none*", &[]),
            ("none", &[]),
        ] {
            let found = machine.glob(&directory.path().join(pattern)).expect(pattern);
            let expected: Vec<PathBuf> = expected.iter().map(|name| directory.path().join(name)).collect();
            assert_eq!(found, expected, "{pattern}");
        }
    }

    #[test]
    fn commands_succeed_or_not() {
        let machine = Machine { variables: BTreeMap::new() };
        assert_eq!(machine.succeeds("true"), Ok(true));
        assert_eq!(machine.succeeds("exit 3"), Ok(false));
        assert!(machine.succeeds("kill -9 $$").is_err());
        let other = Machine { variables: BTreeMap::from([("SHELL".to_owned(), "/no/shell".to_owned())]) };
        assert!(other.succeeds("true").is_err());
    }

    #[test]
    fn a_group_of_one() {
        let users = "alice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:100::/home/bob:/bin/sh\n";
        let groups = "alice:x:1000:\nusers:x:100:\nteam:x:200:alice,bob\nown:x:300:alice\n";
        assert!(is_private_group(1000, 1000, users, groups));
        assert!(is_private_group(1000, 300, users, groups));
        assert!(!is_private_group(1000, 100, users, groups), "bob's");
        assert!(!is_private_group(1000, 200, users, groups));
        assert!(!is_private_group(1002, 1000, users, groups), "nobody knows the owner");
        assert!(!is_private_group(1000, 400, users, groups), "nobody knows the group");
    }
}
