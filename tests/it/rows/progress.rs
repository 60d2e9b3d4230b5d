//! Row A14, and the prompt of row A1: what a person sees, and what a script reads.

use std::collections::BTreeSet;

use super::client::{CHUNK, Client, content};
use super::place::beside;
use super::terminal::Terminal;
use crate::harness::sshd::Sshd;

#[test]
fn json_tells_every_phase_and_ends_with_the_result() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 40 * CHUNK, 1);
    for merge in ["auto", "script", "sftp"] {
        let target = sshd.scratch().join(merge);
        let outcome = client.put(&source, &target, &["--merge", merge, "--bwlimit=1MiB"]).expect(0);
        let events = outcome.events();
        assert!(events.iter().all(|event| event["event"].is_string() && event["host"] == "127.0.0.1"));
        let (result, before) = events.split_last().expect("events");
        assert!(before.iter().all(|event| event["event"] != "result"));
        let phases: BTreeSet<&str> = before.iter().filter_map(|event| event["phase"].as_str()).collect();
        assert!(phases.is_superset(&["upload", "verify", "commit"].into()), "{merge}: {phases:?}");
        // Placed chunks need no merge.
        let moving = if merge == "auto" { &["upload"][..] } else { &["upload", "merge"] };
        for phase in moving.iter().copied() {
            let progress = before.iter().filter(|e| e["event"] == "progress" && e["phase"] == phase);
            let done: Vec<u64> =
                progress.clone().map(|event| event["done"].as_u64().expect("bytes")).collect();
            assert!(progress.clone().all(|event| event["total"] == 40 * CHUNK), "{merge}");
            assert!(
                done.is_sorted() && done.iter().all(|done| *done <= 40 * CHUNK),
                "{merge} {phase}: {done:?}"
            );
            assert!(done.iter().any(|done| (1..40 * CHUNK).contains(done)), "{merge} {phase}: {done:?}");
        }
        let keys: BTreeSet<&str> =
            result.as_object().expect("an object").keys().map(String::as_str).collect();
        let contract = [
            "event",
            "host",
            "status",
            "target",
            "size",
            "sha256",
            "verified_by",
            "merge",
            "chunks_total",
            "chunks_sent",
            "chunks_skipped",
            "bytes_sent",
            "resumed",
            "seconds",
        ];
        for key in contract {
            assert!(keys.contains(key), "{key}: {result}");
        }
        assert!(result["seconds"]["upload"].as_f64().is_some_and(|seconds| seconds > 1.0), "{result}");
        assert_eq!(result["merge"], if merge == "auto" { "placed" } else { merge });
        assert_eq!(outcome.stderr, "", "standard error is for people and for trouble");
    }
    let failed = client.put(&source, sshd.scratch().join("no/such"), &[]);
    let result = failed.last();
    assert_eq!((&result["status"], &result["exit_code"]), (&"failed".into(), &2.into()));
    assert!(result["error"].is_string() && result["phase"] == "survey", "{result}");
}

#[test]
fn without_a_terminal_a_plain_line_comes_every_few_seconds_and_none_when_quiet() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 100 * CHUNK, 1);
    let put = |quiet: bool| {
        let mut haul = client.haul("put");
        haul.args(["--bwlimit=512KiB", "--chunk-size=64KiB", "--user-id=alice"]);
        if quiet {
            haul.arg("-q");
        }
        haul.arg(&source).arg(client.destination(sshd.scratch().join(format!("quiet-{quiet}"))));
        client.start(haul)
    };
    let [plain, quiet] = [put(false), put(true)].map(|run| run.wait().expect(0));
    let lines: Vec<&str> = plain.stderr.lines().filter(|line| line.contains(": upload ")).collect();
    assert!(!lines.is_empty(), "{}", plain.stderr);
    for line in lines {
        for part in ["haul: 127.0.0.1: upload ", " of 6.3 MiB, ", " %, ", "/s, ", " left"] {
            assert!(line.contains(part), "{part} is not in: {line}");
        }
    }
    assert!(!plain.stderr.contains('\r') && !plain.stderr.contains('\u{1b}'), "{:?}", plain.stderr);
    assert!(
        plain.stdout.contains("uploaded 6.3 MiB") && plain.stdout.contains("sha256 "),
        "{}",
        plain.stdout
    );
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn at_a_terminal_there_is_one_bar() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 60 * CHUNK, 1);
    let mut haul = client.haul("put");
    haul.args(["--bwlimit=1MiB", "--chunk-size=64KiB", "--user-id=alice"]);
    haul.arg(&source).arg(client.destination(sshd.scratch().join("disk.img")));
    let (code, screen) = Terminal::start(&haul, client.home()).finish();
    assert_eq!(code, Some(0), "{screen}");
    for part in ["127.0.0.1 upload", "[", "of 3.8 MiB", "/s", " left", "uploaded 3.8 MiB"] {
        assert!(screen.contains(part), "{part} is not on: {screen}");
    }
}

