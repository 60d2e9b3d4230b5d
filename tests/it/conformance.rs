//! What every implementation of `Files` must do, whatever stands behind it.
//!
//! A check takes a session and an empty directory of its own. `suite!` makes a test of
//! each check for one kind of host; another kind is one more line.

use std::any::Any;
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haul::model::remote_path::RemotePath;
use haul::remote::files::{FileKind, Handle, OpenMode, SetAttributes, Times};
use haul::remote::local::{LocalConnector, PipedConnector};
use haul::remote::loopback::LoopbackServer;
use haul::remote::ssh::{NoPrompter, SshConnector, SshOptions};
use haul::remote::{Connection, Connector, Files, RemoteErrorKind};

use crate::harness::Sshd;

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";
const KIB: usize = 1024;
/// Far beyond what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A host to be checked: one session, and an empty directory as the session names it.
struct Site {
    files: Arc<dyn Files>,
    base: RemotePath,
    _connection: Arc<dyn Connection>,
    /// What stands as long as the site is used: a directory, a server.
    _ground: Box<dyn Any>,
}

async fn site(connector: impl Connector, base: &Path, ground: impl Any) -> Site {
    let connection = connector.connect().await.unwrap();
    let files = connection.files().await.unwrap();
    let base = path(base.to_str().unwrap());
    Site { files, base, _connection: connection, _ground: Box::new(ground) }
}

async fn local_directory() -> Site {
    let directory = tempfile::tempdir().unwrap();
    site(LocalConnector::new(directory.path(), None), Path::new("/"), directory).await
}

async fn whole_machine() -> Site {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().to_owned();
    site(LocalConnector::whole_machine(None), &base, directory).await
}

async fn sftp_server() -> Site {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().to_owned();
    site(PipedConnector::new(SFTP_SERVER, Vec::new(), None), &base, directory).await
}

async fn server_inside() -> Site {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let server = LoopbackServer::start(root).await.unwrap();
    let (key, known_hosts) = (directory.path().join("key"), directory.path().join("known_hosts"));
    std::fs::write(&key, server.client_key_pem().unwrap()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&known_hosts, server.known_hosts_line().unwrap()).unwrap();
    let connector = ssh(server.port(), "any", key, known_hosts);
    site(connector, Path::new("/"), (server, directory)).await
}

async fn openssh() -> Site {
    let sshd = Sshd::start();
    let connector = ssh(sshd.port(), sshd.user(), sshd.key_path(), sshd.known_hosts_path());
    let base = sshd.scratch();
    site(connector, &base, sshd).await
}

fn ssh(port: u16, user: &str, key: PathBuf, known_hosts: PathBuf) -> SshConnector {
    let options = SshOptions {
        host: "host".to_owned(),
        address: "127.0.0.1".to_owned(),
        port,
        user: user.to_owned(),
        identity_files: vec![key],
        identities_only: true,
        batch_mode: true,
        user_known_hosts: vec![known_hosts],
        ..SshOptions::default()
    };
    SshConnector::new(options, Arc::new(NoPrompter))
}

macro_rules! suite {
    ($host:ident) => {
        suite!(
            $host: open_modes, exclusive_create, reads_and_writes_at_offsets, pipelined_writes,
            writes_past_the_limit, rename_and_rename_over, rename_onto_the_same_inode,
            hard_link_fails_on_an_existing_name, removals, missing_things, long_listing, listing_limit,
            attributes_set_and_read, what_is_no_link, sync_of_file_and_directory, free_space,
            copies_on_the_server, copy_past_the_end, names_of_any_bytes, names_too_long, many_open_handles,
            many_opens_and_closes, a_closed_handle_is_gone, real_paths, requests_are_counted,
        );
    };
    ($host:ident: $($check:ident),+ $(,)?) => {
        mod $host {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    let site = super::$host().await;
                    let check = super::$check(&*site.files, &site.base);
                    tokio::time::timeout(super::DEADLINE, check).await.expect("a check hangs");
                }
            )+
        }
    };
}

