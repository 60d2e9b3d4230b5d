//! What a fleet costs on this side, against what one host costs.

use std::fs;
use std::time::Duration;

use super::stage::Fleet;
use crate::rows::client::{Outcome, Running, content};

const MIB: u64 = 1 << 20;
const LIMIT_KIB: u64 = 32 << 10;

/// The most memory that it had, in KiB.
fn peak_of(mut run: Running) -> (u64, Outcome) {
    let status = format!("/proc/{}/status", run.pid());
    let mut peak = 0;
    while run.is_running() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    (peak, run.wait())
}

#[test]
fn memory_does_not_grow_with_hosts_and_bytes() {
    let fleet = Fleet::of(20);
    fs::write(fleet.home().join("img"), content(48 * MIB, 1)).expect("a source");
    let put = |hosts: &str, name: &str, forks: &str| {
        let destination = format!("{hosts}:{}", fleet.path(name));
        let (peak, outcome) = peak_of(fleet.start(&["put", "--json", forks, "img", &destination]));
        let outcome = outcome.expect(0);
        let summary = outcome.last();
        eprintln!("{hosts} {forks}: {peak} KiB; {}", summary);
        (peak, summary)
    };
    let (alone, _) = put("web01", "alone", "--forks=1");
    for (name, forks) in [("eight", "--forks=8"), ("all", "--forks=20")] {
        let (peak, summary) = put("web", name, forks);
        assert!(peak < alone + LIMIT_KIB, "{forks}: {peak} KiB, and {alone} KiB with one host");
        assert_eq!(summary["source_bytes_hashed"], 48 * MIB, "{summary}");
    }
}
