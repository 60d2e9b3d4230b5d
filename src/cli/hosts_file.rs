//! hosts.toml as it is written: tables, keys, and where in the file each stands.
//!
//! The file is walked by hand and not derived, so that every complaint names file, line
//! and key. What patterns and groups stand for is the inventory's business.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::args::values::{parse_connections, parse_merge};
use super::ranges;
use crate::engine::options::{Connections, MergeMethod};
use crate::model::escape::printable;
use crate::model::names::UserId;
use crate::remote::ssh::config::jump;

pub const KEYS: [&str; 10] = [
    "address",
    "port",
    "user",
    "identity_file",
    "id",
    "jump",
    "known_hosts",
    "merge",
    "connections",
    "user_id",
];

/// No hosts file is larger than this, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The keys of `[defaults]` or of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostKeys {
    pub address: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub identity_file: Option<Vec<PathBuf>>,
    pub id: Option<String>,
    pub jump: Option<String>,
    pub known_hosts: Option<Vec<PathBuf>>,
    pub merge: Option<MergeMethod>,
    pub connections: Option<Connections>,
    pub user_id: Option<UserId>,
}

impl HostKeys {
    #[must_use]
    pub fn or(self, defaults: &HostKeys) -> HostKeys {
        let defaults = defaults.clone();
        HostKeys {
            address: self.address.or(defaults.address),
            port: self.port.or(defaults.port),
            user: self.user.or(defaults.user),
            identity_file: self.identity_file.or(defaults.identity_file),
            id: self.id.or(defaults.id),
            jump: self.jump.or(defaults.jump),
            known_hosts: self.known_hosts.or(defaults.known_hosts),
            merge: self.merge.or(defaults.merge),
            connections: self.connections.or(defaults.connections),
            user_id: self.user_id.or(defaults.user_id),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsFile {
    pub defaults: HostKeys,
    /// In the order of the file.
    pub hosts: Vec<(String, HostKeys)>,
    /// Group to member names, ranges expanded, in the order of the file.
    pub groups: Vec<(String, Vec<String>)>,
}

/// `file:line: problem`, in one escaped line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsFileError(pub String);

impl std::fmt::Display for HostsFileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HostsFileError {}

impl HostsFile {
    pub fn read(path: &Path) -> Result<HostsFile, HostsFileError> {
        use std::os::unix::ffi::OsStrExt;
        let shown = printable(path.as_os_str().as_bytes());
        let failed = |error: &dyn std::fmt::Display| HostsFileError(format!("hosts file {shown}: {error}"));
        let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
        if !metadata.is_file() {
            return Err(failed(&"is no regular file"));
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(failed(&"is larger than 16 MiB"));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| failed(&"is not UTF-8"))?;
        HostsFile::parse(&text, path)
    }

    /// `path` is for messages, and relative paths in the file start at its directory.
    pub fn parse(text: &str, path: &Path) -> Result<HostsFile, HostsFileError> {
        let reader = Reader { text, path };
        let root = DeTable::parse(text).map_err(|error| {
            reader.error(&error.span().unwrap_or(0..0), error.message().lines().next().unwrap_or("no TOML"))
        })?;
        let mut file = HostsFile::default();
        for (key, value) in in_file_order(root.get_ref()) {
            match key.get_ref().as_ref() {
                "defaults" => file.defaults = reader.keys(reader.table(key, value)?, "[defaults]")?,
                "hosts" => file.hosts = reader.hosts(reader.table(key, value)?)?,
                "groups" => file.groups = reader.groups(reader.table(key, value)?)?,
                other => {
                    let problem = format!(
                        "unknown table '{}'; known are defaults, hosts, groups",
                        printable(other.as_bytes())
                    );
                    return Err(reader.error(&key.span(), &problem));
                }
            }
        }
        reader.check_names(&root, &file)?;
        Ok(file)
    }
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
type Value<'i> = Spanned<DeValue<'i>>;

fn in_file_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Key<'i>, &'a Value<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Reader<'_> {
    fn error(&self, span: &Range<usize>, problem: &str) -> HostsFileError {
        use std::os::unix::ffi::OsStrExt;
        let start = span.start.min(self.text.len());
        let line = self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        HostsFileError(format!("{}:{line}: {problem}", printable(self.path.as_os_str().as_bytes())))
    }

    fn table<'v, 'i>(&self, key: &Key<'i>, value: &'v Value<'i>) -> Result<&'v DeTable<'i>, HostsFileError> {
        value.get_ref().as_table().ok_or_else(|| {
            self.error(&value.span(), &format!("'{}' has to be a table", printable(key.get_ref().as_bytes())))
        })
    }

    fn hosts(&self, table: &DeTable<'_>) -> Result<Vec<(String, HostKeys)>, HostsFileError> {
        let mut hosts = Vec::new();
        for (key, value) in in_file_order(table) {
            let name = key.get_ref().as_ref();
            if let Err(problem) = check_name(name) {
                return Err(
                    self.error(&key.span(), &format!("host '{}': {problem}", printable(name.as_bytes())))
                );
            }
            hosts.push((name.to_owned(), self.keys(self.table(key, value)?, &format!("[hosts.{name}]"))?));
        }
        Ok(hosts)
    }

    fn groups(&self, table: &DeTable<'_>) -> Result<Vec<(String, Vec<String>)>, HostsFileError> {
        let mut groups = Vec::new();
        for (key, value) in in_file_order(table) {
            let name = key.get_ref().as_ref();
            let in_group = |problem: &str| format!("group '{}': {problem}", printable(name.as_bytes()));
            check_name(name).map_err(|problem| self.error(&key.span(), &in_group(problem)))?;
            let members = self.strings(value, &in_group("has to be a list of names"))?;
            if members.is_empty() {
                return Err(self.error(&value.span(), &in_group("has no members")));
            }
            let mut expanded = Vec::new();
            for (member, span) in members {
                let names =
                    ranges::expand(member).map_err(|problem| self.error(&span, &in_group(&problem)))?;
                for host in names {
                    if let Err(problem) = check_name(&host) {
                        let problem = format!("member '{}': {problem}", printable(host.as_bytes()));
                        return Err(self.error(&span, &in_group(&problem)));
                    }
                    if !expanded.contains(&host) {
                        expanded.push(host);
                    }
                }
            }
            groups.push((name.to_owned(), expanded));
        }
        Ok(groups)
    }

    /// A string, or an array of strings, each with its place.
    fn strings<'v>(
        &self,
        value: &'v Value<'_>,
        problem: &str,
    ) -> Result<Vec<(&'v str, Range<usize>)>, HostsFileError> {
        let Some(array) = value.get_ref().as_array() else {
            let text = value.get_ref().as_str().ok_or_else(|| self.error(&value.span(), problem))?;
            return Ok(vec![(text, value.span())]);
        };
        let strings = array.iter().map(|item| {
            let text = item.get_ref().as_str().ok_or_else(|| self.error(&item.span(), problem))?;
            Ok((text, item.span()))
        });
        strings.collect()
    }

    fn keys(&self, table: &DeTable<'_>, place: &str) -> Result<HostKeys, HostsFileError> {
        let mut keys = HostKeys::default();
        for (key, value) in in_file_order(table) {
            let name = key.get_ref().as_ref();
            let problem = |text: &str| self.error(&value.span(), &format!("{place} {name}: {text}"));
            let text = || match value.get_ref().as_str() {
                Some("") => Err(problem("is empty")),
                Some(text) if text.chars().any(char::is_control) => Err(problem("has a control character")),
                Some(text) => Ok(text.to_owned()),
                None => Err(problem("has to be a string, in quotes")),
            };
            match name {
                "address" => keys.address = Some(text()?),
                "port" => {
                    keys.port = Some(port(value).ok_or_else(|| problem("is a number from 1 to 65535"))?)
                }
                "user" => keys.user = Some(text()?),
                "identity_file" => keys.identity_file = Some(self.paths(value, place, name)?),
                "id" => {
                    let number = value.get_ref().as_integer().map(|number| number.as_str().to_owned());
                    keys.id = Some(number.map_or_else(text, Ok)?);
                }
                "jump" => {
                    let text = text()?;
                    jump::parse(&text).map_err(|error| problem(&error))?;
                    keys.jump = Some(text);
                }
                "known_hosts" => keys.known_hosts = Some(self.paths(value, place, name)?),
                "merge" => keys.merge = Some(parse_merge(&text()?).map_err(|error| problem(&error))?),
                "connections" => {
                    let number = value.get_ref().as_integer().map(|number| number.as_str().to_owned());
                    let text = number.map_or_else(text, Ok)?;
                    keys.connections = Some(parse_connections(&text).map_err(|error| problem(&error))?);
                }
                "user_id" => {
                    keys.user_id = Some(UserId::new(&text()?).map_err(|error| problem(&error.to_string()))?);
                }
                _ => {
                    let shown = printable(name.as_bytes());
                    let problem = format!("unknown key '{shown}' in {place}; known are {}", KEYS.join(", "));
                    return Err(self.error(&key.span(), &problem));
                }
            }
        }
        Ok(keys)
    }

    /// `~/` is left for whoever knows the home; a relative path starts at the file's directory.
    fn paths(&self, value: &Value<'_>, place: &str, name: &str) -> Result<Vec<PathBuf>, HostsFileError> {
        let strings = self.strings(value, &format!("{place} {name}: has to be a path or a list of paths"))?;
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let paths = strings.into_iter().map(|(text, span)| match text {
            "" => Err(self.error(&span, &format!("{place} {name}: is empty"))),
            _ if text.starts_with("~/") => Ok(PathBuf::from(text)),
            _ => Ok(directory.join(text)),
        });
        paths.collect()
    }

    /// A name, an id and a group stand for one thing each.
    fn check_names(&self, root: &Spanned<DeTable<'_>>, file: &HostsFile) -> Result<(), HostsFileError> {
        let place = |table: &str, name: &str| -> Range<usize> {
            let table = root.get_ref().get(table).and_then(|table| table.get_ref().as_table());
            table.and_then(|table| table.get_key_value(name)).map_or(0..0, |(key, _)| key.span())
        };
        let mut owners: BTreeMap<&str, &str> =
            file.hosts.iter().map(|(name, _)| (name.as_str(), name.as_str())).collect();
        for (name, keys) in &file.hosts {
            let Some(id) = keys.id.as_deref().or(file.defaults.id.as_deref()) else { continue };
            match owners.insert(id, name) {
                Some(owner) if owner != name => {
                    let shown = printable(id.as_bytes());
                    let problem = if owner == id {
                        format!("id '{shown}' of host '{name}' is the name of another host")
                    } else {
                        format!("id '{shown}' of host '{name}' is also the id of host '{owner}'")
                    };
                    return Err(self.error(&place("hosts", name), &problem));
                }
                _ => {}
            }
        }
        for (group, _) in &file.groups {
            if let Some(owner) = owners.get(group.as_str()) {
                let problem = format!("group '{group}' has the name or id of host '{owner}'");
                return Err(self.error(&place("groups", group), &problem));
            }
        }
        Ok(())
    }
}

fn port(value: &Value<'_>) -> Option<u16> {
    let number = value.get_ref().as_integer()?;
    u16::from_str_radix(number.as_str(), number.radix()).ok().filter(|port| *port != 0)
}

/// What a host or group may be called, so that patterns can name it.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the name is empty");
    }
    if name == "all" {
        return Err("'all' stands for every host");
    }
    if name.starts_with(['-', '!']) {
        return Err("a name cannot begin with '-' or '!'");
    }
    if name.contains([',', ':', '/', '@', '[', ']']) {
        return Err("a name cannot contain any of , : / @ [ ]");
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a name cannot contain spaces or control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostsFile, String> {
        HostsFile::parse(text, Path::new("conf/hosts.toml")).map_err(|error| error.0)
    }

    #[test]
    fn every_key_is_read() {
        let file = parse(
            r#"
            [defaults]
            user = "deploy"
            identity_file = "~/.ssh/deploy"
            [hosts.web1]
            address = "10.0.0.1"
            port = 2222
            id = 17
            jump = "bastion"
            known_hosts = ["known_hosts", "/etc/known"]
            merge = "sftp"
            connections = 4
            user_id = "ci"
            [hosts.web2]
            connections = "auto"
            identity_file = ["a", "b"]
            [groups]
            web = ["web1", "web[02-03]", "web1"]
            "#,
        )
        .expect("a hosts file");
        let web1 = file.hosts[0].1.clone().or(&file.defaults);
        assert_eq!(web1.address.as_deref(), Some("10.0.0.1"));
        assert_eq!(
            (web1.port, web1.user.as_deref(), web1.id.as_deref()),
            (Some(2222), Some("deploy"), Some("17"))
        );
        assert_eq!(web1.identity_file, Some(vec![PathBuf::from("~/.ssh/deploy")]));
        assert_eq!(
            web1.known_hosts,
            Some(vec![PathBuf::from("conf/known_hosts"), PathBuf::from("/etc/known")])
        );
        assert_eq!((web1.merge, web1.connections), (Some(MergeMethod::Sftp), Some(Connections::Exactly(4))));
        assert_eq!(web1.user_id.map(|id| id.to_string()).as_deref(), Some("ci"));
        assert_eq!(file.hosts[1].1.connections, Some(Connections::Auto));
        assert_eq!(file.groups, [("web".to_owned(), vec!["web1".into(), "web02".into(), "web03".into()])]);
    }

    #[test]
    fn complaints_name_file_line_and_key() {
        for (text, expected) in [
            (
                "[hosts.a]\nprot = 22\n",
                "conf/hosts.toml:2: unknown key 'prot' in [hosts.a]; known are address",
            ),
            ("[defaults]\n\nUser = 'x'\n", "conf/hosts.toml:3: unknown key 'User' in [defaults]"),
            ("[host.a]\n", "conf/hosts.toml:1: unknown table 'host'"),
            ("[hosts.a]\nport = 0\n", "conf/hosts.toml:2: [hosts.a] port: is a number from 1 to 65535"),
            ("[hosts.a]\nport = '22'\n", "conf/hosts.toml:2: [hosts.a] port:"),
            ("[hosts.a]\nport = 65536\n", "conf/hosts.toml:2: [hosts.a] port:"),
            ("[hosts.a]\naddress = 5\n", "conf/hosts.toml:2: [hosts.a] address: has to be a string"),
            ("[hosts.a]\naddress = ''\n", "conf/hosts.toml:2: [hosts.a] address: is empty"),
            ("[hosts.a]\nmerge = 'fast'\n", "conf/hosts.toml:2: [hosts.a] merge:"),
            ("[hosts.a]\njump = 'b,'\n", "conf/hosts.toml:2: [hosts.a] jump: has to be [user@]host[:port]"),
            ("[hosts.a]\nconnections = 0\n", "conf/hosts.toml:2: [hosts.a] connections:"),
            ("[hosts.a]\nuser_id = 'a/b'\n", "conf/hosts.toml:2: [hosts.a] user_id:"),
            ("[hosts.a]\nidentity_file = [1]\n", "conf/hosts.toml:2: [hosts.a] identity_file:"),
            ("[hosts]\na = 1\n", "conf/hosts.toml:2: 'a' has to be a table"),
            (
                "[hosts.a]\nid = 'x'\n[hosts.b]\nid = 'x'\n",
                "conf/hosts.toml:3: id 'x' of host 'b' is also the id of",
            ),
            (
                "[hosts.a]\nid = 'b'\n[hosts.b]\n",
                "conf/hosts.toml:1: id 'b' of host 'a' is the name of another",
            ),
            (
                "[hosts.a]\n[groups]\na = ['a']\n",
                "conf/hosts.toml:3: group 'a' has the name or id of host 'a'",
            ),
            ("[groups]\nw = ['a[1-']\n", "conf/hosts.toml:2: group 'w': '[' in 'a[1-' is not closed"),
            ("[groups]\nw = []\n", "conf/hosts.toml:2: group 'w': has no members"),
            ("[groups]\nw = 3\n", "conf/hosts.toml:2: group 'w': has to be a list of names"),
            ("[groups]\nall = ['a']\n", "conf/hosts.toml:2: group 'all': 'all' stands for every host"),
            ("[hosts.'a,b']\n", "conf/hosts.toml:1: host 'a,b': a name cannot contain"),
            ("[hosts.a\n", "conf/hosts.toml:1: "),
            ("[hosts.a]\n[hosts.a]\n", "conf/hosts.toml:2: "),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn one_id_for_a_host_that_is_its_own_name_is_fine() {
        assert!(parse("[hosts.a]\nid = 'a'\n").is_ok());
        assert_eq!(parse(""), Ok(HostsFile::default()));
    }
}
