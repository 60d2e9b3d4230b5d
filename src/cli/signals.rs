//! Ctrl-C and SIGTERM: the first asks the engine to stop, the second leaves at once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use super::exit_code::ExitCode;
use super::screen::Screen;
use super::tty;
use crate::engine::failure::Failure;
use crate::engine::stop::{Stop, stop_pair};

pub const HOW_TO_GO_ON: &str = "run the same command again to resume";

/// Listens from now on, inside the runtime.
pub fn stop_on_signals(screen: Arc<Screen>) -> Result<Stop, CliError> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| CliError::new(ExitCode::Failed, format!("cannot listen for signals: {error}")))
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let (switch, stop) = stop_pair();
    tokio::spawn(async move {
        let mut stopping = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // Whoever waits for an answer waits for nothing else that could be stopped.
            if stopping || tty::is_asking() {
                leave(&screen);
            }
            stopping = true;
            switch.stop();
            screen.remark("haul: stopping; once more leaves at once");
        }
    });
    Ok(stop)
}

fn leave(screen: &Screen) -> ! {
    // A question holds the bar: taking it away would wait for the answer.
    if tty::is_asking() {
        tty::abandon();
    } else {
        screen.clear();
    }
    std::process::exit(i32::from(ExitCode::Interrupted.number()));
}

/// For work that has nothing to stop cleanly.
pub async fn unless_stopped<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<Result<T, Failure>, CliError> {
    tokio::select! {
        result = work => Ok(result),
        () = stop.stopped() => Err(CliError::new(ExitCode::Interrupted, "interrupted")),
    }
}
