//! Starts SSH servers that are not OpenSSH's: what `./.ci/test` installed, each over an
//! empty directory, on 127.0.0.1, for one key.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::account::Account;
use crate::harness::container::TestHost;
use crate::harness::sshd::{current_user, free_port, generate_key, greets, is_root, public_key};
use crate::harness::wait_until;

/// Interpreters take their time on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Known to that server alone; it has the id of the account that runs the tests.
const PROFTPD_USER: &str = "haul";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    AsyncSsh,
    AsyncSshWithShell,
    Paramiko,
    Twisted,
    NodeSsh2,
    NodeSsh2Naive,
    Erlang,
    Go,
    /// One channel a connection and one connection at a time, and no word about it.
    GoOneChannel,
    Rclone,
    Dropbear,
    ProFtpd,
}

pub struct Server {
    child: Child,
    port: u16,
    user: String,
    /// What the client calls the served directory.
    remote: PathBuf,
    mounted: bool,
    directory: TempDir,
    _account: Option<Account>,
}

/// Where `./.ci/test` puts what is not a Debian package.
fn toolbox() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-servers").into();
    PathBuf::from(std::env::var_os("HAUL_TEST_SERVERS").unwrap_or_else(default))
}

fn program(name: &str) -> OsString {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/servers/programs").join(name).into()
}

impl Server {
    /// Panics where the server is not installed: one that cannot be tested is no pass.
    pub fn start(kind: Kind) -> Server {
        let directory = tempfile::Builder::new().prefix("haul-server-").tempdir().expect("temp directory");
        let dir = directory.path();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("chmod");
        let root = dir.join("root");
        fs::create_dir(&root).expect("create directory");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).expect("chmod");
        generate_key(&dir.join("host_key"), "ed25519", "");
        generate_key(&dir.join("client_key"), "ed25519", "");
        fs::copy(dir.join("client_key.pub"), dir.join("authorized_keys")).expect("authorized_keys");

        let port = free_port();
        let account = (kind == Kind::Dropbear).then(|| dropbear_account(dir));
        let mut command = command(kind, port, dir);
        let log = File::create(dir.join("server.log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).current_dir(dir);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{kind:?} cannot be started ({error}): ./.ci/test installs it: {command:?}")
        });
        let whole_tree = matches!(
            kind,
            Kind::AsyncSshWithShell
                | Kind::Twisted
                | Kind::Go
                | Kind::GoOneChannel
                | Kind::Dropbear
                | Kind::ProFtpd
        );
        let mut server = Server {
            child,
            port,
            user: match (&account, kind) {
                (Some(account), _) => account.name().to_owned(),
                (None, Kind::ProFtpd) => PROFTPD_USER.to_owned(),
                (None, _) => current_user(),
            },
            remote: if whole_tree { root } else { PathBuf::from("/") },
            mounted: false,
            directory,
            _account: account,
        };
        wait_until(&format!("{kind:?} to greet"), START_LIMIT, || {
            if let Some(status) = server.child.try_wait().expect("wait") {
                let help = "./.ci/test installs what it needs";
                panic!("{kind:?} ended with {status}, {help}: {}", server.log());
            }
            greets(server.address())
        });
        let line = format!("[127.0.0.1]:{port} {}\n", public_key(&server.directory.path().join("host_key")));
        fs::write(server.known_hosts_path(), line).expect("known_hosts");
        server
    }

    /// The served directory, looked at from the side.
    pub fn local(&self, name: &str) -> PathBuf {
        self.directory.path().join("root").join(name)
    }

    /// The same as the client has to name it.
    pub fn remote(&self, name: &str) -> PathBuf {
        self.remote.join(name)
    }

    /// A directory `small` that holds no more than `size`. Only root can make one: without
    /// root this says so and gives false; in CI it fails.
    pub fn make_small(&mut self, size: &str) -> bool {
        if !is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root to mount a small disk");
            eprintln!("NOT TESTED: a full disk needs root to mount a small one");
            return false;
        }
        let small = self.local("small");
        let how = if self.mounted { "remount," } else { "" };
        if !self.mounted {
            fs::create_dir(&small).expect("create directory");
        }
        let options = format!("{how}size={size},mode=777");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&small).status();
        assert!(mount.expect("mount runs").success(), "cannot mount a small disk");
        self.mounted = true;
        true
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.directory.path().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.local("small")).status();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

impl TestHost for Server {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn user(&self) -> &str {
        &self.user
    }

    fn key_path(&self) -> PathBuf {
        self.directory.path().join("client_key")
    }

    fn known_hosts_path(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    fn scratch(&self) -> PathBuf {
        self.local("")
    }

    fn exec(&self, command: &str) -> Output {
        Command::new("sh").args(["-c", command]).output().expect("sh runs")
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn is_idle(&self) -> bool {
        true
    }
}

/// dropbear reads the keys of the account that logs in, and only those.
fn dropbear_account(dir: &Path) -> Account {
    let account = Account::create().expect("dropbear's keys lie in a home directory, which needs an account");
    let ssh = account.home().join(".ssh");
    fs::create_dir(&ssh).expect("create .ssh");
    fs::copy(dir.join("authorized_keys"), ssh.join("authorized_keys")).expect("authorized_keys");
    let owned = Command::new("chown").arg("-R").arg(account.name()).arg(&ssh).status().expect("chown runs");
    assert!(owned.success(), "chown {}", ssh.display());
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o700)).expect("chmod");
    account
}

