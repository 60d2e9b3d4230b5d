//! The merge script: right bytes, hostile names, gaps, trouble.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use haul::model::merge_script::{MergeCause, MergeState, stop_path};

use super::scene::{Scene, kill_group, local, until, unwritten, wait};
use super::shells::{MERGING_SHELLS, Machine};

const NAMES: [&[u8]; 13] = [
    b"img.qcow2",
    b"it's",
    b"two\nlines.img",
    b"ends with a line\n",
    b"-rf",
    b"$(touch haul-was-here)",
    b"`touch haul-was-here`.x",
    b"a; touch haul-was-here; b",
    b"\xff\xfe\x80",
    b"  spaces  .bin",
    b"*",
    b"[a-z]?\\ \"x\" %s\\n",
    b"&|<>!#~{}",
];

#[test]
fn hostile_names_in_every_shell() {
    for shell in MERGING_SHELLS {
        let machine = Machine::new(shell);
        for name in NAMES {
            let context = format!("{shell}, {}", String::from_utf8_lossy(name));
            let scene = Scene::new(name, 70, 4096, 100);
            scene.put_chunks(1..=70);
            assert_eq!(scene.merge(&machine), MergeState::Done, "{context}");
            scene.assert_done(&context);
        }
    }
}

#[test]
fn sizes_at_the_edges() {
    let machine = Machine::new("dash");
    for (chunks, last) in [(1, 1), (1, 4096), (2, 1), (64, 4096), (65, 4095), (129, 64)] {
        let scene = Scene::new(b"img", chunks, 4096, last);
        scene.put_chunks(1..=chunks);
        assert_eq!(scene.merge(&machine), MergeState::Done);
        scene.assert_done(&format!("{chunks} chunks"));
        assert_eq!(scene.merge(&machine), MergeState::Done, "a second time");
        scene.assert_done(&format!("{chunks} chunks, again"));
    }
}

#[test]
fn waits_for_a_chunk_that_comes_later() {
    for shell in MERGING_SHELLS {
        let machine = Machine::new(shell);
        let scene = Scene::new(b"a b.img", 5, 4096, 7);
        scene.put_chunks([1, 2, 4]);
        let mut child = scene.start(&machine);
        until("two chunks merged", || scene.recorded() == 2);
        let MergeState::Running { pid, tick } = scene.state() else {
            panic!("{shell}: {:?}", scene.state());
        };
        assert_eq!(pid, child.id());
        until(
            "a sign of life",
            || matches!(scene.state(), MergeState::Running { tick: now, .. } if now > tick),
        );
        assert!(!scene.chunk(2).exists() && scene.chunk(4).exists());
        scene.put_chunks([3]);
        until("four chunks merged", || scene.recorded() == 4);
        scene.put_chunks([5]);
        assert_eq!(wait(&mut child), "", "{shell}");
        scene.assert_done(shell);
    }
}

#[test]
fn a_machine_with_hardly_anything() {
    let machine = Machine::bare();
    for name in NAMES {
        let context = String::from_utf8_lossy(name);
        let scene = Scene::new(name, 5, 4096, 7);
        scene.put_chunks([1, 2, 3, 5]);
        let mut child = scene.start(&machine);
        until("three chunks merged", || scene.recorded() == 3);
        kill_group(&child);
        wait(&mut child);
        scene.put_chunks([4]);
        assert_eq!(scene.merge(&machine), MergeState::Done, "{context}");
        scene.assert_done(&context);
    }
}

#[test]
fn stops_when_asked() {
    let machine = Machine::new("dash");
    let scene = Scene::new(b"img", 3, 4096, 7);
    scene.put_chunks([1]);
    let mut child = scene.start(&machine);
    until("one chunk merged", || scene.recorded() == 1);
    fs::write(local(&stop_path(&scene.private())), "").expect("the wish");
    wait(&mut child);
    assert_eq!(scene.state(), MergeState::Stopped);
    assert_eq!(scene.recorded(), 1);
    fs::remove_file(local(&stop_path(&scene.private()))).expect("the wish is there");
    scene.put_chunks([2, 3]);
    assert_eq!(scene.merge(&machine), MergeState::Done);
    scene.assert_done("after a stop");
}

