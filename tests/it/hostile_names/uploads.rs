//! The worst names as uploads by the real program to a real sshd: each file arrives under
//! exactly its name, or is refused in one clear line, and nothing else is made.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use super::generate::{CANARY, NAME_MAX, is_file_name, names, worst};
use crate::harness::sshd::{Sshd, write_script};
use crate::rows::client::{CHUNK, Client, Outcome, content};

const UPLOADS: usize = 240;
/// A program has some 100 files to bring, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(600);

fn entries(directory: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry").file_name()).collect()
}

/// Whatever is printed may be shown at a terminal.
#[track_caller]
fn assert_shown_safely(outcome: &Outcome) {
    for text in [&outcome.stdout, &outcome.stderr] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "it drives the terminal: {text:?}");
    }
}

/// Those with a shell cost most: each upload proves it anew.
#[test]
fn the_worst_names_arrive_as_they_are() {
    let programs = tempfile::tempdir().expect("a directory");
    let ran = programs.path().join("ran");
    write_script(&programs.path().join(CANARY), &format!("#!/bin/sh\necho ran >>'{}'\n", ran.display()));
    let path = format!("SetEnv PATH={}:/usr/bin:/bin", programs.path().display());
    // All that haul runs there sees the canary.
    let with_shell = Sshd::builder().config(&path).start();
    let without = Sshd::builder().force_internal_sftp().start();
    // Of many small files most of the time would go into syncs, which are not at stake.
    let memory = Path::new("/dev/shm");
    let target = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let target = target.expect("a directory");
    let (scripted, plain) = (Client::of(&with_shell), Client::of(&without));
    let usable = names(10_000).into_iter().filter(|name| is_file_name(name)).collect();
    let names: Vec<OsString> = worst(usable, UPLOADS).into_iter().map(OsString::from_vec).collect();
    assert_eq!(names.len(), UPLOADS);
    let bytes = |number: usize| content(1 + number as u64 * 7, number as u64);
    for (number, name) in names.iter().enumerate() {
        std::fs::write(plain.home().join(name), bytes(number)).expect("a source");
    }
    let (some, most) = names.split_at(UPLOADS / 8);
    let (most, rest) = most.split_at(most.len() / 2);
    let mut runs = Vec::new();
    for (client, method, share) in
        [(&scripted, "script", some), (&plain, "auto", most), (&plain, "sftp", rest)]
    {
        let mut haul = client.haul("put");
        haul.args(["--user-id", "alice", "--connections", "1", "--merge", method, "--"]);
        haul.args(share.iter().map(|name| plain.home().join(name))).arg(client.destination(target.path()));
        runs.push(client.start(haul));
    }
    for run in runs {
        assert_shown_safely(&run.wait_for(PATIENCE).expect(0));
    }
    assert_eq!(entries(target.path()), names.iter().cloned().collect(), "nothing else");
    for (number, name) in names.iter().enumerate() {
        let arrived = std::fs::read(target.path().join(name)).expect("the target");
        assert!(arrived == bytes(number), "{name:?}");
    }
    assert!(!ran.exists(), "a name ran as a command");
}

#[test]
fn what_can_be_no_name_is_refused_clearly() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let below = sshd.scratch().join("below");
    std::fs::create_dir(&below).expect("a directory");
    std::fs::write(below.join("file"), "before").expect("a file");
    let scratch = sshd.scratch();
    let path = |name: &[u8]| [below.as_os_str().as_bytes(), b"/", name].concat();
    let control = [&b"\x1b]0;owned\x07"[..], &vec![b'n'; NAME_MAX]].concat();
    let too_long = "n".repeat(NAME_MAX + 1);
    let far_too_long = "n/".repeat(3000);
    for (destination, code, said) in [
        (path(too_long.as_bytes()), 2, "the name has 256 bytes"),
        (path("é".repeat(128).as_bytes()), 2, "the name has 256 bytes"),
        (path(&control), 2, "\\x1b]0;owned\\x07"),
        (path(far_too_long.as_bytes()), 2, "the path has"),
        (path(b"missing/"), 2, "no such directory"),
        (path(b"missing/.."), 2, "no such directory"),
        (path(b"file/"), 2, "no such directory"),
        (path(b"file/."), 2, "no such directory"),
        (path(b"mis\x1b[31msing/x"), 2, "\\x1b[31m"),
    ] {
        let outcome = client.put(&source, OsStr::from_bytes(&destination), &[]);
        assert_shown_safely(&outcome);
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(outcome.code == Some(code) && outcome.stderr.contains(said), "{said}: {outcome:?}");
        assert_eq!(entries(&below), [OsString::from("file")].into(), "{destination:?}");
        assert_eq!(entries(&scratch), [OsString::from("below")].into(), "{destination:?}");
    }
    assert_eq!(std::fs::read(below.join("file")).expect("the file"), b"before");
    // Directories by whatever name take the source's name, and nothing lands beside them.
    for name in [&b"."[..], b"..", b"", b"./", b"../below/./", b"//"] {
        client.put(&source, OsStr::from_bytes(&path(name)), &[]).expect(0);
        let target = if name == b".." { scratch.join("source") } else { below.join("source") };
        assert!(std::fs::read(&target).expect("the target") == content(CHUNK, 1), "{name:?}");
        std::fs::remove_file(target).expect("the target");
        assert_eq!(entries(&below), [OsString::from("file")].into(), "{name:?}");
        assert_eq!(entries(&scratch), [OsString::from("below")].into(), "{name:?}");
    }
}
