//! Twice Ctrl-C, also where nothing answers any more.

use std::time::Duration;

use super::client::{CHUNK, Client, content, wait_idle};
use super::place::published;
use crate::harness::sshd::Sshd;

#[test]
fn the_second_interrupt_leaves_at_once() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let (source, target) = (client.source("source", 100 * CHUNK, 1), sshd.scratch().join("disk.img"));
    let mut run = client.start_put(&source, &target, &["--bwlimit=512KiB"]);
    run.until("a chunk", || !published(&sshd, &target).is_empty());
    // A clean stop would have to wait for a server that says nothing.
    sshd.freeze();
    run.signal("INT");
    let stderr = run.stderr_path();
    run.until("the first interrupt to be seen", || {
        std::fs::read_to_string(&stderr).unwrap_or_default().contains("once more leaves at once")
    });
    run.signal("INT");
    // Far less than the time after which silence is an error.
    run.wait_for(Duration::from_secs(15)).expect(130);
    sshd.thaw();
    wait_idle(&sshd);
    let there = published(&sshd, &target).len() as u64;
    let outcome = client.put(&source, &target, &[]).expect(0);
    assert_eq!((outcome.number("chunks_skipped"), outcome.number("chunks_sent")), (there, 100 - there));
    assert!(std::fs::read(&target).expect("the target") == content(100 * CHUNK, 1));
}
