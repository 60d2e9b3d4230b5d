//! The JSON of `haul exec`: a result per host.

use std::time::Duration;

use data_encoding::BASE64;
use serde::Serialize;

use super::drive::{Cause, Ended};
use super::output::{Sink, Written};
use crate::engine::exec::{Detached, ExitStatus};

/// The last line of a host. Fields that are not known are null, and always there.
#[derive(Debug, Serialize)]
pub struct ResultEvent<'a> {
    event: &'static str,
    host: &'a str,
    /// `exited`, `signaled`, `timed_out`, `interrupted` or `failed`.
    status: &'static str,
    args: &'a [String],
    /// The program's own, where it ended by itself.
    exit_status: Option<u32>,
    /// The signal that it died of, without "SIG".
    signal: Option<&'a str>,
    /// With `--capture`, where it is UTF-8.
    stdout: Option<String>,
    /// With `--capture`, where it is not.
    stdout_base64: Option<String>,
    stderr: Option<String>,
    stderr_base64: Option<String>,
    /// More came than was kept.
    truncated: bool,
    seconds: Option<f64>,
    error: Option<&'a str>,
    exit_code: u8,
}

impl<'a> ResultEvent<'a> {
    /// Nothing was started.
    pub fn failed(host: &'a str, args: &'a [String], error: &'a str, exit_code: u8) -> ResultEvent<'a> {
        ResultEvent {
            event: "result",
            host,
            status: "failed",
            args,
            exit_status: None,
            signal: None,
            stdout: None,
            stdout_base64: None,
            stderr: None,
            stderr_base64: None,
            truncated: false,
            seconds: None,
            error: Some(error),
            exit_code,
        }
    }

    pub fn ended(
        host: &'a str,
        args: &'a [String],
        ended: &'a Ended,
        error: Option<&'a str>,
        exit_code: u8,
        time: Duration,
    ) -> ResultEvent<'a> {
        let status = ended.status.as_ref().and_then(|status| status.as_ref().ok());
        let (stdout, stdout_base64, stdout_cut) = captured(ended.stdout.as_ref());
        let (stderr, stderr_base64, stderr_cut) = captured(ended.stderr.as_ref());
        ResultEvent {
            status: match (ended.cause, status) {
                (Some(Cause::TimedOut(_)), _) => "timed_out",
                (Some(Cause::Interrupted(_) | Cause::Stopped), _) => "interrupted",
                (_, Some(ExitStatus::Exited(_))) => "exited",
                (_, Some(ExitStatus::Signaled { .. })) => "signaled",
                (_, None) => "failed",
            },
            exit_status: status.and_then(ExitStatus::code),
            signal: status.and_then(ExitStatus::signal),
            stdout,
            stdout_base64,
            stderr,
            stderr_base64,
            truncated: stdout_cut || stderr_cut,
            seconds: Some(time.as_secs_f64()),
            error,
            ..ResultEvent::failed(host, args, "", exit_code)
        }
    }
}

/// As text, as base64, and whether it was cut.
fn captured(written: Option<&Written>) -> (Option<String>, Option<String>, bool) {
    match written.map(|written| &written.sink) {
        Some(Sink::Captured { bytes, cut, .. }) => match std::str::from_utf8(bytes) {
            Ok(text) => (Some(text.to_owned()), None, *cut),
            Err(_) => (None, Some(BASE64.encode(bytes)), *cut),
        },
        _ => (None, None, false),
    }
}

#[derive(Serialize)]
pub struct DetachedEvent<'a> {
    event: &'static str,
    host: &'a str,
    status: &'static str,
    id: String,
    pid: u32,
    exit_code: u8,
}

impl<'a> DetachedEvent<'a> {
    pub fn new(host: &'a str, detached: &Detached) -> DetachedEvent<'a> {
        DetachedEvent {
            event: "result",
            host,
            status: "detached",
            id: detached.id.to_string(),
            pid: detached.leader,
            exit_code: 0,
        }
    }
}
