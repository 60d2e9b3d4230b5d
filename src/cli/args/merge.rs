//! The arguments of `haul merge`.

use std::ffi::OsString;

use clap::Args;

use super::connection::ConnectionArgs;
use super::output::OutputArgs;
use super::put::{FinishArgs, LockArgs};

pub const EXAMPLES: &str = "\
Examples:
  haul merge web1:/srv/disk.img            all chunks are there, the source is not at hand
  haul merge --merge sftp web1:/srv/disk.img
";

/// Finish an upload whose chunks are all there; needs no source
///
/// Merges, verifies and puts in place what `put` has uploaded.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// [user@]host:path of the file
    #[arg(value_name = "DEST", required = true)]
    pub destination: OsString,

    #[command(flatten)]
    pub finish: FinishArgs,

    #[command(flatten)]
    pub lock: LockArgs,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}
