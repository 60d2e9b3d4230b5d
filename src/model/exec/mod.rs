//! What a remote command's shell is told, and what it says: the scripts under `haul exec`.
//!
//! The channel of a command runs [`start_script`]: it changes the directory, looks for the
//! program, says that it is ready, and waits for [`GO`]; then the program takes the
//! shell's place, so that standard input, output, the status and the signal it died of are
//! the program's own. A second channel runs [`guard_script`]: it passes signals on, and
//! ends the program's group when its client is gone.

mod said;

pub use said::{GuardSaid, Said, find_line};

use std::time::Duration;

use super::run_id::RunId;
use super::shell::Script;
use super::signal::Signal;

/// Lets the program start. What follows it on standard input is the program's.
pub const GO: &[u8] = b"go\n";

/// Where execvp looks when the environment has no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A year: shells count in 32 bits.
const MAX_TENTHS: u64 = 365 * 24 * 3600 * 10;

/// What to run, as bytes: a target's names are in no encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    pub name: Vec<u8>,
    pub arguments: Vec<Vec<u8>>,
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    pub clear_environment: bool,
    pub directory: Option<Vec<u8>>,
}

/// What cannot be asked of any system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadProgram {
    Empty,
    /// No argument, name or value can hold a NUL.
    Nul,
    /// A shell would take it for an option.
    Dash,
    /// Set for it and named like a variable, it would be one more variable.
    EqualSign,
    VariableName,
    EmptyDirectory,
}

impl std::fmt::Display for BadProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BadProgram::Empty => "the program's name is empty",
            BadProgram::Nul => "no argument, variable or directory can hold a NUL",
            BadProgram::Dash => "the program's name begins with '-'; write ./- and the rest",
            BadProgram::EqualSign => "a program with '=' in its name cannot be given variables",
            BadProgram::VariableName => "a variable's name is empty, begins with '-', or has '=' in it",
            BadProgram::EmptyDirectory => "the directory's name is empty",
        })
    }
}

impl Program {
    pub fn check(&self) -> Result<(), BadProgram> {
        let changed = self.clear_environment || !self.environment.is_empty();
        let variables = || self.environment.iter().flat_map(|(name, value)| [name, value]);
        let mut all = self.arguments.iter().chain([&self.name]).chain(variables()).chain(&self.directory);
        if all.any(|bytes| bytes.contains(&0)) {
            return Err(BadProgram::Nul);
        }
        if self.directory.as_ref().is_some_and(Vec::is_empty) {
            return Err(BadProgram::EmptyDirectory);
        }
        if self
            .environment
            .iter()
            .any(|(name, _)| matches!(name[..], [] | [b'-', ..]) || name.contains(&b'='))
        {
            return Err(BadProgram::VariableName);
        }
        match &self.name[..] {
            [] => Err(BadProgram::Empty),
            [b'-', ..] => Err(BadProgram::Dash),
            name if changed && name.contains(&b'=') => Err(BadProgram::EqualSign),
            _ => Ok(()),
        }
    }

    /// What the shell executes: the program, behind `env` where its environment changes.
    fn words(&self) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        if self.clear_environment || !self.environment.is_empty() {
            words.push(b"env".to_vec());
            if self.clear_environment {
                words.push(b"-i".to_vec());
            }
            words.extend(self.environment.iter().map(|(name, value)| [name, &b"="[..], value].concat()));
        }
        words.push(self.name.clone());
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// Where it is looked for; `None` for where the login shell looks.
    fn path(&self) -> Option<&[u8]> {
        let set = self.environment.iter().rev().find(|(name, _)| name == b"PATH");
        match set {
            Some((_, path)) => Some(path),
            None if self.clear_environment => Some(DEFAULT_PATH.as_bytes()),
            None => None,
        }
    }

    fn script(&self, body: &'static str, streams: &Streams) -> Script {
        let path = self.path();
        Script::new(&[include_str!("start.sh"), body])
            .arguments(&self.words())
            .set("haul_program", &self.name)
            .number("haul_chdir", self.directory.is_some().into())
            .set("haul_directory", self.directory.as_deref().unwrap_or_default())
            .number("haul_path_given", path.is_some().into())
            .set("haul_path", path.unwrap_or_default())
            .set("haul_stdin", if streams.stdin { "channel" } else { "null" })
            .set("haul_stdout", if streams.stdout { "channel" } else { "null" })
            .set("haul_stderr", streams.stderr.word())
    }
}

/// Which of the standard streams reach the program's channel. The others are /dev/null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: ErrorStream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorStream {
    Null,
    Own,
    /// To where standard output goes, in the order in which it is written.
    WithStdout,
}

impl ErrorStream {
    fn word(self) -> &'static str {
        match self {
            ErrorStream::Null => "null",
            ErrorStream::Own => "own",
            ErrorStream::WithStdout => "merge",
        }
    }
}

/// For the channel of `program`. `nonce` marks what the script says as its own.
pub fn start_script(program: &Program, streams: &Streams, nonce: RunId) -> Script {
    program.script(include_str!("attached.sh"), streams).set("haul_nonce", nonce.to_string())
}

