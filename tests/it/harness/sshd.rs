//! A real OpenSSH server on 127.0.0.1, with keys and a configuration of its own.
//!
//! It serves the account that runs the tests, as root and as anybody else. Every process
//! that it starts bears a marker in its environment, so that dropping the [`Sshd`] ends
//! also what detached itself.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::wait::wait_until;

const SSHD: &str = "/usr/sbin/sshd";
const SFTP_SERVERS: [&str; 3] =
    ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"];
const MARKER: &str = "HAUL_TEST_SSHD";
/// How long a machine that builds other things meanwhile may take to start a server.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often another free port is tried when somebody else was faster.
const PORT_TRIES: usize = 5;

pub struct SshdBuilder {
    lines: Vec<String>,
    last_lines: Vec<String>,
    environment: Vec<(String, String)>,
    force_internal_sftp: bool,
    sftp: SftpSubsystem,
    sftp_arguments: Vec<String>,
    log_level: String,
    use_pam: bool,
    host_key_type: String,
    host_key_from: Option<PathBuf>,
}

enum SftpSubsystem {
    External,
    Internal,
    /// The external server through a script that keeps its log in a file.
    Logged(String),
    None,
}

impl SshdBuilder {
    /// A line of sshd_config. sshd takes the first value of a keyword: this one comes
    /// before the harness's own.
    pub fn config(mut self, line: &str) -> Self {
        self.lines.push(line.to_string());
        self
    }

    /// Lines after all others, for `Match` blocks.
    pub fn match_block(mut self, lines: &str) -> Self {
        self.last_lines.push(lines.to_string());
        self
    }

    /// A variable in the environment of everything the server runs.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// SFTP and nothing else: no shell, whatever a client asks for.
    pub fn force_internal_sftp(mut self) -> Self {
        self.force_internal_sftp = true;
        self.sftp = SftpSubsystem::Internal;
        self
    }

    /// The SFTP server inside sshd, beside a shell.
    pub fn internal_sftp(mut self) -> Self {
        self.sftp = SftpSubsystem::Internal;
        self
    }

    /// No SFTP at all.
    pub fn no_sftp(mut self) -> Self {
        self.sftp = SftpSubsystem::None;
        self
    }

    /// Arguments of the SFTP server, such as `["-P", "rename"]`.
    pub fn sftp_arguments(mut self, arguments: &[&str]) -> Self {
        self.sftp_arguments.extend(arguments.iter().map(|argument| argument.to_string()));
        self
    }

    /// Keeps what the SFTP server logs at `level` (INFO: opens, closes with bytes,
    /// renames; DEBUG3: every request); see [`Sshd::sftp_log`].
    pub fn sftp_wrapper(mut self, level: &str) -> Self {
        self.sftp = SftpSubsystem::Logged(level.to_string());
        self
    }

    pub fn log_level(mut self, level: &str) -> Self {
        self.log_level = level.to_string();
        self
    }

    /// Through the system's PAM service "sshd"; only of use as root.
    pub fn use_pam(mut self) -> Self {
        self.use_pam = true;
        self
    }

    /// `ed25519` unless told; `rsa` and `ecdsa` too.
    pub fn host_key_type(mut self, key_type: &str) -> Self {
        self.host_key_type = key_type.to_string();
        self
    }

    /// The host's key pair is a copy of the one at `path` and `path`.pub.
    pub fn host_key_from(mut self, path: &Path) -> Self {
        self.host_key_from = Some(path.to_path_buf());
        self
    }

    /// The host shows this certificate of its key; the file has to stay as long as it is
    /// started.
    pub fn host_certificate(self, path: &Path) -> Self {
        self.config(&format!("HostCertificate {}", path.display()))
    }

