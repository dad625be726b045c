//! The cluster: making it, its nodes, and what concerns several of them.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::ClusterError;
use crate::folder::Folder;
use crate::locate::Binaries;
use crate::node::{Node, START_DEADLINE, SUPERUSER, Shared};
use crate::process::ServerUser;
use crate::template;
use crate::wait;

/// Tries for a port that nobody takes between our look and the server's bind.
const PORT_ATTEMPTS: usize = 5;

/// Settings of every node, chosen for tests and demos: fast and talkative to replicas.
/// `wal_keep_size` instead of slots lets a stopped replica catch up; `mmap` keeps
/// shared memory segments in the data folder, where they go with it.
const SETTINGS: [(&str, &str); 14] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("password_encryption", "scram-sha-256"),
    ("wal_level", "replica"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("wal_keep_size", "512MB"),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "on"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m [%p] %q%u@%d/%a "),
    ("timezone", "UTC"),
];

/// Settings that trade durability for speed: the data is disposable.
const FAST: [(&str, &str); 2] = [("fsync", "off"), ("full_page_writes", "off")];

/// Options of a cluster to be; see [`Cluster::builder`].
#[derive(Debug, Default)]
pub struct Builder {
    replicas: usize,
    durable: bool,
    parent: Option<PathBuf>,
    binaries: Option<Binaries>,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    sql: Vec<String>,
}

impl Builder {
    /// The number of streaming replicas (default 0).
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// A setting (`postgresql.conf`) of every node; it wins over the defaults here.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Keeps `fsync` and `full_page_writes` on (default: off), as a bench of writes needs it.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// A line for the top of `pg_hba.conf`, e.g. `host all alice 127.0.0.1/32 md5`. Below it, TCP
    /// asks every role for SCRAM-SHA-256.
    #[must_use]
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// SQL to run on the primary (database `postgres`) before the replicas start; each call runs separately,
    /// in order, so `CREATE DATABASE` works in a call of its own.
    #[must_use]
    pub fn sql(mut self, sql: impl Into<String>) -> Self {
        self.sql.push(sql.into());
        self
    }

    /// A role that may log in, with a password.
    #[must_use]
    pub fn role(self, name: &str, password: &str) -> Self {
        let (name, password) = (name.replace('"', "\"\""), password.replace('\'', "''"));
        self.sql(format!(
            "CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'"
        ))
    }

    /// A database owned by the superuser.
    #[must_use]
    pub fn database(self, name: &str) -> Self {
        let name = name.replace('"', "\"\"");
        self.sql(format!("CREATE DATABASE \"{name}\""))
    }

