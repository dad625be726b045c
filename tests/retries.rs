//! Safety nets on real clusters: what a replica suffers or refuses, and what a change of the schema does to prepared statements,
//! is no concern of a client that has seen nothing of its result.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use pgweir_devcluster::{Cluster, StopMode};
use pgweir_testkit::{Client, eventually, patience};
use pgweir_wire::{TransactionStatus, backend};

use crate::flavours::{FLAVOURS, Flavour, make_ready, reader, run, send};
use crate::support::{
    DATABASE, PASSWORD, Proxy, USER, cluster, config, direct, last_route, login, messages,
    new_cluster, ok, wait_for_replicas,
};

/// How many reads have been answered, and whether to go on.
#[derive(Default)]
struct Progress {
    reads: AtomicUsize,
    is_over: AtomicBool,
}

impl Progress {
    /// Waits until so many more reads have been answered.
    fn wait(&self, more: usize) {
        let aim = self.reads.load(Ordering::SeqCst) + more;
        eventually!(
            self.reads.load(Ordering::SeqCst) >= aim || self.is_over.load(Ordering::SeqCst)
        );
    }
}

/// Ends the readers when the test fails, too.
struct Over<'a>(&'a Progress);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

fn read_on(proxy: &Proxy, flavour: Flavour, progress: &Progress) {
    let _over = Over(progress);
    let mut client = reader(proxy);
    // Most of the time there is one under way.
    let sql = "SELECT 42, pg_sleep(0.003)";
    make_ready(&mut client, flavour, sql);
    while !progress.is_over.load(Ordering::SeqCst) {
        let answer = run(&mut client, flavour, sql);
        assert_eq!(answer.error(), None, "{flavour:?}");
        assert_eq!(answer.rows().len(), 1, "{flavour:?}");
        assert_eq!(answer.value().as_deref(), Some("42"), "{flavour:?}");
        progress.reads.fetch_add(1, Ordering::SeqCst);
    }
}

const TERMINATE: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";

#[test]
fn readers_do_not_notice_that_replicas_are_killed_restarted_and_lose_their_sessions() {
    let cluster = new_cluster(2);
    let proxy = Proxy::start_ready(&config(&cluster));
    wait_for_replicas(&mut proxy.client());
    let progress = Progress::default();
    thread::scope(|scope| {
        for flavour in FLAVOURS.into_iter().chain(FLAVOURS) {
            let (proxy, progress) = (&proxy, &progress);
            scope.spawn(move || read_on(proxy, flavour, progress));
        }
        let _over = Over(&progress);
        progress.wait(50);
        cluster.replica(0).kill().expect("killed");
        progress.wait(50);
        let mut terminated = 0;
        for _ in 0..10 {
            let count = cluster
                .replica(1)
                .sql("postgres", TERMINATE)
                .expect("a count");
            terminated += count.parse::<usize>().expect("a number");
            progress.wait(20);
        }
        assert!(terminated > 0, "nobody was on the replica");
        cluster.replica(0).start().expect("started");
        progress.wait(50);
        cluster
            .replica(1)
            .restart(StopMode::Fast)
            .expect("restarted");
        progress.wait(50);
        cluster
            .replica(0)
            .restart(StopMode::Immediate)
            .expect("restarted");
        progress.wait(50);
        assert!(!progress.is_over.load(Ordering::SeqCst), "a reader failed");
    });
    let lost = proxy.log().matches("was lost in use").count();
    assert!(lost > 3, "hardly a connection was lost in use: {lost}");
}

#[test]
fn without_retries_the_client_hears_that_its_replica_is_gone() {
    let cluster = new_cluster(1);
    let config =
        config(&cluster).replace("[databases.\"*\"]", "[databases.\"*\"]\nread_retries = 0");
    let proxy = Proxy::start_ready(&config);
    wait_for_replicas(&mut proxy.client());
    let mut client = reader(&proxy);
    client.send_query("SELECT pg_sleep(100)").expect("sent");
    wait_until_active(&cluster, "SELECT pg_sleep(100)");
    cluster
        .replica(0)
        .sql("postgres", TERMINATE)
        .expect("terminated");
    let seen = client.until_closed().expect("closed");
    assert_eq!(seen.sqlstate().as_deref(), Some("57P01"), "{seen:?}");
}

