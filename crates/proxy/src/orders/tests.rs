//! Orders to a proxy in this process, before a real cluster and under load.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use pgweir_testkit::{Client, Login, eventually};

use super::*;
use crate::testing::{self, Bench, USER};

/// Starts a proxy, and waits until both replicas take reads.
fn bench(server: &str, database: &str) -> Bench {
    let cluster = testing::cluster();
    let config = testing::config(&cluster, server, database);
    let bench = Bench::start(cluster, &config);
    let mut client = bench.client();
    let splits = !database.contains("splitting = \"off\"");
    eventually!(!splits || bench.ports(&mut client, 20).len() == 2);
    bench
}

impl Bench {
    /// Returns the ports that so many reads ran on.
    fn ports(&self, client: &mut Client, reads: usize) -> Vec<u16> {
        self.run(client, "SET pgweir.consistency = 'eventual'");
        let port = |_| self.run(client, "SHOW port").parse().expect("a port");
        let mut ports: Vec<u16> = (0..reads).map(port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn order(&self, order: Order) -> Result<String, Refusal> {
        order_to(&self.shared, order)
    }

    /// Gives an order that waits, on a thread.
    fn begin(&self, order: Order) -> JoinHandle<Result<String, Refusal>> {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || order_to(&shared, order))
    }

    fn sqlstate(&self, order: Order) -> String {
        let refusal = self.order(order).expect_err("refused");
        String::from_utf8(refusal.sqlstate.to_vec()).expect("text")
    }

    /// Returns how many connections of clients a server has: what its own table of processes says.
    fn connections(&self, node: usize) -> usize {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'");
        let count = self.cluster.node(node).sql("postgres", &sql).expect(&sql);
        count.trim().parse().expect("a number")
    }

    fn all_connections(&self) -> usize {
        (0..3).map(|node| self.connections(node)).sum()
    }

    fn runs(&self, mark: &str) -> bool {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT ''{mark}''%'"
        );
        let count = |node: usize| self.cluster.node(node).sql("postgres", &sql).expect(&sql);
        (0..3).any(|node| count(node).trim() != "0")
    }

    /// Lets a client run a statement for long, and waits until it runs.
    fn busy(&self, mark: &str) -> Client {
        let mut client = self.client();
        client
            .send_query(&format!("SELECT '{mark}', pg_sleep(100)"))
            .expect("sent");
        eventually!(self.runs(mark));
        client
    }

    fn load(&self, sessions: usize) -> Load {
        let seen = Arc::new(Seen::default());
        let session = |number: usize| {
            let (mut client, seen) = (self.client(), Arc::clone(&seen));
            let writes = number.is_multiple_of(2);
            thread::spawn(move || seen.watch(&mut client, writes))
        };
        let threads = (0..sessions).map(session).collect();
        let load = Load { seen, threads };
        load.goes_on();
        load
    }
}

