//! `haul merge`: finishes an upload without its source.

use std::time::Instant;

use super::{Party, Reporter, with_way_on};
use crate::cli::args::merge::MergeArgs;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::json::result::ResultEvent;
use crate::cli::resolve::put_options;
use crate::cli::signals::stop_on_signals;
use crate::cli::summary;
use crate::engine::finish::finish;

pub async fn run(args: &MergeArgs) -> Result<ExitCode, CliError> {
    let host = Party::find(&args.destination, None, &args.connection, &args.output)?.only("merge")?;
    let options =
        put_options(&args.finish, None, &args.lock, &host.target.host, &host.account, &host.screen)?;
    let connector = host.connector(&args.connection, args.finish.stall_timeout)?;
    let stop = stop_on_signals(host.screen.clone())?;
    let reporter = Reporter::start(&host.output)?;
    let begin = Instant::now();
    let monitor = reporter.monitor(&host, None);
    let result = finish(connector, host.target.path.clone(), options, monitor, stop).await;
    host.screen.clear();
    let code = match result.map_err(with_way_on) {
        Ok(report) => {
            let line = || summary::put_line(host.name(), &report, "merged", begin.elapsed());
            reporter.result(line, &ResultEvent::done(host.name(), None, &report))?;
            ExitCode::Done
        }
        Err(failure) => reporter.failure(&host, None, &failure),
    };
    reporter.finish(code)
}
