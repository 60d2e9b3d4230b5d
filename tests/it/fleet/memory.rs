//! What a fleet costs on this side, against what one host costs.

use std::fs;

use super::stage::Fleet;
use crate::rows::client::content;

const MIB: u64 = 1 << 20;
const LIMIT_KIB: u64 = 32 << 10;

#[test]
fn memory_does_not_grow_with_hosts_and_bytes() {
    let fleet = Fleet::of(20);
    fs::write(fleet.home().join("img"), content(48 * MIB, 1)).expect("a source");
    let put = |hosts: &str, name: &str, forks: &str| {
        let destination = format!("{hosts}:{}", fleet.path(name));
        let (peak, outcome) = fleet.start(&["put", "--json", forks, "img", &destination]).wait_and_weigh();
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
