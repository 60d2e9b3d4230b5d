//! The lock's protocol: over a disk in memory for interleavings and faults at every call,
//! with tokio's clock paused, so that the real intervals pass in no time.

mod memory;
mod protocol;
mod real;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use haul::engine::failure::{Failure, FailureKind};
use haul::engine::lock::{
    Acquirer, Held, Keeper, LockContext, LockKind, LockState, LockTimes, fence, holder, look, release,
};
use haul::engine::monitor::{Level, Monitor, Notice, Silent};
use haul::engine::options::{LockOptions, Wait};
use haul::engine::stop::{Stop, StopSwitch, stop_pair};
use haul::model::lock_file::{self, Here, LockContent, LockInfo, ProcessId, SourceNote};
use haul::model::names::{Names, UserId};
use haul::model::remote_path::RemotePath;
use haul::model::run_id::RunId;
use haul::remote::Files;
use haul::remote::files::OpenMode;
use memory::{Disk, Fault, Memory, Quirks};

const PLAIN: LockOptions =
    LockOptions { wait: Wait::No, break_lock: false, no_lock: false, holder: String::new() };
const WAIT: LockOptions =
    LockOptions { wait: Wait::Forever, break_lock: false, no_lock: false, holder: String::new() };
const BREAK: LockOptions =
    LockOptions { wait: Wait::No, break_lock: true, no_lock: false, holder: String::new() };

fn names(user: &str) -> Names {
    let target = RemotePath::new(b"/srv/img.qcow2".to_vec()).expect("a path");
    Names::new(&target, &UserId::new(user).expect("a user id"))
}

/// A process that only its heartbeat tells of.
fn elsewhere() -> Here {
    Here { holder: "al@elsewhere".to_owned(), ..Here::default() }
}

/// A process of this machine that does not live any more.
fn dead_here() -> Here {
    let process = ProcessId { pid: std::process::id(), start: 1 };
    Here { process: Some(process), ..holder::here("al@here".to_owned()) }
}

/// This very process.
fn living_here() -> Here {
    holder::here("al@here".to_owned())
}

fn context(user: &str, here: Here, options: &LockOptions) -> LockContext {
    // A stop whose switch is gone never stops.
    let (_, stop) = stop_pair();
    LockContext {
        made: tokio::sync::watch::Sender::new(None),
        nothing_there: false,
        merged: None,
        host: "web1".to_owned(),
        names: names(user),
        options: options.clone(),
        source: SourceNote { name: b"img.qcow2".to_vec(), identity: "1:2:3:4:5".to_owned() },
        here,
        monitor: Arc::new(Silent),
        stop,
        times: LockTimes::default(),
    }
}

fn acquirer(user: &str, here: Here, options: &LockOptions) -> Acquirer {
    Acquirer::new(context(user, here, options)).expect("random numbers")
}

async fn win(files: &dyn Files, user: &str, here: Here, options: &LockOptions) -> Held {
    acquirer(user, here, options).acquire(files).await.expect("the lock")
}

fn info_at_lock(disk: &Disk) -> Option<LockInfo> {
    match lock_file::parse(&disk.read_file(names("alice").lock())?) {
        LockContent::Whole(info) => Some(*info),
        other => panic!("the lock is {other:?}"),
    }
}

fn silent() -> Arc<dyn Monitor> {
    Arc::new(Silent)
}

/// Remembers what it was told.
#[derive(Default)]
struct Recording(Mutex<Vec<Notice>>);

impl Recording {
    fn has(&self, level: Level, part: &str) -> bool {
        self.0.lock().expect("no panic").iter().any(|n| n.level == level && n.text.contains(part))
    }
}

impl Monitor for Recording {
    fn phase(&self, _: haul::engine::failure::Phase, _: u64, _: u64) {}
    fn advance(&self, _: haul::engine::failure::Phase, _: u64) {}
    fn notice(&self, notice: Notice) {
        self.0.lock().expect("no panic").push(notice);
    }
    fn retry(&self, _: &Failure, _: u32, _: u32, _: Duration) {}
}

/// Counts who is inside independently of what the lock says.
#[derive(Default)]
struct Oracle {
    inside: AtomicI64,
    entered: AtomicI64,
}

struct Inside<'a>(&'a Oracle);

