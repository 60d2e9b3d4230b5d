//! The arguments of `haul status`.

use std::ffi::OsString;

use clap::Args;

use super::connection::ConnectionArgs;
use super::fleet::FleetArgs;
use super::output::OutputArgs;
use super::values::parse_user_id;
use crate::model::names::UserId;

pub const EXAMPLES: &str = "\
Examples:
  haul status web1:/srv/disk.img           file, lock and its owner, chunks
  haul status --json web1:/srv/disk.img    the same for a script; exit 0 whatever the state is
  haul status 'web[01-20]:/srv/disk.img'   on several hosts
";

/// Show what stands at the target: file, lock and its owner, chunks, progress of the merge
///
/// Nothing is changed there. The exit code is 0 whatever the state is, as long as every
/// host answers.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// [user@]HOSTS:path of the file; {host} in the path stands for the host's name
    #[arg(value_name = "DEST", required = true)]
    pub destination: OsString,

    /// Whose upload to look at [default: the local login name]
    #[arg(long, value_name = "NAME", value_parser = parse_user_id)]
    pub user_id: Option<UserId>,

    #[command(flatten)]
    pub fleet: FleetArgs,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}
