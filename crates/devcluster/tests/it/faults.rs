//! Each fault once, judged by what a client sees.

use std::time::{Duration, Instant};

use pgweir_devcluster::{Cluster, ClusterError, Relay, StopMode};
use pgweir_testkit::{Client, Login};

const PATIENCE: Duration = Duration::from_secs(20);

fn cluster(replicas: usize) -> Cluster {
    Cluster::builder()
        .replicas(replicas)
        .sql("CREATE TABLE t (a int)")
        .start()
        .unwrap()
}

fn count(cluster: &Cluster, node: usize) -> String {
    cluster
        .node(node)
        .sql("postgres", "SELECT count(*) FROM t")
        .unwrap()
}

#[test]
fn a_stopped_or_killed_server_refuses_and_comes_back_on_its_port() {
    let cluster = cluster(1);
    let replica = cluster.replica(0);
    let port = replica.port();
    for fault in ["fast", "immediate", "kill"] {
        let pid = replica.pid().unwrap();
        match fault {
            "fast" => replica.stop(StopMode::Fast).unwrap(),
            "immediate" => replica.stop(StopMode::Immediate).unwrap(),
            _ => replica.kill().unwrap(),
        }
        assert_eq!(replica.pid(), None);
        assert!(replica.sql("postgres", "SELECT 1").is_err());
        assert!(matches!(
            replica.freeze(),
            Err(ClusterError::NotRunning { .. })
        ));
        cluster.sql("postgres", "INSERT INTO t VALUES (1)").unwrap();
        replica.start().unwrap();
        assert_ne!(replica.pid(), Some(pid));
        assert_eq!(replica.port(), port);
        cluster.wait_streaming(PATIENCE).unwrap();
        cluster.wait_caught_up(PATIENCE).unwrap();
    }
    assert_eq!(count(&cluster, 1), "3");
    cluster.primary().restart(StopMode::Fast).unwrap();
    assert_eq!(count(&cluster, 0), "3");
    cluster.wait_streaming(PATIENCE).unwrap();
}

#[test]
fn a_frozen_server_does_not_answer_until_it_is_thawed() {
    let cluster = cluster(0);
    let primary = cluster.primary();
    primary.freeze().unwrap();
    assert!(
        primary
            .sql_within(Duration::from_millis(200), "postgres", "SELECT 1")
            .is_err()
    );
    primary.thaw().unwrap();
    assert_eq!(primary.sql("postgres", "SELECT 1").unwrap(), "1");
}

#[test]
fn a_cluster_with_a_frozen_server_is_dropped_in_seconds() {
    let cluster = cluster(0);
    cluster.primary().freeze().unwrap();
    let dropped_at = Instant::now();
    drop(cluster);
    assert!(dropped_at.elapsed() < Duration::from_secs(10));
}

#[test]
fn paused_replay_holds_rows_back_until_it_resumes() {
    let cluster = cluster(1);
    cluster.replica(0).pause_replay().unwrap();
    cluster.sql("postgres", "INSERT INTO t VALUES (1)").unwrap();
    let late = cluster
        .wait_caught_up(Duration::from_millis(100))
        .unwrap_err();
    assert!(matches!(late, ClusterError::Deadline { .. }), "{late}");
    assert_eq!(count(&cluster, 1), "0");
    cluster.replica(0).resume_replay().unwrap();
    cluster.wait_caught_up(PATIENCE).unwrap();
    assert_eq!(count(&cluster, 1), "1");
}

#[test]
fn delayed_apply_shows_a_row_no_earlier_than_told() {
    let cluster = cluster(1);
    let delay = Duration::from_millis(400);
    cluster.replica(0).delay_apply(delay).unwrap();
    let written_at = Instant::now();
    cluster.sql("postgres", "INSERT INTO t VALUES (1)").unwrap();
    cluster.wait_caught_up(PATIENCE).unwrap();
    assert!(written_at.elapsed() >= delay);
    assert_eq!(count(&cluster, 1), "1");
    cluster.replica(0).delay_apply(Duration::ZERO).unwrap();
    cluster.sql("postgres", "INSERT INTO t VALUES (2)").unwrap();
    cluster.wait_caught_up(PATIENCE).unwrap();
}

#[test]
fn a_promoted_replica_takes_writes_and_the_old_primary_rejoins_it() {
    let cluster = cluster(1);
    cluster.sql("postgres", "INSERT INTO t VALUES (1)").unwrap();
    cluster.wait_caught_up(PATIENCE).unwrap();
    cluster.primary().kill().unwrap();
    cluster.promote(1).unwrap();
    assert_eq!(cluster.primary().name(), "replica1");
    cluster.sql("postgres", "INSERT INTO t VALUES (2)").unwrap();
    cluster.rejoin(0).unwrap();
    cluster.wait_caught_up(PATIENCE).unwrap();
    assert_eq!(count(&cluster, 0), "2");
    assert_eq!(
        cluster
            .node(0)
            .sql("postgres", "SELECT pg_is_in_recovery()")
            .unwrap(),
        "t"
    );
}

#[test]
fn what_was_acknowledged_synchronously_is_on_the_most_advanced_replica_which_the_other_follows() {
    let cluster = cluster(2);
    cluster.commit_synchronously(PATIENCE).unwrap();
    // What is far behind in replay has it all the same.
    cluster.replica(0).stop(StopMode::Fast).unwrap();
    cluster.replica(1).pause_replay().unwrap();
    cluster.sql("postgres", "INSERT INTO t VALUES (1)").unwrap();
    cluster.primary().kill().unwrap();
    cluster.replica(0).start().unwrap();
    assert_eq!(cluster.most_advanced().unwrap(), 2);
    cluster.promote(2).unwrap();
    cluster.follow(1, PATIENCE).unwrap();
    cluster.sql("postgres", "INSERT INTO t VALUES (2)").unwrap();
    cluster.wait_caught_up(PATIENCE).unwrap();
    assert_eq!(count(&cluster, 1), "2");
    cluster.rejoin(0).unwrap();
    cluster.wait_caught_up(PATIENCE).unwrap();
    assert_eq!(count(&cluster, 0), "2");
}

#[test]
fn a_relay_that_is_cut_closes_and_a_silent_one_holds_back() {
    let cluster = cluster(0);
    let relay = Relay::start(cluster.primary().port()).unwrap();
    let login = Login::new(cluster.superuser(), "postgres").password(cluster.password());
    let address = format!("127.0.0.1:{}", relay.port());
    let open = || Client::open(&address, &login);
    let mut client = open().unwrap();
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    relay.cut();
    assert!(client.until_closed().is_ok());
    assert!(open().is_err());
    relay.heal();
    let mut client = open().unwrap().patience(Duration::from_millis(200));
    relay.silence();
    assert!(client.query("INSERT INTO t VALUES (1)").is_err());
    assert_eq!(count(&cluster, 0), "0");
    relay.heal();
    let mut client = client.patience(PATIENCE);
    client.until_ready().unwrap();
    assert_eq!(count(&cluster, 0), "1");
}

fn value(client: &mut Client, sql: &str) -> String {
    client.query(sql).unwrap().value().unwrap_or_default()
}
