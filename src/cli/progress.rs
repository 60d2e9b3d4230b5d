//! How far a job has come: counters that many tasks push, and a meter that reads them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::failure::Phase;
use crate::engine::monitor::UNKNOWN_TOTAL;
use crate::model::units::{clock, human_rate, human_size};

/// Phases with bytes to go through, the one a person wants to see first in front. Merge
/// and upload run together; the upload is what there is to wait for.
const SHOWN: [Phase; 4] = [Phase::Upload, Phase::Merge, Phase::Verify, Phase::Hash];

/// A rate is taken over so long a time.
const RATE_WINDOW: Duration = Duration::from_secs(8);
/// And never over less, which would be noise.
const MIN_RATE_WINDOW: Duration = Duration::from_millis(400);
/// Samples kept in the window.
const MAX_SAMPLES: usize = 100;

#[derive(Debug, Default)]
struct Counter {
    started: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

/// Pushed by the engine's tasks, without a lock.
#[derive(Debug, Default)]
pub struct Progress {
    counters: [Counter; SHOWN.len()],
}

/// One phase's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub phase: Phase,
    pub done: u64,
    pub total: u64,
}

impl Progress {
    pub fn start(&self, phase: Phase, done: u64, total: u64) {
        if let Some(counter) = self.counter(phase) {
            counter.total.store(total, Ordering::Relaxed);
            counter.done.store(done, Ordering::Relaxed);
            counter.started.store(true, Ordering::Release);
        }
    }

    pub fn advance(&self, phase: Phase, bytes: u64) {
        if let Some(counter) = self.counter(phase) {
            counter.done.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Every phase that has begun.
    pub fn figures(&self) -> Vec<Figures> {
        let begun =
            SHOWN.iter().zip(&self.counters).filter(|(_, counter)| counter.started.load(Ordering::Acquire));
        begun
            .map(|(phase, counter)| Figures {
                phase: *phase,
                done: counter.done.load(Ordering::Relaxed),
                total: counter.total.load(Ordering::Relaxed),
            })
            .collect()
    }

    fn counter(&self, phase: Phase) -> Option<&Counter> {
        SHOWN.iter().position(|shown| *shown == phase).and_then(|index| self.counters.get(index))
    }
}

/// What to show now: the phase there is to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub phase: Phase,
    pub done: u64,
    pub total: u64,
    /// Bytes a second, once it can be told.
    pub rate: Option<u64>,
    pub left: Option<Duration>,
    /// The merge beside the upload, in percent.
    pub merged_percent: Option<u64>,
}

/// `1.2 GiB of 5.0 GiB, 24 %, 312 MiB/s, 0:12 left, merged 40 %`
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", human_size(self.done))?;
        // Nobody knows what a pipe will yield.
        if self.total != UNKNOWN_TOTAL {
            write!(f, " of {}, {} %", human_size(self.total), percent(self.done, self.total))?;
        }
        if let Some(rate) = self.rate {
            write!(f, ", {}", human_rate(rate, Duration::from_secs(1)))?;
        }
        if let Some(left) = self.left {
            write!(f, ", {} left", clock(left))?;
        }
        if let Some(merged) = self.merged_percent {
            write!(f, ", merged {merged} %")?;
        }
        Ok(())
    }
}

pub fn percent(done: u64, total: u64) -> u64 {
    if total == 0 {
        return 100;
    }
    u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(100)
}

/// Looks at the counters now and then, and knows the rate.
#[derive(Debug, Default)]
pub struct Meter {
    phase: Option<Phase>,
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// `None` as long as no phase has begun.
    pub fn view(&mut self, progress: &Progress, now: Instant) -> Option<View> {
        let figures = progress.figures();
        let unfinished = figures.iter().find(|figures| figures.done < figures.total);
        let kept = || figures.iter().find(|figures| Some(figures.phase) == self.phase);
        let Figures { phase, done, total } = *unfinished.or_else(kept).or(figures.first())?;
        let went_back = self.samples.back().is_some_and(|(_, last)| done < *last);
        if self.phase != Some(phase) || went_back {
            self.phase = Some(phase);
            self.samples.clear();
        }
        while self.samples.len() >= MAX_SAMPLES
            || self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((now, done));
        let rate = self.rate();
        let left = rate
            .filter(|rate| *rate > 0 && total != UNKNOWN_TOTAL)
            .map(|rate| Duration::from_secs(total.saturating_sub(done) / rate));
        let merge = figures.iter().find(|figures| figures.phase == Phase::Merge && phase == Phase::Upload);
        let merged_percent = merge.map(|merge| percent(merge.done, merge.total));
        Some(View { phase, done: done.min(total), total, rate, left, merged_percent })
    }