impl Oracle {
    fn enter(&self) -> Inside<'_> {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two holders at once");
        self.entered.fetch_add(1, Ordering::SeqCst);
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Removes what a fence moved, as the engine does once it has salvaged it.
async fn clear_fenced(files: &dyn Files, fenced: Vec<haul::engine::lock::FencedDir>) {
    for directory in fenced {
        let path = directory.names.directory().clone();
        for entry in files.list(&path, 1000).await.expect("listed") {
            files.remove(&path.join(&entry.name)).await.expect("removed");
        }
        files.remove_directory(&path).await.expect("removed");
    }
}

/// A whole upload as far as the lock goes.
async fn one_life(
    files: Arc<dyn Files>,
    mut client: Acquirer,
    oracle: &Oracle,
    work: Duration,
) -> Result<(), Failure> {
    let held = Arc::new(client.acquire(&*files).await?);
    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    let fenced = fence(&*files, &held, &silent()).await?;
    let inside = oracle.enter();
    clear_fenced(&*files, fenced).await;
    tokio::time::sleep(work).await;
    held.check(&*files).await?;
    drop(inside);
    // What a run that was just too late had moved is cleared at the end, as the engine does.
    clear_fenced(&*files, fence(&*files, &held, &silent()).await?).await;
    keeper.stop().await;
    release(&*files, &held).await
}

#[tokio::test(start_paused = true)]
async fn taken_kept_and_given_back() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 1).shared();
    let held = Arc::new(win(&*files, "alice", living_here(), &PLAIN).await);
    assert_eq!(held.kind(), LockKind::Linked);
    let info = info_at_lock(&disk).expect("a lock");
    assert_eq!((info.user.as_str(), info.run), ("alice", held.run()));
    assert_eq!(info.process, living_here().process);
    assert_eq!(fence(&*files, &held, &silent()).await.expect("fenced"), Vec::new());

    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    let first = info.beat;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let beat = info_at_lock(&disk).expect("a lock").beat;
    assert!(beat >= first + 3, "{beat} after {first}: beats do not show through the lock's name");
    assert_eq!(*keeper.state().borrow(), LockState::Held);
    keeper.ensure_fresh().await.expect("fresh");
    held.check(&*files).await.expect("ours");

    keeper.stop().await;
    release(&*files, &held).await.expect("released");
    assert_eq!(disk.paths(), Vec::<String>::new(), "something was left");
}

#[tokio::test(start_paused = true)]
async fn a_living_run_refuses_another_that_makes_nothing() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 2).shared();
    let held = Arc::new(win(&*files, "alice", elsewhere(), &PLAIN).await);
    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    let before = disk.paths();
    for user in ["alice", "bob"] {
        let failure = acquirer(user, living_here(), &PLAIN).acquire(&*files).await.expect_err("held");
        assert_eq!(failure.kind, FailureKind::Locked);
        let text = failure.to_string();
        for part in ["web1:/srv/img.qcow2", "alice", "al@elsewhere", "since 20", "--wait", "--break-lock"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert_eq!(disk.paths(), before);
    }
    keeper.stop().await;
    release(&*files, &held).await.expect("released");
}

