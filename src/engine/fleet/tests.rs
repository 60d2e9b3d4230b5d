//! The runner with jobs that do nothing but what a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const LIMITS: Limits = Limits { forks: 3, stop_limit: Duration::from_secs(5) };

fn name(end: &Ended<usize>) -> String {
    match end {
        Ended::Done(report) => format!("done {report}"),
        Ended::Crashed(text) => format!("crashed: {text}"),
        Ended::LeftBehind => "left behind".to_owned(),
        Ended::NotStarted => "not started".to_owned(),
    }
}

#[tokio::test]
async fn so_many_at_a_time_and_every_one_in_the_end() {
    let (_switch, stop) = stop_pair();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut ends = Vec::new();
    let start = |_, job: usize, _| {
        let (now, most) = (now.clone(), most.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            job * 10
        }
    };
    run((0..20).collect(), LIMITS, &stop, start, |index, end| {
        ends.push((index, name(&end)));
        Next::GoOn
    })
    .await;
    ends.sort();
    let expected: Vec<_> = (0..20).map(|n| (n, format!("done {}", n * 10))).collect();
    assert_eq!(ends, expected);
    assert_eq!(most.load(Ordering::SeqCst), LIMITS.forks);
}

#[tokio::test]
async fn a_panic_and_a_job_that_hangs_hold_up_nobody() {
    let (switch, stop) = stop_pair();
    let mut ends = vec![String::new(); 8];
    let start = |_, job: usize, _: Stop| async move {
        match job {
            0 => std::future::pending::<usize>().await,
            1 => panic!("a defect"),
            job => job,
        }
    };
    let limits = Limits { stop_limit: Duration::ZERO, ..LIMITS };
    let mut others = 0;
    run((0..8).collect(), limits, &stop, start, |index, end| {
        ends[index] = name(&end);
        others += 1;
        if others == 7 {
            switch.stop();
        }
        Next::GoOn
    })
    .await;
    assert_eq!(ends[..3], ["left behind", "crashed: a defect", "done 2"]);
    assert_eq!(ends[7], "done 7");
}

#[tokio::test]
async fn the_first_failure_stops_what_runs_and_what_was_to_come() {
    let (_switch, stop) = stop_pair();
    let mut ends = vec![String::new(); 6];
    let start = |_, job: usize, stop: Stop| async move {
        if job != 1 {
            stop.stopped().await;
        }
        job
    };
    run((0..6).collect(), LIMITS, &stop, start, |index, end| {
        let failed = matches!(end, Ended::Done(1));
        ends[index] = name(&end);
        if failed { Next::StopAll } else { Next::GoOn }
    })
    .await;
    assert_eq!(ends, ["done 0", "done 1", "done 2", "not started", "not started", "not started"]);
}

#[tokio::test]
async fn who_is_asked_to_stop_before_the_start_starts_nothing() {
    let (switch, stop) = stop_pair();
    switch.stop();
    let mut ends = Vec::new();
    let start = |_, job: usize, stop: Stop| async move {
        stop.stopped().await;
        job
    };
    run((0..4).collect(), Limits { forks: 1, ..LIMITS }, &stop, start, |_, end| {
        ends.push(name(&end));
        Next::GoOn
    })
    .await;
    assert_eq!(ends[1..], ["not started", "not started", "not started"]);
}
