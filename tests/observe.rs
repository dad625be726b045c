//! `splitting = "observe"`: every statement runs on the primary, and `SHOW pgweir.observed` says what would have become of it.

use std::sync::OnceLock;

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, eventually, patience};

use crate::support::{
    Proxy, config, direct, last_route, new_cluster, ok, value, wait_for_replicas,
};

/// A cluster of its own: what a replica has replayed is counted.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = new_cluster(1);
        ok(&mut direct(&cluster), "CREATE TABLE t (a int)");
        cluster
            .wait_caught_up(patience::PATIENCE)
            .expect("caught up");
        cluster
    })
}

fn proxy() -> Proxy {
    let observe = "[databases.\"*\"]\nsplitting = \"observe\"\nconsistency = \"eventual\"";
    let config = config(cluster())
        .replace("[databases.\"*\"]", observe)
        .replace("[clusters.main]", "[clusters.main]\nmax_lag = \"1h\"")
        + "\n[server]\nworkers = 3\n";
    let proxy = Proxy::start_ready(&config);
    wait_for_replicas(&mut proxy.client());
    proxy
}

/// Returns what was counted of shapes that hold this: shape, decision, reason, calls, stale.
fn observed(client: &mut Client, mark: &str) -> Vec<String> {
    let rows = ok(client, "SHOW pgweir.observed").rows();
    let mut found: Vec<String> = rows
        .into_iter()
        .filter(|row| row[1].as_deref().is_some_and(|shape| shape.contains(mark)))
        .map(|row| {
            row.into_iter()
                .skip(1)
                .flatten()
                .collect::<Vec<_>>()
                .join(" | ")
        })
        .collect();
    found.sort();
    found
}

#[test]
fn everything_runs_on_the_primary_and_is_counted_per_shape() {
    let proxy = proxy();
    // More clients than threads.
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        ok(client, "SELECT a AS one FROM t WHERE a = 1");
        assert_eq!(last_route(client), "primary (observed)");
        assert_eq!(value(client, "SELECT pg_is_in_recovery() AS two"), "f");
        ok(client, "INSERT INTO t SELECT 3 AS three");
        assert_eq!(last_route(client), "primary (observed)");
        ok(client, "SET pgweir.route = 'replica'");
        ok(client, "SELECT a AS four FROM t");
        assert_eq!(last_route(client), "primary (observed)");
    }
    let client = &mut clients[0];
    let without_stale = |rows: Vec<String>| -> Vec<String> {
        let cut = |row: String| row.rsplit_once(" | ").expect("columns").0.to_owned();
        rows.into_iter().map(cut).collect()
    };
    for (mark, expected) in [
        (
            "as one",
            "select a as one from t where a = 0 | replica | read | 6",
        ),
        (
            "as two",
            "select pg_is_in_recovery() as two | primary | primary_only | 6",
        ),
        (
            "as three",
            "insert into t select 0 as three | primary | write | 6",
        ),
        (
            "as four",
            "select a as four from t | replica | session_setting | 6",
        ),
    ] {
        assert_eq!(without_stale(observed(client, mark)), [expected]);
    }
}

#[test]
fn a_transaction_is_counted_as_it_would_have_moved() {
    let proxy = proxy();
    let mut client = proxy.client();
    for sql in [
        "BEGIN",
        "SELECT a AS first FROM t",
        "SELECT a AS second FROM t",
        "UPDATE t SET a = a WHERE a = 5 AND 'third' = 'third'",
        "SELECT a AS fourth FROM t",
        "COMMIT",
        "SELECT a AS fifth FROM t",
    ] {
        ok(&mut client, sql);
    }
    let decision = |client: &mut Client, mark: &str| {
        let rows = observed(client, mark);
        let row = rows.first().expect(mark).split(" | ").collect::<Vec<_>>();
        format!("{} {}", row[1], row[2])
    };
    for (mark, expected) in [
        ("first", "replica read"),
        ("second", "replica in_transaction"),
        ("update t", "primary write"),
        ("fourth", "primary in_transaction"),
        ("fifth", "replica read"),
    ] {
        assert_eq!(decision(&mut client, mark), expected, "{mark}");
    }
    let rows = ok(&mut client, "SHOW pgweir.observed").rows();
    let has_control =
        |row: &Vec<Option<String>>| matches!(row[1].as_deref(), Some("begin" | "commit"));
    assert!(!rows.iter().any(has_control), "{rows:?}");
}

#[test]
fn a_read_is_stale_where_the_replica_has_not_replayed_all() {
    let proxy = proxy();
    let mut client = proxy.client();
    let replica = cluster().replica(0);
    let counts = |client: &mut Client| {
        let rows = observed(client, "as aged");
        let row = rows.first().expect("a row").clone();
        let mut columns = row
            .rsplit(" | ")
            .map(|n| n.parse::<u32>().expect("a number"));
        let stale = columns.next().expect("stale");
        (columns.next().expect("calls"), stale)
    };
    eventually!({
        ok(&mut client, "SELECT a AS aged FROM t");
        let (calls, stale) = counts(&mut client);
        // The replica is seen to have replayed all there is, once.
        stale < calls
    });
    replica.pause_replay().expect("paused");
    ok(&mut client, "INSERT INTO t VALUES (6)");
    let (calls, stale) = counts(&mut client);
    ok(&mut client, "SELECT a AS aged FROM t");
    // At once, as it has not replayed what the session wrote.
    assert_eq!(counts(&mut client), (calls + 1, stale + 1));
    replica.resume_replay().expect("resumed");
}

#[test]
fn explain_route_shows_what_would_be_and_that_the_primary_is_used() {
    let proxy = proxy();
    let mut client = proxy.client();
    let rows = ok(&mut client, "EXPLAIN ROUTE SELECT a FROM t").rows();
    let last: Vec<Vec<String>> = rows
        .into_iter()
        .rev()
        .take(2)
        .map(|row| row.into_iter().flatten().collect())
        .collect();
    assert_eq!(last[0], ["route", "primary", "observed", "primary"]);
    assert_eq!(last[1], ["observed", "replica", "read", "replica1"]);
}

#[test]
fn nothing_is_counted_where_nothing_is_observed() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    ok(&mut client, "SELECT 1");
    assert_eq!(ok(&mut client, "SHOW pgweir.observed").rows().len(), 0);
}
