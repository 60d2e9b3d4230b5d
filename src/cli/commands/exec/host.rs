//! The command on one host, from the connection to what is said of its end.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drive::{Drive, drive};
use super::input::Input;
use super::interrupts::Interrupts;
use super::kept::GROUP_LIMIT_BYTES;
use super::lines::HostLines;
use super::output::{Sink, Stream};
use super::raw::Raw;
use super::report::{error_code, not_started, report, with_host, words};
use super::result::DetachedEvent;
use super::{Job, Order, Outlet, SIGNAL_BASE};
use crate::cli::commands::{OneHost, Reporter};
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::fleet;
use crate::cli::fleet::board::Seat;
use crate::cli::fleet::table::HostEnd;
use crate::cli::tty;
use crate::engine::exec::{Child, Command, ExecError, ExecErrorKind, Host, attach, signal_detached};
use crate::engine::stop::Stop;
use crate::model::escape::printable;
use crate::remote::Connector;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

pub async fn one_host(
    job: fleet::Job,
    connector: Arc<dyn Connector>,
    order: &Order,
) -> Result<HostEnd, CliError> {
    let fleet::Job { index, host, stop, seat } = job;
    let mut on = OnHost { index, host, stop, seat, order, interrupts: Interrupts::listen()? };
    let args = &order.args;
    match &order.job {
        Job::Run(command) if args.detach.detach => on.detach(connector, command).await,
        Job::Run(command) => {
            let start = |host| {
                let command = command.clone();
                async move { command.spawn(&host).await }
            };
            on.run(connector, start).await
        }
        Job::Attach(wanted) => {
            let wanted = *wanted;
            on.run(connector, |host| async move { attach(&host, &wanted).await }).await
        }
        Job::Signal(id, signal) => {
            let work = async {
                let remote = Host::connect(connector).await?;
                let sent = signal_detached(&remote, *id, *signal, args.end.signal_leader).await;
                remote.disconnect().await;
                sent
            };
            Ok(match on.unless_stopped(work).await? {
                Ok(Ok(())) => HostEnd::done("signalled"),
                Ok(Err(error)) => on.not_started(&error),
                Err(end) => end,
            })
        }
    }
}

struct OnHost<'a> {
    index: usize,
    host: OneHost,
    stop: Stop,
    seat: Option<Seat>,
    order: &'a Order,
    interrupts: Interrupts,
}

