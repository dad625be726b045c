//! What a node is to its cluster.

use std::fmt;

/// The role of a node, as `pg_is_in_recovery()` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts writes: not in recovery.
    Primary,
    /// A hot standby: in recovery, accepts reads.
    Replica,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        })
    }
}
