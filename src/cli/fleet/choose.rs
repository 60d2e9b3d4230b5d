//! Which hosts a command works on, and the path on each.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cli::connect::{Target, targets};
use crate::cli::destination::Destination;
use crate::cli::error::CliError;
use crate::cli::inventory::{Inventory, Unlisted};
use crate::cli::ranges;
use crate::model::escape::printable;

/// Stands for the host's name in a path.
const HOST_FIELD: &[u8] = b"{host}";
/// Stands for that text itself.
const ESCAPED_HOST_FIELD: &[u8] = b"{{host}}";
/// No file of host names is larger.
const MAX_LIMIT_FILE_BYTES: u64 = 16 << 20;

/// The hosts that `destination` stands for, of those the ones that `limit` leaves, and for
/// each its own path.
pub fn choose(
    destination: &Destination,
    inventory: &Inventory,
    limit: Option<&OsStr>,
) -> Result<Vec<Target>, CliError> {
    let mut chosen = targets(destination, inventory)?;
    if let Some(limit) = limit {
        let allowed = match limit.as_bytes() {
            [b'@', path @ ..] => names_in(Path::new(OsStr::from_bytes(path)), &chosen, inventory)?,
            pattern => named_by(pattern, &chosen, inventory).map_err(CliError::usage)?,
        };
        chosen.retain(|target| allowed.contains(&target.host.name));
        if chosen.is_empty() {
            return Err(CliError::usage(format!(
                "--limit {} leaves none of the hosts of '{}'",
                printable(limit.as_bytes()),
                printable(destination.host.as_bytes())
            )));
        }
    }
    for target in &mut chosen {
        target.path = path_on(&target.host.name, &target.path)?;
    }
    Ok(chosen)
}

/// The names of those of `chosen` that a pattern allows. Each of its parts has to mean one
/// of them, so that a slip of the pen is no empty success.
fn named_by(pattern: &[u8], chosen: &[Target], inventory: &Inventory) -> Result<Vec<String>, String> {
    let pattern = std::str::from_utf8(pattern).map_err(|_| "--limit: the pattern is not UTF-8".to_owned())?;
    let (mut allowed, mut excluded, mut any_allowed) = (Vec::new(), Vec::new(), false);
    for item in ranges::split_list(pattern) {
        let (item, excludes) = match item.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (item, false),
        };
        let names = if item == "all" {
            chosen.iter().map(|target| target.host.name.clone()).collect()
        } else {
            let hosts = inventory.select(item, Unlisted::AreAddresses);
            let hosts = hosts.map_err(|problem| format!("--limit: {problem}"))?;
            hosts.into_iter().map(|host| host.name).collect::<Vec<_>>()
        };
        if !names.iter().any(|name| chosen.iter().any(|target| target.host.name == *name)) {
            let item = printable(item.as_bytes());
            return Err(format!("--limit: '{item}' is none of the hosts that were asked for"));
        }
        if excludes {
            excluded.extend(names);
        } else {
            any_allowed = true;
            allowed.extend(names);
        }
    }
    if !any_allowed {
        allowed = chosen.iter().map(|target| target.host.name.clone()).collect();
    }
    allowed.retain(|name| !excluded.contains(name));
    Ok(allowed)
}

/// One name or id a line, as `--retry-file` writes them; empty lines and those that begin
/// with '#' say nothing.
fn names_in(path: &Path, chosen: &[Target], inventory: &Inventory) -> Result<Vec<String>, CliError> {
    let shown = printable(path.as_os_str().as_bytes());
    let failed = |problem: &dyn std::fmt::Display| CliError::usage(format!("--limit @{shown}: {problem}"));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let read = file.take(MAX_LIMIT_FILE_BYTES + 1).read_to_string(&mut text);
    if read.map_err(|error| failed(&error))? as u64 > MAX_LIMIT_FILE_BYTES {
        return Err(failed(&"is larger than 16 MiB"));
    }
    names_of(&text, chosen, inventory).map_err(|problem| failed(&problem))
}

