//! The lock file's text, and what can be concluded from it without a clock or a target.
//!
//! The text is one `key: value` a line in a fixed order, and the heartbeat counter last at
//! a fixed width, so that a beat is one write of twenty digits at a known offset. FORMAT.md
//! has the same list.

use std::fmt;

use super::escape::printable;
use super::run_id::RunId;

/// More bytes than any lock file has; a reader asks for one more to see that it is longer.
pub const LOCK_FILE_MAX_BYTES: usize = 4096;
/// What follows `beat: ` without the line's end.
pub const BEAT_DIGITS: usize = 20;

const MAGIC: &[u8] = b"haul-lock: ";
const FIRST_LINE: &[u8] = b"haul-lock: 1\n";
/// Bounds of the values before they are escaped, in bytes. With the worst escape (three
/// bytes for one) and all keys they stay below `LOCK_FILE_MAX_BYTES`.
const USER_MAX_BYTES: usize = 64;
const HOLDER_MAX_BYTES: usize = 320;
const SOURCE_MAX_BYTES: usize = 255;
const IDENTITY_MAX_BYTES: usize = 200;
const MACHINE_VALUE_MAX_BYTES: usize = 100;

/// What a lock file says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    /// The user id, which also names the temp directory.
    pub user: String,
    /// Local `user@host`, for people only.
    pub holder: String,
    pub process: Option<ProcessId>,
    pub machine: Option<Machine>,
    pub run: RunId,
    pub source: SourceNote,
    /// Seconds since the epoch by the holder's clock: shown, never compared.
    pub since: u64,
    /// Counts up while the holder lives.
    pub beat: u64,
}

/// A process, so that a reused pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after the boot.
    pub start: u64,
}

/// What makes two processes able to see each other's pids: the same machine, since the
/// same boot, in the same namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub machine_id: String,
    pub boot_id: String,
    pub namespace: String,
}

/// What is being uploaded, for people: no decision rests on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceNote {
    pub name: Vec<u8>,
    pub identity: String,
}

/// What the bytes of a lock file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockContent {
    Whole(Box<LockInfo>),
    /// Empty, cut short, zeroed by a power loss, or damaged: the holder is not known.
    Torn,
    /// Of a haul with another format.
    OtherVersion,
    /// Something that haul did not write.
    Foreign,
}

impl LockInfo {
    /// The complete text. Values past their bound are cut, so the text is always below
    /// [`LOCK_FILE_MAX_BYTES`].
    pub fn to_text(&self) -> Vec<u8> {
        let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
        let machine = |part: fn(&Machine) -> &String| self.machine.as_ref().map_or("", |m| part(m).as_str());
        let mut text = FIRST_LINE.to_vec();
        push_value(&mut text, "user", self.user.as_bytes(), USER_MAX_BYTES);
        push_value(&mut text, "holder", self.holder.as_bytes(), HOLDER_MAX_BYTES);
        let pid = number(self.process.map(|p| u64::from(p.pid)));
        push_value(&mut text, "pid", pid.as_bytes(), BEAT_DIGITS);
        push_value(&mut text, "start", number(self.process.map(|p| p.start)).as_bytes(), BEAT_DIGITS);
        push_value(&mut text, "machine", machine(|m| &m.machine_id).as_bytes(), MACHINE_VALUE_MAX_BYTES);
        push_value(&mut text, "boot", machine(|m| &m.boot_id).as_bytes(), MACHINE_VALUE_MAX_BYTES);
        push_value(&mut text, "namespace", machine(|m| &m.namespace).as_bytes(), MACHINE_VALUE_MAX_BYTES);
        push_value(&mut text, "run", self.run.to_string().as_bytes(), BEAT_DIGITS);
        push_value(&mut text, "source", &self.source.name, SOURCE_MAX_BYTES);
        push_value(&mut text, "identity", self.source.identity.as_bytes(), IDENTITY_MAX_BYTES);
        push_value(&mut text, "since", self.since.to_string().as_bytes(), BEAT_DIGITS);
        text.extend_from_slice(b"beat: ");
        text.extend_from_slice(&beat_digits(self.beat));
        text.push(b'\n');
        text
    }
}

