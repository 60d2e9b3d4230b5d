//! The lock over a real `sftp-server` and over plain file calls: what the disk in memory
//! takes for granted has to be so there. All processes are judged by pid, so that nothing
//! depends on how fast this machine is.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use haul::engine::failure::FailureKind;
use haul::engine::lock::{
    Acquirer, Keeper, LockContext, LockKind, LockState, LockTimes, fence, holder, release,
};
use haul::model::lock_file::{Here, LockContent, LockInfo, parse};
use haul::model::names::{Names, UserId};
use haul::model::remote_path::RemotePath;
use haul::remote::local::{LocalFiles, PipedConnection, PipedConnector};
use haul::remote::{Connection, Files};

use super::{Oracle, PLAIN, WAIT, clear_fenced, context, dead_here, living_here, silent};

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";
/// Nothing here is judged by it; a beat is only waited for.
const BEAT: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(60);

fn names(root: &Path, user: &str) -> Names {
    let target = root.join("img.qcow2");
    let target = RemotePath::new(target.as_os_str().as_encoded_bytes().to_vec()).expect("a path");
    Names::new(&target, &UserId::new(user).expect("a user id"))
}

fn client(root: &Path, here: Here, options: &haul::engine::options::LockOptions) -> Acquirer {
    let times = LockTimes { beat: BEAT, look: BEAT, ..LockTimes::default() };
    let names = names(root, "alice");
    Acquirer::new(LockContext { names, times, ..context("alice", here, options) }).expect("random numbers")
}

fn server(arguments: &[&str]) -> Arc<PipedConnection> {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    PipedConnector::new(SFTP_SERVER, arguments, None).open()
}

/// Another process of this machine, that lives as long as this value.
struct Living(Child);

impl Living {
    fn start() -> Living {
        Living(Command::new("sleep").arg("600").spawn().expect("sleep runs"))
    }

    fn here(&self) -> Here {
        Here { process: holder::process(self.0.id()), ..living_here() }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("reaped");
    }
}

fn entries(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).expect("listed");
    entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect()
}

fn info_at_lock(root: &Path) -> Option<LockInfo> {
    match parse(&std::fs::read(root.join("img.qcow2:lock")).ok()?) {
        LockContent::Whole(info) => Some(*info),
        // Without links it is created first and then written.
        LockContent::Torn => None,
        other => panic!("the lock is {other:?}"),
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Takes over a dead run's lock, keeps it, fences, gives it back.
async fn a_life(files: Arc<dyn Files>, kind: LockKind) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let dead = client(root, dead_here(), &PLAIN).acquire(&*files).await.expect("the lock");
    assert_eq!(dead.kind(), kind);
    let target = names(root, "alice").target().clone();
    std::fs::write(root.join("img.qcow2"), "old").expect("written");

    let held = Arc::new(client(root, living_here(), &PLAIN).acquire(&*files).await.expect("taken over"));
    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    let fenced = fence(&*files, &held, &silent()).await.expect("fenced");
    assert_eq!(fenced.len(), 1);
    assert!(files.rename_over(&dead.private().lock(), &target).await.is_err(), "a fenced run's commit");
    assert!(files.rename(&dead.private().lock(), &target).await.is_err(), "a fenced run's commit");
    assert_eq!(std::fs::read(root.join("img.qcow2")).expect("read"), b"old");
    assert_eq!(dead.check(&*files).await.expect_err("fenced").kind, FailureKind::Locked);
    clear_fenced(&*files, fenced).await;

    let before = info_at_lock(root).expect("a lock").beat;
    until("beats show", || info_at_lock(root).is_some_and(|info| info.beat > before)).await;
    std::fs::remove_file(root.join("img.qcow2:lock")).expect("removed");
    until("it comes back", || info_at_lock(root).is_some_and(|info| info.run == held.run())).await;
    held.check(&*files).await.expect("ours");
    assert_eq!(*keeper.state().borrow(), LockState::Held);

    keeper.stop().await;
    release(&*files, &held).await.expect("released");
    assert_eq!(entries(root), ["img.qcow2"]);
}

#[tokio::test]
async fn over_plain_file_calls() {
    a_life(Arc::new(LocalFiles::new(Path::new("/"))), LockKind::Linked).await;
}

#[tokio::test]
async fn over_sftp_server() {
    a_life(server(&[]).files().await.expect("a session"), LockKind::Linked).await;
}

#[tokio::test]
async fn over_an_sftp_server_without_links() {
    let files = server(&["-P", "hardlink"]).files().await.expect("a session");
    a_life(files, LockKind::Exclusive).await;
}

#[tokio::test]
async fn over_an_sftp_server_without_posix_rename() {
    let files = server(&["-P", "posix-rename"]).files().await.expect("a session");
    a_life(files, LockKind::Linked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sftp_servers_at_once_have_one_holder() {
    for (clients, dead_lock) in [(2, false), (2, true), (8, true), (32, true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        if dead_lock {
            let files = server(&[]).files().await.expect("a session");
            client(root, dead_here(), &PLAIN).acquire(&*files).await.expect("the lock");
        }
        let oracle = Arc::new(Oracle::default());
        let living = Arc::new(Living::start());
        let lives: Vec<_> = (0..clients)
            .map(|n| {
                let (root, oracle, living) = (root.to_owned(), oracle.clone(), living.clone());
                tokio::spawn(async move {
                    let connection = server(&[]);
                    let files = connection.files().await.expect("a session");
                    let options = if n % 4 == 3 { &PLAIN } else { &WAIT };
                    let held = Arc::new(client(&root, living.here(), options).acquire(&*files).await?);
                    let keeper = Keeper::start(files.clone(), held.clone(), silent());
                    let fenced = fence(&*files, &held, &silent()).await?;
                    let inside = oracle.enter();
                    clear_fenced(&*files, fenced).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    held.check(&*files).await?;
                    drop(inside);
                    clear_fenced(&*files, fence(&*files, &held, &silent()).await?).await;
                    keeper.stop().await;
                    release(&*files, &held).await
                })
            })
            .collect();
        let mut done = 0;
        for life in lives {
            match tokio::time::timeout(SOON, life).await.expect("no hang").expect("no panic") {
                Ok(()) => done += 1,
                Err(failure) => assert_eq!(failure.kind, FailureKind::Locked, "{failure}"),
            }
        }
        assert!(done >= 1, "nobody got the lock");
        assert_eq!(entries(root), Vec::<String>::new(), "{clients} clients");
    }
}

#[tokio::test]
async fn a_killed_server_is_a_dead_link_and_the_next_one_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let first = server(&[]);
    let files = first.files().await.expect("a session");
    let mut acquirer = client(root, living_here(), &PLAIN);
    let held = Arc::new(acquirer.acquire(&*files).await.expect("the lock"));
    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    for pid in first.server_processes() {
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
        assert!(killed.success());
    }
    let failure = held.check(&*files).await.expect_err("no answer");
    assert_eq!(failure.kind, FailureKind::Link, "{failure}");

    let second = server(&[]);
    let files = second.files().await.expect("a session");
    keeper.replace_files(files.clone());
    let before = info_at_lock(root).expect("a lock").beat;
    until("beats go on", || info_at_lock(root).is_some_and(|info| info.beat > before)).await;
    held.check(&*files).await.expect("ours");
    assert_eq!(*keeper.state().borrow(), LockState::Held);
    keeper.stop().await;
    release(&*files, &held).await.expect("released");
    assert_eq!(entries(root), Vec::<String>::new());
}
