//! The manifest: which source the chunks in a temp directory were cut from.
//!
//! A text header, then one line a chunk: line n is the state of SHA-256 after chunk n,
//! and the last chunk's line is the SHA-256 of the whole file. Chunks are hashed in
//! order, so what is known is always a prefix, and a line's place follows from n.
//! Instead of SHA-256 it may be another method: then the header names it, and the version
//! is one that takes no such state for SHA-256's.

use std::fmt::Write;

use super::checksum::{Chain, ChainState, Checksum, Method};
use super::chunk::{ChunkSize, Geometry};
use super::digest::Digest;
use super::escape::{decode_line, encode_line};
use super::gmac::Key;
use super::identity::SourceIdentity;

/// Bytes of a chunk's line: 64 hexadecimal digits and a line feed.
pub const LINE_BYTES: u64 = 65;
/// More chunks than this are refused: a larger chunk size has to be chosen.
pub const MAX_CHUNKS: u64 = 200_000;
/// The largest manifest that is read.
pub const MAX_BYTES: u64 = MAX_CHUNKS * LINE_BYTES + MAX_HEADER_BYTES as u64;
const MAX_HEADER_BYTES: usize = 4096;
/// With SHA-256.
const FIRST_LINE: &str = "haul-manifest: 1";
/// With the method that its `checksum` line names.
const FIRST_LINE_OF_OTHER_METHODS: &str = "haul-manifest: 2";
const LAST_HEADER_LINE: &str = "chunk-lines:";

/// What stood at the target when the upload began. A resume that still finds it there
/// need not compare contents again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    Absent,
    /// Seconds since the epoch, as SFTP has them.
    Present {
        size: u64,
        modified: u32,
    },
}

impl Baseline {
    fn encode(self) -> String {
        match self {
            Baseline::Absent => "absent".to_owned(),
            Baseline::Present { size, modified } => format!("{size} {modified}"),
        }
    }

    fn parse(text: &str) -> Option<Baseline> {
        if text == "absent" {
            return Some(Baseline::Absent);
        }
        let (size, modified) = text.split_once(' ')?;
        Some(Baseline::Present { size: size.parse().ok()?, modified: modified.parse().ok()? })
    }
}