#[tokio::test(start_paused = true)]
async fn a_process_of_this_machine_is_judged_by_its_pid() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 3).shared();
    let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep runs");
    let its = Here { process: holder::process(child.id()), ..living_here() };
    let _held = win(&*files, "alice", its, &PLAIN).await;

    // Nobody beats, and yet it lives: the pid is what counts here.
    let began = tokio::time::Instant::now();
    let failure = acquirer("alice", living_here(), &PLAIN).acquire(&*files).await.expect_err("it lives");
    assert_eq!(failure.kind, FailureKind::Locked);
    assert!(failure.to_string().contains(&format!("pid {}", child.id())), "{failure}");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let held = win(&*files, "alice", living_here(), &PLAIN).await;
    assert!(began.elapsed() < Duration::from_secs(2), "not at once: {:?}", began.elapsed());
    clear_fenced(&*files, fence(&*files, &held, &silent()).await.expect("fenced")).await;
    release(&*files, &held).await.expect("released");
    assert_eq!(disk.paths(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_silent_run_elsewhere_is_taken_over_after_ten_seconds_and_not_before() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 4).shared();
    let old = win(&*files, "alice", elsewhere(), &PLAIN).await;
    let began = tokio::time::Instant::now();
    let held = win(&*files, "alice", living_here(), &PLAIN).await;
    let took = began.elapsed();
    assert!((10..13).contains(&took.as_secs()), "{took:?}");
    let fenced = fence(&*files, &held, &silent()).await.expect("fenced");
    assert_eq!(fenced.len(), 1);
    assert!(old.check(&*files).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn progress_without_a_beat_is_life() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 5).shared();
    let old = win(&*files, "alice", elsewhere(), &PLAIN).await;
    let uploading = {
        let (files, merged) = (files.clone(), old.private().merged(old.run()));
        tokio::spawn(async move {
            let handle = files.open(&merged, OpenMode::CREATE, None).await.expect("opened");
            for n in 0.. {
                tokio::time::sleep(Duration::from_secs(2)).await;
                files.submit_write(&handle, n, vec![1].into()).await.expect("sent").await.expect("written");
            }
        })
    };
    let failure = acquirer("alice", living_here(), &PLAIN).acquire(&*files).await.expect_err("it works");
    assert_eq!(failure.kind, FailureKind::Locked);
    uploading.abort();
    win(&*files, "alice", living_here(), &PLAIN).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_lock_or_in_time_or_when_stopped() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 6).shared();
    let held = Arc::new(win(&*files, "bob", elsewhere(), &PLAIN).await);
    let keeper = Keeper::start(files.clone(), held.clone(), silent());

    let limited = LockOptions { wait: Wait::AtMost(Duration::from_secs(30)), ..PLAIN };
    let began = tokio::time::Instant::now();
    let failure = acquirer("alice", living_here(), &limited).acquire(&*files).await.expect_err("held");
    assert_eq!(failure.kind, FailureKind::Locked);
    assert!((29..33).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

    let (switch, stop): (StopSwitch, Stop) = stop_pair();
    let mut stopped =
        Acquirer::new(LockContext { stop, ..context("alice", living_here(), &WAIT) }).expect("random");
    let (outcome, ()) = tokio::join!(stopped.acquire(&*files), async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        switch.stop();
    });
    assert_eq!(outcome.expect_err("stopped").kind, FailureKind::Interrupted);

    let monitor = Arc::new(Recording::default());
    let waiting = LockContext { monitor: monitor.clone(), ..context("alice", living_here(), &WAIT) };
    let mut waiting = Acquirer::new(waiting).expect("random");
    let (won, ()) = tokio::join!(waiting.acquire(&*files), async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        keeper.stop().await;
        release(&*files, &held).await.expect("released");
    });
    assert!(monitor.has(Level::Info, "waiting for the lock held by bob"));
    release(&*files, &won.expect("won")).await.expect("released");
    assert_eq!(disk.paths(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn another_users_lock_is_never_taken_silently() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 7).shared();
    // Dead for sure, and yet not alice's to take.
    let old = win(&*files, "bob", dead_here(), &PLAIN).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let failure = acquirer("alice", living_here(), &PLAIN).acquire(&*files).await.expect_err("bob's");
    assert_eq!(failure.kind, FailureKind::Locked);

    let monitor = Arc::new(Recording::default());
    let breaking = LockContext { monitor: monitor.clone(), ..context("alice", living_here(), &BREAK) };
    let held = Acquirer::new(breaking).expect("random").acquire(&*files).await.expect("broken");
    assert!(monitor.has(Level::Warning, "breaking the lock of bob (al@here, pid"));
    assert_eq!(held.deposed().map(UserId::as_str), Some("bob"));
    assert_eq!(fence(&*files, &held, &silent()).await.expect("fenced"), Vec::new());
    // What bob's run has stays bob's, out of the reach of the run.
    assert!(files.lstat(old.private().directory()).await.is_err());
    let theirs = disk.paths().into_iter().filter(|p| p.starts_with("/srv/img.qcow2:bob/fenced.")).count();
    assert_eq!(theirs, 2, "{:?}", disk.paths());
    assert_eq!(old.check(&*files).await.expect_err("deposed").kind, FailureKind::Locked);
}

