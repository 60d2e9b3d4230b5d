//! What holds on every kind of host, shown on each: an sshd with a shell, an sshd that
//! serves SFTP and nothing else, and OpenSSH in a container for an ordinary user.

use std::path::Path;
use std::process::Command;

use super::client::{CHUNK, Client, content, quoted, sha256};
use super::place::{Place, temp_of};
use super::unmerged::{
    VERY_SLOW, a_merge_alone_finishes_stored_chunks,
    gaps_in_the_middle_are_filled_and_half_written_parts_never_count, leave_all_but_the_commit,
};

macro_rules! on_every_host {
    ($($name:ident),* $(,)?) => {
        mod with_a_shell {
            $(#[test] fn $name() { super::$name(&super::Place::with_shell()); })*
        }
        mod internal_sftp {
            $(#[test] fn $name() { super::$name(&super::Place::internal_sftp()); })*
        }
        mod container {
            $(#[test] fn $name() { super::$name(&super::Place::container()); })*
        }
    };
}

on_every_host!(
    files_of_every_size_arrive_whole_by_every_merge,
    what_stands_at_the_target_decides,
    a_killed_run_is_resumed_and_nothing_is_sent_twice,
    gaps_in_the_middle_are_filled_and_half_written_parts_never_count,
    a_target_that_appears_is_not_replaced,
    status_tells_absent_partial_merging_complete,
    another_user_is_refused_and_told_who_holds_the_lock,
    clean_removes_ones_own_and_nothing_else,
    a_dry_run_writes_nothing,
    a_merge_alone_finishes_stored_chunks,
    paths_mean_what_they_mean_to_scp,
    an_interrupt_keeps_what_is_there,
);

/// Eight chunks a second, so that a run can be seen half-way.
const SLOW: &str = "--bwlimit=512KiB";

fn files_of_every_size_arrive_whole_by_every_merge(place: &Place) {
    let client = Client::of(place.host());
    for merge in place.merges() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 77] {
            let what = format!("{merge}, {size} bytes");
            let source = client.source("source", size, size + 1);
            let target = place.path("disk.img");
            let outcome = client.put(&source, &target, &["--merge", merge]).expect(0);
            let result = outcome.last();
            assert_eq!(result["status"], "uploaded", "{what}");
            assert_eq!(result["sha256"], sha256(&content(size, size + 1)), "{what}");
            assert_eq!(result["target"], target.to_str().expect("UTF-8"), "{what}");
            for (key, value) in [
                ("size", size),
                ("bytes_sent", size),
                ("chunks_total", size.div_ceil(CHUNK)),
                ("chunks_sent", size.div_ceil(CHUNK)),
                ("chunks_skipped", 0),
            ] {
                assert_eq!(outcome.number(key), value, "{key}: {what}");
            }
            assert_eq!(result["resumed"], false, "{what}");
            let by = if place.shell { "sha256-target" } else { "sha256-readback" };
            assert_eq!(result["verified_by"], by, "{what}");
            if *merge != "auto" && size > 0 {
                assert_eq!(result["merge"], *merge, "{what}");
            }
            assert!(place.read(&target) == content(size, size + 1), "{what}");
            assert_eq!(place.beside(&target), Vec::<String>::new(), "{what}");
            place.run(&format!("rm '{}'", target.display()));
        }
    }
    if !place.shell {
        let source = client.source("source", 3 * CHUNK, 1);
        let outcome = client.put(&source, place.path("disk.img"), &["--merge", "script"]).expect(1);
        outcome.says("no shell").says("--merge");
    }
}

fn what_stands_at_the_target_decides(place: &Place) {
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 3 * CHUNK, 1), place.path("disk.img"));
    assert_eq!(client.put(&source, &target, &[]).expect(0).status(), "uploaded");
    let inode = || place.run(&format!("stat -c '%i %Y' '{}'", target.display()));
    let before = inode();
    let outcome = client.put(&source, &target, &[]).expect(0);
    assert_eq!((outcome.status().as_str(), outcome.number("bytes_sent")), ("unchanged", 0));
    assert_eq!(inode(), before, "the file was not touched");

    // The same size, so that only the content tells.
    let other = client.source("other", 3 * CHUNK, 2);
    for more in [&[][..], &["--if-exists", "fail"]] {
        let outcome = client.put(&other, &target, more).expect(4);
        assert_eq!(outcome.last()["exit_code"], 4);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        outcome.says("--if-exists replace");
    }
    assert_eq!(client.put(&other, &target, &["--if-exists", "skip"]).expect(0).status(), "skipped");
    assert_eq!(inode(), before, "the file was not touched");
    assert_eq!(place.beside(&target), Vec::<String>::new());
    // Without a terminal there is nobody to ask, and that is a mistake in the request.
    let mut ask = Command::new("setsid");
    let put = client.put_command(&other, &target, &["--if-exists", "ask"]);
    ask.arg("--wait").arg(put.get_program()).args(put.get_args()).current_dir(client.home());
    client.run(ask).expect(2).says("no terminal");

    let outcome = client.put(&other, &target, &["--if-exists", "replace"]).expect(0);
    assert_eq!(outcome.status(), "uploaded");
    assert!(place.read(&target) == content(3 * CHUNK, 2));
    let shorter = client.source("shorter", CHUNK, 3);
    client.put(&shorter, &target, &["--if-exists", "replace"]).expect(0);
    assert!(place.read(&target) == content(CHUNK, 3));
    assert_eq!(place.beside(&target), Vec::<String>::new());
}

