//! Faults in haul itself, which the soak has to find.

use std::process::Command;

use haul::engine::plant::Plant;

const PLANTS: [(&str, Plant, &str); 4] = [
    ("commit-before-verify", Plant::CommitBeforeVerify, "torn"),
    ("remove-before-record", Plant::RemoveBeforeRecord, "lost"),
    ("trust-lost-reply", Plant::TrustLostReply, "false"),
    ("no-sync", Plant::NoSync, "torn"),
];
/// It ends at the first failure, which comes within seconds unless the machine is busy.
const SECONDS_TO_FIND: &str = "300";
const SECONDS_WITHOUT: &str = "2";

pub fn plant(name: &str) {
    let known = PLANTS.iter().find(|(known, _, _)| *known == name);
    let (_, plant, _) = known.unwrap_or_else(|| panic!("no such plant: {name}"));
    #[cfg(debug_assertions)]
    haul::engine::plant::plant(*plant);
    #[cfg(not(debug_assertions))]
    panic!("{plant:?} is in builds with debug assertions only");
}

/// Whether it was green, and the line it ended with.
fn soak(environment: &[(&str, &str)]) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let line = directory.path().join("line");
    let mut soak = Command::new(std::env::current_exe().expect("this program"));
    soak.args(["--exact", "soak::soak", "--ignored", "--nocapture"]);
    soak.envs(environment.iter().copied()).env("HAUL_SOAK_LINE", &line);
    let output = soak.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let line = std::fs::read_to_string(line).unwrap_or_else(|error| panic!("{error}\n{said}"));
    (output.status.success(), line)
}

fn counter(line: &str, name: &str) -> u64 {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in: {line}"))
}

#[test]
fn each_plant_turns_the_soak_red() {
    for (name, _, broken) in PLANTS {
        let planted =
            [("HAUL_SOAK_PLANT", name), ("HAUL_SOAK_SECONDS", SECONDS_TO_FIND), ("HAUL_SOAK_QUICK", "1")];
        let (green, line) = soak(&planted);
        println!("{name}: {line}");
        assert!(!green, "{name}: {line}");
        let found: u64 = ["torn", "lost", "false", "hung"].iter().map(|word| counter(&line, word)).sum();
        assert!(found > 0 && counter(&line, broken) > 0, "{name}: {line}");
    }
}

#[test]
fn without_a_plant_the_soak_is_green() {
    let (green, line) = soak(&[("HAUL_SOAK_SECONDS", SECONDS_WITHOUT), ("HAUL_SOAK_QUICK", "1")]);
    assert!(green, "{line}");
    assert!(counter(&line, "distinct") > 0, "{line}");
    for broken in ["torn", "lost", "false", "hung"] {
        assert_eq!(counter(&line, broken), 0, "{line}");
    }
}
