//! The scripts of `deploy/`, which docker-compose.yml mounts into containers, run against a local cluster.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pgweir_devcluster::Cluster;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

/// A server that a script started; it is nobody's child but this test's.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        // A server was seen to miss the first of these, and a test must not wait for ever.
        let mut has_ended = || {
            let _ended = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
            self.0.try_wait().unwrap().is_some()
        };
        if !pgweir_testkit::patience::wait_until(Duration::from_secs(10), &mut has_ended) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

#[test]
fn the_compose_scripts_make_a_streaming_replica_and_a_monitor_role() {
    let cluster = Cluster::builder().start().unwrap();
    let primary = cluster.primary();
    let bin = cluster.binaries().dir();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let prepared = Command::new("/bin/sh")
        .arg(script("primary.sh"))
        .env("PATH", &path)
        .env("PGDATA", primary.data_dir())
        .env("REPLICATION_PASSWORD", "it's secret")
        .env("MONITOR_PASSWORD", "m")
        .envs(primary.psql_env("postgres"))
        .status()
        .unwrap();
    assert!(prepared.success());
    primary.sql("postgres", "SELECT pg_reload_conf()").unwrap();

    // Inside the cluster's folder, so that its watchdog takes this server too.
    let home = cluster.folder().join("scripted");
    fs::create_dir(&home).unwrap();
    let (data, copy) = (home.join("data"), home.join("replica.sh"));
    // The checkout may lie where the server's user cannot look.
    fs::copy(script("replica.sh"), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = Command::new("/bin/sh");
    command
        .arg(&copy)
        .args(["-c", &format!("port={port}"), "-k"])
        .arg(&home)
        .env("PATH", &path)
        .env("PGDATA", &data)
        .env("PRIMARY_HOST", primary.host())
        .env("PRIMARY_PORT", primary.port().to_string())
        .env("REPLICATION_PASSWORD", "it's secret")
        .env("REPLICA_NAME", "scripted")
        .current_dir(&home)
        .stderr(fs::File::create(cluster.folder().join("scripted.log")).unwrap());
    if nix::unistd::geteuid().is_root() {
        use std::os::unix::fs::MetadataExt as _;
        let server = fs::metadata(primary.data_dir()).unwrap();
        chown(&home, Some(server.uid()), Some(server.gid())).unwrap();
        command.uid(server.uid()).gid(server.gid());
    }
    let _server = Server(command.spawn().unwrap());

    let streaming = "SELECT application_name, usename, state FROM pg_stat_replication WHERE state = 'streaming'";
    let patience = Instant::now() + Duration::from_secs(30);
    while cluster.sql("postgres", streaming).unwrap() != "scripted|replicator|streaming" {
        let log = fs::read_to_string(cluster.folder().join("scripted.log")).unwrap();
        assert!(Instant::now() < patience, "no scripted replica: {log}");
    }
    let monitor = "SELECT pg_has_role('pgweir_monitor', 'pg_monitor', 'member')";
    assert_eq!(cluster.sql("postgres", monitor).unwrap(), "t");
}
