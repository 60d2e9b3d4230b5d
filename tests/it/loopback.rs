//! The server inside haul, judged by OpenSSH's clients.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use haul::remote::loopback::LoopbackServer;
use tempfile::TempDir;

use crate::harness::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

/// A server over an empty directory, and a key and known_hosts for clients.
struct Served {
    runtime: tokio::runtime::Runtime,
    server: LoopbackServer,
    directory: TempDir,
}

impl Served {
    fn start() -> Served {
        let directory = tempfile::tempdir().expect("temp directory");
        fs::create_dir(directory.path().join("root")).expect("root");
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let server =
            runtime.block_on(LoopbackServer::start(directory.path().join("root"))).expect("server starts");
        let key = directory.path().join("key");
        fs::write(&key, server.client_key_pem().expect("key")).expect("key file");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
        let known_hosts = directory.path().join("known_hosts");
        fs::write(known_hosts, server.known_hosts_line().expect("host key")).expect("known_hosts");
        Served { runtime, server, directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "GlobalKnownHostsFile=/dev/null"])
            .args(["-o", &format!("UserKnownHostsFile={}", self.path("known_hosts").display())])
            .args(["-o", &format!("Port={}", self.server.port())])
            .arg("-i")
            .arg(self.path("key"))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs lines of sftp(1); the first that fails ends it.
    fn sftp(&self, lines: &str) -> Output {
        let mut child = self
            .client("sftp")
            .args(["-b", "-", "any@127.0.0.1"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sftp runs");
        child.stdin.take().expect("stdin").write_all(lines.as_bytes()).expect("lines");
        child.wait_with_output().expect("sftp ends")
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn sample(path: &Path, bytes: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(path, &data).expect("sample");
    data
}

#[test]
fn files_go_there_and_back() {
    let served = Served::start();
    let data = sample(&served.path("big"), 5_000_001);
    let output = served.sftp(&format!(
        "mkdir dir\nput {big} dir/big\nchmod 640 dir/big\nln dir/big dir/link\nget /dir/link {back}\n\
         rename dir/big dir/../renamed\nls -l dir\npwd\ndf\nrm dir/link\nrmdir dir\n",
        big = served.path("big").display(),
        back = served.path("back").display(),
    ));
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("Remote working directory: /\n"), "{}", text(&output));
    assert_eq!(fs::read(served.path("back")).expect("back"), data);
    assert_eq!(fs::read(served.root().join("renamed")).expect("renamed"), data);
    let metadata = fs::metadata(served.root().join("renamed")).expect("renamed");
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o640, 1));
    assert!(!served.root().join("dir").exists());
    assert_eq!(served.server.bytes_written(), data.len() as u64);
}

#[test]
fn names_do_not_lead_out() {
    let served = Served::start();
    fs::write(served.path("secret"), "secret").expect("secret");
    symlink("../secret", served.root().join("out")).expect("link");
    symlink(served.path("secret"), served.root().join("absolute")).expect("link");
    symlink(served.directory.path(), served.root().join("directory")).expect("link");
    for name in ["out", "absolute", "../secret", "directory/secret"] {
        let output = served.sftp(&format!("get {name} {}\n", served.path("got").display()));
        assert!(!output.status.success(), "{name}: {}", text(&output));
        assert!(!served.path("got").exists(), "{name}");
    }
    let output = served.sftp(&format!("put {} ../../escaped\n", served.path("secret").display()));
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(served.root().join("escaped")).expect("inside"), b"secret");
    let output = served.sftp(&format!("put {} out\n", served.path("known_hosts").display()));
    // `../secret` of a link at the top is the name `secret` at the top.
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(served.path("secret")).expect("secret"), b"secret");
    assert!(served.root().join("secret").exists());
}

#[test]
fn a_plain_rename_does_not_replace() {
    let served = Served::start();
    fs::write(served.root().join("a"), "a").expect("a");
    fs::write(served.root().join("b"), "b").expect("b");
    fs::create_dir(served.root().join("c")).expect("c");
    fs::create_dir(served.root().join("d")).expect("d");
    for lines in ["rename -l a b\n", "rename -l c d\n", "ln a b\n", "rmdir a\n", "mkdir c\n", "rm absent\n"] {
        let output = served.sftp(lines);
        assert!(!output.status.success(), "{lines}: {}", text(&output));
    }
    assert_eq!(fs::read(served.root().join("b")).expect("b"), b"b");
    let output = served.sftp("rename a b\n");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(served.root().join("b")).expect("b"), b"a");
}

#[test]
fn other_keys_and_commands_are_refused() {
    let served = Served::start();
    for command in ["true", "exec sh -s"] {
        let output = served.client("ssh").args(["any@127.0.0.1", command]).output().expect("ssh runs");
        assert_eq!(output.status.code(), Some(255), "{}", text(&output));
    }
    crate::harness::sshd::generate_key(&served.path("other"), "ed25519", "");
    fs::copy(served.path("other"), served.path("key")).expect("copy");
    let output = served.sftp("pwd\n");
    assert!(text(&output).contains("Permission denied (publickey)"), "{}", text(&output));
}

#[test]
fn a_cut_comes_in_the_middle_and_once() {
    let served = Served::start();
    sample(&served.path("big"), 8 << 20);
    let put = format!("put {} big\n", served.path("big").display());
    served.server.cut_after(3 << 20);
    let output = served.sftp(&put);
    assert!(!output.status.success(), "{}", text(&output));
    wait_until("the end of what was on its way", LIMIT, || {
        fs::metadata(served.root().join("big")).is_ok_and(|file| file.len() == served.server.bytes_written())
    });
    let arrived = served.server.bytes_written();
    assert!((3 << 20..8 << 20).contains(&arrived), "{arrived}");
    assert_eq!((served.server.cuts(), served.server.connections()), (1, 1));
    assert!(served.sftp(&put).status.success());
    assert_eq!((served.server.cuts(), served.server.connections()), (1, 2));
}

#[test]
fn a_stopped_server_is_gone_and_so_are_its_clients() {
    let served = Served::start();
    let mut child = served
        .client("sftp")
        .args(["-b", "-", "any@127.0.0.1"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sftp runs");
    wait_until("the client", LIMIT, || served.server.connections() == 1);
    let Served { runtime, server, .. } = served;
    let address = server.address();
    runtime.block_on(server.stop());
    assert!(!child.wait().expect("sftp ends").success());
    assert!(std::net::TcpStream::connect(address).is_err());
}
