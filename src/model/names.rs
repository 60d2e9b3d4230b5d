//! Every name that haul uses beside a target. FORMAT.md lists them.

use std::fmt;

use super::digest::{Digest, Sha256Chain};
use super::remote_path::RemotePath;
use super::run_id::RunId;

/// The longest name that nearly every file system takes, in bytes.
const NAME_MAX: usize = 255;

/// Who uploads: part of the names on the target, so it has no `/` and no control byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserId(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIdError(&'static str);

impl fmt::Display for UserIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UserIdError {}

impl UserId {
    pub const MAX_BYTES: usize = 64;

    pub fn new(text: &str) -> Result<UserId, UserIdError> {
        let problem = if text.is_empty() {
            "a user id cannot be empty"
        } else if text.len() > UserId::MAX_BYTES {
            "a user id has at most 64 bytes"
        } else if text.contains('/') {
            "a user id cannot contain '/'"
        } else if text.contains(':') {
            "a user id cannot contain ':', which separates it from the target's name"
        } else if text.chars().any(char::is_control) {
            "a user id cannot contain control characters"
        } else if text == "lock" {
            "'lock' cannot be a user id: <path>:lock is the lock"
        } else {
            return Ok(UserId(text.to_owned()));
        };
        Err(UserIdError(problem))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names that stand beside one target for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    target: RemotePath,
    user: UserId,
    lock: RemotePath,
    temp: RemotePath,
    /// `<user>-<stem>:`, to which a chunk's number is put.
    chunk_prefix: Vec<u8>,
    record_name: Vec<u8>,
}

/// What a name in the temp directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A stored chunk: the file holds its bytes.
    Chunk(u64),
    /// A receipt: the chunk's bytes stand in the merged file of that generation.
    Receipt(u64, RunId),
    Record,
    Manifest,
    /// The private directory of a run.
    Run(RunId),
    /// The private directory of a run that was fenced away.
    Fenced,
    /// Not haul's.
    Foreign,
}

impl Names {
    /// `target` is absolute, and symbolic links at its end are resolved already.
    pub fn new(target: &RemotePath, user: &UserId) -> Names {
        let base = target.file_name();
        let directory = target.parent();
        // The same for every user, so that all agree on the lock's name.
        let base = shortened(base, NAME_MAX - 1 - UserId::MAX_BYTES);
        let beside = |suffix: &str| directory.join([&base[..], b":", suffix.as_bytes()].concat());
        // The longest that follows a stem: `:`, a chunk's number of up to 20 digits, `.`
        // and a generation.
        let stem = shortened(stem(target.file_name()), NAME_MAX - UserId::MAX_BYTES - 1 - 21 - 17);
        Names {
            target: target.clone(),
            user: user.clone(),
            lock: beside("lock"),
            temp: beside(user.as_str()),
            chunk_prefix: [user.as_str().as_bytes(), b"-", &stem, b":"].concat(),
            record_name: [&stem[..], b".txt"].concat(),
        }
    }

    pub fn target(&self) -> &RemotePath {
        &self.target
    }

    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// `<target>:lock`
    pub fn lock(&self) -> &RemotePath {
        &self.lock
    }

    /// `<target>:<user>`, the temp directory.
    pub fn temp(&self) -> &RemotePath {
        &self.temp
    }

    pub fn chunk_prefix(&self) -> &[u8] {
        &self.chunk_prefix
    }

    pub fn chunk(&self, n: u64) -> RemotePath {
        self.temp.join([&self.chunk_prefix[..], n.to_string().as_bytes()].concat())
    }

    /// The receipt of chunk `n`, placed in the merged file of `generation`.
    pub fn receipt(&self, n: u64, generation: RunId) -> RemotePath {
        self.temp.join([&self.chunk_prefix[..], format!("{n}.{generation}").as_bytes()].concat())
    }

    pub fn record_name(&self) -> &[u8] {
        &self.record_name
    }

    pub fn record(&self) -> RemotePath {
        self.temp.join(&self.record_name)
    }

    pub fn manifest(&self) -> RemotePath {
        self.temp.join("manifest")
    }

    pub fn run(&self, run: RunId) -> RunNames {
        RunNames { directory: self.temp.join(format!("run.{run}")) }
    }

    /// Where the private directory of another run goes when `run` has won the lock, by way
    /// of [`RunNames::being_fenced`]; `k` is never used twice.
    pub fn fenced(&self, run: RunId, k: u64) -> RemotePath {
        self.temp.join(format!("{}{k}", Names::fenced_by(run)))
    }

