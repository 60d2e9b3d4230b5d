//! Jobs, the probe, hashes and the start of a merge, over real shells and over fakes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use haul::engine::job::{JobError, JobLimits, JobStatus, run_script};
use haul::engine::probe::{
    Fast, HashError, HashProgram, NoShell, Shell, Witness, hash_file, probe, probe_fast,
};
use haul::model::checksum::{Chain, Checksum, Method};
use haul::model::gmac::Key;
use haul::model::merge_script::{MergeState, Started, start_script};
use haul::model::remote_path::RemotePath;
use haul::model::shell::Script;
use haul::remote::Connection;
use tempfile::TempDir;

use super::scene::{Scene, until};
use super::shells::{LOGIN_SHELLS, Machine, SHELLS};

const LIMITS: JobLimits =
    JobLimits { timeout: Some(Duration::from_secs(30)), silence: None, max_output_bytes: 1000 };

fn remote(path: &Path) -> RemotePath {
    RemotePath::new(path.as_os_str().as_bytes()).expect("a path")
}

/// A directory with a file of hostile name and content.
fn witness() -> (TempDir, Witness) {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("it's \n a \"$(witness)\".lock");
    let content = b"line\nuser: \\n $x 'y'\n\n\n".to_vec();
    fs::write(&path, &content).expect("the witness");
    (directory, Witness::File { path: remote(&path), content })
}

async fn probed(connection: &dyn Connection, witness: &Witness) -> Result<Shell, NoShell> {
    probe(connection, witness).await
}

#[tokio::test]
async fn every_login_shell_and_every_sh_is_proven() {
    let (directory, file) = witness();
    for shell in SHELLS {
        let machine = Machine::new(shell);
        for login in LOGIN_SHELLS {
            let connection = machine.login(login).await;
            let found =
                probed(&*connection, &file).await.unwrap_or_else(|no| panic!("{login}, {shell}: {no}"));
            // mksh counts in 32 bits.
            assert_eq!(found.wide_arithmetic, shell != "mksh", "{login}, {shell}");
            assert!(found.setsid, "{login}, {shell}");
            assert!(found.system.starts_with("Linux"), "{found:?}");
            let expected = if shell == "busybox" { HashProgram::Coreutils } else { HashProgram::OpenSsl };
            assert_eq!(found.hash, Some(expected), "{login}, {shell}");
        }
        let connection = machine.login("dash").await;
        assert!(probed(&*connection, &Witness::Directory(remote(directory.path()))).await.is_ok());
    }
}

#[tokio::test]
async fn a_shell_that_sees_other_files_is_none() {
    let (directory, file) = witness();
    let machine = Machine::new("dash");
    let connection = machine.login("bash").await;
    let Witness::File { path, content } = file else { unreachable!("a file") };
    let absent = remote(&directory.path().join("absent"));
    for wrong in [
        Witness::File { path: absent.clone(), content: content.clone() },
        Witness::File { path: path.clone(), content: content[1..].to_vec() },
        Witness::File { path: path.clone(), content: content[..content.len() - 1].to_vec() },
        Witness::File { path: remote(directory.path()), content },
        Witness::Directory(absent),
        Witness::Directory(path),
    ] {
        let no = probed(&*connection, &wrong).await.expect_err("no shell");
        assert!(no.to_string().contains("does not see"), "{no}");
    }
}

#[tokio::test]
async fn what_only_looks_like_a_shell_is_none() {
    let (_directory, file) = witness();
    let machine = Machine::new("dash");
    for (fake, script) in [
        ("echoes its input", "exec cat"),
        ("echoes the command", "printf '%s\\n' \"$2\""),
        ("echoes the words", "cat; printf '%s\\n' 'haul-begin 1' 'seen yes' 'haul-end 1'"),
        ("exits 0", "exit 0"),
        ("exits 0 when it has read all", "cat >/dev/null"),
        ("prints a sentence", "echo This service allows sftp connections only.; exit 1"),
        ("answers SFTP", "exec /usr/lib/openssh/sftp-server"),
        ("prints zeros without end", "exec cat /dev/zero"),
        ("dies", "kill -9 $$"),
    ] {
        let start = Instant::now();
        let no = probed(&*machine.forced(script).await, &file).await.expect_err(fake);
        assert!(!no.to_string().contains('\n'), "{fake}: {no}");
        assert!(start.elapsed() < Duration::from_secs(40), "{fake}");
    }
}

#[tokio::test]
async fn a_shell_that_never_answers_is_none_in_ten_seconds() {
    let (_directory, file) = witness();
    let machine = Machine::new("dash");
    let no = probed(&*machine.forced("exec sleep 30").await, &file).await.expect_err("no shell");
    assert!(no.to_string().contains("10 s"), "{no}");
}