/// What a source is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDescription {
    /// The file's name without its directory.
    pub name: Vec<u8>,
    pub identity: SourceIdentity,
    /// Permission bits (07777).
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub source: SourceDescription,
    pub baseline: Baseline,
    method: Method,
    geometry: Geometry,
    lines: Vec<[u8; 32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestError {
    /// Cut off within its header, or not a manifest.
    Torn,
    /// Written by another version of haul.
    OtherVersion,
    /// Says things that cannot all be true.
    Inconsistent,
}

impl std::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ManifestError::Torn => "the manifest is torn",
            ManifestError::OtherVersion => "the manifest is of another version of haul",
            ManifestError::Inconsistent => "the manifest contradicts itself",
        })
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Of an upload that begins; nothing is hashed yet. The size is the identity's.
    pub fn new(
        source: SourceDescription,
        chunk_size: ChunkSize,
        baseline: Baseline,
        method: Method,
    ) -> Manifest {
        let geometry = Geometry::new(source.identity.size, chunk_size);
        Manifest { source, baseline, method, geometry, lines: Vec::new() }
    }

    pub fn method(&self) -> Method {
        self.method
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How many chunks, from the first, have been hashed.
    pub fn known(&self) -> u64 {
        self.lines.len() as u64
    }

    /// The chain as it stood before chunk `n`, to go on from; `None` when not known.
    pub fn chain_before(&self, n: u64) -> Option<Chain> {
        if n == 1 {
            return Some(Chain::new(self.method));
        }
        let state = ChainState { method: self.method, line: self.line(n.checked_sub(1)?)? };
        Chain::resume(state, self.geometry.end(n - 1))
    }

    /// Whether `chain`, having gone through chunk `n`, agrees with the manifest.
    pub fn agrees(&self, n: u64, chain: &Chain) -> bool {
        self.line(n).is_some_and(|line| self.line_of(n, chain) == Some(line))
    }

    /// Notes chunk `n`, the next unknown one, which `chain` has just gone through.
    /// Returns the line to be written, `None` if it is not that chunk's turn.
    pub fn note(&mut self, n: u64, chain: &Chain) -> Option<String> {
        if n != self.known() + 1 || n > self.geometry.chunks() {
            return None;
        }
        let line = self.line_of(n, chain)?;
        self.lines.push(line);
        Some(text_line(&line))
    }

    /// Of the whole file once the last chunk is known.
    pub fn checksum(&self) -> Option<Checksum> {
        match self.geometry.chunks() {
            0 => Some(Chain::new(self.method).finish()),
            last => self.line(last).map(|line| Checksum::from_line(self.method, line)),
        }
    }

    fn line(&self, n: u64) -> Option<[u8; 32]> {
        self.lines.get(usize::try_from(n.checked_sub(1)?).ok()?).copied()
    }

    fn line_of(&self, n: u64, chain: &Chain) -> Option<[u8; 32]> {
        if chain.hashed() != self.geometry.end(n) || chain.method() != self.method {
            return None;
        }
        if n == self.geometry.chunks() {
            return Some(chain.clone().finish().to_line());
        }
        chain.state().map(|state| state.line)
    }

    /// Where the line of chunk `n` stands in the file.
    pub fn line_offset(&self, n: u64) -> u64 {
        self.header().len() as u64 + (n - 1) * LINE_BYTES
    }

    fn header(&self) -> String {
        let name = encode_line(&self.source.name);
        let first_line = if self.method == Method::Sha256 { FIRST_LINE } else { FIRST_LINE_OF_OTHER_METHODS };
        format!(
            "{first_line}\nsource-name: {name}\nsource-identity: {}\nsource-mode: {:o}\ntarget-before: {}\nsize: {}\nchunk-size: {}\n{}{LAST_HEADER_LINE}\n",
            self.source.identity,
            self.source.mode,
            self.baseline.encode(),
            self.geometry.size(),
            self.geometry.chunk_size().bytes(),
            method_line(self.method),
        )
    }

    pub fn encode(&self) -> String {
        let mut text = self.header();
        self.lines.iter().for_each(|line| text.push_str(&text_line(line)));
        text
    }

    /// A last line that was cut off counts as not there.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let end_of_header = format!("\n{LAST_HEADER_LINE}\n");
        let looked_at = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
        let first_line = looked_at.split(|b| *b == b'\n').next().unwrap_or_default();
        let other_method = first_line == FIRST_LINE_OF_OTHER_METHODS.as_bytes();
        if first_line != FIRST_LINE.as_bytes() && !other_method {
            let other = first_line.starts_with(b"haul-manifest: ") && looked_at.contains(&b'\n');
            return Err(if other { ManifestError::OtherVersion } else { ManifestError::Torn });
        }
        let header_end = looked_at
            .windows(end_of_header.len())
            .position(|window| window == end_of_header.as_bytes())
            .ok_or(ManifestError::Torn)?;
        let header = std::str::from_utf8(&looked_at[..header_end]).map_err(|_| ManifestError::Torn)?;
        let field = |key: &str| {
            header
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .ok_or(ManifestError::Inconsistent)
        };
        let name = decode_line(field("source-name")?).ok_or(ManifestError::Inconsistent)?;
        let identity = SourceIdentity::parse(field("source-identity")?).ok_or(ManifestError::Inconsistent)?;
        let mode =
            u32::from_str_radix(field("source-mode")?, 8).map_err(|_| ManifestError::Inconsistent)? & 0o7777;
        let baseline = Baseline::parse(field("target-before")?).ok_or(ManifestError::Inconsistent)?;
        let size: u64 = field("size")?.parse().map_err(|_| ManifestError::Inconsistent)?;
        let chunk_bytes: u64 = field("chunk-size")?.parse().map_err(|_| ManifestError::Inconsistent)?;
        let chunk_size = ChunkSize::new(chunk_bytes).map_err(|_| ManifestError::Inconsistent)?;
        let method = match other_method {
            true => parse_method(field("checksum")?).ok_or(ManifestError::Inconsistent)?,
            false => Method::Sha256,
        };
        let description = SourceDescription { name, identity, mode };
        let mut manifest = Manifest::new(description, chunk_size, baseline, method);
        if size != identity.size || chunk_size.bytes() != chunk_bytes {
            return Err(ManifestError::Inconsistent);
        }
        for line in bytes[header_end + end_of_header.len()..].chunks_exact(LINE_BYTES as usize) {
            let (digits, line_feed) = line.split_at(64);
            // Bytes that never reached the disk read as zeros: what follows is not known.
            let Some(digest) = Digest::parse(digits).filter(|_| line_feed == b"\n") else { break };
            if manifest.known() == manifest.geometry.chunks() {
                return Err(ManifestError::Inconsistent);
            }
            manifest.lines.push(digest.0);
        }
        Ok(manifest)
    }
}

/// Nothing for SHA-256, as in version 1.
fn method_line(method: Method) -> String {
    match method {
        Method::Sha256 => String::new(),
        Method::Crc => "checksum: crc\n".to_owned(),
        Method::Gmac(key) => format!("checksum: gmac-aes128 {}\n", key.to_hex()),
    }
}

fn parse_method(text: &str) -> Option<Method> {
    match text.split_once(' ') {
        None => (text == "crc").then_some(Method::Crc),
        Some(("gmac-aes128", key)) => Key::parse(key.as_bytes()).map(Method::Gmac),
        Some(_) => None,
    }
}

