//! Bad input: one line, the right exit code, and nothing has been connected to.

use std::process::{Command, Stdio};

use super::{Home, assert_refused, stderr, stdout};
use crate::harness::haul;

#[test]
fn bad_input_is_refused_in_one_line() {
    let home = Home::new();
    home.write("bad_config", "# mine\nProt 22\n");
    assert!(Command::new("mkfifo").arg(home.path().join("pipe")).status().expect("mkfifo").success());
    let cases: &[(&[&str], &str)] = &[
        (&["put"], "<SRC>... <DEST>"),
        (&["put", "web1:/x"], "required arguments were not provided: <SRC>"),
        (&["put", "img", "img2"], "did you mean a local path"),
        (&["put", "img", "/srv/img"], "did you mean a local path"),
        (&["put", "img", ":/x"], "the host before ':' is empty"),
        (&["put", "img", "alice@:/x"], "the host before ':' is empty"),
        (&["put", "img", "[::1:/x"], "'[' is not closed"),
        (&["put", "img", "C:\\img"], "Windows path"),
        (&["put", "img", "scp://web1/x"], "only sftp://"),
        (&["put", "img", "sftp://alice:secret@web1/x"], "haul asks for it"),
        (&["put", "img", "sftp://web1:99999/x"], "1 to 65535"),
        (&["put", "missing", "web1:/x"], "source 'missing': No such file"),
        (&["put", "dir", "web1:/x"], "source 'dir': is a directory; pack it first"),
        (&["put", "-", "img", "web1:/x/"], "standard input goes alone"),
        (&["put", "--retry-file", "failed", "-", "web1:/x"], "a pipe cannot be read again"),
        (&["put", "-", "web[1-3]:/x"], "works on one host, and 3 were named"),
        (&["put", "pipe", "web1:/x"], "source 'pipe': is no regular file"),
        (&["put", "a\x1b[2Jb", "web1:/x"], "a\\x1b[2Jb"),
        (&["put", "img", "other/img", "web1:/x/"], "two sources are called 'img'"),
        (&["put", "--chunk-size", "1", "img", "web1:/x"], "between 4 KiB and 4 GiB"),
        (&["put", "--chunk-size", "1.5M", "img", "web1:/x"], "a fraction is not taken"),
        (&["put", "--bwlimit", "fast", "img", "web1:/x"], "a size is a whole number"),
        (&["put", "--bwlimit", "0", "img", "web1:/x"], "never end"),
        (&["put", "-l", "0", "img", "web1:/x"], "kilobits a second"),
        (&["put", "--user-id", "a/b", "img", "web1:/x"], "cannot contain '/'"),
        (&["put", "--user-id", "lock", "img", "web1:/x"], "'lock' cannot be a user id"),
        (&["put", "--if-exists", "maybe", "img", "web1:/x"], "possible values: ask, replace, skip, fail"),
        (&["put", "--if-exists", "skp", "img", "web1:/x"], "a similar value exists: 'skip'"),
        (&["put", "--merge", "magic", "img", "web1:/x"], "possible values: auto, script, sftp"),
        (&["put", "--verify", "md5", "img", "web1:/x"], "possible values: sha256, fast, size"),
        (&["put", "--connections", "0", "img", "web1:/x"], "from 1 to 64"),
        (&["put", "--chmod", "u+x", "img", "web1:/x"], "a mode is octal"),
        (&["put", "--wait=soon", "img", "web1:/x"], "a duration is a whole number"),
        (&["put", "--stall-timeout", "0", "img", "web1:/x"], "from 1s to 1d"),
        (&["put", "--retries", "-1", "img", "web1:/x"], "'-1'"),
        (&["put", "--no-lock", "--break-lock", "img", "web1:/x"], "exclude each other"),
        (&["put", "--no-lock", "--wait", "img", "web1:/x"], "exclude each other"),
        (&["put", "-P", "0", "img", "web1:/x"], "from 1 to 65535"),
        (&["put", "-i", "missing", "img", "web1:/x"], "identity file missing: No such file"),
        (&["put", "-i", "dir", "img", "web1:/x"], "identity file dir is no regular file"),
        (&["put", "-J", "a,,b", "img", "web1:/x"], "-J a,,b: has to be [user@]host[:port]"),
        (&["put", "-J", "web1", "img", "web1:/x"], "web1: ProxyJump: web1 cannot be reached through itself"),
        (&["put", "-J", "a", "-o", "ProxyCommand=nc", "img", "web1:/x"], "-J and -o ProxyCommand exclude"),
        (&["put", "-F", "missing", "img", "web1:/x"], "-F missing: there is no such file"),
        (&["put", "-F", "bad_config", "img", "web1:/x"], "bad_config:2: 'Prot' is no keyword of ssh_config"),
        (
            &["put", "-o", "ForwardAgent=yes", "img", "web1:/x"],
            "-o ForwardAgent yes: haul does not have this",
        ),
        (&["put", "-o", "Prot=22", "img", "web1:/x"], "-o Prot=22: 'Prot' is no keyword of ssh_config"),
        (&["put", "-o", "Port=x", "img", "web1:/x"], "-o Port=x: Port: has to be a number"),
        (&["put", "-o", "Include=x", "img", "web1:/x"], "Include stands in files only"),
        (&["put", "-o", "Port", "img", "web1:/x"], "write KEY=VALUE"),
        (&["put", "-o", "stricthostkeychecking no", "img", "web1:/x"], "host keys are always checked"),
        (&["put", "--hosts-file", "missing.toml", "img", "web1:/x"], "hosts file missing.toml: No such file"),
        (&["merge", "web[1-3]:/x"], "works on one host, and 3 were named"),
        (&["put", "img", "web[3-1]:/x"], "runs backwards"),
        (&["put", "img", "all:/x"], "matches nothing"),
        (&["put", "--bogus", "img", "web1:/x"], "unexpected argument '--bogus'"),
        (&["put", "--limit", "web2", "img", "web1:/x"], "'web2' is none of the hosts"),
        (&["status"], "<DEST>"),
        (&["status", "img"], "did you mean a local path"),
        (&["merge", "--bwlimit", "x", "web1:/x"], "a size is a whole number"),
        (&["merge", "--chunk-size", "1M", "web1:/x"], "unexpected argument '--chunk-size'"),
        (&["clean", "--user-id", "", "web1:/x"], "cannot be empty"),
        (&["hosts"], "no hosts"),
        (&["hosts", "nowhere"], "no host, id or group is called 'nowhere'"),
        (&["completions", "cmd.exe"], "possible values: bash"),
        (&["upload"], "unrecognized subcommand 'upload'"),
    ];
    for (arguments, expected) in cases {
        assert_refused(&home.haul(arguments), 2, expected, &arguments.join(" "));
    }
    assert!(!stderr(&home.haul(&["put", "img", "sftp://u:secret@web1/x"])).contains("secret"));
}

