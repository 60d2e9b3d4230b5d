//! The SSH side of the server: one key gets in, SFTP is all there is.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, SshId};
use tokio::sync::mpsc;

use super::link::Traffic;
use super::sftp::{PACKET_MAX, SftpSession};
use super::tree::Tree;

/// Channels of one connection, OpenSSH's MaxSessions.
const SESSIONS_MAX: usize = 10;
/// Messages that wait for a session. One that pipelines more small requests than this
/// without reading an answer would block its connection.
const CHANNEL_MESSAGES_MAX: usize = 1024;
/// As long as a refused login takes, so that nothing is learnt from its time.
const REJECTION_TIME: Duration = Duration::from_millis(200);

pub fn configuration(host_key: PrivateKey) -> russh::server::Config {
    russh::server::Config {
        server_id: SshId::Standard("SSH-2.0-haul_loopback".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REJECTION_TIME,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        channel_buffer_size: CHANNEL_MESSAGES_MAX,
        nodelay: true,
        ..russh::server::Config::default()
    }
}

/// What every connection of a server needs.
pub struct Service {
    pub tree: Tree,
    pub traffic: Arc<Traffic>,
    pub client_key: PublicKey,
}

/// One client's connection.
pub struct ClientConnection {
    service: Arc<Service>,
    alive: mpsc::Sender<Infallible>,
    /// Open channels; `None` once it serves SFTP.
    channels: HashMap<ChannelId, Option<Channel<Msg>>>,
}

impl ClientConnection {
    pub fn new(service: Arc<Service>, alive: mpsc::Sender<Infallible>) -> ClientConnection {
        ClientConnection { service, alive, channels: HashMap::new() }
    }

    fn judge(&self, key: &PublicKey) -> Auth {
        if key.key_data() == self.service.client_key.key_data() { Auth::Accept } else { Auth::reject() }
    }
}

impl russh::server::Handler for ClientConnection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(offer.public_key))
    }

    /// Any user's name will do: the key is what counts.
    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.channels.len() >= SESSIONS_MAX {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channels.insert(channel.id(), Some(channel));
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(channel) = self.channels.get_mut(&id).filter(|_| name == "sftp").and_then(Option::take)
        else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let service = &self.service;
        let sftp = SftpSession::new(service.tree.clone(), service.traffic.clone(), self.alive.clone());
        let limits = russh_sftp::server::Config { max_client_packet_len: PACKET_MAX };
        russh_sftp::server::run_with_config(channel.into_stream(), sftp, limits).await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}
