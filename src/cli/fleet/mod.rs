//! One command on one or several hosts: who runs when, what is shown meanwhile, and what
//! is said in the end.

pub mod board;
pub mod choose;
pub mod retry_file;
pub mod table;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::board::{Board, Seat};
use self::table::{HostEnd, Row, Tally};
use super::args::fleet::FleetArgs;
use super::commands::{OneHost, Party, Reporter};
use super::error::CliError;
use super::exit_code::ExitCode;
use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::fleet::{Ended, Limits, Next};
use crate::engine::source::Usage;
use crate::engine::stop::Stop;
use crate::model::escape::printable;

/// How long hosts have to come to rest once all have to stop. A lock is given back in a
/// few round trips; a host that does not answer is left with its lock, which the next run
/// takes over.
pub const STOP_LIMIT: Duration = Duration::from_secs(8);

/// How several hosts go side by side.
pub struct Way<'a> {
    pub args: &'a FleetArgs,
    pub stop: Stop,
    /// Asks for the code that an interrupt makes, where there was one.
    pub interrupted: &'a dyn Fn() -> Option<ExitCode>,
    pub stop_limit: Duration,
    /// What each host gets, for the line of all hosts; 0 where it is not about bytes.
    pub bytes_each: u64,
    /// Says in the command's own words why a host's job came to nothing.
    pub lost: &'a dyn Fn(&OneHost, &Failure),
    pub usage: &'a dyn Fn() -> Option<Usage>,
    /// Says what was kept until all are done.
    pub finish: &'a dyn Fn() -> Result<(), CliError>,
    /// Standard output is the command's own: what is said of all hosts goes to standard error.
    pub output_is_taken: bool,
}

/// What one host's job is given.
pub struct Job {
    /// Its place among the hosts.
    pub index: usize,
    pub host: OneHost,
    pub stop: Stop,
    /// Its line on the terminal, where there is one.
    pub seat: Option<Seat>,
}

/// Runs `work` for each host and says how it went. A host that fails is a row of the
/// result; an error of `work` is one of this side, which ends the command.
pub async fn run<F>(
    party: &Party,
    way: Way<'_>,
    reporter: &Arc<Reporter>,
    work: impl Fn(Job) -> F,
) -> Result<ExitCode, CliError>
where
    F: Future<Output = Result<HostEnd, CliError>> + Send + 'static,
{
    if let Some(path) = &way.args.retry_file {
        retry_file::check(path)?;
    }
    let begin = Instant::now();
    let hosts = party.hosts.len();
    let board = party.shows_lines().then(|| Board::start(party.screen.clone(), hosts, way.bytes_each));
    let mut rows: Vec<Option<Row>> = vec![None; hosts];
    let first_failed = RefCell::new(None::<String>);
    let mut trouble = None;
    let limits = Limits { forks: way.args.forks, stop_limit: way.stop_limit };
    let start = |index, host: OneHost, stop| {
        let seat = board.as_ref().map(|board| board.seat(host.name()));
        let job = work(Job { index, host, stop, seat });
        async move {
            let begin = Instant::now();
            (job.await, begin.elapsed())
        }
    };
    let ended = |index: usize, end: Ended<(Result<HostEnd, CliError>, Duration)>| {
        let Some(host) = party.hosts.get(index) else { return Next::GoOn };
        let (end, time) = match end {
            Ended::Done((Ok(end), time)) => (end, Some(time)),
            Ended::Done((Err(error), _)) => {
                trouble.get_or_insert(error);
                return Next::StopAll;
            }
            lost => {
                let failure = failure_of(host, &lost, first_failed.borrow().as_deref());
                (way.lost)(host, &failure);
                (HostEnd::failed(&failure), None)
            }
        };
        let row = Row { host: host.name().to_owned(), end, time };
        let failed = row.failed();
        if let Some(board) = &board {
            board.ended(failed);
        }
        rows[index] = Some(row);
        if failed && way.args.fail_fast {
            let mut first = first_failed.borrow_mut();
            if first.is_none() && !way.stop.is_stopped() && hosts > 1 {
                party.screen.remark(&format!(
                    "haul: {}: failed; stopping all hosts (--fail-fast)",
                    printable(host.name().as_bytes())
                ));
            }
            first.get_or_insert_with(|| host.name().to_owned());
            return Next::StopAll;
        }
        Next::GoOn
    };
    crate::engine::fleet::run(party.hosts.clone(), limits, &way.stop, start, ended).await;
    drop(board);
    party.screen.clear();
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    let tally = Tally { rows: rows.into_iter().flatten().collect(), time: begin.elapsed() };
    let code = tally.code((way.interrupted)());
    if let Some(path) = &way.args.retry_file {
        let failed: Vec<&str> = tally.failed().map(|row| row.host.as_str()).collect();
        retry_file::write(path, &failed)?;
    }
    (way.finish)()?;
    if hosts > 1 {
        conclude(party, &way, reporter, &tally, code)?;
    }
    reporter.finish(code)
}

fn failure_of<R>(host: &OneHost, end: &Ended<R>, first_failed: Option<&str>) -> Failure {
    let place = printable(host.name().as_bytes());
    match end {
        Ended::Crashed(text) => Failure::new(
            FailureKind::Failed,
            Phase::Connect,
            place,
            format!("a defect of haul: {}", printable(text.as_bytes())),
        ),
        Ended::NotStarted => {
            let cause = match first_failed {
                Some(other) => format!("not begun, since {} failed", printable(other.as_bytes())),
                None => "not begun, since all had to stop".to_owned(),
            };
            Failure::new(FailureKind::Interrupted, Phase::Connect, place, cause)
        }
        _ => Failure::new(
            FailureKind::Interrupted,
            Phase::Connect,
            place,
            "it did not come to rest in time and was left",
        )
        .next_step("run the same command again to go on"),
    }
}

/// What is said of all hosts together.
fn conclude(
    party: &Party,
    way: &Way<'_>,
    reporter: &Reporter,
    tally: &Tally,
    code: ExitCode,
) -> Result<(), CliError> {
    if let Reporter::Json(lines) = reporter {
        lines.sender().send(&tally.event((way.usage)(), code));
        return Ok(());
    }
    let text = match party.shows_lines() {
        true => format!("{}{}", tally.table(), tally.line()),
        false => tally.line(),
    };
    match way.output_is_taken {
        true => party.screen.remark(&text),
        false if party.output.quiet => {}
        false => super::print(&format!("{text}\n"))?,
    }
    if let (Some(path), true) = (&way.args.retry_file, tally.failed().next().is_some()) {
        use std::os::unix::ffi::OsStrExt;
        let path = printable(path.as_os_str().as_bytes());
        party.screen.remark(&format!("haul: --limit @{path} takes the hosts that failed again"));
    }
    Ok(())
}
