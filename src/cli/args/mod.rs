//! The arguments as typed: what clap understands, before hosts.toml and defaults.
//!
//! Help, completions and the man page are all made from these definitions. Every long
//! flag can also be set by the environment: `--chunk-size` by `HAUL_CHUNK_SIZE`.

pub mod clean;
pub mod completions;
pub mod connection;
pub mod demo;
pub mod exec;
pub mod fleet;
pub mod hosts;
pub mod merge;
pub mod output;
pub mod put;
pub mod status;
pub mod values;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use super::exit_code;

const ENVIRONMENT_HELP: &str = "\
Every long flag can also be set by an environment variable: --chunk-size by
HAUL_CHUNK_SIZE, --quiet by HAUL_QUIET=1. The command line wins over the environment,
that over hosts.toml, and that over the defaults.";

const EXAMPLES: &str = "\
Examples:
  haul demo                                an upload, cut off and resumed, on this machine
  haul put disk.img web1:/srv/             upload; the same command again resumes
  haul put disk.img alice@[::1]:           an IPv6 address; into the remote home
  haul status web1:/srv/disk.img           what stands at the target
  haul exec web1 -- uname -a               a command, its output and its status
";

/// Carries big files to hosts over SSH: in chunks, resumable, locked, verified, put in
/// place by one atomic rename
#[derive(Debug, Parser)]
#[command(name = "haul", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Put(put::PutArgs),
    Status(status::StatusArgs),
    Merge(merge::MergeArgs),
    Clean(clean::CleanArgs),
    /// Run a command on a host as subprocess.run would
    Exec(Box<exec::ExecArgs>),
    /// List the hosts of hosts.toml; --ping tries each
    Hosts(hosts::HostsArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man,
}

/// The whole definition: clap's, with environment variables, examples and exit codes.
pub fn command() -> clap::Command {
    Cli::command().args_override_self(true).after_help(after_help(EXAMPLES)).mut_subcommands(|command| {
        let examples = examples_of(command.get_name());
        command
            .args_override_self(true)
            .max_term_width(100)
            .mut_args(settable_by_environment)
            .after_help(after_help(examples))
    })
}

fn after_help(examples: &str) -> String {
    format!("{examples}\n{}\n{ENVIRONMENT_HELP}", exit_code::help())
}

pub fn examples_of(command: &str) -> &'static str {
    match command {
        "put" => put::EXAMPLES,
        "status" => status::EXAMPLES,
        "merge" => merge::EXAMPLES,
        "clean" => clean::EXAMPLES,
        "exec" => exec::EXAMPLES,
        "hosts" => hosts::EXAMPLES,
        "demo" => demo::EXAMPLES,
        "completions" => completions::EXAMPLES,
        "man" => "Examples:\n  haul man | man -l -                      read it\n",
        _ => "",
    }
}

fn settable_by_environment(argument: clap::Arg) -> clap::Arg {
    let Some(long) = argument.get_long() else { return argument };
    let variable = format!("HAUL_{}", long.replace('-', "_").to_uppercase());
    let argument = argument.env(variable).hide_env(true);
    match argument.get_action() {
        ArgAction::SetTrue => argument.value_parser(values::parse_switch),
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_long_name_a_help_text_and_its_variable() {
        for command in command().get_subcommands() {
            for argument in command.get_arguments().filter(|a| !a.is_positional() && a.get_id() != "help") {
                let place = format!("{} {}", command.get_name(), argument.get_id());
                assert!(argument.get_long().is_some(), "{place}");
                assert!(argument.get_help().is_some_and(|help| !help.to_string().is_empty()), "{place}");
                let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                assert!(variable.is_some_and(|name| name.starts_with("HAUL_")), "{place}");
            }
            assert!(!examples_of(command.get_name()).is_empty(), "{}", command.get_name());
        }
    }
}
