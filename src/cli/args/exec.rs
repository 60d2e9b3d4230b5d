//! The arguments of `haul exec`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::connection::ConnectionArgs;
use super::fleet::FleetArgs;
use super::output::OutputArgs;
use super::values::{parse_retries, parse_time_limit};
use crate::model::run_id::RunId;
use crate::model::signal::Signal;
use crate::model::units::parse_size;

pub const EXAMPLES: &str = "\
Examples:
  haul exec web1 -- ls -l \"a file\"         arguments arrive as they are, no quoting needed
  haul exec --shell 'df -h | tail -1' web1 one string for the host's sh
  haul exec a -- tar c /x | haul exec b -- tar x -C /y
  haul exec --timeout 5m --grace 10s web1 -- make test
  haul exec -t web1 -- top                 with a terminal
  haul exec --detach web1 -- ./nightly     prints an id
  haul exec --attach ID web1               its output, and its status
  haul exec 'web[01-20]' -- uptime         on several hosts, each line with the host in front
  haul exec --group-output web -- uname -r what is equal is shown once
";

/// What `--capture` keeps of each stream.
const DEFAULT_CAPTURE: &str = "1MiB";

/// Run a command on a host as subprocess.run would: exit status passed through, standard
/// streams connected, and nothing of it left after a timeout, a Ctrl-C or the end of haul.
/// On several hosts each line of output begins with the host's name, nothing is read from
/// this side's standard input, and the exit status is 0 or 3.
#[derive(Debug, Args)]
#[command(override_usage = "haul exec [OPTIONS] HOSTS -- PROGRAM [ARG]...\n       \
                            haul exec [OPTIONS] --shell STRING HOSTS\n       \
                            haul exec [OPTIONS] --attach ID HOSTS")]
pub struct ExecArgs {
    /// [user@]HOSTS: names, ids, groups, ranges such as web[01-20], 'all', and exclusions
    /// after '!', separated by commas
    #[arg(value_name = "HOSTS", required = true)]
    pub hosts: OsString,

    /// What to run, and its arguments
    #[arg(value_name = "PROGRAM", last = true)]
    pub command: Vec<OsString>,

    #[command(flatten)]
    pub program: ProgramArgs,

    #[command(flatten)]
    pub streams: StreamArgs,

    #[command(flatten)]
    pub end: EndArgs,

    #[command(flatten)]
    pub detach: DetachArgs,

    #[command(flatten)]
    pub fleet: FleetArgs,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Program")]
pub struct ProgramArgs {
    /// One string for the host's sh, in place of PROGRAM
    #[arg(long, value_name = "STRING", conflicts_with = "command")]
    pub shell: Option<OsString>,

    /// Directory to start in; a missing one is an error before the program starts
    #[arg(long, value_name = "DIR")]
    pub chdir: Option<OsString>,

    /// Set a variable of its environment; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(parse_variable))]
    pub env: Vec<Variable>,

    /// Only the variables of --env
    #[arg(long)]
    pub clear_env: bool,

    /// Give it a terminal
    #[arg(short = 't', long)]
    pub terminal: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Streams")]
pub struct StreamArgs {
    /// Standard input from a file of this machine
    #[arg(long, value_name = "FILE", conflicts_with = "no_stdin")]
    pub stdin: Option<PathBuf>,

    /// Read nothing from this side's standard input; the program's is empty
    #[arg(short = 'n', long)]
    pub no_stdin: bool,

    /// Standard error goes where standard output goes, in the program's own order
    #[arg(long)]
    pub merge_stderr: bool,

    /// Standard output and standard error go nowhere
    #[arg(long, conflicts_with_all = ["merge_stderr", "capture"])]
    pub discard_output: bool,

    /// Put the output of each host into DIR/HOST.stdout and DIR/HOST.stderr
    #[arg(long, value_name = "DIR", conflicts_with_all = ["discard_output", "capture", "terminal"])]
    pub per_host_output: Option<PathBuf>,

    /// Show output when all hosts are done, what is equal once, with the hosts that gave it
    #[arg(long, conflicts_with_all = ["discard_output", "capture", "terminal", "per_host_output", "json"])]
    pub group_output: bool,

    /// Put output into the JSON result, at most LIMIT bytes of each stream [default: 1MiB]
    #[arg(
        long,
        value_name = "LIMIT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEFAULT_CAPTURE,
        value_parser = parse_capture
    )]
    pub capture: Option<usize>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "End")]
pub struct EndArgs {
    /// End the command and all it has started after so long; exit 124
    #[arg(long, value_name = "DURATION", value_parser = parse_time_limit)]
    pub timeout: Option<Duration>,

    /// How long what was asked to end has until it is killed
    #[arg(long, value_name = "DURATION", value_parser = parse_time_limit, default_value = "5s")]
    pub grace: Duration,

    /// Pass HUP, QUIT, USR1 and USR2 to the program alone, not to its group
    #[arg(long)]
    pub signal_leader: bool,

    /// Make a status other than 0 an error line, with the last lines of standard error; the
    /// first such host stops all others
    #[arg(long)]
    pub check: bool,

    /// Try again so often, if nothing was started
    #[arg(long, value_name = "N", value_parser = parse_retries, default_value = "0")]
    pub retries: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Detached commands")]
pub struct DetachArgs {
    /// Let it run without haul, and print the id to find it by
    #[arg(long, conflicts_with_all = ["terminal", "timeout", "capture", "check"])]
    pub detach: bool,

    /// Give the output of a detached command, wait for its end, and exit with its status
    #[arg(long, value_name = "ID", value_parser = parse_id,
          conflicts_with_all = ["command", "shell", "detach", "terminal", "stdin", "chdir", "env", "clear_env"])]
    pub attach: Option<RunId>,

    /// With --attach: send a signal, and nothing else
    #[arg(long, value_name = "NAME", requires = "attach", value_parser = parse_signal)]
    pub signal: Option<Signal>,

    /// With --attach: give what is there and do not wait
    #[arg(long, requires = "attach")]
    pub no_wait: bool,

    /// With --attach: remove output and status from the host afterwards
    #[arg(long, requires = "attach", conflicts_with = "no_wait")]
    pub forget: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

fn parse_variable(text: OsString) -> Result<Variable, String> {
    let mut parts = text.as_bytes().splitn(2, |byte| *byte == b'=');
    match (parts.next(), parts.next()) {
        (Some(name @ [_, ..]), Some(value)) => Ok(Variable { name: name.to_vec(), value: value.to_vec() }),
        _ => Err(format!("'{}' is not NAME=VALUE", crate::model::escape::printable(&text.into_vec()))),
    }
}

fn parse_capture(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= 1 << 30)
        .ok_or_else(|| "has to be at most 1GiB".to_owned())
}

fn parse_id(text: &str) -> Result<RunId, String> {
    RunId::parse(text.as_bytes())
        .ok_or_else(|| "an id is the 16 hexadecimal digits that --detach printed".to_owned())
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|error: crate::model::signal::UnknownSignal| error.to_string())
}