suite!(local_directory);
suite!(whole_machine);
suite!(sftp_server);
suite!(server_inside);
suite!(openssh);

fn path(text: impl AsRef<[u8]>) -> RemotePath {
    RemotePath::new(text.as_ref().to_vec()).unwrap()
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length).map(|at| ((at + seed) % 251) as u8).collect::<Vec<_>>().into()
}

async fn write(files: &dyn Files, handle: &Handle, offset: u64, data: impl Into<Bytes>) {
    files.submit_write(handle, offset, data.into()).await.unwrap().await.unwrap();
}

async fn put(files: &dyn Files, path: &RemotePath, data: impl Into<Bytes>) {
    let handle = files.open(path, OpenMode::CREATE, Some(0o644)).await.unwrap();
    write(files, &handle, 0, data).await;
    files.close(handle).await.unwrap();
}

async fn get(files: &dyn Files, path: &RemotePath) -> Vec<u8> {
    let handle = files.open(path, OpenMode::READ, None).await.unwrap();
    let mut data = Vec::new();
    loop {
        let part = files.read_at(&handle, data.len() as u64, usize::MAX).await.unwrap();
        if part.is_empty() {
            break;
        }
        data.extend_from_slice(&part);
    }
    files.close(handle).await.unwrap();
    data
}

async fn exists(files: &dyn Files, path: &RemotePath) -> bool {
    match files.lstat(path).await {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => panic!("{error}"),
    }
}

/// SFTP's bare failure, or the kind where the host is able to tell.
fn refused<T: std::fmt::Debug>(result: Result<T, haul::remote::RemoteError>, kind: RemoteErrorKind) {
    let error = result.expect_err("it was not to work");
    assert!(error.kind == kind || error.kind == RemoteErrorKind::Failure, "{error:?}");
}

async fn open_modes(files: &dyn Files, base: &RemotePath) {
    let file = base.join("f");
    for how in [OpenMode::READ, OpenMode::WRITE, OpenMode::READ_WRITE] {
        let error = files.open(&file, how, None).await.unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert!(error.message.contains(&format!("open {file:?}")), "{error}");
    }
    put(files, &file, "0123456789").await;

    let handle = files.open(&file, OpenMode::WRITE, None).await.unwrap();
    write(files, &handle, 2, "ab").await;
    assert!(files.read_at(&handle, 0, 4).await.is_err(), "a handle for writing reads");
    files.close(handle).await.unwrap();
    assert_eq!(get(files, &file).await, b"01ab456789");

    let handle = files.open(&file, OpenMode::READ_WRITE, None).await.unwrap();
    write(files, &handle, 9, "xyz").await;
    assert_eq!(&files.read_at(&handle, 8, 10).await.unwrap()[..], b"8xyz");
    files.close(handle).await.unwrap();

    let handle = files.open(&file, OpenMode::READ, None).await.unwrap();
    let written = files.submit_write(&handle, 0, Bytes::from_static(b"no")).await.unwrap().await;
    assert!(written.is_err(), "a handle for reading writes");
    files.close(handle).await.unwrap();

    put(files, &file, "short").await;
    assert_eq!(get(files, &file).await, b"short");
}

async fn exclusive_create(files: &dyn Files, base: &RemotePath) {
    let file = base.join("f");
    let handle = files.open(&file, OpenMode::CREATE_NEW, Some(0o600)).await.unwrap();
    write(files, &handle, 0, "first").await;
    refused(files.open(&file, OpenMode::CREATE_NEW, None).await, RemoteErrorKind::AlreadyExists);
    files.close(handle).await.unwrap();
    assert_eq!(get(files, &file).await, b"first");
    assert_eq!(files.stat(&file).await.unwrap().mode, Some(0o600));
}