#[test]
fn ends_when_its_client_is_gone_and_stays_while_it_lives() {
    let machine = Machine::new("dash");
    let abandoned = Scene::new(b"img", 5, 4096, 7);
    abandoned.put_chunks([1, 2, 5]);
    let mut abandoned_child = abandoned.start(&machine);

    let busybox = Machine::new("busybox");
    let mut alive = Scene::new(b"img", 2, 4096, 7);
    let mut alive_child = alive.start(&busybox);
    let start = Instant::now();
    until("the abandoned script ends, and the other outlives it", || {
        alive.beat();
        assert!(alive_child.try_wait().expect("a child").is_none(), "{:?}", alive.state());
        start.elapsed() > Duration::from_secs(18) && abandoned_child.try_wait().expect("a child").is_some()
    });
    assert_eq!(abandoned.state(), MergeState::Left);
    assert_eq!(abandoned.recorded(), 2);
    abandoned.assert_nothing_lost([1, 2, 5], "abandoned");
    alive.put_chunks([1, 2]);
    assert_eq!(wait(&mut alive_child), "");
    alive.assert_done("alive");
}

#[test]
fn a_chunk_of_the_wrong_size_stops_the_merge() {
    for shell in MERGING_SHELLS {
        let machine = Machine::new(shell);
        for (damage, length) in [(2, 4095), (3, 4097), (5, 8), (1, 0)] {
            let scene = Scene::new(b"img", 5, 4096, 7);
            scene.put_chunks(1..=5);
            fs::write(scene.chunk(damage), vec![0; length]).expect("a damaged chunk");
            assert_eq!(scene.merge(&machine), MergeState::Failed(MergeCause::Chunk(damage)), "{shell}");
            assert_eq!(scene.recorded(), 0);
            assert!((1..=5).all(|n| scene.chunk(n).exists()), "{shell}");
            // What is bad is sent again; then it goes on.
            scene.put_chunks([damage]);
            assert_eq!(scene.merge(&machine), MergeState::Done, "{shell}");
            scene.assert_done(shell);
        }
    }
}

#[test]
fn a_merged_file_that_is_too_short_or_too_long() {
    let machine = Machine::new("dash");
    let scene = Scene::new(b"img", 3, 4096, 7);
    scene.put_chunks([1, 2]);
    let mut child = scene.start(&machine);
    until("two chunks merged", || scene.recorded() == 2);
    kill_group(&child);
    wait(&mut child);
    scene.put_chunks([3]);
    fs::write(scene.merged(), vec![0; 8191]).expect("a short file");
    assert_eq!(scene.merge(&machine), MergeState::Failed(MergeCause::Size));
    assert!(scene.chunk(3).exists());
    fs::write(scene.merged(), vec![0; 8192 + 8]).expect("a long file");
    assert_eq!(scene.merge(&machine), MergeState::Failed(MergeCause::Size));
}

#[test]
fn a_script_whose_run_was_fenced_ends_and_touches_nothing() {
    for shell in MERGING_SHELLS {
        let machine = Machine::new(shell);
        let scene = Scene::new(b"img", 5, 4096, 7);
        scene.put_chunks([1, 2]);
        let mut child = scene.start(&machine);
        until("two chunks merged", || scene.recorded() == 2);
        let fenced = local(&scene.names.fenced(haul::model::run_id::RunId::from_random(9), 1));
        fs::rename(local(scene.private().directory()), &fenced).expect("the fence");
        scene_put(&scene, 3);
        let before = unwritten(&scene, &scene.temp());
        wait(&mut child);
        assert!(before == unwritten(&scene, &scene.temp()), "{shell}");
        // One that starts when its run is fenced already.
        let mut late = machine.command(machine.sh());
        late.arg(fenced.join("merge.sh")).current_dir(scene.temp());
        assert!(!late.output().expect("the shell runs").status.success(), "{shell}");
        assert!(before == unwritten(&scene, &scene.temp()), "{shell}");
    }
}

