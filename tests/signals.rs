//! `pg_cancel_backend` and `pg_terminate_backend` of the process ID that a client of the proxy was given: they reach the server
//! process that serves that client, by PostgreSQL's own rules of who may signal whom, and nobody else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Answer, Client, Login, append_parse, eventually, patience};
use pgweir_wire::list::{Format, List, ListBuf, Value};
use pgweir_wire::{TransactionStatus, backend::field, frontend};

use crate::flavours::{FLAVOURS, Flavour, make_ready, reader, run, send};
use crate::support::{
    DATABASE, PASSWORD, Proxy, USER, cluster, config, direct, last_route, login, new_cluster, ok,
    prepare, value, wait_for_replicas,
};

fn proxy() -> Proxy {
    let proxy = Proxy::start_ready(&config(cluster()));
    wait_for_replicas(&mut proxy.client());
    proxy
}

/// Starts a proxy that another role than the application's may log in to as well; returns what it logs in with.
fn proxy_for_stranger(name: &str) -> (Proxy, Login) {
    let create = format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'");
    cluster().sql("postgres", &create).expect("a role");
    cluster()
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    let users = format!(
        "{}\n[[users]]\nname = \"{name}\"\npassword = \"{PASSWORD}\"\n",
        config(cluster())
    );
    let proxy = Proxy::start_ready(&users);
    wait_for_replicas(&mut proxy.client());
    (proxy, Login::new(name, DATABASE).password(PASSWORD))
}

/// Lets a session run a statement for long on the server that its route names, and waits until it runs.
fn busy(proxy: &Proxy, route: &str, mark: &str) -> Client {
    busy_on(cluster(), proxy, route, mark)
}

fn busy_on(cluster: &Cluster, proxy: &Proxy, route: &str, mark: &str) -> Client {
    let mut client = proxy.client();
    ok(&mut client, &format!("SET pgweir.route = '{route}'"));
    let sql = format!("SELECT '{mark}', pg_sleep(100)");
    client.send_query(&sql).expect("sent");
    eventually!(runs_on(cluster, mark));
    client
}

fn runs(mark: &str) -> bool {
    runs_on(cluster(), mark)
}

fn runs_on(cluster: &Cluster, mark: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT ''{mark}''%'"
    );
    let nodes = cluster.nodes().iter();
    nodes
        .map(|node| node.sql("postgres", &sql).expect("a count"))
        .any(|count| count == "1")
}

#[track_caller]
fn assert_canceled(client: &mut Client) {
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"), "{answer:?}");
    ok(client, "SELECT 1");
}

/// Runs a statement with one `int4` parameter in binary.
fn run_binary(client: &mut Client, sql: &str, parameter: u32) -> Answer {
    let mut out = Vec::new();
    append_parse(&mut out, "", sql);
    let formats = ListBuf::<Format>::collect([1]).expect("one format");
    let bytes = parameter.to_be_bytes();
    let values = ListBuf::<Value>::collect([Some(&bytes[..])]).expect("one value");
    frontend::Bind {
        portal: b"",
        statement: b"",
        parameter_formats: formats.as_list(),
        parameters: values.as_list(),
        result_formats: List::EMPTY,
    }
    .encode(&mut out);
    frontend::Execute {
        portal: b"",
        max_rows: 0,
    }
    .encode(&mut out);
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    client.until_ready().expect("an answer")
}

#[test]
fn a_client_is_cancelled_by_its_own_process_id_wherever_it_runs() {
    let proxy = proxy();
    for route in ["primary", "replica1", "replica2"] {
        for flavour in FLAVOURS {
            let mark = format!("by literal {route} {flavour:?}");
            let mut victim = busy(&proxy, route, &mark);
            let mut other = proxy.client();
            let sql = format!("SELECT pg_cancel_backend({})", victim.process_id());
            make_ready(&mut other, flavour, &sql);
            let answer = run(&mut other, flavour, &sql);
            assert_eq!(answer.value().as_deref(), Some("t"), "{mark}: {answer:?}");
            assert_canceled(&mut victim);
            let expected = match route {
                "primary" => "primary (primary_only)",
                _ => "replica (signal)",
            };
            assert_eq!(last_route(&mut other), expected, "{mark}");
        }
    }
}

