//! One connection to a server, poolable, and movable between threads.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pgweir_model::NodeId;
use pgweir_net::{Outgoing, Quiet, StdStream, Stream};
use pgweir_session::ServerSession;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Host name, address, or the folder of a Unix-domain socket.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a server gave to cancel its statements with.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendKey {
    /// Process ID.
    pub process_id: u32,
    /// Secret, 4 to 256 bytes.
    pub secret: Box<[u8]>,
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendKey({}, ..)", self.process_id)
    }
}

/// A logged-in connection to a server.
#[derive(Debug)]
pub struct ServerConnection {
    /// The socket.
    pub stream: Stream,
    /// The rest, which needs no reactor.
    pub state: Box<State>,
}

/// What travels with a connection.
#[derive(Debug)]
pub struct State {
    /// What is known of the server's end.
    pub session: ServerSession,
    /// What the socket has not taken yet.
    pub outgoing: Outgoing,
    /// Bytes of a message that was not whole when it was read.
    pub carry: Vec<u8>,
    /// For CancelRequest.
    pub key: BackendKey,
    /// Where it leads.
    pub address: Arc<Address>,
    /// Which node that is.
    pub node: NodeId,
    /// When it was opened.
    pub opened_at: Instant,
}

/// A connection between two threads.
#[derive(Debug)]
pub struct Transit {
    stream: StdStream,
    state: Box<State>,
}

impl ServerConnection {
    /// Returns whether nothing is half sent, half read or unclean: the only state in which it may go back to its pool.
    pub fn is_reusable(&self) -> bool {
        self.state.session.is_clean() && self.is_quiet()
    }

    /// Returns whether nothing is half sent or half read.
    pub fn is_quiet(&self) -> bool {
        self.state.session.is_between_messages()
            && self.state.outgoing.is_empty()
            && self.state.carry.is_empty()
    }
}

impl pgweir_pool::Connection for ServerConnection {
    type Transit = Transit;

    fn into_transit(self) -> Option<Transit> {
        let stream = self.stream.into_std().ok()?;
        Some(Transit {
            stream,
            state: self.state,
        })
    }

    fn from_transit(transit: Transit) -> Option<Self> {
        let stream = Stream::from_std(transit.stream).ok()?;
        Some(ServerConnection {
            stream,
            state: transit.state,
        })
    }

    /// A connection on which anything has arrived while it was idle is not used: it is the end of the stream, the
    /// server's last words, or a stray byte, and the first two are by far the most usual.
    fn is_usable(&mut self) -> bool {
        self.stream.try_is_quiet() == Quiet::Quiet
    }
}
