//! One table, run by Python's subprocess on this machine and by haul on a host.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::stage::{Outcome, Stage, outcome};
use crate::harness::sshd::write_script;
use crate::scripts::shells::find;

#[derive(Serialize)]
struct Case {
    argv: Vec<String>,
    input: String,
    cwd: Option<String>,
    /// In place of the whole environment.
    env: Option<Vec<(String, String)>>,
    merge: bool,
    discard: bool,
    timeout: Option<f64>,
}

#[derive(Deserialize)]
struct Expected {
    code: serde_json::Value,
    stdout: String,
    stderr: String,
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).expect("hexadecimal")
}

impl Case {
    fn new(argv: &[&[u8]]) -> Case {
        Case {
            argv: argv.iter().map(|word| hex(word)).collect(),
            input: String::new(),
            cwd: None,
            env: None,
            merge: false,
            discard: false,
            timeout: None,
        }
    }

    fn words(argv: &[&str]) -> Case {
        Case::new(&argv.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    fn shell(text: &str) -> Case {
        Case::words(&["sh", "-c", text])
    }

    fn input(mut self, input: &[u8]) -> Case {
        self.input = hex(input);
        self
    }

    fn cwd(mut self, directory: &str) -> Case {
        self.cwd = Some(hex(directory.as_bytes()));
        self
    }

    fn env(mut self, variables: &[(&str, &[u8])]) -> Case {
        self.env = Some(variables.iter().map(|(name, value)| (hex(name.as_bytes()), hex(value))).collect());
        self
    }

    fn merge(mut self) -> Case {
        self.merge = true;
        self
    }

    fn discard(mut self) -> Case {
        self.discard = true;
        self
    }

    fn timeout(mut self, seconds: f64) -> Case {
        self.timeout = Some(seconds);
        self
    }

    fn run(&self, stage: &Stage) -> Outcome {
        let mut command = stage.exec();
        if let Some(directory) = &self.cwd {
            command.arg("--chdir").arg(OsStr::from_bytes(&unhex(directory)));
        }
        if let Some(variables) = &self.env {
            command.arg("--clear-env");
            for (name, value) in variables {
                let variable = [&unhex(name)[..], b"=", &unhex(value)].concat();
                command.arg("--env").arg(OsStr::from_bytes(&variable));
            }
        }
        if self.merge {
            command.arg("--merge-stderr");
        }
        if self.discard {
            command.arg("--discard-output");
        }
        if let Some(seconds) = self.timeout {
            command.arg("--timeout").arg(format!("{}ms", (seconds * 1000.0) as u64)).arg("--grace").arg("1s");
        }
        command.arg("127.0.0.1").arg("--");
        for word in &self.argv {
            command.arg(OsStr::from_bytes(&unhex(word)));
        }
        outcome(command, Some(&unhex(&self.input)))
    }
}

fn cases(stage: &Stage) -> Vec<Case> {
    let printer = |values: &[&[u8]]| {
        let mut argv: Vec<&[u8]> = vec![b"printf", b"%s|"];
        argv.extend(values);
        Case::new(&argv)
    };
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let long = vec![b'\''; 40_000];
    let directory = stage.scratch("a 'directory'");
    std::fs::create_dir_all(&directory).expect("a directory");
    let script = stage.scratch("script");
    write_script(&script, "#!/bin/sh\necho \"$0 $1\"\n");
    let script = script.to_str().expect("UTF-8");
    let many: Vec<String> = (0..300).map(|number| format!("argument {number}")).collect();
    let mut many_words: Vec<&str> = vec!["printf", "%s\\n"];
    many_words.extend(many.iter().map(String::as_str));
    vec![
        // B1: status.
        Case::words(&["true"]),
        Case::words(&["false"]),
        Case::shell("exit 1"),
        Case::shell("exit 42"),
        Case::shell("exit 126"),
        Case::shell("exit 127"),
        Case::shell("exit 143"),
        Case::shell("exit 255"),
        Case::shell("kill -TERM $$"),
        Case::shell("kill -KILL $$"),
        Case::shell("kill -HUP $$"),
        Case::shell("kill -INT $$"),
        Case::shell("kill -USR1 $$"),
        Case::shell("kill -USR2 $$"),
        Case::shell("kill -PIPE $$"),
        Case::words(&["no-such-program-anywhere"]),
        Case::words(&["/no/such/path"]),
        Case::words(&["/etc/passwd"]),
        Case::words(&["/etc"]),
        // B2: arguments.
        printer(&[b"", b"", b"a"]),
        printer(&[b"a b", b" ", b"  a  ", b"\t"]),
        printer(&[b"\n", b"a\nb\n\n", b"\r\n"]),
        printer(&[b"'", b"\"", b"\\", b"\\\\", b"\\n", b"'\\''"]),
        printer(&[b"$HOME", b"$(id)", b"`id`", b"${x}", b"$$"]),
        printer(&[b"!", b"!!", b"a!b", b"^a^b", b"%", b"%%s", b"%d"]),
        printer(&[b"*", b"?", b"[a-z]", b"{a,b}", b"~", b"~root", b"=ls"]),
        printer(&[b";", b"&", b"|", b"<", b">", b"(", b")", b"#", b"&&"]),
        printer(&[b"-n", b"-e", b"--", b"-", b"--help"]),
        printer(&[b"\xff\xfe", b"\xc3", b"\x80", "\u{e9}\u{2028}\u{1f600}".as_bytes()]),
        printer(&[b"\x01", b"\x07\x08", b"\x1b[31m", b"\x7f"]),
        printer(&[&long]),
        Case::words(&many_words),
        Case::words(&[script, "x y"]),
        Case::words(&["echo", "-n", "x"]),
        Case::words(&["test", "", "=", ""]),
        // B4: streams.
        Case::shell("echo out; echo err >&2"),
        Case::shell("echo out; echo err >&2; echo out again; exit 3").merge(),
        Case::shell("i=0; while [ $i -lt 50 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done").merge(),
        Case::shell("echo out; echo err >&2; exit 4").discard(),
        Case::shell("printf 'no newline'; printf 'here neither' >&2"),
        Case::shell("printf '\\000\\001\\377'; printf '\\377\\000' >&2"),
        Case::shell("exec >&-; echo x 2>/dev/null || exit 9"),
        Case::words(&["head", "-c", "3000000", "/dev/zero"]),
        // B6: input.
        Case::words(&["cat"]),
        Case::words(&["cat"]).input(b"one\ntwo"),
        Case::words(&["cat"]).input(&every_byte),
        Case::words(&["wc", "-c"]).input(&every_byte),
        Case::words(&["head", "-n", "1"]).input(b"first\nsecond\nthird\n"),
        Case::words(&["true"]).input(&every_byte),
        Case::shell("read a; read b; echo \"$b $a\"").input(b"1\n2\n"),
        Case::shell("cat >&2").input(b"\0\xff"),
        Case::words(&["sort", "-r"]).input(b"a\nb\nc\n"),
        // B10: directory and environment.
        Case::words(&["pwd"]).cwd("/usr"),
        Case::words(&["pwd", "-P"]).cwd(directory.to_str().expect("UTF-8")),
        Case::words(&["true"]).cwd("/no/such/directory"),
        Case::words(&["true"]).cwd("/etc/passwd"),
        Case::words(&["/usr/bin/env"]).env(&[]),
        Case::words(&["/usr/bin/env"]).env(&[("A", b"1"), ("B", b"two words"), ("E", b"")]),
        Case::words(&["env"]).env(&[
            ("PATH", b"/usr/bin:/bin"),
            ("UID", b"5"),
            ("IFS", b"x"),
            ("PWD", b"/nowhere"),
        ]),
        Case::words(&["env"]).env(&[("X", b"a=b=c\n$(x) 'q' \\ \xff"), ("haul_script", b"mine")]),
        Case::words(&["ls"]).env(&[("PATH", b"/nowhere")]),
        // B5: time.
        Case::shell("echo before; echo trouble >&2; sleep 1000").timeout(2.0),
        Case::shell("echo fast").timeout(600.0),
    ]
}

#[test]
fn python_and_haul_agree() {
    let stage = Stage::new();
    let cases = cases(&stage);
    assert!(cases.len() >= 40);
    let mut python = Command::new(find("python3"))
        .arg("-c")
        .arg(include_str!("python.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let text = serde_json::to_vec(&cases).expect("JSON");
    python.stdin.take().expect("stdin").write_all(&text).expect("write");
    let output = python.wait_with_output().expect("python3 ends");
    assert!(output.status.success());
    let expected: Vec<Expected> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(expected.len(), cases.len());

    let mut differences = Vec::new();
    for (case, expected) in cases.iter().zip(&expected) {
        let got = case.run(&stage);
        let name: Vec<String> = case
            .argv
            .iter()
            .take(4)
            .map(|word| String::from_utf8_lossy(&unhex(word)).chars().take(60).collect())
            .collect();
        let code = match (&expected.code, expected.code.as_i64()) {
            (_, Some(code @ 0..)) => code,
            // A negative one is a signal; haul says it as a shell does.
            (_, Some(code)) => 128 - code,
            (code, None) => match code.as_str() {
                Some("TimeoutExpired") => 124,
                Some("FileNotFoundError") => 127,
                Some("PermissionError") => 126,
                Some("cwd") => 1,
                other => panic!("{name:?}: {other:?}"),
            },
        };
        if i64::from(got.code) != code {
            differences.push(format!("{name:?}: status {} in place of {code}: {}", got.code, got.errors()));
        }
        if got.stdout != unhex(&expected.stdout) {
            differences
                .push(format!("{name:?}: stdout {:?}", got.text().chars().take(200).collect::<String>()));
        }
        // What haul itself has to say comes last, in lines of its own.
        let errors = got
            .stderr
            .split(|byte| *byte == b'\n')
            .rev()
            .skip(1)
            .take_while(|line| line.starts_with(b"haul: "));
        let own: usize = errors.map(|line| line.len() + 1).sum();
        let theirs = &got.stderr[..got.stderr.len() - own];
        if theirs != unhex(&expected.stderr) {
            differences.push(format!("{name:?}: stderr {:?}", String::from_utf8_lossy(theirs)));
        }
        if own > 0 && code == 0 {
            differences.push(format!("{name:?}: haul had something to say: {}", got.errors()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    stage.assert_all_gone();
}