#[test]
fn a_person_is_asked_before_different_content_is_replaced() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 3 * CHUNK, 1), sshd.scratch().join("disk.img"));
    for (option, answer, code) in [
        (None, "n\n", 4),
        (None, "\n", 4),
        (None, "what?\nno\n", 4),
        (Some("ask"), "y\n", 0),
        (None, "yes\n", 0),
    ] {
        std::fs::write(&target, "old").expect("an old file");
        let mut haul = client.haul("put");
        haul.arg("--user-id=alice");
        if let Some(option) = option {
            haul.args(["--if-exists", option]);
        }
        haul.arg(&source).arg(client.destination(&target));
        let mut terminal = Terminal::start(&haul, client.home());
        terminal.expect("Replace it? [y/N]");
        assert!(
            terminal.screen().contains("disk.img exists with other content (3 B"),
            "{}",
            terminal.screen()
        );
        assert_eq!(std::fs::read(&target).expect("the target"), b"old", "nothing before the answer");
        terminal.type_in(answer);
        let (status, screen) = terminal.finish();
        assert_eq!(status, Some(code), "{answer:?}: {screen}");
        let now = std::fs::read(&target).expect("the target");
        assert!(if code == 0 { now == content(3 * CHUNK, 1) } else { now == b"old" }, "{answer:?}");
        assert_eq!(beside(&sshd, &target), Vec::<String>::new());
    }
    // Identical content is no question.
    std::fs::copy(&source, &target).expect("a copy");
    let mut haul = client.haul("put");
    haul.arg("--user-id=alice").arg(&source).arg(client.destination(&target));
    let (status, screen) = Terminal::start(&haul, client.home()).finish();
    assert_eq!(status, Some(0), "{screen}");
    assert!(screen.contains("unchanged") && !screen.contains("Replace"), "{screen}");
}

#[test]
fn ctrl_c_at_a_terminal_stops_and_says_how_to_go_on() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 100 * CHUNK, 1);
    let mut haul = client.haul("put");
    haul.args(["--bwlimit=512KiB", "--chunk-size=64KiB", "--user-id=alice"]);
    haul.arg(&source).arg(client.destination(sshd.scratch().join("disk.img")));
    let mut terminal = Terminal::start(&haul, client.home());
    terminal.expect("127.0.0.1 upload");
    terminal.type_in("\u{3}");
    let (status, screen) = terminal.finish();
    assert_eq!(status, Some(130), "{screen}");
    assert!(screen.contains("run the same command again to"), "{screen}");
    assert_eq!(beside(&sshd, &sshd.scratch().join("disk.img")), ["disk.img:alice"]);
}

#[test]
fn the_pace_is_explained() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 40 * CHUNK, 1);
    let target = sshd.scratch().join("disk.img");
    let outcome = client.put(&source, &target, &["--bwlimit=2MiB", "-v"]).expect(0);
    let result = outcome.last();
    assert_eq!(result["limited_by"], "bwlimit", "{result}");
    assert_eq!(result["connections"], 1, "{result}");
    assert!(result["round_trip"].as_f64().is_some_and(|seconds| seconds > 0.0), "{result}");
    assert!(
        result["bytes_in_flight"].as_u64().is_some_and(|bytes| (1..40 * CHUNK).contains(&bytes)),
        "{result}"
    );
    assert_eq!(result["bytes"]["upload"], 40 * CHUNK, "{result}");
    let explained = "over one connection, round trip ";
    assert!(
        outcome.stdout.contains(explained) && outcome.stdout.contains(": limited by --bwlimit"),
        "{outcome:?}"
    );
    // Nothing was sent, so nothing can be said of it.
    let outcome = client.put(&source, &target, &[]).expect(0);
    assert_eq!(
        (outcome.status().as_str(), &outcome.last()["limited_by"]),
        ("unchanged", &serde_json::Value::Null)
    );
}
