//! The command line: arguments, hosts.toml, terminal, JSON, exit codes.
//!
//! [`main`] is the one place that prints an error and decides the exit code.

pub mod account;
pub mod args;
mod askpass;
pub mod commands;
pub mod connect;
mod core_dump;
pub mod destination;
pub mod error;
pub mod exit_code;
pub mod fleet;
pub mod hosts_file;
pub mod inventory;
pub mod json;
pub mod password;
pub mod progress;
pub mod prompt;
pub mod ranges;
pub mod resolve;
pub mod screen;
pub mod signals;
pub mod sources;
pub mod summary;
pub mod terminal;
pub mod text_table;
pub mod tty;

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use self::args::{Cli, Command};
use self::error::CliError;
use self::exit_code::ExitCode;
use crate::model::escape::printable;

/// How long work that nobody waits for any more (a question, a name lookup) may hold up
/// the end of the program.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(200);

pub fn main() -> std::process::ExitCode {
    core_dump::forbid();
    let code = match run(std::env::args_os()) {
        Ok(code) => code,
        Err(error) => {
            if !error.message.is_empty() {
                let _ = writeln!(std::io::stderr().lock(), "haul: {error}");
            }
            error.code
        }
    };
    code.into()
}

fn run(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode, CliError> {
    let matches = args::command().try_get_matches_from(arguments);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    match cli.command {
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man => commands::man::run(),
        Command::Put(args) => in_runtime(commands::put::run(&args)),
        Command::Status(args) => in_runtime(commands::status::run(&args)),
        Command::Merge(args) => in_runtime(commands::merge::run(&args)),
        Command::Clean(args) => in_runtime(commands::clean::run(&args)),
        Command::Exec(args) => in_runtime(commands::exec::run(args.into())),
        Command::Hosts(args) => in_runtime(commands::hosts::run(&args)),
        Command::Demo(args) => in_runtime(commands::demo::run(&args)),
    }
}

fn in_runtime(command: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError::new(ExitCode::Failed, format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    result
}

/// Writes what a command was asked for, such as a list, to standard output.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|error| CliError::output(&error))
}

fn not_parsed(error: &clap::Error) -> Result<ExitCode, CliError> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Ok(()) => Ok(ExitCode::Done),
            Err(error) => Err(CliError::output(&error)),
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Err(CliError::usage(""))
        }
        _ => Err(CliError::usage(one_line(&error.to_string()))),
    }
}

/// clap's message without the usage that follows it.
fn one_line(message: &str) -> String {
    let marks = ["\n\nUsage:", "\n\nFor more information"];
    let end = marks.iter().filter_map(|mark| message.find(mark)).min().unwrap_or(message.len());
    let message = message[..end].trim_start_matches("error: ").replace("\n\n  tip:", ";").replace("tip:", "");
    let words: Vec<&str> = message.split_whitespace().collect();
    format!("{}; see 'haul --help'", printable(words.join(" ").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_usage_error_is_one_line() {
        let message = "error: unexpected argument '--bogus' found\n\n  \
                       tip: a similar argument exists: '--bwlimit'\n\n\
                       Usage: haul put [OPTIONS]\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(message),
            "unexpected argument '--bogus' found; a similar argument exists: '--bwlimit'; see 'haul --help'"
        );
        let message = "error: a\n  [possible values: b]\x1b";
        assert_eq!(one_line(message), "a [possible values: b]\\x1b; see 'haul --help'");
    }
}
