//! `pin_reads = "replica"`: a session that something keeps on its server connection reads on replicas all the same, where that
//! cannot matter.

use std::sync::OnceLock;

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, eventually, patience};
use pgweir_wire::backend::tag;

use crate::support::{
    Proxy, USER, config, direct, last_route, login, new_cluster, ok, value, wait_for_replicas,
};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = new_cluster(1);
        ok(
            &mut direct(&cluster),
            "CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
        );
        cluster
            .wait_caught_up(patience::PATIENCE)
            .expect("caught up");
        cluster
    })
}

fn proxy(pin_reads: &str) -> Proxy {
    // One connection to each server: nothing may wait for a second one.
    let lines = format!(
        "[databases.\"*\"]\npin_reads = \"{pin_reads}\"\npool_size = 1\nconsistency = \"eventual\""
    );
    let proxy = Proxy::start_ready(&config(cluster()).replace("[databases.\"*\"]", &lines));
    wait_for_replicas(&mut proxy.client());
    proxy
}

const READ: &str = "SELECT a FROM t WHERE a = 1";

#[track_caller]
fn reads_on(client: &mut Client, sql: &str, route: &str) {
    ok(client, sql);
    assert_eq!(last_route(client), route, "{sql}");
}

#[test]
fn a_listening_session_reads_on_replicas_and_hears_what_it_listens_to() {
    let proxy = proxy("replica");
    let mut client = proxy.client();
    ok(&mut client, "LISTEN news");
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    for round in 0..3 {
        reads_on(&mut client, READ, "replica (read)");
        assert_eq!(value(&mut client, "SHOW pgweir.pinned"), "listen");
        ok(&mut client, "INSERT INTO t VALUES (2)");
        assert_eq!(last_route(&mut client), "primary (pinned)");
        assert_eq!(value(&mut client, "SELECT pg_backend_pid()"), pid);
        reads_on(&mut client, READ, "replica (read)");
        ok(&mut direct(cluster()), &format!("NOTIFY news, '{round}'"));
        let heard = client.until(tag::NOTIFICATION_RESPONSE);
        assert!(heard.is_ok(), "{heard:?}");
    }
    let rows = ok(&mut client, &format!("EXPLAIN ROUTE {READ}")).rows();
    let last = rows.last().expect("a row");
    assert_eq!(last[1].as_deref(), Some("replica"));
    ok(&mut client, "UNLISTEN *");
    assert_eq!(value(&mut client, "SHOW pgweir.pinned"), "");
}

#[test]
fn cursors_and_prepared_statements_are_still_there_behind_a_read() {
    let proxy = proxy("replica");
    let mut client = proxy.client();
    ok(&mut client, "PREPARE x AS SELECT 42");
    ok(
        &mut client,
        "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
    );
    for expected in 1..4 {
        reads_on(&mut client, READ, "replica (read)");
        assert_eq!(value(&mut client, "FETCH c"), expected.to_string());
        assert_eq!(value(&mut client, "EXECUTE x"), "42");
        assert_eq!(last_route(&mut client), "primary (pinned)");
        reads_on(&mut client, "SELECT upper('a')", "primary (pinned)");
    }
}

#[test]
fn what_a_read_may_see_of_its_session_keeps_it_there() {
    let proxy = proxy("replica");
    let mut client = proxy.client();
    ok(&mut client, "CREATE TEMP TABLE t (a int)");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "0");
    ok(&mut client, "DROP TABLE pg_temp.t");
    let mut client = proxy.client();
    ok(&mut client, "SELECT pg_advisory_lock(1)");
    reads_on(&mut client, READ, "primary (pinned)");
    ok(&mut client, "SELECT pg_advisory_unlock(1)");
    ok(&mut client, "LISTEN news");
    ok(&mut client, "BEGIN");
    reads_on(&mut client, READ, "primary (pinned)");
    ok(&mut client, "COMMIT");
}

