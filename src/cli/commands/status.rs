//! `haul status`: what stands at a target, on one host or several.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Party, Reporter};
use crate::cli::args::status::StatusArgs;
use crate::cli::connect::DEFAULT_STALL_TIMEOUT;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::fleet::table::HostEnd;
use crate::cli::fleet::{self, Job, STOP_LIMIT, Way};
use crate::cli::json::result::{StatusEvent, state_name};
use crate::cli::resolve::user_id;
use crate::cli::signals::stop_on_signals;
use crate::cli::summary;
use crate::engine::connect::or_stopped;
use crate::engine::failure::Phase;
use crate::engine::status::status;
use crate::model::escape::printable;

pub async fn run(args: &StatusArgs) -> Result<ExitCode, CliError> {
    let limit = args.fleet.limit.as_deref();
    let party = Party::find(&args.destination, limit, &args.connection, &args.output)?;
    let mut ways = Vec::new();
    for host in &party.hosts {
        let user = user_id(args.user_id.as_ref(), &host.target.host, &host.account)?;
        let connector = host.connector(&args.connection, DEFAULT_STALL_TIMEOUT)?;
        ways.push((connector, user));
    }
    let stop = stop_on_signals(party.screen.clone())?;
    let reporter = Arc::new(Reporter::start(&party.output)?);
    // What was asked for is printed in the order in which it was asked for.
    let texts: Arc<Mutex<BTreeMap<usize, String>>> = Arc::default();
    let finish = || {
        let texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
        // Also with -q: it is what was asked for.
        crate::cli::print(&texts.values().cloned().collect::<String>())
    };
    let way = Way {
        args: &args.fleet,
        stop: stop.clone(),
        interrupted: &|| stop.is_stopped().then_some(ExitCode::Interrupted),
        stop_limit: STOP_LIMIT,
        bytes_each: 0,
        lost: &|host, failure| {
            reporter.failure(host, None, failure);
        },
        usage: &|| None,
        finish: &finish,
        output_is_taken: true,
    };
    let work = |Job { index, host, stop, seat }: Job| {
        let (way, reporter, texts) = (ways.get(index).cloned(), reporter.clone(), texts.clone());
        async move {
            let _seat = seat;
            let Some((connector, user)) = way else {
                return Err(CliError::new(ExitCode::Failed, "a host without a way to it"));
            };
            let work = status(connector, host.target.path.clone(), user);
            let place = printable(host.name().as_bytes());
            Ok(match or_stopped(&stop, Phase::Survey, place, work).await {
                Ok(report) => {
                    match reporter.as_ref() {
                        Reporter::Json(lines) => lines.sender().send(&StatusEvent::new(host.name(), &report)),
                        Reporter::People { .. } => {
                            let text = summary::status_lines(host.name(), &report);
                            let mut texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
                            texts.insert(index, text);
                        }
                    }
                    HostEnd::done(state_name(report.state))
                }
                Err(failure) => {
                    reporter.failure(&host, None, &failure);
                    HostEnd::failed(&failure)
                }
            })
        }
    };
    fleet::run(&party, way, &reporter, work).await
}
