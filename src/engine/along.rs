//! A checksum on the target that keeps up with the upload: a program there reads the merged
//! file as far as it is told, so that next to nothing is left to hash at the end.
//!
//! It is an optimisation and no more: whatever goes wrong here, the merged file is hashed
//! once it is complete.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::board::Board;
use super::monitor::{Level, Monitor, Notice};
use super::probe::{BEGIN, DIGEST, END, HashProgram, Nonce, Shell, keyed, only_checksum};
use super::site::Site;
use crate::model::checksum::{Checksum, Method};
use crate::model::chunk::Geometry;
use crate::model::escape::printable;
use crate::model::remote_path::RemotePath;
use crate::model::shell::{COMMAND, Script};
use crate::remote::ExecRequest;
use crate::remote::process::{Process, ProcessEvent};

/// A program that has this much to read without a word between is believed to be at work.
const STEP_BYTES: u64 = 256 << 20;
/// A step that takes longer has stalled: the slowest programs read 100 MB/s.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// All that it has to say, many times over.
const OUTPUT_MAX_BYTES: usize = 64 << 10;
/// What dd reads at a time: more falls out of the cache.
const MAX_BLOCK_BYTES: u64 = 64 << 10;
/// Reading in smaller blocks costs more than it saves.
const MIN_BLOCK_BYTES: u64 = 4 << 10;
/// From this round trip on, the link and not the target's processors sets the pace.
const SLOW_LINK: Duration = Duration::from_millis(2);

/// Reads standard input line by line: how far to read, or `end`. Ends without a digest when
/// the lines end before that. `at` says what was read, and keeps the link awake.
const FOLLOW: &str = r#"
if [ "$program" = python3 ]; then
    python3 -I -S -c 'import hashlib, sys
digest, read, part = hashlib.sha256(), 0, memoryview(bytearray(1 << 16))
with open(sys.argv[1], "rb", buffering=0) as file:
    for line in iter(sys.stdin.buffer.readline, b""):
        if line == b"end\n":
            print("digest", digest.hexdigest())
            break
        while read < int(line):
            count = file.readinto(part[:int(line) - read])
            if not count:
                sys.exit("the file is too short")
            digest.update(part[:count])
            read += count
        print("at", read, flush=True)' "$file"
else
    exec 3>&1
    printf 'digest %s\n' "$({
        got=0
        while IFS= read -r line && [ "$line" != end ]; do
            blocks=$(((line - got + block - 1) / block))
            dd if="$file" bs="$block" skip="$((got / block))" count="$blocks" 2>/dev/null || exit
            got=$line
            printf 'at %s\n' "$got" >&3
        done
    } | digest_by "$program")"
fi
"#;

/// A hash that is under way. Dropping it ends it.
pub struct Along(JoinHandle<Result<Checksum, String>>);

impl Along {
    /// Begins in the background; where the target has nothing for it, the outcome says so.
    pub fn start(
        site: &Site,
        merged: &RemotePath,
        geometry: Geometry,
        method: Method,
        board: &Arc<Board>,
        monitor: &Arc<dyn Monitor>,
    ) -> Along {
        let (site, merged) = (site.clone(), merged.clone());
        let (board, monitor) = (board.clone(), monitor.clone());
        Along(tokio::spawn(async move {
            let shell = site.shell(&monitor).await.cloned();
            let shell = shell.ok_or_else(|| "no shell".to_owned())?;
            let program = site.program(method, &monitor).await;
            let program = program_that_follows(program, &shell, geometry, site.files.round_trip())
                .ok_or_else(|| "no program for it".to_owned())?;
            follow(&site, (program, method), &merged, geometry, &board).await
        }))
    }

    /// With all chunks on the board: the digest of the merged file, if there is one.
    pub async fn finish(mut self, site: &Site, monitor: &Arc<dyn Monitor>) -> Option<Checksum> {
        let reason = match (&mut self.0).await {
            Ok(Ok(digest)) => return Some(digest),
            Ok(Err(reason)) => reason,
            Err(error) => error.to_string(),
        };
        let text = format!("{}: not hashed while uploading: {reason}", site.place());
        monitor.notice(Notice { level: Level::Detail, text });
        None
    }
}

