//! haul with a home whose ssh configuration leads to real servers.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::harness::{Sshd, haul};

/// Two gates and a host behind them, all on this machine, each with a key of its own.
struct Site {
    home: TempDir,
    outer: Sshd,
    inner: Sshd,
    web: Sshd,
}

impl Site {
    fn new() -> Site {
        let (outer, inner, web) = (Sshd::start(), Sshd::start(), Sshd::start());
        let home = tempfile::tempdir().expect("a directory");
        let site = Site { home, outer, inner, web };
        site.write("config", "Include conf.d/*.conf\nHost *\n  IdentitiesOnly yes\n  HashKnownHosts yes\n");
        site.write(
            "conf.d/10-gates.conf",
            &format!(
                "Host gate-*\n  HostName 127.0.0.1\n  User {}\n  IdentityFile ~/.ssh/keys/%n\n\
                 Host gate-outer\n  Port {}\nHost gate-inner\n  Port {}\n",
                site.web.user(),
                site.outer.port(),
                site.inner.port()
            ),
        );
        site.write(
            "conf.d/20-web.conf",
            &format!(
                "# The farm.\nHost web* !web9\n\tHostName=127.0.0.1\n\tPort={}\n\tUser={}\n\
                 \tIdentityFile=\"%d/.ssh/keys/web\"\n\tProxyJump=gate-outer,gate-inner\n",
                site.web.port(),
                site.web.user(),
            ),
        );
        for (name, sshd) in [("gate-outer", &site.outer), ("gate-inner", &site.inner), ("web", &site.web)] {
            let key = site.write(&format!("keys/{name}"), "");
            fs::copy(sshd.key_path(), &key).expect("a key");
            fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("permissions");
        }
        site.trust(&[&site.outer, &site.inner, &site.web]);
        site
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.home.path().join(".ssh").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("permissions");
        path
    }

    /// Writes known_hosts as ssh-keygen hashes it.
    fn trust(&self, servers: &[&Sshd]) {
        let lines: String =
            servers.iter().map(|sshd| format!("[127.0.0.1]:{} {}\n", sshd.port(), sshd.host_key())).collect();
        let path = self.write("known_hosts", &lines);
        let hashed = Command::new("ssh-keygen").arg("-H").arg("-f").arg(&path).output().expect("ssh-keygen");
        assert!(hashed.status.success(), "{}", String::from_utf8_lossy(&hashed.stderr));
        let text = fs::read_to_string(&path).expect("known_hosts");
        assert!(text.starts_with("|1|") && !text.contains("127.0.0.1"), "{text}");
    }

    fn haul(&self, arguments: &[&str]) -> Output {
        haul(self.home.path()).args(arguments).stdin(Stdio::null()).output().expect("haul starts")
    }