/// One line that says who holds the lock, already escaped.
impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", printable(self.user.as_bytes()), printable(self.holder.as_bytes()))?;
        if let Some(process) = self.process {
            write!(f, ", pid {}", process.pid)?;
        }
        write!(f, ") since {} UTC", Utc(self.since))?;
        if !self.source.name.is_empty() {
            write!(f, ", uploading {}", printable(&self.source.name))?;
        }
        Ok(())
    }
}

/// The counter as it stands in the file.
pub fn beat_digits(beat: u64) -> [u8; BEAT_DIGITS] {
    let mut digits = [b'0'; BEAT_DIGITS];
    let mut rest = beat;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    digits
}

/// Where the digits of the beat stand in a text of `length` bytes.
pub fn beat_offset(length: usize) -> u64 {
    length.saturating_sub(BEAT_DIGITS + 1) as u64
}

/// Reads a lock file strictly: anything but what [`LockInfo::to_text`] writes is no whole
/// lock. Of a text that was still being written every beginning is `Torn`.
pub fn parse(bytes: &[u8]) -> LockContent {
    if bytes.iter().all(|b| *b == 0) || MAGIC.starts_with(bytes) || FIRST_LINE.starts_with(bytes) {
        return LockContent::Torn;
    }
    if !bytes.starts_with(MAGIC) {
        return LockContent::Foreign;
    }
    if !bytes.starts_with(FIRST_LINE) {
        return LockContent::OtherVersion;
    }
    if bytes.len() > LOCK_FILE_MAX_BYTES {
        return LockContent::Torn;
    }
    parse_lines(&bytes[FIRST_LINE.len()..])
        .map_or(LockContent::Torn, |info| LockContent::Whole(Box::new(info)))
}

/// Whether an incomplete lock may be the beginning of one of `user`'s: it names no other.
pub fn may_begin(torn: &[u8], user: &str) -> bool {
    // A power loss leaves zeros where bytes were not yet on the disk.
    let zeros = torn.iter().rev().take_while(|byte| **byte == 0).count();
    let written = &torn[..torn.len() - zeros];
    let mut beginning = FIRST_LINE.to_vec();
    push_value(&mut beginning, "user", user.as_bytes(), USER_MAX_BYTES);
    written.starts_with(&beginning) || beginning.starts_with(written)
}

fn parse_lines(mut rest: &[u8]) -> Option<LockInfo> {
    let user = text(take_value(&mut rest, "user", USER_MAX_BYTES)?)?;
    let holder = text(take_value(&mut rest, "holder", HOLDER_MAX_BYTES)?)?;
    let pid = take_value(&mut rest, "pid", BEAT_DIGITS)?;
    let start = take_value(&mut rest, "start", BEAT_DIGITS)?;
    let machine_id = text(take_value(&mut rest, "machine", MACHINE_VALUE_MAX_BYTES)?)?;
    let boot_id = text(take_value(&mut rest, "boot", MACHINE_VALUE_MAX_BYTES)?)?;
    let namespace = text(take_value(&mut rest, "namespace", MACHINE_VALUE_MAX_BYTES)?)?;
    let run = RunId::parse(&take_value(&mut rest, "run", BEAT_DIGITS)?)?;
    let name = take_value(&mut rest, "source", SOURCE_MAX_BYTES)?;
    let identity = text(take_value(&mut rest, "identity", IDENTITY_MAX_BYTES)?)?;
    let since = number(&take_value(&mut rest, "since", BEAT_DIGITS)?)?;
    let digits = rest.strip_prefix(b"beat: ")?.strip_suffix(b"\n")?;
    if digits.len() != BEAT_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let beat = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let process = if pid.is_empty() && start.is_empty() {
        None
    } else {
        Some(ProcessId { pid: u32::try_from(number(&pid)?).ok()?, start: number(&start)? })
    };
    let machine = match [&machine_id, &boot_id, &namespace].map(String::is_empty) {
        [true, true, true] => None,
        [false, false, false] => Some(Machine { machine_id, boot_id, namespace }),
        _ => return None,
    };
    let source = SourceNote { name, identity };
    Some(LockInfo { user, holder, process, machine, run, source, since, beat })
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

/// Decimal without a leading zero.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.len() > 1 && digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn push_value(text: &mut Vec<u8>, key: &str, value: &[u8], limit_bytes: usize) {
    text.extend_from_slice(key.as_bytes());
    text.extend_from_slice(b": ");
    for &byte in cut(value, limit_bytes) {
        if is_escaped(byte) {
            text.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            text.push(byte);
        }
    }
    text.push(b'\n');
}

