//! What a target's shell can do: proven, never believed.
//!
//! A shell counts only when it computes with a nonce: there are servers that echo, that
//! exit 0 on anything, that print a sentence, or that answer every command with SFTP. And
//! it must see under the same path what was written over SFTP.

use std::fmt;
use std::time::Duration;

use super::job::{JobError, JobLimits, JobStatus, run_script, watch_script};
use crate::model::checksum::{Chain, Checksum, Method};
use crate::model::digest::Digest;
use crate::model::escape::printable;
use crate::model::gmac::Key;
use crate::model::remote_path::RemotePath;
use crate::model::shell::Script;
use crate::remote::Connection;

/// A shell that does not answer within this is none.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a witness's content that are compared.
pub const WITNESS_MAX_BYTES: usize = 4096;
/// Bytes kept of a job's output. Some login shells print greetings first.
const OUTPUT_MAX_BYTES: usize = 64 << 10;
/// Nonces stay below this, so that a shell of 32 bits can multiply two of them.
const NONCE_LIMIT: u32 = 1 << 15;
/// A hash tells every second where it stands; a link on which this long nothing comes is dead.
const HASH_SILENCE: Duration = Duration::from_secs(60);

/// A thing that SFTP sees and that the shell must see too, under the same absolute path.
#[derive(Debug, Clone)]
pub enum Witness {
    Directory(RemotePath),
    /// With what stands in it, or its first [`WITNESS_MAX_BYTES`] bytes. Something that
    /// stands nowhere else proves that both see the same file.
    File {
        path: RemotePath,
        content: Vec<u8>,
    },
}

/// A proven shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// The fastest program that was seen to compute SHA-256.
    pub hash: Option<HashProgram>,
    /// Python 3 computes it too: it can read a file that grows.
    pub python: bool,
    /// It counts in 64 bits, which the merge script needs.
    pub wide_arithmetic: bool,
    /// `setsid` is there: what is started can have a session of its own.
    pub setsid: bool,
    /// `uname -s -r -m`, escaped.
    pub system: String,
}

/// Why there is no shell to use; for `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoShell(String);

impl fmt::Display for NoShell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoShell {}

/// A program that computes SHA-256, or one of the two others, of its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashProgram {
    OpenSsl,
    Python,
    Coreutils,
    BusyBox,
    Shasum,
    /// `sha256 -q` of the BSDs.
    Sha256,
    /// `digest -a sha256` of Solaris and illumos.
    SolarisDigest,
    /// `cksum -a sha256` of GNU and NetBSD.
    Cksum,
    /// GMAC with `openssl mac`, which OpenSSL has from version 3 on. It takes its key from the
    /// command line and nowhere else, so others on the target can see it there. It is made
    /// for one upload and keeps nothing secret: whoever could write to the file needs no key.
    OpenSslGmac,
    /// The CRC of POSIX.
    PosixCksum,
}

impl HashProgram {
    /// Those for SHA-256, fastest first.
    const ALL: [HashProgram; 8] = [
        HashProgram::OpenSsl,
        HashProgram::Python,
        HashProgram::Coreutils,
        HashProgram::BusyBox,
        HashProgram::Shasum,
        HashProgram::Sha256,
        HashProgram::SolarisDigest,
        HashProgram::Cksum,
    ];

    /// As `DIGEST` names it.
    pub fn name(self) -> &'static str {
        match self {
            HashProgram::OpenSsl => "openssl",
            HashProgram::Python => "python3",
            HashProgram::Coreutils => "sha256sum",
            HashProgram::BusyBox => "busybox",
            HashProgram::Shasum => "shasum",
            HashProgram::Sha256 => "sha256",
            HashProgram::SolarisDigest => "digest",
            HashProgram::Cksum => "cksum",
            HashProgram::OpenSslGmac => "gmac",
            HashProgram::PosixCksum => "crc",
        }
    }
}

/// `digest_by PROGRAM` prints the SHA-256 of its standard input, perhaps among other words;
/// `gmac` and `crc` what they are called.
pub(super) const DIGEST: &str = r#"
LC_ALL=C
export LC_ALL
digest_by() {
    case $1 in
    openssl) openssl dgst -sha256 ;;
    python3)
        python3 -I -S -c 'import hashlib, sys
h = hashlib.sha256()
while True:
    b = sys.stdin.buffer.read(1 << 18)
    if not b:
        break
    h.update(b)
print(h.hexdigest())' ;;
    sha256sum) sha256sum ;;
    busybox) busybox sha256sum ;;
    shasum) shasum -a 256 ;;
    sha256) sha256 -q ;;
    digest) digest -a sha256 ;;
    cksum) cksum -a sha256 ;;
    gmac) openssl mac -cipher AES-128-GCM -macopt "hexkey:$key" -macopt hexiv:000000000000000000000000 GMAC ;;
    crc) cksum ;;
    *) return 1 ;;
    esac
}
"#;