    /// Makes the temporary folder in `parent` (default: the system's folder for temporary files).
    #[must_use]
    pub fn under(mut self, parent: impl Into<PathBuf>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// Uses these binaries (default: [`Binaries::locate`]).
    #[must_use]
    pub fn binaries(mut self, binaries: Binaries) -> Self {
        self.binaries = Some(binaries);
        self
    }

    /// Starts the cluster: the primary answers, and all replicas stream and have replayed what the primary wrote so far.
    ///
    /// # Errors
    /// [`ClusterError::Locate`] if PostgreSQL is missing; others with the end of the server's log.
    pub fn start(self) -> Result<Cluster, ClusterError> {
        let binaries = match self.binaries {
            Some(ref binaries) => binaries.clone(),
            None => Binaries::locate()?,
        };
        let user = ServerUser::find()?;
        let folder = Folder::create(self.parent.as_deref())?;
        let sockets = folder.path().join("s");
        fs::create_dir(&sockets).map_err(ClusterError::io("create", &sockets))?;
        fs::set_permissions(&sockets, fs::Permissions::from_mode(0o700))
            .map_err(ClusterError::io("chmod", &sockets))?;
        user.own(&sockets)?;
        let shared = Arc::new(Shared {
            binaries,
            user,
            folder: folder.path().to_path_buf(),
            sockets,
            password: random_password()?,
        });
        let nodes = self.nodes(&shared)?;
        let cluster = Cluster {
            nodes,
            primary: AtomicUsize::new(0),
            shared,
            _folder: folder,
        };
        cluster.wait_streaming(START_DEADLINE)?;
        cluster.wait_caught_up(START_DEADLINE)?;
        Ok(cluster)
    }

    /// Makes and starts the primary, then all replicas at the same time.
    fn nodes(&self, shared: &Arc<Shared>) -> Result<Vec<Node>, ClusterError> {
        let base = shared.folder.join("primary");
        template::make(&shared.binaries, &shared.user, &shared.folder, &base)?;
        self.configure(&base, &shared.user)?;
        let names: Vec<String> = (1..=self.replicas).map(|n| format!("replica{n}")).collect();
        in_parallel(&names, |name| {
            template::copy(&base, &shared.folder.join(name), &shared.user)
        })?;
        let primary = launch_on_a_free_port(shared, "primary", |_| Ok(()))?;
        let password = &shared.password;
        primary.sql(
            "postgres",
            &format!("ALTER ROLE {SUPERUSER} PASSWORD '{password}'"),
        )?;
        for sql in &self.sql {
            primary.sql("postgres", sql)?;
        }
        let replicas = in_parallel(&names, |name| {
            launch_on_a_free_port(shared, name, |node| make_replica_of(&primary, node))
        })?;
        Ok(std::iter::once(primary).chain(replicas).collect())
    }

    fn configure(&self, data: &Path, user: &ServerUser) -> Result<(), ClusterError> {
        let mut settings = String::from("\n# Written by devcluster.\n");
        let fast: &[(&str, &str)] = if self.durable { &[] } else { &FAST };
        let ours = SETTINGS.iter().chain(fast).copied();
        let theirs = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in ours.chain(theirs) {
            // PostgreSQL takes the last value of a name that is set twice.
            let value = value.replace('\'', "''");
            let _infallible = writeln!(settings, "{name} = '{value}'");
        }
        append(&data.join("postgresql.conf"), &settings)?;
        let mut hba = self.hba.join("\n");
        hba.push_str(
            "\nlocal all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n",
        );
        let path = data.join("pg_hba.conf");
        fs::write(&path, hba).map_err(ClusterError::io("write", &path))?;
        user.own(&path)
    }
}

/// A running cluster. Dropping it ends its servers and removes its folder; so does the end of this process in any way.
#[derive(Debug)]
pub struct Cluster {
    // Field order is drop order: servers end before their folder goes.
    nodes: Vec<Node>,
    primary: AtomicUsize,
    shared: Arc<Shared>,
    _folder: Folder,
}

impl Cluster {
    /// Returns the options of a new cluster: a primary alone, unless told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The node that is the primary: the first, until [`Cluster::promote`].
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "the index names a node that exists"
    )]
    #[expect(
        clippy::expect_used,
        reason = "the index is only ever set to one of a node"
    )]
    pub fn primary(&self) -> &Node {
        self.nodes
            .get(self.primary.load(Ordering::Acquire))
            .expect("the primary is one of the nodes")
    }

    /// The n-th node that started as a replica, from 0, whatever it is now.
    ///
    /// # Panics
    /// If there are fewer replicas.
    #[must_use]
    pub fn replica(&self, n: usize) -> &Node {
        self.node(n.saturating_add(1))
    }

    /// The n-th node: 0 started as the primary, the rest as replicas.
    ///
    /// # Panics
    /// If there are fewer nodes.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "documented, and a mistake of the test that calls it"
    )]
    pub fn node(&self, n: usize) -> &Node {
        self.nodes.get(n).expect("the cluster has that many nodes")
    }

    /// All nodes, in the order of [`Cluster::node`].
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A connection URL of the primary for the superuser `postgres`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.primary().url(database)
    }

    /// The superuser's password: random, hexadecimal, the same on all nodes.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.shared.password
    }

    /// The name of the superuser.
    #[must_use]
    pub fn superuser(&self) -> &'static str {
        SUPERUSER
    }

    /// The binaries in use.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.shared.binaries
    }

    /// The cluster's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Runs SQL on the primary; see [`Node::sql`].
    ///
    /// # Errors
    /// As for [`Node::sql`].
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        self.primary().sql(database, sql)
    }

    /// Waits until every running node but the primary streams from it.
    ///
    /// # Errors
    /// [`ClusterError::Deadline`] if one does not; [`ClusterError::Sql`] if the primary does not answer.
    pub fn wait_streaming(&self, within: Duration) -> Result<(), ClusterError> {
        let expected = self.running_replicas().count();
        if expected == 0 {
            return Ok(());
        }
        let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let found = wait::until(within, || {
            let streaming = self.sql("postgres", count)?;
            Ok::<_, ClusterError>((streaming.parse() == Ok(expected)).then_some(()))
        })?;
        found.ok_or_else(|| ClusterError::Deadline {
            what: format!("streaming to {expected} replicas"),
            waited: within,
            detail: self
                .running_replicas()
                .map(Node::log_tail)
                .collect::<Vec<_>>()
                .join("\n\n"),
        })
    }

    /// Waits until every running replica has replayed what the primary has written by now.
    ///
    /// # Errors
    /// [`ClusterError::Deadline`] if one does not; [`ClusterError::Sql`] if a node does not answer.
    pub fn wait_caught_up(&self, within: Duration) -> Result<(), ClusterError> {
        let lsn = self.sql("postgres", "SELECT pg_current_wal_insert_lsn()")?;
        for replica in self.running_replicas() {
            replica.wait_replayed(&lsn, within)?;
        }
        Ok(())
    }

    /// Promotes the n-th node (as in [`Cluster::node`]) and waits until it accepts writes. It is
    /// [`Cluster::primary`] from then on. The old primary is left as it is: stop it first, or there are two.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if the node refuses, [`ClusterError::Deadline`] if it does not get there.
    pub fn promote(&self, n: usize) -> Result<(), ClusterError> {
        self.node(n).promote()?;
        self.primary.store(n, Ordering::Release);
        Ok(())
    }

    /// Makes every commit wait until one more node than the primary has it on disk, whichever is the primary. From then on what
    /// was acknowledged is on the [`Cluster::most_advanced`] replica, if the primary is lost while the others run.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if a node refuses, [`ClusterError::Deadline`] if the primary does not take it.
    pub fn commit_synchronously(&self, within: Duration) -> Result<(), ClusterError> {
        let names: Vec<&str> = self.nodes.iter().map(Node::name).collect();
        let names = names.join(", ");
        for node in &self.nodes {
            let set = format!("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ({names})'");
            node.sql("postgres", &set)?;
            node.sql("postgres", "SELECT pg_reload_conf()")?;
        }
        let taken = "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'quorum'";
        self.primary()
            .wait_true("synchronous commit", taken, within)
    }

    /// The running replica that has received most of the primary's WAL: the one to promote.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if one does not answer; [`ClusterError::NotRunning`] if there is none.
    pub fn most_advanced(&self) -> Result<usize, ClusterError> {
        let received =
            "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'";
        let mut best = None;
        for (n, node) in self.nodes.iter().enumerate() {
            if n == self.primary.load(Ordering::Acquire) || node.pid().is_none() {
                continue;
            }
            let position = node.sql("postgres", received)?.parse::<u64>().unwrap_or(0);
            if best.is_none_or(|(_, highest)| position > highest) {
                best = Some((n, position));
            }
        }
        best.map(|(n, _)| n)
            .ok_or_else(|| ClusterError::NotRunning {
                node: "a replica".to_owned(),
            })
    }

    /// Points a running replica to the present primary, and waits until it streams from it.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if a node refuses, [`ClusterError::Deadline`] if it does not get there, as when its replay is paused.
    pub fn follow(&self, n: usize, within: Duration) -> Result<(), ClusterError> {
        let (node, primary) = (self.node(n), self.primary());
        let conninfo = conninfo(primary, node);
        let set = format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'");
        node.sql("postgres", &set)?;
        node.sql("postgres", "SELECT pg_reload_conf()")?;
        let streams = format!(
            "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming' AND application_name = '{}'",
            node.name()
        );
        let what = format!("streaming to {}", node.name());
        primary.wait_true(&what, &streams, within)
    }

    /// Rebuilds the n-th node as a replica of the present primary: ends it, replaces its data by
    /// `pg_basebackup`, starts it and waits until it streams.
    ///
    /// # Errors
    /// [`ClusterError::Program`] if `pg_basebackup` fails; others if the node does not start.
    pub fn rejoin(&self, n: usize) -> Result<(), ClusterError> {
        let (node, primary) = (self.node(n), self.primary());
        node.end();
        let data = node.data_dir();
        fs::remove_dir_all(data).map_err(ClusterError::io("remove", data))?;
        fs::create_dir(data).map_err(ClusterError::io("create", data))?;
        fs::set_permissions(data, fs::Permissions::from_mode(0o700))
            .map_err(ClusterError::io("chmod", data))?;
        self.shared.user.own(data)?;
        let program = self.shared.binaries.server("pg_basebackup");
        let output = self
            .shared
            .user
            .command(&program, &self.shared.folder)
            .args(["--checkpoint=fast", "--no-sync", "--wal-method=stream"])
            .arg("--pgdata")
            .arg(data)
            .arg("--host")
            .arg(&self.shared.sockets)
            .args([
                "--port",
                &primary.port().to_string(),
                "--username",
                SUPERUSER,
            ])
            .stdin(Stdio::null())
            .output()
            .map_err(ClusterError::io("run", &program))?;
        if !output.status.success() {
            return Err(ClusterError::Program {
                program: "pg_basebackup",
                output: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        make_replica_of(primary, node)?;
        node.launch()?;
        self.wait_streaming(START_DEADLINE)
    }

    fn running_replicas(&self) -> impl Iterator<Item = &Node> {
        let primary = self.primary.load(Ordering::Acquire);
        self.nodes
            .iter()
            .enumerate()
            .filter(move |(n, node)| *n != primary && node.pid().is_some())
            .map(|(_, node)| node)
    }
}

/// Turns a stopped node's data into a standby of `primary`
/// (<https://www.postgresql.org/docs/current/warm-standby.html#STANDBY-SERVER-SETUP>).
fn make_replica_of(primary: &Node, node: &Node) -> Result<(), ClusterError> {
    let signal = node.data_dir().join("standby.signal");
    fs::write(&signal, "").map_err(ClusterError::io("write", &signal))?;
    node.shared.user.own(&signal)?;
    let conninfo = format!("\nprimary_conninfo = '{}'\n", conninfo(primary, node));
    append(&node.data_dir().join("postgresql.auto.conf"), &conninfo)
}

/// How a replica connects to its primary.
fn conninfo(primary: &Node, node: &Node) -> String {
    format!(
        "host={} port={} user={SUPERUSER} password={} application_name={}",
        primary.host(),
        primary.port(),
        node.shared.password,
        node.name()
    )
}

/// Starts a node, with another port where the first was taken in the meantime.
fn launch_on_a_free_port(
    shared: &Arc<Shared>,
    name: &str,
    prepare: impl Fn(&Node) -> Result<(), ClusterError>,
) -> Result<Node, ClusterError> {
    let mut node = Node::new(Arc::clone(shared), name.to_owned(), free_port()?);
    prepare(&node)?;
    for _ in 1..PORT_ATTEMPTS {
        match node.launch() {
            Err(ClusterError::Exited { log, .. })
                if log.contains("could not bind") || log.contains("is another postmaster") =>
            {
                node.port = free_port()?;
            }
            Err(other) => return Err(other),
            Ok(()) => return Ok(node),
        }
    }
    node.launch().map(|()| node)
}

fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(ClusterError::io("bind", "127.0.0.1:0"))
}

/// 128 random bits, hexadecimal, so that it needs no quoting in SQL, conninfo strings and URLs.
fn random_password() -> Result<String, ClusterError> {
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(ClusterError::io("read", "/dev/urandom"))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    }))
}

fn append(path: &Path, text: &str) -> Result<(), ClusterError> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(ClusterError::io("write", path))
}

/// Does `work` for each name on a thread of its own; the results in order, or the first error.
fn in_parallel<T: Send>(
    names: &[String],
    work: impl Fn(&str) -> Result<T, ClusterError> + Sync,
) -> Result<Vec<T>, ClusterError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|name| {
                let work = &work;
                scope.spawn(move || work(name))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
