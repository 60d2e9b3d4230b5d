//! haul's own SFTP version 3 client (draft-ietf-secsh-filexfer-02, OpenSSH's PROTOCOL).
//!
//! It speaks over any pair of byte streams. Handles stay the opaque bytes they are,
//! every length that a server sends is checked, requests pipeline, a future that is
//! dropped leaves the session sound, and a silent link ends it.
//!
//! - [`codec`] reads what a server sends, [`request`] writes what we ask: pure;
//! - [`stall`] judges whether the link still moves: pure;
//! - [`sink`] is where packets go, [`session`] the one task that moves them;
//! - [`client`] is [`Files`](super::Files) over all this.

pub mod client;
pub mod codec;
mod handshake;
mod listing;
pub mod request;
mod session;
pub mod sink;
mod stall;
mod status;

pub use client::SftpClient;
pub use handshake::SftpOptions;
pub use sink::{PacketSink, StreamSink};
