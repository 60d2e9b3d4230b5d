//! Rows A6 to A8, and what resume means: counted on the server's side, not by haul's word.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::client::{CHUNK, Client, content, wait_idle};
use super::place::{beside, number_in, published};
use crate::harness::sshd::Sshd;

const SLOW: &str = "--bwlimit=512KiB";

/// Bytes that sftp-servers say were written to chunks and merged files since `from`.
fn bytes_written(log: &str) -> u64 {
    log.lines()
        .filter_map(|line| line.split_once("close \"").map(|(_, rest)| rest))
        .filter(|rest| {
            let path = rest.split('"').next().unwrap_or("");
            let name = path.rsplit('/').next().unwrap_or("");
            path.contains("/run.") && (name.starts_with("part.") || name.starts_with("merged."))
        })
        .map(|rest| {
            let written = rest.rsplit("written ").next().expect("a number");
            written.trim().parse::<u64>().unwrap_or_else(|error| panic!("{error}: {rest}"))
        })
        .sum()
}

#[test]
fn the_server_sees_every_byte_once_over_two_kills() {
    let sshd = Sshd::builder().sftp_wrapper("INFO").start();
    let client = Client::of(&sshd);
    let chunks = 60;
    for merge in ["auto", "script"] {
        let source = client.source("source", chunks * CHUNK, 1);
        let target = sshd.scratch().join("disk.img");
        let start = sshd.sftp_log().len();
        for least in [8, 16] {
            let mut run = client.start_put(&source, &target, &["--merge", merge, SLOW]);
            run.until("chunks", || published(&sshd, &target).len() >= least);
            run.kill();
            wait_idle(&sshd);
        }
        let there = published(&sshd, &target).len() as u64;
        let before = sshd.sftp_log().len();
        let outcome = client.put(&source, &target, &["--merge", merge]).expect(0);
        wait_idle(&sshd);
        let log = sshd.sftp_log();
        let written = bytes_written(&log[before..]);
        assert_eq!(written, (chunks - there) * CHUNK, "{merge}, {there} were there: {}", outcome.stdout);
        // The two kills lost what was in flight: bounded by what a slow run has open.
        let all = bytes_written(&log[start..]);
        assert!((chunks * CHUNK..=(chunks + 2 * 3) * CHUNK).contains(&all), "{merge}: {}", all / CHUNK);
        assert!(std::fs::read(&target).expect("the target") == content(chunks * CHUNK, 1));
        std::fs::remove_file(&target).expect("the target");
    }
}

#[test]
fn identical_content_costs_no_byte() {
    let sshd = Sshd::builder().sftp_wrapper("INFO").start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 9 * CHUNK, 1), sshd.scratch().join("disk.img"));
    std::fs::copy(&source, &target).expect("a copy");
    for more in [&[][..], &["--quick"], &["--if-exists", "replace"]] {
        let before = sshd.sftp_log().len();
        assert_eq!(client.put(&source, &target, more).expect(0).status(), "unchanged");
        wait_idle(&sshd);
        let log = sshd.sftp_log();
        let wrote = log[before..].lines().any(|line| {
            line.contains("flags WRITE")
                || line.contains("mkdir")
                || line.contains("rename")
                || line.contains("setstat")
        });
        assert!(!wrote, "{more:?}: {}", &log[before..]);
    }
}

#[test]
fn of_a_changed_source_only_what_differs_is_sent() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let chunks = 40;
    let (source, target) = (client.source("source", chunks * CHUNK, 1), sshd.scratch().join("disk.img"));
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("chunks", || published(&sshd, &target).len() >= 10);
    run.kill();
    wait_idle(&sshd);
    let there = published(&sshd, &target);

    // One byte of chunk 3, and the times as they were.
    let stamp = client.source("stamp", 0, 0);
    assert!(Command::new("touch").arg("-r").arg(&source).arg(&stamp).status().expect("touch").success());
    let file = std::fs::OpenOptions::new().write(true).open(&source).expect("the source");
    file.write_all_at(b"!", 2 * CHUNK + 5).expect("write");
    drop(file);
    assert!(Command::new("touch").arg("-r").arg(&stamp).arg(&source).status().expect("touch").success());

    let outcome = client.put(&source, &target, &[]).expect(0);
    assert!(there.contains(&3));
    assert_eq!(outcome.number("chunks_skipped"), there.len() as u64 - 1);
    assert_eq!(outcome.number("chunks_sent"), chunks - there.len() as u64 + 1);
    let told = format!("{} of the {} chunks that were there agree", there.len() - 1, there.len());
    assert!(outcome.stdout.contains(&told), "it is told: {}", outcome.stdout);
    assert!(std::fs::read(&target).expect("the target") == std::fs::read(&source).expect("the source"));
    assert_eq!(beside(&sshd, &target), Vec::<String>::new());
}

#[test]
fn a_source_that_changes_while_it_is_sent_is_no_mixture() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 40 * CHUNK, 1), sshd.scratch().join("disk.img"));
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("chunks", || published(&sshd, &target).len() >= 4);
    std::fs::write(&source, content(40 * CHUNK, 2)).expect("another content");
    let outcome = run.wait().expect(1).says("changed");
    assert_eq!(outcome.status(), "failed");
    assert!(!target.exists());
    client.put(&source, &target, &[]).expect(0);
    assert!(std::fs::read(&target).expect("the target") == content(40 * CHUNK, 2));
}

