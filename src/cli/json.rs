//! `--json`: one object a line on standard output, each with `event` and `host`.
//!
//! The engine must not wait for whoever reads: lines go through a bounded queue to a
//! thread of their own. When the reader does not keep up, progress and notices are
//! dropped; a result never is.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::output::OutputArgs;
use super::exit_code::ExitCode;
use super::progress::{Figures, Meter, Progress, Ticker};
use crate::engine::failure::{Failure, Phase};
use crate::engine::monitor::{Level, Monitor, Notice};
use crate::engine::report::{
    CleanReport, MergedBy, PutReport, PutStatus, StatusReport, TargetState, VerifiedBy,
};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Lines that wait for a slow reader.
const QUEUE_LINES: usize = 1024;

/// Writes lines in the order in which they come.
pub struct JsonLines {
    queue: SyncSender<String>,
    writer: JoinHandle<std::io::Result<()>>,
}

impl JsonLines {
    pub fn start(output: impl Write + Send + 'static) -> std::io::Result<JsonLines> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let write = move || write_lines(&lines, output);
        let writer = std::thread::Builder::new().name("json".to_owned()).spawn(write)?;
        Ok(JsonLines { queue, writer })
    }

    pub fn sender(&self) -> JsonSender {
        JsonSender(self.queue.clone())
    }

    /// Waits until everything is written. Every sender has to be gone by then.
    pub fn finish(self) -> std::io::Result<()> {
        drop(self.queue);
        match self.writer.join() {
            Ok(result) => result,
            Err(_) => Err(std::io::Error::other("the JSON writer died")),
        }
    }
}

fn write_lines(lines: &Receiver<String>, mut output: impl Write) -> std::io::Result<()> {
    let mut result = Ok(());
    // Goes on reading after an error, so that nobody waits for room in the queue.
    for line in lines {
        if result.is_ok() {
            result = output.write_all(line.as_bytes()).and_then(|()| output.flush());
        }
    }
    result
}

#[derive(Clone)]
pub struct JsonSender(SyncSender<String>);

impl JsonSender {
    /// Waits for room.
    pub fn send(&self, event: &impl Serialize) {
        if let Some(line) = line(event) {
            let _ = self.0.send(line);
        }
    }

    /// Never waits; gives the event up when there is no room.
    fn offer(&self, event: &impl Serialize) {
        if let Some(line) = line(event) {
            let _ = self.0.try_send(line);
        }
    }
}

fn line(event: &impl Serialize) -> Option<String> {
    let mut line = serde_json::to_string(event).ok()?;
    line.push('\n');
    Some(line)
}

#[derive(Serialize)]
struct ProgressEvent<'a> {
    event: &'static str,
    host: &'a str,
    phase: &'static str,
    done: u64,
    total: u64,
    /// Of the phase there is to wait for; null for the others and as long as it is unknown.
    rate: Option<u64>,
}

#[derive(Serialize)]
struct NoticeEvent<'a> {
    event: &'static str,
    host: &'a str,
    level: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct RetryEvent<'a> {
    event: &'static str,
    host: &'a str,
    error: String,
    phase: &'static str,
    attempt: u32,
    limit: u32,
    pause_seconds: f64,
}

pub struct JsonMonitor {
    sender: JsonSender,
    host: String,
    output: OutputArgs,
    progress: Arc<Progress>,
    _ticker: Option<Ticker>,
}

impl JsonMonitor {
    pub fn new(sender: JsonSender, host: &str, output: &OutputArgs) -> JsonMonitor {
        let progress = Arc::new(Progress::default());
        let ticker = (!output.quiet).then(|| ticker(sender.clone(), host.to_owned(), progress.clone()));
        JsonMonitor { sender, host: host.to_owned(), output: *output, progress, _ticker: ticker }
    }
}

/// Tells of every phase that moved since the last time.
fn ticker(sender: JsonSender, host: String, progress: Arc<Progress>) -> Ticker {
    let mut meter = Meter::default();
    let mut told: Vec<Figures> = Vec::new();
    Ticker::start(PROGRESS_INTERVAL, move || {
        let view = meter.view(&progress, Instant::now());
        let figures = progress.figures();
        for Figures { phase, done, total } in figures.iter().filter(|figures| !told.contains(figures)) {
            let rate = view.as_ref().filter(|view| view.phase == *phase).and_then(|view| view.rate);
            let event = ProgressEvent {
                event: "progress",
                host: &host,
                phase: phase.name(),
                done: (*done).min(*total),
                total: *total,
                rate,
            };
            sender.offer(&event);
        }
        told = figures;
    })
}