#[test]
fn asking_needs_a_terminal() {
    let home = Home::new();
    // A session of its own has no terminal, wherever the tests run.
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(env!("CARGO_BIN_EXE_haul")).env("HOME", home.path()).current_dir(home.path());
    command.args(["put", "--if-exists", "ask", "img", "web1:/x"]).stdin(Stdio::null());
    assert_refused(&command.output().expect("setsid starts"), 2, "no terminal to ask at", "ask");
}

#[test]
fn the_environment_sets_flags_and_the_command_line_wins() {
    let home = Home::new();
    let run = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = haul(home.path());
        command.envs(variables.iter().copied()).args(arguments).stdin(Stdio::null());
        command.output().expect("haul starts")
    };
    let upload = ["put", "img", "web1:/x"];
    assert_refused(&run(&[("HAUL_CHUNK_SIZE", "1")], &upload), 2, "--chunk-size", "HAUL_CHUNK_SIZE");
    assert_refused(&run(&[("HAUL_USER_ID", "a/b")], &upload), 2, "--user-id", "HAUL_USER_ID");
    assert_refused(&run(&[("HAUL_IF_EXISTS", "x")], &upload), 2, "--if-exists", "HAUL_IF_EXISTS");
    assert_refused(&run(&[("HAUL_JUMP", "b,")], &upload), 2, "-J b,: has to be", "HAUL_JUMP");
    assert_refused(&run(&[("HAUL_QUIET", "perhaps")], &upload), 2, "a switch is 1 or 0", "HAUL_QUIET");
    home.write("hosts.toml", "[hosts.web1]\n");
    home.write("mine.toml", "[hosts.mine]\n");
    let named = [("HAUL_HOSTS_FILE", "mine.toml")];
    assert!(stdout(&run(&named, &["hosts"])).contains("mine"));
    assert!(stdout(&run(&named, &["hosts", "--hosts-file", "hosts.toml"])).contains("web1"));
    assert!(stdout(&run(&[("HAUL_JSON", "1")], &["hosts"])).starts_with("{\"event\":\"host\""));
    assert!(stdout(&run(&[("HAUL_JSON", "0")], &["hosts"])).starts_with("NAME"));
    assert!(stdout(&run(&[("HAUL_JSON", "")], &["hosts"])).starts_with("NAME"));
}
