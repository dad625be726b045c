//! What clients see when servers fail: a primary that dies, freezes, is replaced, or has a rival; a replica that falls silent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pgweir_devcluster::{Cluster, Relay, StopMode};
use pgweir_testkit::{Client, eventually};
use pgweir_wire::TransactionStatus;

use crate::support::{
    DATABASE, PASSWORD, Proxy, USER, assert_ours, config, direct, login, new_cluster, ok, prepare,
    run_named, value, wait_for_replicas,
};

fn start(cluster: &Cluster, settings: &str) -> Proxy {
    let config =
        config(cluster).replace("[clusters.main]", &format!("[clusters.main]\n{settings}"));
    let proxy = Proxy::start_ready(&config);
    wait_for_replicas(&mut proxy.client());
    proxy
}

/// What writers have done.
#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    written: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    /// SQLSTATE and message of what went wrong, and whether a transaction was under way.
    errors: Mutex<Vec<String>>,
}

impl Tally {
    fn wait(&self, more: u64) {
        let aim = self.written.load(Ordering::SeqCst) + more;
        eventually!(self.written.load(Ordering::SeqCst) >= aim);
    }
}

struct Over<'a>(&'a Tally);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// Inserts one number after the other; a client that is lost is replaced.
fn write_on(proxy: &Proxy, tally: &Tally, first: u64) {
    let mut client = proxy.client();
    for number in first.. {
        if tally.is_over.load(Ordering::SeqCst) {
            return;
        }
        match client.query(&format!("INSERT INTO w VALUES ({number})")) {
            Ok(answer) if answer.error().is_none() => {
                tally.acknowledged.lock().unwrap().push(number);
                tally.written.fetch_add(1, Ordering::SeqCst);
            }
            failed => {
                let said = match &failed {
                    Ok(answer) => answer.error().map(|error| format!("{error:?}")),
                    Err(error) => Some(error.to_string()),
                };
                tally.errors.lock().unwrap().push(said.unwrap_or_default());
                client = eventually_client(proxy);
            }
        }
    }
}

fn eventually_client(proxy: &Proxy) -> Client {
    let mut found = None;
    eventually!({
        found = Client::open(proxy.addr(), &login()).ok();
        found.is_some()
    });
    found.expect("opened")
}

/// A session that does nothing while the servers change, and must not notice.
fn check_idle(client: &mut Client) {
    ok(client, "INSERT INTO w VALUES (0)");
    assert_eq!(client.status(), TransactionStatus::Idle);
}

fn report(text: &str) {
    eprintln!("{text}");
}

#[test]
fn a_promotion_under_load_loses_no_acknowledged_write_and_disturbs_nobody_who_is_idle() {
    let cluster = Cluster::builder()
        .replicas(2)
        .durable(true)
        .role(USER, PASSWORD)
        .database(DATABASE)
        .sql("ALTER DATABASE app OWNER TO app")
        .start()
        .expect("a cluster starts");
    let synchronous = |names: &str, node: &pgweir_devcluster::Node| {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        node.sql("postgres", &set).expect("set");
        node.sql("postgres", "SELECT pg_reload_conf()")
            .expect("reloaded");
    };
    let proxy = start(&cluster, "");
    ok(&mut direct(&cluster), "CREATE TABLE w (n bigint)");
    synchronous("ANY 2 (*)", cluster.primary());
    let tally = Tally::default();
    let mut idle: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    idle.iter_mut().for_each(check_idle);
    let in_use = thread::scope(|scope| {
        for writer in 1..=6 {
            let (proxy, tally) = (&proxy, &tally);
            scope.spawn(move || write_on(proxy, tally, writer * 1_000_000));
        }
        let _over = Over(&tally);
        tally.wait(100);
        cluster.primary().kill().expect("killed");
        cluster.promote(1).expect("promoted");
        let promoted_at = Instant::now();
        tally.wait(1);
        let in_use = promoted_at.elapsed();
        tally.wait(100);
        in_use
    });
    idle.iter_mut().for_each(check_idle);
    report(&format!(
        "the new primary is in use {in_use:?} after its promotion"
    ));
    // A poll and 100 ms are asked for, and seen on a machine at rest.
    assert!(in_use < Duration::from_secs(3), "{in_use:?}");
    let errors = tally.errors.lock().unwrap();
    assert!(
        errors.len() <= 6,
        "more than what was under way has failed: {errors:#?}"
    );
    let mut primary = direct(&cluster);
    let rows = ok(&mut primary, "SELECT n FROM w WHERE n > 0").rows();
    let mut there: Vec<u64> = rows
        .iter()
        .map(|row| {
            row[0]
                .as_deref()
                .unwrap_or_default()
                .parse()
                .expect("a number")
        })
        .collect();
    there.sort_unstable();
    for number in tally.acknowledged.lock().unwrap().iter() {
        assert!(there.binary_search(number).is_ok(), "{number} is lost");
    }
    let count = there.len();
    there.dedup();
    assert_eq!(there.len(), count, "a write was applied twice");
}

