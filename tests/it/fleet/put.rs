//! `haul put` onto a fleet.

use std::fs;
use std::time::{Duration, Instant};

use super::stage::{Fleet, result_of, snapshot};
use crate::harness::sshd::generate_key;
use crate::rows::client::{content, sha256};
use crate::rows::errors::Mount;

const MIB: u64 = 1 << 20;

#[test]
fn three_of_twenty_are_broken_and_the_retry_file_mends_them() {
    let mut fleet = Fleet::of(20);
    let (down, full, wrong_key) = (4, 9, 14);
    let Some(small) = Mount::tmpfs(fleet.host(full).scratch().join("dir"), "size=1m") else { return };
    for number in (1..=20).filter(|number| *number != full) {
        fs::create_dir(fleet.target(number, "dir")).expect("a directory");
    }
    fleet.hosts[down - 1].stop();
    let known_hosts = fleet.host(wrong_key).known_hosts_path();
    let right_key = fs::read_to_string(&known_hosts).expect("known_hosts");
    let other = fleet.home().join("other_key");
    generate_key(&other, "ed25519", "");
    let other = crate::harness::sshd::public_key(&other);
    let port = fleet.host(wrong_key).port();
    fs::write(&known_hosts, format!("[127.0.0.1]:{port} {other}\n")).expect("known_hosts");

    let bytes = content(3 * MIB + 5, 1);
    fs::write(fleet.home().join("img"), &bytes).expect("a source");
    let destination = format!("web:{}", fleet.path("dir/img"));
    let arguments = ["put", "--json", "--chunk-size=256k", "--retry-file=failed", "img", &destination];
    let outcome = fleet.run(&arguments).expect(3);
    let events = outcome.events();
    assert!(events.iter().all(|event| event["event"].is_string()));
    for number in 1..=20 {
        let result = result_of(&events, &Fleet::name(number));
        let target = fleet.target(number, "dir/img");
        if [down, full, wrong_key].contains(&number) {
            assert_eq!(result["status"], "failed", "{result}");
            assert!(!target.exists(), "{result}");
        } else {
            assert_eq!(
                (&result["status"], &result["verified_by"]),
                (&"uploaded".into(), &"sha256-target".into()),
                "{result}"
            );
            assert_eq!(result["sha256"], sha256(&bytes));
            assert!(fs::read(&target).expect("the target") == bytes, "{number}");
        }
    }
    for (number, code, reason) in [(down, 10, "refused"), (full, 13, "space"), (wrong_key, 10, "host key")] {
        let result = result_of(&events, &Fleet::name(number));
        assert_eq!(result["exit_code"], code, "{result}");
        let error = result["error"].as_str().expect("an error").to_lowercase();
        assert!(error.contains(reason) && error.starts_with(&Fleet::name(number)), "{error}");
    }
    let summary = outcome.last();
    assert_eq!((&summary["event"], &summary["host"]), (&"summary".into(), &serde_json::Value::Null));
    assert_eq!((&summary["succeeded"], &summary["failed"]), (&17.into(), &3.into()));
    assert_eq!(summary["failed_hosts"], serde_json::json!(["web04", "web09", "web14"]));
    assert_eq!(summary["source_bytes_read"], bytes.len(), "all hosts together read the file once");
    assert_eq!(summary["source_bytes_hashed"], bytes.len());
    let failed = fleet.home().join("failed");
    assert_eq!(fs::read_to_string(&failed).expect("a retry file"), "web04\nweb09\nweb14\n");

    fleet.hosts[down - 1].restart();
    drop(small);
    fs::write(&known_hosts, right_key).expect("known_hosts");
    let again = ["put", "--chunk-size=256k", "--retry-file=failed", "--limit=@failed", "img", &destination];
    let outcome = fleet.run(&again).expect(0);
    assert_eq!(outcome.stdout.lines().count(), 4, "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with('\n') && outcome.stdout.contains("3 hosts: 3 uploaded; "));
    for number in [down, full, wrong_key] {
        assert!(fs::read(fleet.target(number, "dir/img")).expect("the target") == bytes);
    }
    assert!(!failed.exists(), "nobody failed");

    // Again: nothing is sent, and one hash of the source serves all.
    let outcome = fleet.run(&["put", "--json", "--forks=20", "img", &destination]).expect(0);
    let summary = outcome.last();
    assert_eq!(summary["results"], serde_json::json!({"unchanged": 20}), "{summary}");
    assert_eq!((&summary["bytes_sent"], &summary["source_bytes_hashed"]), (&0.into(), &bytes.len().into()));
}

#[test]
fn a_dry_run_says_what_would_be_and_writes_nothing() {
    let fleet = Fleet::of(3);
    fs::write(fleet.home().join("img"), "content").expect("a source");
    fs::write(fleet.target(1, "img"), "content").expect("the same");
    fs::write(fleet.target(2, "img"), "another").expect("something else");
    let destination = format!("web:{}", fleet.path("img"));
    let before: Vec<_> = fleet.hosts.iter().map(|host| snapshot(&host.scratch())).collect();
    let outcome = fleet
        .run(&["put", "--dry-run", "--forks=1", "--if-exists=replace", "--json", "img", &destination])
        .expect(0);
    let after: Vec<_> = fleet.hosts.iter().map(|host| snapshot(&host.scratch())).collect();
    assert_eq!(before, after);
    assert!(before.iter().all(|names| !names.is_empty()));
    let events = outcome.events();
    // Also where they come one after another.
    assert_eq!(outcome.last()["source_bytes_hashed"], 7);
    let status = |host: &str| result_of(&events, host)["status"].as_str().expect("a status").to_owned();
    assert_eq!(
        [status("web01"), status("web02"), status("web03")],
        ["unchanged", "would-upload", "would-upload"]
    );
}

#[test]
fn the_first_failure_stops_all_resumably() {
    let fleet = Fleet::of(6);
    let bytes = content(4 * MIB, 1);
    fs::write(fleet.home().join("img"), &bytes).expect("a source");
    // Something else is at the second host's target, which is only seen once it is hashed.
    fs::write(fleet.target(2, "img"), content(4 * MIB, 2)).expect("another file");
    let destination = format!("web:{}", fleet.path("img"));
    let put = |more: &[&str]| {
        let arguments = ["put", "--json", "--chunk-size=64k", "--forks=3", "--retry-file=failed"];
        fleet.start(&[&arguments, more, &["img", &destination]].concat())
    };
    let outcome = put(&["--fail-fast", "--bwlimit=512k"]).wait().expect(3);
    let events = outcome.events();
    assert_eq!(result_of(&events, "web02")["exit_code"], 4);
    for host in ["web01", "web03"] {
        let result = result_of(&events, host);
        assert_eq!((&result["status"], &result["exit_code"]), (&"failed".into(), &130.into()), "{result}");
    }
    for number in 1..=6 {
        // Given back, whoever had it.
        let mut lock = fleet.target(number, "img").into_os_string();
        lock.push(":lock");
        assert!(!std::path::Path::new(&lock).exists(), "{number}");
    }
    assert_eq!(fs::read_to_string(fleet.home().join("failed")).expect("a file").lines().count(), 6);
    let outcome = put(&["--if-exists=replace", "--limit=@failed"]).wait().expect(0);
    assert_eq!(outcome.last()["results"], serde_json::json!({"uploaded": 6}));
    for number in 1..=6 {
        assert!(fs::read(fleet.target(number, "img")).expect("the target") == bytes);
    }
}

#[test]
fn an_interrupt_stops_all_within_seconds_also_a_host_that_hangs() {
    let fleet = Fleet::of(5);
    let bytes = content(8 * MIB, 1);
    fs::write(fleet.home().join("img"), &bytes).expect("a source");
    let destination = format!("web:{}", fleet.path("img"));
    let arguments = ["put", "--json", "--chunk-size=64k", "--forks=4", "--bwlimit=1MiB", "img", &destination];
    let mut run = fleet.start(&arguments);
    let begun = |number| fs::read_dir(fleet.host(number).scratch()).expect("a directory").count() > 0;
    run.until("four uploads", || (1..=4).all(begun));
    fleet.host(3).freeze();
    let begin = Instant::now();
    run.signal("INT");
    let outcome = run.wait().expect(130);
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    fleet.host(3).thaw();
    let events = outcome.events();
    for number in 1..=5 {
        let result = result_of(&events, &Fleet::name(number));
        assert_eq!((&result["status"], &result["exit_code"]), (&"failed".into(), &130.into()), "{result}");
    }
    assert_eq!(outcome.last()["event"], "summary");
    let outcome = fleet.run(&["put", "--json", "--chunk-size=64k", "img", &destination]).expect(0);
    assert_eq!(outcome.last()["succeeded"], 5);
    for number in 1..=5 {
        assert!(fs::read(fleet.target(number, "img")).expect("the target") == bytes);
    }
}

#[test]
fn one_limit_holds_for_all_together() {
    let fleet = Fleet::of(4);
    fs::write(fleet.home().join("img"), content(MIB, 1)).expect("a source");
    let destination = format!("web:{}", fleet.path("img"));
    let outcome = fleet.run(&["put", "--json", "--bwlimit=1MiB", "img", &destination]).expect(0);
    let summary = outcome.last();
    assert_eq!(summary["bytes_sent"], 4 * MIB);
    // Four MiB at one MiB a second; what may go ahead at once is less than a tenth of it.
    assert!(summary["seconds"].as_f64().expect("seconds") > 3.5, "{summary}");
}

#[test]
fn a_host_that_hangs_holds_up_no_other() {
    let fleet = Fleet::of(4);
    let bytes = content(24 * MIB, 1);
    fs::write(fleet.home().join("img"), &bytes).expect("a source");
    let destination = format!("web:{}", fleet.path("img"));
    fleet.host(2).freeze();
    let arguments = ["put", "--json", "--stall-timeout=120s", "img", &destination];
    let mut run = fleet.start(&arguments);
    let done = |number: usize| fleet.target(number, "img").exists();
    run.until("the other three", || done(1) && done(3) && done(4));
    assert!(!done(2));
    fleet.host(2).thaw();
    let outcome = run.wait().expect(0);
    assert_eq!(outcome.last()["source_bytes_hashed"], bytes.len());
    assert!(fs::read(fleet.target(2, "img")).expect("the target") == bytes);
}

#[test]
fn status_tells_of_every_host_in_order() {
    let mut fleet = Fleet::of(3);
    fs::write(fleet.target(1, "img"), "content").expect("a target");
    let destination = format!("web:{}", fleet.path("img"));
    let outcome = fleet.run(&["status", &destination]).expect(0);
    let places: Vec<&str> = outcome.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(places.len(), 3, "{}", outcome.stdout);
    for (place, host) in places.iter().zip(["web01:", "web02:", "web03:"]) {
        assert!(place.starts_with(host) && place.ends_with("/img"), "{place}");
    }
    fleet.hosts[1].stop();
    let outcome = fleet.run(&["status", "--json", &destination]).expect(3);
    let events = outcome.events();
    let state = |host: &str| {
        let event = events.iter().find(|event| event["event"] == "status" && event["host"] == host);
        event.map(|event| event["state"].as_str().expect("a state").to_owned())
    };
    assert_eq!(
        [state("web01"), state("web02"), state("web03")],
        [Some("complete".into()), None, Some("absent".into())]
    );
    assert_eq!(result_of(&events, "web02")["exit_code"], 10);
    assert_eq!(outcome.last()["results"], serde_json::json!({"absent": 1, "complete": 1}));
    fleet.run(&["status", "--limit=!web02", &destination]).expect(0);
    fleet.run(&["hosts", "--ping", "--forks=2"]).expect(3);
}

#[test]
fn a_person_is_not_asked_for_many() {
    let fleet = Fleet::of(2);
    fs::write(fleet.home().join("img"), "content").expect("a source");
    let destination = format!("web:{}", fleet.path("img"));
    fleet
        .run(&["put", "--if-exists=ask", "img", &destination])
        .expect(2)
        .says("--if-exists ask works on one host");
    fleet.run(&["put", "--forks=0", "img", &destination]).expect(2).says("from 1 to 1000");
    fleet.run(&["put", "--retry-file=/absent/x", "img", &destination]).expect(2).says("retry file /absent/x");
    fleet.run(&["merge", &destination]).expect(2).says("'haul merge' works on one host, and 2 were named");
    assert!((1..=2).all(|number| !fleet.target(number, "img").exists()));
}
