//! What is reported of a proxy in this process that serves real clients before a real cluster.

use std::io::Write;
use std::sync::Mutex;

use pgweir_metrics::{DatabaseCounts, Destination, Statement};
use pgweir_model::{Reason, Role};
use pgweir_testkit::{Client, append_execute, append_parse, eventually};
use pgweir_wire::frontend::Sync;

use super::*;
use crate::testing::{self, Bench, USER};

/// Starts a proxy, and waits until a replica takes reads.
fn bench(database: &str) -> Bench {
    let cluster = testing::cluster();
    let database = format!("consistency = \"eventual\"\n{database}");
    let config = testing::config(&cluster, "", &database);
    let bench = Bench::start(cluster, &config);
    let mut client = bench.client();
    eventually!({
        // Also what needs the catalog.
        bench.run(&mut client, "SELECT count(*) FROM t WHERE a < 0");
        bench.run(&mut client, "SHOW pgweir.last_route") == "replica (read)"
    });
    bench
}

impl Bench {
    fn facts(&self, wanted: Wanted) -> Facts {
        facts_of(&self.shared, wanted)
    }

    fn counts(&self) -> DatabaseCounts {
        let mut facts = self.facts(Wanted::default());
        facts.counts.databases.remove(USER).expect("it was used")
    }

    /// Returns what is known of the one statement whose shape holds this.
    #[track_caller]
    fn statement(&self, mark: &str) -> Statement {
        let facts = self.facts(Wanted {
            statements: true,
            ..Wanted::default()
        });
        let is_it = |of: &(StatementKey, Statement)| of.1.shape.contains(mark);
        let mut found = facts.statements.into_iter().filter(is_it);
        let (key, statement) = found.next().expect(mark);
        assert_eq!((&*key.database, found.next()), (USER, None));
        statement
    }

    /// Returns what is known of a client.
    fn shown(&self, client: &Client) -> ClientFacts {
        let facts = self.facts(Wanted::ALL);
        let id = client.process_id();
        let mut found = facts.clients.into_iter().filter(|of| of.id == id);
        found.next().expect("it is there")
    }
}

fn facts_of(shared: &Arc<Shared>, wanted: Wanted) -> Facts {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(shared.facts(wanted))
}

fn route(counts: &DatabaseCounts, destination: Destination, reason: Reason) -> u64 {
    let count = counts.routes.get(&(destination, reason));
    count.copied().unwrap_or_default()
}

#[test]
fn batches_are_counted_by_where_they_went_and_statements_by_their_shape() {
    let bench = bench("");
    let mut client = bench.client();
    let before = bench.counts();
    bench.run(
        &mut client,
        "INSERT INTO t SELECT 0 AS three FROM generate_series(1, 3)",
    );
    let inserted = bench.counts();
    let on_primary = |counts: &DatabaseCounts| counts.query[&Destination::Primary].count();
    assert_eq!(on_primary(&inserted) - on_primary(&before), 1);
    let read = |client: &mut Client| client.query("SELECT a FROM t").expect("an answer");
    eventually!(read(&mut client).rows().len() == 3);
    let between = bench.counts();
    for limit in ["3", "4", "5", "6"] {
        bench.run(
            &mut client,
            &format!("SELECT a AS four FROM t LIMIT {limit}"),
        );
    }
    let failed = client.query("SELECT nothing").expect("an answer");
    assert_eq!(failed.sqlstate().as_deref(), Some("42703"));
    bench.run(&mut client, "SHOW pgweir.route");
    for sql in [
        "BEGIN",
        "UPDATE t SET a = 5 WHERE a = 17",
        "SELECT 5 AS five FROM t",
        "COMMIT",
    ] {
        bench.run(&mut client, sql);
    }
    let after = bench.counts();
    let more = |destination, reason| {
        route(&after, destination, reason) - route(&between, destination, reason)
    };
    let routes = (&between.routes, &after.routes);
    assert_eq!(more(Destination::Replica, Reason::Read), 4, "{routes:?}");
    // The failing one is a read, too; what it names might not have been replayed yet.
    assert_eq!(more(Destination::Primary, Reason::Rerouted), 1);
    assert_eq!(more(Destination::Primary, Reason::InTransaction), 2);
    // SHOW, and a BEGIN that is held back.
    assert_eq!(more(Destination::Local, Reason::Local), 2);
    assert_eq!(after.queries - between.queries, 10);
    assert_eq!(after.transactions - between.transactions, 6);
    assert_eq!(after.assignments - between.assignments, 7);
    assert_eq!(after.server_errors.get(b"42"), Some(&1), "{after:?}");
    assert_eq!(after.routes.values().sum::<u64>(), after.queries);
    let timed: u64 = after
        .query
        .values()
        .map(pgweir_metrics::Histogram::count)
        .sum();
    let local = route(&after, Destination::Local, Reason::Local);
    assert_eq!(timed + local, after.queries);
    assert!(after.received_bytes > between.received_bytes);
    assert!(after.sent_bytes > between.sent_bytes);

    check_statements(&bench);
    let facts = bench.facts(Wanted::default());
    assert!(facts.counts.logins >= 3);
    assert_eq!(facts.counts.spared.reroutes, 1);
    assert!(facts.statements.is_empty() && facts.clients.is_empty());
    check_nodes(&facts, &after);
    let shared = &bench.shared;
    for worker in 0..shared.workers().len() {
        shared.send(worker, Mail::ResetStatements);
    }
    assert!(bench.facts(Wanted::ALL).statements.is_empty());
}

