//! What the integration tests share: a cluster for the whole test binary, and a proxy process for each test.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use pgweir_devcluster::Cluster;
use pgweir_testkit::{
    Answer, Client, Login, Message, append_bound, append_parse, eventually, patience,
};
use pgweir_wire::{backend::field, frontend};

/// The role that owns [`DATABASE`]: no superuser, as an application should be.
pub(crate) const USER: &str = "app";
pub(crate) const PASSWORD: &str = "secret";
pub(crate) const DATABASE: &str = "app";

/// Who may change things on the console, and who may only look; no role of the servers.
pub(crate) const ADMIN: &str = "boss";
pub(crate) const VIEWER: &str = "viewer";
/// The console's database.
pub(crate) const CONSOLE: &str = "pgweir";

/// Returns the cluster that all tests of this binary share: a primary and two replicas. A test that injects faults or
/// counts transactions starts its own with [`new_cluster`].
pub(crate) fn cluster() -> &'static Cluster {
    // Never dropped: the cluster's watchdog removes it when this process ends.
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| new_cluster(2))
}

/// Starts a cluster with [`USER`] and [`DATABASE`].
pub(crate) fn new_cluster(replicas: usize) -> Cluster {
    Cluster::builder()
        .replicas(replicas)
        .role(USER, PASSWORD)
        .database(DATABASE)
        .sql(format!("ALTER DATABASE {DATABASE} OWNER TO {USER}"))
        .start()
        .expect("a cluster starts; if PostgreSQL is missing, install it (Debian: apt-get install postgresql)")
}

/// Returns what [`USER`] logs in with.
pub(crate) fn login() -> Login {
    Login::new(USER, DATABASE).password(PASSWORD)
}

/// Opens a session on the primary itself.
pub(crate) fn direct(cluster: &Cluster) -> Client {
    let primary = cluster.primary();
    let address = format!("{}:{}", primary.host(), primary.port());
    Client::open(&address, &login()).expect("a login")
}

/// Runs a statement that must not fail.
#[track_caller]
pub(crate) fn ok(client: &mut Client, sql: &str) -> Answer {
    let answer = client.query(sql).expect(sql);
    assert_eq!(answer.error(), None, "{sql}");
    answer
}

/// Returns the first value of a statement that must not fail.
#[track_caller]
pub(crate) fn value(client: &mut Client, sql: &str) -> String {
    ok(client, sql).value().unwrap_or_default()
}

/// Returns where the session's last statement ran, and why.
#[track_caller]
pub(crate) fn last_route(client: &mut Client) -> String {
    value(client, "SHOW pgweir.last_route")
}

/// Prepares a statement on the protocol's level.
pub(crate) fn prepare(client: &mut Client, name: &str, sql: &str) {
    let mut out = Vec::new();
    append_parse(&mut out, name, sql);
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.error(), None, "{sql}");
}

/// Runs a statement that was prepared so.
pub(crate) fn run_named(client: &mut Client, name: &str) -> Answer {
    let mut out = Vec::new();
    append_bound(&mut out, name, &[]);
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    client.until_ready().expect("an answer")
}

/// Returns the names of all messages with what tells them apart.
pub(crate) fn messages(answer: &Answer) -> Vec<String> {
    (answer.0.iter())
        .map(|message| message.comparable())
        .collect()
}

/// Waits until the proxy may use every replica: until then, reads go to the primary.
pub(crate) fn wait_for_replicas(client: &mut Client) {
    eventually!({
        let rows = ok(client, "EXPLAIN ROUTE SELECT 1").rows();
        let step =
            |row: &[Option<String>]| row.iter().take(2).flatten().cloned().collect::<Vec<_>>();
        let mut replicas = rows
            .iter()
            .map(|row| step(row))
            .filter(|step| step.first().is_some_and(|step| step == "replica"))
            .peekable();
        replicas.peek().is_some() && replicas.all(|step| step == ["replica", "eligible"])
    });
}

