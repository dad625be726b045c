//! Opening a connection to a server: by name, address or socket folder, within a deadline.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, sleep};

use crate::deadline::with_deadline_of;
use crate::error::{NetError, Peer, socket_file};
use crate::stream::Stream;

/// How long to wait before asking a Unix socket again whose queue of connections is full: the system offers no way to
/// wait for a place. Shorter only burns CPU; longer delays the first query after a burst.
const FULL_QUEUE_RETRY: Duration = Duration::from_millis(5);

/// Connects to `host`, which is a name, an address, or (beginning with `/`) the folder of a socket file.
///
/// All addresses of a name are tried in the resolver's order; each gets an equal part of the time that is left, so that
/// one which swallows packets does not keep the others from being tried.
///
/// # Errors
/// [`NetError::Deadline`] after `limit`, [`NetError::NoAddress`], or [`NetError::Io`] with the last address's reason.
///
/// # Cancel safety
/// Cancel safe: a dropped call closes what it opened.
pub async fn connect(host: &str, port: u16, limit: Duration) -> Result<Stream, NetError> {
    let peer = || Peer::named(host, port);
    if host.starts_with('/') {
        with_deadline_of("connect to", peer, limit, connect_unix(host, port)).await
    } else {
        with_deadline_of(
            "connect to",
            peer,
            limit,
            connect_tcp(host, port, Instant::now() + limit),
        )
        .await
    }
}

async fn connect_unix(folder: &str, port: u16) -> Result<Stream, NetError> {
    let path = socket_file(Path::new(folder), port);
    loop {
        match UnixStream::connect(&path).await {
            Ok(unix) => return Ok(Stream::Unix(unix)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(FULL_QUEUE_RETRY).await
            }
            Err(source) => {
                return Err(NetError::Io {
                    op: "connect to",
                    peer: Peer::Unix(path),
                    source,
                });
            }
        }
    }
}

async fn connect_tcp(host: &str, port: u16, deadline: Instant) -> Result<Stream, NetError> {
    let resolved = lookup_host((host, port)).await;
    let addresses: Vec<_> = resolved
        .map_err(|source| NetError::Io {
            op: "resolve",
            peer: Peer::named(host, port),
            source,
        })?
        .collect();
    let mut last = NetError::NoAddress { host: host.into() };
    for (place, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        let part = deadline.saturating_duration_since(Instant::now()) / left;
        let attempt = async {
            let connected = TcpStream::connect(address).await;
            connected.map_err(|source| NetError::Io {
                op: "connect to",
                peer: Peer::Tcp(*address),
                source,
            })
        };
        match with_deadline_of("connect to", || Peer::Tcp(*address), part, attempt).await {
            Ok(tcp) => return Ok(Stream::Tcp(tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}
