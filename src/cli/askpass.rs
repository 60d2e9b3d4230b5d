//! The program that asks in place of the terminal: SSH_ASKPASS, used when ssh would use it.

use std::ffi::OsString;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use zeroize::Zeroizing;

use super::tty;

/// No answer is longer than this.
const MAX_ANSWER_BYTES: usize = 4096;

/// One question at a time, also between several hosts.
static ONE_QUESTION: Mutex<()> = Mutex::new(());

/// Who puts a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    Terminal,
    Program(OsString),
    Nobody,
}

/// What ssh looks at to decide.
#[derive(Debug, Clone, Default)]
struct Surroundings {
    program: Option<OsString>,
    /// SSH_ASKPASS_REQUIRE.
    require: Option<String>,
    /// There is a desktop for a window.
    display: bool,
    terminal: bool,
}

pub fn asker() -> Asker {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    choose(Surroundings {
        program: variable("SSH_ASKPASS"),
        require: variable("SSH_ASKPASS_REQUIRE").and_then(|value| value.into_string().ok()),
        display: variable("DISPLAY").is_some() || variable("WAYLAND_DISPLAY").is_some(),
        terminal: tty::exists(),
    })
}

fn choose(around: Surroundings) -> Asker {
    let (mut preferred, mut allowed) = (false, around.display);
    match around.require.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("force") => (preferred, allowed) = (true, true),
        Some("prefer") => preferred = allowed,
        Some("never") => allowed = false,
        _ => {}
    }
    match around.program.filter(|_| allowed) {
        Some(program) if preferred || !around.terminal => Asker::Program(program),
        _ if around.terminal => Asker::Terminal,
        _ => Asker::Nobody,
    }
}

/// Puts `question`, which has to be escaped already, to whoever is there.
pub fn ask(question: &str, echo: bool) -> Option<Zeroizing<String>> {
    match asker() {
        Asker::Terminal => tty::ask(question, echo),
        Asker::Program(program) => run(&program, question),
        Asker::Nobody => None,
    }
}

/// The first line of what the program says. A status other than 0 is no answer.
fn run(program: &OsString, question: &str) -> Option<Zeroizing<String>> {
    let _one = ONE_QUESTION.lock().ok()?;
    let mut child =
        Command::new(program).arg(question).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
    // The capacity is fixed, so that no copy of a secret is left behind by growing.
    let mut answer = Zeroizing::new(vec![0; MAX_ANSWER_BYTES]);
    let mut length = 0;
    if let Some(mut output) = child.stdout.take() {
        while let Ok(count @ 1..) = output.read(&mut answer[length..]) {
            length += count;
        }
    }
    if !child.wait().ok()?.success() || length == MAX_ANSWER_BYTES {
        return None;
    }
    let line = answer[..length].split(|byte| matches!(byte, b'\n' | b'\r')).next()?;
    std::str::from_utf8(line).ok().map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_used_when_ssh_would_use_it() {
        let (terminal, program, nobody) = (Asker::Terminal, Asker::Program("ask".into()), Asker::Nobody);
        for (require, display, has_terminal, expected) in [
            (None, false, true, &terminal),
            (None, false, false, &nobody),
            (None, true, true, &terminal),
            (None, true, false, &program),
            (Some("force"), false, true, &program),
            (Some("FORCE"), false, false, &program),
            (Some("prefer"), true, true, &program),
            (Some("prefer"), false, true, &terminal),
            (Some("prefer"), false, false, &nobody),
            (Some("never"), true, false, &nobody),
            (Some("never"), true, true, &terminal),
            (Some("other"), true, false, &program),
        ] {
            let around = Surroundings {
                program: Some("ask".into()),
                require: require.map(str::to_owned),
                display,
                terminal: has_terminal,
            };
            assert_eq!(choose(around.clone()), *expected, "{around:?}");
            let without = choose(Surroundings { program: None, ..around });
            assert_eq!(without, if has_terminal { Asker::Terminal } else { Asker::Nobody });
        }
    }
}
