//! The command line: arguments, hosts.toml, terminal, JSON, exit codes.

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
