//! What is said on the way.

use clap::{ArgAction, Args};

#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print one JSON object a line on standard output
    #[arg(long)]
    pub json: bool,

    /// Say nothing but warnings and errors
    #[arg(short, long)]
    pub quiet: bool,

    /// Say more about what is done
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}
