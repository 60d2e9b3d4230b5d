//! Rows B1 to B10 of what haul has to do, with every login shell and every `sh`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use super::stage::{PATIENCE, Stage, processes_with, signal};
use crate::harness::{Sshd, wait_until};
use crate::scripts::shells::{Machine, find};

/// B1: waits, gives arguments, status and output as a result per host.
fn b1_result(stage: &Stage) {
    let outcome = stage.run(&["--capture"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(outcome.code, 7, "{}", outcome.errors());
    let result: serde_json::Value = serde_json::from_slice(&outcome.stdout).expect("one JSON object");
    assert_eq!(result["event"], "result");
    assert_eq!(result["host"], "127.0.0.1");
    assert_eq!(result["args"], serde_json::json!(["sh", "-c", "echo out; echo err >&2; exit 7"]));
    assert_eq!((&result["exit_status"], &result["exit_code"]), (&7.into(), &7.into()));
    assert_eq!((&result["stdout"], &result["stderr"]), (&"out\n".into(), &"err\n".into()));
}

/// B2: arguments arrive as given; one string for a shell where asked for.
fn b2_arguments(stage: &Stage) {
    let words = [
        "", "a b", "'", "\"", "\\", "\\\\n", "$HOME", "!!", "*", "~", "-n", "\n", "a\nb\n", "{x,y}", "%s",
        "é",
    ];
    let mut command = vec!["printf", "%s|"];
    command.extend(words);
    let outcome = stage.run(&[], &command);
    assert_eq!(outcome.code, 0, "{}", outcome.errors());
    assert_eq!(outcome.text(), words.map(|word| format!("{word}|")).concat());

    let outcome = stage.run(&["--shell", "printf '%s\n' \"a  b\" | tr a-z A-Z; echo $((6 * 7))"], &[]);
    assert_eq!((outcome.code, outcome.text().as_str()), (0, "A  B\n42\n"), "{}", outcome.errors());
}

/// B3: a status other than 0 is reported, and with --check an error that says more.
fn b3_check(stage: &Stage) {
    let failing = ["sh", "-c", "echo one >&2; echo 'two\t' >&2; exit 3"];
    let outcome = stage.run(&[], &failing);
    assert_eq!((outcome.code, outcome.errors().as_str()), (3, "one\ntwo\t\n"));
    let outcome = stage.run(&["--check"], &failing);
    assert_eq!(outcome.code, 3);
    let errors = outcome.errors();
    let line = errors.lines().last().expect("an error line");
    assert_eq!(line, "haul: 127.0.0.1: 'sh' ended with exit status 3: one | two\\x09");
    assert_eq!(stage.run(&["--check"], &["true"]).errors(), "");
}

/// B4: stdout and stderr apart, captured (see B1), merged or discarded.
fn b4_streams(stage: &Stage) {
    let both = ["sh", "-c", "echo 1; echo 2 >&2; echo 3; echo 4 >&2"];
    let outcome = stage.run(&[], &both);
    assert_eq!((outcome.text().as_str(), outcome.errors().as_str()), ("1\n3\n", "2\n4\n"));
    let outcome = stage.run(&["--merge-stderr"], &both);
    assert_eq!((outcome.text().as_str(), outcome.errors().as_str()), ("1\n2\n3\n4\n", ""));
    let outcome = stage.run(&["--discard-output"], &both);
    assert_eq!((outcome.code, outcome.text().as_str(), outcome.errors().as_str()), (0, "", ""));
}

/// B5 and B9: a timeout ends the whole group, also what does not want to.
fn b5_b9_timeout(stage: &Stage) {
    let (one, two) = (stage.unique(), stage.unique());
    let text = format!("trap '' TERM; (sleep {one} &); sleep {two} & echo begun; wait; sleep {one}");
    let outcome = stage.run(&["--timeout", "2s", "--grace", "500ms"], &["sh", "-c", &text]);
    assert_eq!((outcome.code, outcome.text().as_str()), (124, "begun\n"), "{}", outcome.errors());
    assert!(outcome.errors().contains("timed out after 2 s"), "{}", outcome.errors());
    assert_eq!((processes_with(&one), processes_with(&two)), (vec![], vec![]));
}

/// B6: a talk line by line; the end of the input arrives.
fn b6_talk(stage: &Stage) {
    let mut command = stage.exec();
    command.args(["127.0.0.1", "--", "sh", "-c", "while read -r line; do echo \"<$line>\"; done; echo over"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("haul starts");
    let mut stdin = child.stdin.take().expect("stdin");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    for number in 0..3 {
        writeln!(stdin, "line {number}").expect("write");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("an answer");
        assert_eq!(line, format!("<line {number}>\n"));
    }
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "over\n");
    assert!(child.wait().expect("haul ends").success());
}

/// B7: joined by a local pipe, binary-safe.
fn b7_pipeline(stage: &Stage) {
    let data: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    let (source, target) = (stage.scratch("source"), stage.scratch("target"));
    std::fs::write(&source, &data).expect("write");
    let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let mut first = stage.exec();
    first.args(["127.0.0.1", "--", "cat", &path(&source)]);
    let mut first = first.stdout(Stdio::piped()).spawn().expect("haul starts");
    let mut second = stage.exec();
    second.args(["127.0.0.1", "--", "dd", &format!("of={}", path(&target))]).stderr(Stdio::null());
    second.stdin(first.stdout.take().expect("stdout"));
    assert!(second.status().expect("haul runs").success());
    assert!(first.wait().expect("haul ends").success());
    assert!(std::fs::read(&target).expect("read") == data);
    std::fs::remove_file(&target).expect("remove");
}

/// B8: signals reach the program, or its whole group.
fn b8_signals(stage: &Stage) {
    // A member of the group and the leader; each says what it got. That all is ready is
    // said by another process, so that no signal comes into the middle of it.
    let text = "
        for name in HUP QUIT USR1 USR2; do trap \"echo leader $name\" $name; done
        trap 'exit 5' TERM
        sh -c 'trap \"echo member HUP\" HUP; trap \"echo member USR1\" USR1; trap \"echo member USR2\" USR2
               trap exit TERM; env echo up; while :; do sleep 0.05; done' &
        while :; do wait; done";
    let heard = |options: &[&str], name: &str, expected: &[&str]| {
        let mut child = stage.start(options, &["sh", "-c", text]);
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, "up\n");
        signal(name, child.id());
        for _ in expected {
            stdout.read_line(&mut line).expect("a line");
        }
        let mut lines: Vec<&str> = line.lines().skip(1).collect();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{name}");
        signal("TERM", child.id());
        assert_eq!(child.wait().expect("haul ends").code(), Some(143));
    };
    heard(&[], "USR1", &["leader USR1", "member USR1"]);
    heard(&[], "HUP", &["leader HUP", "member HUP"]);
    heard(&["--signal-leader"], "USR2", &["leader USR2"]);
    heard(&[], "QUIT", &["leader QUIT"]);
}

/// B8 and B9: Ctrl-C and the loss of the client end the group.
fn b8_b9_loss(stage: &Stage) {
    for (name, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let word = stage.unique();
        let text = format!("sleep {word} & (sleep {word} &) ; echo up; sleep {word}");
        let mut child = stage.start(&["--grace", "1s"], &["sh", "-c", &text]);
        // Kept open: a reader that goes away ends the command as well.
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        wait_until("three to sleep", PATIENCE, || processes_with(&word).len() == 3);
        signal(name, child.id());
        assert_eq!(child.wait().expect("haul ends").code(), code, "{name}");
        if name == "KILL" {
            wait_until("the end of the group", PATIENCE, || processes_with(&word).is_empty());
        }
        assert_eq!(processes_with(&word), Vec::<u32>::new(), "{name}");
    }
}

/// B10: directory and environment.
fn b10_directory_and_environment(stage: &Stage) {
    assert_eq!(stage.run(&["--chdir", "/usr"], &["pwd"]).text(), "/usr\n");
    let outcome = stage.run(&["--chdir", "/no/such"], &["touch", "/tmp/never"]);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.errors(), "haul: 127.0.0.1: there is no directory '/no/such' to start in\n");
    let value = "a b'\"\\$(x)!\n=é";
    let variable = format!("HAUL_ROW={value}");
    let outcome =
        stage.run(&["--env", &variable], &["sh", "-c", "printf %s \"$HAUL_ROW\"; test -n \"$PATH\""]);
    assert_eq!((outcome.code, outcome.text().as_str()), (0, value), "{}", outcome.errors());
    let outcome = stage.run(&["--clear-env", "--env", &variable, "--env", "E="], &["env"]);
    assert_eq!((outcome.code, outcome.text()), (0, format!("{variable}\nE=\n")), "{}", outcome.errors());
}

/// 126 and 127 as a shell has them, 128 + n after a signal.
fn statuses(stage: &Stage) {
    let outcome = stage.run(&[], &["no-such-program"]);
    assert_eq!(outcome.code, 127);
    assert_eq!(outcome.errors(), "haul: 127.0.0.1: there is no program 'no-such-program' on the host\n");
    assert_eq!(stage.run(&[], &["/etc/passwd"]).code, 126);
    let outcome = stage.run(&[], &["sh", "-c", "kill -KILL $$"]);
    assert_eq!((outcome.code, outcome.errors().as_str()), (137, "haul: 127.0.0.1: 'sh' died of SIGKILL\n"));
    assert_eq!(stage.run(&[], &["sh", "-c", "exit 137"]).errors(), "");
}

fn all_rows(stage: &Stage) {
    b1_result(stage);
    b2_arguments(stage);
    b3_check(stage);
    b4_streams(stage);
    b5_b9_timeout(stage);
    b6_talk(stage);
    b7_pipeline(stage);
    b8_signals(stage);
    b8_b9_loss(stage);
    b10_directory_and_environment(stage);
    statuses(stage);
    stage.assert_all_gone();
}

fn with_login_shell(name: &str) {
    let applet = if name == "busybox" { " sh" } else { "" };
    all_rows(&Stage::login_shell(&format!("{}{applet}", find(name).display())));
}

/// The account's `sh` is another one.
fn with_sh(name: &str) {
    let machine = Machine::new(name);
    // sshd has its own PATH for every session, so it is set where the command is run.
    let forced =
        format!("ForceCommand PATH='{}' && export PATH && eval \"$SSH_ORIGINAL_COMMAND\"", machine.path());
    all_rows(&Stage::with(Sshd::builder().match_block(&forced)));
}

macro_rules! rows {
    ($($test:ident: $function:ident($shell:literal);)*) => {
        $(#[test]
        fn $test() {
            $function($shell);
        })*
    };
}

rows! {
    rows_with_login_shell_bash: with_login_shell("bash");
    rows_with_login_shell_dash: with_login_shell("dash");
    rows_with_login_shell_zsh: with_login_shell("zsh");
    rows_with_login_shell_fish: with_login_shell("fish");
    rows_with_login_shell_tcsh: with_login_shell("tcsh");
    rows_with_login_shell_mksh: with_login_shell("mksh");
    rows_with_login_shell_busybox: with_login_shell("busybox");
    rows_with_sh_bash: with_sh("bash");
    rows_with_sh_busybox: with_sh("busybox");
    rows_with_sh_mksh: with_sh("mksh");
    rows_with_sh_zsh: with_sh("zsh");
}
