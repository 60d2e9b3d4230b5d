//! The signals that this process gets, on their way to the program.

use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::model::signal::Signal;

/// Listens from its making on.
pub struct Interrupts {
    interrupt: Listener,
    terminate: Listener,
    hang_up: Listener,
    quit: Listener,
    user_1: Listener,
    user_2: Listener,
    window: Listener,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// INT or TERM: the program is to end.
    End(Signal),
    /// For the program to see to.
    Pass(Signal),
    Resized,
}

impl Interrupts {
    pub fn listen() -> Result<Interrupts, CliError> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                CliError::new(ExitCode::Failed, format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Interrupts {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            user_1: listen(SignalKind::user_defined1())?,
            user_2: listen(SignalKind::user_defined2())?,
            window: listen(SignalKind::window_change())?,
        })
    }

    pub async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::End(Signal::INT),
            _ = self.terminate.recv() => Event::End(Signal::TERM),
            _ = self.hang_up.recv() => Event::Pass(Signal::HUP),
            _ = self.quit.recv() => Event::Pass(Signal::QUIT),
            _ = self.user_1.recv() => Event::Pass(Signal::USR1),
            _ = self.user_2.recv() => Event::Pass(Signal::USR2),
            _ = self.window.recv() => Event::Resized,
        }
    }

    /// While nothing has started: every signal but a new size ends the waiting.
    pub async fn next_end(&mut self) -> Signal {
        loop {
            match self.next().await {
                Event::End(signal) | Event::Pass(signal) => return signal,
                Event::Resized => {}
            }
        }
    }
}
