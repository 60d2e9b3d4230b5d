//! Names that hurt: in a source, in a target, in a shell command that must not be.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::client::{CHUNK, Client, content};
use super::place::temp_of;
use crate::harness::sshd::Sshd;

fn hostile_names() -> Vec<OsString> {
    let mut list: Vec<OsString> = [
        "with space",
        " leading and trailing ",
        "it's",
        "\"quoted\"",
        "line\nbreak",
        "tab\tand\rreturn",
        "-rf",
        "--help",
        "-",
        "$(touch canary)",
        "`touch canary`",
        ";touch canary;",
        "a&&touch canary",
        "a|touch canary",
        "'; touch canary; '",
        "\"; touch canary; \"",
        "\n touch canary \n",
        "${IFS}",
        "*",
        "?[a-z]",
        "{a,b}",
        "~",
        "~root",
        "!history",
        "#comment",
        "%41%n",
        "back\\slash",
        "trailing\\",
        "a:b",
        ":",
        ":lock",
        "a:lock",
        "x:alice",
        "alice-x:1",
        "manifest",
        "...",
        ".hidden",
        ".txt",
        "=cmd",
        "\u{1b}[31mred\u{7}",
        "zażółć gęślą",
        "日本語.img",
        "e\u{301}.img",
    ]
    .into_iter()
    .map(OsString::from)
    .collect();
    list.push(OsString::from_vec(b"\xff\xfe\x80latin-\xe9.img".to_vec()));
    list.push(OsString::from_vec((1..=255).filter(|b| *b != b'/').take(200).collect()));
    for length in [244, 250, 254, 255] {
        list.push("n".repeat(length).into());
    }
    list.push(format!("{}a", "é".repeat(127)).into());
    list.push(format!("{}.img", "日".repeat(83)).into());
    list
}

fn entries(directory: &Path) -> Vec<OsString> {
    std::fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry").file_name()).collect()
}

/// Takes every `step`th name.
fn names_arrive_as_they_are(sshd: &Sshd, merge: &str, step: usize) {
    let client = Client::of(sshd);
    let sources = client.home().join("sources");
    std::fs::create_dir(&sources).expect("a directory");
    for (index, name) in hostile_names().into_iter().enumerate().step_by(step) {
        // Every name as a source's, which a directory takes, and as a target's.
        let into = sshd.scratch().join(format!("{index}"));
        std::fs::create_dir(&into).expect("a directory");
        let source = sources.join(&name);
        let size = 2 * CHUNK + index as u64;
        std::fs::write(&source, content(size, index as u64)).expect("a source");
        let outcome = client.put(&source, into.join(""), &["--merge", merge]).expect(0);
        assert_eq!(entries(&into), std::slice::from_ref(&name), "{name:?}");
        let arrived = std::fs::read(into.join(&name)).expect("the target");
        assert!(arrived == content(size, index as u64), "{name:?}");
        for text in [&outcome.stdout, &outcome.stderr] {
            let control = |c: char| c.is_control() && c != '\n';
            assert!(!text.chars().any(control), "{name:?} drives the terminal: {text:?}");
        }
        assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
        std::fs::remove_file(&source).expect("the source");
        std::fs::remove_file(into.join(&name)).expect("the target");
        let plain = client.source("plain", CHUNK + 1, 99);
        client.put(&plain, into.join(&name), &["--merge", merge]).expect(0);
        assert!(std::fs::read(into.join(&name)).expect("the target") == content(CHUNK + 1, 99), "{name:?}");
        assert_eq!(entries(&into), std::slice::from_ref(&name), "{name:?}");
    }
    // Where the account's commands start.
    let home = std::env::home_dir().expect("a home");
    let canaries = [sshd.scratch().join("canary"), client.home().join("canary"), home.join("canary")];
    assert!(canaries.iter().all(|path| !path.exists()), "a name was run as a command");
}

#[test]
fn hostile_names_arrive_as_they_are_by_the_script() {
    names_arrive_as_they_are(&Sshd::start(), "script", 1);
}

#[test]
fn hostile_names_arrive_as_they_are_over_sftp_alone() {
    names_arrive_as_they_are(&Sshd::builder().force_internal_sftp().start(), "auto", 3);
}

#[test]
fn hostile_names_resume_and_are_cleaned() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 40 * CHUNK, 1);
    for name in [OsString::from("it's a\nbad $(touch canary) -name"), "n".repeat(255).into()] {
        let target = sshd.scratch().join(&name);
        for finish in ["put", "clean"] {
            let mut run = client.start_put(&source, &target, &["--bwlimit=512KiB"]);
            run.until("a few chunks", || {
                let chunks = |directory: &Path| {
                    entries(directory).iter().filter(|name| name.as_bytes().starts_with(b"alice-")).count()
                };
                let temps = entries(&sshd.scratch()).into_iter().map(|name| sshd.scratch().join(name));
                temps.filter(|path| path.is_dir()).any(|path| chunks(&path) >= 3)
            });
            run.kill();
            if name.len() < 200 {
                assert!(temp_of(&target).is_dir());
            }
            let status = client.on("status", &target, &[]).expect(0);
            assert_eq!(status.last()["state"], "partial", "{name:?}");
            if finish == "clean" {
                assert_eq!(client.on("clean", &target, &[]).expect(0).status(), "cleaned");
                assert!(entries(&sshd.scratch()).is_empty(), "{name:?}");
            } else {
                assert!(client.put(&source, &target, &[]).expect(0).number("chunks_skipped") >= 3);
                assert_eq!(entries(&sshd.scratch()), std::slice::from_ref(&name));
                std::fs::remove_file(&target).expect("the target");
            }
        }
    }
}

#[test]
fn a_relative_source_with_a_dash_is_taken_after_two_dashes() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    client.source("-p", CHUNK, 1);
    let mut haul = client.haul("put");
    haul.args(["--json", "--", "-p"]).arg(client.destination(sshd.scratch().join("")));
    client.run(haul).expect(0);
    assert!(std::fs::read(sshd.scratch().join("-p")).expect("the target") == content(CHUNK, 1));
}
