//! An account of the system with a password, for what keys cannot test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::sshd::is_root;
use super::wait::wait_until;

/// Others may hold the lock on the system's account files.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

pub struct Account {
    name: String,
    password: String,
    home: PathBuf,
}

impl Account {
    /// Only root can make accounts, and a check of passwords without one is none. Without
    /// root this says so and gives `None`; in CI it fails.
    pub fn create() -> Option<Account> {
        if !is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root to make an account");
            eprintln!("NOT TESTED: passwords need root to make an account");
            return None;
        }
        let mut random = [0; 6];
        getrandom::fill(&mut random).expect("random bytes");
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let account = Account {
            name: format!("haul-{hex}"),
            password: format!("secret {hex}"),
            home: PathBuf::from(format!("/tmp/haul-home-{hex}")),
        };
        wait_until("useradd", LOCK_LIMIT, || {
            Command::new("useradd")
                .args(["--create-home", "--no-log-init", "--shell", "/bin/sh", "--home-dir"])
                .arg(&account.home)
                .arg(&account.name)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
        wait_until("chpasswd", LOCK_LIMIT, || account.set_password());
        Some(account)
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What is in /etc/passwd as its shell.
    pub fn set_shell(&self, shell: &Path) {
        wait_until("usermod", LOCK_LIMIT, || {
            Command::new("usermod")
                .arg("--shell")
                .arg(shell)
                .arg(&self.name)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    fn set_password(&self) -> bool {
        let child = Command::new("chpasswd").stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("chpasswd runs");
        let line = format!("{}:{}\n", self.name, self.password);
        child.stdin.take().expect("stdin").write_all(line.as_bytes()).expect("write");
        child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let removed = || {
            Command::new("userdel")
                .args(["--force", "--remove"])
                .arg(&self.name)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        for _ in 0..20 {
            if removed() {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        eprintln!("the account {} could not be removed", self.name);
    }
}