/// At most `limit` bytes, not cut inside a UTF-8 character.
fn cut(value: &[u8], limit: usize) -> &[u8] {
    if value.len() <= limit {
        return value;
    }
    let mut end = limit;
    while end > 0 && value[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &value[..end]
}

/// The line's end must not occur in a value, and no terminal should be driven by `cat`.
fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f || byte == b'%'
}

/// Takes `<key>: <value>\n` off `rest` and gives the value, its escapes resolved.
fn take_value(rest: &mut &[u8], key: &str, limit_bytes: usize) -> Option<Vec<u8>> {
    let line_start = rest.strip_prefix(key.as_bytes())?.strip_prefix(b": ")?;
    let end = line_start.iter().position(|b| *b == b'\n')?;
    let mut encoded = &line_start[..end];
    *rest = &line_start[end + 1..];
    let mut value = Vec::new();
    while let Some((&byte, after)) = encoded.split_first() {
        encoded = after;
        if byte == b'%' {
            let (digits, after) = encoded.split_at_checked(2)?;
            encoded = after;
            let byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
            if !is_escaped(byte) {
                return None;
            }
            value.push(byte);
        } else if is_escaped(byte) {
            return None;
        } else {
            value.push(byte);
        }
        if value.len() > limit_bytes {
            return None;
        }
    }
    Some(value)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Whether a process that a lock names lives on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    Living,
    Gone,
    /// It may be hidden from this account.
    Unknown,
}

/// What can be said of a holder before watching it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    DeadAtOnce,
    AliveHere,
    /// Only its heartbeat can tell.
    Watch,
}

/// Judges a holder from here. Only a process of this same machine, boot and namespaces
/// can be seen; everything else is watched. That includes another boot of what calls
/// itself the same machine: cloned machines and containers share their machine id.
/// `here` is this process; a lock that it wrote itself for another job is watched.
pub fn judge(seen: &LockInfo, here: &Here, state: impl FnOnce(ProcessId) -> ProcessState) -> Verdict {
    let (Some(process), Some(machine)) = (seen.process, &seen.machine) else {
        return Verdict::Watch;
    };
    if here.machine.as_ref() != Some(machine) || here.process == Some(process) {
        return Verdict::Watch;
    }
    match state(process) {
        ProcessState::Living => Verdict::AliveHere,
        ProcessState::Gone => Verdict::DeadAtOnce,
        ProcessState::Unknown => Verdict::Watch,
    }
}

/// This process, as far as the system tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// Local `user@host`.
    pub holder: String,
    pub process: Option<ProcessId>,
    pub machine: Option<Machine>,
}