    fn rate(&self) -> Option<u64> {
        let ((from, first), (to, last)) = (self.samples.front()?, self.samples.back()?);
        let time = to.saturating_duration_since(*from);
        if time < MIN_RATE_WINDOW {
            return None;
        }
        let rate = u128::from(last.saturating_sub(*first)) * 1000 / time.as_millis().max(1);
        u64::try_from(rate).ok()
    }
}

/// Calls something again and again until it is dropped. It has a thread of its own, so
/// that a busy runtime does not make the bar stand still.
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub fn start(interval: Duration, mut tick: impl FnMut() + Send + 'static) -> Ticker {
        let (stop, stopped) = channel::<()>();
        let run = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        };
        // Without a thread there is no progress to see, and nothing else is missing.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(run).ok();
        Ticker { stop: Some(stop), thread }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_upload_is_shown_with_the_merge_beside_it() {
        let (progress, mut meter, start) = (Progress::default(), Meter::default(), Instant::now());
        assert_eq!(meter.view(&progress, start), None);
        progress.start(Phase::Hash, 0, 1000);
        assert_eq!(meter.view(&progress, start).map(|view| view.phase), Some(Phase::Hash));
        progress.start(Phase::Upload, 200, 1000);
        progress.start(Phase::Merge, 0, 1000);
        meter.view(&progress, start);
        progress.advance(Phase::Upload, 300);
        progress.advance(Phase::Merge, 400);
        let view = meter.view(&progress, at(start, 1000)).expect("a view");
        assert_eq!((view.phase, view.done, view.rate), (Phase::Upload, 500, Some(300)));
        assert_eq!(view.left, Some(Duration::from_secs(1)));
        assert_eq!(view.to_string(), "500 B of 1000 B, 50 %, 300 B/s, 0:01 left, merged 40 %");
        progress.advance(Phase::Upload, 500);
        let view = meter.view(&progress, at(start, 2000)).expect("a view");
        assert_eq!((view.phase, view.rate), (Phase::Merge, None), "the rate is the new phase's own");
    }

    #[test]
    fn what_was_there_already_is_no_rate() {
        let (progress, mut meter, start) = (Progress::default(), Meter::default(), Instant::now());
        progress.start(Phase::Upload, 1 << 40, 1 << 41);
        meter.view(&progress, start);
        progress.advance(Phase::Upload, 1000);
        assert_eq!(meter.view(&progress, at(start, 1000)).and_then(|view| view.rate), Some(1000));
        // A retry begins the phase anew, further back.
        progress.start(Phase::Upload, 0, 1 << 41);
        assert_eq!(meter.view(&progress, at(start, 2000)).and_then(|view| view.rate), None);
    }

    #[test]
    fn a_stalled_link_shows() {
        let (progress, mut meter, start) = (Progress::default(), Meter::default(), Instant::now());
        progress.start(Phase::Upload, 0, 1000);
        meter.view(&progress, start);
        progress.advance(Phase::Upload, 500);
        for second in 1..=20 {
            meter.view(&progress, at(start, second * 1000));
        }
        let view = meter.view(&progress, at(start, 21_000)).expect("a view");
        assert_eq!((view.rate, view.left), (Some(0), None));
    }

    #[test]
    fn an_empty_file_is_done() {
        let (progress, mut meter) = (Progress::default(), Meter::default());
        progress.start(Phase::Upload, 0, 0);
        let view = meter.view(&progress, Instant::now()).expect("a view");
        assert_eq!(view.to_string(), "0 B of 0 B, 100 %");
    }

    #[test]
    fn a_ticker_ends_with_its_owner() {
        let (sender, receiver) = channel();
        let ticker = Ticker::start(Duration::from_millis(1), move || {
            let _ = sender.send(());
        });
        receiver.recv().expect("a tick");
        drop(ticker);
        while receiver.try_recv().is_ok() {}
        assert!(receiver.recv().is_err(), "the closure is gone");
    }
}
