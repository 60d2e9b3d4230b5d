//! The program against SSH servers other than OpenSSH, each with its own idea of rename,
//! exclusive open, handles, channels and full disks. On each it delivers the verified file,
//! or refuses with the reason. RELIABILITY.md says what each cannot do.

mod denials;
mod server;

use std::path::Path;

use crate::rows::client::{CHUNK, Client, Outcome, content};
use crate::rows::place::{beside, published};
use server::{Kind, Server};

/// Eight chunks a second, so that a run can be seen half-way.
const SLOW: &str = "--bwlimit=512KiB";
const CHUNKS: u64 = 40;

/// What a server cannot do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Nothing,
    /// Anything that fails on an existing name, for a lock, and a rename that replaces.
    LockAndReplace,
    /// A lock, and going on with a file that was closed: what was merged is sent again.
    LockAndGoingOn,
}

impl Lacks {
    fn lock(self) -> bool {
        self != Lacks::Nothing
    }
}

macro_rules! servers {
    ($($name:ident: $kind:ident lacks $lacks:ident;)*) => {
        $(mod $name {
            use super::*;

            const KIND: Kind = Kind::$kind;
            const LACKS: Lacks = Lacks::$lacks;

            #[test]
            fn files_arrive_and_are_replaced() {
                super::files_arrive_and_are_replaced(KIND, LACKS);
            }

            #[test]
            fn a_killed_run_is_resumed() {
                super::a_killed_run_is_resumed(KIND, LACKS);
            }

            #[test]
            fn one_of_two_clients_has_the_lock() {
                super::one_of_two_clients_has_the_lock(KIND, LACKS);
            }

            #[test]
            fn a_full_disk_is_said_and_room_helps() {
                super::a_full_disk_is_said_and_room_helps(KIND, LACKS);
            }
        })*
    };
}

servers! {
    asyncssh: AsyncSsh lacks Nothing;
    asyncssh_with_a_shell: AsyncSshWithShell lacks Nothing;
    paramiko: Paramiko lacks Nothing;
    twisted: Twisted lacks Nothing;
    node_ssh2: NodeSsh2 lacks Nothing;
    node_ssh2_naive: NodeSsh2Naive lacks Nothing;
    erlang: Erlang lacks LockAndReplace;
    go: Go lacks Nothing;
    rclone: Rclone lacks LockAndGoingOn;
    dropbear: Dropbear lacks Nothing;
    proftpd: ProFtpd lacks Nothing;
}

/// A client's put with `--no-lock` where the server needs it.
struct Scene {
    server: Server,
    client: Client,
    lacks: Lacks,
}

impl Scene {
    fn new(kind: Kind, lacks: Lacks) -> Scene {
        let server = Server::start(kind);
        let client = Client::of(&server);
        Scene { server, client, lacks }
    }

    fn with<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let no_lock = if self.lacks.lock() { &["--no-lock"][..] } else { &[] };
        [no_lock, more].concat()
    }

    fn put(&self, source: &Path, name: &str, more: &[&str]) -> Outcome {
        self.client.put(source, self.server.remote(name), &self.with(more))
    }

    #[track_caller]
    fn has(&self, name: &str, expected: &[u8]) {
        let there = std::fs::read(self.server.local(name)).expect("the file is there");
        assert!(there == expected, "{name} has {} bytes and not what was sent", there.len());
    }

    /// And nothing is left beside it.
    #[track_caller]
    fn holds(&self, name: &str, expected: &[u8]) {
        self.has(name, expected);
        assert_eq!(beside(&self.server, &self.server.local(name)), Vec::<String>::new());
    }
}

