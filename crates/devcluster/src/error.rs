//! What can fail while a cluster starts, runs SQL or takes a fault.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::locate::LocateError;

/// A cluster that did not do what it was told, with what PostgreSQL said about it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No usable PostgreSQL server binaries; the message names the command that installs them.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// A file or process operation of ours failed.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Running as root, and there is neither a user `postgres` nor a user `nobody` to run servers as.
    #[error("PostgreSQL does not run as root, and this machine has no user postgres or nobody")]
    NoServerUser,
    /// A PostgreSQL program ended with an error.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it wrote to stderr.
        output: String,
    },
    /// A server process ended while we waited for it to be ready.
    #[error("server {node} ended while starting; the end of its log:\n{log}")]
    Exited {
        /// The node's name.
        node: String,
        /// The last lines of its log.
        log: String,
    },
    /// Something did not come about in time.
    #[error("{what} did not come about within {waited:?}\n{detail}")]
    Deadline {
        /// What we waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen last, e.g. the end of a log.
        detail: String,
    },
    /// The node's server does not run, so the fault or signal has no target.
    #[error("server {node} does not run")]
    NotRunning {
        /// The node's name.
        node: String,
    },
    /// SQL failed on a node.
    #[error("{node}: {message}")]
    Sql {
        /// The node's name.
        node: String,
        /// The SQLSTATE, if the server sent one.
        sqlstate: Option<String>,
        /// The error text.
        message: String,
    },
}

impl ClusterError {
    /// Returns a closure that wraps an I/O error with its operation and path.
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { op, path, source }
    }

    /// The SQLSTATE of a failed statement, if the server sent one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Sql { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }
}
