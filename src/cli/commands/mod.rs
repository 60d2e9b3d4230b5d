//! One file a command: from its arguments to what it prints and its exit code.

pub mod clean;
pub mod completions;
pub mod demo;
pub mod exec;
pub mod hosts;
pub mod man;
pub mod merge;
pub mod put;
pub mod status;

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::args::connection::ConnectionArgs;
use super::args::output::OutputArgs;
use super::connect::{Asking, Target, connector_for, read_inventory};
use super::destination::Destination;
use super::error::CliError;
use super::exit_code::ExitCode;
use super::fleet::board::Seat;
use super::fleet::choose::choose;
use super::json::result::ResultEvent;
use super::json::{JsonLines, JsonMonitor};
use super::screen::Screen;
use super::signals::HOW_TO_GO_ON;
use super::terminal::{TerminalMonitor, wants_bar};
use crate::engine::failure::{Failure, FailureKind};
use crate::engine::monitor::Monitor;
use crate::model::escape::printable;
use crate::remote::Connector;

/// The hosts that a command works on. Nothing has been connected to yet.
pub struct Party {
    /// At least one.
    pub hosts: Vec<OneHost>,
    pub screen: Arc<Screen>,
    pub output: OutputArgs,
}

/// What a command knows of one of its hosts.
#[derive(Clone)]
pub struct OneHost {
    account: Arc<Account>,
    target: Target,
    screen: Arc<Screen>,
    output: OutputArgs,
    /// There is no other.
    alone: bool,
}

impl Party {
    fn find(
        destination: &OsStr,
        limit: Option<&OsStr>,
        connection: &ConnectionArgs,
        output: &OutputArgs,
    ) -> Result<Party, CliError> {
        let destination =
            Destination::parse(destination).map_err(|error| CliError::usage(error.to_string()))?;
        let account = Arc::new(Account::current());
        let targets = choose(&destination, &read_inventory(connection, &account)?, limit)?;
        let alone = targets.len() == 1;
        let screen = match (wants_bar(output), alone) {
            (true, true) => Screen::with_bar(),
            (true, false) => Screen::with_lines(),
            (false, _) => Screen::plain(output.quiet),
        };
        let screen = Arc::new(screen.verbose(output.verbose > 0));
        let host = |target| OneHost {
            account: account.clone(),
            target,
            screen: screen.clone(),
            output: *output,
            alone,
        };
        Ok(Party { hosts: targets.into_iter().map(host).collect(), screen: screen.clone(), output: *output })
    }

    /// For the commands that work on one.
    fn only(mut self, command: &str) -> Result<OneHost, CliError> {
        match (self.hosts.pop(), self.hosts.len()) {
            (Some(host), 0) => Ok(host),
            (_, others) => Err(CliError::usage(format!(
                "'haul {command}' works on one host, and {} were named",
                others + 1
            ))),
        }
    }

    pub fn is_fleet(&self) -> bool {
        self.hosts.len() > 1
    }

    pub fn shows_lines(&self) -> bool {
        self.screen.shows_lines()
    }
}

impl OneHost {
    fn connector(
        &self,
        args: &ConnectionArgs,
        stall_timeout: Duration,
    ) -> Result<Arc<dyn Connector>, CliError> {
        // Questions of several hosts would be in each other's way, and while one is open
        // the others could say nothing.
        let asking = if self.alone {
            Asking::Person(self.screen.clone())
        } else {
            Asking::Nobody(self.screen.clone())
        };
        connector_for(&self.target, args, &self.account, &asking, stall_timeout)
    }

    pub fn name(&self) -> &str {
        &self.target.host.name
    }
}

/// Where results go: lines for people, or JSON.
pub enum Reporter {
    People { quiet: bool },
    Json(JsonLines),
}

impl Reporter {
    fn start(output: &OutputArgs) -> Result<Reporter, CliError> {
        if !output.json {
            return Ok(Reporter::People { quiet: output.quiet });
        }
        JsonLines::start(std::io::stdout()).map(Reporter::Json).map_err(|error| CliError::output(&error))
    }

    /// Of one job. The progress is shown until it is dropped.
    fn monitor(&self, host: &OneHost, seat: Option<&Seat>) -> Arc<dyn Monitor> {
        match self {
            Reporter::People { .. } if host.alone => {
                Arc::new(TerminalMonitor::new(host.screen.clone(), host.name(), &host.output))
            }
            Reporter::People { .. } => {
                Arc::new(TerminalMonitor::in_fleet(host.screen.clone(), seat, &host.output))
            }
            Reporter::Json(lines) => Arc::new(JsonMonitor::new(lines.sender(), host.name(), &host.output)),
        }
    }

    fn result(&self, line: impl FnOnce() -> String, event: &impl serde::Serialize) -> Result<(), CliError> {
        match self {
            Reporter::Json(lines) => lines.sender().send(event),
            Reporter::People { quiet: false } => super::print(&format!("{}\n", line()))?,
            Reporter::People { quiet: true } => {}
        }
        Ok(())
    }

    /// A failure goes to standard error, and with `--json` to standard output too.
    fn failure(&self, host: &OneHost, source: Option<String>, failure: &Failure) -> ExitCode {
        if let Reporter::Json(lines) = self {
            let asked_path = printable(&host.target.path);
            lines.sender().send(&ResultEvent::failed(host.name(), source, &asked_path, failure));
        }
        host.screen.line(&format!("haul: {}", failure_line(host, failure)));
        ExitCode::of(failure.kind)
    }

    /// Ends with `code`, unless what was to be printed could not be.
    pub fn finish(&self, code: ExitCode) -> Result<ExitCode, CliError> {
        if let Reporter::Json(lines) = self {
            lines.finish().map_err(|error| CliError::output(&error))?;
        }
        Ok(code)
    }
}

/// The engine's message; where it does not name the host, as one about the source, and there
/// are several, with it in front.
fn failure_line(host: &OneHost, failure: &Failure) -> String {
    let name = printable(host.name().as_bytes());
    if host.alone || failure.place.starts_with(&name) {
        failure.to_string()
    } else {
        format!("{name}: {failure}")
    }
}

/// What was interrupted says how to go on, also where the engine did not.
fn with_way_on(failure: Failure) -> Failure {
    if failure.kind == FailureKind::Interrupted && failure.next_step.is_empty() {
        return failure.next_step(HOW_TO_GO_ON);
    }
    failure
}
