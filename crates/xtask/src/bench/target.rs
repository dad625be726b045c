//! What is compared: the cluster beneath, and the proxies before it, each a process of its own.
//!
//! All get the same load from the same role, which logs in by SCRAM everywhere. `PgBouncer` and
//! pgweir hold the same verifier and the same pool of 20 server connections per server.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{User, geteuid};
use pgweir_devcluster::{Cluster, Node};

use super::process::{Process, output_within, until};
use super::scenario::{Protocol, Scenario, Workload};

/// The role, its password and the database of the load.
const ROLE: &str = "bench";

/// Server connections per pool: `PgBouncer`'s default and ours.
const POOL_SIZE: u32 = 20;

/// Rows of `pgbench_accounts` in 100,000. Chosen: 150 MB, which the servers keep in memory, so that their cost is steady.
const SCALE: &str = "10";

/// For a proxy to answer its first query, and for what is short.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// For filling the tables.
const FILL_DEADLINE: Duration = Duration::from_secs(300);

/// The first `PgBouncer` that keeps prepared statements in transaction pooling.
const PGBOUNCER_PREPARES: (u32, u32) = (1, 21);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    Direct,
    /// The bench's own TCP relay.
    Relay,
    /// `PgBouncer` before the primary, transaction pooling.
    PgBouncer,
    /// pgweir with one worker before the primary alone: what `PgBouncer` is given.
    Pgweir1,
    /// pgweir with one worker before the primary and its replicas.
    Pgweir3,
    /// The same with as many workers as it takes by default.
    Pgweir3Cores,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Direct,
        Self::Relay,
        Self::PgBouncer,
        Self::Pgweir1,
        Self::Pgweir3,
        Self::Pgweir3Cores,
    ];

    /// The name in tables and for `--targets`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::PgBouncer => "pgbouncer",
            Self::Pgweir1 => "pgweir/1",
            Self::Pgweir3 => "pgweir/3",
            Self::Pgweir3Cores => "pgweir/3 cores",
        }
    }

    /// What stands behind the name.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Direct => "PostgreSQL itself, one connection per client",
            Self::Relay => {
                "a TCP relay that parses nothing, one thread, one server connection per client"
            }
            Self::PgBouncer => "PgBouncer, one thread, transaction pooling, no routing",
            Self::Pgweir1 => "pgweir, one worker thread, the primary alone, routing on",
            Self::Pgweir3 => "pgweir, one worker thread, primary and two replicas, splitting on",
            Self::Pgweir3Cores => "the same with its default number of workers, one per core",
        }
    }

    /// Whether its binary has to be built.
    pub(super) fn is_pgweir(self) -> bool {
        matches!(self, Self::Pgweir1 | Self::Pgweir3 | Self::Pgweir3Cores)
    }

    /// Whether its reads may leave the primary.
    pub(super) fn splits(self) -> bool {
        matches!(self, Self::Pgweir3 | Self::Pgweir3Cores)
    }
}

/// The programs that a bench calls besides the cluster's own.
#[derive(Debug)]
pub(super) struct Programs {
    /// The pgweir under test.
    pub(super) pgweir: PathBuf,
    /// An xtask, optimised, for its relay.
    pub(super) relay: PathBuf,
    /// `PgBouncer` and its version, if there is one.
    pub(super) pgbouncer: Option<(PathBuf, (u32, u32))>,
}

/// The cluster with its load's tables.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) cluster: Cluster,
    pub(super) folder: PathBuf,
    programs: Programs,
    verifier: String,
}

impl Bed {
    /// Starts a primary with two replicas and fills the tables of `pgbench`.
    pub(super) fn start(programs: Programs) -> Result<Self, String> {
        let cluster = Cluster::builder()
            .replicas(2)
            // The proxies of a run and the monitors of all of them share the servers.
            .setting("max_connections", "400")
            .setting("shared_buffers", "256MB")
            // What the server does on its own account would hit some runs and not others.
            .setting("autovacuum", "off")
            .setting("checkpoint_timeout", "1h")
            .setting("max_wal_size", "8GB")
            .role(ROLE, ROLE)
            .database(ROLE)
            .start()
            .map_err(|error| error.to_string())?;
        let folder = cluster.folder().join("bench");
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let sql = |database: &str, sql: &str| {
            let answer = cluster.sql(database, sql);
            answer.map_err(|error| error.to_string())
        };
        let verifier = sql(
            "postgres",
            &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'"),
        )?;
        sql(ROLE, &format!("GRANT ALL ON SCHEMA public TO {ROLE}"))?;
        let bed = Self {
            cluster,
            folder,
            programs,
            verifier,
        };
        let port = bed.cluster.primary().port();
        let mut fill = bed.client("pgbench", port, ROLE)?;
        output_within(fill.args(["-i", "-q", "-s", SCALE]), FILL_DEADLINE)?;
        bed.cluster
            .wait_caught_up(FILL_DEADLINE)
            .map_err(|error| error.to_string())?;
        Ok(bed)
    }

