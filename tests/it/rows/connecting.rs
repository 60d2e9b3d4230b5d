//! Point 8: ways in, as a person at a terminal has them and as a script has them.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::client::{CHUNK, Client, content};
use super::terminal::Terminal;
use crate::harness::account::Account;
use crate::harness::agent::Agent;
use crate::harness::sshd::{Sshd, generate_key};

/// `haul put` with nothing but these options, which say how to connect.
fn put(client: &Client, options: &[OsString], source: &Path, destination: &str) -> Command {
    let mut haul = crate::harness::haul(client.home());
    haul.args(["put", "--user-id=alice", "--if-exists=replace"]).args(options).arg(source).arg(destination);
    haul
}

fn words(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

fn known_hosts(sshd: &Sshd) -> OsString {
    format!("-oUserKnownHostsFile={}", sshd.known_hosts_path().display()).into()
}

#[test]
fn every_form_of_a_destination_reaches_the_host() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let (user, port, target) = (sshd.user(), sshd.port(), sshd.scratch().join("disk.img"));
    let mut key = vec![known_hosts(&sshd), "-i".into(), sshd.key_path().into()];
    for (destination, needs_port) in [
        (format!("{user}@127.0.0.1:{}", target.display()), true),
        // The account that runs the tests is the default.
        (format!("127.0.0.1:{}", target.display()), true),
        (format!("[127.0.0.1]:{}", target.display()), true),
        (format!("sftp://{user}@127.0.0.1:{port}{}", target.display()), false),
    ] {
        let mut options = key.clone();
        if needs_port {
            options.extend(words(&["-P", &port.to_string()]));
        }
        client.run(put(&client, &options, &source, &destination)).expect(0);
        assert!(std::fs::read(&target).expect("the target") == content(CHUNK, 1), "{destination}");
        std::fs::remove_file(&target).expect("the target");
    }
    // By the environment, too, over which the command line wins.
    key.truncate(1);
    let mut haul = put(&client, &key, &source, &format!("127.0.0.1:{}", target.display()));
    haul.env("HAUL_PORT", port.to_string()).env("HAUL_IDENTITY", sshd.key_path());
    client.run(haul).expect(0);
    // A key at the place where ssh looks for it.
    let ssh = client.home().join(".ssh");
    std::fs::create_dir(&ssh).expect("a directory");
    std::fs::copy(sshd.key_path(), ssh.join("id_ed25519")).expect("a key");
    std::fs::copy(sshd.known_hosts_path(), ssh.join("known_hosts")).expect("known hosts");
    let options = words(&["-P", &port.to_string()]);
    client.run(put(&client, &options, &source, &format!("{user}@127.0.0.1:{}", target.display()))).expect(0);
}

#[test]
fn agent_passphrase_and_password_let_in() {
    let sshd = Sshd::builder().config("KbdInteractiveAuthentication no").start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let destination = |user: &str| format!("{user}@127.0.0.1:{}", sshd.scratch().join("disk.img").display());
    let target = sshd.scratch().join("disk.img");
    let port = sshd.port().to_string();
    let mut options = words(&["-P", &port]);
    options.push(known_hosts(&sshd));

    let agent = Agent::start(client.home());
    agent.add(&sshd.key_path());
    let mut haul = put(&client, &options, &source, &destination(sshd.user()));
    haul.env("SSH_AUTH_SOCK", agent.socket());
    client.run(haul).expect(0);
    assert!(std::fs::read(&target).expect("the target") == content(CHUNK, 1));
    std::fs::remove_file(&target).expect("the target");

    let locked = client.home().join("locked");
    generate_key(&locked, "ed25519", "open sesame");
    let mut authorized = std::fs::read(sshd.authorized_keys_path()).expect("authorized_keys");
    authorized.extend(std::fs::read(client.home().join("locked.pub")).expect("the public key"));
    std::fs::write(sshd.authorized_keys_path(), authorized).expect("authorized_keys");
    let with_key = [&options[..], &["-i".into(), locked.clone().into()]].concat();
    let mut terminal =
        Terminal::start(&put(&client, &with_key, &source, &destination(sshd.user())), client.home());
    terminal.expect("Passphrase of the key");
    terminal.type_in("open sesame\n");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("open sesame"), "a secret is not shown: {screen}");
    assert!(std::fs::read(&target).expect("the target") == content(CHUNK, 1));
    // Without a terminal nobody is asked, and that is said in one line.
    let mut silent = Command::new("setsid");
    let haul = put(&client, &with_key, &source, &destination(sshd.user()));
    silent.arg("--wait").arg(haul.get_program()).args(haul.get_args()).env("HOME", client.home());
    silent.env_remove("SSH_AUTH_SOCK").current_dir(client.home());
    client.run(silent).expect(10);

    let Some(account) = Account::create() else { return };
    let target = format!("/tmp/{}.img", account.name());
    let destination = format!("{}@127.0.0.1:{target}", account.name());
    let mut terminal = Terminal::start(&put(&client, &options, &source, &destination), client.home());
    terminal.expect("password: ");
    terminal.type_in(&format!("{}\n", account.password()));
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains(account.password()), "a secret is not shown: {screen}");
    assert!(std::fs::read(&target).expect("the target") == content(CHUNK, 1));
    std::fs::remove_file(&target).expect("the target");
}