/// Returns a configuration that serves this cluster: its own control-plane user, all databases, and [`USER`]. Tests append to
/// it, or replace lines of it; the listen address comes from the command line. A read waits long for a replica that is close, so
/// that where it runs does not depend on how busy the machine is.
pub(crate) fn config(cluster: &Cluster) -> String {
    let backends: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| {
            let (name, host, port) = (node.name(), node.host(), node.port());
            format!("  {{ name = \"{name}\", host = \"{host}\", port = {port} }},\n")
        })
        .collect();
    format!(
        "[http]\nlisten = \"off\"\n\n[admin]\nusers = [\"{ADMIN}\"]\nviewers = [\"{VIEWER}\"]\n\n\
         [clusters.main]\nbackends = [\n{backends}]\nuser = \"{superuser}\"\npassword = \"{password}\"\n\n\
         [databases.\"*\"]\ncluster = \"main\"\ncausal_wait = \"5s\"\n\n\
         [[users]]\nname = \"{USER}\"\npassword = \"{PASSWORD}\"\n\
         [[users]]\nname = \"{ADMIN}\"\npassword = \"{PASSWORD}\"\n\
         [[users]]\nname = \"{VIEWER}\"\npassword = \"{PASSWORD}\"\n",
        backends = backends.concat(),
        superuser = cluster.superuser(),
        password = cluster.password(),
    )
}

/// Returns a configuration with the usual wait for replicas, for tests of what happens when they are late.
pub(crate) fn with_usual_wait(config: &str) -> String {
    config.replace("causal_wait = \"5s\"\n", "")
}

/// Checks that an ErrorResponse is one of the proxy's own, with this SQLSTATE and severity.
#[track_caller]
pub(crate) fn assert_ours(error: &Message, sqlstate: &str, severity: &str) {
    let of = |code| error.error_field(code).unwrap_or_default();
    assert_eq!(of(field::CODE), sqlstate, "{}", error.comparable());
    assert_eq!(of(field::SEVERITY), severity, "{}", error.comparable());
    let text = of(field::MESSAGE);
    assert!(text.starts_with("pgweir: "), "not marked as ours: {text}");
}

