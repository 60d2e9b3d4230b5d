//! The greeting of a session, and what the server can do.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::client::SftpClient;
use super::codec::{self, Greeting, Limits, Reply};
use super::request::{PROTOCOL_VERSION, Request};
use super::session::{Answer, Requests, Session};
use super::sink::{PacketSink, StreamSink};
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::files::Features;

/// What every server takes in one WRITE, and gives in one READ.
const COMMON_TRANSFER_BYTES: u64 = 32 * 1024;
/// The most that is put into one packet: OpenSSH's packets end at 256 KiB.
const MAX_TRANSFER_BYTES: u64 = 255 * 1024;
/// Handles that are opened at once to see whether they differ.
const TRIED_HANDLES: usize = 4;
/// What a packet needs beside its data.
const PACKET_OVERHEAD_BYTES: u64 = 1024;

/// How a session is begun and watched.
#[derive(Debug, Clone, Copy)]
pub struct SftpOptions {
    /// How long the server may take to greet and to tell its limits.
    pub handshake_timeout: Duration,
    /// How long nothing at all may move while answers are awaited.
    pub stall_timeout: Duration,
    /// The server is known to be OpenSSH's, which answers one request after the other: the
    /// limits are asked for together with the greeting, which others may not expect.
    pub in_order: bool,
    /// Looks whether the server gives different handles to different files, where it is
    /// not known to.
    pub compare_handles: bool,
}

impl Default for SftpOptions {
    fn default() -> SftpOptions {
        SftpOptions {
            handshake_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            in_order: false,
            compare_handles: false,
        }
    }
}

impl SftpClient {
    /// Begins a session over a pair of streams, both its own from now on.
    ///
    /// `LinkLost` where the server closes or stays silent past the deadline, `Protocol`
    /// where it does not speak SFTP, `Unsupported` where it speaks too old a version.
    pub async fn start<R, W>(reader: R, writer: W, options: SftpOptions) -> Result<SftpClient, RemoteError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        SftpClient::start_with_sink(reader, StreamSink::new(writer), options).await
    }

    /// As [`start`](SftpClient::start), for a writing half that takes owned bytes.
    pub async fn start_with_sink<R, S>(
        reader: R,
        sink: S,
        options: SftpOptions,
    ) -> Result<SftpClient, RemoteError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        S: PacketSink + 'static,
    {
        let (session, greeting) = Session::start(reader, sink, options.stall_timeout);
        let shaken = shake_hands(session.requests(), greeting, options);
        let features = match tokio::time::timeout(options.handshake_timeout, shaken).await {
            Ok(Ok(features)) => features,
            Ok(Err(error)) => {
                session.requests().end(error.clone());
                return Err(error);
            }
            Err(_) => {
                let error = RemoteError::new(
                    RemoteErrorKind::LinkLost,
                    format!("SFTP greeting: no answer within {:?}", options.handshake_timeout),
                );
                session.requests().end(error.clone());
                return Err(error);
            }
        };
        Ok(SftpClient::new(session, features))
    }
}

async fn shake_hands(
    requests: &Requests,
    greeting: oneshot::Receiver<Greeting>,
    options: SftpOptions,
) -> Result<Features, RemoteError> {
    let in_greeting =
        |reason: RemoteError| RemoteError::new(reason.kind, format!("SFTP greeting: {}", reason.message));
    let mut limits = None;
    if options.in_order {
        limits = Some(requests.submit(Request::Limits, Bytes::new()).await.map_err(in_greeting)?);
    }
    let Ok(greeting) = greeting.await else {
        return Err(in_greeting(requests.reason()));
    };
    if greeting.version != PROTOCOL_VERSION {
        return Err(RemoteError::new(
            RemoteErrorKind::Unsupported,
            format!("SFTP greeting: the server speaks version {}, not {PROTOCOL_VERSION}", greeting.version),
        ));
    }
    if limits.is_none() && announces(&greeting, "limits@openssh.com", "1") {
        limits = Some(requests.submit(Request::Limits, Bytes::new()).await.map_err(in_greeting)?);
    }
    // Another program may serve SFTP behind OpenSSH's sshd; this extension gives it away.
    let in_order = options.in_order && announces(&greeting, "fstatvfs@openssh.com", "2");
    let told = async {
        match limits {
            Some(answer) => limits_of(answer.await.ok().and_then(Answer::take)),
            None => None,
        }
    };
    if in_order || !options.compare_handles {
        return Ok(Features { in_order, ..features_of(&greeting, told.await) });
    }
    let (limits, distinct) = tokio::join!(told, distinct_handles(requests));
    let features = features_of(&greeting, limits);
    let open_handles = distinct.map_err(in_greeting)?.or(features.open_handles);
    Ok(Features { open_handles, ..features })
}

