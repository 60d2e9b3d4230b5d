//! `haul put` onto a fleet.

use std::fs;

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
                (&"uploaded".into(), &"sha256-target".into())
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
    let outcome =
        fleet.run(&["put", "--dry-run", "--if-exists=replace", "--json", "img", &destination]).expect(0);
    let after: Vec<_> = fleet.hosts.iter().map(|host| snapshot(&host.scratch())).collect();
    assert_eq!(before, after);
    assert!(before.iter().all(|names| !names.is_empty()));
    let events = outcome.events();
    let status = |host: &str| result_of(&events, host)["status"].as_str().expect("a status").to_owned();
    assert_eq!(
        [status("web01"), status("web02"), status("web03")],
        ["unchanged", "would-upload", "would-upload"]
    );
}
