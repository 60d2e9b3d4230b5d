//! The arguments of `haul completions`.

use clap::Args;
use clap_complete::Shell;

pub const EXAMPLES: &str = "\
Examples:
  haul completions bash > ~/.local/share/bash-completion/completions/haul
  haul completions fish > ~/.config/fish/completions/haul.fish
  haul completions zsh > ~/.zfunc/_haul
";

/// Print a completion script for a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to complete in
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}