fn a_killed_run_is_resumed_and_nothing_is_sent_twice(place: &Place) {
    let client = Client::of(place.host());
    let chunks = 40;
    for merge in place.merges() {
        let source = client.source("source", chunks * CHUNK, 1);
        let target = place.path("disk.img");
        let mut run = client.start_put(&source, &target, &["--merge", merge, SLOW]);
        run.until("some chunks", || place.published(&target).len() >= 8);
        run.kill();
        place.wait_idle();
        assert!(
            !place
                .run(&format!("ls '{}'", target.parent().expect("a parent").display()))
                .lines()
                .any(|n| n == "disk.img")
        );
        let there = place.published(&target).len() as u64;
        assert!((8..chunks).contains(&there), "{merge}: {there}");

        // Once more, and again killed.
        let mut run = client.start_put(&source, &target, &["--merge", merge, SLOW]);
        run.until("more chunks", || place.published(&target).len() as u64 >= there + 4);
        run.kill();
        place.wait_idle();
        let there = place.published(&target).len() as u64;

        let outcome = client.put(&source, &target, &["--merge", merge]).expect(0);
        // A script that was still at work may have merged meanwhile, but nothing gets lost.
        assert_eq!(outcome.number("chunks_skipped"), there, "{merge}");
        assert_eq!(outcome.number("chunks_sent"), chunks - there, "{merge}");
        assert_eq!(outcome.number("bytes_sent"), (chunks - there) * CHUNK, "{merge}");
        assert_eq!(outcome.last()["resumed"], true, "{merge}");
        let said = format!("resuming: {there} of {chunks} chunks are there already");
        assert!(outcome.stdout.contains(&said), "{merge}: {}", outcome.stdout);
        assert!(place.read(&target) == content(chunks * CHUNK, 1), "{merge}");
        assert_eq!(place.beside(&target), Vec::<String>::new(), "{merge}");
        place.run(&format!("rm '{}'", target.display()));
    }
}

