//! What the command line ends with when it does not end well: one line and an exit code.

use std::fmt;

use super::exit_code::ExitCode;
use crate::engine::failure::Failure;

#[derive(Debug, Clone)]
pub struct CliError {
    pub code: ExitCode,
    /// Without `haul: ` and line end; escaped. Empty when all has been said already.
    pub message: String,
}

impl CliError {
    /// The request or the configuration is wrong; nothing has been connected to.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError { code: ExitCode::Usage, message: message.into() }
    }

    pub fn new(code: ExitCode, message: impl Into<String>) -> CliError {
        CliError { code, message: message.into() }
    }

    /// Standard output could not be written. A reader that has gone away (`| head`) has
    /// seen what it wanted.
    pub fn output(error: &std::io::Error) -> CliError {
        let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        let message = if gone { String::new() } else { format!("standard output: {error}") };
        CliError { code: ExitCode::Failed, message }
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> CliError {
        CliError { code: ExitCode::of(failure.kind), message: failure.to_string() }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}
