//! The arguments of `haul hosts`.

use clap::Args;

use super::connection::ConnectionArgs;
use super::fleet::parse_forks;
use super::output::OutputArgs;

pub const EXAMPLES: &str = "\
Examples:
  haul hosts                               every host of hosts.toml
  haul hosts 'web,!web03'                  a group less one host
  haul hosts --ping 'web[01-20]'           log in to each; exit 3 when some failed
";

/// List the hosts of hosts.toml; --ping tries each
///
/// Names, ids, addresses, ports, users and groups. Without PATTERN: all of them.
#[derive(Debug, Args)]
pub struct HostsArgs {
    /// Names, ids, groups, ranges such as web[01-20], 'all', and exclusions after '!', separated by commas
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,

    /// Connect and log in to each
    #[arg(long)]
    pub ping: bool,

    /// With --ping: so many hosts at a time
    #[arg(long, value_name = "N", value_parser = parse_forks, default_value = "8")]
    pub forks: usize,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}
