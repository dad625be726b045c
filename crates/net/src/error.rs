//! What goes wrong with a socket: which operation, with whom, why.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The other end of a connection, or what a listener is bound to; for messages, not for decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
    /// A Unix socket client, which has no name of its own.
    UnixClient,
    /// A name that is not resolved yet (or could not be), and a port.
    Host(Box<str>, u16),
    /// The system no longer knows who it was.
    Unknown,
}

impl Peer {
    /// Returns how `host` and `port` are meant: a host that begins with `/` is the folder of a socket file.
    pub fn named(host: &str, port: u16) -> Peer {
        if host.starts_with('/') {
            Peer::Unix(socket_file(Path::new(host), port))
        } else {
            Peer::Host(host.into(), port)
        }
    }
}

/// Returns the socket file of `port` in `folder`, named as PostgreSQL names it
/// (<https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-UNIX-SOCKET-DIRECTORIES>).
pub(crate) fn socket_file(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(f, "{address}"),
            Peer::Unix(path) => write!(f, "{}", path.display()),
            Peer::UnixClient => f.write_str("a Unix socket client"),
            Peer::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Peer::Host(host, port) => write!(f, "{host}:{port}"),
            Peer::Unknown => f.write_str("a closed connection"),
        }
    }
}

/// A socket operation that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The system refused; for a connection in use this ends it.
    #[error("{op} {peer}: {source}")]
    Io {
        /// What was tried: `read`, `write`, `connect`, `resolve`, `bind`, `accept`, …
        op: &'static str,
        /// With whom.
        peer: Peer,
        /// Why not.
        source: io::Error,
    },
    /// The operation was not done in time; it is abandoned.
    #[error("{op} {peer}: not done within {limit:?}")]
    Deadline {
        /// What was tried.
        op: &'static str,
        /// With whom.
        peer: Peer,
        /// The time it was given.
        limit: Duration,
    },
    /// The peer closed the connection where more bytes were due.
    #[error("{op} {peer}: the connection was closed")]
    Closed {
        /// What was tried.
        op: &'static str,
        /// With whom.
        peer: Peer,
    },
    /// The name has no address.
    #[error("{host} has no address")]
    NoAddress {
        /// The name.
        host: Box<str>,
    },
}

impl NetError {
    /// Returns true where it only says that the other end went away, which is everyday life on the client side.
    pub fn is_disconnect(&self) -> bool {
        match self {
            NetError::Closed { .. } => true,
            NetError::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::UnexpectedEof
            ),
            NetError::Deadline { .. } | NetError::NoAddress { .. } => false,
        }
    }
}
