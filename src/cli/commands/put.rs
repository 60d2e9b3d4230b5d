//! `haul put`: files onto one host or several, on each one after another.

use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::{OneHost, Party, Reporter, with_way_on};
use crate::cli::args::put::{IfExistsArg, PutArgs};
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::fleet::table::{HostEnd, STOPPED};
use crate::cli::fleet::{self, Job, STOP_LIMIT, Way};
use crate::cli::json::result::{ResultEvent, put_status};
use crate::cli::resolve::put_options;
use crate::cli::signals::stop_on_signals;
use crate::cli::sources::{self, STANDARD_INPUT};
use crate::cli::summary;
use crate::engine::limiter::Limiter;
use crate::engine::options::{Connections, IfExists, PutOptions};
use crate::engine::put::{PutJob, Shared, put_shared};
use crate::engine::source::{Source, Usage};
use crate::engine::stream::put_stream;
use crate::model::escape::printable;
use crate::remote::Connector;

/// From so many hosts at a time on, one connection to each fills the link together with the
/// others, unless asked otherwise.
const MANY_HOSTS: usize = 8;

pub async fn run(args: &PutArgs) -> Result<ExitCode, CliError> {
    let limit = args.fleet.limit.as_deref();
    let party = Party::find(&args.destination, limit, &args.connection, &args.output)?;
    if sources::is_standard_input(&args.sources) {
        if args.fleet.retry_file.is_some() {
            return Err(CliError::usage("--retry-file: a pipe cannot be read again"));
        }
        return from_standard_input(args, party.only("put -")?).await;
    }
    sources::check(&args.sources)?;
    if party.is_fleet() && args.finish.if_exists == Some(IfExistsArg::Ask) {
        return Err(CliError::usage(
            "--if-exists ask works on one host; with several choose replace, skip or fail",
        ));
    }
    let at_a_time = party.hosts.len().min(args.fleet.forks);
    let mut ways = Vec::new();
    for host in &party.hosts {
        let mut options = options_for(args, host)?;
        if party.is_fleet() && matches!(options.if_exists, IfExists::Ask(_)) {
            options.if_exists = IfExists::Fail;
        }
        if at_a_time >= MANY_HOSTS && options.connections == Connections::Auto {
            options.connections = Connections::Exactly(1);
        }
        let connector = host.connector(&args.connection, args.finish.stall_timeout)?;
        ways.push((connector, options));
    }
    let bwlimit = ways.iter().find_map(|(_, options): &(_, PutOptions)| options.bwlimit);
    let limiter = Arc::new(Limiter::new(bwlimit));
    let files = open(&args.sources, party.is_fleet().then_some(at_a_time))?;
    let stop = stop_on_signals(party.screen.clone())?;
    let reporter = Arc::new(Reporter::start(&party.output)?);
    let usage = || {
        let each = files.iter().map(|(_, source)| source.usage());
        Some(each.fold(Usage::default(), |all, file| Usage {
            bytes_read: all.bytes_read + file.bytes_read,
            bytes_hashed: all.bytes_hashed + file.bytes_hashed,
        }))
    };
    let way = Way {
        args: &args.fleet,
        stop: stop.clone(),
        interrupted: &|| stop.is_stopped().then_some(ExitCode::Interrupted),
        stop_limit: STOP_LIMIT,
        bytes_each: files.iter().map(|(_, source)| source.size()).sum(),
        lost: &|host, failure| {
            reporter.failure(host, None, failure);
        },
        usage: &usage,
        finish: &|| Ok(()),
        output_is_taken: false,
    };
    let work = |job: Job| {
        let way = ways.get(job.index).cloned();
        let shared = |(path, source): &(PathBuf, Source)| {
            (path.clone(), Shared { source: source.for_host(), limiter: limiter.clone() })
        };
        let files: Vec<_> = files.iter().map(shared).collect();
        let reporter = reporter.clone();
        async move {
            match way {
                Some((connector, options)) => one_host(job, connector, options, files, &reporter).await,
                None => Err(CliError::new(ExitCode::Failed, "a host without a way to it")),
            }
        }
    };
    fleet::run(&party, way, &reporter, work).await
}

