//! Output of several hosts on one descriptor: whole lines, each with its host in front.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use super::output::{Stream, write_all};
use crate::cli::screen::Screen;
use crate::model::escape::printable;

/// A longer line is cut into several, so that one without an end needs no end of memory.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// One line after another, whichever stream and host it is of.
static ONE_WRITER: Mutex<()> = Mutex::new(());

pub struct HostLines {
    lines: Lines,
    descriptor: Arc<OwnedFd>,
    screen: Arc<Screen>,
}

impl HostLines {
    pub fn new(host: &str, stream: Stream, screen: Arc<Screen>) -> io::Result<HostLines> {
        let prefix = format!("{}: ", printable(host.as_bytes())).into_bytes();
        let lines = Lines { prefix, unfinished: Vec::new() };
        Ok(HostLines { lines, descriptor: stream.descriptor()?, screen })
    }

    pub async fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        let text = self.lines.take(piece);
        self.write(text).await
    }

    /// What came without the end of a line gets one.
    pub async fn finish(&mut self) -> io::Result<()> {
        let text = self.lines.finish();
        self.write(text).await
    }

    async fn write(&self, text: Vec<u8>) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let (descriptor, screen) = (self.descriptor.clone(), self.screen.clone());
        let write = move || {
            let _one = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);
            screen.suspended(|| write_all(&descriptor, &text))
        };
        spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

struct Lines {
    prefix: Vec<u8>,
    unfinished: Vec<u8>,
}

impl Lines {
    /// The lines that are whole now.
    fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            for part in part.chunks(MAX_LINE_BYTES) {
                if self.unfinished.len() + part.len() > MAX_LINE_BYTES + 1 {
                    text.extend(self.finish());
                }
                self.unfinished.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    text.extend(self.finish());
                }
            }
        }
        text
    }

    fn finish(&mut self) -> Vec<u8> {
        if self.unfinished.is_empty() {
            return Vec::new();
        }
        let mut line = self.prefix.clone();
        line.append(&mut self.unfinished);
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines() -> Lines {
        Lines { prefix: b"h: ".to_vec(), unfinished: Vec::new() }
    }

    #[test]
    fn only_whole_lines_come_out() {
        let mut lines = lines();
        assert_eq!(lines.take(b"on"), b"");
        assert_eq!(lines.take(b"e\n\ntw"), b"h: one\nh: \n");
        assert_eq!(lines.finish(), b"h: tw\n");
        assert_eq!(lines.finish(), b"");
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lines = lines();
        let mut text = Vec::new();
        for _ in 0..5 {
            text.extend(lines.take(&[b'x'; 40_000]));
            assert!(lines.unfinished.len() <= MAX_LINE_BYTES + 1);
        }
        text.extend(lines.finish());
        assert_eq!(text.iter().filter(|byte| **byte == b'x').count(), 200_000);
        assert!(text.split(|byte| *byte == b'\n').all(|line| line.is_empty() || line.starts_with(b"h: ")));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
                                cut in 0usize..200) {
            let cut = cut.min(text.len());
            let (mut one, mut two) = (lines(), lines());
            let whole = [one.take(&text), one.finish()].concat();
            let parts = [two.take(&text[..cut]), two.take(&text[cut..]), two.finish()].concat();
            prop_assert_eq!(whole, parts);
        }
    }
}
