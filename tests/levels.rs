//! What a read may see, on real replicas that are late: a session's own writes, no older state than before, all that was
//! committed, and a position that another session gives.

use std::time::{Duration, Instant};

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, eventually};

use crate::support::{
    Proxy, config, direct, last_route, new_cluster, ok, value, wait_for_replicas, with_usual_wait,
};

/// Longer than a replica ever needs that replays at all, so that a busy machine fails no test.
const LONG_WAIT: &str = "20s";

/// A cluster with a table, and a proxy in front of it whose database has these settings.
fn start(settings: &str) -> (Cluster, Proxy) {
    let cluster = new_cluster(2);
    ok(
        &mut direct(&cluster),
        "CREATE TABLE t (id int PRIMARY KEY, n bigint); INSERT INTO t SELECT i, 0 FROM generate_series(1, 10) i",
    );
    cluster
        .wait_caught_up(Duration::from_secs(20))
        .expect("the replicas catch up");
    let config = with_usual_wait(&config(&cluster)).replace(
        "[databases.\"*\"]",
        &format!("[databases.\"*\"]\n{settings}"),
    );
    let proxy = Proxy::start_ready(&config);
    wait_for_replicas(&mut proxy.client());
    (cluster, proxy)
}

fn read(client: &mut Client) -> u64 {
    value(client, "SELECT n FROM t WHERE id = 1")
        .parse()
        .expect("a number")
}

/// Returns the lag of each replica that has one, in ms.
fn lags(client: &mut Client) -> Vec<u64> {
    // One that is not known is longer than any.
    let of = |row: &Vec<Option<String>>| {
        let detail = row[3].as_deref().expect("details");
        let known = detail.split_once(" lag ").and_then(|(_, rest)| {
            let (ms, _) = rest.split_once(" ms")?;
            ms.parse().ok()
        });
        known.unwrap_or(u64::MAX)
    };
    let rows = ok(client, "EXPLAIN ROUTE SELECT 1").rows();
    let replicas = (rows.iter()).filter(|row| row[0].as_deref() == Some("replica"));
    let lags: Vec<u64> = replicas.map(of).collect();
    assert_eq!(lags.len(), 2, "{rows:?}");
    lags
}

fn is_on_replica(client: &mut Client) -> bool {
    last_route(client).starts_with("replica")
}

#[test]
fn a_read_after_a_write_waits_for_a_replica_that_is_close() {
    let (_cluster, proxy) = start(&format!("causal_wait = \"{LONG_WAIT}\""));
    let mut client = proxy.client();
    for n in 1..50 {
        ok(&mut client, &format!("UPDATE t SET n = {n} WHERE id = 1"));
        assert_eq!(read(&mut client), n);
        assert!(is_on_replica(&mut client), "{n}");
    }
}

#[test]
fn without_a_wait_a_read_after_a_write_is_the_primarys() {
    let (cluster, proxy) = start("causal_wait = \"0\"");
    for replica in 0..2 {
        cluster.replica(replica).pause_replay().expect("paused");
    }
    let mut client = proxy.client();
    ok(&mut client, "UPDATE t SET n = 1 WHERE id = 1");
    assert_eq!(read(&mut client), 1);
    assert_eq!(last_route(&mut client), "primary (not_replayed)");
}

#[test]
fn a_replica_that_is_far_behind_is_not_waited_for() {
    let (cluster, proxy) = start("causal_wait = \"3s\"");
    let late = Duration::from_secs(60);
    for replica in 0..2 {
        cluster.replica(replica).delay_apply(late).expect("delayed");
    }
    let mut client = proxy.client();
    ok(&mut direct(&cluster), "UPDATE t SET n = 1 WHERE id = 2");
    eventually!(lags(&mut client).iter().all(|lag| *lag > 3000));
    let began = Instant::now();
    ok(&mut client, "UPDATE t SET n = 1 WHERE id = 1");
    assert_eq!(read(&mut client), 1);
    assert!(began.elapsed() < Duration::from_secs(3), "it has waited");
}