async fn reads_and_writes_at_offsets(files: &dyn Files, base: &RemotePath) {
    let file = base.join("f");
    let handle = files.open(&file, OpenMode { read: true, ..OpenMode::CREATE }, None).await.unwrap();
    write(files, &handle, (5 << 30) + 1, "end").await;
    write(files, &handle, 3, "begin").await;
    let attributes = files.stat_handle(&handle).await.unwrap();
    assert_eq!(attributes.size, Some((5 << 30) + 4));
    assert_eq!(attributes.kind, FileKind::File);
    assert_eq!(&files.read_at(&handle, 0, 9).await.unwrap()[..], b"\0\0\0begin\0");
    assert_eq!(&files.read_at(&handle, 5 << 30, 100).await.unwrap()[..], b"\0end");
    assert!(files.read_at(&handle, 6 << 30, 100).await.unwrap().is_empty());
    files.close(handle).await.unwrap();
}

async fn pipelined_writes(files: &dyn Files, base: &RemotePath) {
    let file = base.join("f");
    let step = (128 * KIB).min(files.features().write_limit);
    let handle = files.open(&file, OpenMode::CREATE, None).await.unwrap();
    let mut pending = Vec::new();
    for n in 0..64 {
        let data = pattern(step, n);
        pending.push(files.submit_write(&handle, (n * step) as u64, data).await.unwrap());
    }
    // Answers may be taken in any order.
    for write in pending.into_iter().rev() {
        write.await.unwrap();
    }
    files.close(handle).await.unwrap();
    let data = get(files, &file).await;
    assert_eq!(data.len(), 64 * step);
    for (n, part) in data.chunks(step).enumerate() {
        assert!(part == pattern(step, n), "block {n}");
    }
}

async fn writes_past_the_limit(files: &dyn Files, base: &RemotePath) {
    let limit = files.features().write_limit;
    let handle = files.open(&base.join("f"), OpenMode::CREATE, None).await.unwrap();
    write(files, &handle, 0, pattern(limit, 0)).await;
    let error = files.submit_write(&handle, 0, pattern(limit + 1, 0)).await.err().unwrap();
    assert_eq!(error.kind, RemoteErrorKind::BadRequest);
    assert_eq!(files.stat_handle(&handle).await.unwrap().size, Some(limit as u64));
    files.close(handle).await.unwrap();
}

async fn rename_and_rename_over(files: &dyn Files, base: &RemotePath) {
    let (a, b) = (base.join("a"), base.join("b"));
    put(files, &a, "a").await;
    files.rename(&a, &b).await.unwrap();
    assert!(!exists(files, &a).await);
    put(files, &a, "new").await;
    refused(files.rename(&a, &b).await, RemoteErrorKind::AlreadyExists);
    assert_eq!(get(files, &b).await, b"a");
    files.rename_over(&a, &b).await.unwrap();
    assert_eq!(get(files, &b).await, b"new");
    assert!(!exists(files, &a).await);
    let error = files.rename_over(&a, &b).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");

    let directory = base.join("d");
    files.make_directory(&directory, 0o700).await.unwrap();
    files.rename(&directory, &base.join("e")).await.unwrap();
    assert!(exists(files, &base.join("e")).await);
}

/// What the lock protocol must know of: it says OK and does nothing.
async fn rename_onto_the_same_inode(files: &dyn Files, base: &RemotePath) {
    let (a, b) = (base.join("a"), base.join("b"));
    put(files, &a, "a").await;
    files.hard_link(&a, &b).await.unwrap();
    files.rename_over(&a, &b).await.unwrap();
    assert!(exists(files, &a).await && exists(files, &b).await);
}

async fn hard_link_fails_on_an_existing_name(files: &dyn Files, base: &RemotePath) {
    let (a, b) = (base.join("a"), base.join("b"));
    put(files, &a, "a").await;
    put(files, &b, "b").await;
    refused(files.hard_link(&a, &b).await, RemoteErrorKind::AlreadyExists);
    assert_eq!(get(files, &b).await, b"b");
    files.hard_link(&a, &base.join("c")).await.unwrap();
    let error = files.hard_link(&base.join("none"), &base.join("d")).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    files.remove(&a).await.unwrap();
    assert_eq!(get(files, &base.join("c")).await, b"a");
}

