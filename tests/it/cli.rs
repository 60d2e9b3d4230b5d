//! The command line as a person or a script meets it: help, errors, exit codes, the
//! inventory, completions, the manual page, and one upload over a real sshd.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Sshd, haul};

const COMMANDS: [&str; 8] = ["put", "status", "merge", "clean", "hosts", "demo", "completions", "man"];

/// A directory that is home and current directory, with files to name.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().expect("a directory"));
        home.write("img", "content");
        home.write("other/img", "content");
        home.write("key", "no key");
        fs::create_dir(home.path().join("dir")).expect("a directory");
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn haul(&self, arguments: &[&str]) -> Output {
        haul(self.path()).args(arguments).stdin(Stdio::null()).output().expect("haul starts")
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8 on standard output")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8 on standard error")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// One line on standard error, nothing on standard output.
fn assert_refused(output: &Output, expected_code: i32, expected: &str, what: &str) {
    let text = stderr(output);
    assert_eq!(code(output), expected_code, "{what}: {text}");
    assert!(text.starts_with("haul: "), "{what}: {text}");
    assert!(text.contains(expected), "{what}: {text}");
    assert_eq!(text.matches('\n').count(), 1, "{what}: {text}");
    assert!(text.ends_with('\n'), "{what}: {text}");
    assert!(output.stdout.is_empty(), "{what}: {}", stdout(output));
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let home = Home::new();
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
        (&["put", "-", "web1:/x"], "standard input is not supported yet"),
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
        (&["put", "-J", "bastion", "img", "web1:/x"], "jump hosts are not supported yet"),
        (&["put", "-F", "config", "img", "web1:/x"], "configuration files are not read yet"),
        (&["put", "-o", "ForwardAgent=yes", "img", "web1:/x"], "-o ForwardAgent is not supported"),
        (&["put", "-o", "Port", "img", "web1:/x"], "write KEY=VALUE"),
        (&["put", "-o", "stricthostkeychecking no", "img", "web1:/x"], "host keys are always checked"),
        (&["put", "--hosts-file", "missing.toml", "img", "web1:/x"], "hosts file missing.toml: No such file"),
        (&["put", "img", "web[1-3]:/x"], "stands for 3 hosts"),
        (&["put", "img", "web[3-1]:/x"], "runs backwards"),
        (&["put", "img", "all:/x"], "matches nothing"),
        (&["put", "--bogus", "img", "web1:/x"], "unexpected argument '--bogus'"),
        (&["put", "--limit", "web1", "img", "web1:/x"], "unexpected argument '--limit'"),
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
    let promised: [(&str, Vec<&str>); 5] = [
        ("put", [&connection[..], &finish, &put].concat()),
        ("merge", [&connection[..], &finish].concat()),
        ("status", connection.to_vec()),
        ("clean", [&connection[..], &["--force"]].concat()),
        ("hosts", ["--ping", "--json", "--hosts-file", "-o, --option"].to_vec()),
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
    assert_refused(&run(&[("HAUL_JUMP", "b")], &upload), 2, "jump hosts", "HAUL_JUMP");
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

#[test]
fn errors_in_a_hosts_file_name_file_line_and_key() {
    let home = Home::new();
    for (text, expected) in [
        ("[hosts.a]\naddress = 'x'\nprot = 22\n", "bad.toml:3: unknown key 'prot' in [hosts.a]"),
        ("[defaults]\nport = 'x'\n", "bad.toml:2: [defaults] port: is a number from 1 to 65535"),
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
    home.write("bad.toml", "[hosts.a]\njump = 'b'\n");
    let output = home.haul(&["put", "--hosts-file", "bad.toml", "img", "a:/x"]);
    assert_refused(&output, 2, "host 'a' has a 'jump'", "jump");
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

/// The flags that reach a server of the harness.
fn way_to(sshd: &Sshd) -> Vec<String> {
    vec![
        "-P".to_owned(),
        sshd.port().to_string(),
        "-i".to_owned(),
        sshd.key_path().display().to_string(),
        "-o".to_owned(),
        format!("UserKnownHostsFile={}", sshd.known_hosts_path().display()),
    ]
}

fn run(home: &Home, sshd: &Sshd, command: &str, arguments: &[&str]) -> Output {
    let mut haul = haul(home.path());
    haul.arg(command).args(way_to(sshd)).args(arguments).stdin(Stdio::null());
    haul.output().expect("haul starts")
}

fn events(output: &Output) -> Vec<serde_json::Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

#[test]
fn an_upload_tells_people_and_scripts_how_it_went() {
    let (home, sshd) = (Home::new(), Sshd::start());
    let target = sshd.scratch().join("img");
    let destination = format!("{}@127.0.0.1:{}", sshd.user(), target.display());

    let output = run(&home, &sshd, "put", &["img", &destination]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let line = stdout(&output);
    assert!(line.starts_with(&format!("127.0.0.1:{}: uploaded 7 B in ", target.display())), "{line}");
    assert!(line.ends_with(" verified on the target\n"), "{line}");
    assert_eq!(fs::read(&target).expect("the target"), b"content");

    let output = run(&home, &sshd, "put", &["--json", "img", &destination]);
    let events = events(&output);
    assert!(events.iter().all(|event| event["event"].is_string() && event["host"] == "127.0.0.1"));
    let result = events.last().expect("a result");
    assert_eq!((&result["event"], &result["status"]), (&"result".into(), &"unchanged".into()));
    assert_eq!(result["target"], target.display().to_string());

    home.write("img", "different");
    let output = run(&home, &sshd, "put", &["--if-exists", "fail", "--json", "img", &destination]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches('\n').count(), 1, "{}", stderr(&output));
    let events = self::events(&output);
    let result = events.last().expect("a result");
    assert_eq!((&result["status"], &result["exit_code"]), (&"failed".into(), &4.into()));
    assert_eq!(fs::read(&target).expect("the target"), b"content");

    let output = run(&home, &sshd, "put", &["--if-exists", "skip", "img", &destination]);
    assert_eq!((code(&output), stdout(&output).contains(": skipped: ")), (0, true), "{}", stderr(&output));
    let output = run(&home, &sshd, "put", &["-q", "--if-exists", "replace", "img", &destination]);
    assert_eq!((code(&output), stdout(&output), stderr(&output)), (0, String::new(), String::new()));
    assert_eq!(fs::read(&target).expect("the target"), b"different");

    let output = run(&home, &sshd, "status", &["--json", &destination]);
    let status = self::events(&output).remove(0);
    assert_eq!(
        (&status["state"], &status["size"], &status["lock"]),
        (&"complete".into(), &9.into(), &serde_json::Value::Null)
    );
    let output = run(&home, &sshd, "status", &[&destination]);
    assert!(stdout(&output).contains("\n  state   complete\n"), "{}", stdout(&output));
    let output = run(&home, &sshd, "clean", &[&destination]);
    assert_eq!(
        (code(&output), stdout(&output).contains("nothing to clean")),
        (0, true),
        "{}",
        stderr(&output)
    );
}

#[test]
fn several_sources_go_into_a_directory() {
    let (home, sshd) = (Home::new(), Sshd::start());
    home.write("second", "two");
    let destination = format!("{}@127.0.0.1:{}/", sshd.user(), sshd.scratch().display());
    let output = run(&home, &sshd, "put", &["img", "second", &destination]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2, "{}", stdout(&output));
    assert_eq!(fs::read(sshd.scratch().join("second")).expect("the second"), b"two");

    // One that may not be replaced does not keep the other from arriving.
    home.write("img", "different");
    home.write("second", "changed");
    fs::remove_file(sshd.scratch().join("second")).expect("removed");
    let output = run(&home, &sshd, "put", &["--if-exists", "fail", "img", "second", &destination]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(fs::read(sshd.scratch().join("second")).expect("the second"), b"changed");
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

#[test]
fn an_unreachable_host_ends_with_its_code() {
    let home = Home::new();
    let port = crate::harness::sshd::free_port().to_string();
    let output = home.haul(&["put", "--json", "-P", &port, "img", "127.0.0.1:/x"]);
    assert_eq!(code(&output), 10, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches('\n').count(), 1, "{}", stderr(&output));
    let events = events(&output);
    assert_eq!((&events[0]["status"], &events[0]["exit_code"]), (&"failed".into(), &10.into()));
    for command in ["status", "merge", "clean"] {
        let output = home.haul(&[command, "-P", &port, "127.0.0.1:/x"]);
        assert_eq!(code(&output), 10, "{command}: {}", stderr(&output));
    }
}
