//! `-t`: a terminal with its size, raw on this side, and put back whatever happens.

use std::io::Write;
use std::process::{Command, Stdio};

use super::stage::Stage;
use crate::harness::sshd::terminals_work;
use crate::scripts::shells::find;

/// Runs haul in a terminal of Python's making and gives what the script says.
fn in_a_terminal(stage: &Stage, options: &[&str], remote: &str, act: &str) -> String {
    let haul = stage.exec();
    let mut words: Vec<String> = vec![haul.get_program().to_string_lossy().into_owned()];
    words.extend(haul.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.extend(options.iter().map(|option| (*option).to_owned()));
    words.extend(["127.0.0.1", "--", "sh", "-c", remote].map(str::to_owned));
    let mut command = Command::new(find("python3"));
    command.arg("-c").arg(include_str!("terminal.py")).arg(act).args(words);
    for (name, value) in haul.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3");
    child.stdin.take().expect("stdin").flush().expect("flush");
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_terminal_has_a_size_and_is_put_back() {
    if !terminals_work() {
        return;
    }
    let stage = Stage::new();
    let remote = "stty size; test -t 0 && test -t 1 && test -t 2 && echo all terminals; read -r x; echo \"got $x\"; stty size; exit 6";
    let said = in_a_terminal(&stage, &["-t"], remote, "talk");
    for words in
        ["37 91", "all terminals", "raw while it runs", "got hello", "40 100", "put back", "status 6"]
    {
        assert!(said.contains(words), "no \"{words}\" in {said:?}");
    }
}

#[test]
fn a_ctrl_c_is_a_byte_for_the_program() {
    if !terminals_work() {
        return;
    }
    let stage = Stage::new();
    let remote = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let said = in_a_terminal(&stage, &["-t"], remote, "interrupt");
    for words in ["interrupted", "put back", "status 7"] {
        assert!(said.contains(words), "no \"{words}\" in {said:?}");
    }
}

#[test]
fn a_terminal_is_put_back_after_a_signal_and_a_timeout() {
    if !terminals_work() {
        return;
    }
    let stage = Stage::new();
    let remote = "echo ready; sleep 1000";
    let said = in_a_terminal(&stage, &["-t", "--grace", "1s"], remote, "terminate");
    assert!(said.contains("put back") && said.contains("status 143"), "{said:?}");
    let said = in_a_terminal(&stage, &["-t", "--grace", "1s", "--timeout", "2s"], remote, "wait");
    assert!(said.contains("put back") && said.contains("status 124"), "{said:?}");
    stage.assert_all_gone();
}