#[track_caller]
fn check_statements(bench: &Bench) {
    let insert = bench.statement("three");
    assert_eq!((insert.calls, insert.rows, insert.on_primary), (1, 3, 1));
    let read = bench.statement("four");
    assert_eq!((read.calls, read.rows, read.on_replica), (4, 12, 4));
    assert_eq!((read.last_reason, read.errors), (Some(Reason::Read), 0));
    let failing = bench.statement("nothing");
    assert_eq!((failing.calls, failing.errors, failing.rows), (1, 1, 0));
    let inside = bench.statement("five");
    assert_eq!(inside.last_reason, Some(Reason::InTransaction));
}

/// The counts of the servers are those of the database, which nobody else uses.
#[track_caller]
fn check_nodes(facts: &Facts, after: &DatabaseCounts) {
    let of = |role| {
        let nodes = facts.clusters[0].topology.nodes.iter();
        let ids = nodes
            .filter(move |node| node.role == Some(role))
            .map(|node| node.id);
        ids.filter_map(|id| facts.counts.nodes.get(&id))
    };
    let answered = |destination| after.query[&destination].count();
    for (role, destination) in [
        (Role::Primary, Destination::Primary),
        (Role::Replica, Destination::Replica),
    ] {
        let queries = of(role).map(|node| node.queries).sum::<u64>();
        assert_eq!(queries, answered(destination), "{role}");
        assert!(of(role).any(|node| node.connects >= 1), "{role}");
    }
}

#[test]
fn a_pipeline_is_accounted_for_batch_by_batch() {
    let bench = bench("");
    let mut client = bench.client();
    let mut prepared = Vec::new();
    append_parse(&mut prepared, "only", "SELECT 6 AS six FROM t");
    Sync.encode(&mut prepared);
    client.send(&prepared).expect("sent");
    client.until_ready().expect("an answer");
    let before = bench.counts();
    let mut out = Vec::new();
    for sql in [
        "INSERT INTO t SELECT 1 AS one FROM generate_series(1, 2)",
        "INSERT INTO t SELECT 1/0 AS broken",
        "INSERT INTO t SELECT 2 AS two FROM generate_series(1, 5)",
    ] {
        append_execute(&mut out, sql, &[]);
        Sync.encode(&mut out);
    }
    client.send(&out).expect("sent");
    for _ in 0..3 {
        client.until_ready().expect("an answer");
    }
    let after = bench.counts();
    assert_eq!(after.queries - before.queries, 3);
    assert_eq!(after.transactions - before.transactions, 3);
    assert_eq!(after.binds - before.binds, 3);
    assert_eq!(after.client_parses - before.client_parses, 3);
    assert_eq!(after.server_parses - before.server_parses, 3);
    assert_eq!(after.server_errors.get(b"22"), Some(&1));
    let of = |mark: &str| {
        let statement = bench.statement(mark);
        (statement.calls, statement.rows, statement.errors)
    };
    assert_eq!(of("one"), (1, 2, 0));
    assert_eq!(of("broken"), (1, 0, 1));
    assert_eq!(of("two"), (1, 5, 0));
    // What was only prepared has not been called.
    let all = bench.facts(Wanted::ALL);
    assert!(
        !all.statements
            .iter()
            .any(|(_, of)| of.shape.contains("six"))
    );
    let prepared = all.prepared.iter().find(|of| of.text.contains("six"));
    assert_eq!(prepared.map(|of| of.clients), Some(1));
    assert_eq!(bench.shown(&client).prepared_statements, 1);
}