/// A cluster of one replica that cancels reads at once when they stand in the way of replay. Its users take turns.
fn impatient() -> (&'static Cluster, MutexGuard<'static, ()>) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = CLUSTER.get_or_init(|| {
        Cluster::builder()
            .replicas(1)
            .setting("max_standby_streaming_delay", "20ms")
            .setting("hot_standby_feedback", "off")
            .role(USER, PASSWORD)
            .database(DATABASE)
            .sql(format!("ALTER DATABASE {DATABASE} OWNER TO {USER}"))
            .start()
            .expect("a cluster starts")
    });
    (cluster, turn)
}

fn wait_until_active(cluster: &Cluster, text: &str) {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = '{USER}' AND strpos(query, '{text}') > 0"
    );
    eventually!(cluster.replica(0).sql("postgres", &query).expect("a count") == "1");
}

#[test]
fn a_read_cancelled_by_a_recovery_conflict_is_answered_by_another_server() {
    let (cluster, _turn) = impatient();
    let proxy = Proxy::start_ready(&config(cluster));
    wait_for_replicas(&mut proxy.client());
    let mut owner = direct(cluster);
    ok(&mut owner, "CREATE TABLE conflict (i int)");
    let conflicts = || {
        let sql = format!(
            "SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname = '{DATABASE}'"
        );
        let count = cluster.replica(0).sql("postgres", &sql).expect("a count");
        count.parse::<u32>().expect("a number")
    };
    for flavour in FLAVOURS {
        ok(
            &mut owner,
            "INSERT INTO conflict SELECT generate_series(1, 100)",
        );
        cluster
            .wait_caught_up(patience::PATIENCE)
            .expect("caught up");
        wait_for_replicas(&mut proxy.client());
        let before = conflicts();
        let mut client = reader(&proxy);
        // Shorter than anyone's patience where nothing cancels it.
        let sql = "SELECT count(*) FROM conflict, (SELECT pg_sleep(4)) AS slept";
        make_ready(&mut client, flavour, sql);
        send(&mut client, flavour, sql);
        wait_until_active(cluster, "AS slept");
        ok(&mut owner, "DELETE FROM conflict");
        ok(&mut owner, "VACUUM conflict");
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.error(), None, "{flavour:?}");
        // The replica's answer would have been of the time before.
        assert_eq!(answer.value().as_deref(), Some("0"), "{flavour:?}");
        assert_eq!(answer.rows().len(), 1, "{flavour:?}");
        assert_eq!(
            last_route(&mut client),
            "primary (replica_down)",
            "{flavour:?}"
        );
        eventually!(conflicts() == before + 1);
    }
}

#[test]
fn a_read_that_somebody_else_cancels_runs_again_and_one_that_its_client_cancels_does_not() {
    let (cluster, _turn) = impatient();
    let proxy = Proxy::start_ready(&config(cluster));
    for flavour in FLAVOURS {
        wait_for_replicas(&mut proxy.client());
        let mut client = reader(&proxy);
        let sql = "SELECT 7, pg_sleep(2)";
        make_ready(&mut client, flavour, sql);
        send(&mut client, flavour, sql);
        wait_until_active(cluster, "SELECT 7");
        cluster
            .replica(0)
            .sql("postgres", &TERMINATE.replace("terminate", "cancel"))
            .expect("cancelled");
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.error(), None, "{flavour:?}");
        assert_eq!(last_route(&mut client), "primary (replica_down)");
        send(&mut client, flavour, sql);
        wait_until_active(cluster, "SELECT 7");
        client.cancel().expect("cancelled");
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.sqlstate().as_deref(), Some("57014"), "{flavour:?}");
        // Its own limit is its own, too.
        ok(&mut client, "SET statement_timeout = 50");
        ok(&mut client, "SET pgweir.route = replica");
        let answer = run(&mut client, flavour, sql);
        assert_eq!(answer.sqlstate().as_deref(), Some("57014"), "{flavour:?}");
    }
}