    /// Takes away what earlier runs left: the dead rows of the small tables, which slow each update of them down, and replay
    /// that is still to do.
    pub(super) fn settle(&self, scenario: Scenario) -> Result<(), String> {
        if scenario.workload == Workload::TpcB {
            for table in ["pgbench_branches", "pgbench_tellers"] {
                self.sql(&format!("VACUUM {table}"))?;
            }
            self.sql("TRUNCATE pgbench_history")?;
        }
        self.cluster
            .wait_caught_up(START_DEADLINE)
            .map_err(|error| error.to_string())
    }

    /// A libpq program that connects to a port as the load's role.
    pub(super) fn client(
        &self,
        program: &str,
        port: u16,
        database: &str,
    ) -> Result<Command, String> {
        let path = self.cluster.binaries().client(program);
        let path = path.ok_or_else(|| format!("{program} is missing"))?;
        let mut command = Command::new(path);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("PGHOST", self.cluster.primary().host())
            .env("PGPORT", port.to_string())
            .env("PGUSER", ROLE)
            .env("PGPASSWORD", ROLE)
            .env("PGDATABASE", database)
            .env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", "disable")
            .current_dir(&self.folder);
        Ok(command)
    }

    /// Runs SQL on the primary, in the load's database.
    pub(super) fn sql(&self, sql: &str) -> Result<String, String> {
        let answer = self.cluster.sql(ROLE, sql);
        answer.map_err(|error| error.to_string())
    }

    /// Transactions that each server has committed in the load's database, the primary first.
    ///
    /// A session reports its last second late, so the numbers are good for shares only.
    pub(super) fn commits(&self) -> Result<Vec<f64>, String> {
        let sql =
            format!("SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = '{ROLE}'");
        let of = |node: &Node| {
            let answer = node.sql("postgres", &sql);
            let answer = answer.map_err(|error| error.to_string())?;
            answer.parse().map_err(|_| format!("{sql}: {answer}"))
        };
        self.cluster.nodes().iter().map(of).collect()
    }
}

/// A place to send the load to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) port: u16,
    pub(super) process: Option<Process>,
    /// Whether prepared statements go to the pool in session mode, since transaction mode has none.
    prepares_by_session: bool,
}

impl Target {
    /// Starts the proxy of a kind and waits until a query passes through it.
    pub(super) fn start(kind: Kind, bed: &Bed) -> Result<Self, String> {
        if kind == Kind::Direct {
            return Ok(Self {
                kind,
                port: bed.cluster.primary().port(),
                process: None,
                prepares_by_session: false,
            });
        }
        let port = free_port()?;
        let folder = bed.folder.join(format!("proxy-{port}"));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut prepares_by_session = false;
        let mut command = match kind {
            Kind::Direct | Kind::Relay => relay(bed, port),
            Kind::PgBouncer => {
                let (program, version) = bed
                    .programs
                    .pgbouncer
                    .as_ref()
                    .ok_or("PgBouncer is not installed")?;
                prepares_by_session = *version < PGBOUNCER_PREPARES;
                pgbouncer(bed, program, *version, port, &folder)?
            }
            Kind::Pgweir1 | Kind::Pgweir3 | Kind::Pgweir3Cores => pgweir(bed, kind, port, &folder)?,
        };
        // In the cluster's folder, so that its watchdog ends the proxy too if we cannot.
        command.current_dir(&folder);
        let process = Process::start(&mut command, &folder.join("log"))?;
        let mut target = Self {
            kind,
            port,
            process: Some(process),
            prepares_by_session,
        };
        target.wait_until_ready(bed)?;
        Ok(target)
    }

    /// `pgbench`, set to connect here for a scenario.
    pub(super) fn pgbench(&self, bed: &Bed, scenario: Scenario) -> Result<Command, String> {
        bed.client("pgbench", self.port, self.database(scenario))
    }

