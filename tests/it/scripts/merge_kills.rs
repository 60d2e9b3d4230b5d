//! The merge script killed, or fenced, between any two of its commands and at random
//! moments: nothing is lost, the record is never ahead, and a new start finishes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use haul::model::merge_script::MergeState;
use tempfile::TempDir;

use super::scene::{Scene, kill_group, local, unwritten, wait};
use super::shells::{Machine, find};

/// Every program that the script runs.
const PROGRAMS: [&str; 8] = ["cat", "dd", "ls", "mv", "rm", "sleep", "stat", "sync"];

/// Programs that count their calls, and at a given call kill the whole group before, after
/// or in the middle of what they do, or fence the run before they do it.
fn shims(busybox: bool) -> TempDir {
    let directory = TempDir::new().expect("a temporary directory");
    for program in PROGRAMS {
        let real = if busybox {
            format!("{} {program}", find("busybox").display())
        } else {
            find(program).display().to_string()
        };
        let text = format!(
            "#!/bin/dash\nPATH='{}'\nn=0\nread -r n <\"$HAUL_CALLS\"\nn=$((n + 1))\necho \"$n\" >\"$HAUL_CALLS\"\n\
             if [ \"$n\" = \"$HAUL_AT\" ]; then\n    case $HAUL_DO in\n    before) kill -9 0 ;;\n    \
             after) {real} \"$@\"; kill -9 0 ;;\n    middle) {real} \"$@\" | head -c 9000; kill -9 0 ;;\n    \
             fence) mv \"$HAUL_RUN\" \"$HAUL_RUN.fenced\"; cp -a . \"$HAUL_COPY\" ;;\n    esac\nfi\nexec {real} \"$@\"\n",
            "/usr/bin:/bin"
        );
        let path = directory.path().join(program);
        fs::write(&path, text).expect("a shim");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    directory
}

struct Attempt {
    scene: Scene,
    calls: u64,
}

/// Runs the script over 130 chunks, with `what` happening at call `at`.
fn attempt(machine: &Machine, shims: &Path, what: &str, at: u64, copy: &Path) -> Attempt {
    let scene = Scene::new(b"img's \n$x.bin", 130, 4096, 7);
    scene.put_chunks(1..=130);
    scene.write_script();
    let counter = tempfile::NamedTempFile::new().expect("a counter");
    fs::write(counter.path(), "0\n").expect("a counter");
    let mut command = scene.command(machine);
    command
        .env("PATH", format!("{}:{}", shims.display(), machine.path()))
        .env("HAUL_CALLS", counter.path())
        .env("HAUL_AT", at.to_string())
        .env("HAUL_DO", what)
        .env("HAUL_RUN", local(scene.private().directory()))
        .env("HAUL_COPY", copy);
    let mut child = command.spawn().expect("the shell runs");
    wait(&mut child);
    let calls = fs::read_to_string(counter.path()).expect("the counter");
    Attempt { scene, calls: calls.trim().parse().expect("a number") }
}

/// How many commands the script runs when nothing disturbs it.
fn calls(machine: &Machine, shims: &Path) -> u64 {
    let whole = attempt(machine, shims, "", 0, Path::new("/nonexistent"));
    whole.scene.assert_done("undisturbed");
    assert!((15..60).contains(&whole.calls), "{} calls: few processes over many chunks", whole.calls);
    whole.calls
}

#[test]
fn killed_between_any_two_commands() {
    for shell in ["dash", "busybox"] {
        let machine = Machine::new(shell);
        let shims = shims(shell == "busybox");
        let calls = calls(&machine, shims.path());
        let mut recorded = Vec::new();
        for at in 1..=calls {
            for what in ["before", "after", "middle"] {
                let context = format!("{shell}, killed {what} command {at} of {calls}");
                let Attempt { scene, .. } =
                    attempt(&machine, shims.path(), what, at, Path::new("/nonexistent"));
                scene.assert_nothing_lost(1..=130, &context);
                recorded.push(scene.recorded());
                assert_eq!(scene.merge(&machine), MergeState::Done, "{context}");
                scene.assert_done(&context);
            }
        }
        for stage in [0, 64, 128, 130] {
            assert!(recorded.contains(&stage), "{shell}: no kill met the record at {stage}");
        }
    }
}

#[test]
fn fenced_between_any_two_commands() {
    for shell in ["dash", "busybox"] {
        let machine = Machine::new(shell);
        let shims = shims(shell == "busybox");
        for at in 1..=calls(&machine, shims.path()) {
            let copies = TempDir::new().expect("a temporary directory");
            let copy = copies.path().join("copy");
            let Attempt { scene, .. } = attempt(&machine, shims.path(), "fence", at, &copy);
            let (before, after) = (unwritten(&scene, &copy), unwritten(&scene, &scene.temp()));
            let changed: Vec<_> = before
                .keys()
                .chain(after.keys())
                .filter(|name| before.get(*name) != after.get(*name))
                .collect();
            assert!(changed.is_empty(), "{shell}, fenced before command {at}: {changed:?}");
        }
    }
}

#[test]
fn killed_at_random_moments() {
    for shell in ["dash", "bash", "busybox", "zsh"] {
        let machine = Machine::new(shell);
        let scene = Scene::new(b"img", 600, 65536, 7);
        scene.put_chunks(1..=600);
        let mut kills = 0;
        loop {
            let mut child = scene.start(&machine);
            let mut random = [0; 1];
            getrandom::fill(&mut random).expect("a random byte");
            std::thread::sleep(Duration::from_millis(u64::from(random[0]) % 40));
            kill_group(&child);
            wait(&mut child);
            scene.assert_nothing_lost(1..=600, &format!("{shell}, kill {kills}"));
            if scene.recorded() == 600 {
                break;
            }
            kills += 1;
            if kills == 40 {
                assert_eq!(scene.merge(&machine), MergeState::Done);
            }
        }
        assert_eq!(scene.merge(&machine), MergeState::Done, "{shell}");
        scene.assert_done(shell);
    }
}
