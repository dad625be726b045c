//! Replication connections pass through to the primary.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, Login, eventually, patience};

use crate::support::{DATABASE, Proxy, config, new_cluster, value};

/// A role that may replicate.
const ROLE: &str = "streamer";
const PASSWORD: &str = "stream";

/// A cluster of its own: `wal_level = logical` would weigh on the others.
fn source() -> &'static Cluster {
    static SOURCE: OnceLock<Cluster> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let cluster = new_cluster(1);
        let role = format!("CREATE ROLE {ROLE} LOGIN REPLICATION PASSWORD '{PASSWORD}'");
        cluster.sql("postgres", &role).expect("a role");
        cluster
    })
}

fn proxy() -> Proxy {
    let users = format!("\n[[users]]\nname = \"{ROLE}\"\npassword = \"{PASSWORD}\"\n");
    Proxy::start_ready(&(config(source()) + &users))
}

fn program(name: &str, proxy: &Proxy) -> Command {
    let path = source()
        .binaries()
        .client(name)
        .unwrap_or_else(|| panic!("{name} comes with PostgreSQL"));
    let mut command = Command::new(path);
    command.env("PGPASSWORD", PASSWORD);
    if name != "psql" {
        let port = proxy.addr().rsplit_once(':').map_or("", |(_, port)| port);
        command.args(["--host", "127.0.0.1", "--port", port, "--username", ROLE]);
    }
    command
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn psql(proxy: &Proxy, replication: &str, database: &str, sql: &str) -> String {
    let (host, port) = proxy.addr().split_once(':').expect("host and port");
    let target =
        format!("host={host} port={port} user={ROLE} dbname={database} replication={replication}");
    let output = program("psql", proxy)
        .args(["-X", "-A", "-t", "-c", sql, &target])
        .output()
        .expect("psql runs");
    assert!(output.status.success(), "{sql}: {}", said(&output));
    said(&output).trim().to_owned()
}

fn identity() -> String {
    let sql = "SELECT system_identifier FROM pg_control_system()";
    let identity = source().sql("postgres", sql).expect("an identifier");
    identity.trim().to_owned()
}

#[test]
fn a_logical_and_a_physical_connection_speak_to_the_primary() {
    let proxy = proxy();
    for (mode, database) in [
        ("database", DATABASE),
        ("true", DATABASE),
        ("on", ROLE),
        ("1", "replication"),
    ] {
        let line = psql(&proxy, mode, database, "IDENTIFY_SYSTEM");
        let fields: Vec<&str> = line.split('|').collect();
        assert_eq!(
            fields.first().copied(),
            Some(&*identity()),
            "{mode}: {line}"
        );
        let named = fields.get(3).copied().unwrap_or_default();
        assert_eq!(
            named,
            if mode == "database" { DATABASE } else { "" },
            "{line}"
        );
    }
    // SQL works on a logical one, and says that this is the primary.
    assert_eq!(
        psql(&proxy, "database", DATABASE, "SELECT pg_is_in_recovery()"),
        "f"
    );
    let created = "CREATE_REPLICATION_SLOT passed_through PHYSICAL";
    assert!(psql(&proxy, "true", DATABASE, created).starts_with("passed_through"));
    psql(
        &proxy,
        "true",
        DATABASE,
        "DROP_REPLICATION_SLOT passed_through",
    );
    // `false` is an ordinary session.
    assert_eq!(psql(&proxy, "false", DATABASE, "SELECT 40 + 2"), "42");
}

#[test]
fn a_base_backup_with_its_wal_comes_through() {
    let proxy = proxy();
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("backup");
    let output = program("pg_basebackup", &proxy)
        .args(["--checkpoint", "fast", "--wal-method", "stream", "--pgdata"])
        .arg(&target)
        .output()
        .expect("pg_basebackup runs");
    assert!(output.status.success(), "{}", said(&output));
    assert!(target.join("backup_label").exists());
    // It verifies what it received against the server's checksums.
    let output = program_without_login("pg_verifybackup")
        .arg(&target)
        .output()
        .expect("pg_verifybackup runs");
    assert!(output.status.success(), "{}", said(&output));
}

fn program_without_login(name: &str) -> Command {
    let path = source().binaries().client(name);
    Command::new(path.unwrap_or_else(|| panic!("{name} comes with PostgreSQL")))
}

fn received(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("the folder");
    let written = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1)
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| u64::try_from(written(&entry.path())).unwrap_or(0))
        .sum()
}

#[test]
fn wal_streams_for_as_long_as_it_is_wanted() {
    let proxy = proxy();
    let folder = tempfile::tempdir().expect("a folder");
    let mut receiver = program("pg_receivewal", &proxy)
        .args(["--status-interval", "1", "--no-loop", "--directory"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pg_receivewal runs");
    let streams =
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'";
    let count = |sql: &str| {
        source()
            .sql("postgres", sql)
            .expect("a count")
            .trim()
            .to_owned()
    };
    eventually!(count(streams) == "1");
    let before = received(folder.path());
    let write = "CREATE TABLE streamed AS SELECT repeat('x', 1000) FROM generate_series(1, 2000)";
    source().sql(DATABASE, write).expect("written");
    eventually!(received(folder.path()) > before + 2_000_000);
    // The receiver's answers come through too.
    let flushed = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal' AND write_lsn IS NOT NULL";
    eventually!(count(flushed) == "1");
    // Ordinary sessions are served beside it.
    let login = Login::new(ROLE, DATABASE).password(PASSWORD);
    let mut client = Client::open(proxy.addr(), &login).expect("a login");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    receiver.kill().expect("killed");
    receiver.wait().expect("reaped");
    eventually!(count(streams) == "0");
}

#[test]
fn a_replication_connection_ends_with_the_proxy() {
    let mut proxy = proxy();
    let login = Login::new(ROLE, DATABASE)
        .password(PASSWORD)
        .parameter("replication", "database");
    let mut client = Client::open(proxy.addr(), &login).expect("a login");
    assert!(
        client
            .query("IDENTIFY_SYSTEM")
            .expect("an answer")
            .value()
            .is_some()
    );
    proxy.signal("INT");
    assert!(proxy.wait(patience::PATIENCE).success(), "{}", proxy.log());
    assert!(client.until_closed().is_ok());
}

#[test]
fn replication_needs_no_database_of_its_name() {
    let users = format!("\n[[users]]\nname = \"{ROLE}\"\npassword = \"{PASSWORD}\"\n");
    let text = config(source()).replace("[databases.\"*\"]", "[databases.app]") + &users;
    let proxy = Proxy::start_ready(&text);
    // As pg_basebackup and standbys log in.
    let line = psql(&proxy, "true", "replication", "IDENTIFY_SYSTEM");
    assert!(line.starts_with(&identity()), "{line}");
}
