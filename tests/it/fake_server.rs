//! The SFTP client against a server that is played by the test: slow, silent, wrong or
//! hostile ones.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use haul::model::remote_path::RemotePath;
use haul::remote::files::{FileKind, OpenMode};
use haul::remote::sftp::{SftpClient, SftpOptions};
use haul::remote::{Files, RemoteError, RemoteErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const WRITE: u8 = 6;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const EXTENDED: u8 = 200;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

/// Far beyond what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(1);

struct FakeServer(DuplexStream);

#[derive(Debug)]
struct Asked {
    kind: u8,
    id: u32,
    /// What follows the id.
    body: Vec<u8>,
}

impl FakeServer {
    async fn next(&mut self) -> Asked {
        let length = self.0.read_u32().await.expect("a request");
        let mut packet = vec![0; length as usize];
        self.0.read_exact(&mut packet).await.unwrap();
        let id = packet.get(1..5).map_or(0, |id| u32::from_be_bytes(id.try_into().unwrap()));
        Asked { kind: packet[0], id, body: packet[5..].to_vec() }
    }

    async fn expect(&mut self, kind: u8) -> Asked {
        let asked = self.next().await;
        assert_eq!(asked.kind, kind, "{asked:?}");
        asked
    }

    async fn send(&mut self, packet: &[u8]) {
        self.0.write_u32(packet.len() as u32).await.unwrap();
        self.0.write_all(packet).await.unwrap();
    }

    async fn greet(&mut self, extensions: &[(&str, &str)]) {
        self.expect(INIT).await;
        let mut packet = BytesMut::new();
        packet.put_slice(&[2, 0, 0, 0, 3]);
        for (name, version) in extensions {
            put_string(&mut packet, name.as_bytes());
            put_string(&mut packet, version.as_bytes());
        }
        self.send(&packet).await;
    }

    async fn status(&mut self, id: u32, code: u32) {
        let mut body = BytesMut::new();
        body.put_u32(code);
        self.reply(STATUS, id, &body).await;
    }

    async fn string(&mut self, kind: u8, id: u32, string: &[u8]) {
        let mut body = BytesMut::new();
        put_string(&mut body, string);
        self.reply(kind, id, &body).await;
    }

    async fn reply(&mut self, kind: u8, id: u32, body: &[u8]) {
        let mut packet = BytesMut::new();
        packet.put_u8(kind);
        packet.put_u32(id);
        packet.put_slice(body);
        self.send(&packet).await;
    }
}

fn put_string(bytes: &mut BytesMut, string: &[u8]) {
    bytes.put_u32(string.len() as u32);
    bytes.put_slice(string);
}

fn path(text: &str) -> RemotePath {
    RemotePath::new(text).unwrap()
}

fn options() -> SftpOptions {
    SftpOptions { stall_timeout: STALL, handshake_timeout: STALL, ..SftpOptions::default() }
}

/// A client and the fake server's end, before the greeting.
async fn begin<Play, Played>(play: Play) -> Result<SftpClient, RemoteError>
where
    Play: FnOnce(FakeServer) -> Played,
    Played: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(play(FakeServer(theirs)));
    let (reader, writer) = tokio::io::split(ours);
    timeout(DEADLINE, SftpClient::start(reader, writer, options())).await.expect("the start hangs")
}

/// A session whose server, once greeted, does what `play` says.
async fn session<Play, Played>(play: Play) -> SftpClient
where
    Play: FnOnce(FakeServer) -> Played + Send + 'static,
    Played: Future<Output = ()> + Send + 'static,
{
    let started = begin(|mut server| async move {
        server.greet(&[]).await;
        play(server).await;
    });
    started.await.unwrap()
}

async fn stat(client: &SftpClient) -> Result<haul::remote::files::Attributes, RemoteError> {
    timeout(DEADLINE, client.stat(&path("/x"))).await.expect("a request hangs")
}

/// Keeps the server's end open and answers nothing.
async fn sleep_on(server: FakeServer) {
    tokio::time::sleep(DEADLINE * 2).await;
    drop(server);
}

async fn failed_start<Play, Played>(play: Play) -> RemoteError
where
    Play: FnOnce(FakeServer) -> Played,
    Played: Future<Output = ()> + Send + 'static,
{
    begin(play).await.err().expect("the start works")
}

#[tokio::test]
async fn a_server_that_never_greets() {
    let error = failed_start(sleep_on).await;
    assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
}