#[test]
fn a_resume_does_not_read_the_source_again_unless_asked() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let chunks = 64;
    for (rehash, least, most) in [(false, 0, 48), (true, 64, 200)] {
        let (source, target) = (client.source("source", chunks * CHUNK, 1), sshd.scratch().join("disk.img"));
        let mut run = client.start_put(&source, &target, &["--bwlimit=1MiB"]);
        run.until("most chunks", || published(&sshd, &target).len() >= 40);
        run.kill();
        wait_idle(&sshd);
        let there = published(&sshd, &target).len() as u64;
        assert!(there < chunks);
        let more: &[&str] = if rehash { &["--rehash"] } else { &[] };
        let read = bytes_read_of(&client, &source, &target, more) / CHUNK;
        assert!((least..=most).contains(&read), "rehash {rehash}: {read} of {chunks} chunks were read");
        assert!(std::fs::read(&target).expect("the target") == content(chunks * CHUNK, 1));
        std::fs::remove_file(&target).expect("the target");
    }
}

/// Runs put and counts all that it reads: the source, and the little that a server says.
fn bytes_read_of(client: &Client, source: &Path, target: &Path, more: &[&str]) -> u64 {
    let put = client.put_command(source, target, more);
    let counters = client.home().join("io");
    let mut shell = Command::new("sh");
    // The kernel adds what a child has read to its parent's counters.
    shell.args(["-c", "\"$@\"; code=$?; cat /proc/$$/io >io; exit $code", "sh"]).arg(put.get_program());
    shell.args(put.get_args()).current_dir(client.home()).env("HOME", client.home());
    client.run(shell).expect(0);
    number_in(&std::fs::read_to_string(counters).expect("counters"), "rchar")
}

#[test]
fn the_chunk_size_of_the_first_run_stays_and_that_is_said() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 24 * CHUNK, 1), sshd.scratch().join("disk.img"));
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("chunks", || published(&sshd, &target).len() >= 4);
    run.kill();
    wait_idle(&sshd);
    let outcome = client.put(&source, &target, &["--chunk-size", "1MiB"]).expect(0);
    assert_eq!(outcome.number("chunks_total"), 24);
    assert!(outcome.stdout.contains("chunks of 65536 bytes"), "{}", outcome.stdout);
    assert!(std::fs::read(&target).expect("the target") == content(24 * CHUNK, 1));

    let other = sshd.scratch().join("other.img");
    let outcome = client.put(&source, &other, &["--chunk-size", "1MiB"]).expect(0);
    assert_eq!(outcome.number("chunks_total"), 2, "24 chunks of 64 KiB are 1.5 MiB");
}

#[test]
fn the_default_is_ten_mebibytes() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", (20 << 20) + 1, 1), sshd.scratch().join("disk.img"));
    let mut put = client.haul("put");
    put.arg("--json").arg(&source).arg(client.destination(&target));
    let outcome = client.run(put).expect(0);
    assert_eq!(outcome.number("chunks_total"), 3);
    assert!(std::fs::read(&target).expect("the target") == content((20 << 20) + 1, 1));
}

#[test]
fn the_rate_limit_is_kept() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 2 << 20, 1), sshd.scratch().join("disk.img"));
    for (option, rate) in [("--bwlimit=1MiB", 1_048_576.0), ("-l8192", 1_048_576.0)] {
        let outcome = client.put(&source, &target, &[option]).expect(0);
        let seconds = outcome.last()["seconds"]["upload"].as_f64().expect("seconds");
        let least = (f64::from(2 << 20) - rate / 16.0) / rate;
        assert!(seconds >= least * 0.95, "{option}: {seconds} s, not {least}");
        std::fs::remove_file(&target).expect("the target");
    }
}

#[test]
fn one_session_a_connection_is_enough() {
    let sshd = Sshd::builder().config("MaxSessions 1").start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 9 * CHUNK + 1, 1), sshd.scratch().join("disk.img"));
    for merge in ["auto", "sftp"] {
        let outcome = client.put(&source, &target, &["--merge", merge]).expect(0);
        assert_eq!(outcome.status(), "uploaded");
        assert!(std::fs::read(&target).expect("the target") == content(9 * CHUNK + 1, 1));
        assert_eq!(beside(&sshd, &target), Vec::<String>::new());
        std::fs::remove_file(&target).expect("the target");
    }
}

#[test]
fn a_lost_connection_is_made_again_and_the_upload_goes_on() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 40 * CHUNK, 1), sshd.scratch().join("disk.img"));
    let mut run = client.start_put(&source, &target, &[SLOW]);
    run.until("chunks", || published(&sshd, &target).len() >= 4);
    sshd.kill_all_sessions();
    let outcome = run.wait().expect(0);
    assert!(outcome.events().iter().any(|event| event["event"] == "retry"), "{}", outcome.stdout);
    assert!(outcome.number("chunks_sent") == 40, "{outcome:?}");
    assert!(std::fs::read(&target).expect("the target") == content(40 * CHUNK, 1));
    assert_eq!(beside(&sshd, &target), Vec::<String>::new());
}