/// Starts `program` apart from the connection, its state in `~/.local/state/haul/exec/<id>`.
/// With `streams.stdin` the program starts once `stdin_bytes` came.
pub fn detach_script(
    program: &Program,
    streams: &Streams,
    nonce: RunId,
    id: RunId,
    stdin_bytes: u64,
) -> Script {
    program
        .script(include_str!("detached.sh"), streams)
        .set("haul_nonce", nonce.to_string())
        .set("haul_id", id.to_string())
        .number("haul_stdin_bytes", stdin_bytes)
}

/// How to look at what was detached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    pub id: RunId,
    /// Until it has ended, and then ends with its status.
    pub wait: bool,
    /// Removes its state after its end.
    pub forget: bool,
}

/// Gives the output so far and, if asked to, what is still to come.
pub fn attach_script(attach: &Attach, nonce: RunId) -> Script {
    Script::new(&[include_str!("state.sh"), include_str!("attach.sh")])
        .set("haul_nonce", nonce.to_string())
        .set("haul_id", attach.id.to_string())
        .number("haul_wait", attach.wait.into())
        .number("haul_forget", attach.forget.into())
}

/// Sends a signal to what was detached.
pub fn signal_script(id: RunId, signal: Signal, to_leader: bool, nonce: RunId) -> Script {
    Script::new(&[include_str!("state.sh"), include_str!("signal.sh")])
        .set("haul_nonce", nonce.to_string())
        .set("haul_id", id.to_string())
        .set("haul_signal", signal.kill_option())
        .number("haul_to_leader", to_leader.into())
}

/// For the channel beside a command's: takes [`Order`]s, a line each.
pub fn guard_script(nonce: RunId) -> Script {
    Script::new(&[include_str!("guard.sh")]).set("haul_nonce", nonce.to_string())
}

/// What a guard is told. It answers each by [`GuardSaid::Done`] or [`GuardSaid::Gone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From now on ends `group`, when its own input ends while `leader` still runs.
    Watch {
        leader: u32,
        group: Group,
        grace: Duration,
    },
    /// To the whole group.
    Signal(Signal),
    ToLeader(Signal),
    /// Asks by the signal, then by TERM, then kills. Says [`GuardSaid::Ended`] at its end.
    End {
        first: Signal,
        grace: Duration,
    },
}

impl Order {
    pub fn line(&self) -> String {
        match self {
            Order::Watch { leader, group, grace } => {
                let sign = if *group == Group::None { "" } else { "-" };
                format!("watch {leader} {sign}{leader} {}\n", tenths(*grace))
            }
            Order::Signal(signal) => format!("group {}\n", signal.kill_option()),
            Order::ToLeader(signal) => format!("leader {}\n", signal.kill_option()),
            Order::End { first, grace } => format!("end {} {}\n", first.kill_option(), tenths(*grace)),
        }
    }
}

/// As a guard counts time.
fn tenths(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(100)).unwrap_or(u64::MAX).min(MAX_TENTHS)
}

/// What the program leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Own,
    /// It will once it has started.
    Later,
    /// There is no way here to give it one.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str) -> Program {
        Program { name: name.into(), ..Program::default() }
    }

    #[test]
    fn what_no_system_can_run_is_refused() {
        let variable = |name: &str| vec![(name.as_bytes().to_vec(), b"v".to_vec())];
        for (program, verdict) in [
            (program("ls"), Ok(())),
            (program(""), Err(BadProgram::Empty)),
            (program("-x"), Err(BadProgram::Dash)),
            (program("a\0b"), Err(BadProgram::Nul)),
            (program("a=b"), Ok(())),
            (Program { clear_environment: true, ..program("a=b") }, Err(BadProgram::EqualSign)),
            (Program { environment: variable("A"), ..program("ls") }, Ok(())),
            (Program { environment: variable(""), ..program("ls") }, Err(BadProgram::VariableName)),
            (Program { environment: variable("A=B"), ..program("ls") }, Err(BadProgram::VariableName)),
            (Program { environment: variable("-i"), ..program("ls") }, Err(BadProgram::VariableName)),
            (Program { directory: Some(Vec::new()), ..program("ls") }, Err(BadProgram::EmptyDirectory)),
        ] {
            assert_eq!(program.check(), verdict, "{program:?}");
        }
    }

    #[test]
    fn the_environment_changes_through_env() {
        let mut program = program("ls");
        program.arguments = vec![b"-l".to_vec()];
        assert_eq!(program.words(), [&b"ls"[..], b"-l"]);
        program.environment = vec![(b"A".to_vec(), b"1 2".to_vec())];
        assert_eq!(program.words(), [&b"env"[..], b"A=1 2", b"ls", b"-l"]);
        assert_eq!(program.path(), None);
        program.clear_environment = true;
        assert_eq!(program.words()[..2], [b"env".to_vec(), b"-i".to_vec()]);
        assert_eq!(program.path(), Some(DEFAULT_PATH.as_bytes()));
    }

    #[test]
    fn orders_are_lines() {
        let watch = Order::Watch { leader: 7, group: Group::Own, grace: Duration::from_secs(5) };
        assert_eq!(watch.line(), "watch 7 -7 50\n");
        let watch = Order::Watch { leader: 7, group: Group::None, grace: Duration::from_secs(5) };
        assert_eq!(watch.line(), "watch 7 7 50\n");
        assert_eq!(Order::Signal(Signal::USR1).line(), "group USR1\n");
        assert_eq!(Order::End { first: Signal::INT, grace: Duration::from_millis(410) }.line(), "end 2 5\n");
    }
}
