//! The shells of this machine, and connections to accounts that have them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use haul::remote::local::LocalConnector;
use haul::remote::{Connection, Connector};
use tempfile::TempDir;

use crate::harness::sshd::write_script;

/// What `sh` is: every name is a symbolic link in a directory that goes first in PATH.
pub const SHELLS: [&str; 5] = ["dash", "bash", "busybox", "mksh", "zsh"];
/// Those that count in 64 bits, which the merge script needs.
pub const MERGING_SHELLS: [&str; 4] = ["dash", "bash", "busybox", "zsh"];
/// What may stand in /etc/passwd.
pub const LOGIN_SHELLS: [&str; 7] = ["bash", "dash", "zsh", "fish", "tcsh", "mksh", "busybox"];

/// A machine whose `sh` is a given shell; with BusyBox there is nothing but BusyBox.
pub struct Machine {
    directory: TempDir,
    path: String,
}

pub fn find(program: &str) -> PathBuf {
    let candidates =
        ["/usr/bin", "/bin", "/usr/local/bin"].map(|directory| Path::new(directory).join(program));
    candidates.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{program} is not installed"))
}

impl Machine {
    pub fn new(shell: &str) -> Machine {
        let directory = TempDir::new().expect("a temporary directory");
        let own = directory.path().display().to_string();
        let path = if shell == "busybox" {
            let busybox = find("busybox");
            let status = Command::new(&busybox).args(["--install", "-s"]).arg(directory.path()).status();
            assert!(status.expect("busybox runs").success());
            std::os::unix::fs::symlink(busybox, directory.path().join("busybox")).expect("a link");
            own
        } else {
            std::os::unix::fs::symlink(find(shell), directory.path().join("sh")).expect("a link");
            format!("{own}:/usr/bin:/bin")
        };
        Machine { directory, path }
    }

    /// BusyBox without `stat` and `setsid`, whose `sync` takes no names and whose `sleep`
    /// knows whole seconds only.
    pub fn bare() -> Machine {
        let machine = Machine::new("busybox");
        let directory = machine.directory.path();
        let busybox = find("busybox").display().to_string();
        for program in ["stat", "setsid", "sync", "sleep"] {
            std::fs::remove_file(directory.join(program)).expect("an applet");
        }
        for (program, text) in [
            ("sync", format!("[ $# = 0 ] || exit 1\nexec {busybox} sync\n")),
            ("sleep", format!("case $1 in *[!0-9]*) exit 1 ;; esac\nexec {busybox} sleep \"$1\"\n")),
        ] {
            let path = directory.join(program);
            write_script(&path, &format!("#!{busybox} sh\n{text}"));
        }
        machine
    }

    pub fn sh(&self) -> PathBuf {
        self.directory.path().join("sh")
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// A command with this machine's PATH, and nothing of this process's environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", &self.path).env("HOME", self.directory.path()).env("LC_ALL", "C");
        command
    }

    /// A connection to an account with this login shell.
    pub async fn login(&self, login_shell: &str) -> Arc<dyn Connection> {
        let applet = if login_shell == "busybox" { " sh" } else { "" };
        self.account(login_shell, &format!("exec {}{applet} \"$@\"", find(login_shell).display())).await
    }

    /// A connection to a server that runs `script` whatever is asked of it, which is `$2`.
    pub async fn forced(&self, script: &str) -> Arc<dyn Connection> {
        self.account("forced", script).await
    }

    /// The account's shell is a wrapper, which sees to its environment.
    async fn account(&self, name: &str, script: &str) -> Arc<dyn Connection> {
        let wrapper = self.directory.path().join(format!("login-{name}"));
        let (path, home, dash) = (&self.path, self.directory.path().display(), find("dash"));
        let text = format!("#!{}\nexport PATH='{path}' HOME='{home}' LC_ALL=C\n{script}\n", dash.display());
        write_script(&wrapper, &text);
        LocalConnector::whole_machine(Some(wrapper)).connect().await.expect("this machine")
    }
}