/// What such a file says.
pub fn names_of(text: &str, chosen: &[Target], inventory: &Inventory) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = inventory.host(line).map_or(line, |host| host.name.as_str());
        if !chosen.iter().any(|target| target.host.name == name) {
            let name = printable(line.as_bytes());
            return Err(format!("'{name}' is none of the hosts that were asked for"));
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Err("names no host".to_owned());
    }
    Ok(names)
}

/// `{host}` becomes the host's name, `{{host}}` becomes `{host}`; all else stays.
fn path_on(host: &str, path: &[u8]) -> Result<Vec<u8>, CliError> {
    let mut filled = Vec::with_capacity(path.len());
    let mut rest = path;
    let mut named = false;
    while let [first, tail @ ..] = rest {
        if let Some(after) = rest.strip_prefix(ESCAPED_HOST_FIELD) {
            filled.extend_from_slice(HOST_FIELD);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(HOST_FIELD) {
            filled.extend_from_slice(host.as_bytes());
            named = true;
            rest = after;
        } else {
            filled.push(*first);
            rest = tail;
        }
    }
    if named && (host.contains('/') || host == "." || host == "..") {
        let host = printable(host.as_bytes());
        return Err(CliError::usage(format!("'{host}' cannot stand for {{host}} in a path")));
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::hosts_file::HostsFile;

    fn inventory() -> Inventory {
        let text = "[hosts.web1]\nid = 'm-17'\n[hosts.db]\n[groups]\nweb = ['web[1-4]']\n";
        Inventory::new(HostsFile::parse(text, Path::new("hosts.toml")).expect("a hosts file"))
    }

    fn chosen(destination: &str, limit: Option<&str>) -> Result<Vec<String>, String> {
        let destination = Destination::parse(OsStr::new(destination)).expect("a destination");
        let targets = choose(&destination, &inventory(), limit.map(OsStr::new));
        let shown = |target: Target| format!("{} {}", target.host.name, printable(&target.path));
        targets.map(|list| list.into_iter().map(shown).collect()).map_err(|error| error.message)
    }

    #[test]
    fn limits_leave_some() {
        for (limit, expected) in [
            ("web2", &["web2 /x"][..]),
            ("m-17", &["web1 /x"]),
            ("web4,web[2-3]", &["web2 /x", "web3 /x", "web4 /x"]),
            ("!web[2-3]", &["web1 /x", "web4 /x"]),
            ("all,!web1", &["web2 /x", "web3 /x", "web4 /x"]),
            ("web,db", &[]),
        ] {
            match chosen("web:/x", Some(limit)) {
                Ok(hosts) => assert_eq!(hosts, expected, "{limit}"),
                Err(error) => assert!(expected.is_empty() && error.contains("'db' is none"), "{error}"),
            }
        }
        for limit in ["wbe1", "web,!web", "web1,", ""] {
            chosen("web:/x", Some(limit)).expect_err(limit);
        }
    }

    #[test]
    fn a_file_names_hosts() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("failed");
        let limit = format!("@{}", path.display());
        chosen("web:/x", Some(&limit)).expect_err("no file");
        std::fs::write(&path, "# of last night\nweb3\n\nm-17\n").expect("written");
        assert_eq!(chosen("web:/x", Some(&limit)).expect("two"), ["web1 /x", "web3 /x"]);
        std::fs::write(&path, "\n").expect("written");
        assert!(chosen("web:/x", Some(&limit)).expect_err("nothing").contains("names no host"));
        std::fs::write(&path, "web3\ndb\n").expect("written");
        assert!(chosen("web:/x", Some(&limit)).expect_err("not asked for").contains("'db'"));
    }

    #[test]
    fn a_path_may_hold_the_host() {
        let hosts = chosen("web[1-2]:/srv/{host}/{host}.img", None).expect("two hosts");
        assert_eq!(hosts, ["web1 /srv/web1/web1.img", "web2 /srv/web2/web2.img"]);
        assert_eq!(chosen("db:/{{host}}/{x}{", None).expect("a host"), ["db /{host}/{x}{"]);
    }
}