fn text_line(line: &[u8; 32]) -> String {
    let mut text = String::with_capacity(65);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", Digest(*line));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(size: u64) -> SourceDescription {
        SourceDescription {
            name: b"im\ng.qcow2".to_vec(),
            identity: SourceIdentity { device: 1, inode: 2, size, modified_ns: 3, changed_ns: 4 },
            mode: 0o644,
        }
    }

    const METHODS: [Method; 3] = [Method::Sha256, Method::Gmac(Key([0xa5; 16])), Method::Crc];

    fn filled(data: &[u8]) -> Manifest {
        filled_by(Method::Sha256, data)
    }

    fn filled_by(method: Method, data: &[u8]) -> Manifest {
        let chunk_size = ChunkSize::new(4096).expect("a size");
        let mut manifest = Manifest::new(
            description(data.len() as u64),
            chunk_size,
            Baseline::Present { size: 1, modified: 2 },
            method,
        );
        let mut chain = Chain::new(method);
        for n in 1..=manifest.geometry().chunks() {
            let range = manifest.geometry().range(n);
            chain.update(&data[range.start as usize..range.end as usize]);
            assert!(manifest.note(n, &chain).is_some());
        }
        manifest
    }

    #[test]
    fn reads_what_it_writes() {
        let data = vec![7; 10_000];
        for method in METHODS {
            let manifest = filled_by(method, &data);
            let text = manifest.encode();
            assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest.clone()));
            let mut whole = Chain::new(method);
            whole.update(&data);
            assert_eq!(manifest.checksum(), Some(whole.finish()));
            assert_eq!(text.len() as u64, manifest.line_offset(4));
        }
    }

    #[test]
    fn a_cut_leaves_a_prefix_or_is_told() {
        let manifest = filled(&[7; 10_000]);
        let text = manifest.encode();
        for cut in 0..text.len() {
            match Manifest::parse(&text.as_bytes()[..cut]) {
                Ok(part) => {
                    assert!(part.known() < 3);
                    assert_eq!(part.lines[..], manifest.lines[..part.lines.len()]);
                }
                Err(error) => {
                    assert_eq!(error, ManifestError::Torn, "cut at {cut}");
                    assert!((cut as u64) < manifest.line_offset(1));
                }
            }
        }
    }

    #[test]
    fn zeros_at_the_end_are_not_believed() {
        let manifest = filled(&[7; 10_000]);
        let mut text = manifest.encode().into_bytes();
        let from = manifest.line_offset(2) as usize;
        text[from..].fill(0);
        assert_eq!(Manifest::parse(&text).map(|m| m.known()), Ok(1));
    }

    #[test]
    fn each_chunk_is_proven_on_its_own() {
        let mut data = vec![7; 10_000];
        let manifests = METHODS.map(|method| filled_by(method, &data));
        data[5000] = 8;
        for manifest in manifests {
            let agrees: Vec<bool> = (1..=3)
                .map(|n| {
                    let range = manifest.geometry().range(n);
                    let mut chain = manifest.chain_before(n).expect("known");
                    chain.update(&data[range.start as usize..range.end as usize]);
                    manifest.agrees(n, &chain)
                })
                .collect();
            assert_eq!(agrees, [true, false, true], "{:?}", manifest.method());
        }
    }

    #[test]
    fn other_versions_and_nonsense() {
        assert_eq!(Manifest::parse(b"haul-manifest: 3\n"), Err(ManifestError::OtherVersion));
        assert_eq!(Manifest::parse(b""), Err(ManifestError::Torn));
        let text = filled(&[7; 100]).encode();
        let lying = text.replace("size: 100", "size: 101");
        assert_eq!(Manifest::parse(lying.as_bytes()), Err(ManifestError::Inconsistent));
        let too_many = format!("{text}{}\n", "0".repeat(64));
        assert_eq!(Manifest::parse(too_many.as_bytes()), Err(ManifestError::Inconsistent));
    }

    #[test]
    fn only_another_method_takes_the_second_version() {
        let data = [7; 10_000];
        assert!(filled(&data).encode().starts_with("haul-manifest: 1\n"));
        let text = filled_by(METHODS[1], &data).encode();
        assert!(text.starts_with("haul-manifest: 2\n"));
        for wrong in ["checksum: gmac-aes128 a5", "checksum: md5", "checksum: crc 1", "sum: crc"] {
            let key = format!("checksum: gmac-aes128 {}", "a5".repeat(16));
            let text = text.replace(&key, wrong);
            assert_eq!(Manifest::parse(text.as_bytes()), Err(ManifestError::Inconsistent), "{wrong}");
        }
        // What another method came to proves nothing here.
        let mut manifest = filled_by(METHODS[1], &[]);
        assert_eq!(manifest.note(1, &Chain::new(Method::Sha256)), None);
    }

    #[test]
    fn an_empty_file_has_a_checksum_and_no_lines() {
        let manifest = filled(&[]);
        assert_eq!(manifest.checksum(), Some(Chain::new(Method::Sha256).finish()));
        assert_eq!(Manifest::parse(manifest.encode().as_bytes()), Ok(manifest));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = Manifest::parse(&bytes);
            let mut text = filled(&[7; 9000]).encode().into_bytes();
            for (i, byte) in bytes.iter().enumerate() {
                let at = (i * 31) % text.len();
                text[at] = *byte;
            }
            let _ = Manifest::parse(&text);
        }
    }
}