/// What only a shell can say: it was sent `a` and `b`.
pub(super) const BEGIN: &str = "printf 'haul-begin %s\\n' \"$((a * b))\"\n";
pub(super) const END: &str = "printf 'haul-end %s\\n' \"$((a + b))\"\n";

const PROBE: &str = r#"
seen=no
if [ "$kind" = file ]; then
    [ -f "$file" ] && [ "$(dd bs=4096 count=1 <"$file"; printf .)" = "$content." ] && seen=yes
else
    [ -d "$file" ] && seen=yes
fi 2>/dev/null
printf 'seen %s\n' "$seen"
[ "$((4294967296 * 2))" = 8589934592 ] && printf 'wide\n'
command -v setsid >/dev/null 2>&1 && printf 'setsid\n'
for program in openssl python3 sha256sum busybox shasum sha256 digest cksum; do
    command -v "$program" >/dev/null 2>&1 || continue
    case $(printf abc | digest_by "$program" 2>/dev/null) in
    *ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad*)
        printf 'hash %s\n' "$program"
        break ;;
    esac
done
case $(printf abc | digest_by python3 2>/dev/null) in
*ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad*) printf 'python\n' ;;
esac
printf 'system %s\n' "$(uname -s -r -m 2>/dev/null | head -n 1)"
"#;

/// Asks the target for a shell and for what it can do, in one exec that changes nothing.
/// Whatever is odd, or takes longer than [`PROBE_TIMEOUT`], means that there is none.
pub async fn probe(connection: &dyn Connection, witness: &Witness) -> Result<Shell, NoShell> {
    let nonce = Nonce::new().ok_or_else(|| NoShell("no random numbers here".to_owned()))?;
    let (kind, path, content) = match witness {
        Witness::Directory(path) => ("directory", path, &[][..]),
        Witness::File { path, content } => ("file", path, &content[..content.len().min(WITNESS_MAX_BYTES)]),
    };
    let script = Script::new(&[DIGEST, BEGIN, PROBE, END])
        .number("a", nonce.a.into())
        .number("b", nonce.b.into())
        .set("kind", kind)
        .set("file", path.as_bytes())
        .set("content", content);
    let limits =
        JobLimits { timeout: Some(PROBE_TIMEOUT), silence: None, max_output_bytes: OUTPUT_MAX_BYTES };
    let output = run_script(connection, &script, limits).await.map_err(|error| NoShell(error.to_string()))?;

    let Some(answer) = nonce.answer(&output.stdout) else {
        let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
        return Err(NoShell(format!(
            "what the target runs is no POSIX shell: {}",
            excerpt(&output.status, said)
        )));
    };
    if !answer.contains(&&b"seen yes"[..]) {
        return Err(NoShell(format!("the target's shell does not see {path} as SFTP does")));
    }
    let value = |key: &[u8]| answer.iter().find_map(|line| line.strip_prefix(key));
    let hash = value(b"hash ")
        .and_then(|name| HashProgram::ALL.into_iter().find(|program| program.name().as_bytes() == name));
    Ok(Shell {
        hash,
        python: answer.contains(&&b"python"[..]),
        wide_arithmetic: answer.contains(&&b"wide"[..]),
        setsid: answer.contains(&&b"setsid"[..]),
        system: value(b"system ").map(printable).unwrap_or_default(),
    })
}

/// What of `--verify fast` a target can compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fast {
    pub gmac: bool,
    pub crc: bool,
}

const PROBE_FAST: &str = r#"
printf 'gmac %s\n' "$(printf abc | digest_by gmac 2>/dev/null)"
printf 'crc %s\n' "$(printf abc | digest_by crc 2>/dev/null)"
"#;

/// Asks a proven shell for it. Whatever is odd means that there is none.
pub async fn probe_fast(connection: &dyn Connection) -> Fast {
    let method = Method::Gmac(Key(*b"haul probes this"));
    let Some(nonce) = Nonce::new() else { return Fast::default() };
    let script = keyed(Script::new(&[DIGEST, BEGIN, PROBE_FAST, END]), method)
        .number("a", nonce.a.into())
        .number("b", nonce.b.into());
    let limits =
        JobLimits { timeout: Some(PROBE_TIMEOUT), silence: None, max_output_bytes: OUTPUT_MAX_BYTES };
    let Ok(output) = run_script(connection, &script, limits).await else { return Fast::default() };
    let answer = nonce.answer(&output.stdout).unwrap_or_default();
    let is_right = |key: &[u8], method| {
        let mut chain = Chain::new(method);
        chain.update(b"abc");
        let said = answer.iter().find_map(|line| line.strip_prefix(key));
        said.and_then(|said| only_checksum(method, said)) == Some(chain.finish())
    };
    Fast { gmac: is_right(b"gmac ", method), crc: is_right(b"crc ", Method::Crc) }
}