#[test]
fn clients_and_their_server_connections_are_shown_and_waits_are_timed() {
    let bench = bench("pool_size = 1");
    let mut holder = bench.client();
    let idle = bench.client();
    bench.run(&mut holder, "BEGIN; INSERT INTO t SELECT 1 AS held");
    let shown = bench.shown(&holder);
    assert_eq!(
        (shown.state, shown.in_transaction),
        (ClientState::Active, true)
    );
    assert_eq!(shown.role, Some(Role::Primary));
    assert!(shown.transaction_since.is_some() && shown.server_process_id.is_some());
    assert!(
        shown
            .query
            .as_deref()
            .is_some_and(|query| query.contains("held"))
    );
    assert!(shown.address.starts_with("127.0.0.1:") && *shown.local_address == *bench.addr);
    let other = bench.shown(&idle);
    assert_eq!((other.state, other.node), (ClientState::Idle, None));

    let mut waiting = bench.client();
    waiting
        .send_query("INSERT INTO t SELECT 2 AS waiting")
        .expect("sent");
    eventually!(bench.shown(&waiting).state == ClientState::Waiting);
    let facts = bench.facts(Wanted::ALL);
    let states = facts.client_states.iter().find(|(name, _)| **name == *USER);
    assert_eq!(
        states.map(|(_, states)| (states[0], states[1])),
        Some((1, 1))
    );
    let primary = facts.clusters[0].topology.primary().expect("a primary").id;
    let pool = facts
        .pools
        .iter()
        .find(|pool| pool.key.node == primary && *pool.key.user == *USER);
    let pool = pool.expect("a pool");
    assert_eq!(
        (pool.limit, pool.open, pool.idle, pool.waiting),
        (1, 1, 0, 1)
    );
    assert!(pool.oldest_wait.is_some() && *pool.database == *USER);
    let leased = facts
        .servers
        .iter()
        .find(|of| of.client == Some(holder.process_id()));
    let leased = leased.expect("it has a server connection");
    assert_eq!(
        (leased.state, leased.key.node),
        (ServerState::Active, primary)
    );
    assert!(
        facts
            .servers
            .iter()
            .any(|of| of.state == ServerState::Idle && of.client.is_none())
    );
    assert_eq!(
        facts.clusters[0].nodes[usize::from(primary.node)].in_flight,
        1
    );

    check_wait(&bench, holder, waiting);
}

/// Ends the transaction that a client waits for.
#[track_caller]
fn check_wait(bench: &Bench, mut holder: Client, mut waiting: Client) {
    let began = Instant::now();
    eventually!(began.elapsed() > Duration::from_millis(320));
    bench.run(&mut holder, "COMMIT");
    assert_eq!(waiting.until_ready().expect("an answer").error(), None);
    let shown = bench.shown(&waiting);
    assert!(shown.wait > Duration::from_millis(300), "{shown:?}");
    assert_eq!(
        (shown.state, shown.last_route),
        (ClientState::Idle, Some((Role::Primary, Reason::Write)))
    );
    let counts = bench.counts();
    assert!(counts.wait.count() >= 1 && counts.wait.sum_us() > 300_000);
    assert!(counts.transaction_us > 300_000);
}

/// Where the log of the whole process goes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut all = (self.0.lock()).map_err(|_| std::io::Error::other("a panic"))?;
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_batch_is_logged_with_its_text_and_a_fast_one_is_not() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Workers are threads of their own, so that only a subscriber of the process hears them.
    tracing::subscriber::set_global_default(subscriber).expect("the only one of this binary");
    let bench = bench("");
    let mut client = bench.client();
    bench.run(&mut client, "SELECT 'quick one' FROM t");
    bench.run(&mut client, "SELECT pg_sleep(0.4), 'the slow one'");
    let log = || String::from_utf8_lossy(&lines.0.lock().expect("no panic")).into_owned();
    eventually!(log().contains("the slow one"));
    let log = log();
    let line = log
        .lines()
        .find(|line| line.contains("the slow one"))
        .expect("a line");
    for part in [
        "slow statement",
        "fingerprint=",
        "text=",
        "route=\"replica\"",
        "backend=",
        "server_ms=4",
        "user=\"app\"",
        "database=\"app\"",
        "wait_ms=",
        "total_ms=",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains("quick one"), "{log}");
}

