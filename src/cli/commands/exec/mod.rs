//! `haul exec`: a command on one host or several, as `subprocess.run` has one on this
//! machine.

mod drive;
mod host;
mod input;
mod interrupts;
mod kept;
mod lines;
mod output;
mod raw;
mod report;
mod result;

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, OnceLock};

use rustix::fs::FileType;

use self::host::one_host;
use self::interrupts::{Event, Interrupts};
use self::kept::{Directory, Groups};
use self::report::{not_started, words};
use super::{Party, Reporter};
use crate::cli::args::exec::ExecArgs;
use crate::cli::args::fleet::FleetArgs;
use crate::cli::args::output::OutputArgs;
use crate::cli::connect::DEFAULT_STALL_TIMEOUT;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::fleet::{self, STOP_LIMIT, Way};
use crate::engine::exec::{Attach, Command, Signal, Stdio};
use crate::engine::stop::{Stop, stop_pair};
use crate::model::run_id::RunId;

/// What a shell adds to a signal's number.
const SIGNAL_BASE: u8 = 128;

/// What all hosts have in common.
struct Order {
    args: Arc<ExecArgs>,
    job: Job,
    outlet: Outlet,
    reporter: Arc<Reporter>,
}

/// Where output goes.
enum Outlet {
    AsItComes,
    Files(Directory),
    Groups(Groups),
}

pub async fn run(args: Arc<ExecArgs>) -> Result<ExitCode, CliError> {
    let limit = args.fleet.limit.as_deref();
    let party = Party::find(&destination(&args.hosts), limit, &args.connection, &args.output)?;
    let job = Job::of(&args, party.is_fleet())?;
    if party.is_fleet() {
        check_fleet(&args, &party)?;
    }
    let connect = |host: &super::OneHost| host.connector(&args.connection, DEFAULT_STALL_TIMEOUT);
    let ways = party.hosts.iter().map(connect).collect::<Result<Vec<_>, _>>()?;
    let outlet = match (&args.streams.per_host_output, args.streams.group_output) {
        (Some(path), _) => {
            Outlet::Files(Directory::prepare(path, party.hosts.iter().map(|host| host.name()))?)
        }
        (None, true) => Outlet::Groups(Groups::default()),
        (None, false) => Outlet::AsItComes,
    };
    let wants_json = args.output.json || args.streams.capture.is_some();
    let reporter = Arc::new(Reporter::start(&OutputArgs { json: wants_json, ..args.output })?);
    let order = Arc::new(Order { args: args.clone(), job, outlet, reporter: reporter.clone() });
    let interrupted = Arc::new(OnceLock::new());
    let (stop, _switch) = if party.is_fleet() {
        (stop_on_interrupt(interrupted.clone())?, None)
    } else {
        // One host's command gets the signals itself.
        let (switch, stop) = stop_pair();
        (stop, Some(switch))
    };
    let way = Way {
        args: &FleetArgs { fail_fast: args.fleet.fail_fast || args.end.check, ..args.fleet.clone() },
        stop,
        interrupted: &|| {
            interrupted.get().map(|signal: &Signal| ExitCode::Remote(SIGNAL_BASE + signal.number()))
        },
        stop_limit: STOP_LIMIT + args.end.grace,
        bytes_each: 0,
        lost: &|host, failure| {
            let code = ExitCode::of(failure.kind);
            not_started(host, &reporter, &words(&args), &failure.to_string(), code);
        },
        usage: &|| None,
        finish: &|| match &order.outlet {
            Outlet::Groups(groups) => groups.print(),
            Outlet::AsItComes | Outlet::Files(_) => Ok(()),
        },
        output_is_taken: true,
    };
    let work = |job: fleet::Job| {
        let (way, order) = (ways.get(job.index).cloned(), order.clone());
        async move {
            match way {
                Some(connector) => one_host(job, connector, &order).await,
                None => Err(CliError::new(ExitCode::Failed, "a host without a way to it")),
            }
        }
    };
    fleet::run(&party, way, &reporter, work).await
}

/// What makes sense on one host only.
fn check_fleet(args: &ExecArgs, party: &Party) -> Result<(), CliError> {
    if args.program.terminal {
        return Err(CliError::usage("-t works on one host, and several were named"));
    }
    if args.streams.stdin.is_some() || args.streams.no_stdin || args.detach.attach.is_some() {
        return Ok(());
    }
    match rustix::fs::fstat(std::io::stdin())
        .map(|stat| (FileType::from_raw_mode(stat.st_mode), stat.st_size))
    {
        Ok((FileType::RegularFile, 1..)) => Err(CliError::usage(
            "standard input is a file, and several hosts cannot share it: --stdin FILE gives it to each, -n leaves it",
        )),
        Ok((FileType::Fifo, _)) => {
            party.screen.remark(
                "haul: nothing is read from standard input for several hosts; --stdin FILE gives a file to each",
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// INT and TERM stop the hosts that are still to come; those that run see to it themselves.
fn stop_on_interrupt(first: Arc<OnceLock<Signal>>) -> Result<Stop, CliError> {
    let mut interrupts = Interrupts::listen()?;
    let (switch, stop) = stop_pair();
    tokio::spawn(async move {
        loop {
            if let Event::End(signal) = interrupts.next().await {
                first.get_or_init(|| signal);
                switch.stop();
            }
        }
    });
    Ok(stop)
}

/// What is to be done.
#[derive(Clone)]
pub enum Job {
    Run(Command),
    Attach(Attach),
    Signal(RunId, Signal),
}

impl Job {
    /// On several hosts, nothing is read from this side's standard input.
    fn of(args: &ExecArgs, several: bool) -> Result<Job, CliError> {
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
        let reads = !args.streams.no_stdin && (!several || args.streams.stdin.is_some());
        command.stdin(if reads { Stdio::Piped } else { Stdio::Null });
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