/// All have the same arguments, where they are programs of ours.
fn command(kind: Kind, port: u16, dir: &Path) -> Command {
    let (root, host_key, keys) = (dir.join("root"), dir.join("host_key"), dir.join("authorized_keys"));
    let python = |name: &str| {
        let mut command = Command::new(toolbox().join("venv/bin/python"));
        command.arg(program(name)).arg(port.to_string()).args([&root, &host_key, &keys]);
        command
    };
    let node = || {
        let mut command = Command::new("node");
        command.env("NODE_PATH", toolbox().join("node_modules")).arg(program("ssh2_server.js"));
        command.arg(port.to_string()).args([&root, &host_key, &keys]);
        command
    };
    let go = |how: &str| {
        let mut command = Command::new(toolbox().join("go_server"));
        command.arg(port.to_string()).args([&host_key, &keys]).arg(how);
        command
    };
    match kind {
        Kind::AsyncSsh => python("asyncssh_server.py"),
        Kind::AsyncSshWithShell => {
            let mut command = python("asyncssh_server.py");
            command.arg("shell");
            command
        }
        Kind::Paramiko => python("paramiko_server.py"),
        Kind::Twisted => python("twisted_server.py"),
        Kind::NodeSsh2 => node(),
        Kind::NodeSsh2Naive => {
            let mut command = node();
            command.arg("naive");
            command
        }
        Kind::Erlang => {
            let keys_dir = dir.join("erlang");
            fs::create_dir(&keys_dir).expect("create directory");
            fs::copy(&host_key, keys_dir.join("ssh_host_ed25519_key")).expect("host key");
            fs::copy(&keys, keys_dir.join("authorized_keys")).expect("authorized_keys");
            let mut command = Command::new("escript");
            command.env("HOME", dir).arg(program("erlang_server.escript")).arg(port.to_string());
            command.args([&root, &keys_dir, &keys_dir]);
            command
        }
        Kind::Go => go("disk"),
        Kind::GoOneChannel => go("one"),
        Kind::Rclone => {
            let mut command = Command::new("rclone");
            command.env("HOME", dir).args(["serve", "sftp", "--config", "", "--vfs-cache-mode", "off"]);
            command.args(["--addr", &format!("127.0.0.1:{port}")]).arg("--key").arg(host_key);
            command.arg("--authorized-keys").arg(keys).arg(root);
            command
        }
        Kind::Dropbear => {
            let key = dir.join("dropbear_key");
            let converted = Command::new("dropbearconvert")
                .args(["openssh", "dropbear"])
                .args([&host_key, &key])
                .output()
                .expect("dropbearconvert runs: ./.ci/test installs it");
            assert!(converted.status.success(), "dropbearconvert: {converted:?}");
            let mut command = Command::new("/usr/sbin/dropbear");
            command.args(["-F", "-E", "-p", &format!("127.0.0.1:{port}"), "-r"]).arg(key);
            command.arg("-P").arg(dir.join("dropbear.pid"));
            command
        }
        Kind::ProFtpd => {
            fs::write(dir.join("proftpd.conf"), proftpd_configuration(port, dir)).expect("proftpd.conf");
            let mut command = Command::new("/usr/sbin/proftpd");
            command.args(["-n", "-q", "-c"]).arg(dir.join("proftpd.conf"));
            command
        }
    }
}

fn proftpd_configuration(port: u16, dir: &Path) -> String {
    let (user, id) = (current_user(), rustix::process::getuid().as_raw());
    let group = rustix::process::getgid().as_raw();
    let dir = dir.display();
    // A password that nobody knows: without one the account counts as closed.
    let accounts = format!("{PROFTPD_USER}:$1$test$0123456789abcdefghijk/:{id}:{group}::{dir}:/bin/sh\n");
    let passwords = PathBuf::from(format!("{dir}/passwd"));
    fs::write(&passwords, accounts).expect("passwd");
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).expect("chmod");
    let keys = Command::new("ssh-keygen").arg("-e").arg("-f").arg(format!("{dir}/client_key.pub")).output();
    fs::write(format!("{dir}/rfc4716_keys"), keys.expect("ssh-keygen runs").stdout).expect("keys");
    format!(
        "ModulePath /usr/lib/proftpd\nLoadModule mod_sftp.c\nServerName test\nServerType standalone\n\
         DefaultAddress 127.0.0.1\nSocketBindTight on\nPort {port}\nUseIPv6 off\nUser {user}\nGroup root\n\
         RootLogin on\nRequireValidShell off\nAuthUserFile {dir}/passwd\nAuthOrder mod_auth_file.c\n\
         ScoreboardFile {dir}/scoreboard\nPidFile {dir}/proftpd.pid\nDelayEngine off\nWtmpLog off\n\
         TransferLog NONE\nSystemLog {dir}/system.log\nAllowOverwrite on\n\
         SFTPEngine on\nSFTPLog {dir}/sftp.log\nSFTPHostKey {dir}/host_key\n\
         SFTPAuthorizedUserKeys file:{dir}/rfc4716_keys\nSFTPAuthMethods publickey\n"
    )
}