async fn removals(files: &dyn Files, base: &RemotePath) {
    let directory = base.join("d");
    files.make_directory(&directory, 0o700).await.unwrap();
    refused(files.make_directory(&directory, 0o700).await, RemoteErrorKind::AlreadyExists);
    put(files, &directory.join("f"), "f").await;
    refused(files.remove_directory(&directory).await, RemoteErrorKind::Failure);
    assert!(files.remove(&directory).await.is_err(), "remove takes a directory");
    assert!(files.remove_directory(&directory.join("f")).await.is_err(), "rmdir takes a file");
    files.remove(&directory.join("f")).await.unwrap();
    files.remove_directory(&directory).await.unwrap();
    assert!(!exists(files, &directory).await);
}

async fn missing_things(files: &dyn Files, base: &RemotePath) {
    let none = base.join("none");
    let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    let errors = [
        files.stat(&none).await.err(),
        files.lstat(&none).await.err(),
        files.read_link(&none).await.err(),
        files.list(&none, 9).await.err(),
        files.remove(&none).await.err(),
        files.remove_directory(&none).await.err(),
        files.rename(&none, &base.join("to")).await.err(),
        files.set_attributes(&none, set).await.err(),
        files.make_directory(&none.join("below"), 0o700).await.err(),
        files.space(&none).await.err(),
    ];
    for (n, error) in errors.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("call {n} works"));
        assert!(error.is_not_found(), "{n}: {error:?}");
        assert!(error.message.contains(&none.to_string()), "{n}: {error}");
    }
}

async fn long_listing(files: &dyn Files, base: &RemotePath) {
    const NAMES: usize = 5000;
    for n in 0..NAMES {
        let handle = files.open(&base.join(format!("name-{n}")), OpenMode::CREATE, None).await.unwrap();
        files.close(handle).await.unwrap();
    }
    let entries = files.list(base, NAMES).await.unwrap();
    assert_eq!(entries.len(), NAMES);
    let names: HashSet<_> = entries.iter().map(|entry| entry.name.clone()).collect();
    assert!((0..NAMES).all(|n| names.contains(format!("name-{n}").as_bytes())));
    assert!(entries.iter().all(|entry| entry.attributes.kind == FileKind::File));
    let error = files.list(base, NAMES - 1).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Protocol);
}

async fn listing_limit(files: &dyn Files, base: &RemotePath) {
    assert_eq!(files.list(base, 0).await.unwrap(), []);
    put(files, &base.join("f"), "f").await;
    files.make_directory(&base.join("d"), 0o700).await.unwrap();
    let mut entries = files.list(base, 2).await.unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(entries[0].name, b"d");
    assert_eq!(entries[0].attributes.kind, FileKind::Directory);
    assert_eq!(entries[1].attributes.size, Some(1));
    assert_eq!(files.list(base, 1).await.unwrap_err().kind, RemoteErrorKind::Protocol);
    // The session goes on: the limit was ours.
    assert_eq!(files.list(base, 2).await.unwrap().len(), 2);
}

async fn attributes_set_and_read(files: &dyn Files, base: &RemotePath) {
    let file = base.join("f");
    put(files, &file, "0123456789").await;
    let times = Some(Times { accessed: 1_000_000_000, modified: 1_234_567_890 });
    let owner = files.stat(&file).await.unwrap().owner;
    let set = SetAttributes { size: Some(4), mode: Some(0o4751), owner, times };
    files.set_attributes(&file, set).await.unwrap();
    let attributes = files.stat(&file).await.unwrap();
    assert_eq!((attributes.size, attributes.times), (Some(4), times));
    assert_eq!((attributes.kind, attributes.owner), (FileKind::File, owner));
    assert_eq!(attributes.mode.unwrap() & 0o777, 0o751);

    let handle = files.open(&file, OpenMode::READ_WRITE, None).await.unwrap();
    let times = Some(Times { accessed: 5, modified: u32::MAX });
    let set = SetAttributes { size: Some(9000), mode: Some(0o600), owner: None, times };
    files.set_handle_attributes(&handle, set).await.unwrap();
    let attributes = files.stat_handle(&handle).await.unwrap();
    assert_eq!((attributes.size, attributes.mode), (Some(9000), Some(0o600)));
    files.close(handle).await.unwrap();
    assert_eq!(get(files, &file).await, [b"0123".as_slice(), &[0; 8996]].concat());

    let directory = base.join("d");
    files.make_directory(&directory, 0o700).await.unwrap();
    let attributes = files.stat(&directory).await.unwrap();
    assert_eq!((attributes.kind, attributes.mode), (FileKind::Directory, Some(0o700)));
}

