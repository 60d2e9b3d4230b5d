//! What the project promises about its own text: the layers and what each may touch.

mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use source::Source;

/// From the top down: each may use those after it, none before it.
const LAYERS: [&str; 5] = ["main", "cli", "engine", "remote", "model"];

/// Paths that the model, which is pure, has no use for.
const NOT_IN_MODEL: [&str; 8] = [
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// What only the command line does: talk to the terminal, read the environment, end the
/// process.
const CLI_MACROS: [&str; 4] = ["println", "eprintln", "print", "eprint"];
const CLI_PATHS: [&str; 5] =
    ["std::process::exit", "process::exit", "std::env", "std::io::stdout", "std::io::stderr"];

const NOWHERE_MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];
const NOWHERE_METHODS: [&str; 2] = ["unwrap", "expect"];

/// What is wrong with one file of src, a line for each.
fn faults(path: &str, text: &str) -> Vec<String> {
    let source = Source::of(text);
    let layer = layer_of(path);
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{path}: {what}"));
    let paths: Vec<String> = source.paths().iter().map(|words| absolute(path, words).join("::")).collect();
    let uses =
        |prefix: &str| paths.iter().any(|path| path == prefix || path.starts_with(&format!("{prefix}::")));

    let Some(rank) = LAYERS.iter().position(|name| *name == layer) else {
        // Only the root of the library stands outside.
        if path != "src/lib.rs" {
            fault(format!("{layer} is no layer"));
        }
        return faults;
    };
    for above in &LAYERS[..rank] {
        if uses(&format!("crate::{above}")) || uses(&format!("haul::{above}")) {
            fault(format!("{layer} uses {above}, which stands above it"));
        }
    }
    if layer == "model" {
        for forbidden in NOT_IN_MODEL.iter().filter(|forbidden| uses(forbidden)) {
            fault(format!("the model uses {forbidden}"));
        }
    }
    if rank > 1 {
        for name in CLI_MACROS.iter().filter(|name| source.calls_macro(name)) {
            fault(format!("{name}! outside cli"));
        }
        for forbidden in CLI_PATHS.iter().filter(|forbidden| uses(forbidden)) {
            fault(format!("{forbidden} outside cli"));
        }
    }
    for name in NOWHERE_MACROS.iter().filter(|name| source.calls_macro(name)) {
        fault(format!("{name}!"));
    }
    for name in NOWHERE_METHODS.iter().filter(|name| source.calls_method(name)) {
        fault(format!(".{name}()"));
    }
    faults
}

/// Whether `text` declares the file at `path` as a module of unit tests only.
fn declares_tests(text: &str, path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.trim_end_matches(".rs");
    stem.ends_with("tests")
        && (text.contains(&format!("#[cfg(test)]\nmod {stem};"))
            || text.contains(&format!("#[cfg(test)]\n#[path = \"{file}\"]\nmod tests;")))
}

/// `cli` for `src/cli/put.rs` and for `src/cli.rs`.
fn layer_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
}

/// Where a path of `super`s that reaches the crate's root leads.
fn absolute(file: &str, words: &[String]) -> Vec<String> {
    let module = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = module.split('/').count();
    let supers = words.iter().take_while(|word| *word == "super").count();
    if supers < depth || supers == 0 {
        return words.to_vec();
    }
    [&["crate".to_string()], &words[supers..]].concat()
}

/// Hosts of package registries, in two parts, so that this file does not name them.
const REGISTRY_HOSTS: [(&str, &str); 10] = [
    ("crates", ".io"),
    ("pypi", ".org"),
    ("files.pythonhosted", ".org"),
    ("registry.npmjs", ".org"),
    ("deb.debian", ".org"),
    ("security.debian", ".org"),
    ("archive.ubuntu", ".com"),
    ("proxy.golang", ".org"),
    ("registry-1.docker", ".io"),
    ("index.docker", ".io"),
];
const MACHINE_PATHS: [(&str, &str); 4] =
    [("/wo", "rk/"), ("/ro", "ot/"), ("/var/lib/cl", "aude"), ("/tmp/ba", "sh_jobs")];

/// What a tracked file says that holds on one machine only.
fn local_names(path: &str, text: &str) -> Vec<String> {
    // The lock file names the registry by its nature.
    let hosts = REGISTRY_HOSTS.iter().filter(|_| !path.ends_with("Cargo.lock"));
    hosts
        .chain(&MACHINE_PATHS)
        .map(|(first, second)| format!("{first}{second}"))
        .filter(|name| names(text, name))
        .map(|name| format!("{path}: names {name}"))
        .collect()
}

