//! A real ssh-agent.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::wait::wait_until;

pub struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    /// Its socket stands in `directory`.
    pub fn start(directory: &Path) -> Agent {
        let socket = directory.join("agent");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent runs");
        let agent = Agent { child, socket };
        wait_until("the agent's socket", Duration::from_secs(30), || {
            std::os::unix::net::UnixStream::connect(&agent.socket).is_ok()
        });
        agent
    }

    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    pub fn add(&self, key: &Path) {
        let status = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .stdin(Stdio::null())
            .status()
            .expect("ssh-add runs");
        assert!(status.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
