//! `haul demo`: an upload against an SSH server inside this process, cut off half way,
//! resumed and verified. It needs no SSH server, no key and no right.

mod ledger;
mod run;
mod sample;

pub use run::run;

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::failure::{Failure, FailureKind, Phase};
use crate::engine::monitor::Monitor;
use crate::engine::options::{
    Connections, IfExists, LockOptions, MergeMethod, PutOptions, RetryOptions, VerifyMethod, Wait,
};
use crate::engine::put::{PutJob, put};
use crate::engine::report::{MergedBy, PutReport, PutStatus, VerifiedBy};
use crate::engine::stop::Stop;
use crate::model::chunk::ChunkSize;
use crate::model::digest::Digest;
use crate::model::names::UserId;
use crate::model::units::{human_duration, human_rate, human_size};
use crate::remote::loopback::LoopbackServer;
use crate::remote::ssh::{NoPrompter, SshConnector, SshOptions, StrictHostKeyChecking};
use ledger::Ledger;

/// Of the generated file; any will do.
const SEED: u64 = 8;
/// Files smaller than this many chunks of the default size get smaller chunks, so that
/// a cut half way leaves some behind.
const CHUNKS_MIN: u64 = 24;
/// A smaller file would be on its way as a whole before the first chunk is complete.
const SIZE_MIN: u64 = 64 << 20;
/// How often the same upload is begun again where it does not reconnect by itself.
const RUNS_MAX: u32 = 3;
/// How long a later run waits for the lock of the one before, whose link is gone.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// Source and target, and what the upload needs on top.
const SPACE_FACTOR: u64 = 3;
const FILE_NAME: &str = "demo.img";
/// The server lets its key in, whatever the user's name is.
const LOGIN: &str = "demo";

pub struct DemoRequest {
    /// Leave the server up until asked to stop.
    pub keep: bool,
    /// Of the generated file, in bytes.
    pub size: u64,
    pub user: UserId,
    /// Local `user@host`, for the lock.
    pub holder: String,
    /// Where temporary files go.
    pub temp: PathBuf,
    /// How haul was called, for the command that `keep` prints.
    pub program: String,
}

/// Hears the story.
pub trait Audience: Send {
    /// One line or several, without the last line end.
    fn tell(&mut self, text: &str) -> std::io::Result<()>;

    /// The monitor has nothing to say any more.
    fn upload_ended(&mut self) {}
}

/// Runs the demo and tells `audience` what happened. Fails when anything is not as it
/// should be. `monitor` hears of the upload as that of any `haul put` does.
pub async fn demo(
    request: DemoRequest,
    audience: &mut dyn Audience,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
) -> Result<(), Failure> {
    if request.size < SIZE_MIN {
        let text = format!("the demo's file has at least {}", human_size(SIZE_MIN));
        return Err(Failure::new(FailureKind::Usage, Phase::Source, "", text));
    }
    let stage = Stage::set(&request).await?;
    let shown = show(&request, &stage, audience, monitor, &stop).await;
    let kept = match shown {
        Ok(()) if request.keep => invite(&request, &stage, audience, &stop).await,
        shown => shown,
    };
    let cleared = stage.clear().await;
    kept.and(cleared)
}

/// The server and its files, all in one temporary directory that only this user enters.
struct Stage {
    directory: tempfile::TempDir,
    server: LoopbackServer,
}