/// A running `pgweir`, killed when dropped. When a test panics, the end of its log is printed.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    /// Kills the proxy when this process dies without dropping it.
    watchdog: Child,
    addr: String,
    folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts `pgweir run` with this configuration on a free port, and waits until it accepts connections.
    pub(crate) fn start(config: &str) -> Self {
        let mut proxy = Self::launch(config);
        eventually!(
            patience::PATIENCE,
            proxy.accepts_or_ended(),
            "pgweir does not accept connections:\n{}",
            proxy.log()
        );
        assert!(
            proxy.ended().is_none(),
            "pgweir ended at once:\n{}",
            proxy.log()
        );
        proxy
    }

    /// As [`Self::start`], and waits until it answers a query of [`USER`], which needs it to have found the primary.
    pub(crate) fn start_ready(config: &str) -> Self {
        let proxy = Self::start(config);
        eventually!(
            patience::PATIENCE,
            Client::open(proxy.addr(), &login())
                .and_then(|mut client| client.query("BEGIN; SELECT 1; COMMIT"))
                .is_ok_and(|answer| answer.value().as_deref() == Some("1")),
            "pgweir answers no query:\n{}",
            proxy.log()
        );
        proxy
    }

    fn launch(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config_path = folder.path().join("pgweir.toml");
        fs::write(&config_path, config).expect("the configuration is written");
        let addr = format!("127.0.0.1:{}", free_port());
        let log = File::create(folder.path().join("log")).expect("a log file");
        let child = Command::new(binary())
            .arg("run")
            .arg("--config")
            .arg(&config_path)
            .args(["--listen", &addr])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("pgweir starts");
        let watchdog = Command::new("sh")
            .args([
                "-c",
                "trap '' INT TERM HUP; read line; kill -KILL $0",
                &child.id().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        Self {
            child,
            watchdog,
            addr,
            folder,
        }
    }

    /// Returns the address that clients connect to, `127.0.0.1:port`.
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Returns a connection URL for [`USER`] and [`DATABASE`].
    pub(crate) fn url(&self) -> String {
        format!("postgresql://{USER}:{PASSWORD}@{}/{DATABASE}", self.addr)
    }

    /// Opens a session of [`USER`].
    pub(crate) fn client(&self) -> Client {
        Client::open(&self.addr, &login()).expect("the proxy takes the login")
    }

    /// Opens a session on the console, as somebody who may change things.
    pub(crate) fn console(&self) -> Client {
        let login = Login::new(ADMIN, CONSOLE).password(PASSWORD);
        Client::open(&self.addr, &login).expect("the console takes the login")
    }

    /// Returns the URL of the console, for [`ADMIN`].
    pub(crate) fn console_url(&self) -> String {
        format!("postgresql://{ADMIN}:{PASSWORD}@{}/{CONSOLE}", self.addr)
    }

    /// Returns the process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns all that the proxy printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Returns the path of the configuration file, for reloads.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("pgweir.toml")
    }

    /// Sends a signal by its name, e.g. `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Returns how the process ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits until the process ends.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        eventually!(
            within,
            self.ended().is_some(),
            "pgweir still runs:\n{}",
            self.log()
        );
        self.ended().expect("it has ended")
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = self.proc_file("status");
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .expect("VmRSS is in /proc/PID/status");
        kib * 1024
    }

    /// Returns the CPU time used so far, in user and kernel mode.
    pub(crate) fn cpu_time(&self) -> Duration {
        /// Clock ticks per second in /proc: USER_HZ, 100 on all of Linux's usual architectures.
        const TICKS: u64 = 100;
        let stat = self.proc_file("stat");
        // The second field, the program's name in parentheses, may hold blanks.
        let after = stat.rsplit_once(')').expect("a name in parentheses").1;
        let ticks: u64 = after
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("utime and stime are numbers"))
            .sum();
        Duration::from_millis(ticks * 1000 / TICKS)
    }

    fn proc_file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn accepts_or_ended(&mut self) -> bool {
        TcpStream::connect(&self.addr).is_ok() || self.ended().is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The watchdog first: later the proxy's process ID may belong to another process.
        for child in [&mut self.watchdog, &mut self.child] {
            let _already_gone = child.kill();
            let _reaped = child.wait();
        }
        if std::thread::panicking() {
            print_end(&self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows its output")]
fn print_end(log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let skipped = lines.len().saturating_sub(50);
    eprintln!("--- end of pgweir's log ---");
    lines
        .iter()
        .skip(skipped)
        .for_each(|line| eprintln!("{line}"));
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// Returns the root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in a folder of the workspace")
        .to_path_buf()
}

/// Returns the built `pgweir`, of the profile and target folder that this test binary was built in.
///
/// `PGWEIR_BIN` names another one. Otherwise cargo builds it once per test binary, which takes a moment when it is up to
/// date already. nextest runs each test in a process of its own, so there whatever runs nextest builds it beforehand.
pub(crate) fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(find_binary).clone()
}

fn find_binary() -> PathBuf {
    if let Some(named) = std::env::var_os("PGWEIR_BIN") {
        return named.into();
    }
    let test_binary = std::env::current_exe().expect("this program's path");
    let profile_folder = test_binary
        .ancestors()
        .nth(2)
        .expect("test binaries are in <target>/<profile>/deps");
    let binary = profile_folder.join("pgweir");
    if std::env::var_os("NEXTEST").is_some() && binary.exists() {
        return binary;
    }
    let target_folder = profile_folder.parent().expect("<target>");
    let profile = match profile_folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let built = Command::new(env!("CARGO"))
        .current_dir(root())
        .args([
            "build",
            "--quiet",
            "--package",
            "pgweir",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target_folder)
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "cargo build --package pgweir"
    );
    binary
}

#[test]
fn a_proxy_starts_serves_and_goes_away() {
    let mut proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    let answer = client.query("SELECT 40 + 2").expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("42"));
    assert!((1 << 20..1 << 30).contains(&proxy.resident_bytes()));
    assert!(proxy.cpu_time() < Duration::from_secs(60));
    assert!(proxy.config_path().exists());
    client.terminate().expect("a goodbye");
    proxy.signal("TERM");
    assert!(proxy.wait(patience::PATIENCE).success(), "{}", proxy.log());
}