#[tokio::test(start_paused = true)]
async fn a_living_lock_is_broken_on_demand_and_its_run_stops() {
    for seed in 0..40 {
        let disk = Disk::new(Quirks::default());
        let files = Memory::new(&disk, seed).shared();
        let old = Arc::new(win(&*files, "alice", elsewhere(), &PLAIN).await);
        let keeper = Keeper::start(files.clone(), old.clone(), silent());
        tokio::time::sleep(Duration::from_millis(seed * 50)).await;
        let held = win(&*files, "alice", living_here(), &BREAK).await;
        let mut state = keeper.state();
        let lost =
            tokio::time::timeout(Duration::from_secs(5), state.wait_for(|s| *s != LockState::Held)).await;
        let LockState::Lost { by } = lost.expect("noticed").expect("the keeper lives").clone() else {
            panic!("still held");
        };
        assert!(by.contains("alice (al@here"), "{by}");
        assert_eq!(keeper.ensure_fresh().await.expect_err("lost").kind, FailureKind::Locked);
        keeper.stop().await;
        release(&*files, &old).await.expect("released");
        assert_eq!(info_at_lock(&disk).expect("the winner's").run, held.run());
        held.check(&*files).await.expect("the winner's");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_fenced_run_can_be_reached() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 9).shared();
    let old = win(&*files, "alice", elsewhere(), &PLAIN).await;
    let merged = old.private().merged(old.run());
    let handle = files.open(&merged, OpenMode::CREATE, None).await.expect("opened");
    let held = win(&*files, "alice", living_here(), &PLAIN).await;
    let fenced = fence(&*files, &held, &silent()).await.expect("fenced");
    // A call after a dead link finds the same.
    assert_eq!(fence(&*files, &held, &silent()).await.expect("fenced"), fenced);

    // The woken run: whatever it asks for by name is gone, what it makes has no place.
    let target = names("alice").target().clone();
    let private = old.private();
    assert!(files.rename_over(&merged, &target).await.expect_err("commit").is_not_found());
    assert!(files.hard_link(&private.lock(), names("alice").lock()).await.expect_err("link").is_not_found());
    assert!(files.rename_over(names("alice").lock(), &private.taken_lock(99)).await.is_err());
    let winner = names("alice").run(held.run()).directory().clone();
    assert!(files.rename_over(&winner, &private.being_fenced(99)).await.is_err(), "it fences the winner");
    assert!(files.open(&private.part(1, 1), OpenMode::CREATE, None).await.is_err());
    assert!(files.rename_over(&private.new_record(), &names("alice").record()).await.is_err());
    assert_eq!(old.check(&*files).await.expect_err("fenced").kind, FailureKind::Locked);
    release(&*files, &old).await.expect("nothing to do");
    files.close(handle).await.expect("closed");
    assert_eq!(info_at_lock(&disk).expect("the winner's").run, held.run());
    assert!(files.lstat(&fenced[0].names.merged(old.run())).await.is_ok(), "salvage is lost");
    held.check(&*files).await.expect("ours");
}