#[tokio::test]
async fn a_greeting_does_not_hide_a_shell() {
    let (_directory, file) = witness();
    let machine = Machine::new("dash");
    let connection = machine.forced("echo Welcome; echo hash busybox; eval \"$2\"").await;
    assert_eq!(probed(&*connection, &file).await.map(|shell| shell.hash), Ok(Some(HashProgram::OpenSsl)));
}

fn checksum_of(method: Method, bytes: &[u8]) -> Checksum {
    let mut chain = Chain::new(method);
    chain.update(bytes);
    chain.finish()
}

#[tokio::test]
async fn hashes_by_every_program_here() {
    let directory = TempDir::new().expect("a temporary directory");
    let content = b"some bytes\n".repeat(50_000);
    let gmac = Method::Gmac(Key([0xc3; 16]));
    for name in [&b"-plain"[..], b"it's\n$(x) \\ \xff", b"*"] {
        let path = directory.path().join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, &content).expect("a file");
        for (shell, program) in [
            ("dash", HashProgram::OpenSslGmac),
            ("dash", HashProgram::PosixCksum),
            ("dash", HashProgram::OpenSsl),
            ("dash", HashProgram::Coreutils),
            ("dash", HashProgram::Shasum),
            ("dash", HashProgram::Cksum),
            ("bash", HashProgram::OpenSsl),
            ("bash", HashProgram::Python),
            ("mksh", HashProgram::OpenSsl),
            ("zsh", HashProgram::Coreutils),
            ("busybox", HashProgram::Coreutils),
            ("busybox", HashProgram::BusyBox),
        ] {
            let machine = Machine::new(shell);
            let connection = machine.login("dash").await;
            let method = match program {
                HashProgram::OpenSslGmac => gmac,
                HashProgram::PosixCksum => Method::Crc,
                _ => Method::Sha256,
            };
            let (path, size) = (remote(&path), content.len() as u64);
            let checksum = hash_file(&*connection, program, method, &path, size, |_| ()).await;
            let expected = checksum_of(method, &content);
            assert_eq!(checksum.map_err(|e| e.to_string()), Ok(expected), "{shell}, {program:?}");
        }
    }
}

#[tokio::test]
async fn what_is_fast_is_tried_and_not_believed() {
    let machine = Machine::new("dash");
    assert_eq!(probe_fast(&*machine.login("bash").await).await, Fast { gmac: true, crc: true });
    let busybox = Machine::new("busybox");
    // Whether it has a cksum depends on how it was built.
    assert!(!probe_fast(&*busybox.login("busybox").await).await.gmac);
    // Programs of these names that compute something else.
    let other = "openssl() { echo 00000000000000000000000000000000; }; cksum() { echo 1 3; }; \
                 IFS= read -r line; eval \"$line\"";
    let connection = machine.forced(other).await;
    assert_eq!(probe_fast(&*connection).await, Fast::default());
    assert_eq!(probe_fast(&*machine.forced("exit 0").await).await, Fast::default());
}

#[tokio::test]
async fn a_hash_that_cannot_be_is_an_error() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("file");
    fs::write(&path, "content").expect("a file");
    let machine = Machine::new("dash");
    let connection = machine.login("bash").await;
    let hashed = |path: RemotePath, program, size| {
        let connection = &connection;
        async move {
            hash_file(&**connection, program, Method::Sha256, &path, size, |_| ())
                .await
                .expect_err("no digest")
                .to_string()
        }
    };
    let absent = remote(&directory.path().join("absent"));
    assert!(hashed(absent, HashProgram::OpenSsl, 7).await.contains("failed"));
    assert!(hashed(remote(directory.path()), HashProgram::OpenSsl, 7).await.contains("failed"));
    assert!(hashed(remote(&path), HashProgram::SolarisDigest, 7).await.contains("failed"));
    let longer = hashed(remote(&path), HashProgram::OpenSsl, 8).await;
    assert!(longer.contains("has 7 bytes on the target, not 8"), "{longer}");

    // It echoes the script and ends; a host that waits for more never got through the probe.
    let echo = machine.forced("exec head -n 1").await;
    let error = hash_file(&*echo, HashProgram::OpenSsl, Method::Sha256, &remote(&path), 7, |_| ()).await;
    assert!(matches!(error, Err(HashError::Failed(_))), "{error:?}");
}