#[test]
fn a_result_of_which_a_part_was_sent_is_not_begun_again() {
    let (cluster, _turn) = impatient();
    let proxy = Proxy::start_ready(&config(cluster));
    for flavour in FLAVOURS {
        wait_for_replicas(&mut proxy.client());
        let mut client = reader(&proxy);
        let sql = "SELECT g, repeat('x', 1000), pg_sleep(CASE WHEN g = 500 THEN 100 ELSE 0 END) FROM generate_series(1, 1000) g";
        make_ready(&mut client, flavour, sql);
        send(&mut client, flavour, sql);
        let mut seen = client.until(backend::tag::DATA_ROW).expect("a row");
        wait_until_active(cluster, "WHEN g = 500");
        cluster
            .replica(0)
            .sql("postgres", TERMINATE)
            .expect("terminated");
        seen.0.extend(client.until_closed().expect("closed").0);
        let rows: Vec<_> = seen
            .rows()
            .into_iter()
            .filter_map(|row| row[0].clone())
            .collect();
        let expected: Vec<_> = (1..=rows.len()).map(|n| n.to_string()).collect();
        assert_eq!(rows, expected, "{flavour:?}");
        let errors: Vec<_> = (seen.0.iter())
            .filter_map(|message| message.sqlstate())
            .collect();
        assert_eq!(errors, ["57P01"], "{flavour:?}");
    }
}

#[test]
fn what_a_replica_has_not_replayed_yet_is_looked_for_on_the_primary() {
    let (cluster, _turn) = impatient();
    let config = config(cluster).replace("[clusters.main]", "[clusters.main]\nmax_lag = \"1h\"");
    let proxy = Proxy::start_ready(&config);
    wait_for_replicas(&mut proxy.client());
    let mut owner = direct(cluster);
    ok(&mut owner, "CREATE TABLE behind (i int)");
    cluster
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    cluster.replica(0).pause_replay().expect("paused");
    let mut client = reader(&proxy);
    for (change, read) in [
        (
            "CREATE TABLE behind_table AS SELECT 1 AS one",
            "SELECT one FROM behind_table",
        ),
        (
            "ALTER TABLE behind ADD COLUMN one int",
            "SELECT count(one) + 1 FROM behind",
        ),
        (
            "CREATE SCHEMA behind_schema; CREATE VIEW behind_schema.v AS SELECT 1",
            "SELECT * FROM behind_schema.v",
        ),
        (
            "CREATE TYPE behind_type AS ENUM ('1')",
            "SELECT '1'::behind_type /* pgweir: route=replica */",
        ),
        (
            "CREATE FUNCTION behind_one() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
            "SELECT behind_one() /* pgweir: route=replica */",
        ),
    ] {
        ok(&mut owner, change);
        for flavour in [Flavour::Simple, Flavour::Extended] {
            let answer = run(&mut client, flavour, read);
            assert_eq!(answer.error(), None, "{flavour:?} {read}");
            assert_eq!(answer.value().as_deref(), Some("1"), "{flavour:?} {read}");
            assert_eq!(last_route(&mut client), "primary (rerouted)", "{read}");
        }
    }
    cluster.replica(0).resume_replay().expect("resumed");
    cluster
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    // That was no lesson about these shapes.
    wait_for_replicas(&mut proxy.client());
    ok(&mut client, "SELECT one FROM behind_table");
    assert_eq!(last_route(&mut client), "replica (read)");
}

