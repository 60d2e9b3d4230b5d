//! `haul completions`: a script for a shell, from the same definitions as `--help`.

use crate::cli::args::{self, completions::CompletionsArgs};
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;

pub fn run(args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "haul", &mut script);
    crate::cli::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Done)
}
