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
use super::connect::{Asking, Target, connector_for, one_target, read_inventory};
use super::destination::Destination;
use super::error::CliError;
use super::exit_code::ExitCode;
use super::json::result::ResultEvent;
use super::json::{JsonLines, JsonMonitor};
use super::screen::Screen;
use super::signals::HOW_TO_GO_ON;
use super::terminal::{TerminalMonitor, wants_bar};
use crate::engine::failure::{Failure, FailureKind};
use crate::engine::monitor::Monitor;
use crate::model::escape::printable;
use crate::remote::Connector;

/// What every command on one host begins with. Nothing has been connected to yet.
struct OneHost {
    account: Account,
    target: Target,
    screen: Arc<Screen>,
    output: OutputArgs,
}

impl OneHost {
    fn find(
        destination: &OsStr,
        connection: &ConnectionArgs,
        output: &OutputArgs,
    ) -> Result<OneHost, CliError> {
        let destination =
            Destination::parse(destination).map_err(|error| CliError::usage(error.to_string()))?;
        let account = Account::current();
        let target = one_target(&destination, &read_inventory(connection, &account)?)?;
        let screen = if wants_bar(output) { Screen::with_bar() } else { Screen::plain(output.quiet) };
        let screen = screen.verbose(output.verbose > 0);
        Ok(OneHost { account, target, screen: Arc::new(screen), output: *output })
    }

    fn connector(
        &self,
        args: &ConnectionArgs,
        stall_timeout: Duration,
    ) -> Result<Arc<dyn Connector>, CliError> {
        let asking = Asking::Person(self.screen.clone());
        connector_for(&self.target, args, &self.account, &asking, stall_timeout)
    }

    fn name(&self) -> &str {
        &self.target.host.name
    }
}

/// Where results go: lines for people, or JSON.
enum Reporter {
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
    fn monitor(&self, host: &OneHost) -> Arc<dyn Monitor> {
        match self {
            Reporter::People { .. } => {
                Arc::new(TerminalMonitor::new(host.screen.clone(), host.name(), &host.output))
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
        host.screen.line(&format!("haul: {failure}"));
        ExitCode::of(failure.kind)
    }

    /// Ends with `code`, unless what was to be printed could not be.
    fn finish(self, code: ExitCode) -> Result<ExitCode, CliError> {
        if let Reporter::Json(lines) = self {
            lines.finish().map_err(|error| CliError::output(&error))?;
        }
        Ok(code)
    }
}

/// What was interrupted says how to go on, also where the engine did not.
fn with_way_on(failure: Failure) -> Failure {
    if failure.kind == FailureKind::Interrupted && failure.next_step.is_empty() {
        return failure.next_step(HOW_TO_GO_ON);
    }
    failure
}