#[tokio::test]
async fn a_server_that_closes_instead_of_greeting() {
    let error = failed_start(|server| async { drop(server) }).await;
    assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
}

#[tokio::test]
async fn a_shell_that_prints_before_the_server_speaks() {
    let error = failed_start(|mut server| async move {
        server.0.write_all(b"Welcome to \x1b[31mhost\n").await.unwrap();
        sleep_on(server).await;
    });
    let error = error.await;
    assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
    assert!(error.message.contains("\"Welcome to \\x1b[31mhost\\x0a\""), "{error}");
}

#[tokio::test]
async fn a_server_of_another_version() {
    let error = failed_start(|mut server| async move {
        server.send(&[2, 0, 0, 0, 2]).await;
        sleep_on(server).await;
    });
    assert_eq!(error.await.kind, RemoteErrorKind::Unsupported);
}

#[tokio::test]
async fn limits_that_are_announced_and_then_refused() {
    let client = begin(|mut server| async move {
        server.greet(&[("limits@openssh.com", "1"), ("fsync@openssh.com", "1")]).await;
        let asked = server.expect(EXTENDED).await;
        server.status(asked.id, 4).await;
        sleep_on(server).await;
    });
    let client = client.await.unwrap();
    assert_eq!(client.features().write_limit, 32 * 1024);
    assert!(client.features().fsync);
}

#[tokio::test]
async fn limits_asked_for_together_with_the_greeting() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let mut server = FakeServer(theirs);
    let (reader, writer) = tokio::io::split(ours);
    let options = SftpOptions { in_order: true, ..options() };
    let play = async {
        server.expect(INIT).await;
        // Both are there before the server has said a word.
        let limits = server.expect(EXTENDED).await;
        server.send(&[2, 0, 0, 0, 3]).await;
        let mut body = BytesMut::new();
        [262_144, 131_072, 131_072, 99].into_iter().for_each(|limit| body.put_u64(limit));
        server.reply(201, limits.id, &body).await;
    };
    let (client, ()) =
        timeout(DEADLINE, async { tokio::join!(SftpClient::start(reader, writer, options), play) })
            .await
            .expect("it hangs");
    let client = client.unwrap();
    assert_eq!((client.features().write_limit, client.features().open_handles), (131_072, Some(99)));
}

#[tokio::test]
async fn the_end_of_a_directory_may_be_told_before_its_names() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let mut server = FakeServer(theirs);
    let (reader, writer) = tokio::io::split(ours);
    let options = SftpOptions { in_order: true, ..options() };
    let play = async {
        server.expect(INIT).await;
        let limits = server.expect(EXTENDED).await;
        let mut greeting = BytesMut::from(&[2, 0, 0, 0, 3][..]);
        put_string(&mut greeting, b"fstatvfs@openssh.com");
        put_string(&mut greeting, b"2");
        server.send(&greeting).await;
        server.status(limits.id, 8).await;
        let asked = server.expect(OPENDIR).await;
        server.string(HANDLE, asked.id, b"directory").await;
        // Two are on their way at once, and which is sent first is left to chance.
        let (first, second) = (server.expect(READDIR).await, server.expect(READDIR).await);
        server.status(first.id, 1).await;
        let mut body = BytesMut::new();
        body.put_u32(1);
        put_string(&mut body, b"a");
        put_string(&mut body, b"-rw------- a");
        body.put_u32(0);
        server.reply(NAME, second.id, &body).await;
        server.expect(CLOSE).await;
    };
    let listing = async {
        let client = SftpClient::start(reader, writer, options).await.unwrap();
        client.list(&path("/x"), 10).await.unwrap()
    };
    let (entries, ()) = timeout(DEADLINE, async { tokio::join!(listing, play) }).await.expect("it hangs");
    assert_eq!(entries.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(), [b"a"]);
}

