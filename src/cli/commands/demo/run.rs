//! `haul demo` as the command line calls it.

use std::io::Write;
use std::sync::Arc;

use super::{Audience, DemoRequest, demo};
use crate::cli::account::Account;
use crate::cli::args::demo::DemoArgs;
use crate::cli::args::output::OutputArgs;
use crate::cli::error::CliError;
use crate::cli::exit_code::ExitCode;
use crate::cli::screen::Screen;
use crate::cli::signals::stop_on_signals;
use crate::cli::terminal::{TerminalMonitor, wants_bar};

pub async fn run(args: &DemoArgs) -> Result<ExitCode, CliError> {
    let account = Account::current();
    let request = DemoRequest {
        keep: args.keep,
        size: args.size,
        user: account.user_id()?,
        holder: account.holder(),
        temp: std::env::temp_dir(),
        program: std::env::args_os().next().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let output = OutputArgs { json: false, quiet: args.quiet, verbose: args.verbose };
    let screen = Arc::new(if wants_bar(&output) { Screen::with_bar() } else { Screen::plain(args.quiet) });
    let stop = stop_on_signals(screen.clone())?;
    let monitor = Arc::new(TerminalMonitor::new(screen.clone(), "demo", &output));
    let mut story = BesideTheBar { screen: screen.clone(), quiet: args.quiet };
    let result = demo(request, &mut story, monitor, stop).await;
    screen.clear();
    result?;
    Ok(ExitCode::Done)
}

/// Standard output, which shares the terminal with the bar.
struct BesideTheBar {
    screen: Arc<Screen>,
    quiet: bool,
}

impl Audience for BesideTheBar {
    fn tell(&mut self, text: &str) -> std::io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        self.screen.suspended(|| {
            let mut output = std::io::stdout().lock();
            writeln!(output, "{text}").and_then(|()| output.flush())
        })
    }

    fn upload_ended(&mut self) {
        self.screen.clear();
    }
}