fn a_target_that_appears_is_not_replaced(place: &Place) {
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 12 * CHUNK, 1), place.path("disk.img"));
    leave_all_but_the_commit(place, &client, &source, &target);
    assert_eq!(place.read(&target), b"other");
    assert_eq!(place.published(&target).len(), 12);
    let outcome = client.put(&source, &target, &["--if-exists", "replace"]).expect(0);
    assert_eq!((outcome.number("chunks_sent"), outcome.number("chunks_skipped")), (0, 12));
    assert!(place.read(&target) == content(12 * CHUNK, 1));

    // One that was there, and was to be replaced, but has changed since.
    let next = client.source("next", 12 * CHUNK, 2);
    let mut run = client.start_put(&next, &target, &["--if-exists", "replace", VERY_SLOW]);
    run.until("a chunk", || !place.published(&target).is_empty());
    run.signal("STOP");
    place.run(&format!("printf changed >'{}'", target.display()));
    run.signal("CONT");
    run.wait().expect(4).says("changed");
    assert_eq!(place.read(&target), b"changed");
    assert_eq!(place.published(&target).len(), 12);
}

fn status_tells_absent_partial_merging_complete(place: &Place) {
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 12 * CHUNK + 1, 1), place.path("disk.img"));
    let status = || client.on("status", &target, &[]).expect(0).last();
    let absent = status();
    assert_eq!((&absent["state"], &absent["lock"]), (&"absent".into(), &serde_json::Value::Null));
    assert_eq!(absent["target"], target.to_str().expect("UTF-8"));

    let mut run = client.start_put(&source, &target, &[VERY_SLOW]);
    run.until("two chunks", || place.published(&target).len() >= 2);
    let partial = status();
    let temp = temp_of(&target);
    assert_eq!(place.run(&format!("stat -c %a '{}'", temp.display())).trim(), "700");
    assert_eq!(partial["state"], "partial");
    assert_eq!(partial["chunks_total"], 13);
    assert_eq!(partial["chunk_size"], CHUNK);
    assert_eq!(partial["source"]["name"], "source");
    assert_eq!(partial["source"]["size"], 12 * CHUNK + 1);
    assert!(partial["source"]["identity"].as_str().expect("identity").contains(':'));
    assert!((2..=13).contains(&partial["chunks_present"].as_u64().expect("a number")), "{partial}");
    assert_eq!(partial["lock"]["user"], "alice");
    assert_eq!(partial["lock"]["alive"], true, "{partial}");
    assert!(partial["lock"]["holder"].as_str().expect("a holder").contains('@'));
    assert!(partial["lock"]["since"].as_u64().expect("a time") > 1_600_000_000);
    assert_eq!(partial["lock"]["run"].as_str().expect("a run").len(), 16);
    run.kill();
    place.wait_idle();
    assert_eq!(status()["lock"]["alive"], false, "{}", status());
    let for_people = {
        let mut haul = client.haul("status");
        haul.args(["--user-id", "alice"]).arg(client.destination(&target));
        client.run(haul).expect(0).stdout
    };
    assert!(for_people.contains("of 13 chunks there"), "{for_people}");

    client.on("clean", &target, &[]).expect(0);
    leave_all_but_the_commit(place, &client, &source, &target);
    let merging = status();
    assert_eq!((&merging["state"], &merging["chunks_present"]), (&"merging".into(), &13.into()));
    assert_eq!(merging["size"], 5, "of the file that stands there");
    client.put(&source, &target, &["--if-exists", "replace"]).expect(0);
    let complete = status();
    assert_eq!(complete["state"], "complete");
    assert_eq!((&complete["size"], &complete["lock"]), (&(12 * CHUNK + 1).into(), &serde_json::Value::Null));
}

