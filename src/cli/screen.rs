//! Standard error: a progress bar or a few lines that change, and lines above them that
//! stay.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::progress::View;

/// At most this many redraws a second.
const REDRAWS_A_SECOND: u8 = 10;
/// Of a terminal that does not tell its size.
const USUAL_COLUMNS: usize = 80;
const USUAL_ROWS: usize = 24;

/// Where lines and the bar go, so that neither breaks the other.
pub struct Screen {
    bar: ProgressBar,
    lines: Option<Lines>,
    quiet: bool,
    verbose: bool,
    /// The details that have been said.
    said: Mutex<HashSet<String>>,
}

/// Lines that change, one below the other.
struct Lines {
    all: MultiProgress,
    each: Mutex<Vec<ProgressBar>>,
}

impl Screen {
    /// Only lines that stay, of those no remarks when `quiet`.
    pub fn plain(quiet: bool) -> Screen {
        Screen { bar: ProgressBar::hidden(), lines: None, quiet, verbose: false, said: Mutex::default() }
    }

    /// With a bar, which shows once there is something to show.
    pub fn with_bar() -> Screen {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{wide_bar}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Screen { bar, ..Screen::plain(false) }
    }

    /// With as many lines as [`Screen::show_lines`] wants.
    pub fn with_lines() -> Screen {
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_A_SECOND);
        let all = MultiProgress::with_draw_target(target);
        Screen { lines: Some(Lines { all, each: Mutex::default() }), ..Screen::plain(false) }
    }

    pub fn shows_lines(&self) -> bool {
        self.lines.is_some()
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

    /// These in place of those shown before. None may be wider than the terminal.
    pub fn show_lines(&self, texts: &[String]) {
        let Some(lines) = &self.lines else { return };
        let mut each = lines.each.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(surplus) = (each.len() > texts.len()).then(|| each.pop()).flatten() {
            surplus.finish_and_clear();
            lines.all.remove(&surplus);
        }
        while each.len() < texts.len() {
            let line = ProgressBar::no_length();
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            each.push(lines.all.add(line));
        }
        for (line, text) in each.iter().zip(texts) {
            line.set_message(text.clone());
        }
    }

    /// Columns and rows of the terminal.
    pub fn size(&self) -> (usize, usize) {
        match rustix::termios::tcgetwinsize(std::io::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (USUAL_COLUMNS, USUAL_ROWS),
        }
    }

    /// Takes away for good all that changes.
    pub fn clear(&self) {
        self.show_lines(&[]);
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

    /// Does `work` while what changes is away.
    pub fn suspended<R>(&self, work: impl FnOnce() -> R) -> R {
        match &self.lines {
            Some(lines) => lines.all.suspend(work),
            None => self.bar.suspend(work),
        }
    }
}