#[tokio::test(start_paused = true)]
async fn fencing_takes_what_an_earlier_run_had_fenced() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 10).shared();
    win(&*files, "alice", dead_here(), &PLAIN).await;
    let second = win(&*files, "alice", dead_here(), &BREAK).await;
    let fenced = fence(&*files, &second, &silent()).await.expect("fenced");
    let third = win(&*files, "alice", living_here(), &PLAIN).await;
    let again = fence(&*files, &third, &silent()).await.expect("fenced");
    assert_eq!(again.len(), 2);
    assert!(files.lstat(fenced[0].names.directory()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn many_at_once_have_one_holder_at_any_time() {
    for (clients, seeds) in [(2, 60), (5, 30), (16, 8), (64, 2)] {
        for seed in 0..seeds {
            for quirks in [Quirks::default(), Quirks { no_hard_link: true, ..Quirks::default() }] {
                let disk = Disk::new(quirks);
                let oracle = Oracle::default();
                let lives = (0..clients).map(|n| {
                    let files = Memory::new(&disk, seed * 1000 + n).shared();
                    let options = if n % 2 == 0 { &WAIT } else { &PLAIN };
                    let user = if n % 3 == 2 { "bob" } else { "alice" };
                    let work = Duration::from_millis(n * 37 % 3000);
                    one_life(files, acquirer(user, elsewhere(), options), &oracle, work)
                });
                let outcomes = join_all(lives).await;
                for outcome in outcomes {
                    match outcome {
                        Ok(()) => {}
                        Err(failure) => assert_eq!(failure.kind, FailureKind::Locked, "{failure}"),
                    }
                }
                assert!(oracle.entered.load(Ordering::SeqCst) >= (clients as i64).div_euclid(2));
                assert_eq!(disk.paths(), Vec::<String>::new(), "{clients} clients, seed {seed}, {quirks:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_take_over_one_dead_lock_and_one_gets_it() {
    for seed in 0..60 {
        for dead in [dead_here(), elsewhere()] {
            let disk = Disk::new(Quirks { no_posix_rename: seed % 3 == 0, ..Quirks::default() });
            win(&Memory::new(&disk, seed), "alice", dead, &PLAIN).await;
            let oracle = Oracle::default();
            let lives = (0..2 + seed % 7).map(|n| {
                let files = Memory::new(&disk, seed * 100 + n).shared();
                one_life(files, acquirer("alice", elsewhere_or(n), &PLAIN), &oracle, Duration::from_secs(60))
            });
            let outcomes = join_all(lives).await;
            let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            assert_eq!(won, 1, "seed {seed}: {outcomes:?}");
            for failure in outcomes.into_iter().filter_map(Result::err) {
                assert_eq!(failure.kind, FailureKind::Locked, "{failure}");
                let text = failure.to_string();
                assert!(text.contains(" alice (") || text.contains("a newer run"), "{text}");
            }
            assert_eq!(disk.paths(), Vec::<String>::new(), "seed {seed}");
        }
    }
}

/// Processes of this machine that cannot judge each other by pid, so that they watch.
fn elsewhere_or(n: u64) -> Here {
    if n.is_multiple_of(2) { living_here() } else { Here { machine: living_here().machine, ..elsewhere() } }
}

/// Crashes at every call of a whole life, with the call done and not done; then another
/// run, which may crash as well; then one that has to get through and leave nothing.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_call_leaves_what_the_next_run_clears() {
    for quirks in [
        Quirks::default(),
        Quirks { no_posix_rename: true, ..Quirks::default() },
        Quirks { no_hard_link: true, ..Quirks::default() },
        Quirks { link_copies: true, ..Quirks::default() },
    ] {
        let mut at = 0;
        loop {
            let mut finished = false;
            for (done, second) in
                [(false, None), (true, None), (true, Some(at % 29)), (false, Some(at * 7 % 41))]
            {
                let disk = Disk::new(quirks);
                finished = !crashing_life(&disk, at, at, done, dead_here()).await;
                if let Some(second) = second {
                    crashing_life(&disk, at + 1000, second, done, elsewhere()).await;
                }
                let oracle = Oracle::default();
                let files = Memory::new(&disk, at + 2000).shared();
                let last = acquirer("alice", living_here(), &WAIT);
                let life = one_life(files, last, &oracle, Duration::from_secs(1));
                let outcome = tokio::time::timeout(Duration::from_secs(120), life).await;
                let case = format!("crash at {at}, done {done}, then {second:?}, {quirks:?}");
                outcome.unwrap_or_else(|_| panic!("hangs: {case}")).unwrap_or_else(|e| panic!("{case}: {e}"));
                assert_eq!(disk.paths(), Vec::<String>::new(), "{case}");
            }
            if finished {
                break;
            }
            at += 1;
        }
        assert!(at > 20, "only {at} calls in a life");
    }
}

/// Whether the crash came before the life was over.
async fn crashing_life(disk: &Arc<Disk>, seed: u64, at: u64, done: bool, here: Here) -> bool {
    let memory = Arc::new(Memory::new(disk, seed).fault(at, Fault::Crash { done }));
    let mut crashed = memory.crashed.subscribe();
    let oracle = Oracle::default();
    let life = one_life(memory, acquirer("alice", here, &WAIT), &oracle, Duration::from_secs(5));
    tokio::select! {
        outcome = life => {
            outcome.expect("a life without a crash");
            false
        }
        _ = crashed.wait_for(|crashed| *crashed) => true,
    }
}

/// The reply to each call is lost in turn, with the request done, not done, or done later.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_looked_after() {
    for quirks in [Quirks::default(), Quirks { no_posix_rename: true, ..Quirks::default() }] {
        for dead_lock in [false, true] {
            for fault in [Fault::Cut { done: true }, Fault::Cut { done: false }, Fault::CutLate] {
                let mut at = 0;
                while lost_reply(quirks, dead_lock, fault, at).await {
                    at += 1;
                }
                assert!(at > 15, "only {at} calls in a life");
            }
        }
    }
}

/// Whether the fault came before the life was over.
async fn lost_reply(quirks: Quirks, dead_lock: bool, fault: Fault, at: u64) -> bool {
    let case = format!("{fault:?} at {at}, dead lock {dead_lock}, {quirks:?}");
    let disk = Disk::new(quirks);
    if dead_lock {
        win(&Memory::new(&disk, 1), "alice", dead_here(), &PLAIN).await;
    }
    let broken = Memory::new(&disk, at).fault(at, fault);
    let whole = Memory::new(&disk, at + 1);
    let mut client = acquirer("alice", living_here(), &PLAIN);
    let mut cut = false;
    macro_rules! both {
        ($call:expr) => {{
            let call = $call;
            match if cut { call(&whole).await } else { call(&broken).await } {
                Err(failure) if failure.kind == FailureKind::Link && !cut => {
                    cut = true;
                    call(&whole).await
                }
                outcome => outcome,
            }
            .unwrap_or_else(|failure| panic!("{case}: {failure}"))
        }};
    }
    let held = match client.acquire(&broken).await {
        Err(failure) if failure.kind == FailureKind::Link => {
            cut = true;
            // What was on its way is done before or after the next steps.
            if at.is_multiple_of(2) {
                disk.run_late();
            }
            client.acquire(&whole).await
        }
        outcome => outcome,
    };
    let held = held.unwrap_or_else(|failure| panic!("{case}: {failure}"));
    disk.run_late();
    both!(async |files: &Memory| held.check(files).await);
    let fenced = both!(async |files: &Memory| fence(files, &held, &silent()).await);
    disk.run_late();
    both!(async |files: &Memory| held.check(files).await);
    clear_fenced(&whole, fenced).await;
    both!(async |files: &Memory| release(files, &held).await);
    let late = disk.run_late();
    let left = disk.paths();
    assert!(!left.contains(&"/srv/img.qcow2:lock".to_owned()), "{case}: a lock is left: {left:?}");
    if late == 0 {
        assert_eq!(left, Vec::<String>::new(), "{case}");
    }
    cut
}

#[tokio::test(start_paused = true)]
async fn the_keeper_links_a_vanished_lock_again_and_stops_for_anothers() {
    for quirks in [
        Quirks::default(),
        Quirks { no_hard_link: true, ..Quirks::default() },
        Quirks { link_copies: true, ..Quirks::default() },
    ] {
        let disk = Disk::new(quirks);
        let files = Memory::new(&disk, 11).shared();
        let held = Arc::new(win(&*files, "alice", elsewhere(), &PLAIN).await);
        let keeper = Keeper::start(files.clone(), held.clone(), silent());
        let lock = names("alice").lock().clone();
        disk.remove_all(&lock);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let again = info_at_lock(&disk).expect("linked again");
        assert_eq!(again.run, held.run());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(
            info_at_lock(&disk).expect("kept").beat > again.beat,
            "{quirks:?}: no beats after it came back"
        );
        assert_eq!(*keeper.state().borrow(), LockState::Held);

        // A look right before the commit does the same without waiting for a beat.
        disk.remove_all(&lock);
        held.check(&*files).await.expect("ours");
        assert_eq!(info_at_lock(&disk).expect("linked again").run, held.run());

        let mut other = info_at_lock(&disk).expect("a lock");
        other.run = RunId::from_random(77);
        other.user = "mallory".to_owned();
        disk.put_file(&lock, &other.to_text(), 1);
        let mut state = keeper.state();
        let lost =
            tokio::time::timeout(Duration::from_secs(10), state.wait_for(|s| *s != LockState::Held)).await;
        assert!(
            matches!(&*lost.expect("noticed").expect("kept"), LockState::Lost { by } if by.contains("mallory"))
        );
        keeper.stop().await;
        release(&*files, &held).await.expect("released");
        assert_eq!(disk.paths(), ["/srv/img.qcow2:lock"], "{quirks:?}");
        assert_eq!(disk.read_file(&lock), Some(other.to_text()), "another's lock was written to");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_the_server_garbled_is_written_again() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 11).shared();
    let held = win(&*files, "alice", elsewhere(), &PLAIN).await;
    let handle = files.open(&held.private().lock(), OpenMode::WRITE, None).await.expect("opens");
    let garbage = Bytes::from_static(b"\0garbage");
    files.submit_write(&handle, 0, garbage).await.expect("sent").await.expect("written");
    files.close(handle).await.expect("closed");
    held.check(&*files).await.expect("still this run's");
    assert_eq!(info_at_lock(&disk).expect("whole again").run, held.run());
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_directory_is_gone_has_lost_whatever_the_lock_says() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 12).shared();
    let held = Arc::new(win(&*files, "alice", elsewhere(), &PLAIN).await);
    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    disk.remove_all(held.private().directory());
    let mut state = keeper.state();
    let lost = tokio::time::timeout(Duration::from_secs(10), state.wait_for(|s| *s != LockState::Held)).await;
    assert!(lost.expect("noticed").is_ok());
    assert_eq!(held.check(&*files).await.expect_err("lost").kind, FailureKind::Locked);
}

#[tokio::test(start_paused = true)]
async fn a_dead_link_is_no_lost_lock() {
    let disk = Disk::new(Quirks::default());
    let first = Arc::new(Memory::new(&disk, 13));
    let held = Arc::new(win(&*first, "alice", elsewhere(), &PLAIN).await);
    let keeper = Keeper::start(first.clone(), held.clone(), silent());
    tokio::time::sleep(Duration::from_secs(5)).await;
    first.cut();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = info_at_lock(&disk).expect("there").beat;
    assert_eq!(*keeper.state().borrow(), LockState::Held);
    assert_eq!(held.check(&*first).await.expect_err("nothing seen").kind, FailureKind::Link);
    for seed in 14..17 {
        let next = Arc::new(Memory::new(&disk, seed));
        keeper.replace_files(next.clone());
        tokio::time::sleep(Duration::from_secs(5)).await;
        next.cut();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(info_at_lock(&disk).expect("there").beat > before + 3, "no beats through the new sessions");
    assert_eq!(*keeper.state().borrow(), LockState::Held);
    keeper.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_holder_looks_before_it_goes_on() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 18).shared();
    // The clock that counts suspend is the system's, which no test can pause.
    let times =
        LockTimes { stale_after: Duration::ZERO, beat: Duration::from_secs(3600), ..LockTimes::default() };
    let patient = LockContext { times, ..context("alice", elsewhere(), &PLAIN) };
    let held = Arc::new(Acquirer::new(patient).expect("random").acquire(&*files).await.expect("the lock"));
    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    keeper.ensure_fresh().await.expect("ours");
    win(&*files, "alice", living_here(), &BREAK).await;
    assert_eq!(*keeper.state().borrow(), LockState::Held, "the keeper has not looked yet");
    assert_eq!(keeper.ensure_fresh().await.expect_err("lost").kind, FailureKind::Locked);
}

#[tokio::test(start_paused = true)]
async fn torn_locks_are_watched_and_then_taken_within_one_account() {
    for cut in [0, 5, 13, 40, 120] {
        for (uid, user, taken) in [(1000, "alice", true), (1000, "bob", cut < 25), (1, "alice", false)] {
            for temp_stands in [false, true] {
                let disk = Disk::new(Quirks::default());
                let files = Memory::new(&disk, cut).shared();
                // Once without what the dead run left, as where it has been cleared away.
                win(&*files, user, dead_here(), &PLAIN).await;
                let lock = names("alice").lock().clone();
                let text = disk.read_file(&lock).expect("a lock");
                let torn = &text[..text.len().min(usize::try_from(cut).expect("small"))];
                if !temp_stands {
                    disk.remove_all(names(user).temp());
                }
                disk.put_file(&lock, torn, uid);
                let before = disk.paths();
                let began = tokio::time::Instant::now();
                let outcome = acquirer("alice", living_here(), &PLAIN).acquire(&*files).await;
                assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
                let what = format!("cut to {cut}, account {uid}, user {user}, temp {temp_stands}");
                assert_eq!(outcome.is_ok(), taken, "{what}");
                let Err(failure) = outcome else { continue };
                assert_eq!(failure.kind, FailureKind::Locked, "{what}");
                assert!(failure.to_string().contains("incomplete"), "{failure}");
                assert_eq!(disk.paths(), before, "{what}");
                let held = win(&*files, "alice", living_here(), &BREAK).await;
                release(&*files, &held).await.expect("released");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_lock_that_is_still_being_written_is_a_living_one() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 19).shared();
    win(&*files, "alice", elsewhere(), &PLAIN).await;
    let lock = names("alice").lock().clone();
    let text = disk.read_file(&lock).expect("a lock");
    let began = tokio::time::Instant::now();
    let mut other = acquirer("alice", living_here(), &PLAIN);
    let writing = async {
        for end in (0..text.len()).step_by(32) {
            disk.put_file(&lock, &text[..end], 1000);
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
    };
    let (outcome, ()) = tokio::join!(other.acquire(&*files), writing);
    outcome.expect("the writer died in the end");
    let slow = Duration::from_secs(9) * u32::try_from(text.len() / 32).expect("small");
    assert!(began.elapsed() >= slow, "taken from a living writer after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_lock_is_left_alone() {
    let lock = names("alice").lock().clone();
    for options in [PLAIN, BREAK] {
        let disk = Disk::new(Quirks::default());
        let files = Memory::new(&disk, 20).shared();
        disk.put_file(&lock, b"my notes about locks", 1000);
        let failure = acquirer("alice", living_here(), &options).acquire(&*files).await.expect_err("foreign");
        assert!(failure.to_string().contains("not haul's"), "{failure}");
        assert_eq!(disk.read_file(&lock).as_deref(), Some(&b"my notes about locks"[..]));

        disk.put_symlink(&lock);
        let failure = acquirer("alice", living_here(), &options).acquire(&*files).await.expect_err("a link");
        assert!(failure.to_string().contains("a symbolic link"), "{failure}");
        disk.put_directory(&lock, 0o755, 1000);
        let failure =
            acquirer("alice", living_here(), &options).acquire(&*files).await.expect_err("a directory");
        assert!(failure.to_string().contains("a directory"), "{failure}");
        assert_eq!(disk.paths(), ["/srv/img.qcow2:lock"]);
    }
    // Another version's is respected, and broken only on demand.
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 21).shared();
    disk.put_file(&lock, b"haul-lock: 2\nwhatever", 1000);
    let failure = acquirer("alice", living_here(), &PLAIN).acquire(&*files).await.expect_err("newer");
    assert!(failure.to_string().contains("another version"), "{failure}");
    win(&*files, "alice", living_here(), &BREAK).await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_from_the_future_is_judged_like_any_other() {
    let disk = Disk::new(Quirks::default());
    let files = Memory::new(&disk, 22).shared();
    let mut info = {
        win(&*files, "alice", elsewhere(), &PLAIN).await;
        info_at_lock(&disk).expect("a lock")
    };
    (info.since, info.beat) = (u64::MAX, u64::MAX);
    disk.put_file(names("alice").lock(), &info.to_text(), 1000);
    let began = tokio::time::Instant::now();
    win(&*files, "alice", living_here(), &PLAIN).await;
    assert!((10..13).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_temp_directory_has_to_be_this_accounts_alone() {
    let temp = names("alice").temp().clone();
    let refused = async |prepare: &dyn Fn(&Disk), cause: &str| {
        let disk = Disk::new(Quirks::default());
        prepare(&disk);
        let files = Memory::new(&disk, 23).shared();
        let failure = acquirer("alice", living_here(), &PLAIN).acquire(&*files).await.expect_err(cause);
        assert_eq!(failure.kind, FailureKind::Storage);
        assert!(failure.to_string().contains(cause), "{failure}");
        assert!(!disk.paths().contains(&"/srv/img.qcow2:lock".to_owned()));
    };
    refused(&|disk| disk.put_symlink(&temp), "is no directory").await;
    refused(&|disk| disk.put_file(&temp, b"", 1000), "is no directory").await;
    refused(&|disk| disk.put_directory(&temp, 0o777, 666), "belongs to another account").await;

    // One's own is tightened, and on a server without modes nothing is asked of them.
    let disk = Disk::new(Quirks::default());
    disk.put_directory(&temp, 0o775, 1000);
    win(&Memory::new(&disk, 24), "alice", living_here(), &PLAIN).await;
    let disk = Disk::new(Quirks { no_modes: true, ..Quirks::default() });
    disk.put_directory(&temp, 0o777, 1000);
    win(&Memory::new(&disk, 25), "alice", living_here(), &PLAIN).await;
}

#[tokio::test(start_paused = true)]
async fn the_primitive_is_proven_or_there_is_no_lock() {
    let plain = Quirks::default();
    for (quirks, kind) in [
        (Quirks { link_copies: true, ..plain }, Some(LockKind::Copied)),
        (Quirks { no_hard_link: true, ..plain }, Some(LockKind::Exclusive)),
        (Quirks { link_replaces: true, ..plain }, Some(LockKind::Exclusive)),
        (Quirks { link_replaces: true, exclusive_ignored: true, ..plain }, None),
        (Quirks { no_hard_link: true, exclusive_ignored: true, ..plain }, None),
    ] {
        let disk = Disk::new(quirks);
        let files = Memory::new(&disk, 26).shared();
        let outcome = acquirer("alice", elsewhere(), &PLAIN).acquire(&*files).await;
        match kind {
            Some(kind) => {
                let held = Arc::new(outcome.expect("a lock"));
                assert_eq!(held.kind(), kind);
                let keeper = Keeper::start(files.clone(), held.clone(), silent());
                tokio::time::sleep(Duration::from_secs(7)).await;
                assert!(info_at_lock(&disk).expect("a lock").beat >= 3, "{quirks:?}: beats do not show");
                let failure =
                    acquirer("alice", living_here(), &PLAIN).acquire(&*files).await.expect_err("held");
                assert_eq!(failure.kind, FailureKind::Locked);
                keeper.stop().await;
                release(&*files, &held).await.expect("released");
            }
            None => {
                let failure = outcome.expect_err("no primitive");
                assert!(failure.to_string().contains("--no-lock"), "{failure}");
            }
        }
        assert_eq!(disk.paths(), Vec::<String>::new(), "{quirks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_lock_nothing_stands_beside_the_target() {
    let disk = Disk::new(Quirks { no_hard_link: true, exclusive_ignored: true, ..Quirks::default() });
    let files = Memory::new(&disk, 27).shared();
    let options = LockOptions { no_lock: true, ..PLAIN };
    let held = Arc::new(win(&*files, "alice", living_here(), &options).await);
    assert_eq!(held.kind(), LockKind::Without);
    assert!(files.lstat(held.private().directory()).await.is_ok());
    assert!(look(&*files, &names("alice"), "web1").await.expect("looked").is_none());
    let keeper = Keeper::start(files.clone(), held.clone(), silent());
    held.check(&*files).await.expect("nothing to lose");
    keeper.ensure_fresh().await.expect("nothing to lose");
    keeper.stop().await;
    release(&*files, &held).await.expect("released");
    assert_eq!(disk.paths(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_missing_parent_is_a_plain_failure() {
    let disk = Disk::new(Quirks::default());
    disk.remove_all(&RemotePath::new(b"/srv".to_vec()).expect("a path"));
    let files = Memory::new(&disk, 28).shared();
    let failure = acquirer("alice", living_here(), &PLAIN).acquire(&*files).await.expect_err("no parent");
    assert_eq!(failure.kind, FailureKind::Failed);
    assert_eq!(disk.paths(), Vec::<String>::new());
}

/// Runs all at once in one task, as the paused clock needs no threads.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut running {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match running.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
