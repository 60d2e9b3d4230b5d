//! `haul clean`: removes what an upload left on the target.

use super::{Party, Reporter};
use crate::cli::args::clean::CleanArgs;
use crate::cli::connect::DEFAULT_STALL_TIMEOUT;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::json::result::CleanEvent;
use crate::cli::resolve::user_id;
use crate::cli::signals::{stop_on_signals, unless_stopped};
use crate::cli::summary;
use crate::engine::clean::clean;

pub async fn run(args: &CleanArgs) -> Result<ExitCode, CliError> {
    let host = Party::find(&args.destination, None, &args.connection, &args.output)?.only("clean")?;
    let user = user_id(args.user_id.as_ref(), &host.target.host, &host.account)?;
    let connector = host.connector(&args.connection, DEFAULT_STALL_TIMEOUT)?;
    let stop = stop_on_signals(host.screen.clone())?;
    let reporter = Reporter::start(&host.output)?;
    let work = clean(
        connector,
        host.target.path.clone(),
        user,
        host.account.holder(),
        args.force,
        args.no_lock,
        reporter.monitor(&host, None),
    );
    let result = unless_stopped(&stop, work).await?;
    host.screen.clear();
    let code = match result {
        Ok(report) => {
            let event = CleanEvent::new(host.name(), &report);
            reporter.result(|| summary::clean_line(host.name(), &report), &event)?;
            ExitCode::Done
        }
        Err(failure) => reporter.failure(&host, None, &failure),
    };
    reporter.finish(code)
}