    fn target(&self) -> &Path {
        self.web.directory()
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_unmodified_configuration_leads_through_two_gates() {
    let site = Site::new();
    let (code, out, err) = said(&site.haul(&["hosts", "--ping", "web1"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("ok (SSH-2.0-OpenSSH") || out.contains("ok (OpenSSH"), "{out}");
    for server in [&site.outer, &site.inner, &site.web] {
        assert!(server.log().contains("Accepted publickey"), "{}", server.log());
    }

    fs::write(site.home.path().join("img"), vec![7; 3_000_000]).expect("a source");
    let destination = format!("web2:{}/img", site.target().display());
    let (code, out, err) = said(&site.haul(&["put", "img", &destination]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("web2:") && out.contains("uploaded"), "{out}");
    assert_eq!(fs::read(site.target().join("img")).expect("the target"), vec![7; 3_000_000]);

    let (code, out, err) = said(&site.haul(&["exec", "web1", "--", "echo", "through two gates"]));
    assert_eq!((code, out.as_str()), (Some(0), "through two gates\n"), "{err}");
}

#[test]
fn every_hop_is_judged_by_its_own_host_key() {
    let site = Site::new();
    site.trust(&[&site.outer, &site.web]);
    let (code, out, err) = said(&site.haul(&["hosts", "--ping", "web1"]));
    assert_eq!(code, Some(10), "{out}{err}");
    assert!(out.contains("gate-inner") && out.contains("host key"), "{out}{err}");
    assert!(!site.web.log().contains("Accepted"), "nobody came so far");
}

#[test]
fn the_command_line_wins_over_the_files() {
    let site = Site::new();
    let key = site.home.path().join(".ssh/keys/web");
    let port = site.web.port().to_string();
    let direct = |host: &str, arguments: &[&str]| {
        let fixed = ["exec", "-i", key.to_str().expect("UTF-8"), "-P", &port];
        said(&site.haul(&[&fixed, arguments, &[host, "--", "true"]].concat()))
    };
    let user = format!("User={}", site.web.user());
    let (code, _, err) = direct("web1", &["-J", "none"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(!site.outer.log().contains("Accepted"), "{}", site.outer.log());
    let (code, _, err) = direct("127.0.0.1", &["-F", "none", "-o", &user]);
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = direct("web1", &["-J", "none", "-o", "HostName=no-such-host.invalid"]);
    assert_eq!(code, Some(255), "{err}");
    assert!(err.contains("no-such-host.invalid"), "{err}");
}

#[test]
fn hosts_toml_wins_over_ssh_s_files_and_knows_jump_hosts() {
    let site = Site::new();
    let gate = format!(
        "[hosts.door]\naddress = '127.0.0.1'\nport = {}\nuser = '{}'\nidentity_file = '.ssh/keys/gate-outer'\n\
         [hosts.web9]\naddress = '127.0.0.1'\nport = {}\nuser = '{}'\nidentity_file = '.ssh/keys/web'\njump = 'door'\n",
        site.outer.port(),
        site.web.user(),
        site.web.port(),
        site.web.user()
    );
    fs::write(site.home.path().join("hosts.toml"), gate).expect("hosts.toml");
    let (code, out, err) = said(&site.haul(&["hosts", "--ping", "web9"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(site.outer.log().contains("Accepted"), "{}", site.outer.log());
    assert!(!site.inner.log().contains("Accepted"), "{}", site.inner.log());
}

#[test]
fn names_need_not_be_ascii() {
    let site = Site::new();
    site.write(
        "conf.d/00-names.conf",
        &format!(
            "Host bücher\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile ~/.ssh/keys/web\n",
            site.web.port(),
            site.web.user()
        ),
    );
    let (code, out, err) = said(&site.haul(&["exec", "bücher", "--", "echo", "für Bücher"]));
    assert_eq!((code, out.as_str()), (Some(0), "für Bücher\n"), "{err}");
    let (code, out, err) = said(&site.haul(&["hosts", "--ping", "bücher"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("bücher"), "{out}");
}

#[test]
fn addresses_stand_in_brackets_and_urls_name_the_port() {
    let site = Site::new();
    let key = site.home.path().join(".ssh/keys/web").display().to_string();
    fs::write(site.home.path().join("img"), "content").expect("a source");
    let (port, user, directory) = (site.web.port(), site.web.user(), site.target().display().to_string());
    for (name, destination) in [
        ("one", format!("{user}@[127.0.0.1]:{directory}/one")),
        ("two", format!("sftp://{user}@127.0.0.1:{port}{directory}/two")),
        ("three", format!("ssh://{user}@[127.0.0.1]:{port}{directory}/three")),
    ] {
        let port = port.to_string();
        let (code, _, err) = said(&site.haul(&["put", "-P", &port, "-i", &key, "img", &destination]));
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(fs::read_to_string(site.target().join(name)).expect(name), "content");
    }
}

#[test]
fn a_proxy_command_of_the_configuration_is_run() {
    let site = Site::new();
    site.write(
        "conf.d/00-command.conf",
        &format!(
            "Host web1\n  ProxyCommand ssh -F none -q -o BatchMode=yes -o UserKnownHostsFile={} -i {} -p {} -W %h:%p {}@127.0.0.1\n",
            site.outer.known_hosts_path().display(),
            site.outer.key_path().display(),
            site.outer.port(),
            site.web.user()
        ),
    );
    let (code, out, err) = said(&site.haul(&["exec", "web1", "--", "echo", "by command"]));
    assert_eq!((code, out.as_str()), (Some(0), "by command\n"), "{err}");
    assert!(!site.inner.log().contains("Accepted"), "{}", site.inner.log());
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let site = Site::new();
    for name in ["config", "conf.d/20-web.conf"] {
        let path = site.home.path().join(".ssh").join(name);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("permissions");
        let (code, _, err) = said(&site.haul(&["exec", "web1", "--", "true"]));
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(name) && err.contains("bad permissions"), "{err}");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("permissions");
    }
}

#[test]
fn what_haul_leaves_out_is_said_once_and_only_with_v() {
    let site = Site::new();
    let config = site.write(
        "config",
        "Host *\n  ForwardAgent yes\n  ControlPath ~/.ssh/%C\n  GSSAPIAuthentication no\nInclude conf.d/*.conf\n",
    );
    let place = format!("{}:2: ForwardAgent yes: haul does not have this", config.display());
    let (code, _, err) = said(&site.haul(&["exec", "-v", "web1", "--", "true"]));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(err.matches(&place).count(), 1, "{err}");
    assert!(!err.contains("ControlPath") && !err.contains("GSSAPI"), "{err}");
    let (_, _, err) = said(&site.haul(&["exec", "web1", "--", "true"]));
    assert!(!err.contains("ForwardAgent"), "{err}");
}

#[test]
fn what_ssh_config_forbids_is_refused() {
    let site = Site::new();
    let direct = |lines: &str| {
        let text = format!("Host web1\n ProxyJump none\n{lines}Include conf.d/*.conf\n");
        site.write("config", &text);
        said(&site.haul(&["exec", "web1", "--", "true"]))
    };
    let list = site.write("revoked", &format!("# gone\n{}\n", site.web.host_key()));
    let (code, _, err) = direct(&format!(" RevokedHostKeys {}\n", list.display()));
    assert_eq!(code, Some(255), "{err}");
    assert!(err.contains("is revoked by") && err.contains("revoked:2"), "{err}");

    site.write("revoked", "no key at all\n");
    let (code, _, err) = direct(" RevokedHostKeys ~/.ssh/revoked\n");
    assert_eq!(code, Some(255), "{err}");
    assert!(err.contains("cannot read the revoked keys") && err.contains("line 1"), "{err}");

    site.write("revoked", &format!("{}\n", site.inner.host_key()));
    let (code, _, err) = direct(" RevokedHostKeys ~/.ssh/revoked\n");
    assert_eq!(code, Some(0), "{err}");
    assert!(!site.outer.log().contains("Accepted"), "{}", site.outer.log());
}

#[test]
fn a_short_rsa_host_key_is_refused_where_a_longer_one_is_asked_for() {
    let site = Site { web: Sshd::builder().host_key_type("rsa").start(), ..Site::new() };
    let key = site.web.key_path().display().to_string();
    let (port, user) = (site.web.port().to_string(), format!("User={}", site.web.user()));
    let known = format!("UserKnownHostsFile={}", site.web.known_hosts_path().display());
    let run = |bits: &str| {
        let size = format!("RequiredRSASize={bits}");
        let fixed = ["exec", "-F", "none", "-i", &key, "-P", &port, "-o", &user, "-o", &known, "-o", &size];
        said(&site.haul(&[&fixed[..], &["127.0.0.1", "--", "true"]].concat()))
    };
    let (code, _, err) = run("16384");
    assert_eq!(code, Some(255), "{err}");
    assert!(err.contains("bits, and RequiredRSASize asks for 16384"), "{err}");
    let (code, _, err) = run("1024");
    assert_eq!(code, Some(0), "{err}");
}