fn part(calls: u64) -> Part {
    let key = StatementKey {
        database: "app".into(),
        fingerprint: 7,
    };
    let statement = Statement {
        calls,
        ..Statement::default()
    };
    Part {
        client_states: vec![("app".into(), [1, 0, 2])],
        in_flight: vec![(
            NodeId {
                cluster: 0,
                node: 1,
            },
            3,
        )],
        statements: vec![(key, statement)],
        learned: vec![LearnedRoute {
            fingerprint: 7,
            shape: "select".into(),
        }],
        ..Part::default()
    }
}

#[test]
fn what_workers_report_is_told_once() {
    let mut sum = Sum::default();
    sum.add(part(2));
    sum.add(part(5));
    let sum = sum.finish();
    assert_eq!(sum.client_states, [(Arc::from("app"), [2, 0, 4])]);
    assert_eq!(sum.in_flight[0].1, 6);
    let calls: Vec<u64> = sum.statements.iter().map(|(_, of)| of.calls).collect();
    assert_eq!((calls.as_slice(), sum.learned.len()), (&[7][..], 1));
}

#[test]
fn later_counts_of_a_worker_are_not_replaced_by_earlier_ones() {
    let of = |logins| Counts {
        logins,
        ..Counts::default()
    };
    let earlier = Instant::now();
    let later = earlier + Duration::from_millis(1);
    let last = LastCounts::default();
    let sum = || {
        let mut sum = of(100);
        last.add_to(&mut sum);
        sum.logins
    };
    assert_eq!(sum(), 100);
    last.keep(Some(later), of(7));
    last.keep(Some(earlier), of(5));
    assert_eq!(sum(), 107);
    last.keep(Some(later), of(8));
    assert_eq!(sum(), 108);
}

#[test]
fn counts_stay_when_a_worker_does_not_answer_any_more() {
    let mut bench = bench("");
    let mut client = bench.client();
    bench.run(&mut client, "INSERT INTO t VALUES (1)");
    let before = bench.facts(Wanted::default());
    let proxy = bench.proxy.take().expect("it runs");
    let shared = Arc::clone(proxy.shared());
    proxy.stop();
    let after = facts_of(&shared, Wanted::default());
    assert_eq!(before.counts.databases, after.counts.databases);
    assert_eq!(before.counts.logins, after.counts.logins);
    assert_ne!(after.counts.logins, 0);
    // What is no count is left out.
    assert_ne!(before.client_states, []);
    assert_eq!(after.client_states, []);
}

#[test]
fn a_transaction_that_no_server_saw_is_counted_and_what_the_proxy_asks_itself_is_no_wait() {
    let bench = bench("");
    let mut client = bench.client();
    bench.run(&mut client, "SELECT 1");
    let before = bench.counts();
    bench.run(&mut client, "BEGIN");
    assert!(bench.shown(&client).transaction_since.is_some());
    bench.run(&mut client, "COMMIT");
    assert_eq!(bench.shown(&client).transaction_since, None);
    let after = bench.counts();
    let queries = route(&after, Destination::Local, Reason::Local)
        - route(&before, Destination::Local, Reason::Local);
    assert_eq!(queries, 2);
    assert_eq!(after.transactions - before.transactions, 1);
    // It has begun with the BEGIN, and is one, also where a server takes it from there.
    bench.run(&mut client, "BEGIN");
    bench.run(&mut client, "INSERT INTO t VALUES (1)");
    bench.run(&mut client, "COMMIT");
    assert_eq!(bench.counts().transactions - after.transactions, 1);
    // All threads are asked for it.
    let waits = bench.counts().wait.count();
    bench.run(&mut client, "SHOW pgweir.observed");
    assert_eq!(bench.counts().wait.count(), waits);
}

#[test]
fn a_pool_is_named_as_its_clients_name_the_database_if_they_agree() {
    let text = "auth.method = 'trust'\nclusters.main.backends = [{ host = 'a' }]\n\
        [databases.shop]\ndbname = 'real'\n[databases.one]\ndbname = 'both'\n\
        [databases.two]\ndbname = 'both'\n[databases.'*']\n";
    let config = pgweir_config::parse(text, "f").unwrap();
    let named = |database: &str| {
        let key = PoolKey {
            node: NodeId {
                cluster: 0,
                node: 0,
            },
            database: database.into(),
            user: "app".into(),
        };
        named_by_clients(&config, &key).to_string()
    };
    assert_eq!(named("real"), "shop");
    assert_eq!(named("both"), "both");
    assert_eq!(named("other"), "other");
}
