//! What is said and returned about uploads over a real sshd.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Home, code, events, run, stderr, stdout, way_to};
use crate::harness::{Sshd, haul, wait_until};

#[test]
fn an_upload_tells_people_and_scripts_how_it_went() {
    let (home, sshd) = (Home::new(), Sshd::start());
    let target = sshd.scratch().join("img");
    let destination = format!("{}@127.0.0.1:{}", sshd.user(), target.display());

    let output = run(&home, &sshd, "put", &["img", &destination]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let line = stdout(&output);
    assert!(line.starts_with(&format!("127.0.0.1:{}: uploaded 7 B in ", target.display())), "{line}");
    assert!(line.ends_with(" verified on the target\n"), "{line}");
    assert_eq!(fs::read(&target).expect("the target"), b"content");

    let output = run(&home, &sshd, "put", &["--json", "img", &destination]);
    let events = events(&output);
    assert!(events.iter().all(|event| event["event"].is_string() && event["host"] == "127.0.0.1"));
    let result = events.last().expect("a result");
    assert_eq!((&result["event"], &result["status"]), (&"result".into(), &"unchanged".into()));
    assert_eq!(result["target"], target.display().to_string());

    home.write("img", "different");
    let output = run(&home, &sshd, "put", &["--if-exists", "fail", "--json", "img", &destination]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches('\n').count(), 1, "{}", stderr(&output));
    let events = self::events(&output);
    let result = events.last().expect("a result");
    assert_eq!((&result["status"], &result["exit_code"]), (&"failed".into(), &4.into()));
    assert_eq!(fs::read(&target).expect("the target"), b"content");

    let output = run(&home, &sshd, "put", &["--if-exists", "skip", "img", &destination]);
    assert_eq!((code(&output), stdout(&output).contains(": skipped: ")), (0, true), "{}", stderr(&output));
    let output = run(&home, &sshd, "put", &["-q", "--if-exists", "replace", "img", &destination]);
    assert_eq!((code(&output), stdout(&output), stderr(&output)), (0, String::new(), String::new()));
    assert_eq!(fs::read(&target).expect("the target"), b"different");

    let output = run(&home, &sshd, "status", &["--json", &destination]);
    let status = self::events(&output).remove(0);
    assert_eq!(
        (&status["state"], &status["size"], &status["lock"]),
        (&"complete".into(), &9.into(), &serde_json::Value::Null)
    );
    let output = run(&home, &sshd, "status", &[&destination]);
    assert!(stdout(&output).contains("\n  state   complete\n"), "{}", stdout(&output));
    let output = run(&home, &sshd, "clean", &[&destination]);
    assert_eq!(
        (code(&output), stdout(&output).contains("nothing to clean")),
        (0, true),
        "{}",
        stderr(&output)
    );
}

#[test]
fn several_sources_go_into_a_directory() {
    let (home, sshd) = (Home::new(), Sshd::start());
    home.write("second", "two");
    let destination = format!("{}@127.0.0.1:{}/", sshd.user(), sshd.scratch().display());
    let output = run(&home, &sshd, "put", &["img", "second", &destination]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2, "{}", stdout(&output));
    assert_eq!(fs::read(sshd.scratch().join("second")).expect("the second"), b"two");

    // One that may not be replaced does not keep the other from arriving.
    home.write("img", "different");
    home.write("second", "changed");
    fs::remove_file(sshd.scratch().join("second")).expect("removed");
    let output = run(&home, &sshd, "put", &["--if-exists", "fail", "img", "second", &destination]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(fs::read(sshd.scratch().join("second")).expect("the second"), b"changed");
}

#[test]
fn an_interrupted_upload_says_how_to_go_on_and_resumes() {
    let (home, sshd) = (Home::new(), Sshd::start());
    home.write("img", &"0123456789abcdef".repeat(4 << 16));
    let target = sshd.scratch().join("img");
    let destination = format!("{}@127.0.0.1:{}", sshd.user(), target.display());
    let slowly = ["--chunk-size", "64k", "--bwlimit", "512k", "img", &destination];
    let child = haul(home.path())
        .arg("put")
        .args(way_to(&sshd))
        .args(slowly)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("haul starts");
    let temp = sshd.scratch().join(format!("img:{}", crate::harness::sshd::current_user()));
    let chunks = || fs::read_dir(&temp).map_or(0, |entries| entries.flatten().filter(is_chunk).count());
    wait_until("a chunk is there", Duration::from_secs(60), || chunks() > 0);
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(signalled.success());
    let output = child.wait_with_output().expect("haul ends");
    let text = stderr(&output);
    assert_eq!(code(&output), 130, "{text}");
    assert!(text.contains("run the same command again"), "{text}");
    assert!(chunks() > 0 && !target.exists(), "what was there is kept, and nothing is put in place");

    let output = run(&home, &sshd, "put", &["--json", "--chunk-size", "64k", "img", &destination]);
    let events = events(&output);
    let result = events.last().expect("a result");
    assert_eq!(
        (&result["status"], &result["resumed"]),
        (&"uploaded".into(), &true.into()),
        "{}",
        stderr(&output)
    );
    assert!(result["chunks_skipped"].as_u64() > Some(0), "{result}");
}

/// A chunk of its own or the receipt of a placed one.
fn is_chunk(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().contains("-img:")
}

#[test]
fn an_unreachable_host_ends_with_its_code() {
    let home = Home::new();
    let port = crate::harness::sshd::free_port().to_string();
    let output = home.haul(&["put", "--json", "-P", &port, "img", "127.0.0.1:/x"]);
    assert_eq!(code(&output), 10, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches('\n').count(), 1, "{}", stderr(&output));
    let events = events(&output);
    assert_eq!((&events[0]["status"], &events[0]["exit_code"]), (&"failed".into(), &10.into()));
    for command in ["status", "merge", "clean"] {
        let output = home.haul(&[command, "-P", &port, "127.0.0.1:/x"]);
        assert_eq!(code(&output), 10, "{command}: {}", stderr(&output));
    }
}
