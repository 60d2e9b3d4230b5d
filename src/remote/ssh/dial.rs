//! From a name to a TCP connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::congestion::{self, Path};
use super::options::{AddressFamily, SshOptions};
use crate::model::escape::printable;
use crate::remote::error::{RemoteError, RemoteErrorKind};

/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 16;

/// Connects within `connect_timeout`, name lookup included.
pub async fn dial(options: &SshOptions) -> Result<(TcpStream, Path), RemoteError> {
    let host = &options.host;
    let limit = options.connect_timeout;
    let deadline = Instant::now() + limit;
    let addresses = resolve(options, &options.address, options.port, deadline).await?;
    let local = match &options.bind_address {
        Some(name) => resolve(options, name, 0, deadline).await?,
        None => Vec::new(),
    };

    let mut failures = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        // One address that swallows everything must not take the time of the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1).max(1);
        let began = Instant::now();
        match timeout(share.max(Duration::from_millis(1)), connect(*address, &local, options)).await {
            Ok(Ok(stream)) => {
                let path = congestion::choose(&stream, began.elapsed());
                if let Err(error) = stream.set_nodelay(true) {
                    failures.push(format!("{address}: {error}"));
                    continue;
                }
                return Ok((stream, path));
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

/// From one of the `local` addresses, where there are any.
async fn connect(
    address: SocketAddr,
    local: &[SocketAddr],
    options: &SshOptions,
) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(name) = &options.bind_address {
        let name = printable(name.as_bytes());
        let Some(local) = local.iter().find(|local| local.is_ipv4() == address.is_ipv4()) else {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            return Err(std::io::Error::other(format!("the address to bind to, {name}, is not {family}")));
        };
        socket
            .bind(*local)
            .map_err(|error| std::io::Error::new(error.kind(), format!("cannot bind to {name}: {error}")))?;
    }
    socket.connect(address).await
}

async fn resolve(
    options: &SshOptions,
    name: &str,
    port: u16,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, RemoteError> {
    let host = &options.host;
    let shown = printable(name.as_bytes());
    let found = match timeout_at(deadline, lookup_host((name, port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            return Err(unreachable(format!("{host}: the name {shown} was not found: {error}")));
        }
        Err(_) => {
            return Err(unreachable(format!(
                "{host}: looking up the name {shown} took longer than {:.1} s",
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
        return Err(unreachable(format!("{host}: the name {shown} has no{family} address")));
    }
    Ok(addresses)
}

fn unreachable(message: String) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Unreachable, message)
}