#[test]
fn a_process_id_may_be_bound_as_text_or_in_binary() {
    let proxy = proxy();
    let sql = "SELECT pg_cancel_backend($1)";
    let mut victim = busy(&proxy, "replica1", "by text");
    let id = victim.process_id().to_string();
    let answer = proxy
        .client()
        .execute(sql, &[Some(&id)])
        .expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("t"), "{answer:?}");
    assert_canceled(&mut victim);
    let mut victim = busy(&proxy, "primary", "in binary");
    let answer = run_binary(&mut proxy.client(), sql, victim.process_id());
    assert_eq!(answer.value().as_deref(), Some("t"), "{answer:?}");
    assert_canceled(&mut victim);
}

#[test]
fn a_prepared_statement_follows_its_victim_to_another_server() {
    let proxy = proxy();
    let mut victim = busy(&proxy, "primary", "first here");
    let mut other = proxy.client();
    let sql = format!("SELECT pg_cancel_backend({})", victim.process_id());
    prepare(&mut other, "named", &sql);
    let answer = crate::support::run_named(&mut other, "named");
    assert_eq!(answer.value().as_deref(), Some("t"), "{answer:?}");
    assert_canceled(&mut victim);
    ok(&mut victim, "SET pgweir.route = 'replica2'");
    victim
        .send_query("SELECT 'then there', pg_sleep(100)")
        .expect("sent");
    eventually!(runs("then there"));
    let answer = crate::support::run_named(&mut other, "named");
    assert_eq!(answer.value().as_deref(), Some("t"), "{answer:?}");
    assert_canceled(&mut victim);
}

#[test]
fn a_terminated_client_hears_so_whether_it_is_busy_or_idle() {
    // An idle connection of another thread would not be found.
    let text = format!("[server]\nworkers = 1\n{}", config(cluster()));
    let proxy = Proxy::start_ready(&text);
    wait_for_replicas(&mut proxy.client());
    let mut idle_in_transaction = proxy.client();
    ok(&mut idle_in_transaction, "BEGIN");
    ok(&mut idle_in_transaction, "SELECT 1");
    let victims = [
        ("busy on the primary", busy(&proxy, "primary", "doomed")),
        ("busy on a replica", busy(&proxy, "replica1", "doomed too")),
        ("idle", proxy.client()),
        ("idle in a transaction", idle_in_transaction),
    ];
    for (what, mut victim) in victims {
        // An idle connection to the primary is there to be terminated on.
        ok(&mut proxy.client(), "SELECT pg_backend_pid()");
        let sql = format!("SELECT pg_terminate_backend({})", victim.process_id());
        assert_eq!(value(&mut proxy.client(), &sql), "t", "{what}");
        let seen = victim.until_closed().expect("closed");
        assert_eq!(
            seen.sqlstate().as_deref(),
            Some("57P01"),
            "{what}: {seen:?}"
        );
    }
}

#[test]
fn of_an_idle_client_there_is_nothing_to_cancel() {
    let proxy = proxy();
    let mut idle = proxy.client();
    let mut other = proxy.client();
    for id in [idle.process_id(), idle.process_id() + 100_000] {
        let answer = ok(&mut other, &format!("SELECT pg_cancel_backend({id})"));
        assert_eq!(answer.value().as_deref(), Some("f"));
    }
    ok(&mut idle, "SELECT 1");
}

#[test]
fn a_client_may_signal_itself() {
    let proxy = proxy();
    let mut client = proxy.client();
    let id = client.process_id();
    let answer = client
        .query(&format!("SELECT pg_cancel_backend({id}), pg_sleep(10)"))
        .expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"), "{answer:?}");
    client
        .send_query(&format!("SELECT pg_terminate_backend({id}), pg_sleep(10)"))
        .expect("sent");
    let seen = client.until_closed().expect("closed");
    assert_eq!(seen.sqlstate().as_deref(), Some("57P01"), "{seen:?}");
}

#[test]
fn a_server_process_id_means_that_process() {
    let proxy = proxy();
    let mut stranger = direct(cluster());
    let pid = value(&mut stranger, "SELECT pg_backend_pid()");
    stranger.send_query("SELECT pg_sleep(100)").expect("sent");
    let sql = format!("SELECT pg_cancel_backend({pid})");
    assert_eq!(value(&mut proxy.client(), &sql), "t");
    assert_canceled(&mut stranger);
}