/// Publishes a chunk without the private directory.
fn scene_put(scene: &Scene, n: u64) {
    fs::write(scene.chunk(n), scene.chunk_bytes(n)).expect("a chunk");
}

/// `/dev/full` answers every write as a full disk does.
#[test]
fn no_space_for_the_merged_file_or_the_record() {
    for shell in MERGING_SHELLS {
        let machine = Machine::new(shell);
        let record = |scene: &Scene| local(&scene.private().new_record());
        for (full, cause) in [
            (&Scene::merged as &dyn Fn(&Scene) -> std::path::PathBuf, MergeCause::Cat),
            (&record, MergeCause::Record),
        ] {
            let scene = Scene::new(b"img", 5, 4096, 7);
            scene.put_chunks(1..=5);
            let path = full(&scene);
            std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
            assert_eq!(scene.merge(&machine), MergeState::Failed(cause), "{shell}");
            fs::remove_file(&path).expect("the link");
            assert_eq!(scene.recorded(), 0);
            scene.assert_nothing_lost(1..=5, shell);
            assert_eq!(scene.merge(&machine), MergeState::Done, "{shell}");
            scene.assert_done(shell);
        }
    }
}

/// A file system of its own, for those who may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(kibibytes: u64) -> SmallDisk {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kibibytes}k"), "tmpfs"])
            .arg(directory.path())
            .status();
        assert!(status.expect("mount runs").success(), "root can mount a tmpfs");
        SmallDisk(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// For every size of the disk near the need: either done, or failed with all chunks kept,
/// and done once there is room.
#[test]
fn a_disk_that_fills_up() {
    let sizes: &[u64] = if rustix::process::geteuid().is_root() {
        &[0, 4, 8, 12, 64, 100, 260, 300, 600]
    } else {
        // Without the right to mount, the test above has to do.
        &[]
    };
    for shell in ["dash", "busybox"] {
        let machine = Machine::new(shell);
        let mut failures = 0;
        for spare in sizes {
            let disk = SmallDisk::new(130 * 4 + 28 + 256);
            let scene = Scene::inside(disk.0.path(), b"img", 130, 4096, 7);
            scene.put_chunks(1..=130);
            scene.write_script();
            let ballast = disk.0.path().join("ballast");
            fill(&ballast, *spare);
            let mut child = scene.command(&machine).spawn().expect("the shell runs");
            let said = wait(&mut child);
            let context = format!("{shell}, {spare} KiB spare: {said}");
            scene.assert_nothing_lost(1..=130, &context);
            fs::remove_file(&ballast).expect("the ballast");
            if scene.recorded() != 130 {
                assert!(!child.wait().expect("a child").success(), "{context}");
                match scene.state() {
                    MergeState::Failed(MergeCause::Cat | MergeCause::Record) => failures += 1,
                    // There was no space even for the state.
                    state => assert_eq!((state, scene.recorded()), (MergeState::Starting, 0), "{context}"),
                }
                scene.write_script();
                let mut child = scene.command(&machine).spawn().expect("the shell runs");
                wait(&mut child);
            }
            scene.assert_done(&context);
        }
        assert!(sizes.is_empty() || (failures > 2 && failures < sizes.len()), "{failures}");
    }
}

/// Fills the disk but for `spare` KiB.
fn fill(ballast: &std::path::Path, spare: u64) {
    let mut file = fs::File::create(ballast).expect("the ballast");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let size = file.metadata().expect("the ballast").len();
    file.set_len(size.saturating_sub(spare * 1024)).expect("room");
}
