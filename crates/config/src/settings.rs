//! The validated configuration: plain data, immutable, shared by all threads.
//!
//! Zero never means "off" here: what can be switched off is an `Option`. Names are `Arc<str>` because sessions keep them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgweir_model::catalog::Policy;
use pgweir_model::{Consistency, NodeId};

use crate::Secret;
use crate::rules::Rule;

/// The port that is meant where a listening address names none. Chosen: PgBouncer's, which clients of poolers expect.
pub(crate) const DEFAULT_LISTEN_PORT: u16 = 6432;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[server]`: the listening side, the limits and the timeouts.
    pub server: Server,
    /// `[clusters.X]`, in the order of the file: the index is `NodeId::cluster`. Never empty.
    pub clusters: Vec<Cluster>,
    /// `[databases.X]`, in the order of the file. Never empty.
    pub databases: Vec<Database>,
    /// `[[users]]`, in the order of the file.
    pub users: Vec<User>,
    /// `[auth]`: how clients prove who they are.
    pub auth: Auth,
    /// `[admin]`: the console.
    pub admin: Admin,
    /// `[http]`: metrics, health, the page.
    pub http: Http,
    /// `[log]`: what is logged.
    pub log: Log,
    /// `[telemetry]`: what is traced.
    pub telemetry: Telemetry,
    /// `[[rules]]`, in the order of the file: the first that matches wins.
    pub rules: Vec<Rule>,
}

/// `[server]`: the listening side, the limits and the timeouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses to accept clients on. Never empty.
    pub listen: Vec<ListenAddress>,
    /// Worker threads; 0 is one per core.
    pub workers: u16,
    /// Clients at once, in all; one more is refused with 53300.
    pub max_clients: u32,
    /// How long a client waits for a server connection before 57014.
    pub query_wait_timeout: Duration,
    /// How long opening a server connection may take, login included.
    pub connect_timeout: Duration,
    /// How long a client may take from its first byte to the end of its login.
    pub auth_timeout: Duration,
    /// How long SIGTERM waits for running transactions; zero does not wait.
    pub shutdown_timeout: Duration,
    /// How long a server connection stays open unused; `None` for ever.
    pub server_idle_timeout: Option<Duration>,
    /// How old a server connection grows before it is replaced at its next checkin; `None` is for ever.
    pub server_lifetime: Option<Duration>,
    /// How long a client may do nothing outside of a transaction; `None` for ever.
    pub client_idle_timeout: Option<Duration>,
    /// How long a client may do nothing in an open transaction; `None` for ever.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// The largest message that is accepted, in bytes of its length field.
    pub max_message: u32,
    /// How much of a batch is held back to be classified before it goes to the primary, in bytes.
    pub route_buffer: usize,
    /// Prepared statements kept on each server connection.
    pub prepared_statements_per_server: usize,
    /// Statement shapes whose plan each worker remembers.
    pub statement_cache: usize,
    /// Waiters per pool; one more is refused with 53400.
    pub max_queue: usize,
    /// Idle time before TCP keepalive probes; `None` sends none.
    pub tcp_keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged before the socket is given up (Linux); `None` leaves it to the system.
    pub tcp_user_timeout: Option<Duration>,
    /// Statement shapes whose statistics each worker keeps; 0 keeps none.
    pub statement_statistics: usize,
    /// Where the proxy itself stands, for `balance = "nearest"`.
    pub zone: Option<Arc<str>>,
}

impl Server {
    /// Returns the port in the name of Unix-domain sockets: that of the first TCP address, else 6432.
    pub fn unix_port(&self) -> u16 {
        let port = |address: &ListenAddress| match address {
            ListenAddress::Tcp(_, port) => Some(*port),
            ListenAddress::Unix(_) => None,
        };
        self.listen
            .iter()
            .find_map(port)
            .unwrap_or(DEFAULT_LISTEN_PORT)
    }
}

/// Where clients are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// Host name or IP address (IPv6 without brackets), and port; port 0 takes a free one.
    Tcp(String, u16),
    /// The folder of a Unix-domain socket: the socket is `<folder>/.s.PGSQL.<port>`.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            ListenAddress::Tcp(host, port) => write!(f, "{host}:{port}"),
            ListenAddress::Unix(folder) => write!(f, "unix:{}", folder.display()),
        }
    }
}

/// `[clusters.X]`: a primary and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The `X`.
    pub name: Arc<str>,
    /// The servers, in the order of the file: the index is `NodeId::node`. Never empty.
    pub backends: Vec<Backend>,
    /// The role that the control plane logs in as.
    pub user: Arc<str>,
    /// Its password.
    pub password: Option<Secret>,
    /// The database that the control plane connects to.
    pub database: Arc<str>,
    /// Time between two looks at every server.
    pub lag_poll: Duration,
    /// The lag above which a replica takes no reads.
    pub max_lag: MaxLag,
    /// Time between two looks at the catalog of a database that is in use.
    pub catalog_refresh: Duration,
    /// How long a statement that needs the primary waits for one.
    pub failover_wait: Duration,
    /// When a server takes no reads though it answers.
    pub breaker: Breaker,
    /// How one of the eligible replicas is chosen.
    pub balance: Balance,
    /// Whether the primary takes reads.
    pub primary_reads: PrimaryReads,
}

/// `[clusters.X.breaker]`: when a server takes no reads though it answers the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open.
    pub open_for: Duration,
    /// Reads at once, per worker, that then try the server.
    pub half_open_trials: u32,
}

/// The lag above which a replica takes no reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLag {
    /// Age of what the replica shows.
    Time(Duration),
    /// WAL outstanding, in bytes.
    Bytes(u64),
}

/// One server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name: unique in the cluster, `host:port` unless given.
    pub name: Arc<str>,
    /// Host name, IP address (IPv6 without brackets), or the folder of a Unix-domain socket (it begins with `/`).
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// The role that it is trusted to have.
    pub role: BackendRole,
    /// Share of the reads relative to the other replicas; 0 takes it out of the choice.
    pub weight: u32,
    /// Where it stands, for `balance = "nearest"`.
    pub zone: Option<Arc<str>>,
}

/// `[databases.X]`: a database as clients name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The `X`; `*` serves every name that has no table of its own.
    pub name: Arc<str>,
    /// The name of the cluster that has it.
    pub cluster: Arc<str>,
    /// Index of that cluster in [`Config::clusters`].
    pub cluster_index: u16,
    /// Its real name on the servers, if another; see [`Database::server_name`].
    pub dbname: Option<Arc<str>>,
    /// When a client gives its server connection back.
    pub pool_mode: PoolMode,
    /// Server connections per user and backend, at most.
    pub pool_size: u32,
    /// Server connections per user and backend that are kept open.
    pub pool_min: u32,
    /// Server connections per user and backend beyond `pool_size`, for those who have waited long.
    pub pool_reserve: u32,
    /// How long the first in line waits before it gets one of them.
    pub pool_reserve_after: Duration,
    /// Server connections per backend over all users, at most; `None` is no limit.
    pub max_backend_connections: Option<u32>,
    /// What a read may see.
    pub consistency: Consistency,
    /// Where reads of an explicit transaction run.
    pub transaction_reads: TransactionReads,
    /// Where a pinned session reads.
    pub pin_reads: PinReads,
    /// How often a read is tried elsewhere after a replica has failed it.
    pub read_retries: u32,
    /// How long a read waits for a replica that shows what it must see.
    pub causal_wait: Duration,
    /// Whether reads leave the primary.
    pub splitting: Splitting,
    /// What stands above the catalog: `replica_safe_functions`, `primary_only_functions` and `foreign_tables`.
    pub policy: Arc<Policy>,
}

impl Database {
    /// Returns the real name of the database that a client asked for as `asked`.
    pub fn server_name<'a>(&'a self, asked: &'a str) -> &'a str {
        self.dbname.as_deref().unwrap_or(asked)
    }
}

/// A login that clients may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Role name.
    pub name: Arc<str>,
    /// Clear text, a SCRAM-SHA-256 verifier, or `md5` and 32 hexadecimal digits.
    pub password: Option<Secret>,
    /// The role that pgweir logs in as on the servers; `None` is `name`.
    pub server_user: Option<Arc<str>>,
    /// The password for that, where `password` is a verifier or another; `None` is `password`.
    pub server_password: Option<Secret>,
}

impl User {
    /// Returns the role that pgweir logs in as on the servers.
    pub fn login(&self) -> &Arc<str> {
        self.server_user.as_ref().unwrap_or(&self.name)
    }

    /// Returns what pgweir proves that role with: a clear-text password or, lacking one, a verifier.
    pub fn login_password(&self) -> Option<&Secret> {
        self.server_password.as_ref().or(self.password.as_ref())
    }
}

/// `[auth]`: how clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// What is asked of a client.
    pub method: AuthMethod,
}

/// `[admin]`: the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The name of its database.
    pub database: Arc<str>,
    /// Users who may change things.
    pub users: Vec<Arc<str>>,
    /// Users who may only look.
    pub viewers: Vec<Arc<str>>,
    /// How long a statement may compute.
    pub statement_timeout: Duration,
}

/// `[http]`: metrics, health, the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Host name or IP address (IPv6 without brackets), and port; `None` is off.
    pub listen: Option<(Arc<str>, u16)>,
}

/// `[log]`: what is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level, or a list of `target=level`.
    pub level: Arc<str>,
    /// For whom the lines are.
    pub format: LogFormat,
    /// Batches that take longer are logged; `None` logs none.
    pub slow_statements: Option<Duration>,
    /// How a statement stands in the log.
    pub statements: LoggedStatements,
}

/// `[telemetry]`: what is traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The collector's address; `None` traces nothing.
    pub endpoint: Option<Arc<str>>,
    /// What the proxy is called there.
    pub service_name: Arc<str>,
    /// One batch in so many is traced.
    pub sample_one_in: u32,
}

/// Defines an enum of words: the variants with the words that name them in the file.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Returns the word that stands for it in the file.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// When a client gives its server connection back.
    PoolMode {
        /// When it disconnects.
        Session = "session",
        /// When its transaction ends.
        Transaction = "transaction",
        /// When its statement ends; a transaction of several statements is refused.
        Statement = "statement",
    }
}

words! {
    /// Where the reads of an explicit transaction run that was not opened READ ONLY.
    TransactionReads {
        /// On the primary.
        Primary = "primary",
        /// On a replica until the transaction's first write.
        UntilWrite = "until_write",
    }
}

words! {
    /// Where a session reads that is pinned to a server connection.
    PinReads {
        /// On that connection.
        Primary = "primary",
        /// On a replica, where what pins it cannot matter.
        Replica = "replica",
    }
}

words! {
    /// Where foreign tables are read.
    ForeignTables {
        /// On the primary.
        Primary = "primary",
        /// On a replica, as other tables.
        Replica = "replica",
    }
}

words! {
    /// Whether reads leave the primary.
    Splitting {
        /// Everything goes to the primary.
        Off = "off",
        /// Likewise, and what `on` would have decided is counted.
        Observe = "observe",
        /// Reads go to replicas.
        On = "on",
    }
}

words! {
    /// How one of the eligible replicas is chosen.
    Balance {
        /// By weight, away from one that has clearly more in flight than another.
        LeastLoaded = "least_loaded",
        /// By weight, in a fixed order.
        RoundRobin = "round_robin",
        /// By weight, drawn by lot.
        Random = "random",
        /// The proxy's own zone first.
        Nearest = "nearest",
    }
}

words! {
    /// Whether the primary takes reads.
    PrimaryReads {
        /// No: they wait for a replica.
        Never = "never",
        /// Those for which no replica is eligible.
        Fallback = "fallback",
        /// By its weight, as a replica without lag.
        Share = "share",
    }
}

words! {
    /// What is asked of a client.
    AuthMethod {
        /// Nothing: it is who it says.
        Trust = "trust",
        /// The password in clear text.
        Password = "password",
        /// An MD5 challenge, or SCRAM-SHA-256 where a SCRAM verifier is stored.
        Md5 = "md5",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
    }
}

words! {
    /// For whom the lines of the log are.
    LogFormat {
        /// People.
        Text = "text",
        /// Machines: one JSON object per line.
        Json = "json",
    }
}

words! {
    /// How a statement stands in the log.
    LoggedStatements {
        /// With its literals taken out.
        Shape = "shape",
        /// As it was sent.
        Text = "text",
    }
}

words! {
    /// The role that the configuration gives a server.
    BackendRole {
        /// As the server itself says.
        Auto = "auto",
        /// Used only while it is the primary.
        Primary = "primary",
        /// Used only while it is a replica.
        Replica = "replica",
    }
}

impl Config {
    /// Returns the database that a client means by `name`: that one, else `*`.
    pub fn database(&self, name: &str) -> Option<&Database> {
        let named = |wanted: &str| {
            self.databases
                .iter()
                .find(|database| &*database.name == wanted)
        };
        // A client cannot ask for `*` itself: it is no name but a rule.
        named(name).or_else(|| named("*"))
    }

    /// Returns the name of a database that `name` may be a slip of, if one is near enough to suggest.
    pub fn nearest_database(&self, name: &str) -> Option<&str> {
        let names = self
            .databases
            .iter()
            .map(|database| &*database.name)
            .filter(|name| *name != "*");
        crate::reference::nearest(name, names)
    }

    /// Returns a login by its role name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| &*user.name == name)
    }

    /// Returns the cluster of a database.
    pub fn cluster_of(&self, database: &Database) -> Option<&Cluster> {
        self.clusters.get(usize::from(database.cluster_index))
    }

    /// Returns the configuration of a server.
    pub fn backend(&self, id: NodeId) -> Option<&Backend> {
        self.clusters
            .get(usize::from(id.cluster))?
            .backends
            .get(usize::from(id.node))
    }
}
