//! Another user of the target, in a directory that everybody may write to: what he made
//! beforehand or swaps in meanwhile is neither believed nor followed, and nothing of the
//! uploader's outside that directory is written, changed or removed.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::account::Account;
use crate::harness::sshd::Sshd;
use crate::rows::client::{CHUNK, Client, content, wait_idle};
use crate::rows::place::published;

const CHUNKS: u64 = 8;
const SLOW: &str = "--bwlimit=256KiB";

struct Stage {
    sshd: Sshd,
    victim: Account,
    attacker: Account,
    /// Everybody's; removed with what is in it.
    place: TempDir,
    /// The victim's own.
    secret: PathBuf,
    before: BTreeMap<PathBuf, (Vec<u8>, u32)>,
}

impl Stage {
    /// Only root has two accounts.
    fn new(mode: u32) -> Option<Stage> {
        let (victim, attacker) = (Account::create()?, Account::create()?);
        let place = TempDir::new().expect("a directory");
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let shared = place.path().join("shared");
        std::fs::create_dir(&shared).expect("a directory");
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).expect("a mode");
        let secret = victim.home().join("secret");
        // Names that haul would take for its own, had it been led here.
        let script = "umask 077 && mkdir secret && cd secret && echo key >authorized_keys && \
                      for name in manifest disk.txt alice-disk:1 alice-disk:2 lock; do echo mine >$name; done && \
                      mkdir run.0123456789abcdef && echo mine >run.0123456789abcdef/lock";
        assert!(act(&victim, victim.home(), script));
        let mut stage =
            Stage { sshd: Sshd::start(), victim, attacker, place, secret, before: BTreeMap::new() };
        stage.before = stage.secrets();
        Some(stage)
    }

    fn shared(&self) -> PathBuf {
        self.place.path().join("shared")
    }

    fn target(&self) -> PathBuf {
        self.shared().join("disk.img")
    }

    fn client(&self) -> Client {
        Client::of(&self.sshd).log_in_as(self.victim.name())
    }

    /// All that is in the victim's home.
    fn secrets(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.victim.home().to_path_buf()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let metadata = std::fs::symlink_metadata(&path).expect("metadata");
                let bytes =
                    if metadata.is_file() { std::fs::read(&path).expect("a file") } else { Vec::new() };
                if metadata.is_dir() {
                    directories.push(path.clone());
                }
                found.insert(path, (bytes, metadata.mode()));
            }
        }
        found
    }

    #[track_caller]
    fn attack(&self, script: &str) {
        assert!(act(&self.attacker, &self.shared(), &self.filled(script)), "{script}");
    }

    fn filled(&self, script: &str) -> String {
        script.replace("SECRET", &self.secret.display().to_string())
    }

    /// Runs `script` as the attacker until it is dropped.
    fn attack_meanwhile(&self, script: &str) -> Attack {
        let script = self.filled(script);
        let mut command = as_user(&self.attacker, &self.shared(), &script);
        Attack(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("setpriv runs"))
    }

    #[track_caller]
    fn assert_secrets_kept(&self, context: &str) {
        assert_eq!(self.secrets(), self.before, "{context}");
    }

    /// An empty directory again.
    fn clear(&self) {
        for entry in std::fs::read_dir(self.shared()).expect("a directory") {
            let path = entry.expect("an entry").path();
            let removed = match std::fs::symlink_metadata(&path).expect("metadata").is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.expect("removed");
        }
    }
}

struct Attack(Child);

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn as_user(account: &Account, directory: &Path, script: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        account.name(),
        "--regid",
        account.name(),
        "--clear-groups",
        "sh",
        "-c",
        script,
    ]);
    command.current_dir(directory);
    command
}

fn act(account: &Account, directory: &Path, script: &str) -> bool {
    as_user(account, directory, script).status().expect("setpriv runs").success()
}

