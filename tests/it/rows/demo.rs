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