fn files_arrive_and_are_replaced(kind: Kind, lacks: Lacks) {
    let scene = Scene::new(kind, lacks);
    for size in [0, 1, CHUNK, 5 * CHUNK + 77] {
        let source = scene.client.source("source", size, size + 1);
        let name = format!("disk-{size}");
        assert_eq!(scene.put(&source, &name, &[]).expect(0).status(), "uploaded");
        scene.holds(&name, &content(size, size + 1));
        assert_eq!(scene.put(&source, &name, &[]).expect(0).status(), "unchanged", "{size}");
    }
    let (name, size) = (format!("disk-{CHUNK}"), 3 * CHUNK + 5);
    let other = scene.client.source("other", size, 9);
    scene.put(&other, &name, &[]).expect(4).says("--if-exists replace");
    scene.holds(&name, &content(CHUNK, CHUNK + 1));
    if lacks == Lacks::LockAndReplace {
        scene.put(&other, &name, &["--if-exists", "replace"]).expect(4).says("--non-atomic-replace");
        scene.has(&name, &content(CHUNK, CHUNK + 1));
        scene.put(&other, &name, &["--if-exists", "replace", "--non-atomic-replace"]).expect(0);
    } else {
        assert_eq!(scene.put(&other, &name, &["--if-exists", "replace"]).expect(0).status(), "uploaded");
    }
    scene.holds(&name, &content(size, 9));
}

fn a_killed_run_is_resumed(kind: Kind, lacks: Lacks) {
    let scene = Scene::new(kind, lacks);
    let size = CHUNKS * CHUNK - 1000;
    let source = scene.client.source("source", size, 1);
    let kill_halfway = |name: &str| {
        let mut run = scene.client.start_put(&source, scene.server.remote(name), &scene.with(&[SLOW]));
        let target = scene.server.local(name);
        run.until("a third of the chunks", || published(&scene.server, &target).len() as u64 > CHUNKS / 3);
        run.kill();
    };
    kill_halfway("disk.img");
    let outcome = scene.put(&source, "disk.img", &[]).expect(0);
    scene.holds("disk.img", &content(size, 1));
    if lacks != Lacks::LockAndGoingOn {
        assert_eq!(outcome.last()["resumed"], true);
        assert!(outcome.number("chunks_skipped") > CHUNKS / 3, "{outcome:?}");
    }

    kill_halfway("other.img");
    let status = scene.client.on("status", scene.server.remote("other.img"), &[]).expect(0);
    assert_eq!(status.last()["state"], "partial");
    scene.client.on("clean", scene.server.remote("other.img"), &scene.with(&[])).expect(0);
    assert_eq!(beside(&scene.server, &scene.server.local("other.img")), Vec::<String>::new());
}

fn one_of_two_clients_has_the_lock(kind: Kind, lacks: Lacks) {
    let scene = Scene::new(kind, lacks);
    let source = scene.client.source("source", CHUNKS * CHUNK, 1);
    let (target, remote) = (scene.server.local("disk.img"), scene.server.remote("disk.img"));
    if lacks.lock() {
        scene.client.put(&source, &remote, &[]).expect(1).says("so no lock").says("--no-lock");
        assert!(!target.exists());
        assert_eq!(beside(&scene.server, &target), Vec::<String>::new());
        return;
    }
    let mut first = scene.client.start_put(&source, &remote, &[SLOW]);
    first.until("chunks", || published(&scene.server, &target).len() > 2);
    scene.client.put(&source, &remote, &[]).expect(11).says("locked by alice");
    scene.client.put(&source, &remote, &["--user-id", "bob"]).expect(11).says("locked by alice");
    assert_eq!(first.wait().expect(0).status(), "uploaded");
    scene.holds("disk.img", &content(CHUNKS * CHUNK, 1));
}

fn a_full_disk_is_said_and_room_helps(kind: Kind, lacks: Lacks) {
    let mut scene = Scene::new(kind, lacks);
    if !scene.server.make_small("2m") {
        return;
    }
    let size = CHUNKS * CHUNK * 2;
    let source = scene.client.source("source", size, 1);
    scene.put(&source, "small/disk.img", &[]).expect(13).says("space");
    assert!(!scene.server.local("small/disk.img").exists());
    scene.server.make_small("40m");
    assert_eq!(scene.put(&source, "small/disk.img", &[]).expect(0).status(), "uploaded");
    scene.holds("small/disk.img", &content(size, 1));
}

/// Says nothing to a second channel, and takes a second connection only after the first.
#[test]
fn a_server_that_never_answers_a_second_channel_is_used_with_one() {
    let scene = Scene::new(Kind::GoOneChannel, Lacks::Nothing);
    let source = scene.client.source("source", 5 * CHUNK + 77, 1);
    assert_eq!(scene.put(&source, "disk.img", &[]).expect(0).status(), "uploaded");
    scene.holds("disk.img", &content(5 * CHUNK + 77, 1));
}
