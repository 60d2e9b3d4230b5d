//! The shells of this machine, and a connection that runs commands in one of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use haul::remote::process::{ProcessControl, ProcessEvent};
use haul::remote::{Connection, ExecRequest, Files, Process, RemoteError, RemoteErrorKind};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

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
            std::fs::write(&path, format!("#!{busybox} sh\n{text}")).expect("a program");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("executable");
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
    pub fn login(&self, login_shell: &str) -> LocalExec {
        let mut command = self.command(find(login_shell));
        if login_shell == "busybox" {
            command.arg("sh");
        }
        command.arg("-c");
        LocalExec {
            prefix: command_words(&command),
            path: self.path.clone(),
            home: self.directory.path().into(),
        }
    }

    /// A connection to a server that runs `script` whatever is asked of it.
    pub fn forced(&self, script: &str) -> LocalExec {
        LocalExec {
            prefix: vec![find("dash").display().to_string(), "-c".into(), script.to_owned()],
            path: self.path.clone(),
            home: self.directory.path().into(),
        }
    }
}

fn command_words(command: &Command) -> Vec<String> {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().expect("plain words").to_owned())
        .collect()
}

/// Runs each command as an SSH server does: as the last word of a login shell's line.
pub struct LocalExec {
    prefix: Vec<String>,
    path: String,
    home: PathBuf,
}

#[async_trait]
impl Connection for LocalExec {
    async fn files(&self) -> Result<Arc<dyn Files>, RemoteError> {
        Err(RemoteError::new(RemoteErrorKind::Unsupported, "no files here"))
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, RemoteError> {
        let mut child = tokio::process::Command::new(&self.prefix[0])
            .args(&self.prefix[1..])
            .arg(request.command)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", &self.home)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| RemoteError::new(RemoteErrorKind::Failure, error.to_string()))?;
        let stdin = child.stdin.take().expect("a pipe");
        let (sender, events) = mpsc::channel(16);
        let (control, mut controls) = mpsc::channel(4);
        let stdout = forward(child.stdout.take().expect("a pipe"), sender.clone(), ProcessEvent::Stdout);
        let stderr = forward(child.stderr.take().expect("a pipe"), sender.clone(), ProcessEvent::Stderr);
        tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                () = async { while let Some(ProcessControl::Resize { .. }) = controls.recv().await {} } => return,
            };
            let status = status.expect("a child that can be waited for");
            let event = match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
                (Some(code), _) => ProcessEvent::Exited(code.cast_unsigned()),
                (None, signal) => ProcessEvent::Signaled {
                    signal: if signal == Some(15) { "TERM".into() } else { format!("{signal:?}") },
                    core_dumped: false,
                },
            };
            let _ = sender.send(event).await;
            let _ = tokio::join!(stdout, stderr);
            let _ = sender.send(ProcessEvent::Eof).await;
        });
        Ok(Process { stdin: Box::new(stdin), events, control })
    }

    fn server_name(&self) -> String {
        self.prefix.join(" ")
    }

    async fn disconnect(&self) {}
}

fn forward(
    mut from: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    to: mpsc::Sender<ProcessEvent>,
    event: fn(Bytes) -> ProcessEvent,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if to.send(event(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                break;
            }
        }
    })
}