impl Monitor for JsonMonitor {
    fn phase(&self, phase: Phase, done: u64, total: u64) {
        self.progress.start(phase, done, total);
        if !self.output.quiet {
            let event = ProgressEvent {
                event: "phase",
                host: &self.host,
                phase: phase.name(),
                done,
                total,
                rate: None,
            };
            self.sender.offer(&event);
        }
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        self.progress.advance(phase, bytes);
    }

    fn notice(&self, notice: Notice) {
        let level = match notice.level {
            Level::Detail if self.output.verbose == 0 || self.output.quiet => return,
            Level::Info if self.output.quiet => return,
            Level::Detail => "detail",
            Level::Info => "info",
            Level::Warning => "warning",
        };
        self.sender.offer(&NoticeEvent { event: "notice", host: &self.host, level, text: &notice.text });
    }

    fn retry(&self, failure: &Failure, attempt: u32, limit: u32, pause: Duration) {
        self.sender.offer(&RetryEvent {
            event: "retry",
            host: &self.host,
            error: failure.to_string(),
            phase: failure.phase.name(),
            attempt,
            limit,
            pause_seconds: pause.as_secs_f64(),
        });
    }
}

/// The last line of a host. Fields that are not known are null, and always there.
#[derive(Debug, Serialize)]
pub struct ResultEvent<'a> {
    event: &'static str,
    host: &'a str,
    status: &'static str,
    /// Of `put`: what was uploaded, escaped.
    source: Option<String>,
    target: Option<&'a str>,
    size: Option<u64>,
    sha256: Option<String>,
    verified_by: Option<&'static str>,
    merge: Option<&'static str>,
    chunks_total: Option<u64>,
    chunks_sent: Option<u64>,
    chunks_skipped: Option<u64>,
    bytes_sent: Option<u64>,
    resumed: Option<bool>,
    seconds: BTreeMap<&'static str, f64>,
    error: Option<String>,
    phase: Option<&'static str>,
    exit_code: u8,
}

impl<'a> ResultEvent<'a> {
    pub fn done(host: &'a str, source: Option<String>, report: &'a PutReport) -> ResultEvent<'a> {
        ResultEvent {
            event: "result",
            host,
            status: put_status(report.status),
            source,
            target: Some(&report.target),
            size: Some(report.size),
            sha256: report.sha256.map(|digest| digest.to_string()),
            verified_by: report.verified_by.map(verified_by),
            merge: report.merge.map(merged_by),
            chunks_total: Some(report.chunks_total),
            chunks_sent: Some(report.chunks_sent),
            chunks_skipped: Some(report.chunks_skipped),
            bytes_sent: Some(report.bytes_sent),
            resumed: Some(report.resumed),
            seconds: report.seconds.iter().map(|(phase, time)| (*phase, time.as_secs_f64())).collect(),
            error: None,
            phase: None,
            exit_code: ExitCode::Done.number(),
        }
    }

    /// `target` is the path as it was asked for, escaped.
    pub fn failed(
        host: &'a str,
        source: Option<String>,
        target: &'a str,
        failure: &Failure,
    ) -> ResultEvent<'a> {
        ResultEvent {
            event: "result",
            host,
            status: "failed",
            source,
            target: Some(target),
            size: None,
            sha256: None,
            verified_by: None,
            merge: None,
            chunks_total: None,
            chunks_sent: None,
            chunks_skipped: None,
            bytes_sent: None,
            resumed: None,
            seconds: BTreeMap::new(),
            error: Some(failure.to_string()),
            phase: Some(failure.phase.name()),
            exit_code: ExitCode::of(failure.kind).number(),
        }
    }
}

fn put_status(status: PutStatus) -> &'static str {
    match status {
        PutStatus::Uploaded => "uploaded",
        PutStatus::Unchanged => "unchanged",
        PutStatus::Skipped => "skipped",
        PutStatus::WouldUpload => "would-upload",
    }
}

