//! `haul exec`: a command on a host, as `subprocess.run` has one on this machine.

mod drive;
mod input;
mod interrupts;
mod output;
mod raw;
mod result;

use std::ffi::OsStr;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::drive::{Cause, Drive, Ended, drive};
use self::input::Input;
use self::interrupts::Interrupts;
use self::output::{Sink, Stream, Written};
use self::raw::Raw;
use self::result::{DetachedEvent, ResultEvent};
use super::{OneHost, Reporter};
use crate::cli::args::exec::ExecArgs;
use crate::cli::connect::DEFAULT_STALL_TIMEOUT;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::tty;
use crate::engine::exec::{
    Attach, Child, Command, ExecError, ExecErrorKind, ExitStatus, Host, Signal, Stdio, attach,
    signal_detached,
};
use crate::model::escape::printable;
use crate::remote::Connector;

/// As ssh has it: the link or the host failed.
const LINK_FAILED: u8 = 255;
/// As timeout(1) and a shell have them.
const TIMED_OUT: u8 = 124;
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;
const SIGNAL_BASE: u8 = 128;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Lines of standard error in the error line of `--check`.
const CHECK_LINES: usize = 3;

pub async fn run(args: &ExecArgs) -> Result<ExitCode, CliError> {
    let job = Job::of(args)?;
    let host = OneHost::find(&destination(&args.hosts), &args.connection, &args.output)?;
    let connector = host.connector(&args.connection, DEFAULT_STALL_TIMEOUT)?;
    let mut interrupts = Interrupts::listen()?;
    let wants_json = args.output.json || args.streams.capture.is_some();
    let reporter =
        Reporter::start(&crate::cli::args::output::OutputArgs { json: wants_json, ..args.output })?;
    let code = match job {
        Job::Run(command) if args.detach.detach => {
            detach(args, &host, connector, &command, &mut interrupts, &reporter).await?
        }
        Job::Run(command) => {
            let start = |host| {
                let command = command.clone();
                async move { command.spawn(&host).await }
            };
            run_child(args, &host, connector, &mut interrupts, &reporter, start).await?
        }
        Job::Attach(wanted) => {
            let start = |host| async move { attach(&host, &wanted).await };
            run_child(args, &host, connector, &mut interrupts, &reporter, start).await?
        }
        Job::Signal(id, signal) => {
            let work = async {
                let remote = Host::connect(connector).await?;
                let sent = signal_detached(&remote, id, signal, args.end.signal_leader).await;
                remote.disconnect().await;
                sent
            };
            match unless_interrupted(&mut interrupts, work).await? {
                Ok(()) => ExitCode::Done,
                Err(error) => not_started(&host, &reporter, args, &error),
            }
        }
    };
    reporter.finish(code)
}

/// What is to be done.
enum Job {
    Run(Command),
    Attach(Attach),
    Signal(crate::model::run_id::RunId, Signal),
}

impl Job {
    fn of(args: &ExecArgs) -> Result<Job, CliError> {
        if let Some(id) = args.detach.attach {
            return Ok(match args.detach.signal {
                Some(signal) => Job::Signal(id, signal),
                None => Job::Attach(Attach { id, wait: !args.detach.no_wait, forget: args.detach.forget }),
            });
        }
        let mut command = match (&args.program.shell, &args.command[..]) {
            (Some(text), _) => Command::shell(text.as_bytes()),
            (None, [program, arguments @ ..]) => {
                let mut command = Command::new(program.as_bytes());
                command.args(arguments.iter().map(|argument| argument.as_bytes()));
                command
            }
            (None, []) => {
                return Err(CliError::usage(
                    "there is nothing to run; write 'haul exec HOST -- PROGRAM ARG…'",
                ));
            }
        };
        for variable in &args.program.env {
            command.env(&variable.name, &variable.value);
        }
        if args.program.clear_env {
            command.env_clear();
        }
        if let Some(directory) = &args.program.chdir {
            command.current_dir(directory.as_bytes());
        }
        let output = if args.streams.discard_output { Stdio::Null } else { Stdio::Piped };
        command.stdin(if args.streams.no_stdin { Stdio::Null } else { Stdio::Piped });
        command.stdout(output).stderr(if args.streams.merge_stderr { Stdio::ToStdout } else { output });
        command.grace(args.end.grace);
        if args.program.terminal {
            command.terminal(raw::terminal());
        }
        Ok(Job::Run(command))
    }
}