/// `Files` makes no links, so links that exist are looked at further below.
async fn what_is_no_link(files: &dyn Files, base: &RemotePath) {
    let file = base.join("f");
    put(files, &file, "data").await;
    assert!(files.read_link(&file).await.is_err(), "a file is no link");
    assert_eq!(files.lstat(&file).await.unwrap(), files.stat(&file).await.unwrap());
}

async fn sync_of_file_and_directory(files: &dyn Files, base: &RemotePath) {
    let handle = files.open(&base.join("f"), OpenMode::CREATE, None).await.unwrap();
    write(files, &handle, 0, "data").await;
    files.sync(&handle).await.unwrap();
    files.close(handle).await.unwrap();
    let directory = files.open(base, OpenMode::READ, None).await.unwrap();
    files.sync(&directory).await.unwrap();
    files.close(directory).await.unwrap();
}

async fn free_space(files: &dyn Files, base: &RemotePath) {
    let space = files.space(base).await.unwrap();
    assert!(space.available_bytes > 0 && space.available_bytes <= space.total_bytes, "{space:?}");
    assert!(!space.read_only);
    assert!(space.name_max >= 255, "{space:?}");
}

async fn copies_on_the_server(files: &dyn Files, base: &RemotePath) {
    let data = pattern(200 * KIB, 0);
    put(files, &base.join("from"), data.clone()).await;
    let from = files.open(&base.join("from"), OpenMode::READ, None).await.unwrap();
    let to = files.open(&base.join("to"), OpenMode::CREATE, None).await.unwrap();
    files.copy_data(&from, 100, 150_000, &to, 50).await.unwrap();
    assert_eq!(files.stat_handle(&to).await.unwrap().size, Some(150_050));
    files.copy_data(&from, 200_000, 0, &to, 150_050).await.unwrap();
    assert_eq!(files.stat_handle(&to).await.unwrap().size, Some(150_050 + 4800));
    assert!(files.copy_data(&from, 0, 1, &from, 0).await.is_err(), "a file is copied onto itself");
    files.close(from).await.unwrap();
    files.close(to).await.unwrap();
    let expected = [&[0; 50], &data[100..150_100], &data[200_000..]].concat();
    assert!(get(files, &base.join("to")).await == expected);
}

/// OpenSSH 9.2 says OK. So the answer proves nothing: the size does.
async fn copy_past_the_end(files: &dyn Files, base: &RemotePath) {
    put(files, &base.join("from"), "0123").await;
    let from = files.open(&base.join("from"), OpenMode::READ, None).await.unwrap();
    let to = files.open(&base.join("to"), OpenMode::CREATE, None).await.unwrap();
    if let Err(error) = files.copy_data(&from, 2, 100, &to, 0).await {
        assert_eq!(error.kind, RemoteErrorKind::Failure, "{error}");
    }
    assert_eq!(files.stat_handle(&to).await.unwrap().size, Some(2));
    files.close(from).await.unwrap();
    files.close(to).await.unwrap();
}

fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = vec![
        b"\xff\xfe\x80".to_vec(),
        b"new\nline".to_vec(),
        b"-rf".to_vec(),
        b"$(touch x); `y` 'z' \"w\" \\".to_vec(),
        b"...".to_vec(),
        b" ".to_vec(),
        "gr\u{fc}n \u{202e}".into(),
        vec![b'n'; 255],
        [b"\xc3".repeat(254), b"x".to_vec()].concat(),
    ];
    names.push((1..=255).filter(|byte| *byte != b'/').collect());
    names
}