fn verified_by(method: VerifiedBy) -> &'static str {
    match method {
        VerifiedBy::Sha256Target => "sha256-target",
        VerifiedBy::Sha256Readback => "sha256-readback",
        VerifiedBy::MacTarget => "mac-target",
        VerifiedBy::CrcTarget => "crc-target",
        VerifiedBy::Size => "size",
    }
}

fn merged_by(method: MergedBy) -> &'static str {
    match method {
        MergedBy::Placed => "placed",
        MergedBy::Script => "script",
        MergedBy::Sftp => "sftp",
    }
}

/// The last line of `haul clean --json`.
#[derive(Debug, Serialize)]
pub struct CleanEvent<'a> {
    event: &'static str,
    host: &'a str,
    status: &'static str,
    target: &'a str,
    removed_chunks: u64,
    forced_owner: Option<&'a str>,
    exit_code: u8,
}

impl<'a> CleanEvent<'a> {
    pub fn new(host: &'a str, report: &'a CleanReport) -> CleanEvent<'a> {
        CleanEvent {
            event: "result",
            host,
            status: if report.removed_anything { "cleaned" } else { "unchanged" },
            target: &report.target,
            removed_chunks: report.removed_chunks,
            forced_owner: report.forced_owner.as_deref(),
            exit_code: ExitCode::Done.number(),
        }
    }
}

/// `haul status --json`.
#[derive(Debug, Serialize)]
pub struct StatusEvent<'a> {
    event: &'static str,
    host: &'a str,
    target: &'a str,
    state: &'static str,
    size: Option<u64>,
    chunks_total: Option<u64>,
    chunks_present: Option<u64>,
    chunks_merged: Option<u64>,
    chunk_size: Option<u64>,
    source: Option<SourceObject<'a>>,
    lock: Option<LockObject<'a>>,
}

#[derive(Debug, Serialize)]
struct SourceObject<'a> {
    name: &'a str,
    size: u64,
    identity: &'a str,
}

#[derive(Debug, Serialize)]
struct LockObject<'a> {
    user: &'a str,
    holder: &'a str,
    run: &'a str,
    since: u64,
    alive: Option<bool>,
}

impl<'a> StatusEvent<'a> {
    pub fn new(host: &'a str, report: &'a StatusReport) -> StatusEvent<'a> {
        let upload = report.upload.as_ref();
        StatusEvent {
            event: "status",
            host,
            target: &report.target,
            state: state_name(report.state),
            size: report.size,
            chunks_total: upload.map(|upload| upload.chunks_total),
            chunks_present: upload.map(|upload| upload.chunks_present),
            chunks_merged: upload.map(|upload| upload.chunks_merged),
            chunk_size: upload.map(|upload| upload.chunk_size),
            source: upload.map(|upload| SourceObject {
                name: &upload.source_name,
                size: upload.source_size,
                identity: &upload.source_identity,
            }),
            lock: report.lock.as_ref().map(|lock| LockObject {
                user: &lock.user,
                holder: &lock.holder,
                run: &lock.run,
                since: lock.since,
                alive: lock.alive,
            }),
        }
    }
}

