//! `haul exec`: a command on a host, as `subprocess.run` has one on this machine.

mod drive;
mod input;
mod interrupts;
mod output;
mod raw;
mod report;
mod result;

use std::ffi::OsStr;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::drive::{Drive, drive};
use self::input::Input;
use self::interrupts::Interrupts;
use self::output::{Sink, Stream};
use self::raw::Raw;
use self::report::{not_started, report};
use self::result::DetachedEvent;
use super::{OneHost, Party, Reporter};
use crate::cli::args::exec::ExecArgs;
use crate::cli::connect::DEFAULT_STALL_TIMEOUT;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::tty;
use crate::engine::exec::{
    Attach, Child, Command, ExecError, ExecErrorKind, Host, Signal, Stdio, attach, signal_detached,
};
use crate::model::escape::printable;
use crate::remote::Connector;

/// What a shell adds to a signal's number.
const SIGNAL_BASE: u8 = 128;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

pub async fn run(args: &ExecArgs) -> Result<ExitCode, CliError> {
    let job = Job::of(args)?;
    let host = Party::find(&destination(&args.hosts), None, &args.connection, &args.output)?.only("exec")?;
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