/// Opens one directory a few times: some servers (Erlang's) give one handle to all that is
/// open in a session, from the third on. Gives how many can be told apart, where that is
/// less than was opened.
async fn distinct_handles(requests: &Requests) -> Result<Option<u64>, RemoteError> {
    let mut answers = Vec::new();
    for _ in 0..TRIED_HANDLES {
        answers.push(requests.submit(Request::OpenDirectory { path: b"." }, Bytes::new()).await?);
    }
    let mut handles = Vec::new();
    for answer in answers {
        if let Some(Reply::Handle(handle)) = answer.await.ok().and_then(Answer::take) {
            handles.push(handle);
        }
    }
    for handle in &handles {
        // What these closes say interests nobody.
        requests.submit(Request::Close { handle }, Bytes::new()).await?;
    }
    let opened = handles.len();
    handles.sort();
    handles.dedup();
    Ok((handles.len() < opened).then_some(handles.len() as u64))
}

/// A server that announces limits and then refuses to tell them has the common ones.
fn limits_of(reply: Option<Reply>) -> Option<Limits> {
    match reply {
        Some(Reply::Extended(body)) => codec::decode_limits(body).ok(),
        _ => None,
    }
}

fn announces(greeting: &Greeting, name: &str, version: &str) -> bool {
    greeting.extensions.iter().any(|(n, v)| n == name.as_bytes() && v == version.as_bytes())
}

fn features_of(greeting: &Greeting, limits: Option<Limits>) -> Features {
    let packet_bytes = limits.map_or(0, |limits| limits.packet_bytes);
    let transfer = |told: u64| -> usize {
        let mut bytes = if told == 0 { COMMON_TRANSFER_BYTES } else { told.min(MAX_TRANSFER_BYTES) };
        if packet_bytes > 0 {
            bytes = bytes.min(packet_bytes.saturating_sub(PACKET_OVERHEAD_BYTES).max(1));
        }
        bytes as usize
    };
    Features {
        posix_rename: announces(greeting, "posix-rename@openssh.com", "1"),
        hard_link: announces(greeting, "hardlink@openssh.com", "1"),
        fsync: announces(greeting, "fsync@openssh.com", "1"),
        statvfs: announces(greeting, "statvfs@openssh.com", "2"),
        copy_data: announces(greeting, "copy-data", "1"),
        write_limit: transfer(limits.map_or(0, |limits| limits.write_bytes)),
        read_limit: transfer(limits.map_or(0, |limits| limits.read_bytes)),
        open_handles: limits.map(|limits| limits.open_handles).filter(|handles| *handles > 0),
        in_order: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(extensions: &[(&'static str, &'static str)]) -> Greeting {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        Greeting { version: 3, extensions: extensions.iter().map(|(n, v)| (bytes(n), bytes(v))).collect() }
    }

    #[test]
    fn a_version_that_is_not_ours_is_not_announced() {
        let features =
            features_of(&greeting(&[("statvfs@openssh.com", "1"), ("fsync@openssh.com", "1")]), None);
        assert!(features.fsync);
        assert!(!features.statvfs && !features.copy_data);
    }

    #[test]
    fn transfers_follow_the_limits_but_never_past_a_packet() {
        let with = |packet_bytes, write_bytes| {
            let limits = Limits { packet_bytes, read_bytes: 0, write_bytes, open_handles: 0 };
            let features = features_of(&greeting(&[]), Some(limits));
            assert_eq!(features.read_limit, if packet_bytes == 8192 { 7168 } else { 32 * 1024 });
            assert_eq!(features.open_handles, None);
            features.write_limit
        };
        assert_eq!(with(262_144, 261_120), 255 * 1024);
        assert_eq!(with(0, u64::MAX), 255 * 1024);
        assert_eq!(with(34_000, 0), 32 * 1024);
        assert_eq!(with(8192, 65_536), 7168);
        assert_eq!(with(0, 4096), 4096);
        assert_eq!(features_of(&greeting(&[]), None).write_limit, 32 * 1024);
    }
}
