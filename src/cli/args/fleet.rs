//! What holds where a command works on several hosts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::engine::fleet::MAX_FORKS;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Several hosts")]
pub struct FleetArgs {
    /// Of the hosts, only those of PATTERN, or those that FILE names, one a line
    #[arg(long, value_name = "PATTERN|@FILE")]
    pub limit: Option<OsString>,

    /// So many hosts at a time
    #[arg(long, value_name = "N", value_parser = parse_forks, default_value = "8")]
    pub forks: usize,

    /// Stop all hosts, resumably, when the first one fails
    #[arg(long)]
    pub fail_fast: bool,

    /// Write the hosts that failed into FILE, one name a line, for --limit @FILE; when none
    /// failed there is no such file afterwards
    #[arg(long, value_name = "FILE")]
    pub retry_file: Option<PathBuf>,
}

pub fn parse_forks(text: &str) -> Result<usize, String> {
    let forks = text.parse::<usize>().ok().filter(|forks| (1..=MAX_FORKS).contains(forks));
    forks.ok_or_else(|| format!("has to be a number from 1 to {MAX_FORKS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_have_bounds() {
        assert_eq!(parse_forks("8"), Ok(8));
        assert!(parse_forks("0").is_err() && parse_forks("1001").is_err() && parse_forks("x").is_err());
    }
}