/// HOSTS as a destination without a path.
fn destination(hosts: &OsStr) -> std::ffi::OsString {
    let mut bytes = hosts.as_bytes().to_vec();
    if !bytes.windows(3).any(|window| window == b"://") {
        bytes.push(b':');
    }
    std::ffi::OsString::from_vec(bytes)
}

/// Connects and starts, again if nothing was started and `--retries` says so.
async fn run_child<S, F>(
    args: &ExecArgs,
    host: &OneHost,
    connector: Arc<dyn Connector>,
    interrupts: &mut Interrupts,
    reporter: &Reporter,
    start: S,
) -> Result<ExitCode, CliError>
where
    S: Fn(Host) -> F,
    F: Future<Output = Result<Child, ExecError>>,
{
    let begin = Instant::now();
    // A file that cannot be read is said before anything is started.
    let file = args.streams.stdin.as_deref().map(open_input).transpose()?;
    let starting = async {
        let mut attempt = 0;
        loop {
            let started = async {
                let remote = Host::connect(connector.clone()).await?;
                let child = start(remote.clone()).await?;
                Ok((remote, child))
            };
            match started.await {
                Ok(started) => return Ok(started),
                Err(error) if attempt < args.end.retries && worth_a_retry(&error) => {
                    let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
                    attempt += 1;
                    let said = format!("haul: {}: {error}; trying again", host.name());
                    host.screen.remark(&said);
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    };
    let (remote, child) = match unless_interrupted(interrupts, starting).await? {
        Ok(started) => started,
        Err(error) => return Ok(not_started(host, reporter, args, &error)),
    };
    if let Some(reason) = child.unguarded() {
        host.screen.remark(&format!(
            "haul: {}: the server opens no second channel ({reason}); signals may not reach the command, \
             and it may go on when haul is killed",
            host.name()
        ));
    }
    let raw =
        args.program.terminal.then(Raw::enter).transpose().map_err(|error| local("terminal", &error))?;
    let input = match file {
        Some(file) => Some(Input::file(file)),
        None if child.stdin.is_some() => Some(Input::stdin()),
        None => None,
    };
    let input = input.transpose().map_err(|error| local("standard input", &error))?;
    let watch_reader = child.stdout.is_some() && !std::io::stdout().is_terminal();
    let ended = drive(
        child,
        interrupts,
        Drive {
            input,
            stdout: sink(args, host, reporter, Stream::Stdout)?,
            stderr: sink(args, host, reporter, Stream::Stderr)?,
            watch_reader,
            timeout: args.end.timeout,
            grace: args.end.grace,
            signal_leader: args.end.signal_leader,
        },
    )
    .await;
    drop(raw);
    let code = report(args, host, reporter, &ended, begin.elapsed());
    remote.disconnect().await;
    Ok(code)
}

async fn detach(
    args: &ExecArgs,
    host: &OneHost,
    connector: Arc<dyn Connector>,
    command: &Command,
    interrupts: &mut Interrupts,
    reporter: &Reporter,
) -> Result<ExitCode, CliError> {
    let input = match &args.streams.stdin {
        Some(path) => {
            let file = open_input(path)?;
            let bytes = file.metadata().map_err(|error| local_file(path, &error))?.len();
            Some((tokio::fs::File::from_std(file), bytes))
        }
        None => None,
    };
    let work = async {
        let remote = Host::connect(connector).await?;
        let detached = match input {
            Some((mut file, bytes)) => command.detach(&remote, Some((&mut file, bytes))).await,
            None => command.detach(&remote, None).await,
        };
        remote.disconnect().await;
        detached
    };
    match unless_interrupted(interrupts, work).await? {
        Ok(detached) => {
            match reporter {
                Reporter::Json(lines) => lines.sender().send(&DetachedEvent::new(host.name(), &detached)),
                Reporter::People { .. } => crate::cli::print(&format!("{}\n", detached.id))?,
            }
            Ok(ExitCode::Done)
        }
        Err(error) => Ok(not_started(host, reporter, args, &error)),
    }
}

/// Until something runs, a signal ends haul and nothing else.
async fn unless_interrupted<T>(
    interrupts: &mut Interrupts,
    work: impl Future<Output = T>,
) -> Result<T, CliError> {
    tokio::select! {
        done = work => Ok(done),
        signal = interrupts.next_end() => {
            // In the middle of a question the terminal shows no echo.
            if tty::is_asking() {
                tty::abandon();
            }
            let code = ExitCode::Remote(SIGNAL_BASE + signal.number());
            Err(CliError::new(code, format!("stopped by {signal} before the command was started")))
        }
    }
}

fn worth_a_retry(error: &ExecError) -> bool {
    !error.started && matches!(error.kind, ExecErrorKind::Unreachable | ExecErrorKind::Link)
}

fn open_input(path: &Path) -> Result<File, CliError> {
    File::open(path).map_err(|error| local_file(path, &error))
}

fn local_file(path: &Path, error: &std::io::Error) -> CliError {
    local(&printable(path.as_os_str().as_bytes()), error)
}

fn local(what: &str, error: &std::io::Error) -> CliError {
    CliError::new(ExitCode::Failed, format!("{what}: {error}"))
}

fn sink(args: &ExecArgs, host: &OneHost, reporter: &Reporter, stream: Stream) -> Result<Sink, CliError> {
    if let Some(limit) = args.streams.capture {
        return Ok(Sink::Captured { bytes: Vec::new(), limit, cut: false });
    }
    match reporter {
        Reporter::Json(lines) => {
            Ok(Sink::Events { sender: lines.sender(), host: host.name().to_owned(), stream })
        }
        Reporter::People { .. } => Sink::local(stream).map_err(|error| local("standard output", &error)),
    }
}

/// Of what has no status.
fn not_started(host: &OneHost, reporter: &Reporter, args: &ExecArgs, error: &ExecError) -> ExitCode {
    let code = match error.kind {
        ExecErrorKind::ProgramNotFound => ExitCode::Remote(NOT_FOUND),
        ExecErrorKind::ProgramNotExecutable => ExitCode::Remote(CANNOT_EXECUTE),
        ExecErrorKind::InvalidInput => ExitCode::Usage,
        ExecErrorKind::Directory | ExecErrorKind::Detached => ExitCode::Failed,
        _ => ExitCode::Remote(LINK_FAILED),
    };
    let message = with_host(host.name(), &error.message);
    if let Reporter::Json(lines) = reporter {
        lines.sender().send(&ResultEvent::failed(host.name(), &words(args), &message, code.number()));
    }
    host.screen.line(&format!("haul: {message}"));
    code
}

/// The remote layer's messages name the host already.
fn with_host(host: &str, message: &str) -> String {
    if message.starts_with(&format!("{host}:")) { message.to_owned() } else { format!("{host}: {message}") }
}

/// Says how it ended, and gives the exit code.
fn report(args: &ExecArgs, host: &OneHost, reporter: &Reporter, ended: &Ended, time: Duration) -> ExitCode {
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
    ExitCode::Remote(code)
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
fn words(args: &ExecArgs) -> Vec<String> {
    match (&args.program.shell, args.detach.attach) {
        (_, Some(id)) => vec![id.to_string()],
        (Some(text), _) => {
            ["sh", "-c"].map(str::to_owned).into_iter().chain([printable(text.as_bytes())]).collect()
        }
        (None, None) => args.command.iter().map(|word| printable(word.as_bytes())).collect(),
    }
}
