//! How commands end from this side, and what must not be left then.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stage::{PATIENCE, Stage, outcome, processes_with, signal};
use crate::harness::account::Account;
use crate::harness::{Sshd, wait_until};

#[test]
fn a_timeout_asks_first() {
    let stage = Stage::new();
    let text = "trap 'echo cleaned up; exit 0' TERM; echo begun; while :; do sleep 0.05; done";
    let outcome = stage.run(&["--timeout", "1s", "--grace", "60s"], &["sh", "-c", text]);
    assert_eq!((outcome.code, outcome.text().as_str()), (124, "begun\ncleaned up\n"), "{}", outcome.errors());
}

#[test]
fn a_daemon_without_setsid_is_ended_too() {
    let stage = Stage::new();
    let word = stage.unique();
    // Twice forked, apart from its streams and deaf to HUP and TERM.
    let text =
        format!("( (trap '' HUP TERM; exec sleep {word} </dev/null >/dev/null 2>&1) & ) ; sleep {word}");
    let outcome = stage.run(&["--timeout", "2s", "--grace", "500ms"], &["sh", "-c", &text]);
    assert_eq!(outcome.code, 124, "{}", outcome.errors());
    assert_eq!(processes_with(&word), Vec::<u32>::new());
}

#[test]
fn a_second_interrupt_kills() {
    let stage = Stage::new();
    let word = stage.unique();
    let text = format!("trap '' INT TERM; echo up; sleep {word}");
    let mut child = stage.start(&["--grace", "600s"], &["sh", "-c", &text]);
    // Kept open: a reader that goes away ends the command as well.
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    wait_until("its sleep", PATIENCE, || !processes_with(&word).is_empty());
    signal("INT", child.id());
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("a look").is_none(), "haul waits for the end that was asked for");
    signal("INT", child.id());
    assert_eq!(child.wait().expect("haul ends").code(), Some(130));
    wait_until("its end", PATIENCE, || processes_with(&word).is_empty());
}

#[test]
fn a_child_that_holds_the_pipes_does_not_hold_haul() {
    let stage = Stage::new();
    let word = stage.unique();
    let text = format!("sleep {word} & echo done; exit 3");
    let begin = Instant::now();
    let outcome = stage.run(&[], &["sh", "-c", &text]);
    assert_eq!((outcome.code, outcome.text().as_str()), (3, "done\n"), "{}", outcome.errors());
    assert!(begin.elapsed() < PATIENCE);
    // What was left behind on purpose goes on, as with subprocess.
    assert_eq!(processes_with(&word).len(), 1);
    signal("KILL", processes_with(&word)[0]);
}

#[test]
fn a_child_that_goes_on_writing_does_not_hold_haul() {
    let stage = Stage::new();
    let word = stage.unique();
    let text = format!("(while [ -e /proc/self ]; do echo noise; sleep 0.2; done) & echo {word}; exit 4");
    let mut child = stage.start(&[], &["sh", "-c", &text]);
    let mut text = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut text).expect("read");
    assert_eq!(child.wait().expect("haul ends").code(), Some(4));
    assert!(text.contains(&word), "{text}");
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let stage = Stage::new();
    // One that writes, and one that never does.
    let word = stage.unique();
    for words in [vec!["sh", "-c", "yes $0", &word], vec!["sleep", &word]] {
        let mut child = stage.start(&[], &words);
        let mut stdout = child.stdout.take().expect("stdout");
        if words[0] == "sh" {
            stdout.read_exact(&mut [0; 100_000]).expect("read");
        } else {
            wait_until("its start", PATIENCE, || !processes_with(&word).is_empty());
        }
        drop(stdout);
        let status = child.wait().expect("haul ends");
        assert_eq!(status.code(), Some(141), "{words:?}");
        wait_until("its end", PATIENCE, || {
            // haul itself had the word among its arguments.
            processes_with(&word).is_empty()
        });
    }
}

#[test]
fn a_stopped_reader_keeps_no_signal_away() {
    let stage = Stage::new();
    let word = stage.unique();
    let mut child = stage.start(&["--grace", "1s"], &["sh", "-c", "yes $0", &word]);
    let mut stdout = child.stdout.take().expect("stdout");
    stdout.read_exact(&mut [0; 1000]).expect("read");
    // The flood has come to a stand when the program waits: its time stands still.
    let leader = processes_with(&word).into_iter().find(|pid| *pid != child.id()).expect("the command");
    let time = || {
        let text = std::fs::read_to_string(format!("/proc/{leader}/stat")).unwrap_or_default();
        text.split_whitespace().skip(13).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut before = time();
    wait_until("a stand", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(500));
        let now = time();
        std::mem::replace(&mut before, now.clone()) == now
    });
    let memory = resident_kilobytes(child.id());
    assert!(memory < 100_000, "{memory} kB");
    signal("TERM", child.id());
    wait_until("the end of the flood", PATIENCE, || {
        processes_with(&word).iter().all(|pid| *pid == child.id())
    });
    let memory = resident_kilobytes(child.id());
    assert!(memory < 150_000, "{memory} kB");
    assert_eq!(child.wait().expect("haul ends").code(), Some(143));
    drop(stdout);
}