#[test]
fn a_frozen_primary_that_was_replaced_and_thaws_gets_no_more_writes() {
    let cluster = new_cluster(2);
    let proxy = start(&cluster, "");
    ok(&mut direct(&cluster), "CREATE TABLE w (n bigint)");
    let old = cluster.primary();
    let (mut inside, mut outside) = (proxy.client(), proxy.client());
    ok(&mut outside, "INSERT INTO w VALUES (0)");
    ok(&mut inside, "BEGIN; INSERT INTO w VALUES (1)");
    old.freeze().expect("frozen");
    cluster.promote(1).expect("promoted");
    // What was sent to the frozen one before the other was known is lost, and said to be.
    if outside.query("INSERT INTO w VALUES (0)").is_err() {
        outside = proxy.client();
    }
    check_idle(&mut outside);
    old.thaw().expect("thawed");
    // Its transaction was on the old one, and does not end there.
    // Where its connection breaks while it asks, what it was told is lost with that; it is never told that it has committed.
    if let Ok(answer) = inside.query("COMMIT") {
        let error = answer.error();
        assert_ours(
            error.unwrap_or_else(|| panic!("{answer:?}")),
            "08006",
            "FATAL",
        );
    }
    let count = || old.sql("app", "SELECT count(*) FROM w").expect("a count");
    eventually!(
        old.sql(
            "postgres",
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'"
        )
        .is_ok_and(|count| count == "0")
    );
    // The one that was under way may have run when it thawed: its client was told that nobody knows.
    let before = count();
    assert!(before == "1" || before == "2", "{before} writes");
    for _ in 0..20 {
        check_idle(&mut outside);
    }
    assert_eq!(count(), before, "the old primary gets writes");
    let inside = old.sql("app", "SELECT count(*) FROM w WHERE n = 1");
    assert_eq!(
        inside.expect("a count"),
        "0",
        "its transaction was committed"
    );
}

#[test]
fn two_primaries_on_one_timeline_get_no_writes_and_the_error_says_why() {
    let cluster = new_cluster(2);
    let proxy = start(&cluster, "");
    ok(&mut direct(&cluster), "CREATE TABLE w (n bigint)");
    cluster
        .wait_caught_up(Duration::from_secs(20))
        .expect("caught up");
    let mut client = proxy.client();
    cluster.primary().stop(StopMode::Fast).expect("stopped");
    // Neither knows of the other: both go to timeline 2.
    cluster
        .node(1)
        .sql("postgres", "SELECT pg_promote()")
        .expect("promoted");
    cluster
        .node(2)
        .sql("postgres", "SELECT pg_promote()")
        .expect("promoted");
    eventually!(
        client
            .query("INSERT INTO w VALUES (1)")
            .is_ok_and(|answer| answer.error().is_some())
    );
    let answer = client.query("INSERT INTO w VALUES (2)").expect("an answer");
    let error = answer.error().expect("refused");
    assert_ours(error, "57P03", "ERROR");
    assert!(
        error.comparable().contains("same timeline"),
        "{}",
        error.comparable()
    );
    cluster.node(2).stop(StopMode::Fast).expect("stopped");
    eventually!(
        client
            .query("INSERT INTO w VALUES (3)")
            .is_ok_and(|answer| answer.error().is_none())
    );
}

