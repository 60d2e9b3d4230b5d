//! `haul man`: one manual page for all commands, from the same definitions as `--help`.

use std::io;

use clap_mangen::Man;

use crate::cli::args;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;

pub fn run() -> Result<ExitCode, CliError> {
    let page = page().map_err(|error| CliError::output(&error))?;
    crate::cli::print(&page)?;
    Ok(ExitCode::Done)
}

fn page() -> io::Result<String> {
    let mut command = args::command();
    command.build();
    let root = Man::new(command.clone());
    let mut head = Vec::new();
    root.render_title(&mut head)?;
    root.render_name_section(&mut head)?;
    root.render_synopsis_section(&mut head)?;
    root.render_description_section(&mut head)?;
    let mut page = String::from_utf8_lossy(&head).into_owned();
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        page.push_str(&command_section(command.clone())?);
    }
    let mut tail = Vec::new();
    root.render_extra_section(&mut tail)?;
    root.render_version_section(&mut tail)?;
    page.push_str(&String::from_utf8_lossy(&tail).replace(".SH EXTRA", ".SH \"EXAMPLES AND EXIT CODES\""));
    Ok(page)
}

/// A command's own page, one level down. The exit codes stand once, at the end.
fn command_section(command: clap::Command) -> io::Result<String> {
    let name = command.get_name().to_owned();
    let man = Man::new(command.after_help(args::examples_of(&name)));
    let mut section = Vec::new();
    man.render_synopsis_section(&mut section)?;
    man.render_description_section(&mut section)?;
    man.render_options_section(&mut section)?;
    man.render_extra_section(&mut section)?;
    let section = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
    let section = section.replace(".SS EXTRA\nExamples:\n", ".SS EXAMPLES\n");
    Ok(format!(".SH \"HAUL {}\"\n{section}", name.to_uppercase()))
}