#[test]
fn who_may_signal_whom_is_decided_by_postgresql() {
    let other = "signaller";
    let (proxy, login) = proxy_for_stranger(other);
    let mut client = Client::open(proxy.addr(), &login).expect("a login");
    for route in ["primary", "replica1"] {
        let mut victim = busy(&proxy, route, &format!("protected {route}"));
        for function in ["pg_cancel_backend", "pg_terminate_backend"] {
            let sql = format!("SELECT {function}({})", victim.process_id());
            let answer = client.query(&sql).expect("an answer");
            assert_eq!(answer.sqlstate().as_deref(), Some("42501"), "{answer:?}");
            let error = answer.error().and_then(|e| e.error_field(field::MESSAGE));
            assert!(error.is_some_and(|text| !text.starts_with("pgweir")));
        }
        assert!(runs(&format!("protected {route}")));
        victim.cancel().expect("cancelled");
        assert_canceled(&mut victim);
    }
    // One that is idle is spared as well, and goes on.
    let mut idle = proxy.client();
    let sql = format!("SELECT pg_terminate_backend({})", idle.process_id());
    let answer = client.query(&sql).expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("f"), "{answer:?}");
    for _ in 0..3 {
        ok(&mut idle, "SELECT 1");
        ok(&mut idle, "SELECT pg_backend_pid()");
    }
    drop(client);
    cluster()
        .sql("postgres", &format!("ALTER ROLE {other} NOLOGIN"))
        .expect("no login");
}

#[test]
fn nobody_is_held_up_by_a_termination_that_is_not_allowed() {
    let other = "impostor";
    let (proxy, login) = proxy_for_stranger(other);
    let mut signaller = Client::open(proxy.addr(), &login).expect("a login");
    let mut victim = proxy.client();
    victim
        .send_query("SELECT 'held up', txid_current(), pg_sleep(1)")
        .expect("sent");
    eventually!(runs("held up"));
    let id = victim.process_id();
    signaller
        .send_query(&format!(
            "SELECT 'holding up', pg_sleep(4), pg_terminate_backend({id})"
        ))
        .expect("sent");
    eventually!(runs("holding up"));
    assert!(runs("held up"), "the victim is served when it is located");
    let answer = victim.until_ready().expect("an answer");
    assert_eq!(answer.error(), None);
    for _ in 0..3 {
        ok(&mut victim, "SELECT 1");
        ok(&mut victim, "SELECT txid_current()");
    }
    assert!(runs("holding up"), "the victim has waited for it");
    let answer = signaller.until_ready().expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("42501"), "{answer:?}");
    ok(&mut victim, "SELECT 1");
    drop(signaller);
    cluster()
        .sql("postgres", &format!("ALTER ROLE {other} NOLOGIN"))
        .expect("no login");
}

#[test]
fn a_read_survives_its_server_though_a_termination_was_refused_before() {
    let other = "would_be";
    let (proxy, login) = proxy_for_stranger(other);
    let mut victim = reader(&proxy);
    victim
        .send_query("SELECT 'survivor', pg_sleep(2)")
        .expect("sent");
    eventually!(runs("survivor"));
    let id = victim.process_id();
    let mut signaller = Client::open(proxy.addr(), &login).expect("a login");
    let answer = signaller
        .query(&format!("SELECT pg_terminate_backend({id})"))
        .expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("42501"), "{answer:?}");
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT ''survivor''%'";
    // Only where it runs first: it may be on another replica before that is asked.
    let mut nodes = cluster().nodes().iter();
    assert!(nodes.any(|node| node.sql("postgres", end).expect("ended") == "1"));
    let answer = victim.until_ready().expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("survivor"), "{answer:?}");
    drop(signaller);
    cluster()
        .sql("postgres", &format!("ALTER ROLE {other} NOLOGIN"))
        .expect("no login");
}

#[test]
fn a_victim_on_a_replica_that_takes_no_connections_is_not_waited_for() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    wait_for_replicas(&mut proxy.client());
    let victim = busy_on(&cluster, &proxy, "replica1", "out of reach");
    let replica = cluster.replica(0);
    let hba = replica.data_dir().join("pg_hba.conf");
    let allowed = std::fs::read_to_string(&hba).expect("read");
    let refused = format!("host all {USER} all reject\nlocal all {USER} reject\n{allowed}");
    std::fs::write(&hba, refused).expect("written");
    let idle = format!(
        "SELECT pg_reload_conf(), count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{USER}' AND state = 'idle'"
    );
    replica.sql("postgres", &idle).expect("reloaded");
    let address = format!("{}:{}", replica.host(), replica.port());
    eventually!(Client::open(&address, &login()).is_err());
    let mut other = proxy.client();
    let sql = format!("SELECT pg_cancel_backend({})", victim.process_id());
    assert_eq!(value(&mut other, &sql), "f");
    assert_eq!(last_route(&mut other), "primary (primary_only)");
    assert!(runs_on(&cluster, "out of reach"));
}

