//! `haul demo`, whole: the server inside, the cut, the resume and the figures.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haul::cli::commands::demo::{DemoRequest, demo};
use haul::engine::failure::{Failure, FailureKind};
use haul::engine::monitor::Silent;
use haul::engine::stop::stop_pair;
use haul::model::names::UserId;

/// A hang is a failure; the machine may be slow.
const LIMIT: Duration = Duration::from_secs(180);

fn request(temp: &Path, size: u64) -> DemoRequest {
    DemoRequest {
        keep: false,
        size,
        user: UserId::new("alice").expect("a user id"),
        holder: "alice@laptop".to_owned(),
        temp: temp.to_owned(),
        program: "haul".to_owned(),
    }
}

fn run(request: DemoRequest) -> (Result<(), Failure>, String) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let mut output = Vec::new();
    let (_switch, stop) = stop_pair();
    let demo =
        async { tokio::time::timeout(LIMIT, demo(request, &mut output, Arc::new(Silent), stop)).await };
    let result = runtime.block_on(demo).expect("the demo ends");
    (result, String::from_utf8(output).expect("UTF-8"))
}

fn words_of<'a>(output: &'a str, key: &str) -> Vec<Vec<&'a str>> {
    let lines = output.lines().filter(|line| line.split_whitespace().next() == Some(key));
    lines.map(|line| line.split_whitespace().skip(1).collect()).collect()
}

#[test]
fn it_is_cut_off_resumes_and_arrives_whole() {
    for size in [64 << 20, (100 << 20) + 1] {
        let temp = tempfile::tempdir().expect("temp directory");
        let (result, output) = run(request(temp.path(), size));
        println!("{output}");
        if let Err(failure) = result {
            panic!("{size} bytes: {failure}\n{output}");
        }
        assert!(output.lines().count() <= 15, "{output}");
        let digests = words_of(&output, "sha256");
        assert_eq!(digests.len(), 2, "{output}");
        assert!(digests[0][0].len() == 64 && digests[0][0] == digests[1][0], "{output}");
        let chunks = &words_of(&output, "chunks")[0];
        let [all, kept, sent] = [0, 3, 5].map(|at| chunks[at].parse::<u64>().expect(&output));
        assert!(kept > 0 && sent > 0 && kept + sent == all, "{output}");
        let left: Vec<_> = std::fs::read_dir(temp.path()).expect("temp").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let temp = tempfile::tempdir().expect("temp directory");
    let (result, output) = run(request(temp.path(), 1));
    assert_eq!(result.expect_err("too small").kind, FailureKind::Usage);
    let (result, _) = run(request(temp.path(), u64::MAX / 8));
    let failure = result.expect_err("too large");
    assert_eq!(failure.kind, FailureKind::Storage);
    assert!(failure.to_string().contains("TMPDIR"), "{failure}");
    assert!(output.is_empty() && std::fs::read_dir(temp.path()).expect("temp").next().is_none());
}