impl Stage {
    async fn set(request: &DemoRequest) -> Result<Stage, Failure> {
        let temp = &request.temp;
        check_space(temp, request.size)?;
        let directory = tempfile::Builder::new()
            .prefix("haul-demo-")
            .tempdir_in(temp)
            .map_err(|error| Failure::local(Phase::Source, temp, &error))?;
        let path = directory.path();
        let served = path.join("served");
        std::fs::create_dir(&served).map_err(|error| Failure::local(Phase::Source, &served, &error))?;
        let failed = |error| Failure::new(FailureKind::Failed, Phase::Connect, "127.0.0.1", error);
        let server = LoopbackServer::start(served).await.map_err(failed)?;
        write_private(&path.join("key"), &server.client_key_pem().map_err(failed)?)?;
        write_private(&path.join("known_hosts"), &server.known_hosts_line().map_err(failed)?)?;
        Ok(Stage { directory, server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("served").join(FILE_NAME)
    }

    fn connector(&self) -> Arc<SshConnector> {
        let options = SshOptions {
            host: "demo".to_owned(),
            address: self.server.address().ip().to_string(),
            port: self.server.port(),
            user: LOGIN.to_owned(),
            identity_files: vec![self.path("key")],
            identities_only: true,
            batch_mode: true,
            user_known_hosts: vec![self.path("known_hosts")],
            strict_host_key_checking: StrictHostKeyChecking::Yes,
            ..SshOptions::default()
        };
        Arc::new(SshConnector::new(options, Arc::new(NoPrompter)))
    }

    async fn clear(self) -> Result<(), Failure> {
        let path = self.directory.path().to_owned();
        self.server.stop().await;
        self.directory.close().map_err(|error| Failure::local(Phase::Clean, &path, &error))
    }
}

/// The story itself, from the generated file to the verdict.
async fn show(
    request: &DemoRequest,
    stage: &Stage,
    audience: &mut dyn Audience,
    monitor: Arc<dyn Monitor>,
    stop: &Stop,
) -> Result<(), Failure> {
    let size = request.size;
    let server_line = format!(
        "server     SSH with SFTP and nothing else, inside this process, 127.0.0.1 port {}",
        stage.server.port()
    );
    say(audience, &server_line)?;
    let source = stage.path(FILE_NAME);
    let here = on_disk(&source, move |path| sample::generate(path, size, SEED)).await?;
    say(audience, &format!("source     {} that look random", human_size(size)))?;

    let half = size / 2;
    stage.server.cut_after(half);
    let ledger = Arc::new(Ledger::new(monitor));
    let options = put_options(request)?;
    let chunk_size = options.chunk_size;
    let (report, runs, time) = upload(stage, &source, options, &ledger, stop).await?;
    let there = on_disk(&stage.target(), sample::hash).await?;

    let (kept, retries) = (ledger.kept(), ledger.retries());
    drop(ledger);
    audience.upload_ended();
    let result = Outcome { report, runs, retries, time, here, there, kept, chunk_size, stage, size, half };
    for line in result.lines() {
        say(audience, &line)?;
    }
    result.judge()?;
    say(audience, "all is well: cut off half way, resumed, and the same bytes on both sides")
}

fn say(audience: &mut dyn Audience, text: &str) -> Result<(), Failure> {
    let told = audience.tell(text);
    told.map_err(|error| Failure::new(FailureKind::Failed, Phase::Upload, "standard output", error))
}

/// Runs `put`, and again where it ended with the link. Gives the last run's report, how
/// many it took and how long all took.
async fn upload(
    stage: &Stage,
    source: &Path,
    options: PutOptions,
    ledger: &Arc<Ledger>,
    stop: &Stop,
) -> Result<(PutReport, u32, Duration), Failure> {
    let connector = stage.connector();
    let job = PutJob {
        source: source.to_owned(),
        destination: format!("/{FILE_NAME}").into_bytes(),
        into_directory: false,
    };
    let begin = Instant::now();
    for run in 1.. {
        match put(connector.clone(), job.clone(), options.clone(), ledger.clone(), stop.clone()).await {
            Ok(report) => return Ok((report, run, begin.elapsed())),
            Err(failure) if failure.kind == FailureKind::Link && run < RUNS_MAX => ledger.next_run(),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(FailureKind::Link, Phase::Upload, "demo", "the link was lost too often"))
}

fn put_options(request: &DemoRequest) -> Result<PutOptions, Failure> {
    let chunk_bytes = (request.size / CHUNKS_MIN).clamp(ChunkSize::MIN, ChunkSize::DEFAULT.bytes());
    let chunk_size = ChunkSize::new(chunk_bytes)
        .map_err(|error| Failure::new(FailureKind::Usage, Phase::Source, "", error))?;
    Ok(PutOptions {
        user: request.user.clone(),
        chunk_size,
        if_exists: IfExists::Fail,
        lock: LockOptions {
            wait: Wait::AtMost(LOCK_WAIT),
            break_lock: false,
            no_lock: false,
            holder: request.holder.clone(),
        },
        merge: MergeMethod::Auto,
        verify: VerifyMethod::Sha256,
        quick: false,
        rehash: false,
        preserve: false,
        chmod: None,
        chown: Default::default(),
        hash_existing: false,
        bwlimit: None,
        connections: Connections::Auto,
        retry: RetryOptions { retries: 5, stall_timeout: Duration::from_secs(30) },
        dry_run: false,
        non_atomic_replace: false,
    })
}

/// What came out, for the telling and for the verdict.
struct Outcome<'a> {
    report: PutReport,
    runs: u32,
    retries: u32,
    time: Duration,
    here: Digest,
    there: Digest,
    /// Bytes that stood whole on the target when the upload went on.
    kept: u64,
    chunk_size: ChunkSize,
    stage: &'a Stage,
    size: u64,
    half: u64,
}

impl Outcome<'_> {
    fn lines(&self) -> Vec<String> {
        let server = &self.stage.server;
        let kept_chunks = self.kept.div_ceil(self.chunk_size.bytes());
        let sent_after = self.report.chunks_total.saturating_sub(kept_chunks);
        let again = server.bytes_written().saturating_sub(self.size);
        let how = match self.runs {
            1 => "by itself, on a new connection".to_owned(),
            runs => format!("by the same command, run {runs} times in all"),
        };
        vec![
            format!("cut        the connection, without a goodbye, after {}", human_size(self.half)),
            format!("resumed    {how}"),
            format!(
                "chunks     {} in all: {kept_chunks} kept, {sent_after} sent after the cut; {} went twice",
                self.report.chunks_total,
                human_size(again)
            ),
            format!("finished   {}", finished(&self.report)),
            format!("sha256     {}  as computed here", self.here),
            format!("sha256     {}  as computed on the target", self.there),
            format!(
                "rate       {}: {} in {}, the cut and the verification with it",
                human_rate(self.size, self.time),
                human_size(self.size),
                human_duration(self.time)
            ),
        ]
    }

    /// All that has to be so.
    fn judge(&self) -> Result<(), Failure> {
        let server = &self.stage.server;
        let mut wrong = String::new();
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                // Writing to a String cannot fail.
                let _ = write!(wrong, "{}{what}", if wrong.is_empty() { "" } else { ", and " });
            }
        };
        expect(self.here == self.there, "the bytes on the target are not the source's");
        expect(self.report.sha256 == Some(self.here), "the reported SHA-256 is not the source's");
        expect(self.report.status == PutStatus::Uploaded, "nothing was uploaded");
        expect(server.cuts() == 1, "the connection was not cut");
        expect(server.connections() >= 2, "nothing connected again");
        expect(self.runs > 1 || self.retries > 0, "no retry was told of");
        expect(self.kept > 0, "no chunk was kept");
        let sent_twice = server.bytes_written().saturating_sub(self.size);
        expect(sent_twice < self.half, "what had arrived was sent again");
        let served = self.stage.path("served");
        let names =
            std::fs::read_dir(&served).map_err(|error| Failure::local(Phase::Clean, &served, &error))?;
        expect(names.count() == 1, "something is left beside the target");
        if wrong.is_empty() {
            return Ok(());
        }
        let failure = Failure::new(FailureKind::Verification, Phase::Verify, "demo", wrong);
        Err(failure.next_step("this is a fault of haul's: please report it"))
    }
}

