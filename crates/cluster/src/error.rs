//! What can go wrong between the monitor and a server.

use std::time::Duration;

/// The monitor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system gave no thread.
    #[error("cannot start the thread of the cluster monitor")]
    Thread(#[source] std::io::Error),
    /// The thread's runtime could not be made.
    #[error("cannot start the runtime of the cluster monitor")]
    Runtime(#[source] std::io::Error),
    /// A node's connection pool could not be made.
    #[error("cannot make the connection pool of the cluster monitor")]
    Pool(#[from] deadpool_postgres::BuildError),
}

/// A server did not answer the monitor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No connection, no login, or it broke.
    #[error("{what}")]
    Connection {
        /// What the system or the server said; without secrets.
        what: String,
        /// Whether nothing can be there: refused, no such socket, or the server says that it takes no connections.
        definite: bool,
    },
    /// No answer in time.
    #[error("no answer within {} ms", limit.as_millis())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// It belongs to another cluster: its data has nothing to do with the others'.
    #[error("its system identifier is {found}, the cluster's is {expected}")]
    Foreign {
        /// The identifier that it gives.
        found: i64,
        /// The identifier of the cluster.
        expected: i64,
    },
}

impl ProbeError {
    /// Returns whether one such failure is enough to take the server as down.
    pub fn is_definite(&self) -> bool {
        match self {
            ProbeError::Connection { definite, .. } => *definite,
            ProbeError::Foreign { .. } => true,
            ProbeError::Timeout { .. } => false,
        }
    }
}
