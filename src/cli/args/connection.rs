//! How to reach a host: the flags that scp has, under scp's letters.

use std::path::PathBuf;

use clap::Args;

use super::values::{parse_descriptor, parse_port};
use crate::remote::ssh::SudoUser;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Port of the SSH server
    #[arg(short = 'P', long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,

    /// Private key to log in with; may be given several times
    #[arg(short = 'i', long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,

    /// Go through these hosts: [user@]host[:port], several separated by commas, or none
    #[arg(short = 'J', long, value_name = "HOPS")]
    pub jump: Option<String>,

    /// Read this file in place of ~/.ssh/config and /etc/ssh/ssh_config, or none
    #[arg(short = 'F', long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,

    /// A keyword of ssh_config, such as StrictHostKeyChecking=accept-new; may be given
    /// several times, the first one of a keyword counts
    #[arg(short = 'o', long, value_name = "KEY=VALUE")]
    pub option: Vec<String>,

    /// Compress what goes over the connection
    #[arg(short = 'C', long)]
    pub compress: bool,

    /// Connect over IPv4 only
    #[arg(short = '4', long, overrides_with = "ipv6")]
    pub ipv4: bool,

    /// Connect over IPv6 only
    #[arg(short = '6', long, overrides_with = "ipv4")]
    pub ipv6: bool,

    /// Do everything on the host as this user, by sudo without a password [default: root]
    #[arg(
        long,
        value_name = "USER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "root",
        value_parser = SudoUser::new
    )]
    pub sudo: Option<SudoUser>,

    /// Read the password, one line, from this file descriptor
    #[arg(long, value_name = "NUMBER", value_parser = parse_descriptor)]
    pub password_fd: Option<u32>,

    /// Inventory in place of ./hosts.toml and $XDG_CONFIG_HOME/haul/hosts.toml; none for
    /// no inventory at all
    #[arg(long, value_name = "FILE")]
    pub hosts_file: Option<PathBuf>,
}
