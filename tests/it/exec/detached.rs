//! Commands that go on without haul, and the way back to them.

use super::stage::{PATIENCE, Stage, processes_with};
use crate::harness::wait_until;

fn id_of(outcome: &super::stage::Outcome) -> String {
    assert_eq!(outcome.code, 0, "{}", outcome.errors());
    outcome.text().trim_end().to_owned()
}

#[test]
fn output_and_status_are_fetched_later() {
    let stage = Stage::new();
    let id = id_of(
        &stage.run(&["--detach"], &["sh", "-c", "echo out; echo err >&2; sleep 0.5; echo late; exit 5"]),
    );
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    for _ in 0..2 {
        let outcome = stage.run(&["--attach", &id], &[]);
        assert_eq!((outcome.code, outcome.text().as_str()), (5, "out\nlate\n"), "{}", outcome.errors());
        assert_eq!(outcome.errors(), "err\n");
    }
    assert_eq!(stage.run(&["--attach", &id, "--forget"], &[]).code, 5);
    let outcome = stage.run(&["--attach", &id], &[]);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.errors(), "haul: 127.0.0.1: the host knows no detached command by that id\n");
}

#[test]
fn it_goes_on_when_every_connection_is_gone() {
    let mut stage = Stage::new();
    let word = stage.unique();
    let id = id_of(&stage.run(&["--detach"], &["sleep", &word]));
    // Nothing of sshd's is needed for it to go on.
    stage.assert_all_gone();
    stage.sshd.restart();
    assert_eq!(processes_with(&word).len(), 1);
    // Looking on and leaving does it no harm.
    let looking = stage.run(&["--attach", &id, "--timeout", "1s"], &[]);
    assert_eq!(looking.code, 124, "{}", looking.errors());
    assert!(
        looking.errors().ends_with("timed out after 1 s and was left to go on\n"),
        "{}",
        looking.errors()
    );
    let outcome = stage.run(&["--attach", &id, "--no-wait"], &[]);
    assert_eq!(outcome.code, 0);
    assert!(outcome.errors().contains("still runs"), "{}", outcome.errors());
    assert_eq!(processes_with(&word).len(), 1);

    assert_eq!(stage.run(&["--attach", &id, "--signal", "TERM"], &[]).code, 0);
    wait_until("its end", PATIENCE, || processes_with(&word).is_empty());
    assert_eq!(stage.run(&["--attach", &id], &[]).code, 143);
    let outcome = stage.run(&["--attach", &id, "--signal", "TERM"], &[]);
    assert_eq!(outcome.errors(), "haul: 127.0.0.1: the command has ended already\n");
    assert_eq!(stage.run(&["--attach", &id, "--forget"], &[]).code, 143);
}

#[test]
fn signals_reach_its_group_or_the_program_alone() {
    let stage = Stage::new();
    let word = stage.unique();
    // INT too, which a shell's background jobs ignore.
    let text = format!("trap 'echo got INT' INT; sleep {word}; echo awake; sleep {word}");
    let id = id_of(&stage.run(&["--detach"], &["sh", "-c", &text]));
    wait_until("its sleep", PATIENCE, || processes_with(&word).len() == 1);
    let sleeper = processes_with(&word);
    assert_eq!(stage.run(&["--attach", &id, "--signal", "INT"], &[]).code, 0);
    wait_until("its second sleep", PATIENCE, || {
        let now = processes_with(&word);
        now.len() == 1 && now != sleeper
    });
    assert_eq!(stage.run(&["--attach", &id, "--signal", "KILL", "--signal-leader"], &[]).code, 0);
    let outcome = stage.run(&["--attach", &id, "--forget"], &[]);
    assert_eq!((outcome.code, outcome.text().as_str()), (137, "got INT\nawake\n"), "{}", outcome.errors());
    assert_eq!(processes_with(&word).len(), 1);
    super::stage::signal("KILL", processes_with(&word)[0]);
}

#[test]
fn its_input_comes_whole_from_a_file() {
    let stage = Stage::new();
    let data: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let file = stage.scratch("input");
    std::fs::write(&file, &data).expect("write");
    let id = id_of(&stage.run(&["--detach", "--stdin", file.to_str().expect("UTF-8")], &["cat"]));
    let outcome = stage.run(&["--attach", &id, "--forget"], &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.errors());
    assert!(outcome.stdout == data);
}

#[test]
fn what_cannot_start_is_said_at_once() {
    let stage = Stage::new();
    assert_eq!(stage.run(&["--detach"], &["no-such-program"]).code, 127);
    assert_eq!(stage.run(&["--detach", "--chdir", "/no/such"], &["true"]).code, 1);
    let id = id_of(&stage.run(&["--detach"], &["true"]));
    assert_eq!(stage.run(&["--attach", &id, "--forget"], &[]).code, 0);
}

#[test]
fn its_state_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let stage = Stage::new();
    let id = id_of(&stage.run(&["--detach"], &["sh", "-c", "umask; echo out"]));
    let outcome = stage.run(&["--attach", &id], &[]);
    assert!(outcome.text().ends_with("22\nout\n"), "the program's own umask: {}", outcome.text());
    let directory = stage.home().join(".local/state/haul/exec").join(&id);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["pid", "status", "stderr", "stdout"]);
    for name in names {
        assert_eq!(mode(&directory.join(&name)), 0o600, "{name}");
    }
}