fn another_user_is_refused_and_told_who_holds_the_lock(place: &Place) {
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 200 * CHUNK, 1), place.path("disk.img"));
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("a chunk", || !place.published(&target).is_empty());
    let holder = client.on("status", &target, &[]).expect(0).last()["lock"]["holder"].clone();
    // A later --user-id wins over the client's own.
    for user in ["bob", "alice"] {
        let refused = client.put(&source, &target, &["--user-id", user]).expect(11);
        assert_eq!(refused.last()["exit_code"], 11);
        let line = refused.stderr.lines().last().expect("a line").to_owned();
        for part in ["alice", holder.as_str().expect("text"), " since 20", "127.0.0.1", "disk.img"] {
            assert!(line.contains(part), "{user}: {part} is not in: {line}");
        }
    }
    assert!(run.is_running());
    run.kill();
    place.wait_idle();
    // Dead or not: another user's lock is never taken silently.
    client.put(&source, &target, &["--user-id", "bob"]).expect(11).says("alice");
    let outcome = client.put(&source, &target, &[]).expect(0);
    assert!(outcome.number("chunks_skipped") > 0, "the same user resumes");
    assert!(place.read(&target) == content(200 * CHUNK, 1));
    assert_eq!(place.beside(&target), Vec::<String>::new());
}

fn clean_removes_ones_own_and_nothing_else(place: &Place) {
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 12 * CHUNK, 1), place.path("disk.img"));
    assert_eq!(client.on("clean", &target, &[]).expect(0).status(), "unchanged");
    let leave = |user: &str| {
        let mut run = client.start_put(&source, &target, &[VERY_SLOW, "--user-id", user]);
        run.until("a chunk", || {
            let temp = format!("{}:{user}", target.display());
            place.names(Path::new(&temp)).iter().any(|name| name.starts_with(&format!("{user}-disk:")))
        });
        run.kill();
        place.wait_idle();
    };
    leave("alice");
    let outcome = client.on("clean", &target, &[]).expect(0);
    assert_eq!(outcome.status(), "cleaned");
    assert!(outcome.number("removed_chunks") >= 1);
    assert_eq!(place.beside(&target), Vec::<String>::new());

    // Another's: only by force, with a warning that names the owner.
    leave("bob");
    let refused = client.on("clean", &target, &[]).expect(11).says("bob").says("--force");
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert_eq!(place.beside(&target).len(), 2);
    let forced = client.on("clean", &target, &["--force"]).expect(0);
    assert_eq!(forced.last()["forced_owner"], "bob");
    assert!(forced.stdout.contains("\"warning\"") && forced.stdout.contains("removing the upload of bob"));
    assert_eq!(place.beside(&target), Vec::<String>::new());

    // What haul did not make stays, whatever it is called.
    let temp = temp_of(&target);
    for (what, make) in [
        ("a directory of a person's own", "mkdir 'T' && echo precious >'T/letters'"),
        (
            "a foreign file among chunks",
            "mkdir 'T' && echo x >'T/alice-disk:1' && echo precious >'T/letters'",
        ),
        ("chunks without a record", "mkdir 'T' && echo precious >'T/alice-disk:1'"),
    ] {
        place.run(&make.replace('T', temp.to_str().expect("UTF-8")));
        let before = place.run(&format!("ls -lR '{}'", temp.display()));
        for more in [&[][..], &["--force"]] {
            client.on("clean", &target, more).expect(1).says("nothing is removed");
            assert_eq!(place.run(&format!("ls -lR '{}'", temp.display())), before, "{what}");
        }
        place.run(&format!("rm -r '{}'", temp.display()));
        assert_eq!(place.beside(&target), Vec::<String>::new(), "{what}");
    }
}

fn a_dry_run_writes_nothing(place: &Place) {
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 12 * CHUNK, 1), place.path("disk.img"));
    let everything = || {
        place.run(&format!(
            "cd '{}' && find . -printf '%p %T@ %C@ %s %i\\n' 2>/dev/null | sort",
            target.parent().expect("a parent").display()
        ))
    };
    let before = everything();
    let outcome = client.put(&source, &target, &["--dry-run"]).expect(0);
    assert_eq!((outcome.status().as_str(), outcome.number("bytes_sent")), ("would-upload", 0));
    assert_eq!(everything(), before);
    let mut run = client.start_put(&source, &target, &[VERY_SLOW]);
    run.until("a chunk", || !place.published(&target).is_empty());
    run.kill();
    place.wait_idle();
    let before = everything();
    client.put(&source, &target, &["--dry-run"]).expect(0);
    assert_eq!(everything(), before, "half-way, too");
    client.put(&source, &target, &[]).expect(0);
    let before = everything();
    assert_eq!(client.put(&source, &target, &["--dry-run"]).expect(0).status(), "unchanged");
    assert_eq!(everything(), before);
}

