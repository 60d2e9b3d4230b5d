//! `haul status`: what stands at a target.

use super::{OneHost, Reporter};
use crate::cli::args::status::StatusArgs;
use crate::cli::connect::DEFAULT_STALL_TIMEOUT;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::json::result::StatusEvent;
use crate::cli::resolve::user_id;
use crate::cli::signals::{stop_on_signals, unless_stopped};
use crate::cli::summary;
use crate::engine::status::status;

pub async fn run(args: &StatusArgs) -> Result<ExitCode, CliError> {
    let host = OneHost::find(&args.destination, &args.connection, &args.output)?;
    let user = user_id(args.user_id.as_ref(), &host.target.host, &host.account)?;
    let connector = host.connector(&args.connection, DEFAULT_STALL_TIMEOUT)?;
    let stop = stop_on_signals(host.screen.clone())?;
    let result = unless_stopped(&stop, status(connector, host.target.path.clone(), user)).await?;
    let reporter = Reporter::start(&host.output)?;
    let code = match (&result, &reporter) {
        (Ok(report), Reporter::Json(lines)) => {
            lines.sender().send(&StatusEvent::new(host.name(), report));
            ExitCode::Done
        }
        // What was asked for is printed, also with -q.
        (Ok(report), Reporter::People { .. }) => {
            crate::cli::print(&summary::status_lines(host.name(), report))?;
            ExitCode::Done
        }
        (Err(failure), _) => reporter.failure(&host, None, failure),
    };
    reporter.finish(code)
}
