//! Three hundred runs, and nothing is left of them on either side.

use std::process::Command as LocalCommand;
use std::time::Duration;

use haul::engine::exec::{Command, Host};

use super::library::connector;
use super::stage::{PATIENCE, Stage};
use crate::harness::wait_until;

const RUNS: usize = 300;
const ALONE: &str = "HAUL_TEST_ALONE";

/// Descriptors are counted in a process of its own: other tests open theirs meanwhile.
#[test]
fn three_hundred_runs_leave_nothing() {
    if std::env::var_os(ALONE).is_some() {
        run_and_count();
        return;
    }
    let test = std::env::current_exe().expect("this program");
    let output = LocalCommand::new(test)
        .args(["--exact", "exec::leaks::three_hundred_runs_leave_nothing", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("counted 300 runs"), "{text}");
}

fn run_and_count() {
    let stage = Stage::new();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let tasks = || runtime.metrics().num_alive_tasks();
    runtime.block_on(async {
        let host = Host::connect(connector(&stage.sshd)).await.expect("connects");
        // What a first run makes once stays: it is no leak.
        run(&host, 0).await;
        settle(&stage).await;
        let (descriptors, alive) = (own_descriptors(), tasks());
        let server = server_descriptors(&stage);
        for number in 1..=RUNS {
            run(&host, number).await;
        }
        settle(&stage).await;
        assert_eq!(own_descriptors(), descriptors);
        assert_eq!(server_descriptors(&stage), server);
        let even = async {
            while tasks() > alive {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, even).await.expect("no task is left");
        host.disconnect().await;
    });
    stage.assert_all_gone();
    println!("counted {RUNS} runs");
}

/// Of every kind: to the end, of its own death, killed, dropped, and never started.
async fn run(host: &Host, number: usize) {
    match number % 5 {
        0 => assert_eq!(Command::new("echo").arg("x").output(host).await.expect("runs").stdout, b"x\n"),
        1 => assert_eq!(Command::shell("kill -9 $$").status(host).await.expect("runs").shell_code(), 137),
        2 => {
            let mut child = Command::new("sleep").arg("1000").spawn(host).await.expect("starts");
            assert!(child.kill().await);
            assert!(!child.wait().await.expect("ends").success());
        }
        3 => drop(Command::new("sleep").arg("1000").spawn(host).await.expect("starts")),
        _ => assert!(Command::new("no-such-program").status(host).await.is_err()),
    }
}

/// Until the server runs nothing but the connection.
async fn settle(stage: &Stage) {
    wait_until("the end of all commands", PATIENCE, || {
        stage.sshd.session_processes().into_iter().all(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.is_empty() || name.starts_with("sshd")
        })
    });
    // A channel is closed a moment after its command has ended.
    let mut before = usize::MAX;
    wait_until("a stand of the server's descriptors", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(300));
        let now = server_descriptors(stage);
        std::mem::replace(&mut before, now) == now
    });
}

fn own_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn server_descriptors(stage: &Stage) -> usize {
    let count = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    stage.sshd.session_processes().into_iter().map(count).sum()
}