#[test]
fn a_read_on_a_replica_that_falls_silent_is_answered_by_another() {
    let cluster = new_cluster(2);
    let proxy = start(&cluster, "");
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        ok(client, "SELECT 1");
    }
    cluster.replica(0).freeze().expect("frozen");
    for client in &mut clients {
        client.send_query("SELECT 42").expect("sent");
    }
    for client in &mut clients {
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.value().as_deref(), Some("42"));
    }
    cluster.replica(0).thaw().expect("thawed");
    wait_for_replicas(&mut clients[0]);
}

#[test]
fn without_a_primary_a_write_waits_as_long_as_it_is_told_to() {
    let cluster = new_cluster(1);
    let proxy = start(&cluster, "failover_wait = \"700ms\"");
    let mut client = proxy.client();
    ok(&mut client, "CREATE TABLE w (n bigint)");
    cluster
        .wait_caught_up(Duration::from_secs(20))
        .expect("caught up");
    cluster.primary().stop(StopMode::Fast).expect("stopped");
    let began = Instant::now();
    let answer = client.query("INSERT INTO w VALUES (1)").expect("an answer");
    assert_ours(answer.error().expect("refused"), "57P03", "ERROR");
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(value(&mut client, "SELECT 1"), "1", "reads go on");
    cluster.primary().start().expect("started");
    eventually!(
        client
            .query("INSERT INTO w VALUES (2)")
            .is_ok_and(|answer| answer.error().is_none())
    );
}

#[test]
fn writes_wait_for_a_primary_that_restarts() {
    let cluster = new_cluster(1);
    let proxy = start(&cluster, "");
    ok(&mut direct(&cluster), "CREATE TABLE w (n bigint)");
    let mut clients: Vec<Client> = (0..30).map(|_| proxy.client()).collect();
    cluster.primary().stop(StopMode::Fast).expect("stopped");
    for client in &mut clients {
        client.send_query("INSERT INTO w VALUES (0)").expect("sent");
    }
    cluster.primary().start().expect("started");
    for client in &mut clients {
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.error(), None);
    }
    assert_eq!(value(&mut direct(&cluster), "SELECT count(*) FROM w"), "30");
}

/// Passes connections on to a server, but for those of [`USER`] while they are refused: what a firewall or a connection
/// limit does to an application and not to a monitor.
pub(crate) struct Doorkeeper {
    pub(crate) port: u16,
    pub(crate) refuses: Arc<AtomicBool>,
}

impl Doorkeeper {
    pub(crate) fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let refuses = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&refuses);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let flag = Arc::clone(&flag);
                thread::spawn(move || Self::pass(client, target, &flag));
            }
        });
        Doorkeeper { port, refuses }
    }

    fn pass(mut client: TcpStream, target: u16, refuses: &AtomicBool) -> Option<()> {
        let mut startup = vec![0; 4096];
        let count = client.read(&mut startup).ok()?;
        startup.truncate(count);
        let user = format!("user\0{USER}\0");
        let is_users = startup.windows(user.len()).any(|at| at == user.as_bytes());
        if is_users && refuses.load(Ordering::SeqCst) {
            return None;
        }
        let mut server = TcpStream::connect(("127.0.0.1", target)).ok()?;
        server.write_all(&startup).ok()?;
        let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
        thread::spawn(move || {
            let _ended = std::io::copy(&mut from, &mut to);
            to.shutdown(Shutdown::Both)
        });
        let _ended = std::io::copy(&mut server, &mut client);
        client.shutdown(Shutdown::Both).ok()
    }
}

#[test]
fn a_breaker_keeps_reads_off_a_replica_that_takes_no_connections_and_lets_them_back() {
    let cluster = new_cluster(2);
    let settings = "[clusters.main.breaker]\nfailures = 2\nopen_for = \"1s\"\n";
    let replica = cluster.replica(0);
    let door = Doorkeeper::start(replica.port());
    let text = config(&cluster).replace(
        &format!("port = {} ", replica.port()),
        &format!("port = {} ", door.port),
    );
    let (cluster_part, rest) = text.split_at(text.find("[databases").expect("databases"));
    let proxy = Proxy::start_ready(&format!("{cluster_part}{settings}{rest}"));
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    let read = || {
        // Each session chooses anew.
        assert_eq!(value(&mut proxy.client(), "SELECT 1"), "1");
    };
    door.refuses.store(true, Ordering::SeqCst);
    let terminate =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";
    replica.sql("postgres", terminate).expect("terminated");
    let told = |state: &str| proxy.log().contains(&format!("state=\"{state}\""));
    eventually!({
        read();
        told("open")
    });
    eventually!(told("half_open"));
    door.refuses.store(false, Ordering::SeqCst);
    eventually!({
        read();
        told("closed")
    });
    wait_for_replicas(&mut client);
}

