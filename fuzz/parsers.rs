//! Every parser of haul's that reads what a server, a target's disk or a file says: one list,
//! which the fuzz targets and the tests of every day feed. A parser may refuse whatever it
//! likes; it must not panic, hang or grow, and what it takes it must give back as it was.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use haul::cli::connect::targets;
use haul::cli::destination::Destination;
use haul::cli::fleet::choose;
use haul::cli::hosts_file::HostsFile;
use haul::cli::inventory::{Inventory, Unlisted};
use haul::cli::ranges;
use haul::model::escape::{decode_line, encode_line, printable};
use haul::model::exec::{GuardSaid, Said, find_line};
use haul::model::identity::SourceIdentity;
use haul::model::lock_file::{self, LockContent};
use haul::model::manifest::Manifest;
use haul::model::merge_script::{MergeState, Started};
use haul::model::names::{Names, RunNames, UserId};
use haul::model::record::Record;
use haul::model::remote_path::RemotePath;
use haul::model::{digest, units};
use haul::remote::Files;
use haul::remote::files::OpenMode;
use haul::remote::sftp::{SftpClient, SftpOptions, codec};
use haul::remote::ssh::config::resolve::{Request, resolve};
use haul::remote::ssh::config::{Files as ConfigFiles, Local, World, jump};
use haul::remote::ssh::known_hosts::{self, HostKey};
use haul::remote::ssh::{AddressFamily, certificate};
use russh::keys::ssh_key::Certificate;

pub struct Parser {
    pub name: &'static str,
    feed: fn(&[u8]),
    /// Good input, to begin from.
    pub seeds: &'static [&'static [u8]],
}

impl Parser {
    pub fn run(&self, data: &[u8]) {
        (self.feed)(data);
    }
}

#[allow(dead_code, reason = "for the fuzz targets")]
pub fn named(name: &str) -> &'static Parser {
    PARSERS.iter().find(|parser| parser.name == name).expect("a parser of this name")
}

