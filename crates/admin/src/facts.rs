//! What the console, the metrics and the page show: one picture of the running proxy, taken for one question.
//!
//! Only what is asked for ([`Wanted`]) is collected: a list of ten thousand clients costs something, a counter does not.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgweir_config::{Config, SettingRow};
use pgweir_metrics::{Counts, Statement, StatementKey};
use pgweir_model::{Node, NodeId, PinReason, PoolKey, Reason, Role, Topology};

use crate::control::Phase;

/// Which parts of the facts are asked for; the rest stays empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent parts")]
pub struct Wanted {
    /// [`Facts::clients`] and [`Facts::servers`].
    pub sessions: bool,
    /// [`Facts::prepared`].
    pub prepared: bool,
    /// [`Facts::statements`].
    pub statements: bool,
    /// [`Facts::learned`].
    pub learned: bool,
    /// [`Facts::settings`].
    pub settings: bool,
    /// [`Facts::events`].
    pub events: bool,
}

impl Wanted {
    /// Everything there is.
    pub const ALL: Wanted = Wanted {
        sessions: true,
        prepared: true,
        statements: true,
        learned: true,
        settings: true,
        events: true,
    };

    /// Returns whether all that another asks for is asked for here.
    pub(crate) fn covers(self, other: Wanted) -> bool {
        self.sessions >= other.sessions
            && self.prepared >= other.prepared
            && self.statements >= other.statements
            && self.learned >= other.learned
            && self.settings >= other.settings
            && self.events >= other.events
    }
}

/// The picture. What costs nothing is always there: clusters, pools, counts, the configuration.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The version of the program.
    pub version: &'static str,
    /// When it was started.
    pub started_at: SystemTime,
    /// When the picture was taken.
    pub taken_at: SystemTime,
    /// Likewise, on the clock that the other moments are told by.
    pub now: Instant,
    /// How far its end has come.
    pub phase: Phase,
    /// The configuration that is in force.
    pub config: Arc<Config>,
    /// The clusters, in the order of the configuration.
    pub clusters: Vec<ClusterFacts>,
    /// The pools in use, by key.
    pub pools: Vec<PoolFacts>,
    /// The databases that are paused, or refuse new clients, by the name that clients use: `(name, paused, disabled)`.
    pub held_databases: Vec<(Arc<str>, bool, bool)>,
    /// How many clients are connected, logins under way included.
    pub client_count: usize,
    /// Clients by database and state `(database, active, waiting, idle)`; always there.
    pub client_states: Vec<(Arc<str>, [usize; 3])>,
    /// The counters, over all workers.
    pub counts: Counts,
    /// The clients.
    pub clients: Vec<ClientFacts>,
    /// The server connections.
    pub servers: Vec<ServerFacts>,
    /// Prepared statements that the workers keep.
    pub prepared: Vec<PreparedStatement>,
    /// Statements by shape, over all workers.
    pub statements: Vec<(StatementKey, Statement)>,
    /// Shapes that were learned to need the primary.
    pub learned: Vec<LearnedRoute>,
    /// Every setting with its value.
    pub settings: Vec<SettingRow>,
    /// What has happened, oldest first, at most the last 10,000.
    pub events: Vec<Event>,
}

impl Facts {
    /// Returns a server as last seen, with its cluster.
    pub fn node(&self, id: NodeId) -> Option<(&ClusterFacts, &Node)> {
        let cluster = self.clusters.get(usize::from(id.cluster))?;
        let node = cluster.topology.nodes.get(usize::from(id.node))?;
        Some((cluster, node))
    }

    /// Returns what was last wrong with a server, for people.
    pub(crate) fn last_error(&self, id: NodeId) -> Option<&str> {
        let cluster = self.clusters.get(usize::from(id.cluster));
        let seen = cluster.and_then(|cluster| cluster.nodes.get(usize::from(id.node)));
        let counts = self.counts.nodes.get(&id);
        let of_monitor = seen.and_then(|seen| seen.last_error.as_deref());
        of_monitor.or_else(|| counts?.last_error.as_deref())
    }
}

/// One cluster.
#[derive(Debug, Clone)]
pub struct ClusterFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Its servers as last seen.
    pub topology: Arc<Topology>,
    /// What is known beside that of each server, as many and in the same order.
    pub nodes: Vec<NodeFacts>,
}

/// What the topology does not say of a server.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Batches that it has not answered yet.
    pub in_flight: usize,
    /// Since when it has its role and health.
    pub since: Option<SystemTime>,
    /// Times that it was found not to answer, and failed reports of the data path.
    pub errors: u64,
    /// The last of these, for people.
    pub last_error: Option<Arc<str>>,
}