impl Drop for Along {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Python reads a file by itself. The others get it through a pipe, which costs as much again
/// as the hash: that pays only where processors wait for the link.
fn program_that_follows(
    program: Option<HashProgram>,
    shell: &Shell,
    geometry: Geometry,
    round_trip: Option<Duration>,
) -> Option<HashProgram> {
    let by_sha256 = !matches!(program, Some(HashProgram::OpenSslGmac | HashProgram::PosixCksum));
    if shell.python && by_sha256 {
        return Some(HashProgram::Python);
    }
    let slow = round_trip.is_some_and(|time| time >= SLOW_LINK);
    program.filter(|_| slow && shell.wide_arithmetic && block_bytes(geometry) >= MIN_BLOCK_BYTES)
}

/// The largest power of two that divides the chunk size, as far as it is of use.
fn block_bytes(geometry: Geometry) -> u64 {
    let size = geometry.chunk_size().bytes();
    (1 << size.trailing_zeros().min(63)).min(MAX_BLOCK_BYTES)
}

async fn follow(
    site: &Site,
    (program, method): (HashProgram, Method),
    merged: &RemotePath,
    geometry: Geometry,
    board: &Board,
) -> Result<Checksum, String> {
    let nonce = Nonce::new().ok_or("no random numbers here")?;
    let script = keyed(Script::new(&[DIGEST, BEGIN, FOLLOW, END]), method)
        .number("a", nonce.a.into())
        .number("b", nonce.b.into())
        .number("block", block_bytes(geometry))
        .set("program", program.name())
        .set("file", merged.as_bytes());
    let request = ExecRequest { command: COMMAND, terminal: None };
    let mut process = site.connection.exec(request).await.map_err(|error| error.to_string())?;
    let mut output = Output::default();
    send(&mut process, &mut output, script.line().as_bytes()).await?;

    let chunks = geometry.chunks();
    let (mut chunk, mut at) = (0, 0);
    while chunk < chunks {
        chunk = tokio::select! {
            filled = board.filled_beyond(chunk) => filled,
            heard = output.hear(&mut process) => {
                heard?;
                continue;
            }
        };
        let end = geometry.end(chunk);
        while at < end {
            at = end.min((at + STEP_BYTES).next_multiple_of(geometry.chunk_size().bytes()));
            if at == geometry.size() {
                break;
            }
            send(&mut process, &mut output, format!("{at}\n").as_bytes()).await?;
            // One step at a time: what is read next is still in the cache.
            let heard = async {
                while output.at < at {
                    output.hear(&mut process).await?;
                }
                Ok::<(), String>(())
            };
            timeout(STEP_LIMIT, heard).await.map_err(|_| "it stalled".to_owned())??;
        }
    }
    send(&mut process, &mut output, format!("{at}\nend\n").as_bytes()).await?;
    let rest =
        async { while nonce.answer(&output.kept).is_none() && output.hear(&mut process).await.is_ok() {} };
    timeout(STEP_LIMIT, rest).await.map_err(|_| "it does not end".to_owned())?;
    let answer = nonce.answer(&output.kept).ok_or_else(|| output.excerpt())?;
    let digest = answer.iter().find_map(|line| line.strip_prefix(b"digest "));
    let digest = digest.and_then(|text| only_checksum(method, text));
    digest.ok_or_else(|| output.excerpt())
}

async fn send(process: &mut Process, output: &mut Output, bytes: &[u8]) -> Result<(), String> {
    let sent = async {
        process.stdin.write_all(bytes).await?;
        process.stdin.flush().await
    };
    match timeout(STEP_LIMIT, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => {
            // What it said tells more than a broken pipe.
            let rest = async { while output.hear(process).await.is_ok() {} };
            let _ = timeout(Duration::from_secs(1), rest).await;
            Err(output.excerpt())
        }
        Err(_) => Err("it takes no input".to_owned()),
    }
}

/// What came so far, and how far the file was read.
#[derive(Default)]
struct Output {
    at: u64,
    partial: Vec<u8>,
    kept: Vec<u8>,
    errors: Vec<u8>,
}

impl Output {
    /// Takes the next piece; an error when there are no more. May be dropped while it waits.
    async fn hear(&mut self, process: &mut Process) -> Result<(), String> {
        match process.events.recv().await {
            Some(ProcessEvent::Stdout(data)) => self.take(&data),
            Some(ProcessEvent::Stderr(data)) if self.errors.len() < OUTPUT_MAX_BYTES => {
                self.errors.extend_from_slice(&data);
                Ok(())
            }
            // What it wrote may come after its status.
            Some(ProcessEvent::Stderr(_) | ProcessEvent::Exited(_) | ProcessEvent::Signaled { .. }) => Ok(()),
            Some(ProcessEvent::Eof) | None => Err(self.excerpt()),
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), String> {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if self.kept.len() + self.partial.len() + piece.len() > OUTPUT_MAX_BYTES {
                return Err("it says too much".to_owned());
            }
            self.partial.extend_from_slice(piece);
            let Some(line) = self.partial.strip_suffix(b"\n") else { continue };
            let told = line.strip_prefix(b"at ").and_then(|at| std::str::from_utf8(at).ok()?.parse().ok());
            match told {
                Some(at) => self.at = at,
                None => self.kept.append(&mut self.partial),
            }
            self.partial.clear();
        }
        Ok(())
    }

    fn excerpt(&self) -> String {
        const EXCERPT_BYTES: usize = 120;
        let said = if self.errors.is_empty() { &self.kept } else { &self.errors };
        let line = said.rsplit(|byte| *byte == b'\n').find(|line| !line.is_empty()).unwrap_or_default();
        format!("it ended early: \"{}\"", printable(&line[..line.len().min(EXCERPT_BYTES)]))
    }
}
