//! Questions to the person at the terminal, by /dev/tty, so that standard input, output
//! and errors may be anything.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Mutex;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// No answer is longer than this.
const MAX_ANSWER_BYTES: usize = 4096;

/// The terminal's settings before echo was switched off, while a question is open: who
/// leaves in the middle of one puts them back.
static BEFORE_QUESTION: Mutex<Option<Termios>> = Mutex::new(None);

/// One question at a time, also between several hosts.
static ONE_QUESTION: Mutex<()> = Mutex::new(());

/// Whether there is a terminal to ask at.
pub fn exists() -> bool {
    open().is_some()
}

fn open() -> Option<File> {
    File::options().read(true).write(true).open("/dev/tty").ok()
}

/// Whether a question is open, so that an interrupt has nothing to stop but it.
pub fn is_asking() -> bool {
    ONE_QUESTION.try_lock().is_err()
}

/// Puts back what a question changed.
fn restore() {
    let before = BEFORE_QUESTION.lock().ok().and_then(|mut before| before.take());
    if let (Some(tty), Some(before)) = (open(), before) {
        let _ = tcsetattr(&tty, OptionalActions::Now, &before);
    }
}

/// As [`restore`], and ends the line of the question.
pub fn abandon() {
    restore();
    if let Some(mut tty) = open() {
        let _ = tty.write_all(b"\n");
    }
}

/// One line, without its end. `None` when there is no terminal, or it was closed (Ctrl-D).
/// `question` has to be escaped already.
pub fn ask(question: &str, echo: bool) -> Option<Zeroizing<String>> {
    let _one = ONE_QUESTION.lock().ok()?;
    let mut tty = open()?;
    if echo {
        tty.write_all(question.as_bytes()).ok()?;
        return read_line(&mut tty);
    }
    let before = tcgetattr(&tty).ok()?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    if let Ok(mut saved) = BEFORE_QUESTION.lock() {
        *saved = Some(before);
    }
    // A secret is never read with echo on. The question comes after the flush: what is typed
    // as soon as it shows is its answer, and must not be dropped.
    let answer = match tcsetattr(&tty, OptionalActions::Flush, &silent) {
        Ok(()) if tty.write_all(question.as_bytes()).is_ok() => read_line(&mut tty),
        _ => None,
    };
    restore();
    answer
}

fn read_line(tty: &mut File) -> Option<Zeroizing<String>> {
    // The capacity is fixed, so that no copy of a secret is left behind by growing.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
    let mut byte = Zeroizing::new([0u8; 1]);
    loop {
        match tty.read(&mut *byte) {
            Ok(0) if line.is_empty() => return None,
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() < MAX_ANSWER_BYTES => line.push(byte[0]),
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    std::str::from_utf8(&line).ok().map(|text| Zeroizing::new(text.to_owned()))
}
