//! known_hosts with `ssh` itself as the judge: haul trusts where ssh does, refuses where
//! ssh does, and writes where ssh writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haul::remote::ssh::{NoPrompter, SshConnector, SshOptions, StrictHostKeyChecking};
use haul::remote::{Connector, RemoteErrorKind};

use crate::harness::Sshd;
use crate::harness::sshd::{generate_key, public_key};

/// `{N}` is the server's name, `{P}` its port, `{K}` its key, `{O}` another key of its
/// type, `{E}` one of another type, `{B}` the key's base64, `{H}` the hashed name, `{HP}`
/// the hashed name without the port. Where `true`, haul may refuse what ssh trusts.
const CASES: [(&str, bool); 50] = [
    ("", false),
    ("{N} {K}\n", false),
    ("{N} {K}", false),
    ("{N} {K}\r\n", false),
    ("{N} {K} comment\n", false),
    ("\t {N}\t{K}\tcomment\n", false),
    ("# {N} {K}\n", false),
    ("\n\n#\n{N} {K}\n", false),
    ("{N} {O}\n", false),
    ("{N} {O}\n{N} {K}\n", false),
    ("{N} {K}\n{N} {O}\n", false),
    ("{N} {E}\n", false),
    ("{N} {E}\n{N} {K}\n", false),
    ("db,{N} {K}\n", false),
    ("db, {N} {K}\n", false),
    ("127.0.0.1 {K}\n", false),
    ("127.0.0.1 {O}\n", false),
    ("127.0.0.1 {O}\n{N} {K}\n", false),
    ("127.0.0.1 {K}\n{N} {O}\n", false),
    ("[127.0.0.1]:1 {K}\n", false),
    ("[127.0.0.*]:{P} {K}\n", false),
    ("[127.0.0.?]:{P} {K}\n", false),
    ("[127.0.0.?]:* {K}\n", false),
    ("127.0.0.* {K}\n", false),
    ("* {K}\n", false),
    ("*,!{N} {K}\n", false),
    ("!{N},* {K}\n", false),
    ("*,!127.0.0.1 {K}\n", false),
    ("!db,* {K}\n", false),
    ("!db {K}\n", false),
    ("{H} {K}\n", false),
    ("{H} {O}\n", false),
    ("{HP} {K}\n", false),
    ("{H},db {K}\n", false),
    ("db,{H} {K}\n", false),
    ("|1|junk {K}\n", false),
    ("|1|| {K}\n", false),
    ("@revoked * {K}\n{N} {K}\n", false),
    ("{N} {K}\n@revoked {N} {K}\n", false),
    ("{N} {K}\n@revoked {H} {K}\n", false),
    ("{N} {K}\n@revoked db {K}\n", false),
    ("{N} {K}\n@revoked * {O}\n", false),
    ("{N} {K}\n@revoked * ssh-rsa {B}\n", true),
    ("@cert-authority * {K}\n", false),
    ("@cert-authority * {O}\n{N} {K}\n", false),
    ("@unheard-of {N} {K}\n", false),
    ("{N} ssh-rsa {B}\n", false),
    ("{N} {B}\n", false),
    ("{N} ssh-ed25519 {B}xx\n", false),
    ("{N}\n{N} ssh-ed25519\n{N} 1024 35 99\n", false),
];

const _: () = assert!(CASES.len() >= 40);

struct Judged {
    trusted: bool,
    /// The file afterwards.
    written: String,
}

fn judged_by_ssh(sshd: &Sshd, file: &Path, checking: &str) -> Judged {
    let output = sshd
        .ssh_with_known_hosts(file)
        .args([
            "-o",
            &format!("StrictHostKeyChecking={checking}"),
            "-o",
            "UpdateHostKeys=no",
            "-o",
            "KexAlgorithms=curve25519-sha256",
        ])
        .args(["127.0.0.1", "true"])
        .output()
        .expect("ssh runs");
    Judged { trusted: output.status.success(), written: std::fs::read_to_string(file).expect("read") }
}