    /// What the names begin with that `run` gives to what it fences.
    pub fn fenced_by(run: RunId) -> String {
        format!("fenced.{run}.")
    }

    /// What `name`, found in the temp directory, is.
    pub fn entry(&self, name: &[u8]) -> Entry {
        if let Some(rest) = name.strip_prefix(&self.chunk_prefix[..]) {
            return chunk_entry(rest).unwrap_or(Entry::Foreign);
        }
        if name == self.record_name {
            return Entry::Record;
        }
        if name == b"manifest" {
            return Entry::Manifest;
        }
        if let Some(run) = name.strip_prefix(b"run.").and_then(RunId::parse) {
            return Entry::Run(run);
        }
        if let Some(fenced) = name.strip_prefix(b"fenced.")
            && let Some((run, k)) = fenced.split_at_checked(16)
            && RunId::parse(run).is_some()
            && k.strip_prefix(b".").is_some_and(|k| !k.is_empty() && k.iter().all(u8::is_ascii_digit))
        {
            return Entry::Fenced;
        }
        Entry::Foreign
    }
}

/// The names in a run's private directory. Renaming that one directory fences the run:
/// nothing it still asks for by name can be found, and nothing can be created there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunNames {
    directory: RemotePath,
}

impl RunNames {
    /// The same names in a directory that was fenced.
    pub fn in_directory(directory: RemotePath) -> RunNames {
        RunNames { directory }
    }

    pub fn directory(&self) -> &RemotePath {
        &self.directory
    }

    /// The private name of the lock; `<target>:lock` is a link to it.
    pub fn lock(&self) -> RemotePath {
        self.directory.join("lock")
    }

    /// Where a lock that is taken over or released is moved; `k` is never used twice.
    pub fn taken_lock(&self, k: u64) -> RemotePath {
        self.directory.join(format!("taken.{k}"))
    }

    /// Another run's private directory on its way to [`Names::fenced`]: through here it can
    /// only go while this run itself is not fenced. `k` is never used twice.
    pub fn being_fenced(&self, k: u64) -> RemotePath {
        self.directory.join(format!("fenced.{k}"))
    }

    /// Whether a name in a private directory is one of [`RunNames::being_fenced`].
    pub fn is_being_fenced(name: &[u8]) -> bool {
        name.strip_prefix(b"fenced.").is_some_and(|k| !k.is_empty() && k.iter().all(u8::is_ascii_digit))
    }

    /// Whether a name in a private directory is one of [`RunNames::merged`].
    pub fn is_merged(name: &[u8]) -> bool {
        name.strip_prefix(b"merged.").and_then(RunId::parse).is_some()
    }

    /// An empty file that receipts are hard links to.
    pub fn receipt(&self) -> RemotePath {
        self.directory.join("receipt")
    }

    /// A chunk on its way; `attempt` is never used twice for one chunk.
    pub fn part(&self, n: u64, attempt: u64) -> RemotePath {
        self.directory.join(format!("part.{n}.{attempt}"))
    }

    /// A stored chunk that is merged, on its way out.
    pub fn merged_chunk(&self, n: u64) -> RemotePath {
        self.directory.join(format!("merged-chunk.{n}"))
    }

    pub fn new_record(&self) -> RemotePath {
        self.directory.join("record")
    }

    /// Where a file of the temp directory goes that is to be removed.
    pub fn outdated(&self, name: &[u8]) -> RemotePath {
        self.directory.join([b"outdated.", name].concat())
    }

    pub fn new_manifest(&self) -> RemotePath {
        self.directory.join("manifest")
    }

    pub fn merge_script(&self) -> RemotePath {
        self.directory.join("merge.sh")
    }

    /// The merged file as it grows. `generation` names its content: it is kept when a
    /// later run takes the file over, and the record speaks of it.
    pub fn merged(&self, generation: RunId) -> RemotePath {
        self.directory.join(format!("merged.{generation}"))
    }
}

/// The name without its last extension, as Python's `PurePath.stem` has it.
fn stem(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|b| *b == b'.') {
        Some(dot) if dot > 0 && dot + 1 < name.len() => &name[..dot],
        _ => name,
    }
}