#[test]
fn what_another_user_made_beforehand_is_not_used() {
    let Some(stage) = Stage::new(0o1777) else { return };
    let client = stage.client();
    let source = client.source("source", CHUNKS * CHUNK, 1);
    // What the attacker does; the code; what is said.
    let table = [
        ("mkdir -m 777 disk.img:alice", 13, "belongs to another account"),
        ("mkdir -m 777 disk.img:alice && touch disk.img:alice/disk.txt", 13, "belongs to another account"),
        ("ln -s SECRET disk.img:alice", 1, "is no directory"),
        ("mkdir -m 777 own && ln -s own disk.img:alice", 1, "is no directory"),
        ("echo junk >disk.img:alice", 1, "is no directory"),
        ("mkfifo -m 666 disk.img:alice", 1, "is no directory"),
        ("echo junk >disk.img:lock", 11, "is not haul's"),
        (": >disk.img:lock && chmod 666 disk.img:lock", 11, ""),
        ("echo junk >disk.img:lock && chmod 0 disk.img:lock", 13, "another account's lock"),
        ("ln -s SECRET/authorized_keys disk.img:lock", 1, "a symbolic link stands where the lock belongs"),
        ("ln -s SECRET/absent disk.img:lock", 1, "a symbolic link stands where the lock belongs"),
        ("mkfifo -m 666 disk.img:lock", 1, "no regular file stands where the lock belongs"),
        ("mkdir -m 777 disk.img:lock", 1, "a directory stands where the lock belongs"),
        ("ln -s SECRET/authorized_keys disk.img", 1, "another account's symbolic link"),
        ("ln -s SECRET/absent disk.img", 1, "another account's symbolic link"),
        ("ln -s SECRET disk.img", 1, "another account's symbolic link"),
        ("mkfifo -m 666 disk.img", 2, "not a regular file"),
    ];
    for (attack, code, said) in table {
        stage.attack(attack);
        let listed = tree(&stage.shared());
        let outcome =
            client.put(&source, stage.target(), &["--if-exists", "replace"]).expect(code).says(said);
        assert_eq!(outcome.stderr.lines().count(), 1, "{attack}: {}", outcome.stderr);
        stage.assert_secrets_kept(attack);
        assert_eq!(tree(&stage.shared()), listed, "{attack}: something was made or removed");
        stage.clear();
    }
}

fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                directories.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// A real lock, made by the attacker under the victim's user id: it may deny, but it gives
/// him nothing, and it is not taken over.
#[test]
fn a_dead_lock_of_another_account_denies_and_no_more() {
    let Some(stage) = Stage::new(0o1777) else { return };
    let theirs = Client::of(&stage.sshd).log_in_as(stage.attacker.name());
    let big = theirs.source("source", 40 * CHUNK, 2);
    let mut run = theirs.start_put(&big, stage.target(), &[SLOW]);
    run.until("a chunk", || !published(&stage.sshd, &stage.target()).is_empty());
    run.kill();
    wait_idle(&stage.sshd);
    let client = stage.client();
    let source = client.source("source", CHUNKS * CHUNK, 1);
    let listed = tree(&stage.shared());
    let refused = |more: &[&str]| {
        let outcome = client.put(&source, stage.target(), more);
        assert!(matches!(outcome.code, Some(11 | 13)), "{more:?}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{more:?}: {}", outcome.stderr);
        assert!(!stage.target().exists());
        stage.assert_secrets_kept("a dead lock");
    };
    refused(&[]);
    refused(&["--user-id", "bob"]);
    refused(&["--break-lock"]);
    refused(&["--user-id", "bob", "--break-lock"]);
    assert_eq!(tree(&stage.shared()), listed, "something was made or removed");
}