/// What the statements that a standby refuses need.
const REFUSED_SCHEMA: &str = "
CREATE SCHEMA refused;
SET search_path = refused;
CREATE TABLE t (id int PRIMARY KEY, body tsvector);
INSERT INTO t VALUES (1, 'a');
CREATE INDEX t_gin ON t USING gin (body);
CREATE INDEX t_brin ON t USING brin (id);
CREATE TABLE log (id int);
CREATE UNLOGGED TABLE scratch (id int);
CREATE SEQUENCE s;
CREATE FUNCTION f_write(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO refused.log VALUES ($1); RETURN $1; END';
CREATE FUNCTION f_lying_stable(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT refused.f_write($1)';
CREATE FUNCTION f_lying_immutable(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN refused.f_write($1); END';
CREATE FUNCTION f_notify() RETURNS void LANGUAGE sql AS $$SELECT pg_notify('c', 'x')$$;
CREATE FUNCTION f_temp() RETURNS int LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE x (i int) ON COMMIT DROP; RETURN 1; END';
CREATE VIEW v_nextval AS SELECT nextval('refused.s') > 0 AS yes;
CREATE VIEW v_write AS SELECT f_write(id) FROM t;
CREATE FUNCTION op(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT refused.f_write($1) = $2';
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = op);
CREATE TYPE cw AS (v int);
CREATE FUNCTION to_cw(int) RETURNS cw LANGUAGE sql AS 'SELECT row(refused.f_write($1))::refused.cw';
CREATE CAST (int AS cw) WITH FUNCTION to_cw(int);
CREATE DOMAIN dw AS int CHECK (refused.f_write(VALUE) = VALUE);
CREATE FUNCTION sum_step(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + refused.f_write($2)';
CREATE AGGREGATE sumw(int) (SFUNC = sum_step, STYPE = int, INITCOND = '0');
CREATE TABLE rls (id int);
INSERT INTO rls VALUES (1);
ALTER TABLE rls ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON rls USING (refused.f_write(id) = id);
CREATE SCHEMA refused_shadow;
CREATE FUNCTION refused_shadow.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1 || refused.f_write(1)';
SELECT lo_create(4711);
";

/// What a standby refuses aloud, of the statements that are no known writes.
const REFUSED: &[&str] = &[
    "SELECT f_write(1)",
    "VALUES (f_write(1))",
    "SELECT t.id FROM t, LATERAL f_write(t.id)",
    "SELECT id FROM t WHERE f_write(id) = 1",
    "SELECT id FROM t ORDER BY f_write(id)",
    "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT f_write(1)",
    "SELECT 1; SELECT f_write(1)",
    "SELECT nextval('s') > 0",
    "SELECT pg_catalog.nextval('s') > 0",
    "SELECT setval('s', 10)",
    "SELECT f_lying_stable(1)",
    "SELECT f_lying_immutable(id) FROM t",
    "SELECT * FROM v_nextval",
    "SELECT * FROM v_write",
    "SELECT 1 === 1",
    "SELECT 1::cw",
    "SELECT 1::dw",
    "SELECT sumw(id) FROM t",
    "SELECT * FROM rls",
    "SELECT refused_shadow.lower('A')",
    "SELECT f_notify()",
    "SELECT pg_notify('c', 'x')",
    "SELECT f_temp()",
    "SELECT txid_current() > 0",
    "SELECT pg_current_xact_id() IS NOT NULL",
    "SELECT pg_current_wal_lsn() IS NOT NULL",
    "SELECT pg_logical_emit_message(false, 'a', 'b') IS NOT NULL",
    "SELECT lo_create(0) > 0",
    "SELECT lo_from_bytea(0, 'x') > 0",
    "SELECT lo_put(4711, 0, 'x')",
    "SELECT gin_clean_pending_list('t_gin')",
    "SELECT brin_summarize_new_values('t_brin')",
    "SELECT count(*) FROM scratch",
    "SELECT query_to_xml('SELECT refused.f_write(1)', true, false, '') IS NOT NULL",
    "COPY (SELECT f_write(1)) TO STDOUT",
    "SELECT currval('s')",
    "SELECT lastval()",
    "SELECT no_such_column FROM t",
    "SELECT * FROM no_such_table",
];

#[test]
fn whatever_a_standby_refuses_is_answered_as_the_primary_would() {
    let mut owner = direct(cluster());
    let script = owner.query(REFUSED_SCHEMA).expect("an answer");
    assert_eq!(script.error(), None, "{script:?}");
    cluster()
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    let proxy = Proxy::start_ready(&config(cluster()));
    wait_for_replicas(&mut proxy.client());
    let login = login().parameter("options", "-c search_path=refused");
    let address = format!("127.0.0.1:{}", cluster().primary().port());
    let mut wrong = Vec::new();
    for sql in REFUSED {
        for flavour in [Flavour::Simple, Flavour::Extended] {
            if flavour == Flavour::Extended && sql.contains("; ") {
                continue;
            }
            // Each in a session of its own: some leave something behind.
            let mut oracle = Client::open(&address, &login).expect("a login");
            let mut client = Client::open(proxy.addr(), &login).expect("a login");
            let hinted = format!("/* pgweir: route=replica */ {sql}");
            let (expected, got) = (
                run(&mut oracle, flavour, &hinted),
                run(&mut client, flavour, &hinted),
            );
            if messages(&expected) != messages(&got) {
                wrong.push(format!(
                    "{flavour:?} {sql}:\n  {:?}\n  {:?}",
                    messages(&expected),
                    messages(&got)
                ));
            }
            assert_eq!(client.status(), TransactionStatus::Idle, "{sql}");
            let route = last_route(&mut client);
            if route != "primary (rerouted)" {
                wrong.push(format!("{flavour:?} {sql}: {route}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
