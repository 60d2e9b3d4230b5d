//! The record `<stem>.txt`: how far the merge has come.
//!
//! It is replaced by rename after the merged bytes are synced and before any chunk file
//! is removed, so it is never ahead of the data. Its last line repeats the chunk: a
//! record that was torn by a crash of the target has no such line.

use std::fmt;

use super::chunk::{ChunkSize, Geometry};
use super::escape::printable;
use super::run_id::RunId;

/// What stands in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    name: String,
    geometry: Geometry,
    merged: u64,
    generation: RunId,
}

/// Why bytes are no record to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// It ends too early, or something else was written into it.
    Torn,
    /// Another version of haul wrote it.
    OtherVersion,
    /// Its numbers contradict each other.
    Inconsistent,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordError::Torn => "the record is torn",
            RecordError::OtherVersion => "the record was written by another version of haul",
            RecordError::Inconsistent => "the record's numbers contradict each other",
        })
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// Bytes that no record exceeds; more need not be read.
    pub const MAX_BYTES: usize = 4096;

    /// `target_name` is the target's file name, `merged` the number of chunks in the
    /// merged file of `generation`. `None` when there are not that many chunks.
    pub fn new(target_name: &[u8], geometry: Geometry, merged: u64, generation: RunId) -> Option<Record> {
        (merged <= geometry.chunks()).then(|| Record {
            name: printable(target_name),
            geometry,
            merged,
            generation,
        })
    }

    /// The target's file name, escaped.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Must be the manifest's: a total size that was damaged within its last chunk is
    /// consistent in itself.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Chunks merged so far: the chunks 1 to this number.
    pub fn merged_chunks(&self) -> u64 {
        self.merged
    }

    /// Bytes merged so far.
    pub fn merged_bytes(&self) -> u64 {
        self.geometry.end(self.merged)
    }

    /// The merged file it speaks of is `merged.<generation>`.
    pub fn generation(&self) -> RunId {
        self.generation
    }

    /// The lines before `size:`, without the last line's end.
    pub(super) fn head(&self) -> String {
        format!("haul-record: {VERSION}\nname: {}", self.name)
    }

    /// The lines between `chunk:` and `end:`, without the last line's end.
    pub(super) fn tail(&self) -> String {
        let geometry = &self.geometry;
        format!(
            "total-size: {}\nchunks: {}\nchunk-size: {}\nmerged: {}",
            geometry.size(),
            geometry.chunks(),
            geometry.chunk_size().bytes(),
            self.generation
        )
    }

    /// Reads what `Display` writes, and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Record, RecordError> {
        if bytes.len() > Record::MAX_BYTES {
            return Err(RecordError::Torn);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Torn)?;
        let mut lines = text.split_inclusive('\n');
        let version = field(lines.next(), "haul-record")?;
        if version != VERSION {
            return Err(RecordError::OtherVersion);
        }
        let name = field(lines.next(), "name")?;
        let size = number(field(lines.next(), "size")?)?;
        let merged = number(field(lines.next(), "chunk")?)?;
        let total_size = number(field(lines.next(), "total-size")?)?;
        let chunks = number(field(lines.next(), "chunks")?)?;
        let chunk_size = number(field(lines.next(), "chunk-size")?)?;
        let generation = RunId::parse(field(lines.next(), "merged")?.as_bytes()).ok_or(RecordError::Torn)?;
        let end = number(field(lines.next(), "end")?)?;
        if lines.next().is_some() || name.chars().any(char::is_control) {
            return Err(RecordError::Torn);
        }

        let geometry = ChunkSize::new(chunk_size)
            .ok()
            .filter(|rounded| rounded.bytes() == chunk_size)
            .map(|chunk_size| Geometry::new(total_size, chunk_size))
            .ok_or(RecordError::Inconsistent)?;
        let consistent =
            chunks == geometry.chunks() && merged <= chunks && size == geometry.end(merged) && end == merged;
        if !consistent {
            return Err(RecordError::Inconsistent);
        }
        Ok(Record { name: name.to_owned(), geometry, merged, generation })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, merged) = (self.merged_bytes(), self.merged);
        writeln!(f, "{}\nsize: {size}\nchunk: {merged}\n{}\nend: {merged}", self.head(), self.tail())
    }
}