/// With what `DIGEST` needs beside the program's name.
pub(super) fn keyed(script: Script, method: Method) -> Script {
    match method {
        Method::Gmac(key) => script.set("key", key.to_hex()),
        Method::Sha256 | Method::Crc => script,
    }
}

/// How a job ended and the first line of what it said, for a message.
fn excerpt(status: &JobStatus, said: &[u8]) -> String {
    const EXCERPT_BYTES: usize = 80;
    let line = said.split(|b| *b == b'\n').next().unwrap_or_default();
    format!("{status}, \"{}\"", printable(&line[..line.len().min(EXCERPT_BYTES)]))
}

/// Two random numbers that a shell has to compute with.
pub(super) struct Nonce {
    pub(super) a: u32,
    pub(super) b: u32,
}

impl Nonce {
    pub(super) fn new() -> Option<Nonce> {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).ok()?;
        let pick =
            |low, high| NONCE_LIMIT / 2 + u32::from(u16::from_le_bytes([low, high])) % (NONCE_LIMIT / 2);
        Some(Nonce { a: pick(bytes[0], bytes[1]), b: pick(bytes[2], bytes[3]) })
    }

    /// The lines between the two that only a shell can write; `None` when either is missing.
    pub(super) fn answer<'a>(&self, output: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let begin = format!("haul-begin {}", self.a * self.b);
        let end = format!("haul-end {}", self.a + self.b);
        let mut lines = output.split(|b| *b == b'\n').skip_while(|line| *line != begin.as_bytes());
        lines.next()?;
        let mut answer = Vec::new();
        for line in lines {
            if line == end.as_bytes() {
                return Some(answer);
            }
            answer.push(line);
        }
        None
    }
}