    pub fn start(self) -> Sshd {
        assert!(Path::new(SSHD).exists(), "{SSHD} is missing: install openssh-server");
        if is_root() {
            fs::create_dir_all("/run/sshd").expect("create /run/sshd");
        }
        let directory = tempfile::Builder::new().prefix("haul-sshd-").tempdir().expect("temp directory");
        // Other accounts must be able to pass through to the scratch directory.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let dir = directory.path();
        for name in ["scratch", "home"] {
            fs::create_dir(dir.join(name)).expect("create directory");
        }
        match &self.host_key_from {
            None => generate_key(&dir.join("host_key"), &self.host_key_type, ""),
            Some(key) => {
                fs::copy(key, dir.join("host_key")).expect("host key");
                let mut public = key.as_os_str().to_os_string();
                public.push(".pub");
                fs::copy(public, dir.join("host_key.pub")).expect("host key");
            }
        }
        generate_key(&dir.join("client_key"), "ed25519", "");
        fs::copy(dir.join("client_key.pub"), dir.join("authorized_keys")).expect("authorized_keys");

        let marker = dir.file_name().expect("a name").to_string_lossy().into_owned();
        for attempt in 1..=PORT_TRIES {
            let port = free_port();
            fs::write(dir.join("sshd_config"), self.configuration(dir, port, &marker)).expect("sshd_config");
            let mut sshd = Sshd {
                port,
                marker: marker.clone(),
                child: None,
                user: current_user(),
                path: dir.to_path_buf(),
                directory: None,
            };
            match sshd.launch() {
                Ok(()) => {
                    sshd.write_known_hosts();
                    sshd.directory = Some(directory);
                    return sshd;
                }
                Err(message) if attempt == PORT_TRIES => panic!("sshd does not start: {message}"),
                Err(_) => {}
            }
        }
        unreachable!("the loop returns or panics");
    }

    fn configuration(&self, dir: &Path, port: u16, marker: &str) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        for extra in &self.lines {
            line(extra);
        }
        line(&format!("Port {port}"));
        line("ListenAddress 127.0.0.1");
        line(&format!("HostKey {}", dir.join("host_key").display()));
        line(&format!("AuthorizedKeysFile {}", dir.join("authorized_keys").display()));
        line("PidFile none");
        line("StrictModes no");
        line(if self.use_pam { "UsePAM yes" } else { "UsePAM no" });
        line("PermitRootLogin yes");
        line("PrintMotd no");
        line("PrintLastLog no");
        line("UseDNS no");
        line("PermitUserEnvironment no");
        // Parallel tests log in often; a test that wants the limit sets its own. Of this
        // keyword sshd takes the last value.
        if !self.lines.iter().any(|extra| extra.starts_with("MaxStartups ")) {
            line("MaxStartups 100");
        }
        line(&format!("LogLevel {}", self.log_level));
        // A slow .bashrc is only read by bash where SHLVL says that this is no first shell.
        let mut set_env = format!("SetEnv SHLVL=9 {MARKER}={marker}");
        for (name, value) in &self.environment {
            set_env.push_str(&format!(" \"{name}={value}\""));
        }
        line(&set_env);
        let arguments = self.sftp_arguments.join(" ");
        match &self.sftp {
            SftpSubsystem::None => {}
            SftpSubsystem::Internal => line(&format!("Subsystem sftp internal-sftp {arguments}")),
            SftpSubsystem::External => line(&format!("Subsystem sftp {} {arguments}", sftp_server())),
            SftpSubsystem::Logged(level) => {
                let wrapper = dir.join("sftp-wrapper");
                let script = format!(
                    "#!/bin/sh\nexec {} -e -l {level} \"$@\" 2>>'{}'\n",
                    sftp_server(),
                    dir.join("sftp.log").display()
                );
                write_script(&wrapper, &script);
                line(&format!("Subsystem sftp {} {arguments}", wrapper.display()));
            }
        }
        if self.force_internal_sftp {
            line(&format!("ForceCommand internal-sftp {arguments}"));
        }
        for extra in &self.last_lines {
            line(extra);
        }
        text
    }
}

pub struct Sshd {
    port: u16,
    marker: String,
    child: Option<Child>,
    user: String,
    path: PathBuf,
    /// Removed after the processes have ended.
    directory: Option<TempDir>,
}

