//! The arguments of `haul put`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::connection::ConnectionArgs;
use super::fleet::FleetArgs;
use super::output::OutputArgs;
use super::values::{
    WAIT_FOREVER, parse_bwlimit, parse_chown, parse_chunk_size, parse_connections, parse_kilobits,
    parse_mode, parse_retries, parse_stall_timeout, parse_user_id, parse_wait,
};
use crate::engine::options::{Chown, Connections, Wait};
use crate::model::chunk::ChunkSize;
use crate::model::names::UserId;

pub const EXAMPLES: &str = "\
Examples:
  haul put disk.img web1:/srv/             upload; the same command again resumes
  haul put disk.img web1:/srv/new.img      under another name
  haul put a.img b.img web1:images/        several files, below the remote home
  haul put disk.img sftp://alice@web1:2222/srv/disk.img
  haul put --if-exists replace --bwlimit 20MB disk.img web1:/srv/
  haul put -o StrictHostKeyChecking=accept-new -i key disk.img 10.0.0.7:/srv/
  haul put disk.img 'web[01-20],!web07:/srv/'   the hosts of a pattern, eight at a time
  haul put --limit @failed disk.img all:/srv/{host}.img
";

/// Upload a file; run it again and it resumes
///
/// The file goes in chunks into a directory beside the target; what is there already is
/// not sent again. Once all is there and verified, one atomic rename puts it in place.
/// DEST may name several hosts; the file is read and hashed once for all of them.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// What to upload; several need a directory as DEST. '-' is standard input, which may be a
    /// pipe of any length: once the command has ended nothing can go on from it
    #[arg(value_name = "SRC", required = true)]
    pub sources: Vec<PathBuf>,

    /// [user@]HOSTS:path or sftp://user@host:port/path. HOSTS are names, ids, groups, ranges
    /// such as web[01-20], 'all', and exclusions after '!', separated by commas; {host} in the
    /// path stands for the host's name. A path that ends in '/' or is a directory takes SRC's
    /// name; a relative path starts at the remote home
    #[arg(value_name = "DEST", required = true)]
    pub destination: OsString,

    #[command(flatten)]
    pub finish: FinishArgs,

    #[command(flatten)]
    pub transfer: TransferArgs,

    #[command(flatten)]
    pub lock: LockArgs,

    #[command(flatten)]
    pub fleet: FleetArgs,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// What only an upload needs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Transfer")]
pub struct TransferArgs {
    /// Size of a chunk: 10MiB, 5MB, 64k (one letter is 1024 based); a resume keeps the first run's
    #[arg(long, value_name = "SIZE", value_parser = parse_chunk_size, default_value = "10MiB")]
    pub chunk_size: ChunkSize,

    /// Take size and modification time for proof that nothing changed, as rsync does
    #[arg(long)]
    pub quick: bool,

    /// Read the whole source again on a resume
    #[arg(long)]
    pub rehash: bool,

    /// Give the target the source's times and mode
    #[arg(short = 'p', long)]
    pub preserve: bool,

    /// Give the target to this user and group of the target: USER, USER:GROUP or :GROUP,
    /// names or numbers
    #[arg(long, value_name = "OWNER", value_parser = parse_chown)]
    pub chown: Option<Chown>,

    /// Connections at once: auto or a number [default: auto]
    #[arg(long, value_name = "N", value_parser = parse_connections)]
    pub connections: Option<Connections>,

    /// Also say the SHA-256 of the file that is replaced, in --json
    #[arg(long)]
    pub hash_existing: bool,

    /// Say what would be done and change nothing on the target
    #[arg(long)]
    pub dry_run: bool,
}

/// What holds for everything that ends in a file put in place.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Transfer")]
pub struct FinishArgs {
    /// What to do when different content is at the target [default: ask on a terminal, fail otherwise]
    #[arg(long, value_name = "WHAT")]
    pub if_exists: Option<IfExistsArg>,

    /// How chunks become the file [default: auto]
    #[arg(long, value_name = "HOW")]
    pub merge: Option<MergeArg>,

    /// How the result is verified
    #[arg(long, value_name = "HOW", default_value = "sha256")]
    pub verify: VerifyArg,

    /// Mode of the target: octal, or u=rw,go=r
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub chmod: Option<u32>,

    /// Bytes a second, all connections together: 20MB, 512k
    #[arg(long, value_name = "RATE", value_parser = parse_bwlimit)]
    pub bwlimit: Option<u64>,

    /// The same in kilobits a second, as scp has it; the lower of the two holds
    #[arg(short = 'l', long, value_name = "KBIT", value_parser = parse_kilobits)]
    pub limit_kbit: Option<u64>,

    /// A link that is silent for so long is dead
    #[arg(long, value_name = "DURATION", value_parser = parse_stall_timeout, default_value = "30s")]
    pub stall_timeout: Duration,

    /// Reconnects in a row without progress between them
    #[arg(long, value_name = "N", value_parser = parse_retries, default_value = "5")]
    pub retries: u32,

    /// Replace by remove and rename where the server has no atomic way
    #[arg(long)]
    pub non_atomic_replace: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Lock")]
pub struct LockArgs {
    /// Whose upload this is; part of the names on the target [default: the local login name]
    #[arg(long, value_name = "NAME", value_parser = parse_user_id)]
    pub user_id: Option<UserId>,

    /// Wait for another's lock to go away, as long as it takes or for DURATION
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = WAIT_FOREVER,
        value_parser = parse_wait
    )]
    pub wait: Option<Wait>,

    /// Take another's lock, also a living one
    #[arg(long)]
    pub break_lock: bool,

    /// Go on without a lock where the server can make none
    #[arg(long)]
    pub no_lock: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IfExistsArg {
    Ask,
    Replace,
    /// Exit 0, with status `skipped`
    Skip,
    /// Exit 4
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MergeArg {
    /// What the server has proven and what is fastest there
    Auto,
    /// By a script on the target
    Script,
    /// By file operations over SFTP
    Sftp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyArg {
    /// On the target where it can hash, else by reading back
    Sha256,
    /// By a keyed MAC (OpenSSL 3 on the target), else by cksum's CRC; no SHA-256 is computed
    Fast,
    /// Only the size
    Size,
}
