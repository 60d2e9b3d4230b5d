//! `haul exec` on a fleet.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::stage::{Fleet, result_of};
use crate::exec::stage::processes_with;
use crate::harness::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

/// A number of seconds, about a day, that no other process sleeps.
fn unique_sleep() -> String {
    let mut random = [0; 4];
    getrandom::fill(&mut random).expect("random bytes");
    format!("86400.{}", u32::from_le_bytes(random))
}

#[test]
fn every_line_bears_its_host() {
    let fleet = Fleet::of(3);
    let script = "printf 'one\\ntwo'; printf 'trouble\\n' >&2";
    let outcome = fleet.run(&["exec", "--shell", script, "web"]).expect(0);
    let expected = ["web01: one", "web01: two", "web02: one", "web02: two", "web03: one", "web03: two"];
    assert_eq!(lines(&outcome.stdout), expected.into());
    assert!(outcome.stdout.ends_with('\n'));
    let expected = ["web01: trouble", "web02: trouble", "web03: trouble"];
    let errors: BTreeSet<&str> = outcome.stderr.lines().filter(|line| line.starts_with("web")).collect();
    assert_eq!(errors, expected.into());
    assert!(outcome.stderr.contains("3 hosts: 3 exit 0; "), "{}", outcome.stderr);

    // Long lines of all hosts at once stay whole.
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); printf '%0200d\\n' $i; done";
    let outcome = fleet.run(&["exec", "-q", "--shell", script, "web"]).expect(0);
    assert_eq!((outcome.stdout.lines().count(), outcome.stderr.as_str()), (600, ""));
    for host in ["web01: ", "web02: ", "web03: "] {
        let mine: Vec<&str> = outcome.stdout.lines().filter_map(|line| line.strip_prefix(host)).collect();
        let expected: Vec<String> = (1..=200).map(|n| format!("{n:0200}")).collect();
        assert_eq!(mine, expected);
    }
}

#[test]
fn statuses_make_three_and_the_retry_file() {
    let fleet = Fleet::of(3);
    let script = format!("[ $SSH_CONNECTION_PORT -ne {} ]", fleet.host(2).port());
    let script = format!("SSH_CONNECTION_PORT=${{SSH_CONNECTION##* }}; {script} || exit 7");
    let outcome = fleet.run(&["exec", "--retry-file=failed", "--json", "--shell", &script, "web"]).expect(3);
    let events = outcome.events();
    let status = |host: &str| result_of(&events, host)["exit_code"].as_u64();
    assert_eq!([status("web01"), status("web02"), status("web03")], [Some(0), Some(7), Some(0)]);
    let summary = outcome.last();
    assert_eq!(
        (&summary["event"], &summary["failed_hosts"]),
        (&"summary".into(), &serde_json::json!(["web02"]))
    );
    assert_eq!(fs::read_to_string(fleet.home().join("failed")).expect("a retry file"), "web02\n");
    // One host has its own status, also when it is one of a group.
    fleet.run(&["exec", "--limit=@failed", "--shell", &script, "web"]).expect(7);
    fleet.run(&["exec", "--limit=web0[12],!web01", "--shell", "exit 9", "web"]).expect(9);
    fleet
        .run(&["exec", "--limit=nobody", "web", "--", "true"])
        .expect(2)
        .says("'nobody' is none of the hosts");
    fleet.run(&["exec", "web,!web", "--", "true"]).expect(2).says("matches nothing");
}

#[test]
fn outputs_go_to_files_or_into_groups() {
    let fleet = Fleet::of(4);
    let script = format!(
        "[ ${{SSH_CONNECTION##* }} = {} ] && echo odd || echo even; echo e >&2",
        fleet.host(3).port()
    );
    let outcome = fleet.run(&["exec", "-q", "--group-output", "--shell", &script, "web"]).expect(0);
    assert_eq!(
        outcome.stdout,
        "== web01, web02, web04 (3 hosts, exit 0) ==\neven\n== web03 (exit 0) ==\nodd\n"
    );
    assert_eq!(outcome.stderr, "e\ne\n");

    let directory = fleet.home().join("out/put");
    let file =
        |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let name = directory.to_str().expect("UTF-8");
    let outcome = fleet.run(&["exec", "-q", "--per-host-output", name, "--shell", &script, "web"]).expect(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 8);
    assert_eq!(
        [file("web03.stdout"), file("web04.stdout"), file("web04.stderr")],
        ["odd\n", "even\n", "e\n"]
    );
    // Nothing of an earlier run stays.
    fleet.run(&["exec", "-q", "--per-host-output", name, "web", "--", "true"]).expect(0);
    assert_eq!(file("web03.stdout"), "");
    fs::write(fleet.home().join("file"), "").expect("a file");
    fleet.run(&["exec", "--per-host-output", "file", "web", "--", "true"]).expect(2).says("file: ");
}

