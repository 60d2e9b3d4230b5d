//! What a terminal shows while several hosts are at work: a line for each that is, and one
//! for all.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::progress::{Meter, Progress, Ticker, View, percent};
use crate::cli::screen::Screen;
use crate::engine::failure::Phase;
use crate::model::escape::printable;
use crate::model::units::{clock, human_rate};

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
/// Lines of the terminal that stay free.
const FREE_LINES: usize = 2;
/// Names longer than this are cut.
const MAX_NAME_COLUMNS: usize = 24;
/// A bar shorter than this says nothing.
const MIN_BAR_COLUMNS: usize = 12;
const MAX_BAR_COLUMNS: usize = 60;

/// Shows itself until it is dropped.
pub struct Board {
    state: Arc<Mutex<State>>,
    screen: Arc<Screen>,
    ticker: Option<Ticker>,
}

/// A running host's line. It goes when this is dropped.
pub struct Seat {
    state: Arc<Mutex<State>>,
    number: usize,
}

struct State {
    running: Vec<Running>,
    seats: usize,
    hosts: usize,
    done: usize,
    failed: usize,
    /// What each host gets; 0 where it is not about bytes.
    bytes_each: u64,
    total: Progress,
    meter: Meter,
}

struct Running {
    number: usize,
    host: String,
    /// What it does where there is nothing to count.
    doing: &'static str,
    /// Of the files before the one at work.
    progress: Arc<Progress>,
    meter: Meter,
}

impl Board {
    pub fn start(screen: Arc<Screen>, hosts: usize, bytes_each: u64) -> Board {
        let state = Arc::new(Mutex::new(State::new(hosts, bytes_each)));
        let (shown, seen) = (screen.clone(), state.clone());
        let ticker = Ticker::start(REDRAW_INTERVAL, move || {
            let (columns, rows) = shown.size();
            let lines = lock(&seen).lines(columns, rows, Instant::now());
            shown.show_lines(&lines);
        });
        Board { state, screen, ticker: Some(ticker) }
    }

    pub fn seat(&self, host: &str) -> Seat {
        let mut state = lock(&self.state);
        state.seats += 1;
        let number = state.seats;
        state.running.push(Running {
            number,
            host: printable(host.as_bytes()),
            doing: "connecting",
            progress: Arc::default(),
            meter: Meter::default(),
        });
        Seat { state: self.state.clone(), number }
    }

    /// One more host is through.
    pub fn ended(&self, failed: bool) {
        let mut state = lock(&self.state);
        state.done += 1;
        state.failed += usize::from(failed);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.ticker = None;
        self.screen.clear();
    }
}

impl Seat {
    /// To be pushed for the file that comes now.
    pub fn progress(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let mut state = lock(&self.state);
        if let Some(running) = state.running.iter_mut().find(|running| running.number == self.number) {
            running.progress = progress.clone();
            running.meter = Meter::default();
        }
        progress
    }
}

impl Seat {
    /// What is shown as long as there is nothing to count.
    pub fn doing(&self, text: &'static str) {
        let mut state = lock(&self.state);
        if let Some(running) = state.running.iter_mut().find(|running| running.number == self.number) {
            running.doing = text;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.state).running.retain(|running| running.number != self.number);
    }
}

impl State {
    fn new(hosts: usize, bytes_each: u64) -> State {
        State {
            running: Vec::new(),
            seats: 0,
            hosts,
            done: 0,
            failed: 0,
            bytes_each,
            total: Progress::default(),
            meter: Meter::default(),
        }
    }

    fn lines(&mut self, columns: usize, rows: usize, now: Instant) -> Vec<String> {
        let room = rows.saturating_sub(FREE_LINES + 1).max(1);
        let shown = if self.running.len() > room { room - 1 } else { self.running.len() };
        let name_columns = self.running.iter().map(|running| running.host.chars().count()).max().unwrap_or(0);
        let name_columns = name_columns.min(MAX_NAME_COLUMNS).min(columns / 2);
        let mut sent = self.bytes_each.saturating_mul(self.done as u64);
        let mut lines = Vec::new();
        for (index, running) in self.running.iter_mut().enumerate() {
            let view = running.meter.view(&running.progress, now);
            let figures = running.progress.figures();
            let upload = figures.iter().find(|figures| figures.phase == Phase::Upload);
            sent = sent.saturating_add(upload.map_or(0, |figures| figures.done.min(figures.total)));
            if index < shown {
                lines.push(host_line(&running.host, name_columns, running.doing, view.as_ref(), columns));
            }
        }
        if shown < self.running.len() {
            lines.push(cut(&format!("… and {} more", self.running.len() - shown), columns));
        }
        lines.push(cut(&self.total_line(sent, now), columns));
        lines
    }