#[tokio::test]
async fn a_long_hash_tells_where_it_stands() {
    const SIZE: u64 = 1 << 30;
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(SIZE).expect("a sparse file");
    let machine = Machine::new("busybox");
    let connection = machine.login("busybox").await;
    let mut heard = Vec::new();
    let path = remote(file.path());
    let digest =
        hash_file(&*connection, HashProgram::BusyBox, Method::Sha256, &path, SIZE, |at| heard.push(at));
    let digest = digest.await.expect("a digest");
    assert_eq!(digest.to_string(), "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14");
    assert!(heard.is_sorted() && heard.iter().any(|at| (1..SIZE).contains(at)), "{heard:?}");
}

#[tokio::test]
async fn a_job_tells_status_and_output_apart() {
    let machine = Machine::new("dash");
    let connection = machine.login("dash").await;
    let script = Script::new(&["echo \"$v\"; echo problem >&2; exit 42\n"]).set("v", "it's");
    let output = run_script(&*connection, &script, LIMITS).await.expect("an output");
    assert_eq!(output.status, JobStatus::Exited(42));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"it's\n"[..], &b"problem\n"[..]));
    assert!(!output.truncated);

    let killed = run_script(&*connection, &Script::new(&["kill -15 $$\n"]), LIMITS).await.expect("a status");
    assert_eq!(killed.status, JobStatus::Signaled("TERM".into()));

    let input =
        run_script(&*connection, &Script::new(&["cat; echo end\n"]), LIMITS).await.expect("an output");
    assert_eq!(input.stdout, b"end\n", "standard input is at its end");
}

#[tokio::test]
async fn a_jobs_output_is_bounded_and_drained() {
    let machine = Machine::new("dash");
    let connection = machine.login("dash").await;
    let script = Script::new(&["head -c 3000000 /dev/zero; head -c 1001 /dev/zero >&2; echo x\n"]);
    let output = run_script(&*connection, &script, LIMITS).await.expect("an output");
    assert_eq!(output.status, JobStatus::Exited(0));
    assert_eq!((output.stdout.len(), output.stderr.len()), (1000, 1000));
    assert!(output.truncated);
}

#[tokio::test]
async fn a_job_ends_at_its_limits() {
    let machine = Machine::new("dash");
    let connection = machine.login("dash").await;
    let short = Duration::from_millis(300);
    let script = Script::new(&["while sleep 0.05; do echo alive; done\n"]);
    let timed = run_script(&*connection, &script, JobLimits { timeout: Some(short), ..LIMITS }).await;
    assert!(matches!(timed, Err(JobError::TimedOut(limit)) if limit == short), "{timed:?}");
    let script = Script::new(&["sleep 30\n"]);
    let silent = run_script(&*connection, &script, JobLimits { silence: Some(short), ..LIMITS }).await;
    assert!(matches!(silent, Err(JobError::Silent(limit)) if limit == short), "{silent:?}");
}

/// The exit status comes first, and a child that was left behind holds the output open.
#[tokio::test]
async fn a_job_does_not_wait_for_a_child_left_behind() {
    let machine = Machine::new("dash");
    let connection = machine.login("dash").await;
    let script = Script::new(&["sleep 25 & echo done\n"]);
    let start = Instant::now();
    let output = run_script(&*connection, &script, LIMITS).await.expect("an output");
    assert_eq!((output.status, &output.stdout[..]), (JobStatus::Exited(0), &b"done\n"[..]));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_merge_is_started_apart_and_once() {
    for shell in ["dash", "bash", "busybox", "zsh"] {
        let machine = Machine::new(shell);
        let connection = machine.login("dash").await;
        let scene = Scene::new(b"it's -\n$x", 4, 4096, 7);
        let start = async || {
            let output = run_script(&*connection, &start_script(&scene.names, scene.run), LIMITS).await;
            let output = output.expect("an output");
            Started::parse(&output.stdout).unwrap_or_else(|| panic!("{shell}: {output:?}"))
        };
        assert_eq!(start().await, Started::Absent, "{shell}");
        scene.write_script();
        scene.put_chunks([1, 2]);
        let Started::Now(pid) = start().await else { panic!("{shell}: not started") };
        until("two chunks merged", || scene.recorded() == 2);
        assert!(matches!(scene.state(), MergeState::Running { pid: told, .. } if told == pid), "{shell}");
        // A session of its own, which the end of the connection does not reach.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        assert_eq!(fields[3], pid.to_string(), "{shell}: session");
        assert_eq!(start().await, Started::Before(pid), "{shell}");
        scene.put_chunks([3, 4]);
        until("the end", || scene.state() == MergeState::Done);
        until("the process is gone", || {
            fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
        });
        scene.write_script();
        assert!(matches!(start().await, Started::Now(_)), "{shell}");
        until("the end again", || scene.state() == MergeState::Done);
        connection.disconnect().await;
    }
}