#[test]
fn standard_input_is_a_file_for_each_or_none() {
    let fleet = Fleet::of(2);
    fs::write(fleet.home().join("list"), "b\na\n").expect("a file");
    let outcome = fleet.run(&["exec", "--stdin", "list", "web", "--", "sort"]).expect(0);
    let expected = ["web01: a", "web01: b", "web02: a", "web02: b"];
    assert_eq!(lines(&outcome.stdout), expected.into());
    fleet.run(&["exec", "-t", "web", "--", "true"]).expect(2).says("-t works on one host");
    let with_input = |options: &[&str], input: Stdio| {
        let mut command = fleet.haul(&["exec"]);
        command.args(options).args(["web", "--", "cat"]).stdin(input).output().expect("haul runs")
    };
    let list = || fs::File::open(fleet.home().join("list")).expect("a file");
    let output = with_input(&[], list().into());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--stdin FILE gives it to each"));
    let output = with_input(&["-n"], list().into());
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b""[..]));
    // What nobody reads stays where it is.
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut writer, b"kept").expect("written");
    drop(writer);
    let output = with_input(&[], reader.try_clone().expect("a pipe").into());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::io::read_to_string(reader).expect("read"), "kept");
}

#[test]
fn check_stops_the_others_and_nothing_of_them_is_left() {
    let fleet = Fleet::of(6);
    let sleep = unique_sleep();
    let bad = fleet.host(2).port();
    // The bad host waits until the others that run with it sleep.
    let ready = fleet.home().join("ready");
    let script = format!(
        "if [ ${{SSH_CONNECTION##* }} = {bad} ]; then until [ -e '{}' ]; do sleep 0.05; done; echo reason >&2; exit 3; fi; \
         exec sleep {sleep}",
        ready.display()
    );
    let mut run = fleet.start(&[
        "exec",
        "--check",
        "--forks=3",
        "--retry-file=failed",
        "--json",
        "--shell",
        &script,
        "web",
    ]);
    run.until("two that sleep", || processes_with(&sleep).len() == 2);
    fs::write(&ready, "").expect("ready");
    let outcome = run.wait_for(PATIENCE).expect(3);
    let events = outcome.events();
    assert_eq!(result_of(&events, "web02")["exit_code"], 3);
    let error = result_of(&events, "web02")["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("exit status 3") && error.contains("reason"), "{error}");
    for host in ["web01", "web03"] {
        let result = result_of(&events, host);
        assert_eq!(
            (&result["status"], &result["exit_code"]),
            (&"interrupted".into(), &130.into()),
            "{result}"
        );
    }
    for host in ["web04", "web05", "web06"] {
        let result = result_of(&events, host);
        assert!(
            result["error"].as_str().expect("an error").contains("not begun, since web02 failed"),
            "{result}"
        );
    }
    wait_until("the end of the others", PATIENCE, || processes_with(&sleep).is_empty());
    assert_eq!(fs::read_to_string(fleet.home().join("failed")).expect("a file").lines().count(), 6);
}

#[test]
fn an_interrupt_ends_all_hosts_also_those_that_are_silent() {
    let fleet = Fleet::of(5);
    let sleep = unique_sleep();
    let mut run = fleet.start(&["exec", "--forks=4", "web", "--", "sleep", &sleep]);
    run.until("four that sleep", || processes_with(&sleep).len() == 4);
    let begin = Instant::now();
    run.signal("INT");
    let outcome = run.wait_for(PATIENCE).expect(130);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(outcome.stderr.contains("web01: 'sleep' was ended because of SIGINT"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("web05: not begun"), "{}", outcome.stderr);
    wait_until("the end of all", PATIENCE, || processes_with(&sleep).is_empty());
}
