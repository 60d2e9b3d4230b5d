//! The arguments of `haul clean`.

use std::ffi::OsString;

use clap::Args;

use super::connection::ConnectionArgs;
use super::output::OutputArgs;
use super::values::parse_user_id;
use crate::model::names::UserId;

pub const EXAMPLES: &str = "\
Examples:
  haul clean web1:/srv/disk.img            give up an upload of one's own
  haul clean --force --user-id bob web1:/srv/disk.img
";

/// Remove the temp directory and the lock of an upload
///
/// Nothing that haul did not make is removed, and the target itself stays as it is.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// [user@]host:path of the file
    #[arg(value_name = "DEST", required = true)]
    pub destination: OsString,

    /// Also another user's, or a living run's; its owner is named
    #[arg(long)]
    pub force: bool,

    /// Without a lock, where the server has none: make sure that no upload is under way
    #[arg(long)]
    pub no_lock: bool,

    /// Whose upload to remove [default: the local login name]
    #[arg(long, value_name = "NAME", value_parser = parse_user_id)]
    pub user_id: Option<UserId>,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}
