//! Standard error: one progress bar at most, and lines above it.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::progress::View;

/// At most this many redraws a second.
const REDRAWS_A_SECOND: u8 = 10;

/// Where lines and the bar go, so that neither breaks the other.
pub struct Screen {
    bar: ProgressBar,
    quiet: bool,
    verbose: bool,
    /// The details that have been said.
    said: Mutex<HashSet<String>>,
}

impl Screen {
    /// Only lines, of those no remarks when `quiet`.
    pub fn plain(quiet: bool) -> Screen {
        Screen { bar: ProgressBar::hidden(), quiet, verbose: false, said: Mutex::default() }
    }

    /// With a bar, which shows once there is something to show.
    pub fn with_bar() -> Screen {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{wide_bar}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Screen { bar, quiet: false, verbose: false, said: Mutex::default() }
    }

    /// Shows details too.
    #[must_use]
    pub fn verbose(self, verbose: bool) -> Screen {
        Screen { verbose: verbose && !self.quiet, ..self }
    }

    pub fn show(&self, host: &str, view: &View) {
        if self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_A_SECOND));
        }
        self.bar.set_length(view.total);
        self.bar.set_position(view.done);
        self.bar.set_prefix(format!("{host} {}", view.phase.name()));
        self.bar.set_message(view.to_string());
    }

    /// Takes the bar away for good.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Without a standard error there is nobody to tell.
    pub fn line(&self, text: &str) {
        self.suspended(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }

    /// A line that `-q` leaves out.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// A line for `-v`, the first time that it is said.
    pub fn detail_once(&self, text: &str) {
        let is_new = self.said.lock().is_ok_and(|mut said| said.insert(text.to_owned()));
        if self.verbose && is_new {
            self.line(text);
        }
    }

    /// Does `work` while the bar is away.
    pub fn suspended<R>(&self, work: impl FnOnce() -> R) -> R {
        self.bar.suspend(work)
    }
}