fn resident_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn one_channel_a_connection_is_enough() {
    let stage = Stage::with(Sshd::builder().config("MaxSessions 1"));
    let word = stage.unique();
    let text = format!("trap '' TERM; sleep {word} & echo begun; wait; sleep {word}");
    let outcome = stage.run(&["--timeout", "2s", "--grace", "500ms"], &["sh", "-c", &text]);
    assert_eq!((outcome.code, outcome.text().as_str()), (124, "begun\n"));
    assert!(!outcome.errors().contains("no second channel"), "{}", outcome.errors());
    assert_eq!(processes_with(&word), Vec::<u32>::new());
}

#[test]
fn an_account_without_rights_is_served_as_well() {
    let Some(account) = Account::create() else { return };
    let stage = Stage::new();
    let word = stage.unique();
    let mut command = stage.exec();
    // The first of a keyword counts, so the account comes by the host's name.
    let host = format!("{}@127.0.0.1", account.name());
    command.args(["--timeout", "2s", "--grace", "500ms", &host, "--", "sh", "-c"]);
    command.arg(format!("id -un; (trap '' TERM; sleep {word}) & sleep {word}"));
    let outcome = outcome(command, None);
    assert_eq!(
        (outcome.code, outcome.text()),
        (124, format!("{}\n", account.name())),
        "{}",
        outcome.errors()
    );
    assert_eq!(processes_with(&word), Vec::<u32>::new());
}

#[test]
fn a_link_that_dies_is_255_and_the_command_is_ended() {
    let stage = Stage::new();
    let word = stage.unique();
    let mut child = stage.start(&["--grace", "1s"], &["sleep", &word]);
    let served = || processes_with(&word).into_iter().filter(|pid| *pid != child.id()).collect::<Vec<_>>();
    wait_until("its start", PATIENCE, || !served().is_empty());
    // sshd's own processes alone: what they have started stands in their session.
    for pid in stage.sshd.session_processes() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.starts_with("sshd") {
            let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).stderr(Stdio::null()).status();
        }
    }
    wait_until("the end of the command", PATIENCE, || served().is_empty());
    let mut errors = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut errors).expect("read");
    assert_eq!(child.wait().expect("haul ends").code(), Some(255), "{errors}");
    assert!(errors.contains("the connection ended before the command told its status"), "{errors}");
}

#[test]
fn a_host_without_a_shell_says_so() {
    let stage = Stage::with(Sshd::builder().force_internal_sftp());
    let outcome = stage.run(&[], &["true"]);
    assert_eq!(outcome.code, 255);
    assert!(outcome.errors().contains("no POSIX shell answers there"), "{}", outcome.errors());
    let stage =
        Stage::with(Sshd::builder().match_block("ForceCommand echo 'This account is not available'; exit 1"));
    let outcome = stage.run(&[], &["true"]);
    assert_eq!(outcome.code, 255);
    assert!(outcome.errors().contains("it said 'This account is not available'"), "{}", outcome.errors());
}

#[test]
fn a_login_that_talks_does_no_harm() {
    let stage = Stage::with(Sshd::builder().match_block(
        "ForceCommand echo hello from the profile; printf 'and no newline'; echo grumble >&2; eval \"$SSH_ORIGINAL_COMMAND\"",
    ));
    let outcome = stage.run(&[], &["sh", "-c", "echo mine; echo my error >&2"]);
    assert_eq!(
        (outcome.code, outcome.text().as_str(), outcome.errors().as_str()),
        (0, "mine\n", "my error\n")
    );
}

#[test]
fn only_what_never_started_is_tried_again() {
    let mut stage = Stage::new();
    let marks = stage.scratch("marks");
    // It ran and the link died: once and never again.
    let text = format!("echo ran >> '{}'; sleep 1000", marks.display());
    let child = stage.start(&["--retries", "5", "--grace", "0s"], &["sh", "-c", &text]);
    wait_until("its start", PATIENCE, || marks.exists());
    stage.sshd.kill_all_sessions();
    let output = child.wait_with_output().expect("haul ends");
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(std::fs::read_to_string(&marks).expect("read"), "ran\n");

    // Nobody answered: again, until somebody does.
    stage.sshd.stop();
    let mut child = stage.start(&["--retries", "50"], &["echo", "there"]);
    let mut errors = BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("a line");
    assert!(line.contains("trying again"), "{line}");
    stage.sshd.restart();
    let output = child.wait_with_output().expect("haul ends");
    assert_eq!((output.status.code(), output.stdout), (Some(0), b"there\n".to_vec()));
}
