//! What is said of a command's end, and the exit code that it makes.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::SIGNAL_BASE;
use super::drive::{Cause, Ended};
use super::output::{Sink, Written};
use super::result::ResultEvent;
use crate::cli::args::exec::ExecArgs;
use crate::cli::commands::{OneHost, Reporter};
use crate::cli::exit_code::ExitCode;
use crate::cli::fleet::table::HostEnd;
use crate::engine::exec::{ExecErrorKind, ExitStatus, Signal};
use crate::model::escape::printable;

/// As ssh has it: the link or the host failed.
const LINK_FAILED: u8 = 255;
/// As timeout(1) and a shell have them.
const TIMED_OUT: u8 = 124;
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Lines of standard error in the error line of `--check`.
const CHECK_LINES: usize = 3;

/// Of a command that was not started, or not by this haul.
pub fn error_code(kind: ExecErrorKind) -> ExitCode {
    match kind {
        ExecErrorKind::ProgramNotFound => ExitCode::Remote(NOT_FOUND),
        ExecErrorKind::ProgramNotExecutable => ExitCode::Remote(CANNOT_EXECUTE),
        ExecErrorKind::InvalidInput => ExitCode::Usage,
        ExecErrorKind::Directory | ExecErrorKind::Detached => ExitCode::Failed,
        _ => ExitCode::Remote(LINK_FAILED),
    }
}

/// Says why there is no status.
pub fn not_started(
    host: &OneHost,
    reporter: &Reporter,
    words: &[String],
    message: &str,
    code: ExitCode,
) -> HostEnd {
    let message = with_host(host.name(), message);
    if let Reporter::Json(lines) = reporter {
        lines.sender().send(&ResultEvent::failed(host.name(), words, &message, code.number()));
    }
    host.screen.line(&format!("haul: {message}"));
    HostEnd { code, result: "failed".to_owned(), bytes: None, reason: Some(message) }
}

/// The remote layer's messages name the host already.
pub fn with_host(host: &str, message: &str) -> String {
    if message.starts_with(&format!("{host}:")) { message.to_owned() } else { format!("{host}: {message}") }
}

/// Says how it ended.
pub fn report(
    args: &ExecArgs,
    host: &OneHost,
    reporter: &Reporter,
    ended: &Ended,
    time: Duration,
) -> HostEnd {
    let say = |text: &str| host.screen.line(&format!("haul: {}: {text}", host.name()));
    let name = words(args).into_iter().next().unwrap_or_default();
    // Who looks at a detached command and leaves does it no harm.
    let left = if args.detach.attach.is_some() { "was left to go on" } else { "was ended" };
    let (code, error) = match (&ended.cause, &ended.status) {
        (Some(Cause::TimedOut(limit)), _) => {
            let error = format!("'{name}' timed out after {} s and {left}", limit.as_secs_f32());
            (TIMED_OUT, Some(error))
        }
        (Some(Cause::Interrupted(signal)), _) => {
            (SIGNAL_BASE + signal.number(), Some(format!("'{name}' {left} because of {signal}")))
        }
        (Some(Cause::Stopped), _) => {
            (ExitCode::Interrupted.number(), Some(format!("'{name}' {left}, since all hosts had to stop")))
        }
        (Some(Cause::ReaderGone), status) => {
            let failure =
                [&ended.stdout, &ended.stderr].into_iter().flatten().find_map(|w| w.failure.as_ref());
            match (failure, status) {
                (Some(error), _) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    (ExitCode::Failed.number(), Some(format!("its output cannot be written: {error}")))
                }
                // A reader that has seen enough is no trouble to speak of.
                (_, Some(Ok(status))) if !status.success() => (status.shell_code(), None),
                _ => (SIGNAL_BASE + Signal::PIPE.number(), None),
            }
        }
        (None, Some(Ok(status))) => (status.shell_code(), verdict(args, &name, status, ended)),
        (None, Some(Err(error))) => (LINK_FAILED, Some(error.message.clone())),
        (None, None) => (LINK_FAILED, Some("the command was left before its end".to_owned())),
    };
    if let Some(error) = &error {
        say(error);
    }
    if ended.dropped_bytes > 0 {
        say(&format!(
            "{} bytes of output were dropped, nobody took them while the command was ended",
            ended.dropped_bytes
        ));
    }
    let mut code = code;
    if let Some(failure) = &ended.input_failure {
        say(&format!("standard input cannot be read: {failure}"));
        code = code.max(ExitCode::Failed.number());
    }
    if let Reporter::Json(lines) = reporter {
        lines.sender().send(&ResultEvent::ended(
            host.name(),
            &words(args),
            ended,
            error.as_deref(),
            code,
            time,
        ));
    }
    if captured(&ended.stdout).is_some_and(|cut| cut) || captured(&ended.stderr).is_some_and(|cut| cut) {
        say("more output came than --capture keeps; the result has its beginning");
    }
    HostEnd { code: ExitCode::Remote(code), result: result(ended), bytes: None, reason: error }
}

/// In a word or two, for a table.
fn result(ended: &Ended) -> String {
    match (&ended.cause, &ended.status) {
        (Some(Cause::TimedOut(_)), _) => "timed out".to_owned(),
        (Some(Cause::Interrupted(_) | Cause::Stopped), _) => "stopped".to_owned(),
        (_, Some(Ok(ExitStatus::Exited(code)))) => format!("exit {code}"),
        (_, Some(Ok(ExitStatus::Signaled { signal, .. }))) => format!("SIG{signal}"),
        (_, Some(Err(_)) | None) => "failed".to_owned(),
    }
}

fn captured(written: &Option<Written>) -> Option<bool> {
    match &written.as_ref()?.sink {
        Sink::Captured { cut, .. } => Some(*cut),
        _ => None,
    }
}

/// What there is to say about a status: a signal always, a code with `--check`.
fn verdict(args: &ExecArgs, name: &str, status: &ExitStatus, ended: &Ended) -> Option<String> {
    if status.success() || (!args.end.check && status.signal().is_none()) {
        return None;
    }
    let mut text = match status {
        ExitStatus::Exited(code) => format!("'{name}' ended with exit status {code}"),
        died => format!("'{name}' {died}"),
    };
    let heard = if args.streams.merge_stderr { &ended.stdout } else { &ended.stderr };
    if let (true, Some(written)) = (args.end.check, heard) {
        let lines: Vec<&[u8]> =
            written.tail.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(CHECK_LINES)..];
        if !last.is_empty() {
            let shown: Vec<String> = last.iter().map(|line| printable(line)).collect();
            text.push_str(&format!(": {}", shown.join(" | ")));
        }
    }
    Some(text)
}

/// The program and its arguments, escaped.
pub fn words(args: &ExecArgs) -> Vec<String> {
    match (&args.program.shell, args.detach.attach) {
        (_, Some(id)) => vec![id.to_string()],
        (Some(text), _) => {
            ["sh", "-c"].map(str::to_owned).into_iter().chain([printable(text.as_bytes())]).collect()
        }
        (None, None) => args.command.iter().map(|word| printable(word.as_bytes())).collect(),
    }
}