/// Whether `name` stands in `text` with nothing before it that makes it another name:
/// a path below something else, or a host that only ends so.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '~' | '$' | '}'))
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_layers_hold() {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let files: Vec<(String, String)> = files
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8");
            (path.to_string(), fs::read_to_string(&file).expect("a source file"))
        })
        .collect();
    assert!(files.len() > 20, "only {} files of src were found", files.len());
    let all: Vec<String> = files
        .iter()
        .filter(|(path, _)| !files.iter().any(|(_, text)| declares_tests(text, path)))
        .flat_map(|(path, text)| faults(path, text))
        .collect();
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn no_tracked_file_knows_one_machine() {
    let output =
        Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output().expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).expect("UTF-8 names");
    let mut all = Vec::new();
    let mut seen = 0;
    for path in listing.split_terminator('\0') {
        // A tracked file that was removed and not committed yet is not there.
        let Ok(content) = fs::read(root().join(path)) else { continue };
        seen += 1;
        all.extend(local_names(path, &String::from_utf8_lossy(&content)));
    }
    assert!(seen > 20, "only {seen} files are tracked");
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn planted_faults_are_found() {
    for (path, text, expected) in [
        ("src/model/a.rs", "use crate::remote::Files;", "model uses remote"),
        ("src/model/a.rs", "use super::super::engine::put;", "model uses engine"),
        ("src/remote/mod.rs", "use super::engine::put;", "remote uses engine"),
        ("src/remote/ssh/mod.rs", "use crate::{model::names, cli::main};", "remote uses cli"),
        ("src/engine/put.rs", "fn f() { crate::cli::main() }", "engine uses cli"),
        ("src/cli/mod.rs", "fn f() { crate::main::main() }", "cli uses main"),
        ("src/model/a.rs", "use tokio::sync::mpsc;", "the model uses tokio"),
        ("src/model/a.rs", "use std::{fmt, fs::File};", "the model uses std::fs"),
        ("src/model/a.rs", "use std::time::{Duration, Instant};", "the model uses std::time::Instant"),
        ("src/model/a.rs", "fn f() -> std::time::SystemTime {}", "the model uses std::time::SystemTime"),
        ("src/model/a.rs", "use std::net::IpAddr;", "the model uses std::net"),
        ("src/model/a.rs", "use std::process::Command;", "the model uses std::process"),
        ("src/engine/put.rs", "fn f() { println!(\"x\") }", "println! outside cli"),
        ("src/remote/ssh/a.rs", "fn f() { eprintln!(\"x\") }", "eprintln! outside cli"),
        ("src/engine/put.rs", "fn f() { std::process::exit(1) }", "std::process::exit outside cli"),
        ("src/remote/local.rs", "use std::env;", "std::env outside cli"),
        ("src/cli/mod.rs", "fn f() { dbg!(1); }", "dbg!"),
        ("src/main.rs", "fn f() { todo!() }", "todo!"),
        ("src/engine/put.rs", "fn f() { unimplemented!() }", "unimplemented!"),
        ("src/engine/put.rs", "fn f() { g().unwrap() }", ".unwrap()"),
        ("src/cli/mod.rs", "fn f() { g()\n.expect(\"x\") }", ".expect()"),
        ("src/other/mod.rs", "", "other is no layer"),
    ] {
        let found = faults(path, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{path}: {text}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    for (path, text) in [
        ("src/main.rs", "fn main() { haul::cli::main() }"),
        ("src/cli/mod.rs", "use crate::engine::put; fn f() { println!(\"x\"); std::env::args(); }"),
        ("src/engine/put.rs", "use crate::remote::Files; use crate::model::names; use tokio::fs;"),
        ("src/remote/ssh/a.rs", "use super::super::error; use super::engine; use crate::model::names;"),
        ("src/model/a.rs", "use super::names; use std::time::Duration; fn f() { x.unwrap_or(1) }"),
        ("src/model/a.rs", "#[cfg(test)] mod tests { use tokio::x; fn f() { g().unwrap() } }"),
        ("src/lib.rs", "pub mod cli; pub mod model;"),
    ] {
        assert_eq!(faults(path, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_file_of_tests_is_one_that_is_declared_so() {
    let declared = "#[cfg(test)]\n#[path = \"codec_tests.rs\"]\nmod tests;";
    assert!(declares_tests(declared, "src/remote/codec_tests.rs"));
    assert!(declares_tests("x;\n#[cfg(test)]\nmod tests;\n", "src/remote/tests.rs"));
    assert!(!declares_tests("mod tests;", "src/remote/tests.rs"));
    assert!(!declares_tests("#[cfg(test)]\nmod put;", "src/engine/put.rs"));
}

#[test]
fn planted_names_of_a_machine_are_found() {
    let (work, host) = (["/wo", "rk/x"].concat(), ["https://static.crates", ".io/x"].concat());
    assert_eq!(local_names("README.md", &format!("see {work}.")).len(), 1);
    assert_eq!(local_names("a.sh", &format!("cd {work}")).len(), 1);
    assert_eq!(local_names("a.sh", &format!("curl {host}")).len(), 1);
    assert_eq!(local_names("Cargo.lock", &host).len(), 0);
    assert_eq!(local_names("Cargo.lock", &work).len(), 1);
    assert_eq!(local_names("a.md", &format!("net{work} and docker.io and ${work}")).len(), 0);
}