fn options_for(args: &PutArgs, host: &OneHost) -> Result<PutOptions, CliError> {
    let transfer = Some(&args.transfer);
    put_options(&args.finish, transfer, &args.lock, &host.target.host, &host.account, &host.screen)
}

/// A pipe is read once, so it goes to one host.
async fn from_standard_input(args: &PutArgs, host: OneHost) -> Result<ExitCode, CliError> {
    if std::io::stdin().is_terminal() {
        return Err(CliError::usage(
            "standard input is the terminal: pipe something into haul, or name a file",
        ));
    }
    let options = options_for(args, &host)?;
    let connector = host.connector(&args.connection, args.finish.stall_timeout)?;
    let stop = stop_on_signals(host.screen.clone())?;
    let reporter = Reporter::start(&host.output)?;
    let begin = Instant::now();
    let monitor = reporter.monitor(&host, None);
    let destination = host.target.path.clone();
    let result = put_stream(connector, std::io::stdin(), destination, options, monitor, stop).await;
    host.screen.clear();
    let shown = Some(STANDARD_INPUT.to_owned());
    let code = match result.map_err(with_way_on) {
        Ok(report) => {
            let line = || summary::put_line(host.name(), &report, "uploaded", begin.elapsed());
            reporter.result(line, &ResultEvent::done(host.name(), shown, &report))?;
            ExitCode::Done
        }
        Err(failure) => reporter.failure(&host, shown, &failure),
    };
    reporter.finish(code)
}

/// Every file is opened once, for all hosts, of which so many read it at a time.
fn open(paths: &[PathBuf], at_a_time: Option<usize>) -> Result<Vec<(PathBuf, Source)>, CliError> {
    let open_one = |path: &PathBuf| {
        let source = Source::open(path)?;
        let shared = match at_a_time {
            Some(hosts) => source.shared_by(hosts),
            None => source,
        };
        Ok((path.clone(), shared))
    };
    paths.iter().map(open_one).collect()
}

async fn one_host(
    job: Job,
    connector: Arc<dyn Connector>,
    options: PutOptions,
    files: Vec<(PathBuf, Shared)>,
    reporter: &Reporter,
) -> Result<HostEnd, CliError> {
    let Job { host, stop, seat, .. } = job;
    let several = files.len() > 1;
    let mut end = HostEnd::done("");
    let mut results: Vec<(&'static str, usize)> = Vec::new();
    for (path, shared) in files {
        let job =
            PutJob { source: path.clone(), destination: host.target.path.clone(), into_directory: several };
        let begin = Instant::now();
        let monitor = reporter.monitor(&host, seat.as_ref());
        let result = put_shared(connector.clone(), job, shared, options.clone(), monitor, stop.clone()).await;
        if host.alone {
            host.screen.clear();
        }
        let shown = Some(printable(path.as_os_str().as_bytes()));
        let (outcome, word) = match result.map_err(with_way_on) {
            Ok(report) => {
                *end.bytes.get_or_insert(0) += report.bytes_sent;
                // On the terminal the table says it.
                if seat.is_none() {
                    let line = || summary::put_line(host.name(), &report, "uploaded", begin.elapsed());
                    reporter.result(line, &ResultEvent::done(host.name(), shown, &report))?;
                }
                (ExitCode::Done, put_status(report.status))
            }
            Err(failure) => {
                reporter.failure(&host, shown, &failure);
                let failed = HostEnd::failed(&failure);
                end.reason.get_or_insert(failure.to_string());
                (failed.code, if failed.result == STOPPED { STOPPED } else { "failed" })
            }
        };
        match results.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => results.push((word, 1)),
        }
        end.code = end.code.worse(outcome);
        // What holds for the host or for the person holds for the next file, too.
        if matches!(outcome, ExitCode::Interrupted | ExitCode::Unreachable) {
            break;
        }
    }
    end.result = match &results[..] {
        [(word, _)] => (*word).to_owned(),
        several => {
            several.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
        }
    };
    Ok(end)
}