/// Seconds since the epoch as date and time.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        if days > 2_932_896 {
            // Past the year 9999 the number itself says more.
            return write!(f, "second {}", self.0);
        }
        // Days from 0000-03-01, in eras of 400 years that begin in March, so that the
        // leap day comes last.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info() -> LockInfo {
        LockInfo {
            user: "alice".to_owned(),
            holder: "al@laptop".to_owned(),
            process: Some(ProcessId { pid: 4711, start: 99_887_766 }),
            machine: Some(Machine {
                machine_id: "m".repeat(32),
                boot_id: "b-1".to_owned(),
                namespace: "pid:[4026531836]".to_owned(),
            }),
            run: RunId::from_random(0xfeed),
            source: SourceNote { name: b"img\n%\xff.qcow2".to_vec(), identity: "1:2:3:4:5".to_owned() },
            since: 1_709_210_096,
            beat: 7,
        }
    }

    #[test]
    fn the_text_is_as_documented() {
        let expected = format!(
            "haul-lock: 1\nuser: alice\nholder: al@laptop\npid: 4711\nstart: 99887766\nmachine: {}\nboot: b-1\n\
             namespace: pid:[4026531836]\nrun: 000000000000feed\nsource: img%0A%25.x\nidentity: 1:2:3:4:5\n\
             since: 1709210096\nbeat: 00000000000000000007\n",
            "m".repeat(32)
        );
        let mut info = info();
        info.source.name = b"img\n%.x".to_vec();
        assert_eq!(String::from_utf8(info.to_text()).expect("text"), expected);
    }

    #[test]
    fn a_beat_changes_its_digits_only() {
        let mut info = info();
        let mut text = info.to_text();
        let at = usize::try_from(beat_offset(text.len())).expect("small");
        text[at..at + BEAT_DIGITS].copy_from_slice(&beat_digits(u64::MAX));
        info.beat = u64::MAX;
        assert_eq!(parse(&text), LockContent::Whole(Box::new(info)));
    }

    #[test]
    fn every_truncation_is_torn() {
        let text = info().to_text();
        for length in 0..text.len() {
            assert_eq!(parse(&text[..length]), LockContent::Torn, "{length} bytes");
        }
        assert!(matches!(parse(&text), LockContent::Whole(_)));
    }

    #[test]
    fn whose_an_incomplete_lock_may_be() {
        let text = info().to_text();
        for length in 0..text.len() {
            let mut torn = text[..length].to_vec();
            torn.resize(text.len(), 0);
            assert!(may_begin(&torn, "alice"), "{length} bytes");
            assert!(may_begin(&text[..length], "alice"), "{length} bytes");
            assert_eq!(may_begin(&torn, "alan"), length <= "haul-lock: 1\nuser: al".len(), "{length} bytes");
        }
        assert!(!may_begin(b"haul-lock: 1\nuser: ali\n", "alice"));
        assert!(!may_begin(b"haul-lock: 1\nuser: alice2", "alice"));
        assert!(!may_begin(b"haul-lock: 1\nname: alice", "alice"));
    }

    #[test]
    fn what_is_no_lock_of_ours() {
        let text = info().to_text();
        let mut long = text.clone();
        long.push(b'\n');
        assert_eq!(parse(&long), LockContent::Torn);
        assert_eq!(parse(&[0; 300]), LockContent::Torn);
        let later = String::from_utf8_lossy(&text).replacen("lock: 1\n", "lock: 2\n", 1);
        assert_eq!(parse(later.as_bytes()), LockContent::OtherVersion);
        assert_eq!(parse(b"haul-lock: 12"), LockContent::OtherVersion);
        for foreign in [&b"x"[..], b"{}", b"haul-lock\n", b"\0\0x", b"\xff\xfe"] {
            assert_eq!(parse(foreign), LockContent::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn damaged_lines_are_not_believed() {
        let text = String::from_utf8_lossy(&{
            let mut info = info();
            info.source.name = b"img".to_vec();
            info.to_text()
        })
        .into_owned();
        for (good, bad) in [
            ("pid: 4711", "pid: 04711"),
            ("pid: 4711", "pid: "),
            ("pid: 4711", "pid: 99999999999"),
            ("start: 99887766", "start: -1"),
            ("boot: b-1", "boot: "),
            ("user: alice", "user: %61lice"),
            ("user: alice", "user: %0a"),
            ("user: alice", "user: %0"),
            ("user: alice", "name: alice"),
            ("user: alice", "user: a\rb"),
            ("run: 0000", "run: 000"),
            ("beat: 0", "beat: +"),
            ("beat: 00000000000000000007", "beat: 99999999999999999999"),
        ] {
            assert!(text.contains(good), "{good}");
            assert_eq!(parse(text.replacen(good, bad, 1).as_bytes()), LockContent::Torn, "{bad}");
        }
    }

    #[test]
    fn the_longest_values_fit() {
        let long = "\u{1}".repeat(1000);
        let info = LockInfo {
            user: long.clone(),
            holder: long.clone(),
            process: Some(ProcessId { pid: u32::MAX, start: u64::MAX }),
            machine: Some(Machine {
                machine_id: long.clone(),
                boot_id: long.clone(),
                namespace: long.clone(),
            }),
            run: RunId::from_random(u64::MAX),
            source: SourceNote { name: long.clone().into_bytes(), identity: long },
            since: u64::MAX,
            beat: u64::MAX,
        };
        let text = info.to_text();
        assert!(text.len() <= LOCK_FILE_MAX_BYTES, "{}", text.len());
        assert!(matches!(parse(&text), LockContent::Whole(_)));
    }

    #[test]
    fn what_is_shown_is_escaped_and_dated() {
        let shown = info().to_string();
        assert_eq!(
            shown,
            "alice (al@laptop, pid 4711) since 2024-02-29 12:34:56 UTC, uploading img\\x0a%\\xff.qcow2"
        );
        assert_eq!(Utc(0).to_string(), "1970-01-01 00:00:00");
        assert_eq!(Utc(253_402_300_799).to_string(), "9999-12-31 23:59:59");
        assert_eq!(Utc(u64::MAX).to_string(), "second 18446744073709551615");
    }

    #[test]
    fn only_this_machine_since_this_boot_is_judged_by_pid() {
        let seen = info();
        let other = Some(ProcessId { pid: 1, start: 1 });
        let here = Here { holder: String::new(), process: other, machine: seen.machine.clone() };
        let table = [
            (ProcessState::Living, Verdict::AliveHere),
            (ProcessState::Gone, Verdict::DeadAtOnce),
            (ProcessState::Unknown, Verdict::Watch),
        ];
        for (state, verdict) in table {
            assert_eq!(judge(&seen, &here, |_| state), verdict);
        }
        let gone = |_| ProcessState::Gone;
        let changes: [fn(&mut Machine); 3] =
            [|m| m.machine_id.push('x'), |m| m.boot_id.push('x'), |m| m.namespace.push('x')];
        for change in changes {
            let mut elsewhere = here.clone();
            elsewhere.machine.as_mut().map(change).expect("a machine");
            assert_eq!(judge(&seen, &elsewhere, gone), Verdict::Watch);
        }
        assert_eq!(judge(&seen, &Here::default(), gone), Verdict::Watch);
        let myself = Here { process: seen.process, ..here.clone() };
        assert_eq!(judge(&seen, &myself, gone), Verdict::Watch);
        assert_eq!(judge(&LockInfo { process: None, ..seen.clone() }, &here, gone), Verdict::Watch);
        assert_eq!(judge(&LockInfo { machine: None, ..seen }, &here, gone), Verdict::Watch);
    }

    fn any_text(limit: usize) -> impl Strategy<Value = String> {
        any::<String>().prop_map(move |s| String::from_utf8_lossy(cut(s.as_bytes(), limit)).into_owned())
    }

    fn any_machine() -> impl Strategy<Value = Option<Machine>> {
        let part = || "[ -~]{1,100}";
        proptest::option::of((part(), part(), part()).prop_map(|(machine_id, boot_id, namespace)| Machine {
            machine_id,
            boot_id,
            namespace,
        }))
    }

    fn any_info() -> impl Strategy<Value = LockInfo> {
        let process =
            proptest::option::of(any::<(u32, u64)>().prop_map(|(pid, start)| ProcessId { pid, start }));
        let source =
            (proptest::collection::vec(any::<u8>(), 0..=SOURCE_MAX_BYTES), any_text(IDENTITY_MAX_BYTES));
        (
            any_text(USER_MAX_BYTES),
            any_text(HOLDER_MAX_BYTES),
            process,
            any_machine(),
            any::<u64>(),
            source,
            any::<(u64, u64)>(),
        )
            .prop_map(|(user, holder, process, machine, run, (name, identity), (since, beat))| {
                LockInfo {
                    user,
                    holder,
                    process,
                    machine,
                    run: RunId::from_random(run),
                    source: SourceNote { name, identity },
                    since,
                    beat,
                }
            })
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(info in any_info()) {
            let text = info.to_text();
            prop_assert!(text.len() <= LOCK_FILE_MAX_BYTES);
            prop_assert_eq!(parse(&text), LockContent::Whole(Box::new(info)));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            parse(&bytes);
            parse(&[FIRST_LINE, &bytes].concat());
        }

        #[test]
        fn what_it_reads_is_what_it_would_write(info in any_info(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut text = info.to_text();
            let at = at.index(text.len());
            text[at] = byte;
            if let LockContent::Whole(read) = parse(&text) {
                prop_assert_eq!(read.to_text(), text);
            }
        }
    }
}
