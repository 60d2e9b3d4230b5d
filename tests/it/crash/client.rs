//! One client on its way to one target: how it goes about it, and what it did.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use haul::engine::failure::Failure;
use haul::engine::options::{MergeMethod, PutOptions, RetryOptions};
use haul::engine::put::{PutJob, put};
use haul::engine::report::PutReport;
use haul::engine::stop::stop_pair;
use haul::remote::Connector;
use haul::remote::faulty::{Call, FaultScript, FaultyConnector};
use haul::remote::files::Features;
use haul::remote::local::LocalConnector;

use super::scene::CHUNK;
use super::server::PipedServers;
use crate::engine::Recorder;

/// In the runtime's own time, of which none passes while anything is at work.
const HUNG: Duration = Duration::from_secs(900);
/// Where time passes as everywhere.
const HUNG_REAL: Duration = Duration::from_secs(120);

/// How the upload goes about it.
#[derive(Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub merge: MergeMethod,
    pub shell: bool,
    pub features: fn(&mut Features),
    pub server: Server,
    /// Without a rename that replaces, the old file may be removed first.
    pub remove_first: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// A directory of this machine, by plain file calls.
    Local,
    /// The same, one call after the other.
    LocalInOrder,
    /// OpenSSH's sftp-server, with these arguments.
    OpenSsh(&'static [&'static str]),
}

impl Way {
    pub const fn new(name: &'static str, merge: MergeMethod) -> Way {
        let server = Server::Local;
        Way { name, merge, shell: false, features: |_| {}, server, remove_first: false }
    }

    pub const fn with_shell(self) -> Way {
        Way { shell: true, ..self }
    }

    pub const fn lacking(self, features: fn(&mut Features)) -> Way {
        Way { features, ..self }
    }

    pub const fn removing_first(self) -> Way {
        Way { remove_first: true, ..self }
    }

    pub const fn in_order(self) -> Way {
        Way { server: Server::LocalInOrder, ..self }
    }

    pub const fn through_openssh(self, arguments: &'static [&'static str]) -> Way {
        Way { server: Server::OpenSsh(arguments), ..self }
    }

    pub fn is_local(&self) -> bool {
        matches!(self.server, Server::Local | Server::LocalInOrder)
    }

    pub fn placed(&self) -> bool {
        self.merge == MergeMethod::Auto
    }

    /// Time stands still while anything is at work, so that watching takes none.
    pub fn paused(&self) -> bool {
        !self.shell && self.is_local()
    }
}

pub const PLACED: Way = Way::new("placed", MergeMethod::Auto);
pub const STORED: Way = Way::new("stored", MergeMethod::Sftp);
/// Stored chunks on a server that has nothing but SFTP version 3.
pub const POOR: Way = Way::new("poor server", MergeMethod::Sftp).removing_first().lacking(|features| {
    *features = Features { write_limit: 8 << 10, read_limit: 8 << 10, ..Features::default() };
});
pub const PLACED_SHELL: Way = Way::new("placed, shell", MergeMethod::Auto).with_shell();
pub const SCRIPT: Way = Way::new("script", MergeMethod::Script).with_shell();

/// One upload to one target, by any client.
#[derive(Clone)]
pub struct Errand {
    pub way: Way,
    pub source: PathBuf,
    pub target: PathBuf,
    pub options: PutOptions,
}

impl Errand {
    pub fn run(self, script: Arc<FaultScript>, retries: u32) -> Ran {
        let Errand { way, source, target, options } = self;
        let hung = if way.paused() { HUNG } else { HUNG_REAL };
        let options =
            PutOptions { retry: RetryOptions { retries, stall_timeout: Duration::from_secs(30) }, ..options };
        let shell = way.shell.then(|| PathBuf::from("/bin/sh"));
        let servers = PipedServers::default();
        let host: Arc<dyn Connector> = match way.server {
            Server::Local => Arc::new(LocalConnector::whole_machine(shell)),
            Server::LocalInOrder => Arc::new(LocalConnector::whole_machine(shell).in_order()),
            Server::OpenSsh(arguments) => Arc::new(servers.connector(arguments, shell)),
        };
        let connector = FaultyConnector::new(host, script.clone()).with_features(way.features);
        let destination = target.as_os_str().as_encoded_bytes().to_vec();
        let job = PutJob { source, destination, into_directory: false };
        let recorder = Arc::new(Recorder::default());
        let (_switch, stop) = stop_pair();
        // Dropped at the end with all that the client still had under way, as when it dies.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(way.paused())
            .build()
            .expect("a runtime");
        let (outcome, took) = runtime.block_on(async {
            let began = tokio::time::Instant::now();
            let put = put(Arc::new(connector), job, options, recorder.clone(), stop);
            let outcome = tokio::time::timeout(hung, put).await;
            (outcome.ok(), began.elapsed())
        });
        let running = servers.processes();
        drop(runtime);
        running.wait();
        Ran {
            outcome,
            notices: recorder.text(),
            calls: script.calls(),
            fired_at: script.fired_at(),
            took,
            placed: way.placed(),
        }
    }
}

/// One run of the client.
pub struct Ran {
    /// `None`: it did not end.
    pub outcome: Option<Result<PutReport, Failure>>,
    pub notices: String,
    pub calls: Vec<Call>,
    pub fired_at: Option<usize>,
    /// In the runtime's time.
    pub took: Duration,
    placed: bool,
}

impl Ran {
    /// The chunks of which bytes were sent after the first `skipped` calls.
    pub fn sent_after(&self, skipped: usize) -> BTreeSet<u64> {
        self.calls.iter().skip(skipped).filter_map(|call| self.chunk_of(call)).collect()
    }

    /// The stored chunks that the run itself had seen to be published, as it did something
    /// with them: they are not to be sent again, whatever stands in the temp directory.
    pub fn seen_published(&self) -> BTreeSet<u64> {
        self.seen_published_before(self.calls.len())
    }

    pub fn seen_published_before(&self, calls: usize) -> BTreeSet<u64> {
        let seen =
            self.calls.iter().take(calls).filter(|call| {
                matches!(call.operation, "open" | "read" | "rename" | "posix-rename" | "remove")
            });
        seen.filter_map(|call| {
            call.object.split(" -> ").next()?.rsplit_once("/alice-target:")?.1.parse().ok()
        })
        .collect()
    }

    fn chunk_of(&self, call: &Call) -> Option<u64> {
        if call.operation != "write" {
            return None;
        }
        let name = call.object.rsplit('/').next()?;
        if let Some(rest) = name.strip_prefix("part.") {
            return rest.split('.').next()?.parse().ok();
        }
        (self.placed && name.starts_with("merged.")).then_some(call.offset / CHUNK + 1)
    }

    pub fn failure(&self) -> Option<&Failure> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err())
    }

    pub fn report(&self) -> Option<&PutReport> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok())
    }

    /// Everything that helps to understand a failed case.
    pub fn story(&self) -> String {
        let outcome = match &self.outcome {
            None => "hung".to_owned(),
            Some(Ok(report)) => format!("{:?}, {} chunks sent", report.status, report.chunks_sent),
            Some(Err(failure)) => format!("{:?}: {failure}", failure.kind),
        };
        let mut text = format!("  took {:?}, {outcome}\n", self.took);
        for notice in self.notices.lines() {
            text.push_str(&format!("  # {notice}\n"));
        }
        for (i, call) in self.calls.iter().enumerate() {
            let mark = if Some(i + 1) == self.fired_at { "!!" } else { "  " };
            text.push_str(&format!("  {mark}{:4} {call}\n", i + 1));
        }
        text
    }
}
