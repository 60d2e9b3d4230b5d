//! What sudo lets an account of the tests do.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;

/// A file in sudoers.d, removed when dropped.
pub struct Sudoers {
    path: PathBuf,
}

impl Sudoers {
    /// `rules` are lines of sudoers(5) in which `USER` stands for the account.
    pub fn write(account: &Account, rules: &str) -> Sudoers {
        assert!(Path::new("/usr/bin/sudo").exists(), "sudo is missing: ./.ci/test installs it");
        let sudoers = Sudoers { path: Path::new("/etc/sudoers.d").join(account.name()) };
        // sudo reads no name with a full stop in it, so this one is complete before it counts.
        let draft = sudoers.path.with_extension("draft");
        std::fs::write(&draft, rules.replace("USER", account.name())).expect("a draft");
        let checked = Command::new("visudo").args(["-c", "-q", "-f"]).arg(&draft).status().expect("visudo");
        assert!(checked.success(), "{rules}");
        std::fs::rename(&draft, &sudoers.path).expect("a file in sudoers.d");
        sudoers
    }
}

impl Drop for Sudoers {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
