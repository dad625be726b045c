//! What the monitor needs of the configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pgweir_config::{BackendRole, Cluster};
use pgweir_consistency::MaxLag;
use pgweir_model::{Balance, PrimaryReads, Role, Selection};

use crate::breaker::BreakerSettings;

/// One cluster as the monitor sees it.
#[derive(Clone)]
pub struct Settings {
    /// Its name, for the log.
    pub name: Arc<str>,
    /// Its index in the configuration.
    pub index: u16,
    /// Its servers.
    pub nodes: Vec<NodeSettings>,
    /// The role that the monitor logs in as.
    pub user: Arc<str>,
    /// Its password.
    pub password: Option<Arc<str>>,
    /// The database that it connects to.
    pub database: Arc<str>,
    /// Time between two looks at every server.
    pub lag_poll: Duration,
    /// The limit of lag above which a replica takes no reads.
    pub max_lag: MaxLag,
    /// How long opening a connection may take, login included.
    pub connect_timeout: Duration,
    /// How long a replica that recovered from a failure takes to come to its full weight; zero is at once.
    pub slow_start: Duration,
    /// Time between two looks at the catalog of a database that is in use.
    pub catalog_refresh: Duration,
    /// When a server takes no reads though it answers.
    pub breaker: BreakerSettings,
    /// How reads are spread.
    pub selection: Selection,
}

/// One server.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Host name, IP address, or the folder of a Unix-domain socket (it begins with `/`).
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// The role that the configuration expects; what is seen stands above it.
    pub expected: Option<Role>,
    /// Share of the reads.
    pub weight: u32,
    /// It is to get nothing new. What is set here is that of a start: later [`crate::Handle::set_drained`] says so, and a new
    /// configuration leaves it as it is.
    pub is_drained: bool,
    /// Whether it stands in the proxy's own zone.
    pub is_near: bool,
}

impl Settings {
    /// How long opening a control connection may take.
    ///
    /// Chosen: long enough for a login on a loaded server in another region, short enough that a silent host is known as
    /// down within two of them.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

    /// How long a recovered replica takes to come to its full weight.
    ///
    /// Chosen: its caches are cold and its connection pools are empty; five seconds fill both without it being missed.
    pub const SLOW_START: Duration = Duration::from_secs(5);

    /// Returns what the monitor needs of the cluster at `index` of the configuration. `zone` is the proxy's own.
    pub fn new(cluster: &Cluster, index: u16, zone: Option<&str>) -> Self {
        let node = |backend: &pgweir_config::Backend| NodeSettings {
            name: Arc::clone(&backend.name),
            host: Arc::clone(&backend.host),
            port: backend.port,
            expected: match backend.role {
                BackendRole::Auto => None,
                BackendRole::Primary => Some(Role::Primary),
                BackendRole::Replica => Some(Role::Replica),
            },
            weight: backend.weight,
            is_drained: false,
            is_near: zone.is_some() && backend.zone.as_deref() == zone,
        };
        Settings {
            name: Arc::clone(&cluster.name),
            index,
            nodes: cluster.backends.iter().map(node).collect(),
            user: Arc::clone(&cluster.user),
            password: cluster
                .password
                .as_ref()
                .map(|password| Arc::from(password.expose())),
            database: Arc::clone(&cluster.database),
            lag_poll: cluster.lag_poll,
            max_lag: match cluster.max_lag {
                pgweir_config::MaxLag::Time(limit) => MaxLag::Time(limit),
                pgweir_config::MaxLag::Bytes(limit) => MaxLag::Bytes(limit),
            },
            connect_timeout: Settings::CONNECT_TIMEOUT,
            slow_start: Settings::SLOW_START,
            catalog_refresh: cluster.catalog_refresh,
            breaker: BreakerSettings {
                failures: cluster.breaker.failures,
                open_for: cluster.breaker.open_for,
                half_open_trials: cluster.breaker.half_open_trials,
            },
            selection: Selection {
                balance: balance(cluster.balance),
                primary_reads: match cluster.primary_reads {
                    pgweir_config::PrimaryReads::Never => PrimaryReads::Never,
                    pgweir_config::PrimaryReads::Fallback => PrimaryReads::Fallback,
                    pgweir_config::PrimaryReads::Share => PrimaryReads::Share,
                },
            },
        }
    }

    /// How long one question may take: a second, or five polls where those are longer.
    pub(crate) fn query_timeout(&self) -> Duration {
        (self.lag_poll * 5).max(Duration::from_secs(1))
    }

    /// After how long without a new snapshot nothing vouches for a replica any more.
    ///
    /// Snapshots are published at every poll, so ten missed ones mean that the monitor does not run.
    pub(crate) fn snapshot_life(&self) -> Duration {
        (self.lag_poll * 10).max(Duration::from_secs(1))
    }

    /// How old an answer may be before the lag in it is taken to grow.
    pub(crate) fn patience(&self) -> Duration {
        self.lag_poll * 2
    }
}

fn balance(word: pgweir_config::Balance) -> Balance {
    match word {
        pgweir_config::Balance::LeastLoaded => Balance::LeastLoaded,
        pgweir_config::Balance::RoundRobin => Balance::RoundRobin,
        pgweir_config::Balance::Random => Balance::Random,
        pgweir_config::Balance::Nearest => Balance::Nearest,
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("nodes", &self.nodes)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("lag_poll", &self.lag_poll)
            .field("max_lag", &self.max_lag)
            .finish_non_exhaustive()
    }
}
