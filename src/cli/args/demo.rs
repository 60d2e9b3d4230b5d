//! The arguments of `haul demo`.

use clap::{ArgAction, Args};

use super::values::parse_demo_size;

pub const EXAMPLES: &str = "\
Examples:
  haul demo                                upload, cut off, resume, verify; says what it did
  haul demo --keep                         leaves the server up, to try things by hand
";

/// Upload, cut off, resume and verify, against an SSH server inside haul on loopback
///
/// The server runs inside this process on 127.0.0.1, with fresh keys and a temporary
/// directory: no SSH server, no key and no right is needed.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the server up and print a command to try by hand
    #[arg(long)]
    pub keep: bool,

    /// Size of the generated file
    #[arg(long, value_name = "SIZE", value_parser = parse_demo_size, default_value = "256MiB", hide = true)]
    pub size: u64,

    /// Say nothing but warnings and errors
    #[arg(short, long)]
    pub quiet: bool,

    /// Say more about what is done
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}
