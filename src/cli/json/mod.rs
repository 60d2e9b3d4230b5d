//! `--json`: one object a line on standard output, each with `event` and `host`.
//!
//! The engine must not wait for whoever reads: lines go through a bounded queue to a
//! thread of their own. When the reader does not keep up, progress and notices are
//! dropped; a result never is.

pub mod result;
pub mod summary;

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::args::output::OutputArgs;
use crate::cli::progress::{Figures, Meter, Progress, Ticker};
use crate::engine::failure::{Failure, Phase};
use crate::engine::monitor::{Level, Monitor, Notice, UNKNOWN_TOTAL};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Lines that wait for a slow reader.
const QUEUE_LINES: usize = 1024;

/// Writes lines in the order in which they come.
pub struct JsonLines {
    queue: SyncSender<Message>,
    writer: Mutex<Option<JoinHandle<std::io::Result<()>>>>,
}

enum Message {
    Line(String),
    /// What comes after it comes too late.
    End,
}

impl JsonLines {
    pub fn start(output: impl Write + Send + 'static) -> std::io::Result<JsonLines> {
        let (queue, messages) = sync_channel(QUEUE_LINES);
        let write = move || write_lines(&messages, output);
        let writer = std::thread::Builder::new().name("json".to_owned()).spawn(write)?;
        Ok(JsonLines { queue, writer: Mutex::new(Some(writer)) })
    }

    pub fn sender(&self) -> JsonSender {
        JsonSender(self.queue.clone())
    }

    /// Waits until everything is written that was sent before. Who still has a sender, such
    /// as a host that was left behind, speaks to nobody from now on.
    pub fn finish(&self) -> std::io::Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.queue.send(Message::End);
        match writer.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(std::io::Error::other("the JSON writer died")),
        }
    }
}

fn write_lines(messages: &Receiver<Message>, mut output: impl Write) -> std::io::Result<()> {
    let mut result = Ok(());
    // Goes on reading after an error, so that nobody waits for room in the queue.
    for message in messages {
        let Message::Line(line) = message else { break };
        if result.is_ok() {
            result = output.write_all(line.as_bytes()).and_then(|()| output.flush());
        }
    }
    result
}

#[derive(Clone)]
pub struct JsonSender(SyncSender<Message>);

impl JsonSender {
    /// Waits for room.
    pub fn send(&self, event: &impl Serialize) {
        if let Some(line) = line(event) {
            let _ = self.0.send(Message::Line(line));
        }
    }

    /// Never waits; gives the event up when there is no room.
    fn offer(&self, event: &impl Serialize) {
        if let Some(line) = line(event) {
            let _ = self.0.try_send(Message::Line(line));
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
    /// Null where nobody knows it: of a pipe.
    total: Option<u64>,
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
                total: known(*total),
                rate,
            };
            sender.offer(&event);
        }
        told = figures;
    })
}

fn known(total: u64) -> Option<u64> {
    (total != UNKNOWN_TOTAL).then_some(total)
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
                total: known(total),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::failure::FailureKind;

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
        lines.sender().send(&serde_json::json!({"event": "result", "host": "web1"}));
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
            lines.sender().send(&serde_json::json!({"event": "result", "host": "web1"}));
        }
        assert!(lines.finish().is_err());
    }
}