async fn judged_by_haul(sshd: &Sshd, file: &Path, checking: StrictHostKeyChecking) -> Judged {
    let options = SshOptions {
        host: "target".to_string(),
        address: "127.0.0.1".to_string(),
        port: sshd.port(),
        user: sshd.user().to_string(),
        identity_files: vec![sshd.key_path()],
        user_known_hosts: vec![file.to_path_buf()],
        strict_host_key_checking: checking,
        connect_timeout: Duration::from_secs(60),
        ..SshOptions::default()
    };
    let trusted = match SshConnector::new(options, Arc::new(NoPrompter)).connect().await {
        Ok(_) => true,
        Err(error) if error.kind == RemoteErrorKind::HostKey => false,
        Err(error) => panic!("{error}"),
    };
    Judged { trusted, written: std::fs::read_to_string(file).expect("read") }
}

/// ssh-keygen's own hash of a name.
fn hashed(directory: &Path, name: &str, key: &str) -> String {
    let file = directory.join("to-hash");
    std::fs::write(&file, format!("{name} {key}\n")).expect("write");
    let output =
        std::process::Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output().expect("runs");
    assert!(output.status.success());
    let text = std::fs::read_to_string(&file).expect("read");
    text.split(' ').next().expect("a field").to_string()
}

/// Compares haul with ssh for one text of known_hosts, with and without new keys taken.
/// Gives how often haul trusted; what differs is added to `faults`.
async fn compare(
    sshd: &Sshd,
    case: &str,
    text: &str,
    may_be_stricter: bool,
    faults: &mut Vec<String>,
) -> usize {
    let file = sshd.directory().join("judged");
    let mut trusted = 0;
    for (checking, option) in
        [("yes", StrictHostKeyChecking::Yes), ("accept-new", StrictHostKeyChecking::AcceptNew)]
    {
        std::fs::write(&file, text).expect("write");
        let by_ssh = judged_by_ssh(sshd, &file, checking);
        std::fs::write(&file, text).expect("write");
        let by_haul = judged_by_haul(sshd, &file, option).await;
        trusted += usize::from(by_haul.trusted);
        let stricter = by_ssh.trusted && !by_haul.trusted;
        let same = by_ssh.trusted == by_haul.trusted && by_ssh.written == by_haul.written;
        if !(same || stricter && may_be_stricter) {
            faults.push(format!(
                "{case:?} {checking}: ssh {} {:?}, haul {} {:?}",
                by_ssh.trusted, by_ssh.written, by_haul.trusted, by_haul.written
            ));
        }
    }
    trusted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_is_the_judge() {
    let sshd = Sshd::start();
    let words = words(&sshd);
    let mut faults = Vec::new();
    let mut trusted = 0;
    for (case, may_be_stricter) in CASES {
        let text = words.iter().fold(case.to_string(), |text, (word, value)| text.replace(word, value));
        trusted += compare(&sshd, case, &text, may_be_stricter, &mut faults).await;
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // Both answers occur, or nothing was judged.
    assert!(trusted > 20 && trusted < 2 * CASES.len() - 20, "{trusted}");
}

fn words(sshd: &Sshd) -> Vec<(&'static str, String)> {
    let other = sshd.directory().join("other");
    generate_key(&other, "ed25519", "");
    let ecdsa = sshd.directory().join("other-ecdsa");
    generate_key(&ecdsa, "ecdsa", "");
    let key = sshd.host_key();
    let name = format!("[127.0.0.1]:{}", sshd.port());
    vec![
        ("{HP}", hashed(sshd.directory(), "127.0.0.1", &key)),
        ("{H}", hashed(sshd.directory(), &name, &key)),
        ("{N}", name),
        ("{P}", sshd.port().to_string()),
        ("{B}", key.split(' ').nth(1).expect("base64").to_string()),
        ("{K}", key),
        ("{O}", public_key(&other)),
        ("{E}", public_key(&ecdsa)),
    ]
}

/// As [`CASES`]; `{C}` is the authority that has signed the host's key, `{X}` another one.
const CERTIFICATE_CASES: [&str; 24] = [
    "",
    "{N} {K}\n",
    "{N} {O}\n",
    "{N} {C}\n",
    "@cert-authority {N} {C}\n",
    "@cert-authority 127.0.0.1 {C}\n",
    "@cert-authority * {C} comment\n",
    "@cert-authority\t*\t{C}\n",
    "@cert-authority db,127.0.0.? {C}\n",
    "@cert-authority *,!127.0.0.1 {C}\n",
    "@cert-authority *,!{N} {C}\n",
    "@cert-authority {H} {C}\n",
    "@cert-authority {HP} {C}\n",
    "@cert-authority db {C}\n",
    "@cert-authority * {X}\n",
    "@cert-authority * {K}\n",
    "@cert-authority * {X}\n@cert-authority * {C}\n",
    "@cert-authority * {X}\n{N} {K}\n",
    "@cert-authority * {C}\n{N} {O}\n",
    "@cert-authority * {C}\n@revoked * {C}\n",
    "@revoked * {C}\n{N} {K}\n",
    "@revoked 127.0.0.1 {C}\n{N} {K}\n",
    "@cert-authority * {C}\n@revoked * {K}\n",
    "@cert-authority * {C}\n@revoked * {X}\n",
];

/// What an authority may have signed, by the arguments of ssh-keygen.
const CERTIFICATES: [(&str, &str, &[&str]); 14] = [
    ("good", "ed25519", &["-h", "-n", "127.0.0.1"]),
    ("of several names", "ed25519", &["-h", "-n", "web,127.0.0.1"]),
    ("of another name", "ed25519", &["-h", "-n", "web"]),
    ("of the name with its port", "ed25519", &["-h", "-n", "[127.0.0.1]:22"]),
    ("of a pattern", "ed25519", &["-h", "-n", "127.0.0.*"]),
    ("of nobody", "ed25519", &["-h"]),
    ("expired", "ed25519", &["-h", "-n", "127.0.0.1", "-V", "20200101:20210101"]),
    ("of the future", "ed25519", &["-h", "-n", "127.0.0.1", "-V", "20600101:20610101"]),
    ("of a user", "ed25519", &["-n", "127.0.0.1"]),
    ("with a critical option", "ed25519", &["-h", "-n", "127.0.0.1", "-O", "critical:new=1"]),
    ("with an extension", "ed25519", &["-h", "-n", "127.0.0.1", "-O", "extension:new=1"]),
    ("of an old kind", "rsa", &["-h", "-n", "127.0.0.1", "-t", "ssh-rsa"]),
    ("by RSA", "rsa", &["-h", "-n", "127.0.0.1"]),
    ("by ECDSA", "ecdsa", &["-h", "-n", "127.0.0.1"]),
];

/// A server with a certificate, the words for its cases, and the authority's directory.
fn certified(host_key: &str, authority: &str, arguments: &[&str]) -> (Sshd, Vec<(&'static str, String)>) {
    let directory = tempfile::tempdir().expect("temp directory");
    let ca = directory.path().join("ca");
    generate_key(&ca, authority, "");
    let stranger = directory.path().join("stranger");
    generate_key(&stranger, authority, "");
    let certificate = directory.path().join("host_key-cert.pub");
    // The key has to be there before the server is, and the server makes its own.
    let key = directory.path().join("host_key");
    generate_key(&key, host_key, "");
    let signed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-I", "tester", "-s"])
        .arg(&ca)
        .args(arguments)
        .arg(directory.path().join("host_key.pub"))
        .output()
        .expect("ssh-keygen runs");
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let sshd = Sshd::builder().host_key_from(&key).host_certificate(&certificate).start();
    let mut words = words(&sshd);
    words.push(("{C}", public_key(&ca)));
    words.push(("{X}", public_key(&stranger)));
    (sshd, words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_is_the_judge_of_certificates() {
    let mut faults = Vec::new();
    let mut trusted = 0;
    let mut judged = 0;
    for (index, (name, authority, arguments)) in CERTIFICATES.into_iter().enumerate() {
        let (sshd, words) = certified("ed25519", authority, arguments);
        // All texts for a good certificate; for the others those that could let them in.
        let cases = if index == 0 {
            &CERTIFICATE_CASES[..]
        } else {
            &["@cert-authority * {C}\n", "@cert-authority * {C}\n{N} {K}\n", "@revoked * {C}\n{N} {K}\n"]
        };
        for case in cases {
            let text = words.iter().fold(case.to_string(), |text, (word, value)| text.replace(word, value));
            trusted += compare(&sshd, &format!("{name}: {case}"), &text, false, &mut faults).await;
            judged += 2;
        }
    }
    for host_key in ["ecdsa", "rsa"] {
        let (sshd, words) = certified(host_key, "ed25519", &["-h", "-n", "127.0.0.1"]);
        let case = "@cert-authority * {C}\n";
        let text = words.iter().fold(case.to_string(), |text, (word, value)| text.replace(word, value));
        trusted += compare(&sshd, &format!("{host_key}: {case}"), &text, false, &mut faults).await;
        judged += 2;
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(trusted > 30 && trusted < judged - 30, "{trusted} of {judged}");
}
