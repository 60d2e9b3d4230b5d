//! hosts.toml and `haul hosts`.

use std::fs;
use std::path::Path;

use super::{Home, assert_refused, code, events, stderr, stdout};
use crate::harness::Sshd;

#[test]
fn errors_in_a_hosts_file_name_file_line_and_key() {
    let home = Home::new();
    for (text, expected) in [
        ("[hosts.a]\naddress = 'x'\nprot = 22\n", "bad.toml:3: unknown key 'prot' in [hosts.a]"),
        ("[defaults]\nport = 'x'\n", "bad.toml:2: [defaults] port: is a number from 1 to 65535"),
        ("[hosts.a]\njump = 'b,'\n", "bad.toml:2: [hosts.a] jump: has to be [user@]host[:port]"),
        ("[hosts.a\n", "bad.toml:1: "),
        (
            "[hosts.a]\nid='x'\n[hosts.b]\nid='x'\n",
            "bad.toml:3: id 'x' of host 'b' is also the id of host 'a'",
        ),
        ("[groups]\ng = ['w[9-1]']\n", "bad.toml:2: group 'g': 'w[9-1]': the range 9-1 runs backwards"),
        ("[web]\n", "bad.toml:1: unknown table 'web'"),
    ] {
        home.write("bad.toml", text);
        let output = home.haul(&["hosts", "--hosts-file", "bad.toml"]);
        assert_refused(&output, 2, expected, text);
        let output = home.haul(&["put", "--hosts-file", "bad.toml", "img", "a:/x"]);
        assert_refused(&output, 2, expected, text);
    }
}

#[test]
fn hosts_are_listed() {
    let home = Home::new();
    let text = "[defaults]\nuser = 'deploy'\n\
                [hosts.web1]\naddress = '10.0.0.1'\nport = 2222\nid = 'm-17'\n\
                [hosts.db]\nuser = 'postgres'\n\
                [groups]\nweb = ['web1', 'web[02-03]']\n";
    home.write(".config/haul/hosts.toml", text);
    let output = home.haul(&["hosts"]);
    assert_eq!(
        stdout(&output),
        "NAME   ID    ADDRESS   PORT  USER      GROUPS\n\
         web1   m-17  10.0.0.1  2222  deploy    web\n\
         db     -     db        22    postgres  -\n\
         web02  -     web02     22    deploy    web\n\
         web03  -     web03     22    deploy    web\n"
    );
    let names = |pattern: &str| {
        let lines = stdout(&home.haul(&["hosts", "--json", pattern]));
        let name = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            event["host"].as_str().expect("a host").to_owned()
        };
        lines.lines().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("m-17"), ["web1"]);
    assert_eq!(names("all,!web[02-03]"), ["web1", "db"]);
    let event: serde_json::Value =
        serde_json::from_str(&stdout(&home.haul(&["hosts", "--json", "web1"]))).expect("JSON");
    let expected = serde_json::json!({
        "event": "host", "host": "web1", "id": "m-17", "address": "10.0.0.1", "port": 2222,
        "user": "deploy", "groups": ["web"],
    });
    assert_eq!(event, expected);
    home.write("hosts.toml", "[hosts.near]\n");
    assert!(stdout(&home.haul(&["hosts"])).contains("near"), "./hosts.toml comes first");
}

#[test]
fn the_example_is_a_hosts_file() {
    let home = Home::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts.example.toml");
    let path = example.to_str().expect("UTF-8");
    let output = home.haul(&["hosts", "--hosts-file", path]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("web05.example.com"));
    // What is commented out is right, too, and no key is left unexplained.
    let mut text = fs::read_to_string(&example).expect("the example");
    for key in ["port", "identity_file", "id", "jump", "known_hosts", "merge", "connections", "user_id"] {
        let line = format!("\n# {key} = ");
        assert!(text.contains(&line) || key == "port", "{key}");
        text = text.replacen(&line, &format!("\n{key} = "), 1);
    }
    home.write("hosts.toml", &text);
    let output = home.haul(&["hosts", "m-0017"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("2222"));
}

#[test]
fn pings_tell_hosts_apart() {
    let (home, sshd) = (Home::new(), Sshd::start());
    let closed = crate::harness::sshd::free_port();
    let text = format!(
        "[defaults]\naddress = '127.0.0.1'\nuser = '{}'\nidentity_file = '{}'\nknown_hosts = '{}'\n\
         [hosts.up]\nport = {}\n[hosts.down]\nport = {closed}\n",
        sshd.user(),
        sshd.key_path().display(),
        sshd.known_hosts_path().display(),
        sshd.port(),
    );
    home.write("hosts.toml", &text);
    let output = home.haul(&["hosts", "--ping"]);
    let table = stdout(&output);
    assert_eq!(code(&output), 3, "{table}{}", stderr(&output));
    assert!(table.lines().any(|line| line.starts_with("up ") && line.contains("ok (")), "{table}");
    assert!(table.lines().any(|line| line.starts_with("down ") && line.contains("failed: ")), "{table}");
    assert_eq!(code(&home.haul(&["hosts", "--ping", "up"])), 0);
    let output = home.haul(&["hosts", "--ping", "--json", "down"]);
    assert_eq!(code(&output), 10);
    assert_eq!(
        (&events(&output)[0]["ping"]["ok"], &events(&output)[0]["ping"]["exit_code"]),
        (&false.into(), &10.into())
    );
    // The host's keys hold for uploads, too.
    let target = sshd.scratch().join("img");
    let output = home.haul(&["put", "img", &format!("up:{}", target.display())]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).starts_with("up:"), "{}", stdout(&output));
}
