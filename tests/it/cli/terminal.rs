//! Questions to a person, at a real pseudo-terminal.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::{Home, way_to};
use crate::harness::Sshd;
use crate::harness::sshd::{generate_key, public_key};

/// Runs haul at a terminal of its own, and types each answer when its question is there.
fn at_a_terminal(home: &Home, sshd: &Sshd, arguments: &[&str], talk: &[(&str, &str)]) -> (i32, String) {
    at_a_terminal_by(home, &way_to(sshd), arguments, talk)
}

fn at_a_terminal_by(home: &Home, way: &[String], arguments: &[&str], talk: &[(&str, &str)]) -> (i32, String) {
    let quoted: Vec<String> = [env!("CARGO_BIN_EXE_haul"), "put"]
        .into_iter()
        .map(str::to_owned)
        .chain(way.iter().cloned())
        .chain(arguments.iter().map(|argument| (*argument).to_owned()))
        .map(|word| format!("'{word}'"))
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &quoted.join(" "), "/dev/null"]).env("HOME", home.path()).env("TERM", "xterm");
    let mut child = script
        .env_remove("SSH_AUTH_SOCK")
        .current_dir(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script starts");
    let mut typing = child.stdin.take().expect("a pipe");
    let mut screen = child.stdout.take().expect("a pipe");
    let mut shown = Vec::new();
    let mut seen = 0;
    let mut read_until = |wanted: Option<&str>| {
        let mut byte = [0];
        loop {
            let text = String::from_utf8_lossy(&shown[seen..]).into_owned();
            if wanted.is_some_and(|wanted| text.contains(wanted))
                || screen.read(&mut byte).expect("read") == 0
            {
                seen = shown.len();
                return text;
            }
            shown.push(byte[0]);
        }
    };
    let mut all = String::new();
    for (question, answer) in talk {
        all.push_str(&read_until(Some(question)));
        typing.write_all(format!("{answer}\n").as_bytes()).expect("typed");
    }
    all.push_str(&read_until(None));
    let status = child.wait().expect("script ends");
    drop(typing);
    (status.code().expect("an exit code"), all)
}

#[test]
fn a_person_is_asked_before_other_content_is_replaced() {
    let (home, sshd) = (Home::new(), Sshd::start());
    let target = sshd.scratch().join("img");
    fs::write(&target, "old").expect("the target");
    let destination = format!("{}@127.0.0.1:{}", sshd.user(), target.display());
    let question = "Replace it? [y/N] ";
    let (code, text) = at_a_terminal(&home, &sshd, &["img", &destination], &[(question, "n")]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("exists with other content (3 B"), "{text}");
    assert_eq!(fs::read(&target).expect("the target"), b"old");
    let answers = [(question, "perhaps"), (question, "y")];
    let (code, text) = at_a_terminal(&home, &sshd, &["img", &destination], &answers);
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read(&target).expect("the target"), b"content");
}

#[test]
fn an_encrypted_key_asks_for_its_passphrase_and_never_shows_it() {
    let (home, sshd) = (Home::new(), Sshd::start());
    let key = home.path().join("locked");
    generate_key(&key, "ed25519", "open sesame");
    fs::write(sshd.authorized_keys_path(), format!("{}\n", public_key(&key))).expect("authorized");
    let target = sshd.scratch().join("img");
    let destination = format!("{}@127.0.0.1:{}", sshd.user(), target.display());
    let talk = [("Passphrase of the key locked: ", "open sesame")];
    let (code, text) = at_a_terminal(&home, &sshd, &["-i", "locked", "img", &destination], &talk);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("sesame"), "{text}");
    assert_eq!(fs::read(&target).expect("the target"), b"content");
}

#[test]
fn a_new_host_key_is_trusted_only_after_a_yes() {
    let (home, sshd) = (Home::new(), Sshd::start());
    let known = home.path().join("known");
    let mine = format!("UserKnownHostsFile={}", known.display());
    let target = sshd.scratch().join("img");
    let destination = format!("{}@127.0.0.1:{}", sshd.user(), target.display());
    // The first value of a keyword counts, so this comes before the harness's own.
    let way = way_to(&sshd);
    let other_way = [&["-o".to_owned(), mine], &way[..]].concat();
    let question = "Trust it and connect? [yes/no] ";
    let talk = |answer| [(question, answer)];
    let no = at_a_terminal_by(&home, &other_way, &["img", &destination], &talk("no"));
    assert_eq!(no.0, 10, "{}", no.1);
    assert!(!known.exists() && !target.exists());
    let yes = at_a_terminal_by(&home, &other_way, &["img", &destination], &talk("yes"));
    assert_eq!(yes.0, 0, "{}", yes.1);
    assert!(yes.1.contains("ssh-ed25519 SHA256:"), "{}", yes.1);
    let (code, text) = at_a_terminal_by(&home, &other_way, &["img", &destination], &[]);
    assert_eq!(code, 0, "it is known now: {text}");
}
