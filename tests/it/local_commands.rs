//! Commands on this machine, through the same trait as those behind a channel.

use std::time::Duration;

use bytes::Bytes;
use haul::remote::local::LocalConnector;
use haul::remote::process::{ProcessControl, ProcessEvent};
use haul::remote::{Connection, Connector, ExecRequest, Process, RemoteErrorKind};
use tokio::io::AsyncWriteExt;

/// Far beyond what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

async fn output_of(
    connection: &dyn Connection,
    command: &'static str,
    input: &[u8],
) -> (Vec<u8>, Vec<ProcessEvent>) {
    let request = ExecRequest { command, terminal: None };
    let mut process = connection.exec(request).await.unwrap();
    let feed = async {
        // Who does not read its input may end before it is written.
        let _ = process.stdin.write_all(input).await;
        let _ = process.stdin.shutdown().await;
    };
    let collect = async {
        let (mut output, mut others) = (Vec::new(), Vec::new());
        while let Some(event) = process.events.recv().await {
            match event {
                ProcessEvent::Stdout(data) => output.extend_from_slice(&data),
                event => others.push(event),
            }
        }
        (output, others)
    };
    tokio::time::timeout(DEADLINE, async { tokio::join!(feed, collect).1 }).await.expect("it hangs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_through_each_shell() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["/bin/dash", "/usr/bin/busybox", "/bin/bash"] {
        let host = LocalConnector::new(directory.path(), Some(shell.into()));
        let connection = host.connect().await.unwrap();
        let (output, events) = output_of(&*connection, "pwd -P; exit 7", b"").await;
        let real = directory.path().canonicalize().unwrap();
        assert_eq!(output, [real.as_os_str().as_encoded_bytes(), b"\n"].concat());
        assert!(events.contains(&ProcessEvent::Exited(7)) && events.contains(&ProcessEvent::Eof));

        let input = (0..3_u32 << 20).map(|at| (at % 251) as u8).collect::<Vec<_>>();
        let (output, _) = output_of(&*connection, "exec cat", &input).await;
        assert!(output == input, "{shell}");

        let (_, events) = output_of(&*connection, "echo oops >&2; kill -9 $$", b"").await;
        assert!(events.contains(&ProcessEvent::Stderr(Bytes::from_static(b"oops\n"))), "{events:?}");
        let killed = ProcessEvent::Signaled { signal: "KILL".to_owned(), core_dumped: false };
        assert!(events.contains(&killed), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_signalled_and_closed() {
    let host = LocalConnector::whole_machine(Some("/bin/dash".into()));
    let connection = host.connect().await.unwrap();
    let request = ExecRequest { command: "sleep 600 & echo up; wait", terminal: None };
    let wait_up = async |process: &mut Process| {
        assert_eq!(process.events.recv().await, Some(ProcessEvent::Stdout(Bytes::from_static(b"up\n"))));
    };
    let check = async {
        let mut process = connection.exec(request.clone()).await.unwrap();
        wait_up(&mut process).await;
        process.control.send(ProcessControl::Signal("TERM".to_owned())).await.unwrap();
        let mut events = Vec::new();
        // The whole group ends, so that nobody holds the output any more.
        while let Some(event) = process.events.recv().await {
            events.push(event);
        }
        let killed = ProcessEvent::Signaled { signal: "TERM".to_owned(), core_dumped: false };
        assert!(events.contains(&killed) && events.contains(&ProcessEvent::Eof), "{events:?}");

        let request = ExecRequest { command: "echo up; cat", terminal: None };
        let mut process = connection.exec(request).await.unwrap();
        wait_up(&mut process).await;
        process.control.send(ProcessControl::Close).await.unwrap();
        assert_eq!(process.events.recv().await, None);
    };
    tokio::time::timeout(DEADLINE, check).await.expect("it hangs");
    let none =
        LocalConnector::whole_machine(None).connect().await.unwrap().exec(request).await.err().unwrap();
    assert_eq!(none.kind, RemoteErrorKind::Unsupported);
}