async fn names_of_any_bytes(files: &dyn Files, base: &RemotePath) {
    let mut names = odd_names();
    // The server inside haul takes UTF-8 only; it has to say so, and change nothing.
    let first = files.open(&base.join(b"\xff"), OpenMode::CREATE, None).await;
    match first {
        Ok(handle) => {
            files.close(handle).await.unwrap();
            files.remove(&base.join(b"\xff")).await.unwrap();
        }
        Err(error) => {
            assert!(error.message.ends_with("this server takes UTF-8 names only"), "{error}");
            names.retain(|name| std::str::from_utf8(name).is_ok());
        }
    }
    assert!(files.list(base, 100).await.unwrap().is_empty());
    for name in &names {
        put(files, &base.join(name), name.clone()).await;
    }
    let mut listed: Vec<_> = files.list(base, 100).await.unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    names.sort();
    assert_eq!(listed.iter().map(|entry| &entry.name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    for name in &names {
        let moved = base.join("moved");
        files.rename_over(&base.join(name), &moved).await.unwrap();
        assert_eq!(&get(files, &moved).await, name);
        files.remove(&moved).await.unwrap();
    }
}

async fn names_too_long(files: &dyn Files, base: &RemotePath) {
    let long = base.join(vec![b'n'; 256]);
    refused(files.open(&long, OpenMode::CREATE, None).await, RemoteErrorKind::BadRequest);
    let longer = base.join(vec![b'n'; 40_000]);
    refused(files.stat(&longer).await, RemoteErrorKind::BadRequest);
    assert!(exists(files, base).await);
}

async fn many_open_handles(files: &dyn Files, base: &RemotePath) {
    let mut handles = Vec::new();
    for n in 0..200 {
        let how = OpenMode { read: true, ..OpenMode::CREATE };
        let handle = files.open(&base.join(n.to_string()), how, None).await.unwrap();
        write(files, &handle, 0, n.to_string()).await;
        handles.push(handle);
    }
    let distinct: HashSet<_> = handles.iter().cloned().collect();
    assert_eq!(distinct.len(), handles.len());
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(files.read_at(&handle, 0, 9).await.unwrap(), n.to_string().as_bytes());
        files.close(handle).await.unwrap();
    }
}

async fn many_opens_and_closes(files: &dyn Files, base: &RemotePath) {
    let file = base.join("f");
    for n in 0..400 {
        put(files, &file, n.to_string()).await;
    }
    assert_eq!(get(files, &file).await, b"399");
}

async fn a_closed_handle_is_gone(files: &dyn Files, base: &RemotePath) {
    let handle = files.open(&base.join("f"), OpenMode::CREATE, None).await.unwrap();
    files.close(handle.clone()).await.unwrap();
    assert!(files.stat_handle(&handle).await.is_err());
    let written = match files.submit_write(&handle, 0, Bytes::from_static(b"late")).await {
        Ok(pending) => pending.await,
        Err(error) => Err(error),
    };
    assert!(written.is_err());
    assert!(files.close(handle).await.is_err());
    assert!(files.stat_handle(&Handle(Bytes::from_static(&[7; 300]))).await.is_err());
    assert_eq!(files.stat(&base.join("f")).await.unwrap().size, Some(0));
}

async fn real_paths(files: &dyn Files, base: &RemotePath) {
    let real = files.real_path(base).await.unwrap();
    assert!(real.is_absolute());
    files.make_directory(&base.join("d"), 0o700).await.unwrap();
    let winding = files.real_path(&base.join("d/.././d//")).await.unwrap();
    assert_eq!(winding, real.join("d"));
    // What is not there yet is resolved all the same.
    assert_eq!(files.real_path(&base.join("new")).await.unwrap(), real.join("new"));
    let home = files.real_path(&path(".")).await.unwrap();
    assert!(home.is_absolute());
}

async fn requests_are_counted(files: &dyn Files, base: &RemotePath) {
    let before = files.requests();
    put(files, &base.join("f"), "f").await;
    assert_eq!(files.requests() - before, 3);
    files.list(base, 9).await.unwrap();
    assert_eq!(files.requests() - before, 3 + 4);
}

/// `cut` ends the session from the other side.
async fn every_pending_request_fails_with_a_lost_link(
    files: &dyn Files,
    base: &RemotePath,
    stop: impl FnOnce(),
    cut: impl Future<Output = ()>,
) {
    let handle = files.open(&base.join("f"), OpenMode::CREATE, None).await.unwrap();
    stop();
    let mut pending = Vec::new();
    let step = files.features().write_limit;
    let filled = async {
        for n in 0..1000 {
            pending.push(files.submit_write(&handle, (n * step) as u64, pattern(step, n)).await?);
        }
        Ok::<_, haul::remote::RemoteError>(())
    };
    // Nothing is taken off the pipe any more, so this waits, until the cut wakes it.
    let (filled, ()) = tokio::join!(filled, cut);
    assert_eq!(filled.unwrap_err().kind, RemoteErrorKind::LinkLost);
    assert!(!pending.is_empty());
    for write in pending {
        let error = write.await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
    }
    let error = files.stat(base).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::LinkLost, "{error}");
    assert_eq!(files.close(handle).await.unwrap_err().kind, RemoteErrorKind::LinkLost);
}

