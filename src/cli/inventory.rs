//! Which hosts a pattern stands for. Pure: it knows hosts.toml's content and nothing else.

use super::hosts_file::{HostKeys, HostsFile};
use super::ranges;
use crate::model::escape::printable;
use crate::remote::ssh::Hops;

/// A host that a pattern stands for, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As the person knows it; messages and JSON use this.
    pub name: String,
    pub keys: HostKeys,
    /// The groups it is in.
    pub groups: Vec<String>,
}

impl Host {
    /// A host that hosts.toml does not know: its name is its address.
    pub fn unlisted(name: &str) -> Host {
        Host { name: name.to_owned(), keys: HostKeys::default(), groups: Vec::new() }
    }

    pub fn address(&self) -> &str {
        self.keys.address.as_deref().unwrap_or(&self.name)
    }
}

/// Every host that hosts.toml names: those with a table, then those that only groups name.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    hosts: Vec<Host>,
    groups: Vec<(String, Vec<String>)>,
    /// The jump hosts that are logged in to, for all who go through them in this run.
    pub hops: Hops,
}

impl Inventory {
    pub fn new(file: HostsFile) -> Inventory {
        let mut inventory = Inventory { hosts: Vec::new(), groups: file.groups, hops: Hops::default() };
        for (name, keys) in file.hosts {
            inventory.hosts.push(Host { name, keys: keys.or(&file.defaults), groups: Vec::new() });
        }
        for (group, members) in &mut inventory.groups {
            for member in members {
                let known = inventory.hosts.iter().position(|host| host.is_called(member));
                let index = known.unwrap_or_else(|| {
                    let keys = HostKeys { id: None, ..file.defaults.clone() };
                    inventory.hosts.push(Host { name: member.clone(), keys, groups: Vec::new() });
                    inventory.hosts.len() - 1
                });
                let host = &mut inventory.hosts[index];
                // A member may be named by its id; from here on only names count.
                member.clone_from(&host.name);
                if !host.groups.contains(group) {
                    host.groups.push(group.clone());
                }
            }
        }
        inventory
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name or id.
    pub fn host(&self, name: &str) -> Option<&Host> {
        let by_name = self.hosts.iter().find(|host| host.name == name);
        by_name.or_else(|| self.hosts.iter().find(|host| host.is_called(name)))
    }

    /// The hosts of `pattern`: a comma list of names, ids, groups, ranges and `all`, less
    /// those after a `!`. In the order of the pattern, each once. `unlisted` names are
    /// taken as addresses or are an error.
    pub fn select(&self, pattern: &str, unlisted: Unlisted) -> Result<Vec<Host>, String> {
        let mut chosen: Vec<Host> = Vec::new();
        let mut excluded: Vec<Host> = Vec::new();
        let (mut any_chosen, mut any_excluded) = (false, false);
        for item in ranges::split_list(pattern) {
            let (item, excludes) = match item.strip_prefix('!') {
                Some(rest) => (rest, true),
                None => (item, false),
            };
            if item.is_empty() {
                return Err(format!("host pattern '{}' has an empty part", printable(pattern.as_bytes())));
            }
            let hosts = self.item(item, if excludes { Unlisted::Refused } else { unlisted })?;
            if excludes {
                any_excluded = true;
                excluded.extend(hosts);
            } else {
                any_chosen = true;
                chosen.extend(hosts);
            }
        }
        if any_excluded && !any_chosen {
            return Err(format!(
                "'{0}' only says what to leave out; write all,{0}",
                printable(pattern.as_bytes())
            ));
        }
        let mut seen = std::collections::HashSet::new();
        chosen.retain(|host| {
            excluded.iter().all(|other| other.name != host.name) && seen.insert(host.name.clone())
        });
        if chosen.is_empty() {
            return Err(format!("host pattern '{}' matches nothing", printable(pattern.as_bytes())));
        }
        Ok(chosen)
    }

    fn item(&self, item: &str, unlisted: Unlisted) -> Result<Vec<Host>, String> {
        if item == "all" {
            return Ok(self.hosts.clone());
        }
        if let Some(host) = self.host(item) {
            return Ok(vec![host.clone()]);
        }
        if let Some((_, members)) = self.groups.iter().find(|(name, _)| name == item) {
            return Ok(members.iter().filter_map(|member| self.host(member).cloned()).collect());
        }
        let mut hosts = Vec::new();
        for name in ranges::expand(item)? {
            match (self.host(&name), unlisted) {
                (Some(host), _) => hosts.push(host.clone()),
                (None, Unlisted::AreAddresses) => hosts.push(Host::unlisted(&name)),
                (None, Unlisted::Refused) => {
                    let name = printable(name.as_bytes());
                    return Err(format!("no host, id or group is called '{name}' in the hosts file"));
                }
            }
        }
        Ok(hosts)
    }
}

impl Host {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.keys.id.as_deref() == Some(name)
    }
}

/// What becomes of a name that hosts.toml does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    AreAddresses,
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn inventory() -> Inventory {
        let text = r#"
            [defaults]
            user = "deploy"
            [hosts.web1]
            id = "m-17"
            [hosts.db]
            address = "10.0.0.9"
            user = "postgres"
            [groups]
            web = ["m-17", "web[02-04]"]
            backed_up = ["db", "web1"]
        "#;
        Inventory::new(HostsFile::parse(text, Path::new("hosts.toml")).expect("a hosts file"))
    }

    fn names(pattern: &str) -> Result<Vec<String>, String> {
        let hosts = inventory().select(pattern, Unlisted::AreAddresses)?;
        Ok(hosts.into_iter().map(|host| host.name).collect())
    }

    #[test]
    fn patterns() {
        for (pattern, expected) in [
            ("web1", &["web1"][..]),
            ("m-17", &["web1"]),
            ("web", &["web1", "web02", "web03", "web04"]),
            ("web[03-04]", &["web03", "web04"]),
            ("web,db", &["web1", "web02", "web03", "web04", "db"]),
            ("db,web1,db,m-17", &["db", "web1"]),
            ("all,!web", &["db"]),
            ("all,!m-17,!web[02-03]", &["db", "web04"]),
            ("web,!backed_up", &["web02", "web03", "web04"]),
            ("10.0.0.1,web1", &["10.0.0.1", "web1"]),
        ] {
            assert_eq!(names(pattern).expect(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn what_matches_nothing_is_an_error() {
        for (pattern, reason) in [
            ("web,!web", "matches nothing"),
            ("!web", "write all,!web"),
            ("all,!typo", "called 'typo'"),
            ("web1,,db", "empty part"),
            ("web1,", "empty part"),
            ("web[4-2]", "backwards"),
        ] {
            let error = names(pattern).expect_err(pattern);
            assert!(error.contains(reason), "{pattern}: {error}");
        }
        let refused = inventory().select("typo", Unlisted::Refused).expect_err("no such host");
        assert!(refused.contains("'typo'"), "{refused}");
        assert!(Inventory::default().select("all", Unlisted::Refused).is_err());
    }

    #[test]
    fn defaults_hold_for_every_host_that_is_named() {
        let inventory = inventory();
        let user = |name: &str| inventory.host(name).and_then(|host| host.keys.user.clone());
        assert_eq!(user("web1").as_deref(), Some("deploy"));
        assert_eq!(user("web03").as_deref(), Some("deploy"));
        assert_eq!(user("db").as_deref(), Some("postgres"));
        let host = inventory.host("web1").expect("a host");
        assert_eq!(host.groups, ["web", "backed_up"]);
        assert_eq!(host.address(), "web1");
    }
}
