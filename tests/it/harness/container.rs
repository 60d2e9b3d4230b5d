//! A stock OpenSSH server in a container, and what tests ask of any host.
//!
//! The engine is docker or podman, `HAUL_TEST_ENGINE` says which. The image comes from
//! tests/container, on top of the image `haul-test-base` where there is one. Tests that
//! need a container fail where no engine answers; their paths all hold the word
//! `container`, by which `./.ci/test` leaves them out, loudly, where it may.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::sshd::{Sshd, generate_key, public_key};
use super::wait::wait_until;

const IMAGE: &str = "haul-test-sshd";
const BASE_IMAGE: &str = "haul-test-base";
/// How long a busy machine may take to start a container.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A host that a test may log in to, with a key, and look at from the side.
pub trait TestHost {
    /// Where its sshd listens on this machine.
    fn address(&self) -> SocketAddr;
    fn port(&self) -> u16 {
        self.address().port()
    }
    fn user(&self) -> &str;
    fn key_path(&self) -> PathBuf;
    fn known_hosts_path(&self) -> PathBuf;
    /// A directory on the host that the user may write to.
    fn scratch(&self) -> PathBuf;
    /// Runs a command in the host's shell, not over SSH.
    fn exec(&self, command: &str) -> Output;
    /// The content of a file on the host, not over SSH.
    fn read_file(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    /// Whether nobody is logged in, and nothing of a former login still works.
    fn is_idle(&self) -> bool;
}

impl TestHost for Sshd {
    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn user(&self) -> &str {
        self.user()
    }

    fn key_path(&self) -> PathBuf {
        self.key_path()
    }

    fn known_hosts_path(&self) -> PathBuf {
        self.known_hosts_path()
    }

    fn scratch(&self) -> PathBuf {
        self.scratch()
    }

    fn exec(&self, command: &str) -> Output {
        Command::new("sh").args(["-c", command]).output().expect("sh runs")
    }

    fn read_file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn is_idle(&self) -> bool {
        self.session_processes().is_empty() && self.orphaned_servers().is_empty()
    }
}

/// Debian's sshd for the ordinary user `haul`, who has a shell and a home.
pub struct ContainerSshd {
    id: String,
    address: SocketAddr,
    directory: TempDir,
}

impl ContainerSshd {
    /// Builds the image when it is not there yet, and returns once the server listens.
    pub fn start() -> ContainerSshd {
        let image = image();
        let directory = tempfile::Builder::new().prefix("haul-container-").tempdir().expect("temp directory");
        let (host_key, client_key) = (directory.path().join("host_key"), directory.path().join("client_key"));
        generate_key(&host_key, "ed25519", "");
        generate_key(&client_key, "ed25519", "");
        let private = std::fs::read_to_string(&host_key).expect("host key");
        let id = engine_says(&[
            "run",
            "--detach",
            "--publish",
            "127.0.0.1::22",
            "--env",
            &format!("HAUL_HOST_KEY={private}"),
            "--env",
            &format!("HAUL_AUTHORIZED_KEY={}", public_key(&client_key)),
            image,
        ]);
        let mut container = ContainerSshd { id, address: SocketAddr::from(([127, 0, 0, 1], 0)), directory };
        wait_until("the container's sshd", START_LIMIT, || {
            let running = engine_says(&["inspect", "--format", "{{.State.Running}}", &container.id]);
            assert_eq!(running, "true", "the container ended: {}", container.log());
            container.log().contains("Server listening on")
        });
        let published = engine_says(&["port", &container.id, "22/tcp"]);
        container.address = published.lines().next().unwrap_or("").parse().expect("a published port");
        let known = format!("[127.0.0.1]:{} {}\n", container.port(), public_key(&host_key));
        std::fs::write(container.known_hosts_path(), known).expect("known_hosts");
        container
    }

    /// What sshd has logged so far.
    pub fn log(&self) -> String {
        let output = engine(&["logs", &self.id]);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

impl TestHost for ContainerSshd {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn user(&self) -> &str {
        "haul"
    }

    fn key_path(&self) -> PathBuf {
        self.directory.path().join("client_key")
    }

    fn known_hosts_path(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    fn scratch(&self) -> PathBuf {
        PathBuf::from("/home/haul")
    }

    fn exec(&self, command: &str) -> Output {
        engine(&["exec", "--user", "haul", "--workdir", "/home/haul", &self.id, "sh", "-c", command])
    }

    fn read_file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let path = path.to_str().expect("a name that the engine's command line takes");
        let output = engine(&["exec", &self.id, "cat", "--", path]);
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn is_idle(&self) -> bool {
        // The brackets keep grep from finding itself.
        !self.exec("grep -slE '[s]ftp-server|sshd: [h]aul' /proc/[0-9]*/cmdline").status.success()
    }
}

impl Drop for ContainerSshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the container's log ---\n{}", self.log());
        }
        let output = engine(&["rm", "--force", "--volumes", &self.id]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("the container stays: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Runs the engine, whatever comes out of it.
fn engine(arguments: &[&str]) -> Output {
    let name = engine_name();
    Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs the engine, which has to succeed; what it prints, trimmed.
fn engine_says(arguments: &[&str]) -> String {
    let output = engine(arguments);
    assert!(
        output.status.success(),
        "{} {}: {}",
        engine_name(),
        arguments[0],
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// The one asked for, else the first that answers.
fn engine_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        if let Ok(name) = std::env::var("HAUL_TEST_ENGINE") {
            return name;
        }
        let answers = |name: &&str| Command::new(name).arg("info").output().is_ok_and(|o| o.status.success());
        let found = ["docker", "podman"].into_iter().find(answers);
        found.expect("no container engine answers: run ./.ci/test, or leave out `container`").to_string()
    })
}

/// Builds the image once a run; the engine's cache makes that quick.
fn image() -> &'static str {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container");
        let mut arguments = vec!["build", "--tag", IMAGE];
        let base = format!("BASE={BASE_IMAGE}");
        if engine(&["image", "inspect", BASE_IMAGE]).status.success() {
            arguments.extend(["--build-arg", &base]);
        }
        arguments.push(context.to_str().expect("a UTF-8 path"));
        engine_says(&arguments);
    });
    IMAGE
}