#[tokio::test]
async fn a_server_that_falls_silent() {
    let client = session(sleep_on).await;
    let (one, two) = tokio::join!(stat(&client), stat(&client));
    for result in [one, two, stat(&client).await] {
        let error = result.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
        assert!(error.message.contains("stat \"/x\"") && error.message.contains("silent"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_drips_its_answer_for_ever() {
    let client = session(|mut server| async move {
        loop {
            let asked = server.next().await;
            let mut packet = BytesMut::new();
            packet.put_slice(&[0, 0, 0, 250, STATUS]);
            packet.put_u32(asked.id);
            packet.put_slice(&[0; 245]);
            for byte in packet {
                if server.0.write_u8(byte).await.is_err() {
                    return;
                }
                tokio::time::sleep(STALL / 8).await;
            }
        }
    });
    let error = stat(&client.await).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
}

#[tokio::test]
async fn a_server_whose_packets_come_in_pieces() {
    let client = session(|mut server| async move {
        let asked = server.expect(STAT).await;
        let mut packet = BytesMut::new();
        packet.put_slice(&[0, 0, 0, 17, ATTRS]);
        packet.put_u32(asked.id);
        packet.put_u32(1);
        packet.put_u64(77);
        for byte in packet {
            server.0.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        sleep_on(server).await;
    });
    let attributes = stat(&client.await).await.unwrap();
    assert_eq!((attributes.size, attributes.mode, attributes.kind), (Some(77), None, FileKind::Unknown));
}

/// No request has a timer: the last one waits far longer than the stall timeout.
#[tokio::test]
async fn a_slow_link_is_not_a_stalled_one() {
    const WRITES: usize = 8;
    let client = session(|mut server| async move {
        let handle = server.expect(OPEN).await;
        server.string(HANDLE, handle.id, b"h").await;
        for _ in 0..WRITES {
            let length = server.0.read_u32().await.unwrap() as usize;
            let mut packet = vec![0; length];
            for part in packet.chunks_mut(length.div_ceil(4)) {
                tokio::time::sleep(STALL / 16).await;
                server.0.read_exact(part).await.unwrap();
            }
            assert_eq!(packet[0], WRITE);
            server.status(u32::from_be_bytes(packet[1..5].try_into().unwrap()), 0).await;
        }
        sleep_on(server).await;
    });
    let client = client.await;
    let started = std::time::Instant::now();
    let handle = client.open(&path("/x"), OpenMode::CREATE, None).await.unwrap();
    let mut pending = Vec::new();
    for n in 0..WRITES {
        let data = Bytes::from(vec![0; 32 * 1024]);
        pending.push(timeout(DEADLINE, client.submit_write(&handle, n as u64, data)).await.unwrap().unwrap());
    }
    for write in pending {
        timeout(DEADLINE, write).await.expect("a write hangs").unwrap();
    }
    assert!(started.elapsed() > STALL, "the link was not slow");
}

#[tokio::test]
async fn answers_in_another_order() {
    const REQUESTS: usize = 50;
    let client = session(|mut server| async move {
        let mut asked = Vec::new();
        for _ in 0..REQUESTS {
            asked.push(server.expect(STAT).await);
        }
        for asked in asked.iter().rev() {
            let mut body = BytesMut::new();
            body.put_u32(1);
            // The size is the length of the path that was asked for.
            body.put_u64(u64::from(u32::from_be_bytes(asked.body[..4].try_into().unwrap())));
            server.reply(ATTRS, asked.id, &body).await;
        }
        sleep_on(server).await;
    });
    let client = std::sync::Arc::new(client.await);
    let mut asking = tokio::task::JoinSet::new();
    for n in 1..=REQUESTS {
        let client = client.clone();
        asking.spawn(async move {
            let attributes = client.stat(&path(&"x".repeat(n))).await.unwrap();
            assert_eq!(attributes.size, Some(n as u64));
        });
    }
    timeout(DEADLINE, asking.join_all()).await.expect("a request hangs");
}

/// Whoever sends two requests together, of which the second must come second, has nothing
/// else to rely on; also while others fill the queue and other threads empty it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_leave_in_the_order_of_their_first_polls() {
    const TASKS: usize = 8;
    const ROUNDS: u64 = 500;
    let client = session(|mut server| async move {
        let mut before = [0; TASKS];
        for _ in 0..ROUNDS * 2 * TASKS as u64 {
            let asked = server.expect(STAT).await;
            let text = String::from_utf8(asked.body[4..].to_vec()).unwrap();
            let (task, number) = text[1..].split_once('/').unwrap();
            let (task, number) = (task.parse::<usize>().unwrap(), number.parse::<u64>().unwrap());
            assert_eq!(number, before[task] + 1, "of task {task}");
            before[task] = number;
            server.reply(ATTRS, asked.id, &[0; 4]).await;
        }
        sleep_on(server).await;
    });
    let client = std::sync::Arc::new(client.await);
    let mut asking = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let client = client.clone();
        asking.spawn(async move {
            for round in 0..ROUNDS {
                let [first, second] = [1, 2].map(|n| path(&format!("/{task}/{}", round * 2 + n)));
                let (first, second) = tokio::join!(biased; client.stat(&first), client.stat(&second));
                first.unwrap();
                second.unwrap();
            }
        });
    }
    timeout(DEADLINE, asking.join_all()).await.expect("a request hangs");
}

/// What the server answers to the first request; then the session must be over.
async fn breaks_the_protocol(answer: impl FnOnce(u32) -> Vec<u8> + Send + 'static) {
    let client = session(|mut server| async move {
        let asked = server.next().await;
        server.0.write_all(&answer(asked.id)).await.unwrap();
        sleep_on(server).await;
    });
    let client = client.await;
    for _ in 0..2 {
        let error = stat(&client).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
    }
}

#[tokio::test]
async fn a_packet_of_four_gigabytes() {
    breaks_the_protocol(|_| vec![0xff; 64]).await;
}

#[tokio::test]
async fn an_empty_packet() {
    breaks_the_protocol(|_| vec![0; 4]).await;
}

#[tokio::test]
async fn garbage_in_a_well_formed_frame() {
    breaks_the_protocol(|_| [vec![0, 0, 0, 9], vec![0xaa; 9]].concat()).await;
}

#[tokio::test]
async fn an_answer_to_a_request_never_made() {
    breaks_the_protocol(|id| {
        let mut packet = BytesMut::new();
        packet.put_slice(&[0, 0, 0, 9, STATUS]);
        packet.put_u32(id.wrapping_add(7));
        packet.put_u32(0);
        packet.to_vec()
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_the_wrong_kind() {
    for kind in [HANDLE, DATA] {
        breaks_the_protocol(move |id| {
            let mut packet = BytesMut::new();
            packet.put_slice(&[0, 0, 0, 10, kind]);
            packet.put_u32(id);
            put_string(&mut packet, b"h");
            packet.to_vec()
        })
        .await;
    }
    breaks_the_protocol(|id| {
        let mut packet = BytesMut::new();
        packet.put_slice(&[0, 0, 0, 9, STATUS]);
        packet.put_u32(id);
        packet.put_u32(0);
        packet.to_vec()
    })
    .await;
}

#[tokio::test]
async fn a_session_cut_in_the_middle_of_a_packet() {
    let client = session(|mut server| async move {
        server.next().await;
        server.0.write_all(&[0, 0, 0, 40, STATUS, 0]).await.unwrap();
    });
    let error = stat(&client.await).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
}

#[tokio::test]
async fn unknown_status_codes_are_failures_and_the_session_goes_on() {
    let table = [
        (31, RemoteErrorKind::Failure),
        (11, RemoteErrorKind::AlreadyExists),
        (14, RemoteErrorKind::NoSpace),
        (12, RemoteErrorKind::PermissionDenied),
        (1, RemoteErrorKind::Failure),
    ];
    let client = session(move |mut server| async move {
        for (code, kind) in table {
            let asked = server.expect(STAT).await;
            server.status(asked.id, code).await;
            if kind == RemoteErrorKind::Failure {
                // Whether the name is there at all, which some servers tell only so.
                let looked = server.expect(OPENDIR).await;
                server.status(looked.id, 4).await;
            }
        }
        sleep_on(server).await;
    });
    let client = client.await;
    for (code, kind) in table {
        assert_eq!(stat(&client).await.unwrap_err().kind, kind, "{code}");
    }
}

/// A READDIR reply of `names`, each with no attributes.
fn names(names: &[&[u8]]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u32(names.len() as u32);
    for name in names {
        put_string(&mut body, name);
        put_string(&mut body, b"");
        body.put_u32(0);
    }
    body
}

/// Lists a directory whose every READDIR is answered with `body`, for ever.
async fn endless_listing(body: BytesMut) -> RemoteError {
    let client = session(|mut server| async move {
        let asked = server.expect(OPENDIR).await;
        server.string(HANDLE, asked.id, b"d").await;
        loop {
            let asked = server.next().await;
            if asked.kind != READDIR {
                assert_eq!(asked.kind, CLOSE, "the directory is closed in the end");
                return server.status(asked.id, 0).await;
            }
            server.reply(NAME, asked.id, &body).await;
        }
    });
    let client = client.await;
    timeout(DEADLINE, client.list(&path("/d"), 10_000)).await.expect("the listing hangs").unwrap_err()
}

#[tokio::test]
async fn listings_without_an_end() {
    let crowd: Vec<&[u8]> = vec![b"n"; 15_000];
    let long = vec![b'n'; 5000];
    for body in [names(&crowd), names(&[b"a", b"b"]), names(&[]), names(&[b".", b".."]), names(&[&long])] {
        let error = endless_listing(body).await;
        assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
    }
}

#[tokio::test]
async fn a_path_that_is_none() {
    for name in [b"".as_slice(), b"a\0b"] {
        let client = session(move |mut server| async move {
            let asked = server.expect(REALPATH).await;
            server.reply(NAME, asked.id, &names(&[name])).await;
            sleep_on(server).await;
        });
        let client = client.await;
        let real = timeout(DEADLINE, client.real_path(&path("."))).await.expect("it hangs");
        assert_eq!(real.unwrap_err().kind, RemoteErrorKind::Protocol);
    }
}

#[tokio::test]
async fn a_failed_close_is_reported() {
    let client = session(|mut server| async move {
        let asked = server.expect(OPEN).await;
        server.string(HANDLE, asked.id, b"\xff\0").await;
        let asked = server.expect(WRITE).await;
        server.status(asked.id, 0).await;
        let asked = server.expect(CLOSE).await;
        assert_eq!(asked.body, b"\0\0\0\x02\xff\0", "a handle is opaque");
        server.status(asked.id, 14).await;
        sleep_on(server).await;
    });
    let client = client.await;
    let check = async {
        let handle = client.open(&path("/x"), OpenMode::CREATE, None).await.unwrap();
        client.submit_write(&handle, 0, Bytes::from_static(b"x")).await.unwrap().await.unwrap();
        client.close(handle).await.unwrap_err()
    };
    let error = timeout(DEADLINE, check).await.expect("it hangs");
    assert_eq!(error.kind, RemoteErrorKind::NoSpace);
    assert_eq!(error.message, "close \"/x\": no space left");
}

#[tokio::test]
async fn a_handle_nobody_waits_for_is_closed() {
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let (go, gone) = tokio::sync::oneshot::channel();
    let (done, closed) = tokio::sync::oneshot::channel();
    let client = session(|mut server| async move {
        let open = server.expect(OPEN).await;
        asked.send(()).unwrap();
        gone.await.unwrap();
        server.string(HANDLE, open.id, b"left").await;
        let close = server.expect(CLOSE).await;
        assert_eq!(close.body, b"\0\0\0\x04left");
        assert_ne!(close.id, open.id);
        server.status(close.id, 0).await;
        done.send(()).unwrap();
        sleep_on(server).await;
    });
    let client = client.await;
    let file = path("/x");
    tokio::select! {
        opened = client.open(&file, OpenMode::CREATE, None) => panic!("{opened:?}"),
        asked = was_asked => asked.unwrap(),
    }
    go.send(()).unwrap();
    timeout(DEADLINE, closed).await.expect("the handle stays open").unwrap();
}

#[tokio::test]
async fn a_dropped_client_says_goodbye() {
    let (ended, end) = tokio::sync::oneshot::channel();
    let client = session(|mut server| async move {
        let mut rest = Vec::new();
        server.0.read_to_end(&mut rest).await.unwrap();
        ended.send(rest).unwrap();
    });
    drop(client.await);
    assert_eq!(timeout(DEADLINE, end).await.expect("the stream stays open").unwrap(), b"");
}

/// A write that was handed over is still answered after its client has gone.
#[tokio::test]
async fn a_pending_write_outlives_its_client() {
    let client = session(|mut server| async move {
        let open = server.expect(OPEN).await;
        server.string(HANDLE, open.id, b"h").await;
        let write = server.expect(WRITE).await;
        server.status(write.id, 0).await;
        sleep_on(server).await;
    });
    let client = client.await;
    let check = async {
        let handle = client.open(&path("/x"), OpenMode::CREATE, None).await.unwrap();
        let pending = client.submit_write(&handle, 0, Bytes::from_static(b"x")).await.unwrap();
        drop(client);
        pending.await.unwrap();
    };
    timeout(DEADLINE, check).await.expect("it hangs");
}
