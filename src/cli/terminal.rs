//! The monitor for people: a bar where standard error is a terminal, else a line every
//! few seconds; notices and retries as lines.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::args::output::OutputArgs;
use super::fleet::board::Seat;
use super::progress::{Meter, Progress, Ticker};
use super::screen::Screen;
use crate::engine::failure::{Failure, Phase};
use crate::engine::monitor::{Level, Monitor, Notice};
use crate::model::escape::printable;
use crate::model::units::human_duration;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Looks between two lines, so that the first one has a rate already.
const LOOKS_A_LINE: u32 = 10;

/// The least that is shown.
fn threshold(output: &OutputArgs) -> Level {
    match (output.quiet, output.verbose) {
        (true, _) => Level::Warning,
        (false, 0) => Level::Info,
        (false, _) => Level::Detail,
    }
}

pub fn wants_bar(output: &OutputArgs) -> bool {
    !output.quiet && !output.json && std::io::stderr().is_terminal()
}

pub struct TerminalMonitor {
    screen: Arc<Screen>,
    progress: Arc<Progress>,
    threshold: Level,
    /// Shows the progress as long as the monitor lives.
    _ticker: Option<Ticker>,
}

impl TerminalMonitor {
    pub fn new(screen: Arc<Screen>, host: &str, output: &OutputArgs) -> TerminalMonitor {
        let progress = Arc::new(Progress::default());
        let host = printable(host.as_bytes());
        let ticker = (!output.quiet).then(|| ticker(&screen, &progress, &host, wants_bar(output)));
        TerminalMonitor { screen, progress, threshold: threshold(output), _ticker: ticker }
    }
}

impl TerminalMonitor {
    /// One of several hosts: how far it has come is shown elsewhere, if at all.
    pub fn in_fleet(screen: Arc<Screen>, seat: Option<&Seat>, output: &OutputArgs) -> TerminalMonitor {
        let progress = seat.map(Seat::progress).unwrap_or_default();
        TerminalMonitor { screen, progress, threshold: threshold(output), _ticker: None }
    }
}

fn ticker(screen: &Arc<Screen>, progress: &Arc<Progress>, host: &str, bar: bool) -> Ticker {
    let (screen, progress, host) = (screen.clone(), progress.clone(), host.to_owned());
    let mut meter = Meter::default();
    if bar {
        return Ticker::start(BAR_INTERVAL, move || {
            if let Some(view) = meter.view(&progress, Instant::now()) {
                screen.show(&host, &view);
            }
        });
    }
    let mut looks = 0;
    Ticker::start(LINE_INTERVAL / LOOKS_A_LINE, move || {
        let view = meter.view(&progress, Instant::now());
        looks = (looks + 1) % LOOKS_A_LINE;
        if let Some(view) = view.filter(|_| looks == 0) {
            screen.line(&format!("haul: {host}: {} {view}", view.phase.name()));
        }
    })
}

impl Monitor for TerminalMonitor {
    fn phase(&self, phase: Phase, done: u64, total: u64) {
        self.progress.start(phase, done, total);
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        self.progress.advance(phase, bytes);
    }

    fn notice(&self, notice: Notice) {
        if notice.level >= self.threshold {
            let warning = if notice.level == Level::Warning { "warning: " } else { "" };
            self.screen.line(&format!("haul: {warning}{}", notice.text));
        }
    }

    fn retry(&self, failure: &Failure, attempt: u32, limit: u32, pause: Duration) {
        if self.threshold <= Level::Info {
            let pause = human_duration(pause);
            self.screen.line(&format!("haul: {failure}; trying again in {pause} ({attempt} of {limit})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_and_verbose_choose_what_is_shown() {
        let output = |quiet, verbose| OutputArgs { json: false, quiet, verbose };
        assert_eq!(threshold(&output(true, 2)), Level::Warning);
        assert_eq!(threshold(&output(false, 0)), Level::Info);
        assert_eq!(threshold(&output(false, 1)), Level::Detail);
    }
}
