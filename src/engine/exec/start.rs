//! From a script to a running program with its guard.

use std::time::Duration;

use super::dialogue::Dialogue;
use super::error::{ExecError, ExecErrorKind};
use super::guard::Guard;
use super::host::Host;
use crate::engine::random::run_id;
use crate::model::escape::printable;
use crate::model::exec::{GO, GuardSaid, Order, Program, Said};
use crate::model::run_id::RunId;
use crate::model::shell::Script;
use crate::remote::process::{Process, Terminal};

pub struct Started {
    pub process: Process,
    /// Output of the program that has come already.
    pub early: Vec<u8>,
    pub leader: u32,
    pub guard: Option<Guard>,
    /// Why there is no guard.
    pub unguarded: Option<ExecError>,
}

pub fn nonce() -> Result<RunId, ExecError> {
    Ok(run_id()?)
}

/// Starts what `script` prepares. Until the last moment nothing has run; then the error
/// says `started`.
pub async fn start(
    host: &Host,
    script: &Script,
    nonce: RunId,
    terminal: Option<Terminal>,
    grace: Duration,
    program: Option<&Program>,
) -> Result<Started, ExecError> {
    let mark = Said::mark(nonce);
    let has_terminal = terminal.is_some();
    // The command's channel is the first: some servers open no second.
    let mut dialogue = Dialogue::open(host.connection.as_ref(), script, terminal).await?;
    let (said, guard) = tokio::join!(dialogue.next_line(&mark), Guard::open(host));
    let (leader, group) = match Said::parse(&said?) {
        Some(Said::Ready { leader, group }) => (leader, group),
        other => return Err(refusal(other, program)),
    };
    let (guard, unguarded) = match guard {
        Ok(guard) => {
            let watch = Order::Watch { leader, group, grace };
            match ask(&guard, watch).await {
                Some(_) => (Some(guard), None),
                None => (None, Some(ExecError::new(ExecErrorKind::Link, "the guard's channel was closed"))),
            }
        }
        Err(error) => (None, Some(error)),
    };
    dialogue.send(GO).await.map_err(|error| ExecError { started: true, ..error })?;
    if has_terminal {
        dialogue.next_line(&mark).await.map_err(|error| ExecError { started: true, ..error })?;
    }
    Ok(Started { process: dialogue.process, early: dialogue.heard, leader, guard, unguarded })
}

async fn ask(guard: &Guard, order: Order) -> Option<GuardSaid> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    guard.orders.send((order, answer)).await.ok()?;
    answered.await.ok()
}

/// The error for anything but "ready".
pub fn refusal(said: Option<Said>, program: Option<&Program>) -> ExecError {
    let name = printable(program.map(|program| &program.name[..]).unwrap_or_default());
    let directory = program.and_then(|program| program.directory.as_deref()).unwrap_or_default();
    let directory = printable(directory);
    let (kind, message) = match said {
        Some(Said::ProgramAbsent) => {
            (ExecErrorKind::ProgramNotFound, format!("there is no program '{name}' on the host"))
        }
        Some(Said::ProgramDenied) => {
            (ExecErrorKind::ProgramNotExecutable, format!("'{name}' is there and cannot be executed"))
        }
        Some(Said::DirectoryAbsent) => {
            (ExecErrorKind::Directory, format!("there is no directory '{directory}' to start in"))
        }
        Some(Said::DirectoryDenied) => {
            (ExecErrorKind::Directory, format!("the directory '{directory}' to start in cannot be entered"))
        }
        Some(Said::DirectoryFile) => {
            (ExecErrorKind::Directory, format!("'{directory}' to start in is no directory"))
        }
        Some(Said::StateDenied) => {
            (ExecErrorKind::Detached, "cannot write to ~/.local/state/haul/exec on the host".to_owned())
        }
        Some(Said::StateInput) => {
            (ExecErrorKind::Link, "its input did not arrive whole, so it was not started".to_owned())
        }
        Some(Said::StateAbsent) => {
            (ExecErrorKind::Detached, "the host knows no detached command by that id".to_owned())
        }
        Some(Said::Ended) => (ExecErrorKind::Detached, "the command has ended already".to_owned()),
        Some(Said::Denied) => (ExecErrorKind::Detached, "the host did not let the signal through".to_owned()),
        _ => (ExecErrorKind::NoShell, "the host answered something else than was asked".to_owned()),
    };
    ExecError::new(kind, message)
}