fn signal(process: u32, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

#[tokio::test]
async fn a_killed_server_is_a_lost_link() {
    let directory = tempfile::tempdir().unwrap();
    let connection = PipedConnector::new(SFTP_SERVER, Vec::new(), None).open();
    let files = connection.files().await.unwrap();
    let server = connection.server_processes()[0];
    let base = path(directory.path().to_str().unwrap());
    let check = every_pending_request_fails_with_a_lost_link(
        &*files,
        &base,
        || signal(server, rustix::process::Signal::STOP),
        async { connection.disconnect().await },
    );
    tokio::time::timeout(Duration::from_secs(10), check).await.expect("it hangs");
}

#[tokio::test]
async fn a_stopped_server_is_a_lost_link() {
    let directory = tempfile::tempdir().unwrap();
    let options = haul::remote::sftp::SftpOptions {
        stall_timeout: Duration::from_secs(1),
        ..haul::remote::sftp::SftpOptions::default()
    };
    let connection = PipedConnector::new(SFTP_SERVER, Vec::new(), None).with_options(options).open();
    let files = connection.files().await.unwrap();
    let server = connection.server_processes()[0];
    let base = path(directory.path().to_str().unwrap());
    let check = every_pending_request_fails_with_a_lost_link(
        &*files,
        &base,
        || signal(server, rustix::process::Signal::STOP),
        async {},
    );
    tokio::time::timeout(DEADLINE, check).await.expect("it hangs");
}

#[tokio::test]
async fn a_poor_server_announces_less_and_is_believed() {
    let denied = "limits,posix-rename,hardlink,fsync,statvfs,copy-data,fstat";
    let arguments = vec!["-P".to_owned(), denied.to_owned()];
    let connection = PipedConnector::new(SFTP_SERVER, arguments, None).open();
    let files = connection.files().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let base = path(directory.path().to_str().unwrap());
    let features = files.features().clone();
    assert!(!features.posix_rename && !features.hard_link && !features.fsync);
    assert!(!features.statvfs && !features.copy_data);
    assert_eq!((features.write_limit, features.read_limit), (32 * KIB, 32 * KIB));
    let before = files.requests();
    let error = files.rename_over(&base, &base).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Unsupported, "{error}");
    assert_eq!(files.requests(), before, "what is not announced is not asked");
    let handle = files.open(&base.join("f"), OpenMode::CREATE, None).await.unwrap();
    let error = files.stat_handle(&handle).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::PermissionDenied, "{error}");
    assert_eq!(files.sync(&handle).await.unwrap_err().kind, RemoteErrorKind::Unsupported);
}