/// Why a file could not be hashed on the target.
#[derive(Debug, Clone)]
pub enum HashError {
    Job(JobError),
    /// The program failed, or the file could not be opened, or it does not have the size
    /// it should have. Escaped.
    Failed(String),
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashError::Job(error) => error.fmt(f),
            HashError::Failed(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for HashError {}

/// Prints the position every second while the program reads from the same descriptor, and
/// ends the whole group when nobody listens any more.
const HASH: &str = r#"
if true <"$file" && exec 3<"$file"; then
    (
        trap '' PIPE
        while sleep 1 >/dev/null 2>&1; do
            position=
            while read -r key value; do
                [ "$key" = pos: ] && position=$value
            done 2>/dev/null </proc/self/fdinfo/3
            printf 'at %s\n' "$position" || {
                kill -15 "-$$"
                exit
            }
        done
    ) </dev/null 2>/dev/null &
    meter=$!
    printf 'digest %s\n' "$(digest_by "$program" <&3 || printf ' failed')"
    kill "$meter" 2>/dev/null
    position=
    while read -r key value; do
        [ "$key" = pos: ] && position=$value
    done 2>/dev/null </proc/self/fdinfo/3
    printf 'read %s\n' "$position"
fi
"#;

/// A file's checksum by a program for `method`, on the target. `heard` is told how many bytes are read so
/// far, where the target can tell, about once a second. No limit of time: it ends when
/// the link falls silent.
pub async fn hash_file(
    connection: &dyn Connection,
    program: HashProgram,
    method: Method,
    path: &RemotePath,
    expected_bytes: u64,
    mut heard: impl FnMut(u64) + Send,
) -> Result<Checksum, HashError> {
    let nonce = Nonce::new().ok_or_else(|| HashError::Failed("no random numbers here".to_owned()))?;
    let script = keyed(Script::new(&[DIGEST, BEGIN, HASH, END]), method)
        .number("a", nonce.a.into())
        .number("b", nonce.b.into())
        .set("program", program.name())
        .set("file", path.as_bytes())
        // A whole file's hash takes its time: it is not to go on for nobody.
        .on_lifeline();
    let limits =
        JobLimits { timeout: None, silence: Some(HASH_SILENCE), max_output_bytes: WITNESS_MAX_BYTES };
    let mut lines = HashLines::default();
    let output = watch_script(connection, &script, limits, |data| {
        if let Some(position) = lines.take(data) {
            heard(position.min(expected_bytes));
        }
    });
    let output = output.await.map_err(HashError::Job)?;

    let failed = |what: &str| {
        let said = excerpt(&output.status, &output.stderr);
        HashError::Failed(format!("{path}: {what} on the target: {said}"))
    };
    let answer = nonce.answer(&lines.kept).ok_or_else(|| failed("the hash was not finished"))?;
    let digest = answer
        .iter()
        .find_map(|line| line.strip_prefix(b"digest "))
        .and_then(|text| only_checksum(method, text))
        .ok_or_else(|| failed("the hash program failed"))?;
    let read = answer.iter().find_map(|line| decimal(line.strip_prefix(b"read ")?));
    match read {
        Some(bytes) if bytes != expected_bytes => {
            Err(HashError::Failed(format!("{path} has {bytes} bytes on the target, not {expected_bytes}")))
        }
        _ => Ok(digest),
    }
}

/// The output of a hash: progress is told and forgotten, the rest is kept.
#[derive(Default)]
struct HashLines {
    partial: Vec<u8>,
    kept: Vec<u8>,
}

impl HashLines {
    /// The last position told in `data`.
    fn take(&mut self, data: &[u8]) -> Option<u64> {
        let mut told = None;
        for piece in data.split_inclusive(|b| *b == b'\n') {
            if self.kept.len() + self.partial.len() + piece.len() > OUTPUT_MAX_BYTES {
                return told;
            }
            self.partial.extend_from_slice(piece);
            let Some(line) = self.partial.strip_suffix(b"\n") else {
                continue;
            };
            match line.strip_prefix(b"at ") {
                Some(position) => told = decimal(position).or(told),
                None => self.kept.append(&mut self.partial),
            }
            self.partial.clear();
        }
        told
    }
}

/// The one checksum of this kind among the words of `text`.
pub(super) fn only_checksum(method: Method, text: &[u8]) -> Option<Checksum> {
    let words = || text.split(|b| matches!(b, b' ' | b'=' | b'\t')).filter(|word| !word.is_empty());
    if words().any(|word| word == b"failed") {
        return None;
    }
    let only = |mut found: Box<dyn Iterator<Item = Checksum> + '_>| {
        let checksum = found.next()?;
        found.next().is_none().then_some(checksum)
    };
    match method {
        Method::Sha256 => only(Box::new(words().filter_map(Digest::parse).map(Checksum::Sha256))),
        // A tag is as long as a key.
        Method::Gmac(_) => only(Box::new(words().filter_map(Key::parse).map(|tag| Checksum::Gmac(tag.0)))),
        // Then comes the length.
        Method::Crc => words().next().and_then(decimal)?.try_into().ok().map(Checksum::Crc),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_computed() {
        let nonce = Nonce { a: 20_000, b: 30_001 };
        let good = b"welcome\nhaul-begin 600020000\nseen yes\nhaul-end 50001\n";
        assert_eq!(nonce.answer(good), Some(vec![&b"seen yes"[..]]));
        for bad in [
            &b""[..],
            b"haul-begin 600020000\nseen yes\n",
            b"seen yes\nhaul-end 50001\n",
            b"a=20000; b=30001; printf haul-begin $((a * b))\nhaul-end $((a + b))\n",
        ] {
            assert_eq!(nonce.answer(bad), None);
        }
    }

    #[test]
    fn checksums_of_every_program() {
        const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let only = |text: String| only_checksum(Method::Sha256, text.as_bytes());
        let digest = Digest::parse(HEX.as_bytes()).map(Checksum::Sha256);
        for form in ["(stdin)= #", "SHA2-256(stdin)= #", "#  -", "#", "SHA256 (-) = #"] {
            assert_eq!(only(form.replace('#', HEX)), digest, "{form}");
        }
        for bad in ["", "# failed", "# #", "SHA256"] {
            assert_eq!(only(bad.replace('#', HEX)), None, "{bad}");
        }
        let gmac = Method::Gmac(Key([0; 16]));
        let tag = Some(Checksum::Gmac([0xAB; 16]));
        assert_eq!(only_checksum(gmac, "AB".repeat(16).as_bytes()), tag);
        assert_eq!(only_checksum(gmac, format!("{} failed", "AB".repeat(16)).as_bytes()), None);
        assert_eq!(only_checksum(gmac, HEX.as_bytes()), None);
        assert_eq!(only_checksum(Method::Crc, b"1219131554 3"), Some(Checksum::Crc(1_219_131_554)));
        assert_eq!(only_checksum(Method::Crc, b"4294967296 3"), None);
        assert_eq!(only_checksum(Method::Crc, b" failed"), None);
    }

    #[test]
    fn progress_is_not_kept() {
        let mut lines = HashLines::default();
        assert_eq!(lines.take(b"haul-begin 1\nat 5\nat 6\nat"), Some(6));
        assert_eq!(lines.take(b" 70"), None);
        assert_eq!(lines.take(b"\ndigest x\n"), Some(70));
        assert_eq!(lines.kept, b"haul-begin 1\ndigest x\n");
        assert_eq!(lines.take(&vec![b'x'; 2 * OUTPUT_MAX_BYTES]), None);
        assert!(lines.kept.len() < OUTPUT_MAX_BYTES);
    }
}