impl Sshd {
    pub fn builder() -> SshdBuilder {
        SshdBuilder {
            lines: Vec::new(),
            last_lines: Vec::new(),
            environment: Vec::new(),
            force_internal_sftp: false,
            sftp: SftpSubsystem::External,
            sftp_arguments: Vec::new(),
            log_level: "VERBOSE".to_string(),
            use_pam: false,
            host_key_type: "ed25519".to_string(),
            host_key_from: None,
        }
    }

    pub fn start() -> Sshd {
        Sshd::builder().start()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The account that may log in with [`Sshd::key_path`].
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The private key that the server lets in; the public one stands beside it.
    pub fn key_path(&self) -> PathBuf {
        self.path.join("client_key")
    }

    /// One line a key; a test may add to it.
    pub fn authorized_keys_path(&self) -> PathBuf {
        self.path.join("authorized_keys")
    }

    /// Holds the server's host key.
    pub fn known_hosts_path(&self) -> PathBuf {
        self.path.join("known_hosts")
    }

    /// The host's public key, `type base64`, without a comment.
    pub fn host_key(&self) -> String {
        public_key(&self.path.join("host_key"))
    }

    pub fn host_key_path(&self) -> PathBuf {
        self.path.join("host_key")
    }

    /// An empty directory of the target for files of the test.
    pub fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    /// An empty directory to serve as a client's HOME.
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// The temp directory that holds all of this; for keys and files of a test.
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// What sshd has logged so far.
    pub fn log(&self) -> String {
        read_lossy(&self.path.join("sshd.log"))
    }

    /// What SFTP servers have logged so far; needs [`SshdBuilder::sftp_wrapper`].
    pub fn sftp_log(&self) -> String {
        read_lossy(&self.path.join("sftp.log"))
    }

    /// Ends every connection as a crash would; the server goes on listening.
    pub fn kill_all_sessions(&self) {
        for pid in self.session_processes() {
            signal("KILL", pid);
        }
        wait_until("the end of the sessions", START_LIMIT, || self.session_processes().is_empty());
    }

    /// Stops (SIGSTOP) the listener and everything below it: connections stay open and silent.
    pub fn freeze(&self) {
        signal("STOP", self.pid());
        for pid in self.session_processes() {
            signal("STOP", pid);
        }
    }

    pub fn thaw(&self) {
        signal("CONT", self.pid());
        for pid in self.session_processes() {
            signal("CONT", pid);
        }
    }

    /// Takes no further connection; those that there are go on.
    pub fn stop_listening(&self) {
        signal("KILL", self.pid());
        wait_until("the end of the listener", START_LIMIT, || TcpStream::connect(self.address()).is_err());
    }

    /// Ends the server and all its connections. What detached itself goes on.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let sessions = self.session_processes_of(child.id());
        let _ = child.kill();
        let _ = child.wait();
        for pid in sessions {
            signal("KILL", pid);
        }
    }

    /// Starts again on the same port, after [`Sshd::stop`] or in its place.
    pub fn restart(&mut self) {
        self.stop();
        if let Err(message) = self.launch() {
            panic!("sshd does not start again: {message}");
        }
    }

    /// `ssh` as a judge or as another client, with this server's key and known_hosts and
    /// no other configuration. Options and the command still have to be added; the host's
    /// name is 127.0.0.1.
    pub fn ssh(&self) -> Command {
        self.ssh_with_known_hosts(&self.known_hosts_path())
    }

    /// As [`Sshd::ssh`], with another known_hosts file.
    pub fn ssh_with_known_hosts(&self, known_hosts: &Path) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "GlobalKnownHostsFile=/dev/null"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
            .arg("-i")
            .arg(self.key_path())
            .arg("-p")
            .arg(self.port.to_string())
            .arg("-l")
            .arg(&self.user)
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    /// Processes that serve connections now, and what they run.
    pub fn session_processes(&self) -> Vec<u32> {
        match &self.child {
            Some(child) => self.session_processes_of(child.id()),
            None => Vec::new(),
        }
    }

