//! Help, completions and the manual page.

use std::process::{Command, Stdio};

use super::{Home, code, stderr, stdout};
use crate::harness::haul;

const COMMANDS: [&str; 8] = ["put", "status", "merge", "clean", "hosts", "demo", "completions", "man"];

#[test]
fn no_arguments_is_a_usage_error_with_help() {
    let home = Home::new();
    let output = home.haul(&[]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("Usage: haul <COMMAND>"), "{}", stderr(&output));
}

#[test]
fn every_help_has_examples_and_exit_codes() {
    let home = Home::new();
    let all = COMMANDS.iter().map(|command| vec![*command, "--help"]).chain([vec!["--help"], vec!["-h"]]);
    for arguments in all {
        let output = home.haul(&arguments);
        let text = stdout(&output);
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(text.contains("Usage: haul"), "{arguments:?}");
        assert!(text.contains("Examples:\n  haul "), "{arguments:?}: {text}");
        for line in [
            "    0  done",
            "    2  usage or configuration",
            "    4  target exists and was not to be replaced",
            "   10  unreachable, host key or authentication",
            "   11  locked by another",
            "  130  interrupted, resumable",
        ] {
            assert!(text.contains(line), "{arguments:?} has no {line:?}");
        }
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
    let version = stdout(&home.haul(&["--version"]));
    assert_eq!(version, format!("haul {}\n", env!("CARGO_PKG_VERSION")));
}

/// The flags that INTERFACE promises. One that goes away breaks scripts.
#[test]
fn the_flags_are_the_contract() {
    let home = Home::new();
    let connection = [
        "-P, --port",
        "-i, --identity",
        "-J, --jump",
        "-F, --ssh-config",
        "-o, --option",
        "-C, --compress",
        "-4, --ipv4",
        "-6, --ipv6",
        "--hosts-file",
        "--json",
        "-q, --quiet",
        "-v, --verbose",
        "--user-id",
    ];
    let finish = [
        "--if-exists",
        "--wait",
        "--break-lock",
        "--no-lock",
        "--merge",
        "--verify",
        "--chmod",
        "--bwlimit",
        "-l, --limit-kbit",
        "--stall-timeout",
        "--retries",
        "--non-atomic-replace",
    ];
    let put = ["--chunk-size", "--quick", "--rehash", "-p, --preserve", "--connections", "--dry-run"];
    let fleet = ["--limit", "--forks", "--fail-fast", "--retry-file"];
    let promised: [(&str, Vec<&str>); 5] = [
        ("put", [&connection[..], &finish, &put, &fleet].concat()),
        ("merge", [&connection[..], &finish].concat()),
        ("status", [&connection[..], &fleet].concat()),
        ("clean", [&connection[..], &["--force"]].concat()),
        ("hosts", ["--ping", "--forks", "--json", "--hosts-file", "-o, --option"].to_vec()),
    ];
    for (command, flags) in promised {
        let text = stdout(&home.haul(&[command, "--help"]));
        for flag in flags {
            let found = text.lines().any(|line| {
                let line = line.trim_start();
                line.strip_prefix(flag)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '[', '.', '=']))
            });
            assert!(found, "haul {command} --help has no {flag}");
        }
    }
}

#[test]
fn completions_parse_in_their_shells() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = home.haul(&["completions", shell]);
        assert_eq!(code(&output), 0);
        let script = stdout(&output);
        assert!(script.contains("chunk-size"), "{shell}");
        home.write("script", &script);
        let check = Command::new(shell).arg("-n").arg(home.path().join("script")).output();
        let check = check.unwrap_or_else(|error| panic!("{shell}: {error}"));
        assert!(check.status.success(), "{shell}: {}", stderr(&check));
    }
    for shell in ["elvish", "powershell"] {
        assert_eq!(code(&home.haul(&["completions", shell])), 0);
    }
}

#[test]
fn the_manual_page_renders_and_has_every_command_and_flag() {
    let home = Home::new();
    let page = stdout(&home.haul(&["man"]));
    assert!(page.lines().any(|line| line.starts_with(".TH haul 1")), "{}", &page[..200]);
    for command in COMMANDS {
        assert!(page.contains(&format!(".SH \"HAUL {}\"", command.to_uppercase())), "{command}");
    }
    for text in ["\\-\\-chunk\\-size", "\\-\\-non\\-atomic\\-replace", "\\-\\-ping", "interrupted, resumable"]
    {
        assert!(page.contains(text), "{text}");
    }
    home.write("haul.1", &page);
    if let Ok(groff) =
        Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(home.path().join("haul.1")).output()
    {
        assert!(groff.status.success() && groff.stderr.is_empty(), "{}", stderr(&groff));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let home = Home::new();
    for arguments in [&["man"][..], &["completions", "bash"], &["put", "--help"]] {
        let mut child = haul(home.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("haul starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("haul ends");
        assert!(!stderr(&output).contains("panic"), "{arguments:?}: {}", stderr(&output));
    }
}