#[test]
fn only_a_batch_that_does_nothing_else_follows_its_victim_to_a_replica() {
    let proxy = proxy();
    let mut other = reader(&proxy);
    ok(&mut other, "CREATE TABLE signal_sums (n int)");
    ok(&mut other, "INSERT INTO signal_sums VALUES (1)");
    ok(
        &mut other,
        "CREATE FUNCTION signal_sum() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(n) FROM signal_sums'",
    );
    // Until then it may do anything.
    eventually!({
        ok(&mut other, "EXPLAIN ROUTE SELECT signal_sum()");
        let route = ok(&mut other, "SELECT signal_sum()");
        route.value().as_deref() == Some("1") && last_route(&mut other).starts_with("replica")
    });
    let mut victim = busy(&proxy, "replica1", "left alone");
    let id = victim.process_id();
    for more in [
        "SELECT n FROM signal_sums",
        "SELECT signal_sum()",
        "UPDATE signal_sums SET n = 1",
        "SELECT pg_advisory_lock(7)",
    ] {
        let mut other = proxy.client();
        ok(
            &mut other,
            &format!("SELECT pg_cancel_backend({id}); {more}"),
        );
        let route = last_route(&mut other);
        assert!(route.starts_with("primary"), "{more}: {route}");
    }
    assert!(runs("left alone"));
    let sql = format!("SELECT pg_cancel_backend({id}), version()");
    assert_eq!(value(&mut other, &sql), "t");
    assert_canceled(&mut victim);
}

#[test]
fn of_two_signals_in_a_pipeline_each_finds_its_own_victim() {
    let proxy = proxy();
    for flavour in [Flavour::Simple, Flavour::Extended] {
        let mut first = busy(&proxy, "primary", &format!("first {flavour:?}"));
        let mut second = busy(&proxy, "primary", &format!("second {flavour:?}"));
        let mut other = proxy.client();
        for victim in [&first, &second] {
            let sql = format!("SELECT pg_cancel_backend({})", victim.process_id());
            send(&mut other, flavour, &sql);
        }
        for _ in 0..2 {
            let answer = other.until_ready().expect("an answer");
            assert_eq!(answer.value().as_deref(), Some("t"), "{answer:?}");
        }
        assert_canceled(&mut first);
        assert_canceled(&mut second);
    }
}

#[test]
fn nobody_but_the_victim_is_ever_hit() {
    const ROUNDS: usize = 300;
    let narrow = "[databases.\"*\"]\npool_size = 2";
    let config = config(cluster()).replace("[databases.\"*\"]", narrow);
    let proxy = Proxy::start_ready(&config);
    wait_for_replicas(&mut proxy.client());
    let mut victim = proxy.client();
    let id = victim.process_id();
    let (is_over, hits) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for route in ["primary", "replica1", "replica1", "replica2"] {
            let (proxy, is_over) = (&proxy, &is_over);
            scope.spawn(move || {
                let mut bystander = proxy.client();
                ok(&mut bystander, &format!("SET pgweir.route = '{route}'"));
                while !is_over.load(Ordering::Relaxed) {
                    ok(&mut bystander, "SELECT pg_sleep(0.001)");
                }
            });
        }
        let (is_over, hits) = (&is_over, &hits);
        scope.spawn(move || {
            for round in 0..ROUNDS {
                let route = ["primary", "replica1", "replica2"][round % 3];
                ok(&mut victim, &format!("SET pgweir.route = '{route}'"));
                let answer = victim.query("SELECT pg_sleep(0.003)").expect("an answer");
                match answer.sqlstate().as_deref() {
                    Some("57014") => hits.fetch_add(1, Ordering::Relaxed),
                    other => {
                        assert_eq!(other, None, "{answer:?}");
                        0
                    }
                };
                assert_eq!(victim.status(), TransactionStatus::Idle);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let mut signaller = proxy.client();
        while !is_over.load(Ordering::Relaxed) {
            ok(&mut signaller, &format!("SELECT pg_cancel_backend({id})"));
        }
    });
    assert!(hits.load(Ordering::Relaxed) > 0, "nobody was ever hit");
}
