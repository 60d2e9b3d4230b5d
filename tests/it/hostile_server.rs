//! Servers that mean ill, behind a real sshd or in its place, against the real program: no
//! hang, no panic, less than 200 MiB, no raw control byte at the terminal, and no name that a
//! server made up is ever asked for.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::harness::sshd::Sshd;
use crate::rows::client::{CHUNK, Client, Outcome, Running};

const MOST_KIB: u64 = 200 << 10;
/// Short, so that a server that falls silent is no long wait.
const SOON: [&str; 3] = ["-oServerAliveInterval=1", "-oServerAliveCountMax=2", "-oConnectTimeout=3"];

/// A real sshd whose SFTP server is `sftp.py HOW`.
struct Hostile {
    sshd: Sshd,
    log: PathBuf,
}

impl Hostile {
    fn start(how: &str) -> Hostile {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/hostile_server/sftp.py");
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.keep().join("paths");
        let (program, arguments) = how.split_once(' ').unwrap_or((how, ""));
        let line =
            format!("Subsystem sftp python3 {} {program} {} {arguments}", script.display(), log.display());
        Hostile { sshd: Sshd::builder().no_sftp().config(&line).start(), log }
    }

    fn run(&self, command: &str, client: &Client, more: &[&str]) -> (u64, Outcome) {
        let mut haul = client.haul(command);
        haul.args(SOON).args(["--user-id", "alice"]).args(more);
        if command == "put" {
            haul.args(["--stall-timeout=2s", "--retries=1", "source"]);
        }
        client.start(haul.arg_destination(client)).wait_and_weigh()
    }

    /// Paths that were asked for.
    fn asked(&self) -> Vec<Vec<u8>> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let path = |line: &str| data_encoding::HEXLOWER.decode(line.split(' ').nth(1)?.as_bytes()).ok();
        text.lines().filter_map(path).collect()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        if let Some(directory) = self.log.parent() {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

trait ArgDestination {
    fn arg_destination(self, client: &Client) -> Self;
}

impl ArgDestination for std::process::Command {
    fn arg_destination(mut self, client: &Client) -> Self {
        self.arg(client.destination("/home/disk.img"));
        self
    }
}

/// It ended by itself, with a failure of its own that says why in one safe line.
#[track_caller]
fn assert_refused(context: &str, (peak, outcome): (u64, Outcome)) {
    let code = outcome.code.unwrap_or_else(|| panic!("{context}: it died: {outcome:?}"));
    assert!((1..=13).contains(&code), "{context}: {outcome:?}");
    assert!(peak < MOST_KIB, "{context}: {peak} KiB");
    for text in [&outcome.stdout, &outcome.stderr] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{context}: {text:?}");
        assert!(!text.contains('\u{202e}'), "{context}: {text:?}");
    }
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("haul: ") && !outcome.stderr.contains("panicked"), "{context}: {outcome:?}");
    assert!(outcome.stderr.len() < 8 << 10, "{context}: {} bytes are told", outcome.stderr.len());
}

#[test]
fn uploads_to_hostile_servers_end() {
    for how in [
        "huge",
        "large",
        "greeting",
        "extensions",
        "messages",
        "paths",
        "links",
        "listing",
        "names",
        "files",
        "long",
    ] {
        let hostile = Hostile::start(how);
        let client = Client::of(&hostile.sshd);
        client.source("source", CHUNK, 1);
        assert_refused(how, hostile.run("put", &client, &["--no-lock"][..usize::from(how == "names")]));
        for path in hostile.asked() {
            let shown = path.escape_ascii().to_string();
            assert!(!shown.contains("victim") && !path.contains(&0), "{how}: {shown}");
            assert!(!path.windows(3).any(|part| part == b"/..") || how == "links", "{how}: {shown}");
        }
    }
}

#[test]
fn garbage_of_many_seeds_is_refused() {
    for seed in 0..10 {
        let hostile = Hostile::start(&format!("garbage {seed}"));
        let client = Client::of(&hostile.sshd);
        client.source("source", CHUNK, 1);
        assert_refused(&format!("seed {seed}"), hostile.run("put", &client, &[]));
    }
}

/// What only looks and what removes must not be led astray either.
#[test]
fn status_and_clean_end_and_touch_nothing_else() {
    for how in ["listing", "names", "files", "messages"] {
        let hostile = Hostile::start(how);
        let client = Client::of(&hostile.sshd);
        for command in ["status", "clean"] {
            let (peak, outcome) = hostile.run(command, &client, &[]);
            let context = format!("{how}, {command}");
            assert!(outcome.code.is_some_and(|code| code <= 13), "{context}: {outcome:?}");
            assert!(peak < MOST_KIB, "{context}: {peak} KiB");
            for text in [&outcome.stdout, &outcome.stderr] {
                assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{context}: {text:?}");
                assert!(!text.contains("panicked"), "{context}: {text}");
            }
        }
        for path in hostile.asked() {
            let shown = path.escape_ascii().to_string();
            assert!(
                !shown.contains("victim") && !path.windows(3).any(|part| part == b"/.."),
                "{how}: {shown}"
            );
        }
    }
}

/// In place of a greeting `text` comes for ever.
#[test]
fn greetings_without_an_end_are_given_up() {
    for text in [&b"welcome \x1b[31m\x07\r\n"[..], b"\x1b]0;owned\x07", b"SSH-2.0-\x1b[2J", b"\0"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            while let Ok((mut peer, _)) = listener.accept() {
                let block = text.repeat(4096);
                let _ = peer.set_nonblocking(false);
                while peer.write_all(&block).is_ok() {}
                let _ = peer.read(&mut [0]);
            }
        });
        let home = tempfile::tempdir().expect("a home");
        let mut haul = crate::harness::haul(home.path());
        haul.args(["status", "-P", &port.to_string()]).args(SOON).arg("me@127.0.0.1:x");
        assert_refused(&text.escape_ascii().to_string(), Running::start(haul, home.path()).wait_and_weigh());
    }
}

#[test]
fn a_banner_is_bounded_and_shown_safely() {
    let banner = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(banner.path(), b"\x1b]0;owned\x07\x1b[2J hello \r\n".repeat(10_000)).expect("a banner");
    let sshd = Sshd::builder().config(&format!("Banner {}", banner.path().display())).start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let put = client.put_command(&source, sshd.scratch().join("disk.img"), &[]);
    let (peak, outcome) = client.start(put).wait_and_weigh();
    let outcome = outcome.expect(0);
    assert!(peak < MOST_KIB, "{peak} KiB");
    assert!(outcome.stderr.len() < 64 << 10, "{} bytes", outcome.stderr.len());
    assert!(!outcome.stderr.chars().any(|c| c.is_control() && c != '\n'), "{:?}", outcome.stderr);
}
