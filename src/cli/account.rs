//! Who runs haul and where their files are: the only place that reads HOME and the user
//! database.

use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::model::names::UserId;

#[derive(Debug, Clone)]
pub struct Account {
    pub login: String,
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub config: Option<PathBuf>,
    pub agent_socket: Option<PathBuf>,
}

impl Account {
    pub fn current() -> Account {
        let uid = rustix::process::getuid().as_raw();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = passwd_entry(&users, uid);
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME").or_else(|| entry.map(|(_, home)| PathBuf::from(home)));
        Account {
            // Accounts from a directory service are not in the file; their login sets these.
            login: entry
                .map(|(name, _)| name.to_owned())
                .or_else(|| variable("LOGNAME"))
                .or_else(|| variable("USER"))
                .unwrap_or_else(|| format!("uid-{uid}")),
            config: path("XDG_CONFIG_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| home.as_ref().map(|home| home.join(".config"))),
            home,
            agent_socket: path("SSH_AUTH_SOCK"),
        }
    }

    /// The login name as a user id.
    pub fn user_id(&self) -> Result<UserId, CliError> {
        UserId::new(&self.login).map_err(|error| {
            CliError::usage(format!(
                "the local login name cannot be a user id: {error}; name one by --user-id"
            ))
        })
    }

    /// Who holds a lock, for others to read: login name and this machine's name.
    pub fn holder(&self) -> String {
        format!("{}@{}", self.login, rustix::system::uname().nodename().to_string_lossy())
    }

    /// `~/x` below the home; any other path as it is.
    pub fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }
}

/// Name and home of `uid` in the text of passwd(5).
fn passwd_entry(users: &str, uid: u32) -> Option<(&str, &str)> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let matches = fields.len() >= 6 && fields[2].parse() == Ok(uid) && !fields[0].is_empty();
        matches.then(|| (fields[0], fields[5]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_is_read() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/home/alice:/bin/bash\n";
        assert_eq!(passwd_entry(users, 1000), Some(("alice", "/home/alice")));
        assert_eq!(passwd_entry(users, 0), Some(("root", "/root")));
        assert_eq!(passwd_entry(users, 5), None);
    }

    #[test]
    fn only_a_tilde_and_a_slash_is_the_home() {
        let account = Account {
            login: "alice".into(),
            home: Some("/home/alice".into()),
            config: None,
            agent_socket: None,
        };
        assert_eq!(account.expand(Path::new("~/.ssh/key")), Path::new("/home/alice/.ssh/key"));
        assert_eq!(account.expand(Path::new("~bob/key")), Path::new("~bob/key"));
        assert_eq!(account.expand(Path::new("/etc/key")), Path::new("/etc/key"));
    }
}
