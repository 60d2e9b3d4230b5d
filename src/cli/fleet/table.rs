//! What came out on each host, and on all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::exit_code::ExitCode;
use crate::cli::json::summary::SummaryEvent;
use crate::cli::text_table::aligned;
use crate::engine::failure::{Failure, FailureKind};
use crate::engine::source::Usage;
use crate::model::escape::printable;
use crate::model::units::{human_duration, human_size};

/// How it ended on one host.
#[derive(Debug, Clone)]
pub struct HostEnd {
    pub code: ExitCode,
    /// `uploaded`, `unchanged`, `exit 3`, `failed` …
    pub result: String,
    /// What was sent; `None` where it is not about bytes.
    pub bytes: Option<u64>,
    /// Why it failed.
    pub reason: Option<String>,
}

impl HostEnd {
    /// Well, and not about bytes.
    pub fn done(result: &str) -> HostEnd {
        HostEnd { code: ExitCode::Done, result: result.to_owned(), bytes: None, reason: None }
    }

    pub fn failed(failure: &Failure) -> HostEnd {
        let result = if failure.kind == FailureKind::Interrupted { "stopped" } else { "failed" };
        HostEnd {
            code: ExitCode::of(failure.kind),
            result: result.to_owned(),
            bytes: None,
            reason: Some(failure.to_string()),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Row {
    pub host: String,
    pub end: HostEnd,
    /// `None`: it never began.
    pub time: Option<Duration>,
}

impl Row {
    pub fn failed(&self) -> bool {
        self.end.code != ExitCode::Done && self.end.code != ExitCode::Remote(0)
    }
}

/// All hosts, in the order in which they were asked for.
#[derive(Debug)]
pub struct Tally {
    pub rows: Vec<Row>,
    pub time: Duration,
}

impl Tally {
    pub fn failed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.failed())
    }

    /// One host ends with its own code, several with 3 where any failed.
    pub fn code(&self, interrupted: Option<ExitCode>) -> ExitCode {
        match (&self.rows[..], interrupted) {
            ([only], _) => only.end.code,
            _ if self.failed().next().is_none() => ExitCode::Done,
            (_, Some(code)) => code,
            (_, None) => ExitCode::SomeHostsFailed,
        }
    }

    fn results(&self) -> BTreeMap<&str, usize> {
        let mut results = BTreeMap::new();
        for row in self.rows.iter().filter(|row| !row.failed()) {
            *results.entry(row.end.result.as_str()).or_default() += 1;
        }
        results
    }

    pub fn bytes(&self) -> Option<u64> {
        let bytes: Vec<u64> = self.rows.iter().filter_map(|row| row.end.bytes).collect();
        (!bytes.is_empty()).then(|| bytes.iter().sum())
    }

    /// `20 hosts: 12 uploaded, 5 unchanged, 3 failed; 1.2 GiB sent in 12.3 s`
    pub fn line(&self) -> String {
        let mut parts: Vec<String> =
            self.results().iter().map(|(result, count)| format!("{count} {result}")).collect();
        let failed = self.failed().count();
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        let sent = self.bytes().map(|bytes| format!("{} sent in ", human_size(bytes))).unwrap_or_default();
        format!("{} hosts: {}; {sent}{}", self.rows.len(), parts.join(", "), human_duration(self.time))
    }

    pub fn table(&self) -> String {
        let about_bytes = self.bytes().is_some();
        let row = |cells: [String; 5]| {
            let [host, result, bytes, time, reason] = cells;
            if about_bytes {
                vec![host, result, bytes, time, reason]
            } else {
                vec![host, result, time, reason]
            }
        };
        let mut rows = vec![row(["HOST", "RESULT", "SENT", "TIME", "REASON"].map(str::to_owned))];
        for Row { host, end, time } in &self.rows {
            rows.push(row([
                printable(host.as_bytes()),
                end.result.clone(),
                end.bytes.map_or_else(|| "-".to_owned(), human_size),
                time.map_or_else(|| "-".to_owned(), human_duration),
                end.reason.clone().unwrap_or_default(),
            ]));
        }
        aligned(&rows)
    }

    pub fn event(&self, usage: Option<Usage>, code: ExitCode) -> SummaryEvent<'_> {
        let failed: Vec<&str> = self.failed().map(|row| row.host.as_str()).collect();
        SummaryEvent {
            succeeded: self.rows.len() - failed.len(),
            failed: failed.len(),
            results: self.results(),
            failed_hosts: failed,
            bytes_sent: self.bytes(),
            ..SummaryEvent::new(self.rows.len(), usage, self.time.as_secs_f64(), code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: &str, code: ExitCode, result: &str, reason: Option<&str>) -> Row {
        let reason = reason.map(str::to_owned);
        let end = HostEnd { code, result: result.into(), bytes: Some(1 << 20), reason };
        Row { host: host.into(), end, time: Some(Duration::from_millis(1500)) }
    }

    #[test]
    fn a_table_a_line_and_a_code() {
        let reason = "db: connect: refused";
        let mut tally = Tally {
            rows: vec![
                row("web1", ExitCode::Done, "uploaded", None),
                row("web2", ExitCode::Done, "unchanged", None),
                row("db", ExitCode::Unreachable, "failed", Some(reason)),
            ],
            time: Duration::from_secs(2),
        };
        assert_eq!(
            tally.table(),
            "HOST  RESULT     SENT     TIME   REASON\n\
             web1  uploaded   1.0 MiB  1.5 s\n\
             web2  unchanged  1.0 MiB  1.5 s\n\
             db    failed     1.0 MiB  1.5 s  db: connect: refused\n"
        );
        assert_eq!(tally.line(), "3 hosts: 1 unchanged, 1 uploaded, 1 failed; 3.0 MiB sent in 2.0 s");
        assert_eq!(tally.code(None), ExitCode::SomeHostsFailed);
        assert_eq!(tally.code(Some(ExitCode::Interrupted)), ExitCode::Interrupted);
        let event = serde_json::to_value(tally.event(None, tally.code(None))).expect("JSON");
        assert_eq!(event["failed_hosts"], serde_json::json!(["db"]));
        assert_eq!((&event["succeeded"], &event["exit_code"]), (&2.into(), &3.into()));
        assert_eq!((&event["event"], &event["host"]), (&"summary".into(), &serde_json::Value::Null));
        tally.rows.pop();
        assert_eq!(tally.code(Some(ExitCode::Interrupted)), ExitCode::Done, "nothing was left to interrupt");
        tally.rows = vec![row("db", ExitCode::Unreachable, "failed", Some(reason))];
        assert_eq!(tally.code(None), ExitCode::Unreachable);
    }
}