impl OnHost<'_> {
    /// Connects and starts, again if nothing was started and `--retries` says so.
    async fn run<S, F>(&mut self, connector: Arc<dyn Connector>, start: S) -> Result<HostEnd, CliError>
    where
        S: Fn(Host) -> F,
        F: Future<Output = Result<Child, ExecError>>,
    {
        let begin = Instant::now();
        let args = self.order.args.clone();
        let (screen, name) = (self.host.screen.clone(), printable(self.host.name().as_bytes()));
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
                        screen.remark(&format!("haul: {}; trying again", with_host(&name, &error.message)));
                        tokio::time::sleep(pause).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let (remote, child) = match self.unless_stopped(starting).await? {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => return Ok(self.not_started(&error)),
            Err(end) => return Ok(end),
        };
        if let Some(seat) = &self.seat {
            seat.doing("running");
        }
        if let Some(reason) = child.unguarded() {
            screen.remark(&format!(
                "haul: {name}: the server opens no second channel ({reason}); signals may not reach the \
                 command, and it may go on when haul is killed"
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
        let (stdout, stderr) = (self.sink(Stream::Stdout)?, self.sink(Stream::Stderr)?);
        let watch_reader = child.stdout.is_some() && stdout.is_stdout() && !std::io::stdout().is_terminal();
        let ended = drive(
            child,
            &mut self.interrupts,
            Drive {
                input,
                stdout,
                stderr,
                watch_reader,
                timeout: args.end.timeout,
                grace: args.end.grace,
                signal_leader: args.end.signal_leader,
                stop: self.stop.clone(),
            },
        )
        .await;
        drop(raw);
        let end = report(&args, &self.host, &self.order.reporter, &ended, begin.elapsed());
        if let Outlet::Groups(groups) = &self.order.outlet {
            let sinks = [&ended.stdout, &ended.stderr].map(|w| w.as_ref().map(|written| &written.sink));
            groups.add(self.index, self.host.name(), &end.result, sinks[0], sinks[1]);
        }
        remote.disconnect().await;
        Ok(end)
    }

    async fn detach(
        &mut self,
        connector: Arc<dyn Connector>,
        command: &Command,
    ) -> Result<HostEnd, CliError> {
        let input = match &self.order.args.streams.stdin {
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
        match self.unless_stopped(work).await? {
            Ok(Ok(detached)) => {
                let name = printable(self.host.name().as_bytes());
                match self.order.reporter.as_ref() {
                    Reporter::Json(lines) => {
                        lines.sender().send(&DetachedEvent::new(self.host.name(), &detached));
                    }
                    Reporter::People { .. } if self.host.alone => {
                        crate::cli::print(&format!("{}\n", detached.id))?;
                    }
                    Reporter::People { .. } => {
                        let line = format!("{name}: {}\n", detached.id);
                        self.host.screen.suspended(|| crate::cli::print(&line))?;
                    }
                }
                Ok(HostEnd::done("detached"))
            }
            Ok(Err(error)) => Ok(self.not_started(&error)),
            Err(end) => Ok(end),
        }
    }

    fn not_started(&self, error: &ExecError) -> HostEnd {
        let words = words(&self.order.args);
        not_started(&self.host, &self.order.reporter, &words, &error.message, error_code(error.kind))
    }

    /// Until something runs, a signal ends haul and nothing else. On several hosts it is
    /// how this one ended.
    async fn unless_stopped<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Result<T, HostEnd>, CliError> {
        let (code, why) = tokio::select! {
            done = work => return Ok(Ok(done)),
            signal = self.interrupts.next_end() => {
                // In the middle of a question the terminal shows no echo.
                if tty::is_asking() {
                    tty::abandon();
                }
                (ExitCode::Remote(SIGNAL_BASE + signal.number()), format!("stopped by {signal}"))
            }
            () = self.stop.stopped() => (ExitCode::Interrupted, "stopped".to_owned()),
        };
        let message = format!("{why} before the command was started");
        if self.host.alone {
            return Err(CliError::new(code, message));
        }
        let words = words(&self.order.args);
        let end = not_started(&self.host, &self.order.reporter, &words, &message, code);
        Ok(Err(HostEnd { result: "stopped".to_owned(), ..end }))
    }

    fn sink(&self, stream: Stream) -> Result<Sink, CliError> {
        let streams = &self.order.args.streams;
        if let Some(limit) = streams.capture {
            return Ok(Sink::Captured { bytes: Vec::new(), limit, cut: false });
        }
        let host = self.host.name();
        let sink = match (&self.order.outlet, self.order.reporter.as_ref()) {
            (Outlet::Files(directory), _) => directory.sink(host, stream),
            (Outlet::Groups(_), _) => {
                Ok(Sink::Captured { bytes: Vec::new(), limit: GROUP_LIMIT_BYTES, cut: false })
            }
            (Outlet::AsItComes, Reporter::Json(lines)) => {
                Ok(Sink::Events { sender: lines.sender(), host: host.to_owned(), stream })
            }
            (Outlet::AsItComes, Reporter::People { .. }) if self.host.alone => {
                stream.descriptor().map(Sink::Local)
            }
            (Outlet::AsItComes, Reporter::People { .. }) => {
                HostLines::new(host, stream, self.host.screen.clone()).map(Sink::Lines)
            }
        };
        sink.map_err(|error| local("the output", &error))
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
