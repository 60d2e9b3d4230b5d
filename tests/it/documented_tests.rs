//! The tests that RELIABILITY.md and SECURITY.md name are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `file::test` for every function, and every name that a macro makes a test of.
fn tests_of(root: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    for directory in ["src", "tests"] {
        sources(&root.join(directory), &mut files);
    }
    let mut tests = BTreeSet::new();
    for file in files {
        let file_name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let directory = file.parent().and_then(Path::file_name).expect("a directory").to_string_lossy();
        let module =
            if ["mod", "tests"].contains(&file_name.as_str()) { directory.into_owned() } else { file_name };
        let text = std::fs::read_to_string(&file).expect("a source");
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            let name = function.and_then(|rest| rest.split(['(', '<']).next());
            // In a list that a macro takes.
            let name = name.or_else(|| line.split_once(": ").map(|(name, _)| name));
            tests.extend(name.map(|name| format!("{module}::{name}")));
        }
    }
    tests
}

#[test]
fn the_tests_that_are_named_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = tests_of(root);
    let (mut named, mut missing) = (0, Vec::new());
    for document in ["RELIABILITY.md", "SECURITY.md"] {
        let text = std::fs::read_to_string(root.join(document)).expect("a document");
        // Every other piece is code.
        let table_rows = text.lines().filter(|line| line.starts_with("| ") || line.contains("ends (`"));
        for code in table_rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
            let is_name =
                |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            let parts: Vec<&str> = code.split("::").collect();
            if parts.len() < 2
                || !parts.iter().all(|part| is_name(part))
                || matches!(code, "remote::faulty" | "model::escape::printable")
            {
                continue;
            }
            named += 1;
            let name = parts[parts.len() - 2..].join("::");
            if !tests.contains(&name) {
                missing.push(format!("{document}: {code}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 60, "{named}");
}
