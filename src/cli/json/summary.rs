//! The last object of `--json` where a command worked on several hosts.

use serde::Serialize;

use crate::cli::exit_code::ExitCode;
use crate::engine::source::Usage;

/// Has `host` as every object has, and there it is null.
#[derive(Debug, Serialize)]
pub struct SummaryEvent<'a> {
    pub event: &'static str,
    pub host: Option<&'static str>,
    pub hosts: usize,
    pub succeeded: usize,
    pub failed: usize,
    /// Of those that succeeded, how many of each result: `uploaded`, `unchanged` …
    pub results: std::collections::BTreeMap<&'a str, usize>,
    pub failed_hosts: Vec<&'a str>,
    /// Null where it is not about bytes.
    pub bytes_sent: Option<u64>,
    /// Of `put`: how often the source's bytes were read and hashed here, all hosts together.
    pub source_bytes_read: Option<u64>,
    pub source_bytes_hashed: Option<u64>,
    pub seconds: f64,
    pub exit_code: u8,
}

impl<'a> SummaryEvent<'a> {
    pub fn new(hosts: usize, usage: Option<Usage>, seconds: f64, code: ExitCode) -> SummaryEvent<'a> {
        SummaryEvent {
            event: "summary",
            host: None,
            hosts,
            succeeded: 0,
            failed: 0,
            results: std::collections::BTreeMap::new(),
            failed_hosts: Vec::new(),
            bytes_sent: None,
            source_bytes_read: usage.map(|usage| usage.bytes_read),
            source_bytes_hashed: usage.map(|usage| usage.bytes_hashed),
            seconds,
            exit_code: code.number(),
        }
    }
}
