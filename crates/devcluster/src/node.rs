//! One server: its data folder, its process, and SQL on it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::error::ClusterError;
use crate::folder::release_shared_memory;
use crate::locate::Binaries;
use crate::process::{self, ServerUser};
use crate::wait;

/// The superuser of each cluster.
pub(crate) const SUPERUSER: &str = "postgres";
/// For a server to answer after its start. Generous: a loaded machine is slow, and a wait that succeeds costs nothing.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);
/// For one [`Node::sql`].
const SQL_DEADLINE: Duration = Duration::from_secs(60);

/// What the nodes of a cluster have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) binaries: Binaries,
    pub(crate) user: ServerUser,
    pub(crate) folder: PathBuf,
    pub(crate) sockets: PathBuf,
    pub(crate) password: String,
}

/// A PostgreSQL server of a cluster. All methods take `&self`: a cluster can be shared by tests.
#[derive(Debug)]
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: Mutex<Option<Child>>,
    name: String,
    pub(crate) port: u16,
    data: PathBuf,
    log: PathBuf,
}

impl Node {
    pub(crate) fn new(shared: Arc<Shared>, name: String, port: u16) -> Self {
        let data = shared.folder.join(&name);
        let log = shared.folder.join(format!("{name}.log"));
        Self {
            shared,
            process: Mutex::new(None),
            name,
            port,
            data,
            log,
        }
    }

    /// The name: `primary`, `replica1`, `replica2`…; also the `application_name` of a replica's WAL receiver.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address to connect to: always the IPv4 loopback.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The TCP port; it stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix-domain socket (`.s.PGSQL.<port>`), where connections need no
    /// password. Only the server's user and root can reach it.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.shared.sockets
    }

    /// The data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The server's log file.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The process ID of the postmaster, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let mut process = self.lock();
        let child = process.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// A connection URL for the superuser, password included.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, &self.shared.password, database)
    }

    /// A connection URL for another role. Neither part may hold characters that a URL escapes.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!(
            "postgresql://{user}:{password}@{}:{}/{database}",
            self.host(),
            self.port
        )
    }

    /// The environment variables that let libpq programs connect as the superuser.
    #[must_use]
    pub fn psql_env(&self, database: &str) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", self.host().to_owned()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", SUPERUSER.to_owned()),
            ("PGPASSWORD", self.shared.password.clone()),
            ("PGDATABASE", database.to_owned()),
        ]
    }

    /// Runs SQL (one or more statements) as the superuser and returns the rows as `psql -At`
    /// prints them: columns joined by `|`, rows by newlines, NULL empty. It uses the socket, so it works whatever
    /// `pg_hba.conf` says about TCP.
    ///
    /// # Errors
    /// [`ClusterError::Sql`] if the server refuses or fails, or does not answer within a minute.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        self.sql_within(SQL_DEADLINE, database, sql)
    }

    /// Like [`Node::sql`], with a deadline of its own for connecting and answering.
    ///
    /// # Errors
    /// [`ClusterError::Sql`], as for [`Node::sql`].
    pub fn sql_within(
        &self,
        within: Duration,
        database: &str,
        sql: &str,
    ) -> Result<String, ClusterError> {
        let failed = |message: String| ClusterError::Sql {
            node: self.name.clone(),
            sqlstate: None,
            message,
        };
        let mut config = Config::new();
        config
            .host_path(&self.shared.sockets)
            .port(self.port)
            .user(SUPERUSER)
            .dbname(database)
            .application_name("devcluster");
        // A thread of its own, since the caller may be inside a runtime, where another cannot block.
        let outcome =
            std::thread::scope(|scope| scope.spawn(|| block_on_query(&config, sql, within)).join());
        match outcome {
            Ok(Ok(Some(Ok(rows)))) => Ok(rows),
            Ok(Ok(Some(Err(error)))) => Err(ClusterError::Sql {
                node: self.name.clone(),
                sqlstate: error.code().map(|code| code.code().to_owned()),
                message: describe(&error),
            }),
            Ok(Ok(None)) => Err(failed(format!("no answer within {within:?}: {sql}"))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_panic) => Err(failed("the SQL thread panicked".to_owned())),
        }
    }

    /// Starts the server process and waits until it accepts connections.
    pub(crate) fn launch(&self) -> Result<(), ClusterError> {
        let mut process = self.lock();
        if let Some(child) = process.as_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        // A killed server's file would say "ready" of a process that is gone.
        let _absent = fs::remove_file(self.data.join("postmaster.pid"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(ClusterError::io("open", &self.log))?;
        let errors = File::try_clone(&log).map_err(ClusterError::io("open", &self.log))?;
        let postgres = self.shared.binaries.server("postgres");
        let child = self
            .shared
            .user
            .command(&postgres, &self.shared.folder)
            .arg("-D")
            .arg(&self.data)
            .arg("-k")
            .arg(&self.shared.sockets)
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(ClusterError::io("run", &postgres))?;
        let child = process.insert(child);
        let ready = wait::until(START_DEADLINE, || match child.try_wait() {
            Ok(None) => Ok(accepts_connections(&self.data).then_some(())),
            _ => Err(ClusterError::Exited {
                node: self.name.clone(),
                log: self.log_tail(),
            }),
        })?;
        ready.ok_or_else(|| ClusterError::Deadline {
            what: format!("the start of {}", self.name),
            waited: START_DEADLINE,
            detail: self.log_tail(),
        })
    }

    /// Ends the server at once if it runs: immediate shutdown, and SIGKILL to all of it if that is not heard.
    pub(crate) fn end(&self) {
        let mut process = self.lock();
        let Some(mut child) = process.take() else {
            return;
        };
        let pid = i32::try_from(child.id()).unwrap_or(0);
        process::send(pid, Signal::SIGQUIT);
        let ended = wait::until::<_, std::io::Error>(Duration::from_secs(2), || child.try_wait());
        if !matches!(ended, Ok(Some(_))) {
            for pid in process::of_server(Some(pid), &self.data) {
                process::send(pid, Signal::SIGKILL);
            }
            let _reaped = child.wait();
            release_shared_memory(&self.data);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic while it was held leaves a child that is still ours to end.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// Says whether the postmaster of `data` accepts connections: line 8 of its PID file is `ready`, or `standby`
/// on a hot standby (`src/include/utils/pidfile.h`).
fn accepts_connections(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| {
        text.lines()
            .nth(7)
            .is_some_and(|status| matches!(status.trim(), "ready" | "standby"))
    })
}

/// Runs the query on a runtime of this thread; `None` if the time is over.
fn block_on_query(
    config: &Config,
    sql: &str,
    within: Duration,
) -> std::io::Result<Option<Result<String, tokio_postgres::Error>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = async { tokio::time::timeout(within, simple_query(config, sql)).await };
    Ok(runtime.block_on(answer).ok())
}

async fn simple_query(config: &Config, sql: &str) -> Result<String, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let query = client.simple_query(sql);
    tokio::pin!(connection, query);
    // The connection carries the query; it ends by itself only when it fails.
    let messages = tokio::select! {
        messages = &mut query => messages?,
        ended = &mut connection => {
            ended?;
            query.await?
        }
    };
    let rows: Vec<String> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let columns: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("")).collect();
                Some(columns.join("|"))
            }
            _ => None,
        })
        .collect();
    Ok(rows.join("\n"))
}

/// The server's message if there is one: the library's own text for it is only `db error`.
fn describe(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |server| server.to_string())
}