pub const PARSERS: [Parser; 18] = [
    Parser {
        name: "lock_file",
        feed: |data| {
            if let LockContent::Whole(info) = lock_file::parse(data) {
                assert_eq!(info.to_text(), data);
                shown(&info.to_string());
            }
        },
        seeds: &[
            b"haul-lock: 1\nuser: alice\nholder: al@laptop\npid: 4711\nstart: 99887766\n\
              machine: 0123456789abcdef0123456789abcdef\nboot: b-1\nnamespace: pid:[4026531836]\n\
              run: 000000000000feed\nsource: img%0A%25.x\nidentity: 1:2:3:4:5\nsince: 1709210096\n\
              beat: 00000000000000000007\n",
            b"haul-lock: 2\n",
        ],
    },
    Parser {
        name: "manifest",
        feed: |data| {
            if let Ok(manifest) = Manifest::parse(data) {
                assert_eq!(Manifest::parse(manifest.encode().as_bytes()).as_ref(), Ok(&manifest));
                let last = manifest.geometry().chunks();
                let _ = (manifest.chain_before(last), manifest.line_offset(last), manifest.checksum());
            }
        },
        seeds: &[
            b"haul-manifest: 1\nsource-name: img.qcow2\nsource-identity: 65024:2162706:60000000:17:17\n\
              source-mode: 644\ntarget-before: absent\nsize: 60000000\nchunk-size: 10485760\nchunk-lines:\n\
              11129c66d55dc0814cd7f20ac2fd507702e367354e80ab0730783e150fa03bf7\n\
              5e545013d737c706b06277f6063f544afa856d8e166bb3ad3ca13c4f06c19e96\n",
            b"haul-manifest: 2\nsource-name: a\nsource-identity: 1:2:200:3:4\nsource-mode: 644\n\
              target-before: absent\nsize: 200\nchunk-size: 4096\nmethod: crc\nchunk-lines:\n\
              0000000100000000000000000000000000000000000000000000000000000000\n",
        ],
    },
    Parser {
        name: "record",
        feed: |data| {
            if let Ok(record) = Record::parse(data) {
                assert_eq!(Record::parse(record.to_string().as_bytes()).as_ref(), Ok(&record));
                assert!(record.merged_chunks() <= record.geometry().chunks());
                assert!(record.merged_bytes() <= record.geometry().size());
            }
        },
        seeds: &[
            b"haul-record: 1\nname: img.\\x0aqcow2\nsize: 8192\nchunk: 2\ntotal-size: 10000\nchunks: 3\n\
              chunk-size: 4096\nmerged: 0000000000000abc\nend: 2\n",
        ],
    },
    Parser {
        name: "merge_state",
        feed: |data| {
            let _ = MergeState::parse(data).map(|state| state.is_final());
            let _ = Started::parse(data);
        },
        seeds: &[b"running 4711 12\n", b"done\n", b"failed space\n", b"haul-merge started 4711\n", b"haul-merge absent\n"],
    },
    Parser {
        name: "exec_words",
        feed: |data| {
            let _ = (Said::parse(data), GuardSaid::parse(data));
            if let Some((found, next)) = find_line(data, "haul-exec 00 ") {
                assert!(found.len() < data.len() && next <= data.len());
                let _ = Said::parse(found);
            }
        },
        seeds: &[b"motd haul-exec 00 ready 5 own\nrest", b"program-denied", b"ok\r"],
    },
    Parser {
        name: "names",
        feed: |data| {
            let Ok(path) = RemotePath::new(data) else { return };
            let (parent, name) = (path.parent(), path.file_name().to_vec());
            let _ = (path.names_directory(), RunNames::is_being_fenced(data));
            if name.is_empty() {
                return;
            }
            let names = Names::new(&path, &UserId::new("alice").expect("a user id"));
            let _ = names.entry(data);
            for beside in [names.lock(), names.temp()] {
                assert!(beside.file_name().len() <= 255, "{beside}");
                assert_eq!(beside.parent(), parent, "it stands beside the target");
            }
            for inside in [names.record(), names.manifest(), names.chunk(1)] {
                assert_eq!(&inside.parent(), names.temp());
                assert!(inside.file_name().len() <= 255, "{inside}");
            }
        },
        seeds: &[b"/srv/disk.img", b"run.0123456789abcdef", b"fenced.0123456789abcdef.1", b"a:lock", b"alice-disk:1.00"],
    },
    Parser {
        name: "texts",
        feed: |data| {
            shown(&printable(data));
            let line = encode_line(data);
            assert!(!line.contains(['\n', '\r', '\0']));
            assert_eq!(decode_line(&line).as_deref(), Some(data));
            let _ = digest::Digest::parse(data);
            if let Ok(text) = std::str::from_utf8(data) {
                let _ = decode_line(text);
                let _ = (units::parse_size(text), units::parse_rate(text), units::parse_duration(text));
                if let Some(identity) = SourceIdentity::parse(text) {
                    assert_eq!(SourceIdentity::parse(&identity.to_string()), Some(identity));
                }
                let _ = UserId::new(text);
            }
        },
        seeds: &[b"1.5GiB", b"10m30s", b"65024:2162706:60000000:17:17", b"img%0A%25.x", b"\x1b[31m"],
    },
    Parser {
        name: "sftp_packets",
        feed: |data| {
            let packet = Bytes::copy_from_slice(data);
            let _ = codec::packet_length(data).map(|length| length.unwrap_or(0) <= codec::MAX_REPLY_BYTES);
            let _ = codec::decode_greeting(packet.clone());
            let _ = codec::decode_reply(packet.clone());
            let _ = codec::decode_limits(packet.clone());
            let _ = codec::decode_file_system(packet);
        },
        seeds: &[
            b"\x02\0\0\0\x03\0\0\0\x1cposix-rename@openssh.com\0\0\0\x011",
            b"\x65\0\0\0\x01\0\0\0\x04\0\0\0\x02no\0\0\0\0",
            b"\x68\0\0\0\x01\0\0\0\x01\0\0\0\x01a\0\0\0\x01b\0\0\0\x0f\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\x81\xa4\0\0\0\0\0\0\0\0",
            b"\x69\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x05",
        ],
    },
    Parser {
        name: "sftp_session",
        feed: sftp_session,
        seeds: &[
            b"\0\0\0\x05\x02\0\0\0\x03\0\0\0\x0d\x66\0\0\0\0\0\0\0\x04hand\0\0\0\x1a\x68\0\0\0\x01\0\0\0\x01\0\0\0\x01a\0\0\0\0\0\0\0\0\
              \0\0\0\x11\x65\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0\0",
            b"\0\0\0\x05\x02\0\0\0\x03",
        ],
    },
    Parser {
        name: "known_hosts",
        feed: |data| {
            let key = HostKey::from_blob(KEY).expect("a key");
            for name in ["web1", "[10.0.0.1]:2222"] {
                let _ = known_hosts::judge(&[data], name, &key);
                let _ = known_hosts::judge_authority(&[data], name, &key, &key);
                let _ = known_hosts::speaks_of_certificates(&[data], name);
                let _ = known_hosts::known_types(&[data], name);
            }
            let _ = known_hosts::is_understood(data);
            if let Some(key) = HostKey::from_blob(data) {
                let _ = (key.rsa_bits(), key.fingerprint(), shown(key.key_type()));
            }
        },
        seeds: &[
            b"web1,10.0.0.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOjPdSta3lqZWkt67sg4HFI04mvu6dJaWnynrSuuqvIr\n",
            b"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAwEAAQ==\n",
            b"@cert-authority *.example,!x ssh-ed25519 AAAA\n@revoked * ssh-rsa AAAA\n# c\n",
            KEY,
        ],
    },
    Parser {
        name: "certificate",
        feed: |data| {
            let text = std::str::from_utf8(data).ok().and_then(|text| Certificate::from_openssh(text).ok());
            let Some(read) = text.or_else(|| Certificate::from_bytes(data).ok()) else { return };
            let _ = certificate::authority(&read);
            if let Err(why) = certificate::holds(&read, "web1", SystemTime::UNIX_EPOCH + Duration::from_secs(1)) {
                shown(&why);
            }
        },
        seeds: &[
            b"ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIGIvgu/8Ta3DTJPWmv+duHGqWCi207khjfBI2Jv/wOLFAAAAIOjPdSta3lqZWkt67sg4HFI04mvu6dJaWnynrSuuqvIrAAAAAAAAAAAAAAACAAAAAmlkAAAAEAAAAAR3ZWIxAAAABHdlYjIAAAAAAAAAAP//////////AAAAAAAAAAAAAAAAAAAAMwAAAAtzc2gtZWQyNTUxOQAAACD+pZSxzP4inO+9qhBrYoyLevTmlZBJeYk5UHNNNJJCoAAAAFMAAAALc3NoLWVkMjU1MTkAAABAAeHQOAmd8dJ0qlz1+M0ydXQyGBVDykD9UOFM+1UE/xS+fFuHhE5Iz+C0rsOtSF5uxiWBkgRJ+jVVJa8EaMcSBw==",
        ],
    },
    Parser {
        name: "ssh_config",
        feed: |data| {
            let world = OneFile { data, reads: std::cell::Cell::new(0) };
            for host in ["web1", "alice@10.0.0.1"] {
                let request = Request { host: host.to_owned(), files: ConfigFiles::Usual, ..Request::default() };
                match resolve(request, &local(), &world) {
                    Ok(resolved) => resolved.notes.iter().for_each(|note| shown(note)),
                    Err(error) => shown(&error.to_string()),
                }
            }
        },
        seeds: &[
            b"Host web* !web2\n  HostName %h.example\n  Port 2222\n  User \"a b\"\n  ProxyJump a@b:3,[::1]:4\n\
              Match host web1 exec \"true\"\n  IdentityFile ~/.ssh/%r\nInclude x/*\nHost *\n  RekeyLimit 1G 1h\n",
            b"Match final\n CanonicalizeHostname yes\n KexAlgorithms +x\n ConnectTimeout 1m\n",
        ],
    },
    Parser {
        name: "jump",
        feed: |data| {
            if let Ok(text) = std::str::from_utf8(data) {
                let _ = jump::parse(text);
                let _ = jump::is_domain(text);
            }
        },
        seeds: &[b"a@b:3,[::1]:4", b"ssh://u@h:22", b"none"],
    },
    Parser {
        name: "hosts_toml",
        feed: |data| {
            let Ok(text) = std::str::from_utf8(data) else { return };
            match HostsFile::parse(text, Path::new("hosts.toml")) {
                Ok(file) => {
                    let inventory = Inventory::new(file);
                    let names: Vec<String> = inventory.hosts().iter().map(|host| host.name.clone()).collect();
                    let _ = (inventory.select("all", Unlisted::Refused), names.iter().for_each(|name| {
                        assert!(inventory.host(name).is_some(), "{name}");
                    }));
                }
                Err(error) => shown(&error.to_string()),
            }
        },
        seeds: &[
            b"[defaults]\nuser = 'a'\n[hosts.web1]\naddress = '10.0.0.1'\nport = 22\nid = 'm-17'\n[groups]\nweb = ['web[1-4]', 'db']\n",
        ],
    },
    Parser {
        name: "inventory",
        feed: |data| {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let inventory = inventory();
            for unlisted in [Unlisted::AreAddresses, Unlisted::Refused] {
                if let Err(why) = inventory.select(text, unlisted) {
                    shown(&why);
                }
            }
        },
        seeds: &[b"web,!web[1-2],m-17", b"db*", b"all", b"[::1]"],
    },
    Parser {
        name: "ranges",
        feed: |data| {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let _ = ranges::split_list(text);
            match ranges::expand(text) {
                Ok(names) => assert!(names.len() <= 1 << 20),
                Err(why) => shown(&why),
            }
        },
        seeds: &[b"web[01-20:2].example", b"a[a-f]b[1-3]", b"x"],
    },
    Parser {
        name: "destination",
        feed: |data| match Destination::parse(OsStr::from_bytes(data)) {
            Ok(destination) => {
                let _ = targets(&destination, &inventory());
            }
            Err(error) => shown(&error.to_string()),
        },
        seeds: &[b"me@web1:/srv/x", b"[::1]:x", b"sftp://a@h:22/p%20q", b"web[1-3]:{host}"],
    },
    Parser {
        name: "retry_file",
        feed: |data| {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let inventory = inventory();
            let destination = Destination::parse(OsStr::new("web:/x")).expect("a destination");
            let chosen = targets(&destination, &inventory).expect("hosts");
            match choose::names_of(text, &chosen, &inventory) {
                Ok(names) => assert!(names.iter().all(|name| name.starts_with("web"))),
                Err(why) => shown(&why),
            }
        },
        seeds: &[b"# of last night\nweb3\n\nm-17\n", b"web1\r\nweb2\r\n"],
    },
];