/// `name`, or where it has more than `limit` bytes its beginning, `~` and sixteen digits
/// of its SHA-256. UTF-8 is not cut inside a character.
fn shortened(name: &[u8], limit: usize) -> Vec<u8> {
    if name.len() <= limit {
        return name.to_vec();
    }
    let mut chain = Sha256Chain::new();
    chain.update(name);
    let digest: Digest = chain.finish();
    let mut keep = limit.saturating_sub(17);
    while keep > 0 && name[keep] & 0xc0 == 0x80 {
        keep -= 1;
    }
    [&name[..keep], b"~", &digest.to_string().as_bytes()[..16]].concat()
}

fn chunk_entry(rest: &[u8]) -> Option<Entry> {
    match rest.iter().position(|b| *b == b'.') {
        None => chunk_number(rest).map(Entry::Chunk),
        Some(dot) => Some(Entry::Receipt(chunk_number(&rest[..dot])?, RunId::parse(&rest[dot + 1..])?)),
    }
}

/// A chunk's number as haul writes it: decimal, from 1, no leading zero.
fn chunk_number(digits: &[u8]) -> Option<u64> {
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(target: &str, user: &str) -> Names {
        Names::new(
            &RemotePath::new(target.as_bytes()).expect("a path"),
            &UserId::new(user).expect("a user id"),
        )
    }

    #[test]
    fn the_names_of_the_design() {
        let names = names("/srv/img.qcow2", "alice");
        assert_eq!(names.lock().as_bytes(), b"/srv/img.qcow2:lock");
        assert_eq!(names.temp().as_bytes(), b"/srv/img.qcow2:alice");
        assert_eq!(names.chunk(1).as_bytes(), b"/srv/img.qcow2:alice/alice-img:1");
        assert_eq!(names.record().as_bytes(), b"/srv/img.qcow2:alice/img.txt");
    }

    #[test]
    fn entries_are_told_apart() {
        let names = names("/srv/img.qcow2", "alice");
        assert_eq!(names.entry(b"alice-img:12"), Entry::Chunk(12));
        for bad in
            [&b"alice-img:0"[..], b"alice-img:01", b"alice-img:", b"alice-img:1x", b"alice-img:-1", b"x"]
        {
            assert_eq!(names.entry(bad), Entry::Foreign);
        }
        assert_eq!(names.entry(b"alice-img:99999999999999999999999"), Entry::Foreign);
        assert_eq!(names.entry(b"img.txt"), Entry::Record);
        assert_eq!(names.entry(b"manifest"), Entry::Manifest);
        let run = RunId::from_random(0xabc);
        assert_eq!(names.entry(names.receipt(7, run).file_name()), Entry::Receipt(7, run));
        assert_eq!(names.entry(b"alice-img:7."), Entry::Foreign);
        assert_eq!(names.entry(names.run(run).directory().file_name()), Entry::Run(run));
        assert_eq!(names.entry(names.fenced(run, 3).file_name()), Entry::Fenced);
        assert_eq!(names.entry(b"fenced.0000000000000abc"), Entry::Foreign);
        assert_eq!(names.entry(b"run.ABC"), Entry::Foreign);
    }

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        for length in [200, 249, 250, 251, 255] {
            let one = names(&format!("/srv/{}a", "x".repeat(length - 1)), "alice");
            let two = names(&format!("/srv/{}b", "x".repeat(length - 1)), "alice");
            assert_ne!(one.lock(), two.lock());
            let other_user = names(&format!("/srv/{}a", "x".repeat(length - 1)), "a-much-longer-user-id");
            assert_eq!(one.lock(), other_user.lock());
            for path in [one.lock(), one.temp(), &one.receipt(u64::MAX, RunId::from_random(1)), &one.record()]
            {
                assert!(path.file_name().len() <= NAME_MAX, "{path}");
            }
        }
        let cut = shortened("\u{fc}".repeat(200).as_bytes(), 100);
        assert!(std::str::from_utf8(&cut).is_ok());
    }

    #[test]
    fn stems_as_python_has_them() {
        for (name, expected) in [
            ("img.qcow2", "img"),
            ("a.tar.gz", "a.tar"),
            (".bashrc", ".bashrc"),
            ("plain", "plain"),
            ("a.", "a."),
        ] {
            assert_eq!(stem(name.as_bytes()), expected.as_bytes());
        }
    }

    #[test]
    fn user_ids() {
        for bad in ["", "a/b", "a:b", "lock", "a\nb", &"x".repeat(65)] {
            assert!(UserId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["alice", "a b", "\u{e9}", "LOCK"] {
            assert!(UserId::new(good).is_ok(), "{good:?}");
        }
    }
}