#[test]
fn a_read_that_its_replica_fails_runs_on_the_connection_of_the_session() {
    let proxy = proxy("replica");
    let mut client = proxy.client();
    ok(&mut client, "LISTEN news");
    let pid = value(&mut client, "SELECT pg_backend_pid()");
    client
        .send_query("SELECT a, pg_sleep(1) FROM t WHERE a = 1 LIMIT 1")
        .expect("sent");
    let terminate = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{USER}' AND state = 'active' AND query LIKE '%pg_sleep%'"
    );
    let replica = cluster().replica(0);
    eventually!(replica.sql("postgres", &terminate).expect("a count") == "1");
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.error(), None);
    assert_eq!(answer.value().as_deref(), Some("1"));
    assert_eq!(last_route(&mut client), "primary (pinned)");
    assert_eq!(value(&mut client, "SELECT pg_backend_pid()"), pid);
    reads_on(&mut client, READ, "replica (read)");
}

#[test]
fn a_read_for_which_its_replica_has_no_room_runs_on_the_connection_of_the_session() {
    let lines =
        "[databases.\"*\"]\npin_reads = \"replica\"\npool_size = 1\nconsistency = \"eventual\"";
    let text = config(cluster()).replace("[databases.\"*\"]", lines);
    let proxy = Proxy::start_ready(&format!("[server]\nquery_wait_timeout = \"500ms\"\n{text}"));
    wait_for_replicas(&mut proxy.client());
    let mut client = proxy.client();
    ok(&mut client, "LISTEN news");
    reads_on(&mut client, READ, "replica (read)");
    let mut other = proxy.client();
    ok(
        &mut other,
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    );
    ok(&mut other, READ);
    assert!(last_route(&mut other).starts_with("replica"));
    reads_on(&mut client, READ, "primary (pinned)");
    assert_eq!(value(&mut client, "SHOW pgweir.pinned"), "listen");
    ok(&mut other, "COMMIT");
    reads_on(&mut client, READ, "replica (read)");
}

/// The write has come already when the read is answered.
#[test]
fn what_follows_a_read_is_not_sent_to_a_primary_that_was_replaced_meanwhile() {
    let cluster = new_cluster(2);
    ok(&mut direct(&cluster), "CREATE TABLE t (a int)");
    ok(&mut direct(&cluster), "INSERT INTO t VALUES (1)");
    cluster
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    let lines = "[databases.\"*\"]\npin_reads = \"replica\"\nconsistency = \"eventual\"";
    let proxy = Proxy::start_ready(&config(&cluster).replace("[databases.\"*\"]", lines));
    wait_for_replicas(&mut proxy.client());
    let mut client = proxy.client();
    ok(&mut client, "LISTEN news");
    ok(&mut client, "SET pgweir.route = 'replica1'");
    client
        .send_query("SELECT a, pg_sleep(12) FROM t")
        .expect("sent");
    let reads = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(12)%' AND state = 'active' AND pid <> pg_backend_pid()";
    let still_reads = || cluster.replica(0).sql("postgres", reads).expect("a count") == "1";
    eventually!(still_reads());
    client
        .send_query("/* pgweir: route=primary */ INSERT INTO t VALUES (99)")
        .expect("sent");
    let old = cluster.primary();
    old.freeze().expect("frozen");
    cluster.promote(1).expect("promoted");
    eventually!(
        Client::open(proxy.addr(), &login())
            .and_then(|mut other| other.query("INSERT INTO t VALUES (2)"))
            .is_ok_and(|answer| answer.error().is_none())
    );
    old.thaw().expect("thawed");
    assert!(still_reads(), "the read is over too early");
    let read = client.until_ready().expect("an answer");
    assert_eq!(read.error(), None);
    let end = client.until_closed().expect("closed");
    assert_eq!(end.sqlstate().as_deref(), Some("08006"), "{end:?}");
    let sent = old.sql("app", "SELECT count(*) FROM t WHERE a = 99");
    assert_eq!(sent.expect("a count"), "0", "the old primary gets a write");
}

#[test]
fn by_default_a_pinned_session_reads_where_it_is() {
    let proxy = proxy("primary");
    let mut client = proxy.client();
    ok(&mut client, "LISTEN news");
    let before = last_route(&mut client);
    reads_on(&mut client, READ, &before);
    assert!(before.starts_with("primary"), "{before}");
}