/// The blob of an Ed25519 key.
const KEY: &[u8] =
    b"\0\0\0\x0bssh-ed25519\0\0\0\x20\xe8\xcf\x75\x2b\x5a\xde\x5a\x99\x5a\x4b\x7a\xee\xc8\x38\x1c\x52\
                     \x34\xe2\x6b\xee\xe9\xd2\x5a\x5a\x7c\xa7\xad\x2b\xae\xaa\xf2\x2b";

/// What is shown to a person never drives the terminal.
#[track_caller]
fn shown(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

fn inventory() -> Inventory {
    let text = "[hosts.web1]\nid = 'm-17'\n[hosts.db]\n[groups]\nweb = ['web[1-4]']\n";
    Inventory::new(HostsFile::parse(text, Path::new("hosts.toml")).expect("a hosts file"))
}

/// What the server says from its first byte on; then it hangs up.
fn sftp_session(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let reader = std::io::Cursor::new(data.to_vec());
        let options = SftpOptions { compare_handles: false, ..SftpOptions::default() };
        let Ok(client) = SftpClient::start(reader, tokio::io::sink(), options).await else { return };
        let path = RemotePath::new("/x").expect("a path");
        let _ = client.list(&path, 100).await;
        let _ = client.real_path(&path).await;
        let _ = client.lstat(&path).await;
        if let Ok(handle) = client.open(&path, OpenMode::READ, None).await {
            let _ = client.read_at(&handle, 0, 100).await.map(|data| assert!(data.len() <= 100));
            let _ = client.close(handle).await;
        }
    });
}

fn local() -> Local {
    Local { login: "alice".to_owned(), uid: 1000, home: "/home/alice".to_owned(), machine: "desk".to_owned() }
}

/// A machine with this one file, which may include itself only so often.
struct OneFile<'a> {
    data: &'a [u8],
    reads: std::cell::Cell<u32>,
}

impl World for OneFile<'_> {
    fn read(&self, path: &Path, _: bool) -> Result<Option<Vec<u8>>, String> {
        self.reads.set(self.reads.get() + 1);
        Ok((path.starts_with("/home/alice") && self.reads.get() < 20).then(|| self.data.to_vec()))
    }

    fn glob(&self, pattern: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(vec![pattern.to_path_buf()])
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "HOME").then(|| "/home/alice".to_owned())
    }

    fn home_of(&self, _: &str) -> Option<String> {
        None
    }

    fn has_address(&self, _: &str, _: AddressFamily) -> bool {
        true
    }

    fn succeeds(&self, command: &str) -> Result<bool, String> {
        Ok(command.len().is_multiple_of(2))
    }
}