#[test]
fn a_session_reads_its_writes_from_late_replicas_and_is_back_on_them_soon_after() {
    let (cluster, proxy) = start("");
    let late = Duration::from_secs(2);
    for replica in 0..2 {
        cluster.replica(replica).delay_apply(late).expect("delayed");
    }
    let mut writer = proxy.client();
    let mut other = proxy.client();
    for n in 1..30 {
        ok(&mut writer, &format!("UPDATE t SET n = {n} WHERE id = 1"));
        assert_eq!(read(&mut writer), n, "its own write");
        read(&mut other);
        assert!(is_on_replica(&mut other), "the others stay on the replicas");
    }
    let wrote_at = Instant::now();
    let mut back_at = None;
    eventually!({
        assert_eq!(read(&mut writer), 29);
        if is_on_replica(&mut writer) {
            back_at.get_or_insert_with(Instant::now);
        }
        back_at.is_some()
    });
    let back = back_at.expect("seen").duration_since(wrote_at);
    assert!(back >= late - Duration::from_millis(200), "{back:?}");
    // 200 ms are asked for; a busy machine gets more.
    assert!(back < late + Duration::from_millis(1500), "{back:?}");
    for _ in 0..20 {
        assert_eq!(read(&mut writer), 29);
        assert!(is_on_replica(&mut writer), "there it stays");
    }
}

#[test]
fn a_session_never_reads_an_older_state_than_before_though_one_replica_stands_still() {
    let (cluster, proxy) = start("");
    let mut writer = direct(&cluster);
    let mut readers: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    let mut seen = vec![0; readers.len()];
    let mut on_replicas = 0;
    let mut written = 0;
    for round in 0..6 {
        let replica = cluster.replica(round % 2);
        replica.pause_replay().expect("paused");
        for _ in 0..60 {
            written += 1;
            ok(
                &mut writer,
                &format!("UPDATE t SET n = {written} WHERE id = 1"),
            );
            for (reader, seen) in readers.iter_mut().zip(&mut seen) {
                let now = read(reader);
                assert!(now >= *seen, "round {round}: {now} after {seen}");
                *seen = now;
            }
        }
        on_replicas += readers
            .iter_mut()
            .map(|reader| u32::from(is_on_replica(reader)))
            .sum::<u32>();
        replica.resume_replay().expect("resumed");
    }
    assert!(on_replicas > 0, "no reader was ever on a replica");
}

#[test]
fn a_strong_read_sees_what_was_committed_past_the_proxy() {
    let (cluster, proxy) = start("consistency = \"strong\"\ncausal_wait = \"20s\"");
    let mut writer = direct(&cluster);
    let mut reader = proxy.client();
    for n in 1..100 {
        ok(&mut writer, &format!("UPDATE t SET n = {n} WHERE id = 1"));
        assert_eq!(read(&mut reader), n);
        assert!(
            is_on_replica(&mut reader),
            "{n}: {}",
            last_route(&mut reader)
        );
    }
}

#[test]
fn a_session_is_back_on_the_replicas_though_another_has_written_and_not_committed() {
    let (cluster, proxy) = start("");
    // What nobody commits is on the primary alone until its background writer has it flushed, which would be seconds.
    let slow = "ALTER SYSTEM SET bgwriter_delay = '10s'";
    for sql in [slow, "SELECT pg_reload_conf()"] {
        cluster.sql("postgres", sql).expect("set");
    }
    let (mut other, mut client) = (direct(&cluster), proxy.client());
    for n in 1..4 {
        ok(&mut client, &format!("UPDATE t SET n = {n} WHERE id = 1"));
        ok(&mut other, "BEGIN; UPDATE t SET n = 1 WHERE id = 2");
        let on_primary = "SELECT n FROM t WHERE id = 1 /* pgweir: route=primary */";
        assert_eq!(value(&mut client, on_primary), n.to_string());
        eventually!(Duration::from_secs(5), {
            assert_eq!(read(&mut client), n);
            is_on_replica(&mut client)
        });
        ok(&mut other, "ROLLBACK");
    }
}

#[test]
fn a_strong_read_is_the_primarys_while_the_replicas_stand_still() {
    let (cluster, proxy) = start("");
    for replica in 0..2 {
        cluster.replica(replica).pause_replay().expect("paused");
    }
    let mut writer = direct(&cluster);
    let mut reader = proxy.client();
    for (n, asks) in [
        (1, "SET pgweir.consistency = 'strong'"),
        (2, "SET pgweir.consistency = 'STRONG'"),
    ] {
        ok(&mut writer, &format!("UPDATE t SET n = {n} WHERE id = 1"));
        ok(&mut reader, asks);
        assert_eq!(read(&mut reader), n);
    }
    ok(&mut reader, "RESET pgweir.consistency");
    ok(&mut writer, "UPDATE t SET n = 3 WHERE id = 1");
    let hinted = "/* pgweir: consistency=strong */ SELECT n FROM t WHERE id = 1";
    assert_eq!(value(&mut reader, hinted), "3");
}

