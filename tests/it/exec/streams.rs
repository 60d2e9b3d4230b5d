//! Streams: as they come, untouched, in bounded memory.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use super::stage::{PATIENCE, Stage};
use crate::harness::wait_until;

#[test]
fn output_comes_as_it_is_produced() {
    let stage = Stage::new();
    let gate = stage.scratch("gate");
    let text = format!("printf early; while [ ! -e '{}' ]; do sleep 0.05; done; printf late", gate.display());
    let mut child = stage.start(&[], &["sh", "-c", &text]);
    let mut stdout = child.stdout.take().expect("stdout");
    let mut early = [0; 5];
    stdout.read_exact(&mut early).expect("read");
    assert_eq!(&early, b"early");
    std::fs::write(&gate, "").expect("write");
    let mut late = String::new();
    stdout.read_to_string(&mut late).expect("read");
    assert_eq!(late, "late");
    assert!(child.wait().expect("haul ends").success());
}

#[test]
fn without_wish_nothing_is_read_from_standard_input() {
    let stage = Stage::new();
    // As in a shell's loop: what haul leaves is there for the next.
    let mut command = std::process::Command::new("sh");
    let haul = stage.exec();
    let mut line = vec![haul.get_program().to_string_lossy().into_owned()];
    line.extend(haul.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    let line: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
    let text = format!("{} -n 127.0.0.1 -- cat; cat", line.join(" "));
    command.arg("-c").arg(text).envs(haul.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = super::stage::outcome(command, Some(b"one\ntwo\n"));
    assert_eq!((outcome.code, outcome.text().as_str()), (0, "one\ntwo\n"), "{}", outcome.errors());
    // And a host that cannot be reached takes nothing either.
    let mut command = std::process::Command::new("sh");
    let text = format!("{} -o Port=1 -P 1 127.0.0.1 -- cat 2>/dev/null; cat", line.join(" "));
    command.arg("-c").arg(text).envs(haul.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(super::stage::outcome(command, Some(b"one\n")).text(), "one\n");
}

#[test]
fn a_closed_standard_input_is_empty() {
    let stage = Stage::new();
    let haul = stage.exec();
    let mut words = vec![haul.get_program().to_string_lossy().into_owned()];
    words.extend(haul.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(format!("{} 127.0.0.1 -- cat <&-", words.join(" ")));
    command.envs(haul.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = super::stage::outcome(command, None);
    assert_eq!((outcome.code, outcome.text().as_str()), (0, ""), "{}", outcome.errors());
}

#[test]
fn a_program_that_does_not_read_slows_its_input_down() {
    let stage = Stage::new();
    let gate = stage.scratch("gate");
    let text = format!("while [ ! -e '{}' ]; do sleep 0.05; done; wc -c", gate.display());
    let mut command = stage.exec();
    command.args(["127.0.0.1", "--", "sh", "-c", &text]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("haul starts");
    let mut stdin = child.stdin.take().expect("stdin");
    const TOTAL: usize = 64 << 20;
    let (counter, written) = (std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)), TOTAL);
    let counted = counter.clone();
    let writer = std::thread::spawn(move || {
        let piece = vec![7; 64 * 1024];
        for _ in 0..written / piece.len() {
            stdin.write_all(&piece).expect("write");
            counted.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
        }
    });
    let count = || counter.load(std::sync::atomic::Ordering::Relaxed);
    let mut before = usize::MAX;
    wait_until("a stand", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut before, count()) == count() && before > 0
    });
    assert!(count() < 16 << 20, "{} bytes went to nobody", count());
    std::fs::write(&gate, "").expect("write");
    writer.join().expect("the writer ends");
    let output = child.wait_with_output().expect("haul ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), TOTAL.to_string());
}

#[test]
fn standard_input_comes_from_a_file() {
    let stage = Stage::new();
    let file = stage.scratch("a file");
    std::fs::write(&file, b"in\0side").expect("write");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(stage.run(&["--stdin", path], &["cat"]).stdout, b"in\0side");
    let outcome = stage.run(&["--stdin", "/no/such/file"], &["touch", "/no/such/target"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.errors().starts_with("haul: /no/such/file: "), "{}", outcome.errors());
}

#[test]
fn what_is_captured_has_a_limit_that_is_said() {
    let stage = Stage::new();
    let outcome = stage.run(&["--capture=1k"], &["sh", "-c", "head -c 5000 /dev/zero; printf '\\377' >&2"]);
    assert_eq!(outcome.code, 0);
    let result: serde_json::Value = serde_json::from_slice(&outcome.stdout).expect("JSON");
    assert_eq!(result["stdout"].as_str().expect("text").len(), 1024);
    assert_eq!(result["stderr_base64"], "/w==");
    assert_eq!(result["truncated"], true);
    assert!(outcome.errors().contains("more output came than --capture keeps"), "{}", outcome.errors());
}

#[test]
fn json_without_capture_is_events() {
    let stage = Stage::new();
    let outcome = stage.run(&["--json"], &["sh", "-c", "echo out; printf '\\377' >&2; exit 2"]);
    assert_eq!(outcome.code, 2);
    let events: Vec<serde_json::Value> =
        outcome.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |stream: &str| events.iter().find(|event| event["stream"] == stream).expect("an event").clone();
    assert_eq!(of("stdout")["text"], "out\n");
    assert_eq!(of("stderr")["base64"], "/w==");
    assert_eq!(events.last().expect("a result")["exit_status"], 2);
}

#[test]
fn a_full_disk_on_this_side_is_an_error() {
    let stage = Stage::new();
    let mut command = stage.exec();
    command.args(["127.0.0.1", "--", "yes"]);
    command
        .stdout(std::fs::File::options().write(true).open("/dev/full").expect("/dev/full"))
        .stderr(Stdio::piped());
    let output = command.spawn().expect("haul starts").wait_with_output().expect("haul ends");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("its output cannot be written"), "{errors}");
    stage.assert_all_gone();
}
