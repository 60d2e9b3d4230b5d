//! `haul demo` as a newcomer runs it: no server, no key, no right.

use super::client::Client;
use crate::harness::sshd::Sshd;

#[test]
fn the_demo_tells_its_story_and_leaves_nothing() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let temp = client.home().join("temp");
    std::fs::create_dir(&temp).expect("a directory");
    let mut haul = crate::harness::haul(client.home());
    haul.args(["demo", "--size", "64MiB"]).env("TMPDIR", &temp);
    let outcome = client.run(haul).expect(0);
    let digests: Vec<&str> = outcome
        .stdout
        .split_whitespace()
        .filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect();
    assert!(digests.len() == 2 && digests[0] == digests[1], "{}", outcome.stdout);
    assert!(outcome.stdout.contains("chunks"), "{}", outcome.stdout);
    assert_eq!(std::fs::read_dir(&temp).expect("the directory").count(), 0);
}

/// The command it prints works as it is printed, with nothing of the person's own.
#[test]
fn a_demo_that_is_kept_takes_the_command_it_prints() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let temp = client.home().join("temp for it's demo");
    std::fs::create_dir(&temp).expect("a directory");
    let mut haul = crate::harness::haul(client.home());
    haul.args(["demo", "--keep", "--size", "64MiB"]).env("TMPDIR", &temp);
    let mut demo = client.start(haul);
    let stdout = demo.stdout_path();
    let printed = || std::fs::read_to_string(&stdout).unwrap_or_default();
    demo.until("the invitation", || printed().contains("Ctrl-C ends it."));
    let text = printed();
    let command = text.lines().find(|line| line.contains(" put -P ")).expect("a command").trim();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).current_dir(client.home()).env("HOME", client.home());
    let outcome = client.run(shell).expect(0);
    assert!(outcome.stdout.contains("again.img: uploaded 64.0 MiB"), "{outcome:?}");
    demo.signal("INT");
    demo.wait().expect(0);
    assert_eq!(std::fs::read_dir(&temp).expect("the directory").count(), 0);
}
