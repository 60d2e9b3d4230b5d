//! The engine's own commands: nothing of them outlives their time or their client.

use std::sync::Arc;
use std::time::Duration;

use haul::engine::job::{JobError, JobLimits, JobStatus, run_script};
use haul::model::shell::Script;
use haul::remote::Connector;
use haul::remote::local::LocalConnector;

use super::library::{connector, eventually};
use super::stage::{PATIENCE, Stage, processes_with};
use crate::scripts::shells::{Machine, SHELLS};

const LIMITS: JobLimits = JobLimits { timeout: Some(PATIENCE), silence: None, max_output_bytes: 1000 };

fn sleeping(word: &str) -> Script {
    Script::new(&["sleep \"$word\" & sleep \"$word\"\n"]).set("word", word).on_lifeline()
}

#[tokio::test]
async fn a_job_reads_nothing_and_ends_at_once() {
    let stage = Stage::new();
    let connection = connector(&stage.sshd).connect().await.expect("connects");
    let begin = std::time::Instant::now();
    for _ in 0..5 {
        let script = Script::new(&["cat; echo done; exit 3\n"]).on_lifeline();
        let output = run_script(connection.as_ref(), &script, LIMITS).await.expect("runs");
        assert_eq!((output.status, output.stdout), (JobStatus::Exited(3), b"done\n".to_vec()));
    }
    assert!(begin.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_job_whose_time_is_over_is_ended() {
    let stage = Stage::new();
    let connection = connector(&stage.sshd).connect().await.expect("connects");
    let word = stage.unique();
    let limits = JobLimits { timeout: Some(Duration::from_secs(1)), ..LIMITS };
    let error = run_script(connection.as_ref(), &sleeping(&word), limits).await.expect_err("it takes longer");
    assert!(matches!(error, JobError::TimedOut(_)), "{error}");
    eventually("its end", || processes_with(&word).is_empty()).await;
}

#[tokio::test]
async fn a_dropped_job_is_ended_in_every_shell() {
    for shell in SHELLS {
        let machine = Machine::new(shell);
        let connector = Arc::new(LocalConnector::whole_machine(Some(machine.sh())));
        // The machine's own programs, its shell first.
        let connection = connector.connect().await.expect("connects");
        let word = format!("86401.{}", std::process::id());
        let script = sleeping(&word);
        {
            let job = run_script(connection.as_ref(), &script, LIMITS);
            tokio::pin!(job);
            tokio::select! {
                ended = &mut job => panic!("{shell}: {ended:?}"),
                () = eventually("two to sleep", || processes_with(&word).len() == 2) => {}
            }
        }
        eventually("their end", || processes_with(&word).is_empty()).await;
    }
}