    /// SFTP servers whose connection is gone, and who still work off what they received:
    /// those that bear the marker, and those that have a file of the scratch directory open.
    pub fn orphaned_servers(&self) -> Vec<u32> {
        let marked = marked_processes(&format!("{MARKER}={}", self.marker));
        let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let holds_file = |pid: &u32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            open.filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|file| file.starts_with(self.scratch()))
        };
        processes()
            .filter(|pid| match name(pid).trim() {
                "sftp-server" => marked.contains(pid) || holds_file(pid),
                other => other.starts_with("sshd") && holds_file(pid),
            })
            .collect()
    }

    fn session_processes_of(&self, listener: u32) -> Vec<u32> {
        descendants(listener)
    }

    /// The listener.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    fn write_known_hosts(&self) {
        let line = format!("[127.0.0.1]:{} {}\n", self.port, self.host_key());
        fs::write(self.known_hosts_path(), line).expect("known_hosts");
    }

    /// Runs sshd and waits until it greets.
    fn launch(&mut self) -> Result<(), String> {
        let log =
            OpenOptions::new().create(true).append(true).open(self.path.join("sshd.log")).expect("sshd.log");
        let mut child = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(self.path.join("sshd_config"))
            .env_remove("BASH_ENV")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let begin = Instant::now();
        loop {
            if greets(self.address()) {
                self.child = Some(child);
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("{status}: {}", self.log()));
            }
            if begin.elapsed() > START_LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no greeting after {START_LIMIT:?}: {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
        for pid in marked_processes(&format!("{MARKER}={}", self.marker)) {
            signal("KILL", pid);
        }
        if std::thread::panicking() && self.directory.is_some() {
            eprintln!("--- sshd's log ---\n{}", self.log());
        }
    }
}

/// A fresh key pair at `path` and `path`.pub.
pub fn generate_key(path: &Path, key_type: &str, passphrase: &str) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", key_type, "-N", passphrase, "-C", "test", "-f"])
        .arg(path)
        .output()
        .expect("ssh-keygen runs");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}

/// `type base64` of the public key beside the private key at `path`.
pub fn public_key(path: &Path) -> String {
    let mut name = path.as_os_str().to_os_string();
    name.push(".pub");
    let text = fs::read_to_string(&name).expect("public key");
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

pub fn sftp_server() -> &'static str {
    SFTP_SERVERS.iter().find(|path| Path::new(path).exists()).expect("sftp-server is installed")
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether an sshd of this account can give out terminals: without root it cannot hand
/// them to the group tty, so devpts has to have done that. In CI it must.
pub fn terminals_work() -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let work = is_root() || mounts.lines().any(|line| line.starts_with("devpts ") && line.contains("gid=5"));
    if !work {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, or devpts mounted with gid=5");
        eprintln!("NOT TESTED: a terminal needs root, or devpts mounted with gid=5");
    }
    work
}

pub fn current_user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8(output.stdout).expect("a user name").trim().to_string()
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// An executable file. Another process writes it: what this one has open for writing, a
/// child that another test starts at that moment has open too, and then it cannot be run.
pub fn write_script(path: &Path, text: &str) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh runs");
    writer.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("write script");
    assert!(writer.wait().expect("sh ends").success(), "cannot write {}", path.display());
}

pub fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-"
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Sends a signal to one process; that it has gone already is no error.
fn signal(name: &str, pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match name {
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => panic!("no such signal here: {other}"),
    };
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// All living processes below `root`, not with it.
fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> =
        processes().filter_map(|pid| living_parent(pid).map(|parent| (pid, parent))).collect();
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for (pid, of) in &parents {
            if *of == parent {
                found.push(*pid);
                next.push(*pid);
            }
        }
    }
    found
}

fn marked_processes(marker: &str) -> Vec<u32> {
    processes()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes()))
        })
        .collect()
}

pub fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
}

/// The parent of a process that is no zombie.
pub fn living_parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so the fields count from its end.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}
