//! What the console asks of the proxy: a picture, a change of the configuration, an order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pgweir_config::{Change, Config, Edit};

use crate::facts::{Facts, Wanted};

/// An answer that comes later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who gives an order: for the log and the table of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The role that is logged in to the console.
    pub user: Arc<str>,
}

/// What is not done, and why. Becomes an ErrorResponse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The SQLSTATE.
    pub sqlstate: [u8; 5],
    /// What is wrong, without `pgweir:` in front.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

/// What `KILL` and its like are aimed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One client, by its id.
    Client(u32),
    /// All clients of a database, as they name it.
    Database(String),
    /// All clients.
    Everybody,
}

/// How far the end of the proxy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Serving,
    /// No new clients; sessions go on until their clients leave.
    Lingering,
    /// No new clients; sessions end when they are between transactions.
    Draining,
    /// Sessions end now.
    Stopping,
}

impl Phase {
    /// Every phase, in their order.
    pub const ALL: [Phase; 4] = [
        Phase::Serving,
        Phase::Lingering,
        Phase::Draining,
        Phase::Stopping,
    ];

    /// Returns its name in answers and labels.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::Lingering => "lingering",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
        }
    }

    /// Returns whether sessions end by themselves.
    pub fn is_ending(self) -> bool {
        self >= Phase::Draining
    }
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Now,
    /// When all clients have left by themselves; new ones are refused.
    WaitForClients,
    /// When no server connection is in use any more; as SIGTERM, but without its limit of time.
    WaitForServers,
}

/// Something to be done. `None` for a database is every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Let transactions end, then close the server connections and hold batches back until `Resume`. Done when none is left.
    Pause {
        /// Of this database alone.
        database: Option<String>,
    },
    /// Go on after `Pause`, or after `Kill` of a database.
    Resume {
        /// This database alone.
        database: Option<String>,
    },
    /// Refuse new clients of a database.
    Disable {
        /// As clients name it.
        database: String,
    },
    /// Take new clients of a database again.
    Enable {
        /// As clients name it.
        database: String,
    },
    /// Close every server connection as soon as its client gives it back.
    Reconnect {
        /// Of this database alone.
        database: Option<String>,
    },
    /// Wait until all server connections that `Reconnect` or a reload meant are closed.
    WaitClose {
        /// Of this database alone.
        database: Option<String>,
    },
    /// Give a server no new work, and close its connections as they become free.
    Drain {
        /// Its name.
        backend: String,
    },
    /// Take that back.
    Undrain {
        /// Its name.
        backend: String,
    },
    /// Disconnect clients, and for a database hold new ones back until `Resume`.
    Kill(Target),
    /// Cancel what a client runs.
    Cancel {
        /// Its id.
        client: u32,
    },
    /// Read the file again.
    Reload,
    /// Read the catalogs of all databases again.
    ReloadCatalog,
    /// Write the running configuration back to its file.
    SaveConfig,
    /// Empty the statistics of statements.
    ResetStatements,
    /// End the process.
    Shutdown(Shutdown),
}

/// One line of a trace.
pub type TraceLine = String;

/// What the console can do with the proxy.
pub trait Control: Send + Sync + 'static {
    /// Takes a picture. A worker that does not answer in time is left out of it.
    fn facts(&self, wanted: Wanted) -> Pending<'_, Facts>;

    /// Changes the running configuration, all or nothing, and returns what has changed. `Err` has changed nothing.
    ///
    /// `seen` is [`Facts::config`] of the picture that the edits were made from: they name rules by their numbers in it, and
    /// values that were computed from it. Where another one is in force by now, nothing is changed.
    fn change<'a>(
        &'a self,
        edits: &'a [Edit],
        seen: &'a Arc<Config>,
        operator: &'a Operator,
    ) -> Pending<'a, Result<Vec<Change>, Refusal>>;

    /// Returns what differs between the file, as it is now, and the running configuration.
    ///
    /// # Errors
    /// There is no file, or it cannot be read or has errors.
    fn config_diff(&self) -> Result<Vec<Change>, Refusal>;

    /// Does something; the answer comes when it is done. What is dropped before that may still be done.
    fn order<'a>(
        &'a self,
        order: Order,
        operator: &'a Operator,
    ) -> Pending<'a, Result<String, Refusal>>;

    /// Returns where a statement of a user of a database would go: rows of `step`, `decision`, `reason`, `detail`.
    ///
    /// # Errors
    /// There is no such database.
    fn explain(
        &self,
        sql: &str,
        database: Option<&str>,
        user: Option<&str>,
    ) -> Result<Vec<[String; 4]>, Refusal>;

    /// Has every message of a client written down from now on, without values, until the receiver is dropped or the client
    /// has gone. Lines that nobody takes in time are left out.
    fn trace(
        &self,
        client: u32,
    ) -> Pending<'_, Result<tokio::sync::mpsc::Receiver<TraceLine>, Refusal>>;
}
