//! The parts of the collection that need no host, tested in Python.

use std::process::Command;

use super::stage::{Stage, environment, sources};

#[test]
fn what_ansible_knows_of_the_way_becomes_haul_s_arguments() {
    let stage = Stage::new();
    let output = Command::new(environment().join("bin/python"))
        .arg(sources().join("tests/it/ansible/way.py"))
        .env("PYTHONPATH", stage.path().join("collections"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\nRan ") && said.contains("\nOK"), "{said}");
}