/// Returns what came of something on a thread of its own.
#[track_caller]
fn done<T>(thread: JoinHandle<T>) -> T {
    eventually!(thread.is_finished());
    thread.join().expect("no panic")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

fn order_to(shared: &Arc<Shared>, order: Order) -> Result<String, Refusal> {
    let operator = Operator {
        user: "boss".into(),
    };
    let runtime = runtime();
    runtime.block_on(shared.order(order, &operator))
}

/// What sessions do that neither pause nor hear of any error.
struct Load {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    rounds: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// When each port last began to serve a read.
    reads: Mutex<std::collections::BTreeMap<String, Instant>>,
}

impl Seen {
    /// Goes on until it is over, or something goes wrong.
    fn watch(&self, client: &mut Client, writes: bool) {
        while !self.is_over.load(Ordering::Relaxed) {
            if let Err(failure) = one_round(client, self, writes) {
                self.failures.lock().unwrap().push(failure);
                return;
            }
        }
    }

    fn note_read(&self, port: String, began_at: Instant) {
        self.reads.lock().unwrap().insert(port, began_at);
    }
}

/// Reads without a pause, in session consistency; for one that writes, behind a statement that does, and a transaction that reads
/// first.
fn one_round(client: &mut Client, seen: &Seen, writes: bool) -> Result<(), String> {
    let texts = [
        "INSERT INTO t VALUES (1)",
        "BEGIN",
        "SELECT count(*) >= 0 FROM t WHERE a = 2",
        "UPDATE t SET a = 3 WHERE a = 2",
        "COMMIT",
    ];
    let reads = ["SHOW port"; 20];
    for text in texts.into_iter().filter(|_| writes).chain(reads) {
        let began_at = Instant::now();
        let answer = client.query(text).map_err(|error| error.to_string())?;
        if let Some(error) = answer.error() {
            return Err(error.comparable());
        }
        if text == "SHOW port" {
            let port = answer.value().unwrap_or_default();
            seen.note_read(port, began_at);
        }
    }
    seen.rounds.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

impl Load {
    /// Waits until every session has gone on, as far as counts tell.
    fn goes_on(&self) {
        let before = self.seen.rounds.load(Ordering::Relaxed);
        let enough = before + 3 * self.threads.len();
        eventually!(self.seen.rounds.load(Ordering::Relaxed) >= enough || self.has_failed());
    }

    fn has_failed(&self) -> bool {
        !self.seen.failures.lock().unwrap().is_empty()
    }

    fn last_read(&self, port: u16) -> Option<Instant> {
        let reads = self.seen.reads.lock().unwrap();
        reads.get(&port.to_string()).copied()
    }

    /// Ends it; returns what went wrong.
    fn end(self) -> Vec<String> {
        self.seen.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            done(thread);
        }
        std::mem::take(&mut self.seen.failures.lock().unwrap())
    }
}

fn app() -> Option<String> {
    Some(USER.to_owned())
}

#[test]
fn a_pause_waits_for_transactions_and_everything_else_waits_for_its_end() {
    let bench = bench("", "pool_min = 2");
    let mut held_back = bench.client();
    bench.run(&mut held_back, "BEGIN");
    let mut moving = bench.client();
    // Until the catalog has been read, it begins at the primary.
    eventually!({
        bench.run(&mut moving, "BEGIN");
        bench.run(&mut moving, "SELECT count(*) FROM t");
        let route = bench.run(&mut moving, "SHOW pgweir.last_route");
        let reads_there = route.starts_with("replica");
        if !reads_there {
            bench.run(&mut moving, "ROLLBACK");
        }
        reads_there
    });
    let mut open = bench.client();
    bench.run(&mut open, "BEGIN; INSERT INTO t VALUES (7)");
    let mut listener = bench.client();
    bench.run(&mut listener, "LISTEN x");
    let load = bench.load(4);
    let paused = bench.begin(Order::Pause { database: app() });
    // What is in a transaction, or pinned, goes on.
    eventually!(bench.all_connections() == 3);
    bench.run(&mut open, "INSERT INTO t VALUES (7)");
    bench.run(&mut listener, "SELECT 1");
    assert!(!paused.is_finished());
    bench.run(&mut open, "COMMIT");
    bench.run(&mut listener, "UNLISTEN x");
    // One that has read so far goes on at the primary, when it may: no server has any of it.
    moving.send_query("INSERT INTO t VALUES (8)").expect("sent");
    assert_eq!(done(paused).as_deref(), Ok("PAUSE"));
    assert_eq!(bench.all_connections(), 0);
    held_back.send_query("SELECT 2").expect("sent");
    open.send_query("SELECT 3").expect("sent");
    let (addr, login) = (bench.addr.clone(), Login::new(USER, USER).password("x"));
    let newcomer = thread::spawn(move || Client::open(&addr, &login).map(|_| ()));
    assert_eq!(bench.sqlstate(Order::Pause { database: app() }), "55000");
    assert_eq!(bench.sqlstate(Order::Resume { database: None }), "55000");
    // The look at the pools comes by every second, and fills none.
    let since = Instant::now();
    eventually!(since.elapsed() > Duration::from_millis(1500));
    assert_eq!(bench.all_connections(), 0);
    assert!(!newcomer.is_finished());
    assert_eq!(
        bench.order(Order::Resume { database: app() }).as_deref(),
        Ok("RESUME")
    );
    assert_eq!(bench.sqlstate(Order::Resume { database: app() }), "55000");
    for client in [&mut held_back, &mut open, &mut moving] {
        assert_eq!(client.until_ready().expect("an answer").error(), None);
    }
    for client in [&mut held_back, &mut moving] {
        bench.run(client, "COMMIT");
    }
    done(newcomer).expect("a login");
    load.goes_on();
    assert_eq!(load.end(), Vec::<String>::new());
    assert_eq!(
        bench.run(&mut open, "SELECT count(*) FROM t WHERE a IN (7, 8)"),
        "3"
    );
}

#[test]
fn a_pause_lasts_also_where_whoever_ordered_it_has_gone() {
    let bench = bench("", "pin_reads = \"replica\"");
    let mut open = bench.client();
    bench.run(&mut open, "BEGIN; INSERT INTO t VALUES (7)");
    let mut pinned = bench.client();
    bench.run(&mut pinned, "LISTEN x");
    eventually!({
        bench.run(&mut pinned, "SELECT a FROM t");
        bench.run(&mut pinned, "SHOW pgweir.last_route") == "replica (read)"
    });
    let operator = Operator {
        user: "boss".into(),
    };
    let runtime = runtime();
    let order = bench
        .shared
        .order(Order::Pause { database: None }, &operator);
    let given_up = async { tokio::time::timeout(Duration::from_millis(200), order).await };
    assert!(runtime.block_on(given_up).is_err());
    eventually!(bench.all_connections() == 2);
    // Where it is pinned it may read, and nowhere else.
    bench.run(&mut pinned, "SELECT a FROM t");
    assert_eq!(
        bench.run(&mut pinned, "SHOW pgweir.last_route"),
        "primary (pinned)"
    );
    bench.run(&mut open, "COMMIT");
    eventually!(bench.all_connections() == 1);
    let id = pinned.process_id();
    assert!(bench.order(Order::Kill(Whom::Client(id))).is_ok());
    eventually!(bench.all_connections() == 0);
    assert_eq!(bench.sqlstate(Order::Pause { database: app() }), "55000");
    assert!(bench.order(Order::Resume { database: None }).is_ok());
    bench.run(&mut open, "SELECT 1");
}

#[test]
fn in_session_pooling_a_pause_waits_for_clients_to_leave_and_replication_is_a_session() {
    let bench = bench("", "pool_mode = \"session\"\nsplitting = \"off\"");
    let role = format!("ALTER ROLE {USER} REPLICATION");
    bench.cluster.sql("postgres", &role).expect("altered");
    let login = Login::new(USER, USER).password("x");
    let login = login.parameter("replication", "database");
    let mut stream = Client::open(&bench.addr, &login).expect("a login");
    bench.run(&mut stream, "IDENTIFY_SYSTEM");
    let mut session = bench.client();
    bench.run(&mut session, "SELECT 1");
    let paused = bench.begin(Order::Pause { database: app() });
    eventually!(bench.all_connections() == 2);
    bench.run(&mut session, "SELECT 2");
    session.terminate().expect("sent");
    eventually!(bench.all_connections() == 1);
    bench.run(&mut stream, "IDENTIFY_SYSTEM");
    assert!(!paused.is_finished());
    // That may last for ever: it is ended like PgBouncer ends it.
    assert!(bench.order(Order::Reconnect { database: app() }).is_ok());
    stream.until_closed().expect("closed");
    assert_eq!(done(paused).as_deref(), Ok("PAUSE"));
    assert_eq!(bench.all_connections(), 0);
    assert!(bench.order(Order::Resume { database: app() }).is_ok());
    bench.run(&mut bench.client(), "SELECT 3");
}

#[test]
fn a_pause_of_all_is_taken_back_by_a_resume_and_limits_who_waits() {
    let bench = bench("query_wait_timeout = \"1s\"", "");
    let mut open = bench.client();
    bench.run(&mut open, "BEGIN; INSERT INTO t VALUES (7)");
    let mut other = bench.client();
    let paused = bench.begin(Order::Pause { database: None });
    // Until its worker has heard of it, it goes on.
    eventually!({
        let answer = other.query("SELECT 1").expect("an answer");
        let error = answer.error().map(|error| error.comparable());
        error.is_some_and(|error| error.contains("57014") && error.contains("paused"))
    });
    let refused = bench.open().expect_err("refused");
    assert_eq!(refused.sqlstate().as_deref(), Some("57014"));
    assert_eq!(bench.sqlstate(Order::Resume { database: app() }), "55000");
    assert!(bench.order(Order::Resume { database: None }).is_ok());
    let refusal = done(paused).expect_err("taken back");
    assert_eq!(&refusal.sqlstate, b"57014");
    bench.run(&mut open, "COMMIT");
    bench.run(&mut other, "SELECT 1");
}

#[test]
fn a_killed_client_is_gone_at_once_and_nobody_else_notices() {
    let bench = bench("", "");
    let load = bench.load(3);
    let mut busy = bench.busy("killed");
    let mut idle = bench.client();
    let mut waiting = bench.client();
    bench.run(&mut waiting, "BEGIN; INSERT INTO t VALUES (5)");
    for client in [&mut busy, &mut idle, &mut waiting] {
        let id = client.process_id();
        assert!(bench.order(Order::Kill(Whom::Client(id))).is_ok());
        let answer = client.until_closed().expect("words");
        assert_eq!(answer.sqlstate().as_deref(), Some("57P01"));
        eventually!(bench.sqlstate_of_kill(id) == "42704");
    }
    eventually!(!bench.runs("killed"));
    load.goes_on();
    assert_eq!(load.end(), Vec::<String>::new());
    let mut client = bench.client();
    assert_eq!(
        bench.run(&mut client, "SELECT count(*) FROM t WHERE a = 5"),
        "0"
    );
}

impl Bench {
    fn sqlstate_of_kill(&self, id: u32) -> String {
        match self.order(Order::Kill(Whom::Client(id))) {
            Ok(_) => String::new(),
            Err(refusal) => String::from_utf8_lossy(&refusal.sqlstate).into_owned(),
        }
    }
}

#[test]
fn a_killed_database_loses_all_and_takes_new_clients_after_a_resume() {
    let bench = bench("", "pool_min = 1");
    let load = bench.load(4);
    let mut busy = bench.busy("all");
    let mut listener = bench.client();
    bench.run(&mut listener, "LISTEN x");
    let kill = || Order::Kill(Whom::Database(USER.to_owned()));
    assert_eq!(bench.order(kill()).as_deref(), Ok("KILL"));
    for client in [&mut busy, &mut listener] {
        let answer = client.until_closed().expect("words");
        assert_eq!(answer.sqlstate().as_deref(), Some("57P01"));
    }
    eventually!(bench.all_connections() == 0);
    let failures = load.end();
    assert_eq!(failures.len(), 4, "{failures:?}");
    let (addr, login) = (bench.addr.clone(), Login::new(USER, USER).password("x"));
    let newcomer = thread::spawn(move || Client::open(&addr, &login).map(|_| ()));
    // Again, as a pause may have something left to end.
    assert!(bench.order(kill()).is_ok());
    assert!(!newcomer.is_finished());
    assert!(bench.order(Order::Resume { database: app() }).is_ok());
    done(newcomer).expect("a login");
    bench.run(&mut bench.client(), "SELECT 1");
}

#[test]
fn a_cancel_hits_the_statement_that_runs_and_no_other() {
    let bench = bench("", "pool_size = 2");
    let load = bench.load(3);
    let mut busy = bench.busy("canceled");
    let order = |client: &Client| Order::Cancel {
        client: client.process_id(),
    };
    assert_eq!(bench.order(order(&busy)).as_deref(), Ok("CANCEL"));
    let answer = busy.until_ready().expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"));
    // Of one that runs nothing there is nothing to cancel, neither now nor of what it runs next.
    for _ in 0..20 {
        assert!(bench.order(order(&busy)).is_ok());
        bench.run(&mut busy, "SELECT pg_sleep(0.001)");
    }
    assert_eq!(bench.sqlstate(Order::Cancel { client: 1 }), "42704");
    load.goes_on();
    assert_eq!(load.end(), Vec::<String>::new());
}

#[test]
fn a_disabled_database_keeps_its_clients_and_takes_no_new_ones() {
    let bench = bench("", "");
    let mut client = bench.client();
    let database = || USER.to_owned();
    assert!(
        bench
            .order(Order::Disable {
                database: database()
            })
            .is_ok()
    );
    let refused = bench.open().expect_err("refused");
    assert_eq!(refused.sqlstate().as_deref(), Some("55000"));
    bench.run(&mut client, "SELECT 1");
    let config = bench.shared.config.load_full();
    let names = bench.shared.holds.load().names(&config);
    assert_eq!(names, [(Arc::from(USER), false, true)]);
    assert!(
        bench
            .order(Order::Enable {
                database: database()
            })
            .is_ok()
    );
    bench.run(&mut bench.client(), "SELECT 1");
}

#[test]
fn connections_are_replaced_as_they_become_free_and_the_last_is_waited_for() {
    let bench = bench("", "");
    let mut open = bench.client();
    bench.run(&mut open, "BEGIN; INSERT INTO t VALUES (7)");
    let mut other = bench.client();
    let primary = "/* pgweir: route=primary */ SELECT pg_backend_pid()";
    let before = bench.run(&mut other, primary);
    let load = bench.load(3);
    assert!(bench.order(Order::Reconnect { database: app() }).is_ok());
    let closed = bench.begin(Order::WaitClose { database: app() });
    load.goes_on();
    assert_ne!(bench.run(&mut other, primary), before);
    assert!(!closed.is_finished());
    bench.run(&mut open, "COMMIT");
    assert_eq!(done(closed).as_deref(), Ok("WAIT_CLOSE"));
    assert_eq!(load.end(), Vec::<String>::new());
}

#[test]
fn a_drained_server_loses_its_reads_and_its_connections_and_gets_them_back() {
    let bench = bench("", "pool_min = 1");
    let node = bench.cluster.node(1);
    let (name, port) = (node.name().to_owned(), node.port());
    let drain = || Order::Drain {
        backend: name.clone(),
    };
    let mut open = bench.client();
    bench.run(&mut open, &format!("SET pgweir.route = '{name}'"));
    bench.run(&mut open, "BEGIN READ ONLY");
    assert_eq!(bench.run(&mut open, "SHOW port"), port.to_string());
    let load = bench.load(6);
    eventually!(load.last_read(port).is_some());
    assert_eq!(bench.order(drain()).as_deref(), Ok("DRAIN"));
    let drained_at = Instant::now();
    // A transaction that is there ends there.
    eventually!(bench.connections(1) == 1);
    bench.run(&mut open, "COMMIT");
    eventually!(bench.connections(1) == 0);
    load.goes_on();
    assert!(load.last_read(port).is_none_or(|at| at < drained_at));
    // Nobody gets there by its name, a reload changes nothing, and the pools are not filled again.
    let answer = open.query("SHOW port").expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57P03"));
    let proxy = bench.proxy.as_ref().expect("it runs");
    testing::write(
        bench.folder.path(),
        &testing::config(&bench.cluster, "", "pool_min = 2"),
    );
    proxy.reload().expect("read");
    let since = Instant::now();
    eventually!(since.elapsed() > Duration::from_millis(1500));
    assert_eq!(bench.connections(1), 0);
    assert!(bench.shared.clusters[0].topology().nodes[1].is_drained);
    assert_eq!(bench.sqlstate(drain()), "55000");
    assert!(
        bench
            .order(Order::Undrain {
                backend: name.clone()
            })
            .is_ok()
    );
    eventually!(load.last_read(port).is_some_and(|at| at > since));
    assert_eq!(load.end(), Vec::<String>::new());
    let primary = Order::Drain {
        backend: bench.cluster.primary().name().to_owned(),
    };
    assert_eq!(bench.sqlstate(primary), "55006");
    let refusal = bench
        .order(Order::Drain {
            backend: format!("{name}x"),
        })
        .expect_err("unknown");
    assert_eq!(
        (&refusal.sqlstate, refusal.hint),
        (b"42704", Some(perhaps(&name)))
    );
}

#[test]
fn a_drained_server_that_is_promoted_takes_the_writes() {
    let bench = bench("", "");
    let backend = bench.cluster.node(1).name().to_owned();
    assert!(bench.order(Order::Drain { backend }).is_ok());
    bench.cluster.primary().kill().expect("killed");
    bench.cluster.promote(1).expect("promoted");
    let mut client = bench.client();
    bench.run(&mut client, "INSERT INTO t VALUES (9)");
    assert_eq!(
        bench.run(&mut client, "/* pgweir: route=primary */ SHOW port"),
        bench.cluster.node(1).port().to_string()
    );
    // Its connections are kept, as those of any primary.
    let since = Instant::now();
    eventually!(since.elapsed() > Duration::from_millis(1500));
    assert_ne!(bench.connections(1), 0);
}

/// How long the reads of sessions that never pause may go on where the weight has become 0. A tenth of a second is promised;
/// the rest is for a machine that runs other tests.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);

#[test]
fn a_weight_of_nothing_moves_all_reads_away_at_once_and_closes_no_connection() {
    let bench = bench("", "");
    let node = bench.cluster.node(1);
    let load = bench.load(6);
    eventually!(load.last_read(node.port()).is_some());
    let weighted = testing::config(&bench.cluster, "", "").replace(
        &format!("port = {} }}", node.port()),
        &format!("port = {}, weight = 0 }}", node.port()),
    );
    testing::write(bench.folder.path(), &weighted);
    let proxy = bench.proxy.as_ref().expect("it runs");
    let before = Instant::now();
    eventually!(load.last_read(node.port()).is_some_and(|at| at > before));
    let changed_at = Instant::now();
    let changes = proxy.reload().expect("read");
    assert_eq!(changes.len(), 1, "{changes:?}");
    load.goes_on();
    load.goes_on();
    let last = load.last_read(node.port()).expect("it had some");
    let stayed = last.saturating_duration_since(changed_at);
    println!("the last read began {stayed:?} after the change");
    assert!(stayed < LEAVES_WITHIN, "{stayed:?}");
    assert_ne!(bench.connections(1), 0);
    assert_eq!(load.end(), Vec::<String>::new());
}

#[test]
fn who_is_there_may_stay_until_the_end_that_waits_for_clients() {
    let mut bench = bench("", "");
    let mut orders = bench.proxy.as_ref().expect("it runs").end_orders();
    let mut client = bench.client();
    let console = Login::new(USER, "pgweir").password("x");
    let console = Client::open(&bench.addr, &console).expect("a login");
    let order = Order::Shutdown(Shutdown::WaitForClients);
    assert!(bench.order(order.clone()).is_ok());
    let runtime = runtime();
    assert_eq!(runtime.block_on(orders.next()), Shutdown::WaitForClients);
    let proxy = bench.proxy.take().expect("it runs");
    let ended = thread::spawn(move || proxy.linger());
    eventually!(bench.open().is_err());
    let refused = bench.open().expect_err("refused");
    assert_eq!(refused.sqlstate().as_deref(), Some("57P03"));
    bench.run(&mut client, "BEGIN; INSERT INTO t VALUES (1)");
    bench.run(&mut client, "COMMIT");
    // A cancel still comes through.
    client.send_query("SELECT pg_sleep(100)").expect("sent");
    eventually!({
        client.cancel().expect("sent");
        bench.cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'").expect("an answer").trim() == "0"
    });
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"));
    assert!(!ended.is_finished());
    // Whoever gave the order is not waited for.
    client.terminate().expect("sent");
    done(ended);
    drop(console);
    let events = bench.shared.events.all();
    let messages: Vec<&str> = events.iter().map(|event| &*event.message).collect();
    for expected in [
        "has started",
        "is up as primary",
        "SHUTDOWN WAIT_FOR_CLIENTS by boss",
        "ends",
    ] {
        assert!(messages.contains(&expected), "{expected}: {messages:?}");
    }
}

#[test]
fn a_second_order_hurries_an_end() {
    let mut bench = bench("", "");
    let mut idle = bench.client();
    let mut open = bench.client();
    bench.run(&mut open, "BEGIN; INSERT INTO t VALUES (1)");
    let proxy = bench.proxy.take().expect("it runs");
    let ended = thread::spawn(move || proxy.linger());
    eventually!(bench.open().is_err());
    bench.run(&mut idle, "SELECT 1");
    // From waiting for clients to waiting for their transactions.
    assert!(
        bench
            .order(Order::Shutdown(Shutdown::WaitForServers))
            .is_ok()
    );
    let answer = idle.until_closed().expect("words");
    assert_eq!(answer.sqlstate().as_deref(), Some("57P01"));
    bench.run(&mut open, "INSERT INTO t VALUES (1)");
    assert!(!ended.is_finished());
    assert!(bench.order(Order::Shutdown(Shutdown::Now)).is_ok());
    let answer = open.until_closed().expect("words");
    assert_eq!(answer.sqlstate().as_deref(), Some("57P01"));
    done(ended);
}

#[test]
fn names_that_do_not_exist_are_refused_with_the_nearest_and_facts_tell_of_failures() {
    let cluster = testing::cluster();
    let config = testing::config(&cluster, "", "").replace("[databases.\"*\"]", "[databases.app]");
    let bench = Bench::start(cluster, &config);
    let database = || Some("apq".to_owned());
    for order in [
        Order::Pause {
            database: database(),
        },
        Order::Resume {
            database: database(),
        },
        Order::Reconnect {
            database: database(),
        },
        Order::WaitClose {
            database: database(),
        },
        Order::Disable {
            database: "apq".to_owned(),
        },
        Order::Enable {
            database: "apq".to_owned(),
        },
        Order::Kill(Whom::Database("apq".to_owned())),
    ] {
        let refusal = bench.order(order).expect_err("unknown");
        assert_eq!(
            (&refusal.sqlstate, refusal.hint),
            (b"3D000", Some(perhaps("app")))
        );
    }
    let cluster = &bench.shared.clusters[0];
    assert!(cluster.records().iter().all(|node| node.since.is_some()));
    bench.cluster.node(2).kill().expect("killed");
    eventually!({
        let records = cluster.records();
        records[2].errors > 0 && records[2].last_error.is_some()
    });
    eventually!(
        bench.shared.events.all().iter().any(|event| {
            event.kind == EventKind::Server && event.message.starts_with("is down")
        })
    );
}
