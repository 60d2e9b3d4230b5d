//! A command that runs on this machine, seen as one that runs behind a channel.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::errors::remote_error;
use crate::remote::error::RemoteError;
use crate::remote::process::{Process, ProcessControl, ProcessEvent};

/// Events that may wait for their reader.
const EVENT_QUEUE: usize = 16;
/// Orders that may wait.
const CONTROL_QUEUE: usize = 4;
/// What one event carries at most, as one packet of a channel does.
const EVENT_BYTES: usize = 32 * 1024;

/// The signals that SSH can name (RFC 4254, 6.10).
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// Runs `command` through `shell`, as the leader of a process group of its own.
pub fn spawn(shell: &Path, directory: &Path, command: &str) -> Result<Process, RemoteError> {
    let failed = |error| remote_error(&format!("run {:?}", shell.display()), &error);
    let mut child_command = Command::new(shell);
    if shell.file_name().is_some_and(|name| name == "busybox") {
        child_command.arg("sh");
    }
    child_command.arg("-c").arg(command).current_dir(directory).process_group(0);
    child_command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child_command.spawn().map_err(failed)?;

    let input = SharedInput(Arc::new(Mutex::new(child.stdin.take())));
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let (control, orders) = mpsc::channel(CONTROL_QUEUE);
    tokio::spawn(attend(child, orders, sender, input.clone()));
    Ok(Process { stdin: Box::new(Stdin(input)), events, control })
}

/// The channel of one child. When it is closed the child goes on, as on a server.
async fn attend(
    mut child: Child,
    orders: mpsc::Receiver<ProcessControl>,
    events: mpsc::Sender<ProcessEvent>,
    input: SharedInput,
) {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let running = AtomicBool::new(true);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = async {
        tokio::join!(
            pump(stdout, &events, ProcessEvent::Stdout),
            pump(stderr, &events, ProcessEvent::Stderr)
        );
        tell(&events, ProcessEvent::Eof).await;
    };
    // Told at once: others may hold the output long after the child has ended.
    let end = async {
        let status = child.wait().await;
        running.store(false, Ordering::Relaxed);
        if let Ok(status) = status {
            tell(&events, event_of(status)).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(output, end) } => {}
        () = obey(orders, &events, group, &running) => {}
    }
    input.close();
}

/// Ends when the channel is to be closed.
async fn obey(
    mut orders: mpsc::Receiver<ProcessControl>,
    events: &mpsc::Sender<ProcessEvent>,
    group: Option<Pid>,
    running: &AtomicBool,
) {
    while let Some(order) = orders.recv().await {
        match order {
            ProcessControl::Signal(name) => {
                let signal = SIGNALS.iter().find(|(known, _)| *known == name);
                if let (Some(group), Some((_, signal)), true) =
                    (group, signal, running.load(Ordering::Relaxed))
                {
                    // It fails where the group is gone, which the wait tells.
                    let _ = kill_process_group(group, *signal);
                }
            }
            ProcessControl::Resize { .. } => {}
            ProcessControl::Close => return,
        }
    }
    events.closed().await;
}

async fn pump(
    output: Option<impl AsyncRead + Unpin>,
    events: &mpsc::Sender<ProcessEvent>,
    event: impl Fn(Bytes) -> ProcessEvent,
) {
    let Some(mut output) = output else { return };
    loop {
        let mut buffer = BytesMut::with_capacity(EVENT_BYTES);
        // An error and the end are one to who reads a channel.
        if !matches!(output.read_buf(&mut buffer).await, Ok(1..))
            || !tell(events, event(buffer.freeze())).await
        {
            return;
        }
    }
}

/// False when nobody listens any more.
async fn tell(events: &mpsc::Sender<ProcessEvent>, event: ProcessEvent) -> bool {
    events.send(event).await.is_ok()
}

fn event_of(status: ExitStatus) -> ProcessEvent {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProcessEvent::Exited(code.cast_unsigned()),
        (None, signal) => {
            let name = SIGNALS.iter().find(|(_, known)| Some(known.as_raw()) == signal);
            ProcessEvent::Signaled {
                signal: name.map_or_else(|| signal.unwrap_or(0).to_string(), |(name, _)| (*name).to_owned()),
                core_dumped: status.core_dumped(),
            }
        }
    }
}

/// The child's standard input, which either side of the channel may close.
#[derive(Clone)]
struct SharedInput(Arc<Mutex<Option<ChildStdin>>>);

impl SharedInput {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Option<ChildStdin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().take();
    }
}

/// The end of it that a [`Process`] holds.
struct Stdin(SharedInput);

impl AsyncWrite for Stdin {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.0.lock().as_mut() {
            Some(stdin) => Pin::new(stdin).poll_write(context, data),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.lock().as_mut() {
            Some(stdin) => Pin::new(stdin).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        self.0.close();
    }
}