fn paths_mean_what_they_mean_to_scp(place: &Place) {
    let client = Client::of(place.host());
    let source = client.source("disk.img", CHUNK + 1, 1);
    let scratch = place.path("");
    place.run(&format!("mkdir '{0}/there' '{0}/full' '{0}/full/disk.img'", scratch.display()));
    let whole = |path: &Path| assert!(place.read(path) == content(CHUNK + 1, 1), "{}", path.display());
    client.put(&source, place.path("there"), &[]).expect(0);
    whole(&place.path("there/disk.img"));
    place.run(&format!("rm '{}'", place.path("there/disk.img").display()));
    client.put(&source, place.path("there/"), &[]).expect(0);
    whole(&place.path("there/disk.img"));
    for (path, said) in [
        (place.path("absent/"), "no such directory"),
        (place.path("absent/x"), "no such directory"),
        (place.path("full"), "is a directory"),
    ] {
        let outcome = client.put(&source, &path, &[]).expect(2).says(said);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    // From the remote home, in a directory that no other test uses.
    let home = String::from_utf8(quoted(place.host().scratch())).expect("UTF-8");
    let own = scratch.to_str().expect("UTF-8").trim_end_matches('/').replace('/', "-");
    let own = format!(".haul-test{own}");
    let remote_home = if place.host().user() == "haul" { "/home/haul".to_owned() } else { home_here() };
    place.run(&format!("mkdir -p '{remote_home}/{own}' && test -d {home}"));
    for (written, name) in [
        (format!("{own}/relative"), "relative"),
        (format!("~/{own}/tilde"), "tilde"),
        (format!("./{own}/"), "disk.img"),
    ] {
        let outcome = client.put(&source, &written, &[]).expect(0);
        let path = format!("{remote_home}/{own}/{name}");
        whole(Path::new(&path));
        assert!(outcome.last()["target"].as_str().expect("a path").starts_with('/'));
    }
    place.run(&format!("rm -r '{remote_home}/{own}'"));
}

/// The home that sshd gives to the account that runs the tests.
fn home_here() -> String {
    let output = Command::new("sh").args(["-c", "getent passwd \"$(id -u)\" | cut -d: -f6"]).output();
    String::from_utf8(output.expect("getent runs").stdout).expect("UTF-8").trim().to_owned()
}

fn an_interrupt_keeps_what_is_there(place: &Place) {
    let client = Client::of(place.host());
    let (source, target) = (client.source("source", 40 * CHUNK, 1), place.path("disk.img"));
    for name in ["INT", "TERM"] {
        let before = place.published(&target).len();
        let mut run = client.start_put(&source, &target, &[VERY_SLOW]);
        run.until("some chunks", || place.published(&target).len() >= before + 2);
        run.signal(name);
        let outcome = run.wait().expect(130).says("run the same command again to");
        assert_eq!(outcome.last()["exit_code"], 130);
        let lock = format!("{}:lock", target.file_name().expect("a name").display());
        assert!(!place.beside(&target).contains(&lock), "the lock is given back");
    }
    let there = place.published(&target).len() as u64;
    assert!(there >= 4);
    let outcome = client.put(&source, &target, &[]).expect(0);
    assert_eq!((outcome.number("chunks_skipped"), outcome.number("chunks_sent")), (there, 40 - there));
    assert!(place.read(&target) == content(40 * CHUNK, 1));
    assert_eq!(place.beside(&target), Vec::<String>::new());
}
