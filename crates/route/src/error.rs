//! What the router understands and refuses.

use std::sync::Arc;

use pgweir_model::{Reason, Sqlstate};

/// A statement that has no place to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// It needs the primary, or a replica that shows what the session wrote, and there is none. A later attempt may succeed.
    #[error("no primary is available")]
    NoPrimary,
    /// It needs the primary, and several servers claim to be it on one timeline. An operator must decide.
    #[error("no primary is available: several servers take writes on the same timeline")]
    Split,
    /// It is a read, no replica may take it now, and the primary never does. A later attempt may succeed; the SQLSTATE is that
    /// of one who has waited in vain.
    #[error("no replica may take the read now ({reason}), and primary_reads is never")]
    NoReplica {
        /// What the replica that comes nearest lacks.
        reason: Reason,
    },
    /// An instruction would send a known write to a replica. The client should drop the instruction.
    #[error("cannot send a statement that writes to replica, as {instruction} asks")]
    ReplicaWrite {
        /// Where the instruction stood: `the hint`, `pgweir.route` or `a rule of the configuration`.
        instruction: &'static str,
    },
    /// A rule refuses it. A later attempt is refused as well.
    #[error("{message}")]
    Blocked {
        /// What the rule is called.
        rule: Arc<str>,
        /// What it says.
        message: Arc<str>,
    },
    /// An instruction names a backend that does not answer. A later attempt may succeed.
    #[error("backend \"{name}\" is not available")]
    BackendDown {
        /// The name that was asked for.
        name: Arc<str>,
    },
    /// An instruction names a backend that takes nothing new. A later attempt may succeed.
    #[error("backend \"{name}\" is drained")]
    BackendDrained {
        /// The name that was asked for.
        name: Arc<str>,
    },
    /// An instruction names a backend that does not exist.
    #[error("backend \"{name}\" does not exist")]
    UnknownBackend {
        /// The name that was asked for.
        name: Arc<str>,
        /// The configured name nearest to it, if one is near.
        nearest: Option<Arc<str>>,
    },
}

impl RouteError {
    /// Returns the SQLSTATE that the client gets.
    pub fn sqlstate(&self) -> Sqlstate {
        match self {
            RouteError::NoPrimary
            | RouteError::Split
            | RouteError::BackendDown { .. }
            | RouteError::BackendDrained { .. } => Sqlstate::CANNOT_CONNECT_NOW,
            RouteError::NoReplica { .. } => Sqlstate::QUERY_CANCELED,
            RouteError::ReplicaWrite { .. } => Sqlstate::READ_ONLY_SQL_TRANSACTION,
            RouteError::Blocked { .. } => Sqlstate::INSUFFICIENT_PRIVILEGE,
            RouteError::UnknownBackend { .. } => Sqlstate::UNDEFINED_OBJECT,
        }
    }

    /// Returns the DETAIL field of the client's error.
    pub fn detail(&self) -> Option<String> {
        match self {
            RouteError::Blocked { rule, .. } => Some(format!(
                "Rule \"{rule}\" of the proxy's configuration refuses the statement."
            )),
            RouteError::Split => {
                Some("Which of them has the right data cannot be told from here.".to_owned())
            }
            RouteError::NoPrimary
            | RouteError::NoReplica { .. }
            | RouteError::ReplicaWrite { .. }
            | RouteError::BackendDown { .. }
            | RouteError::BackendDrained { .. }
            | RouteError::UnknownBackend { .. } => None,
        }
    }

    /// Returns the HINT field of the client's error.
    pub fn hint(&self) -> Option<String> {
        match self {
            RouteError::NoPrimary
            | RouteError::NoReplica { .. }
            | RouteError::BackendDown { .. }
            | RouteError::Blocked { .. } => None,
            RouteError::BackendDrained { .. } => {
                Some("Name another, or none: others take the statement.".to_owned())
            }
            RouteError::Split => {
                Some("Stop the wrong one, or make it a standby of the other.".to_owned())
            }
            RouteError::ReplicaWrite { .. } => Some(
                "Set pgweir.route to primary, or give the statement the hint route=primary."
                    .to_owned(),
            ),
            RouteError::UnknownBackend { nearest, .. } => nearest
                .as_ref()
                .map(|nearest| format!("Perhaps you meant \"{nearest}\".")),
        }
    }
}
