//! Names of things that are counted: nodes and pools.

use std::fmt;
use std::sync::Arc;

/// A server of a cluster: its place in the configuration.
///
/// `cluster` and `node` are indexes, stable for the life of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Index of the cluster in the configuration.
    pub cluster: u16,
    /// Index of the backend within its cluster.
    pub node: u16,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.cluster, self.node)
    }
}

/// What server connections are pooled by: they may be shared only by sessions that agree on all three.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The server.
    pub node: NodeId,
    /// The database's real name on that server.
    pub database: Arc<str>,
    /// The role that the server connection logged in as.
    pub user: Arc<str>,
}