#[test]
fn a_strong_transaction_that_looks_anew_for_each_statement_is_on_the_primary() {
    let (cluster, proxy) = start("consistency = \"strong\"\ncausal_wait = \"20s\"");
    let (mut writer, mut reader) = (direct(&cluster), proxy.client());
    for n in 1..20 {
        ok(&mut reader, "BEGIN");
        read(&mut reader);
        ok(&mut writer, &format!("UPDATE t SET n = {n} WHERE id = 1"));
        assert_eq!(read(&mut reader), n);
        ok(&mut reader, "COMMIT");
    }
    // One snapshot for all of it: what is committed later is not seen anywhere.
    ok(
        &mut reader,
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    );
    assert_eq!(read(&mut reader), 19);
    ok(&mut writer, "UPDATE t SET n = 20 WHERE id = 1");
    assert_eq!(read(&mut reader), 19);
    ok(&mut reader, "COMMIT");
    assert!(is_on_replica(&mut reader), "{}", last_route(&mut reader));
}

#[test]
fn a_hint_for_a_strong_read_takes_its_transaction_from_the_replica() {
    let (cluster, proxy) = start("");
    let (mut writer, mut reader) = (direct(&cluster), proxy.client());
    for replica in 0..2 {
        cluster.replica(replica).pause_replay().expect("paused");
    }
    ok(&mut reader, "BEGIN");
    assert_eq!(read(&mut reader), 0);
    ok(&mut writer, "UPDATE t SET n = 1 WHERE id = 1");
    let hinted = "/* pgweir: consistency=strong */ SELECT n FROM t WHERE id = 1";
    assert_eq!(value(&mut reader, hinted), "1");
    ok(&mut reader, "COMMIT");
}

#[test]
fn a_position_given_by_one_session_lets_another_read_what_it_wrote() {
    let (cluster, proxy) = start("consistency = \"eventual\"");
    let (mut a, mut b) = (proxy.client(), proxy.client());
    for replica in 0..2 {
        cluster.replica(replica).pause_replay().expect("paused");
    }
    ok(&mut a, "UPDATE t SET n = 7 WHERE id = 1");
    assert_eq!(read(&mut b), 0, "eventual, and the replicas stand still");
    let lsn = value(&mut a, "SHOW pgweir.lsn");
    ok(&mut b, &format!("SET pgweir.min_lsn = '{lsn}'"));
    assert_eq!(value(&mut b, "SHOW pgweir.min_lsn"), lsn);
    assert_eq!(read(&mut b), 7);
    assert_eq!(last_route(&mut b), "primary (not_replayed)");
    for replica in 0..2 {
        cluster.replica(replica).resume_replay().expect("resumed");
    }
    eventually!({
        assert_eq!(read(&mut b), 7);
        is_on_replica(&mut b)
    });
    let bad = b.query("SET pgweir.min_lsn = 'soon'").expect("an answer");
    assert_eq!(bad.sqlstate().as_deref(), Some("22023"));
}

#[test]
fn a_paused_replica_is_behind_only_once_the_primary_has_moved() {
    let (cluster, proxy) = start("");
    let mut client = proxy.client();
    cluster.replica(0).pause_replay().expect("paused");
    // Several polls of the monitor; background processes of an idle primary write now and then.
    let still = (0..5).all(|_| {
        ok(&mut client, "SELECT pg_sleep(0.1)");
        lags(&mut client).iter().all(|lag| *lag < 400)
    });
    assert!(still, "nothing was written: {:?}", lags(&mut client));
    ok(&mut client, "UPDATE t SET n = 1 WHERE id = 1");
    eventually!(lags(&mut client).iter().any(|lag| *lag > 1000));
    assert!(
        lags(&mut client).iter().any(|lag| *lag < 500),
        "the other follows"
    );
    cluster.replica(0).resume_replay().expect("resumed");
    eventually!(lags(&mut client).iter().all(|lag| *lag < 500));
}