const VERSION: &str = "1";

/// The value of a whole line `key: value`.
fn field<'a>(line: Option<&'a str>, key: &str) -> Result<&'a str, RecordError> {
    line.and_then(|line| line.strip_suffix('\n'))
        .and_then(|line| line.strip_prefix(key))
        .and_then(|rest| rest.strip_prefix(": "))
        .ok_or(RecordError::Torn)
}

/// Decimal as `Display` writes it: no sign, no leading zero.
fn number(text: &str) -> Result<u64, RecordError> {
    let value: u64 = text.parse().map_err(|_| RecordError::Torn)?;
    if value.to_string() == text { Ok(value) } else { Err(RecordError::Torn) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(size: u64, chunk_size: u64, merged: u64, name: &[u8]) -> Record {
        let geometry = Geometry::new(size, ChunkSize::new(chunk_size).expect("a chunk size"));
        Record::new(name, geometry, merged.min(geometry.chunks()), RunId::from_random(0xabc))
            .expect("no more chunks than there are")
    }

    #[test]
    fn stands_as_documented() {
        assert_eq!(
            record(10_000, 4096, 2, b"img.\nqcow2").to_string(),
            "haul-record: 1\nname: img.\\x0aqcow2\nsize: 8192\nchunk: 2\ntotal-size: 10000\nchunks: 3\n\
             chunk-size: 4096\nmerged: 0000000000000abc\nend: 2\n"
        );
    }

    #[test]
    fn contradictions_are_found() {
        let good = record(10_000, 4096, 2, b"img").to_string();
        assert!(Record::parse(good.as_bytes()).is_ok());
        for (from, to, error) in [
            ("haul-record: 1\n", "haul-record: 2\n", RecordError::OtherVersion),
            ("size: 8192", "size: 8191", RecordError::Inconsistent),
            ("end: 2", "end: 3", RecordError::Inconsistent),
            ("chunks: 3", "chunks: 4", RecordError::Inconsistent),
            ("chunk-size: 4096", "chunk-size: 4097", RecordError::Inconsistent),
            ("chunk-size: 4096", "chunk-size: 0", RecordError::Inconsistent),
            ("chunk: 2", "chunk: 02", RecordError::Torn),
            ("chunk: 2", "chunk: -2", RecordError::Torn),
            ("name: img", "name: i\rmg", RecordError::Torn),
            ("end: 2\n", "end: 2\nend: 2\n", RecordError::Torn),
        ] {
            assert_eq!(Record::parse(good.replace(from, to).as_bytes()), Err(error), "{to}");
        }
        let ahead = good.replace("chunk: 2", "chunk: 4").replace("size: 8192", "size: 10000");
        assert_eq!(
            Record::parse(ahead.replace("end: 2", "end: 4").as_bytes()),
            Err(RecordError::Inconsistent)
        );
        assert_eq!(Record::new(b"x", Geometry::new(1, ChunkSize::DEFAULT), 2, RunId::from_random(0)), None);
    }

    proptest! {
        #[test]
        fn reads_what_it_writes_and_no_beginning_of_it(
            size: u64,
            chunk_size in ChunkSize::MIN..=ChunkSize::MAX,
            merged: u64,
            name in proptest::collection::vec(1u8.., 0..255),
        ) {
            let record = record(size, chunk_size, merged, &name);
            let bytes = record.to_string().into_bytes();
            prop_assert!(bytes.len() <= Record::MAX_BYTES);
            prop_assert_eq!(Record::parse(&bytes), Ok(record));
            for end in 0..bytes.len() {
                prop_assert_eq!(Record::parse(&bytes[..end]), Err(RecordError::Torn), "cut at {}", end);
            }
        }

        #[test]
        fn anything_may_stand_there(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Record::parse(&bytes).is_err());
        }

        #[test]
        fn one_damaged_byte_never_changes_how_far_it_has_come(position: prop::sample::Index, byte: u8) {
            let original = record(1 << 40, 10 << 20, 77, b"img.qcow2");
            let mut bytes = original.to_string().into_bytes();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            if let Ok(read) = Record::parse(&bytes) {
                prop_assert_eq!(read.merged_chunks(), original.merged_chunks());
                prop_assert_eq!(read.merged_bytes(), original.merged_bytes());
            }
        }
    }
}
