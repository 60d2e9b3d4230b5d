//! A command whose standard input and output are the way to the server (ProxyCommand).

use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::prompter::Prompter;
use crate::model::escape::printable;

/// Longest line of the command's standard error that is shown; the rest is cut off.
const MAX_LINE_BYTES: u64 = 1000;
/// Further lines are read and not shown.
const MAX_LINES: usize = 100;
/// How long the command may take to end by itself once nobody needs it, and then again
/// once it was told to.
const ENDING_LIMIT: Duration = Duration::from_secs(1);
/// How long what it said last may take to come once it has ended; something that it has
/// started may hold its standard error open.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// The interrupt that a person sends to haul is haul's to handle: it ends the work in
/// order, and needs the way for that. What ignores a signal goes on ignoring it.
const WITHOUT_INTERRUPTS: &str = "trap '' INT; exec \"${SHELL:-/bin/sh}\" -c \"$1\"";

/// The command as a stream. It is ended when this is dropped.
pub struct ProxyStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    _needed: oneshot::Sender<()>,
}

/// How the command ended, in words; `None` while it runs.
pub type ProxyEnd = watch::Receiver<Option<String>>;

/// Starts `command` in the user's shell, as ssh does. What it says on its standard error
/// is told to the person.
pub fn start(host: &str, command: &str, prompter: Arc<dyn Prompter>) -> io::Result<(ProxyStream, ProxyEnd)> {
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(WITHOUT_INTERRUPTS)
        .arg("haul")
        .arg(format!("exec {command}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("no pipes to the command"));
    };
    let (needed, not_needed) = oneshot::channel();
    let (ended_in, ended) = watch::channel(None);
    let said = Said { host: host.to_string(), last: Arc::default(), prompter };
    tokio::spawn(watch_over(child, stderr, not_needed, said, ended_in));
    Ok((ProxyStream { stdin, stdout, _needed: needed }, ended))
}

/// What the command says on its standard error.
#[derive(Clone)]
struct Said {
    host: String,
    last: Arc<Mutex<Option<String>>>,
    prompter: Arc<dyn Prompter>,
}

/// Waits for the command's end, so that no zombie is left, and sees to it that it ends.
async fn watch_over(
    mut child: Child,
    stderr: ChildStderr,
    not_needed: oneshot::Receiver<()>,
    said: Said,
    ended: watch::Sender<Option<String>>,
) {
    let listening = tokio::spawn(listen(stderr, said.clone()));
    let status = tokio::select! {
        status = child.wait() => status,
        _ = not_needed => end(&mut child).await,
    };
    let abort = listening.abort_handle();
    if timeout(LAST_WORDS_LIMIT, listening).await.is_err() {
        abort.abort();
    }
    let last = said.last.lock().ok().and_then(|mut last| last.take());
    // Nobody may be left to hear it.
    let _ = ended.send(Some(describe(status, last)));
}

/// Its pipes are closed already, which ends most commands.
async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    if let Ok(status) = timeout(ENDING_LIMIT, child.wait()).await {
        return status;
    }
    if let Some(pid) =
        child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
    {
        // As ssh does. It was not waited for yet, so that it cannot be another process.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::HUP);
    }
    if let Ok(status) = timeout(ENDING_LIMIT, child.wait()).await {
        return status;
    }
    child.kill().await?;
    child.wait().await
}

async fn listen(stderr: ChildStderr, said: Said) {
    let mut stderr = BufReader::new(stderr);
    let mut lines = 0;
    loop {
        let mut line = Vec::new();
        match (&mut stderr).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = printable(line.trim_ascii());
        if line.is_empty() {
            continue;
        }
        lines += 1;
        if lines <= MAX_LINES {
            said.prompter.tell(&format!("{}: proxy command: {line}", said.host));
        }
        if let Ok(mut last) = said.last.lock() {
            *last = Some(line);
        }
    }
}

fn describe(status: io::Result<ExitStatus>, last: Option<String>) -> String {
    use std::os::unix::process::ExitStatusExt;
    let mut text = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(127), _) => "the proxy command was not found (status 127)".to_string(),
            (Some(code), _) => format!("the proxy command ended with status {code}"),
            (None, Some(signal)) => format!("the proxy command was ended by signal {signal}"),
            (None, None) => "the proxy command ended".to_string(),
        },
        Err(error) => format!("the proxy command is gone: {error}"),
    };
    if let Some(last) = last {
        text.push_str(", and said: ");
        text.push_str(&last);
    }
    text
}

impl AsyncRead for ProxyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ProxyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
