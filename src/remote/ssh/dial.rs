//! From options to a byte stream that leads to the server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::congestion;
use super::link::ByteStream;
use super::options::{AddressFamily, SshOptions, Via};
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 16;

/// Connects within `connect_timeout`, name lookup included.
pub async fn dial(options: &SshOptions) -> Result<Box<dyn ByteStream>, RemoteError> {
    match &options.via {
        Via::Tcp => Ok(Box::new(dial_tcp(options).await?)),
        Via::Jump(_) | Via::Command(_) => {
            Err(unreachable(format!("{}: jump hosts and proxy commands are not supported yet", options.host)))
        }
    }
}

async fn dial_tcp(options: &SshOptions) -> Result<TcpStream, RemoteError> {
    let host = &options.host;
    let limit = options.connect_timeout;
    let deadline = Instant::now() + limit;
    let addresses = resolve(options, deadline).await?;

    let mut failures = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        // One address that swallows everything must not take the time of the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1).max(1);
        let began = Instant::now();
        match timeout(share.max(Duration::from_millis(1)), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                congestion::choose(&stream, began.elapsed());
                if let Err(error) = stream.set_nodelay(true) {
                    failures.push(format!("{address}: {error}"));
                    continue;
                }
                return Ok(stream);
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                failures.push(format!("{address}: connection refused"));
            }
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer within {:.1} s", share.as_secs_f32())),
        }
    }
    Err(unreachable(format!(
        "{host}: cannot connect to port {}: {}; is the address right and an SSH server running there?",
        options.port,
        failures.join(", ")
    )))
}

async fn resolve(options: &SshOptions, deadline: Instant) -> Result<Vec<SocketAddr>, RemoteError> {
    let host = &options.host;
    let name = printable(options.address.as_bytes());
    let found = match timeout_at(deadline, lookup_host((options.address.as_str(), options.port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            return Err(unreachable(format!("{host}: the name {name} was not found: {error}")));
        }
        Err(_) => {
            return Err(unreachable(format!(
                "{host}: looking up the name {name} took longer than {:.1} s",
                options.connect_timeout.as_secs_f32()
            )));
        }
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        let wanted = match options.address_family {
            AddressFamily::Any => true,
            AddressFamily::V4 => address.is_ipv4(),
            AddressFamily::V6 => address.is_ipv6(),
        };
        if wanted && !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        let family = match options.address_family {
            AddressFamily::Any => "",
            AddressFamily::V4 => " IPv4",
            AddressFamily::V6 => " IPv6",
        };
        return Err(unreachable(format!("{host}: the name {name} has no{family} address")));
    }
    Ok(addresses)
}

fn unreachable(message: String) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Unreachable, message)
}
