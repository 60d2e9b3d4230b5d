//! This side's terminal while the program has it: raw, and put back whatever happens.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::remote::process::Terminal;

/// What a terminal is called where nobody says.
const DEFAULT_TERM: &str = "xterm";
const DEFAULT_SIZE: (u32, u32) = (80, 24);

static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// What the program's terminal has to be like.
pub fn terminal() -> Terminal {
    let (columns, rows) = size().unwrap_or(DEFAULT_SIZE);
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
    Terminal { term: term.unwrap_or_else(|| DEFAULT_TERM.to_owned()), columns, rows }
}

/// Columns and rows of this side's terminal, if it has one.
pub fn size() -> Option<(u32, u32)> {
    let size = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// Raw until dropped.
pub struct Raw(());

impl Raw {
    /// Does nothing where standard input is no terminal.
    pub fn enter() -> io::Result<Raw> {
        if let Ok(before) = tcgetattr(io::stdin().as_fd()) {
            let mut raw = before.clone();
            raw.make_raw();
            if let Ok(mut slot) = BEFORE.lock() {
                *slot = Some(before);
            }
            tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &raw)?;
        }
        Ok(Raw(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// For every way out that drops nothing.
pub fn restore() {
    let before = BEFORE.lock().ok().and_then(|mut before| before.take());
    if let Some(before) = before {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Drain, &before);
    }
}
