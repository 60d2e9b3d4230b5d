//! Values of any bytes arrive unchanged in every shell.

use std::io::Write;
use std::process::Stdio;

use haul::model::shell::{COMMAND, Script};

use super::shells::{LOGIN_SHELLS, Machine, SHELLS, find};

/// Random strings of 0 to 40 bytes without NUL, and the ones that quoting fails on.
fn values(count: usize) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = [
        &b""[..],
        b"\n",
        b"a\n\n",
        b"'",
        b"\\",
        b"\\\\",
        b"\\n",
        b"%s%d%%",
        b"$(touch x)",
        b"`x`",
        b"!!",
        b"a!b",
        b"-n",
        b"-e",
        b"--",
        b"*",
        b"~",
        b"\xff\xfe",
        b"\xc3",
        b"\x81",
        b" a  b ",
        b"\t",
        b"\r\n",
        b"\x1b[2J",
        b"\\0101",
        b"d*\xcf\\\xa1",
        b"0123",
        b"\x017",
        b";:&|<>(){}[]#\"",
        "\u{fc}\u{2028}".as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let mut random = vec![0; count * 41];
    getrandom::fill(&mut random).expect("random bytes");
    for block in random.chunks_exact(41) {
        let length = usize::from(block[40]) % 41;
        values.push(block[..length].iter().map(|b| (*b).max(1)).collect());
    }
    values
}

fn assert_same(shell: &str, output: &[u8], values: &[Vec<u8>]) {
    let mut got: Vec<&[u8]> = output.split(|b| *b == 0).collect();
    assert_eq!(got.pop(), Some(&b""[..]), "{shell}: the end of the output");
    assert_eq!(got.len(), values.len(), "{shell}");
    for (got, value) in got.iter().zip(values) {
        assert_eq!(got, value, "{shell}");
    }
}

#[test]
fn a_thousand_random_values_in_one_script() {
    const NAMES: usize = 1030;
    let values = values(NAMES - 29);
    let mut script = Script::new(&[
        "number=0\nwhile [ \"$number\" -lt \"$count\" ]; do\n    eval \"printf '%s\\\\000' \\\"\\$v$number\\\"\"\n",
        "    number=$((number + 1))\ndone\n",
    ])
    .number("count", values.len() as u64);
    for (number, value) in values.iter().enumerate() {
        script = script.set(Box::leak(format!("v{number}").into_boxed_str()), value);
    }
    for shell in SHELLS {
        for locale in ["C", "C.UTF-8"] {
            let machine = Machine::new(shell);
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), script.text()).expect("the script is written");
            let output = machine.command(machine.sh()).env("LC_ALL", locale).arg(file.path()).output();
            let output = output.expect("the shell runs");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
            assert_same(shell, &output.stdout, &values);
        }
    }
}

#[test]
fn the_one_command_in_every_login_shell_and_every_sh() {
    let values = values(40);
    for login in LOGIN_SHELLS {
        for shell in SHELLS {
            let machine = Machine::new(shell);
            for value in &values {
                let script = Script::new(&["# it's a \\ test!\nprintf '%s\\000' \"$v\"\ncat\nexit 7\n"])
                    .set("v", value);
                if shell != "dash" && value.len() > 2 {
                    continue;
                }
                let mut command = machine.command(find(login));
                if login == "busybox" {
                    command.arg("sh");
                }
                let mut child = command
                    .args(["-c", COMMAND])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("the login shell runs");
                let mut stdin = child.stdin.take().expect("a pipe");
                stdin.write_all(script.line().as_bytes()).expect("the script is taken");
                stdin.write_all(b"the rest\nis the program's").expect("the rest is taken");
                drop(stdin);
                let output = child.wait_with_output().expect("the end");
                assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{login}, {shell}");
                assert_eq!(
                    output.stdout,
                    [value, &b"\0the rest\nis the program's"[..]].concat(),
                    "{login}, {shell}"
                );
                assert_eq!(output.status.code(), Some(7), "{login}, {shell}");
            }
        }
    }
}

#[test]
fn a_line_that_was_cut_off_is_not_run() {
    let line = Script::new(&["echo ran\n"]).set("v", "x").line();
    for shell in SHELLS {
        let machine = Machine::new(shell);
        for end in [line.len() - 1, line.len() - 3, 5, 0] {
            let mut child = machine
                .command(machine.sh())
                .args(["-c", COMMAND])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the shell runs");
            child
                .stdin
                .take()
                .expect("a pipe")
                .write_all(&line.as_bytes()[..end])
                .expect("the piece is taken");
            let output = child.wait_with_output().expect("the end");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{shell}, {end}");
            assert!(!output.status.success(), "{shell}, {end}");
        }
    }
}