/// Some drivers prepare even a ROLLBACK before they run it.
#[test]
fn a_transaction_that_found_no_primary_is_ended_without_one() {
    let cluster = new_cluster(1);
    let proxy = start(&cluster, "failover_wait = \"300ms\"");
    let mut client = proxy.client();
    ok(&mut client, "CREATE TABLE w (n bigint)");
    cluster.primary().stop(StopMode::Fast).expect("stopped");
    for name in ["", "named"] {
        prepare(&mut client, name, "BEGIN");
        assert_eq!(run_named(&mut client, name).error(), None);
        let answer = client.query("INSERT INTO w VALUES (1)").expect("an answer");
        assert_eq!(answer.sqlstate().as_deref(), Some("57P03"));
        assert_eq!(client.status(), TransactionStatus::Failed);
        let end = format!("{name}_end");
        prepare(&mut client, &end, "ROLLBACK");
        assert_eq!(client.status(), TransactionStatus::Failed);
        assert_eq!(run_named(&mut client, &end).error(), None);
        assert_eq!(client.status(), TransactionStatus::Idle);
    }
}

/// A cluster behind relays, and a proxy that knows it by them.
fn start_behind_relays(settings: &str) -> (Cluster, Vec<Relay>, Proxy) {
    let cluster = new_cluster(2);
    let relay = |node: &pgweir_devcluster::Node| Relay::start(node.port()).expect("a relay");
    let relays: Vec<Relay> = cluster.nodes().iter().map(relay).collect();
    let mut text = config(&cluster);
    for (node, relay) in cluster.nodes().iter().zip(&relays) {
        let port = |port: u16| format!("port = {port} ");
        text = text.replace(&port(node.port()), &port(relay.port()));
    }
    let proxy = Proxy::start_ready(&format!(
        "[server]\nconnect_timeout = \"1s\"\n{}",
        text.replace("[clusters.main]", &format!("[clusters.main]\n{settings}"),)
    ));
    wait_for_replicas(&mut proxy.client());
    (cluster, relays, proxy)
}

#[test]
fn a_network_that_answers_nothing_costs_a_read_some_moments_and_no_error() {
    let (_cluster, relays, proxy) = start_behind_relays("");
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    relays[1].silence();
    let began = Instant::now();
    for client in &mut clients {
        client.send_query("SELECT 42").expect("sent");
    }
    for client in &mut clients {
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.value().as_deref(), Some("42"));
    }
    // Two questions of the monitor without an answer, of a second each, or connect_timeout.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    relays[1].heal();
    wait_for_replicas(&mut clients[0]);
}

#[test]
fn a_primary_behind_a_network_that_answers_nothing_is_given_up_after_failover_wait() {
    let (cluster, relays, proxy) = start_behind_relays("failover_wait = \"2s\"");
    ok(&mut direct(&cluster), "CREATE TABLE w (n bigint)");
    let mut writers: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    ok(&mut writers[0], "INSERT INTO w VALUES (0)");
    relays[0].silence();
    let began = Instant::now();
    for writer in &mut writers {
        writer.send_query("INSERT INTO w VALUES (1)").expect("sent");
    }
    for mut writer in writers {
        // Those on a connection that was there do not know what became of it; the others have found none.
        let answer = match writer.until_ready() {
            Ok(answer) => answer.sqlstate(),
            Err(error) => error.sqlstate(),
        };
        assert!(
            matches!(answer.as_deref(), Some("08006" | "57P03")),
            "{answer:?}"
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    relays[0].heal();
    check_idle(&mut proxy.client());
}