/// One pool: the server connections of one user to one database on one server.
#[derive(Debug, Clone)]
pub struct PoolFacts {
    /// What it is a pool of.
    pub key: PoolKey,
    /// The database as clients name it, or the server's name where several do.
    pub database: Arc<str>,
    /// How many connections there may be.
    pub limit: usize,
    /// How many there are, those that are being opened included.
    pub open: usize,
    /// Of these, how many are idle.
    pub idle: usize,
    /// Clients in line.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest_wait: Option<Duration>,
}

impl PoolFacts {
    /// Returns how many connections are in use, those that are being opened included.
    pub fn in_use(&self) -> usize {
        self.open.saturating_sub(self.idle)
    }
}

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientState {
    /// A server works for it, or its transaction is open.
    Active,
    /// It waits for a server connection, or for a server.
    Waiting,
    /// It has asked for nothing.
    Idle,
}

impl ClientState {
    /// Returns its name in tables and labels.
    pub fn name(self) -> &'static str {
        match self {
            ClientState::Active => "active",
            ClientState::Waiting => "waiting",
            ClientState::Idle => "idle",
        }
    }
}

/// One client.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The process ID that it was given, by which `KILL` and `CANCEL` know it.
    pub id: u32,
    /// Its role.
    pub user: Arc<str>,
    /// The database as it named it.
    pub database: Arc<str>,
    /// Its `application_name` at login.
    pub application: Arc<str>,
    /// Where it connects from: `ip:port`, or `unix`.
    pub address: Arc<str>,
    /// The address that it connected to.
    pub local_address: Arc<str>,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
    /// What it does.
    pub state: ClientState,
    /// Its transaction is open.
    pub in_transaction: bool,
    /// Why it stays on its server connection.
    pub pins: Vec<PinReason>,
    /// The server that works for it.
    pub node: Option<NodeId>,
    /// The role of that server.
    pub role: Option<Role>,
    /// The process ID of the server connection there.
    pub server_process_id: Option<u32>,
    /// Where its last batch went and why.
    pub last_route: Option<(Role, Reason)>,
    /// How long its batch has waited, or waited last.
    pub wait: Duration,
    /// The shape of what it runs, or ran last.
    pub query: Option<Arc<str>>,
    /// When it logged in.
    pub connected_at: SystemTime,
    /// When it last asked for something, or was answered.
    pub moved_at: SystemTime,
    /// When its transaction began.
    pub transaction_since: Option<SystemTime>,
    /// Bytes that it sent.
    pub received_bytes: u64,
    /// Bytes that were sent to it.
    pub sent_bytes: u64,
    /// Prepared statements that it has.
    pub prepared_statements: usize,
}

/// What a server connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerState {
    /// A client has it.
    Active,
    /// It waits in its pool.
    Idle,
}

/// One server connection.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Its pool.
    pub key: PoolKey,
    /// The process ID that the server gave it.
    pub process_id: u32,
    /// What it does.
    pub state: ServerState,
    /// The client that has it.
    pub client: Option<u32>,
    /// When it was opened.
    pub connected_at: SystemTime,
    /// When it was last given out or back.
    pub moved_at: SystemTime,
    /// Prepared statements on it.
    pub prepared_statements: usize,
    /// The host and port that it is connected to.
    pub address: Arc<str>,
}

/// One prepared statement that a worker keeps for its clients.
#[derive(Debug, Clone)]
pub struct PreparedStatement {
    /// Its name on the servers.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
    /// Clients that have it.
    pub clients: usize,
}

/// A shape that failed on a replica as only recovery makes it fail.
#[derive(Debug, Clone)]
pub struct LearnedRoute {
    /// Its fingerprint.
    pub fingerprint: u64,
    /// The text with its literals taken out.
    pub shape: Arc<str>,
}

/// What sort of thing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A server has another role, health, timeline or breaker.
    Server,
    /// The primary is another one.
    Primary,
    /// The configuration was changed.
    Config,
    /// Somebody gave an order on the console.
    Console,
    /// The proxy started or began to end.
    Process,
}

impl EventKind {
    /// Returns its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Server => "server",
            EventKind::Primary => "primary",
            EventKind::Config => "config",
            EventKind::Console => "console",
            EventKind::Process => "process",
        }
    }
}

/// Something that has happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Rises by one with each.
    pub id: u64,
    /// When.
    pub at: SystemTime,
    /// Of what sort.
    pub kind: EventKind,
    /// The cluster, server, database or setting that it is about, or nothing.
    pub subject: Arc<str>,
    /// What, in words.
    pub message: Arc<str>,
}