pub fn state_name(state: TargetState) -> &'static str {
    match state {
        TargetState::Absent => "absent",
        TargetState::Partial => "partial",
        TargetState::Merging => "merging",
        TargetState::Complete => "complete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::failure::FailureKind;
    use crate::engine::report::{LockStatus, UploadStatus};
    use crate::model::digest::Digest;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn report() -> PutReport {
        PutReport {
            status: PutStatus::Uploaded,
            target: "/srv/img".into(),
            size: 30,
            sha256: Some(Digest([0xab; 32])),
            verified_by: Some(VerifiedBy::Sha256Target),
            merge: Some(MergedBy::Script),
            chunks_total: 3,
            chunks_sent: 2,
            chunks_skipped: 1,
            bytes_sent: 20,
            resumed: true,
            seconds: BTreeMap::from([("upload", Duration::from_millis(1500))]),
        }
    }

    #[test]
    fn a_result_has_every_field_of_the_contract() {
        let object = serde_json::to_value(ResultEvent::done("web1", None, &report())).expect("JSON");
        let expected = serde_json::json!({
            "event": "result", "host": "web1", "status": "uploaded", "source": null, "target": "/srv/img",
            "size": 30, "sha256": "ab".repeat(32), "verified_by": "sha256-target", "merge": "script",
            "chunks_total": 3, "chunks_sent": 2, "chunks_skipped": 1, "bytes_sent": 20, "resumed": true,
            "seconds": {"upload": 1.5}, "error": null, "phase": null, "exit_code": 0,
        });
        assert_eq!(object, expected);
        let failure = Failure::new(FailureKind::Locked, Phase::Lock, "web1:/srv/img", "bob has it");
        let event = ResultEvent::failed("web1", Some("img".into()), "/srv/img", &failure);
        let object = serde_json::to_value(event).expect("JSON");
        assert_eq!(object["status"], "failed");
        assert_eq!((&object["phase"], &object["exit_code"]), (&"lock".into(), &11.into()));
        assert_eq!(object["error"], "web1:/srv/img: lock: bob has it");
        assert_eq!(object["source"], "img");
    }

    #[test]
    fn a_status_has_every_field_of_the_contract() {
        let mut report = StatusReport {
            target: "/srv/img".into(),
            state: TargetState::Partial,
            size: None,
            modified: None,
            upload: Some(UploadStatus {
                chunks_total: 3,
                chunks_present: 2,
                chunks_merged: 1,
                chunk_size: 10,
                source_name: "img".into(),
                source_size: 30,
                source_identity: "1:2:30:4:5".into(),
            }),
            lock: Some(LockStatus {
                user: "alice".into(),
                holder: "alice@laptop".into(),
                run: "00".into(),
                since: 7,
                alive: None,
            }),
        };
        let object = serde_json::to_value(StatusEvent::new("web1", &report)).expect("JSON");
        let expected = serde_json::json!({
            "event": "status", "host": "web1", "target": "/srv/img", "state": "partial", "size": null,
            "chunks_total": 3, "chunks_present": 2, "chunks_merged": 1, "chunk_size": 10,
            "source": {"name": "img", "size": 30, "identity": "1:2:30:4:5"},
            "lock": {"user": "alice", "holder": "alice@laptop", "run": "00", "since": 7, "alive": null},
        });
        assert_eq!(object, expected);
        (report.upload, report.lock, report.state) = (None, None, TargetState::Absent);
        let object = serde_json::to_value(StatusEvent::new("web1", &report)).expect("JSON");
        assert_eq!(
            (&object["lock"], &object["source"], &object["state"]),
            (&serde_json::Value::Null, &serde_json::Value::Null, &"absent".into())
        );
    }

    #[test]
    fn lines_come_in_order_and_the_result_last() {
        let output = Shared::default();
        let lines = JsonLines::start(output.clone()).expect("a thread");
        let monitor =
            JsonMonitor::new(lines.sender(), "web1", &OutputArgs { json: true, quiet: false, verbose: 0 });
        monitor.phase(Phase::Upload, 0, 10);
        monitor.notice(Notice { level: Level::Detail, text: "not shown".into() });
        monitor.notice(Notice { level: Level::Info, text: "shown".into() });
        let failure = Failure::new(FailureKind::Link, Phase::Upload, "web1", "gone");
        monitor.retry(&failure, 1, 5, Duration::from_millis(1500));
        drop(monitor);
        lines.sender().send(&ResultEvent::done("web1", None, &report()));
        lines.finish().expect("written");
        let text = String::from_utf8(output.0.lock().expect("no panic").clone()).expect("UTF-8");
        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
        assert_eq!(names, ["phase", "notice", "retry", "result"]);
        assert!(events.iter().all(|event| event["host"] == "web1"));
        assert_eq!(events[2]["pause_seconds"], 1.5);
    }

    #[test]
    fn a_reader_that_has_gone_away_blocks_nobody() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = JsonLines::start(Gone).expect("a thread");
        for _ in 0..2 * QUEUE_LINES {
            lines.sender().send(&ResultEvent::done("web1", None, &report()));
        }
        assert!(lines.finish().is_err());
    }
}