#[tokio::test]
async fn symbolic_links_of_a_real_directory() {
    let directory = tempfile::tempdir().unwrap();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, directory.path().join(name));
    link("target", "link").unwrap();
    link("nowhere", "dangling").unwrap();
    link("loop", "loop").unwrap();
    std::fs::write(directory.path().join("target"), "data").unwrap();
    let mapped = LocalConnector::new(directory.path(), None);
    let piped = PipedConnector::new(SFTP_SERVER, Vec::new(), None);
    let hosts: [(&dyn Connector, &str); 2] = [(&mapped, "/"), (&piped, directory.path().to_str().unwrap())];
    for (host, base) in hosts {
        let files = host.connect().await.unwrap().files().await.unwrap();
        let base = path(base);
        let link = base.join("link");
        assert_eq!(files.lstat(&link).await.unwrap().kind, FileKind::Symlink);
        assert_eq!(files.stat(&link).await.unwrap().kind, FileKind::File);
        assert_eq!(files.read_link(&link).await.unwrap(), path("target"));
        assert!(files.stat(&base.join("dangling")).await.unwrap_err().is_not_found());
        assert_eq!(files.read_link(&base.join("dangling")).await.unwrap(), path("nowhere"));
        assert!(files.stat(&base.join("loop")).await.is_err());
        let real = files.real_path(&base).await.unwrap();
        assert_eq!(files.real_path(&link).await.unwrap(), real.join("target"));
    }
}

#[tokio::test]
async fn a_directory_posing_as_a_host_keeps_paths_below_it() {
    let directory = tempfile::tempdir().unwrap();
    let files = LocalConnector::new(directory.path().join("root"), None);
    std::fs::create_dir(directory.path().join("root")).unwrap();
    std::fs::write(directory.path().join("outside"), "secret").unwrap();
    let files = files.connect().await.unwrap().files().await.unwrap();
    for escaping in ["/../outside", "../outside", "/a/../../outside"] {
        let error = files.stat(&path(escaping)).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::PermissionDenied, "{error}");
    }
    put(&*files, &path("/a"), "a").await;
    assert_eq!(get(&*files, &path("a")).await, b"a");
    assert!(files.stat(&path("/a/")).await.is_err(), "a file is no directory");
}

/// Futures that are dropped after one step leave the session sound, and no handle open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_futures_leave_the_session_sound() {
    let directory = tempfile::tempdir().unwrap();
    let connection = PipedConnector::new(SFTP_SERVER, Vec::new(), None).open();
    let files = connection.files().await.unwrap();
    let base = path(directory.path().to_str().unwrap());
    let descriptors = format!("/proc/{}/fd", connection.server_processes()[0]);
    let open_now = || std::fs::read_dir(&descriptors).unwrap().count();
    put(&*files, &base.join("kept"), "kept").await;
    let before = open_now();

    let kept = files.open(&base.join("kept"), OpenMode::READ_WRITE, None).await.unwrap();
    let step = files.features().write_limit;
    let mut once = 0;
    for n in 0..400 {
        let file = base.join(n.to_string());
        // A different number of steps each time, so that it is cut off in every state.
        let short = Duration::from_micros(n % 7 * 40);
        let opened = tokio::time::timeout(short, files.open(&file, OpenMode::CREATE, None)).await;
        if let Ok(handle) = opened {
            once += 1;
            let _ = tokio::time::timeout(short, files.close(handle.unwrap())).await;
        }
        let write = files.submit_write(&kept, 0, pattern(step, 1));
        if let Ok(pending) = tokio::time::timeout(short, write).await {
            drop(pending.unwrap());
        }
        let _ = tokio::time::timeout(short, files.list(&base, 1000)).await;
    }
    assert!(once < 400, "nothing was cut off");
    files.close(kept).await.unwrap();
    assert!(get(&*files, &base.join("kept")).await == pattern(step, 1));
    let closed = async {
        while open_now() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.expect("handles stay open");
}