#[test]
fn an_unknown_host_key_is_asked_taken_or_refused_and_a_changed_one_is_refused_always() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let target = sshd.scratch().join("disk.img");
    let destination = format!("{}@127.0.0.1:{}", sshd.user(), target.display());
    let file = client.home().join("known");
    let options = |checking: Option<&str>| {
        let mut options = words(&["-P", &sshd.port().to_string(), "-i"]);
        options.push(sshd.key_path().into());
        options.push(format!("-oUserKnownHostsFile={}", file.display()).into());
        options.extend(checking.map(|how| OsString::from(format!("-oStrictHostKeyChecking={how}"))));
        options
    };
    let put = |checking| put(&client, &options(checking), &source, &destination);
    // Without a terminal: yes is the default.
    for checking in [None, Some("yes")] {
        let outcome = client.run(put(checking)).expect(10);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(!file.exists() && !target.exists());
    }
    let mut terminal = Terminal::start(&put(None), client.home());
    terminal.expect("Trust it and connect? [yes/no]");
    assert!(terminal.screen().contains("SHA256:"), "{}", terminal.screen());
    terminal.type_in("no\n");
    assert_eq!(terminal.finish().0, Some(10));
    assert!(!file.exists() && !target.exists());
    let mut terminal = Terminal::start(&put(Some("ask")), client.home());
    terminal.expect("Trust it and connect? [yes/no]");
    terminal.type_in("yes\n");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(0), "{screen}");
    let learnt = std::fs::read_to_string(&file).expect("known hosts");
    assert!(learnt.contains(&sshd.host_key()), "{learnt}");
    client.run(put(Some("yes"))).expect(0);
    std::fs::remove_file(&file).expect("forgotten");
    client.run(put(Some("accept-new"))).expect(0);
    client.run(put(Some("yes"))).expect(0);

    // Another key under this name.
    generate_key(&client.home().join("other"), "ed25519", "");
    let other = crate::harness::sshd::public_key(&client.home().join("other"));
    std::fs::write(&file, format!("[127.0.0.1]:{} {other}\n", sshd.port())).expect("known hosts");
    for checking in [None, Some("yes"), Some("accept-new"), Some("ask")] {
        let outcome = client.run(put(checking)).expect(10);
        assert!(outcome.stderr.contains("changed"), "{checking:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("known:1"), "{checking:?}: {}", outcome.stderr);
        let (code, screen) = Terminal::start(&put(checking), client.home()).finish();
        assert_eq!(code, Some(10), "nobody is asked: {screen}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("known hosts").lines().count(), 1);
}

#[test]
fn a_listener_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", CHUNK, 1);
    let options = words(&["-P", &port, "-o", "ConnectTimeout=2", "--retries", "0"]);
    let run = client.start(put(&client, &options, &source, "me@127.0.0.1:/tmp/x"));
    let outcome = run.wait_for(Duration::from_secs(60));
    assert!(matches!(outcome.code, Some(10 | 124)), "{outcome:?}");
    assert_eq!(
        outcome.stderr.lines().last().map(|line| line.starts_with("haul: ")),
        Some(true),
        "{outcome:?}"
    );
    drop(listener);
}
