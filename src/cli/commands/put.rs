//! `haul put`: files onto one host, one after another.

use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use super::{OneHost, Reporter, with_way_on};
use crate::cli::args::put::PutArgs;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::json::result::ResultEvent;
use crate::cli::resolve::put_options;
use crate::cli::signals::stop_on_signals;
use crate::cli::{sources, summary};
use crate::engine::put::{PutJob, put};
use crate::model::escape::printable;

pub async fn run(args: &PutArgs) -> Result<ExitCode, CliError> {
    let host = OneHost::find(&args.destination, &args.connection, &args.output)?;
    sources::check(&args.sources)?;
    let options = put_options(
        &args.finish,
        Some(&args.transfer),
        &args.lock,
        &host.target.host,
        &host.account,
        &host.screen,
    )?;
    let connector = host.connector(&args.connection, args.finish.stall_timeout)?;
    let stop = stop_on_signals(host.screen.clone())?;
    let reporter = Reporter::start(&host.output)?;
    let mut code = ExitCode::Done;
    for source in &args.sources {
        let job = PutJob {
            source: source.clone(),
            destination: host.target.path.clone(),
            into_directory: args.sources.len() > 1,
        };
        let begin = Instant::now();
        let monitor = reporter.monitor(&host);
        let result = put(connector.clone(), job, options.clone(), monitor, stop.clone()).await;
        host.screen.clear();
        let shown = Some(printable(source.as_os_str().as_bytes()));
        let outcome = match result.map_err(with_way_on) {
            Ok(report) => {
                let line = || summary::put_line(host.name(), &report, "uploaded", begin.elapsed());
                reporter.result(line, &ResultEvent::done(host.name(), shown, &report))?;
                ExitCode::Done
            }
            Err(failure) => reporter.failure(&host, shown, &failure),
        };
        code = code.worse(outcome);
        // What holds for the host or for the person holds for the next file, too.
        if matches!(outcome, ExitCode::Interrupted | ExitCode::Unreachable) {
            break;
        }
    }
    reporter.finish(code)
}