#[test]
fn what_is_under_way_is_out_of_another_users_reach() {
    let Some(stage) = Stage::new(0o1777) else { return };
    let client = stage.client();
    let source = client.source("source", 40 * CHUNK, 1);
    let mut run = client.start_put(&source, stage.target(), &[SLOW]);
    run.until("a chunk", || !published(&stage.sshd, &stage.target()).is_empty());
    for script in [
        "ls disk.img:alice",
        "touch disk.img:alice/x",
        "mv disk.img:alice away",
        "mv disk.img:lock away",
        "rm -f disk.img:lock",
        "echo x >>disk.img:lock",
        "rmdir disk.img:alice",
    ] {
        let mut command = as_user(&stage.attacker, &stage.shared(), script);
        let output = command.output().expect("setpriv runs");
        assert!(!output.status.success(), "{script}");
    }
    run.kill();
    wait_idle(&stage.sshd);
    assert!(client.put(&source, stage.target(), &[]).expect(0).number("chunks_skipped") > 0);
    assert!(std::fs::read(stage.target()).expect("the target") == content(40 * CHUNK, 1));
    assert_eq!(tree(&stage.shared()), [stage.target()]);
}

/// Names that change their kind all the time, so that every check meets every use.
#[test]
fn what_is_swapped_between_check_and_use_leads_nowhere() {
    const RUNS: u64 = 8;
    let Some(stage) = Stage::new(0o1777) else { return };
    let client = stage.client();
    let source = client.source("source", CHUNKS * CHUNK, 1);
    for name in ["disk.img:alice", "disk.img:lock", "disk.img"] {
        let attack = "while :; do ln -s SECRET/authorized_keys NAME; rm -f NAME; ln -s SECRET NAME; rm -f NAME; \
                      mkdir -m 777 NAME && rm -rf NAME; echo junk >NAME; rm -f NAME; done";
        let attack = stage.attack_meanwhile(&attack.replace("NAME", name));
        for run in 0..RUNS {
            let outcome = client.put(&source, stage.target(), &["--if-exists", "replace", "--retries", "0"]);
            let code = outcome.code.expect("no signal");
            let there = std::fs::symlink_metadata(stage.target());
            let ours = there.is_ok_and(|there| there.is_file() && there.len() == CHUNKS * CHUNK);
            assert!(code <= 13 && (code != 0 || ours), "{name}, {run}: {outcome:?}");
            stage.assert_secrets_kept(&format!("{name}, {run}: {outcome:?}"));
        }
        drop(attack);
        stage.clear();
    }
}

/// Without the sticky bit everybody may rename everything. What is put in the place of a
/// temp directory that is in use ends the run, and is not used.
#[test]
fn a_temp_directory_that_is_swapped_in_the_middle_ends_the_run() {
    let Some(stage) = Stage::new(0o777) else { return };
    let client = stage.client();
    let source = client.source("source", 40 * CHUNK, 1);
    for replacement in ["ln -s SECRET disk.img:alice", "mkdir -m 777 disk.img:alice", ":"] {
        let mut run = client.start_put(&source, stage.target(), &[SLOW, "--retries", "0"]);
        run.until("a chunk", || !published(&stage.sshd, &stage.target()).is_empty());
        stage.attack(&format!("mv disk.img:alice away && {replacement}"));
        let outcome = run.wait();
        assert!(outcome.code.is_some_and(|code| (1..=13).contains(&code)), "{replacement}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{replacement}: {}", outcome.stderr);
        assert!(!stage.target().exists(), "{replacement}");
        stage.assert_secrets_kept(replacement);
        wait_idle(&stage.sshd);
        stage.clear();
    }
}

/// One's own link is followed there, and everybody's in a directory of one's own.
#[test]
fn links_of_ones_own_are_followed() {
    let Some(stage) = Stage::new(0o1777) else { return };
    let client = stage.client();
    let source = client.source("source", CHUNKS * CHUNK, 1);
    assert!(act(&stage.victim, &stage.shared(), "ln -s real.img disk.img"));
    client.put(&source, stage.target(), &[]).expect(0);
    assert!(
        std::fs::read(stage.shared().join("real.img")).expect("the target") == content(CHUNKS * CHUNK, 1)
    );
    stage.clear();
    symlink("real.img", stage.target()).expect("a link of the directory's owner");
    client.put(&source, stage.target(), &[]).expect(0);
    assert!(
        std::fs::read(stage.shared().join("real.img")).expect("the target") == content(CHUNKS * CHUNK, 1)
    );
}