    fn total_line(&mut self, sent: u64, now: Instant) -> String {
        let mut line = format!("{} of {} hosts done", self.done, self.hosts);
        if self.failed > 0 {
            // Writing to a String cannot fail.
            let _ = write!(line, ", {} failed", self.failed);
        }
        if self.bytes_each > 0 {
            let total = self.bytes_each.saturating_mul(self.hosts as u64);
            self.total.start(Phase::Upload, sent, total);
            if let Some(view) = self.meter.view(&self.total, now) {
                let _ = write!(line, ", {view}");
            }
        }
        line
    }
}

/// `web01  upload  [======>       ]  45 %  12.3 MiB/s  0:10 left`, or as much of it as fits.
fn host_line(host: &str, name_columns: usize, doing: &str, view: Option<&View>, columns: usize) -> String {
    let name = format!("{:<name_columns$}", cut(host, name_columns));
    let Some(view) = view else { return cut(&format!("{name}  {doing}"), columns) };
    let left = format!("{name}  {:<6}", view.phase.name());
    let share = percent(view.done, view.total);
    let rate = view.rate.map(|rate| human_rate(rate, Duration::from_secs(1))).unwrap_or_default();
    let time = view.left.map(|left| format!("{} left", clock(left))).unwrap_or_default();
    let right = format!("{share:>3} %  {rate:>11}  {time}");
    let taken = left.chars().count() + right.chars().count() + "  []  ".len();
    if columns >= taken + MIN_BAR_COLUMNS {
        let bar = bar(share, (columns - taken).min(MAX_BAR_COLUMNS));
        return cut(format!("{left}  [{bar}]  {right}").trim_end(), columns);
    }
    cut(format!("{left}  {share:>3} %  {rate}  {time}").trim_end(), columns)
}

fn bar(share: u64, columns: usize) -> String {
    let full = usize::try_from(share.min(100)).unwrap_or(100) * columns / 100;
    let head = if full < columns { ">" } else { "" };
    format!("{:<columns$}", format!("{}{head}", "=".repeat(full)))
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // It is only shown.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(hosts: usize, running: usize) -> Arc<Mutex<State>> {
        let mut state = State::new(hosts, 1000);
        for number in 0..running {
            let host = format!("web{number:02}");
            state.running.push(Running {
                number,
                host,
                doing: "connecting",
                progress: Arc::default(),
                meter: Meter::default(),
            });
        }
        Arc::new(Mutex::new(state))
    }

    #[test]
    fn every_running_host_has_a_line_and_all_have_one() {
        let state = state(20, 2);
        let (mut state, start) = (lock(&state), Instant::now());
        state.running[0].progress.start(Phase::Upload, 0, 1000);
        state.lines(60, 24, start);
        state.running[0].progress.advance(Phase::Upload, 450);
        state.done = 3;
        state.failed = 1;
        assert_eq!(
            state.lines(60, 24, start + Duration::from_secs(1)),
            [
                "web00  upload  [=====>      ]   45 %      450 B/s  0:01 left",
                "web01  connecting",
                "3 of 20 hosts done, 1 failed, 3.4 KiB of 19.5 KiB, 17 %, 3.4",
            ]
        );
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_terminal() {
        for (columns, rows) in [(80, 24), (40, 10), (20, 5), (8, 2), (1, 1)] {
            let state = state(200, 200);
            let mut state = lock(&state);
            for running in &state.running {
                running.progress.start(Phase::Upload, 500, 1000);
            }
            let lines = state.lines(columns, rows, Instant::now());
            assert!(lines.len() <= rows.max(FREE_LINES + 1), "{columns}x{rows}: {}", lines.len());
            for line in &lines {
                assert!(line.chars().count() <= columns, "{columns}x{rows}: {line}");
            }
            if rows > 5 {
                assert!(lines[lines.len() - 2].contains("more"), "{lines:?}");
            }
        }
    }

    #[test]
    fn a_seat_that_is_left_has_no_line() {
        let board = Board { state: state(3, 0), screen: Arc::new(Screen::plain(true)), ticker: None };
        let seat = board.seat("web1");
        seat.progress().start(Phase::Upload, 500, 1000);
        assert_eq!(lock(&board.state).lines(80, 24, Instant::now()).len(), 2);
        drop(seat);
        board.ended(false);
        let lines = lock(&board.state).lines(80, 24, Instant::now());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("1 of 3 hosts done, 1000 B of 2.9 KiB"), "{lines:?}");
    }
}