    /// Says what is different about a scenario here.
    pub(super) fn remark(&self, scenario: Scenario) -> Option<&'static str> {
        (self.database(scenario) != ROLE).then_some(
            "in session pooling: this PgBouncer has no prepared statements in transaction pooling",
        )
    }

    fn database(&self, scenario: Scenario) -> &'static str {
        match self.prepares_by_session && scenario.protocol == Protocol::Prepared {
            true => "bench_session",
            false => ROLE,
        }
    }

    fn wait_until_ready(&mut self, bed: &Bed) -> Result<(), String> {
        let mut why = String::new();
        let ready = until(START_DEADLINE, || {
            if !self.process.as_mut().is_none_or(Process::is_running) {
                return true;
            }
            let answer = bed.client("psql", self.port, ROLE).and_then(|mut psql| {
                output_within(psql.args(["-X", "-c", "SELECT 1"]), START_DEADLINE)
            });
            answer.map_err(|error| why = error).is_ok()
        });
        let Some(process) = self.process.as_mut() else {
            return Ok(());
        };
        match ready && process.is_running() {
            true => Ok(()),
            false => Err(format!("{why}\n{}", process.log_tail())),
        }
    }
}

fn relay(bed: &Bed, port: u16) -> Command {
    let mut command = Command::new(&bed.programs.relay);
    command
        .args(["bench", "relay"])
        .arg(format!("127.0.0.1:{port}"))
        .arg(format!("127.0.0.1:{}", bed.cluster.primary().port()));
    command
}

fn pgbouncer(
    bed: &Bed,
    program: &Path,
    version: (u32, u32),
    port: u16,
    folder: &Path,
) -> Result<Command, String> {
    let users = folder.join("users.txt");
    write(&users, &format!("\"{ROLE}\" \"{}\"\n", bed.verifier))?;
    let server = bed.cluster.primary().port();
    let mut text = format!(
        "[databases]\n\
         {ROLE} = host=127.0.0.1 port={server} dbname={ROLE}\n\
         bench_session = host=127.0.0.1 port={server} dbname={ROLE} pool_mode=session pool_size=100\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {}\n\
         pool_mode = transaction\n\
         default_pool_size = {POOL_SIZE}\n\
         max_client_conn = 10000\n\
         log_connections = 0\n\
         log_disconnections = 0\n",
        users.display()
    );
    if version >= PGBOUNCER_PREPARES {
        text.push_str("max_prepared_statements = 200\n");
    }
    let config = folder.join("pgbouncer.ini");
    write(&config, &text)?;
    let mut command = Command::new(program);
    command.arg(config);
    // It refuses to be root.
    if geteuid().is_root() {
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .ok_or("there is no user postgres or nobody to run PgBouncer as")?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Ok(command)
}

fn pgweir(bed: &Bed, kind: Kind, port: u16, folder: &Path) -> Result<Command, String> {
    let count = if kind.splits() { usize::MAX } else { 1 };
    let backends: Vec<String> = bed
        .cluster
        .nodes()
        .iter()
        .take(count)
        .map(|node| {
            let (name, host, port) = (node.name(), node.host(), node.port());
            format!("{{ name = \"{name}\", host = \"{host}\", port = {port} }}")
        })
        .collect();
    let workers = i32::from(kind != Kind::Pgweir3Cores);
    let text = format!(
        "[server]\n\
         listen = [\"127.0.0.1:{port}\"]\n\
         workers = {workers}\n\
         [clusters.main]\n\
         backends = [{}]\n\
         user = \"{}\"\n\
         password = \"{}\"\n\
         [databases.{ROLE}]\n\
         cluster = \"main\"\n\
         pool_size = {POOL_SIZE}\n\
         splitting = \"on\"\n\
         [[users]]\n\
         name = \"{ROLE}\"\n\
         password = \"{}\"\n\
         server_password = \"{ROLE}\"\n",
        backends.join(", "),
        bed.cluster.superuser(),
        bed.cluster.password(),
        bed.verifier,
    );
    let config = folder.join("pgweir.toml");
    write(&config, &text)?;
    let mut command = Command::new(&bed.programs.pgweir);
    command.args(["run", "--config"]).arg(config);
    Ok(command)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A port that nobody listens on at this moment.
fn free_port() -> Result<u16, String> {
    let address =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    address
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}