fn finished(report: &PutReport) -> String {
    let merged = match report.merge {
        Some(MergedBy::Placed) | None => "chunks placed where they belong",
        Some(MergedBy::Script) => "chunks merged by a script on the target",
        Some(MergedBy::Sftp) => "chunks merged over SFTP",
    };
    let verified = match report.verified_by {
        Some(VerifiedBy::Sha256Target) => "verified by SHA-256 on the target",
        Some(VerifiedBy::Sha256Readback) => "verified by SHA-256 of what was read back",
        Some(VerifiedBy::MacTarget | VerifiedBy::CrcTarget) => "verified by a checksum on the target",
        Some(VerifiedBy::MacReadback | VerifiedBy::CrcReadback) => {
            "verified by a checksum of what was read back"
        }
        Some(VerifiedBy::Size) | None => "not verified",
    };
    format!("{merged}, {verified}, put in place by one rename")
}

/// Leaves the server up and says how to use it.
async fn invite(
    request: &DemoRequest,
    stage: &Stage,
    audience: &mut dyn Audience,
    stop: &Stop,
) -> Result<(), Failure> {
    let quoted = |path: PathBuf| shell_word(&path.to_string_lossy());
    let known_hosts = ssh_word(&stage.path("known_hosts").to_string_lossy());
    let command = format!(
        "{} put -P {} -i {} -o {} {} {LOGIN}@127.0.0.1:/again.img",
        shell_word(&request.program),
        stage.server.port(),
        quoted(stage.path("key")),
        shell_word(&format!("UserKnownHostsFile={known_hosts}")),
        quoted(stage.path(FILE_NAME)),
    );
    let served = quoted(stage.path("served"));
    say(audience, &format!("\nThe server stays up, over {served}. Try:\n\n  {command}\n\nCtrl-C ends it."))?;
    stop.stopped().await;
    Ok(())
}

/// `text` as one word of ssh_config, where several may stand.
fn ssh_word(text: &str) -> String {
    match text.contains(|c: char| c.is_whitespace() || "\"'\\#".contains(c)) {
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        false => text.to_owned(),
    }
}

/// `text` as one word of a POSIX shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+@:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Does what blocks off the threads that serve connections.
async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let owned = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.map_err(std::io::Error::other)
        .and_then(|done| done)
        .map_err(|error| Failure::local(Phase::Source, path, &error))
}

fn write_private(path: &Path, content: &str) -> Result<(), Failure> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(|error| Failure::local(Phase::Source, path, &error))
}

fn check_space(directory: &Path, size: u64) -> Result<(), Failure> {
    let space = rustix::fs::statvfs(directory)
        .map_err(|error| Failure::local(Phase::Source, directory, &error.into()))?;
    let available = space.f_bavail.saturating_mul(space.f_frsize);
    let needed = size.saturating_mul(SPACE_FACTOR);
    if available >= needed {
        return Ok(());
    }
    let cause = format!("needs {}, has {}", human_size(needed), human_size(available));
    Err(Failure::new(FailureKind::Storage, Phase::Source, directory.display(), cause)
        .next_step("set TMPDIR to a directory with more room"))
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn words_survive_a_shell() {
        for word in ["", "/tmp/plain", "a b", "it's", "$(x)`y`\\", "ü", "-x;y"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", shell_word(word))])
                .output()
                .expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
        assert_eq!(shell_word("/tmp/plain"), "/tmp/plain");
    }
}
