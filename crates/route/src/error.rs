//! What the router understands and refuses.

use std::sync::Arc;

use pgweir_model::Sqlstate;

/// A statement that has no place to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// It needs the primary, or a replica that shows what the session wrote, and there is none. A later attempt may succeed.
    #[error("no primary is available")]
    NoPrimary,
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
            RouteError::NoPrimary | RouteError::BackendDown { .. } => Sqlstate::CANNOT_CONNECT_NOW,
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
            RouteError::NoPrimary
            | RouteError::ReplicaWrite { .. }
            | RouteError::BackendDown { .. }
            | RouteError::UnknownBackend { .. } => None,
        }
    }

    /// Returns the HINT field of the client's error.
    pub fn hint(&self) -> Option<String> {
        match self {
            RouteError::NoPrimary | RouteError::BackendDown { .. } | RouteError::Blocked { .. } => {
                None
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
