//! Servers that die when it hurts: between two messages of the proxy's own, under a transaction that has failed, before a
//! connection is opened. The client must be answered as if nothing had happened, and never wait for nothing.

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, append_execute, eventually};
use pgweir_wire::{TransactionStatus, backend, frontend};

use crate::flavours::reader;
use crate::support::{Proxy, USER, config, new_cluster, ok, value, wait_for_replicas};

/// Starts a primary with one replica, a proxy, and a session whose reads go to the replica.
fn on_one_replica() -> (Cluster, Proxy, Client) {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    wait_for_replicas(&mut proxy.client());
    let client = reader(&proxy);
    (cluster, proxy, client)
}

/// Returns the one server process that the proxy's sessions have on the replica.
fn process(cluster: &Cluster) -> String {
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{USER}'");
    let pids = cluster.replica(0).sql("postgres", &sql).expect("pids");
    assert_eq!(pids.lines().count(), 1, "{pids}");
    pids
}

/// Terminates it, and waits until it is gone.
fn terminate(cluster: &Cluster) {
    let replica = cluster.replica(0);
    let sql = format!("SELECT pg_terminate_backend({})", process(cluster));
    replica.sql("postgres", &sql).expect("terminated");
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'");
    eventually!(replica.sql("postgres", &left).expect("a count") == "0");
}

/// Sends a signal to a server process itself.
fn signal(name: &str, pid: &str) {
    let sent = std::process::Command::new("kill")
        .args([&format!("-{name}"), pid])
        .status()
        .expect("kill runs");
    assert!(sent.success(), "kill -{name} {pid}");
}

#[test]
fn a_transaction_that_failed_on_a_replica_stays_failed_when_the_replica_goes() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    wait_for_replicas(&mut proxy.client());
    for begin in ["BEGIN READ ONLY", "BEGIN"] {
        for (after, status) in [
            ("SELECT 1", TransactionStatus::Failed),
            ("COMMIT", TransactionStatus::Idle),
            // As drivers send it, with a Close in front.
            ("", TransactionStatus::Idle),
        ] {
            let mut client = reader(&proxy);
            ok(&mut client, begin);
            let failed = client.query("SELECT 1 / 0").expect("an answer");
            assert_eq!(failed.sqlstate().as_deref(), Some("22012"));
            terminate(&cluster);
            let answer = if after.is_empty() {
                let mut out = Vec::new();
                let kind = frontend::Target::Statement;
                frontend::Close { kind, name: b"x" }.encode(&mut out);
                append_execute(&mut out, "ROLLBACK", &[]);
                frontend::Sync.encode(&mut out);
                client.send(&out).expect("sent");
                client.until_ready().expect(begin)
            } else {
                client.query(after).expect(begin)
            };
            if status == TransactionStatus::Failed {
                assert_eq!(answer.sqlstate().as_deref(), Some("25P02"), "{begin}");
            } else {
                let complete = backend::CommandComplete { tag: b"ROLLBACK" };
                let complete = Ok(backend::Message::CommandComplete(complete));
                let is_rolled_back = answer.0.iter().any(|message| message.decode() == complete);
                assert!(is_rolled_back, "{begin}; {after:?}: {answer:?}");
            }
            assert_eq!(client.status(), status, "{begin}; {after}");
        }
    }
}

#[test]
fn what_a_transaction_has_set_is_kept_by_its_commit_though_its_replica_has_gone() {
    let (cluster, _proxy, mut client) = on_one_replica();
    ok(&mut client, "BEGIN");
    ok(&mut client, "SET TimeZone = 'Asia/Tokyo'");
    ok(&mut client, "SELECT 1");
    terminate(&cluster);
    ok(&mut client, "COMMIT");
    assert_eq!(value(&mut client, "SHOW TimeZone"), "Asia/Tokyo");
}

/// It is in no journal, so that the transaction cannot be opened anew with it.
#[test]
fn a_transaction_that_has_called_set_config_is_not_opened_anew_without_it() {
    let (cluster, _proxy, mut client) = on_one_replica();
    ok(&mut client, "BEGIN READ ONLY");
    ok(&mut client, "SELECT set_config('app.tenant', '7', true)");
    terminate(&cluster);
    let answer = client.query("SELECT current_setting('app.tenant', true)");
    match answer {
        Ok(answer) => assert_eq!(answer.sqlstate().as_deref(), Some("57P01")),
        Err(error) => assert_eq!(error.sqlstate().as_deref(), Some("57P01"), "{error:?}"),
    }
}

#[test]
fn a_transaction_that_has_read_on_a_lost_replica_goes_on_on_the_primary() {
    let cluster = new_cluster(2);
    let proxy = Proxy::start_ready(&config(&cluster));
    wait_for_replicas(&mut proxy.client());
    let mut client = reader(&proxy);
    for n in 0..10 {
        ok(&mut client, "BEGIN");
        let port = value(&mut client, "SHOW port");
        let nodes = cluster.nodes();
        let node = nodes.iter().find(|node| node.port().to_string() == port);
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{USER}'"
        );
        let node = node.expect("a node");
        node.sql("postgres", &sql).expect("terminated");
        let left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'");
        eventually!(node.sql("postgres", &left).expect("a count") == "0");
        let primary = cluster.primary().port().to_string();
        assert_eq!(value(&mut client, "SHOW port"), primary, "{n}");
        ok(&mut client, "COMMIT");
    }
}

/// The server's last words come in place of the answer to the BEGIN that the proxy has put in front of the statement.
#[test]
fn a_statement_behind_a_begin_that_its_server_did_not_live_to_answer_runs_elsewhere() {
    let (cluster, _proxy, mut client) = on_one_replica();
    ok(&mut client, "SELECT 1");
    let pid = process(&cluster);
    ok(&mut client, "BEGIN");
    signal("STOP", &pid);
    client.send_query("SELECT 'not lost'").expect("sent");
    let sql = format!("SELECT pg_terminate_backend({pid})");
    let terminated = cluster.replica(0).sql("postgres", &sql);
    signal("CONT", &pid);
    assert_eq!(terminated.expect("an answer"), "t");
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.error(), None);
    assert_eq!(answer.value().as_deref(), Some("not lost"));
    assert_eq!(client.status(), TransactionStatus::InTransaction);
    ok(&mut client, "COMMIT");
}

/// The idle connection that is taken in its place has another session's settings, which are switched first.
#[test]
fn a_read_whose_replica_cannot_be_connected_to_is_answered_though_settings_are_switched_elsewhere()
{
    let cluster = new_cluster(1);
    // The proxy learns of the death from the read alone.
    let text = format!("[server]\nworkers = 1\n{}", config(&cluster))
        .replace("[clusters.main]\n", "[clusters.main]\nlag_poll = \"1h\"\n");
    let proxy = Proxy::start_ready(&text);
    wait_for_replicas(&mut proxy.client());
    let mut other = proxy.client();
    ok(&mut other, "SET application_name = 'other'");
    let mut client = reader(&proxy);
    cluster.replica(0).kill().expect("killed");
    for n in 0..20 {
        ok(&mut other, "SELECT txid_current()");
        assert_eq!(value(&mut client, &format!("SELECT {n}")), n.to_string());
    }
    assert!(proxy.log().contains("cannot connect to a server"));
}

/// The batch behind it has been looked at already, and refused by a rule.
#[test]
fn a_read_that_runs_again_is_not_taken_for_the_refused_one_behind_it() {
    let cluster = new_cluster(1);
    let rule =
        "[[rules]]\nname = 'wall'\nmatch = { tables = ['secrets'] }\naction.block = 'closed'\n";
    let proxy = Proxy::start_ready(&format!("{}\n{rule}", config(&cluster)));
    wait_for_replicas(&mut proxy.client());
    let mut client = reader(&proxy);
    ok(&mut client, "SELECT 1");
    let mut out = Vec::new();
    for sql in ["SELECT 'not refused', pg_sleep(2)", "TABLE secrets"] {
        let sql = sql.as_bytes();
        frontend::Query { sql }.encode(&mut out);
    }
    client.send(&out).expect("sent");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND pid <> pg_backend_pid()";
    eventually!(cluster.replica(0).sql("postgres", sql).expect("a count") == "1");
    terminate(&cluster);
    let first = client.until_ready().expect("an answer");
    assert_eq!(first.value().as_deref(), Some("not refused"), "{first:?}");
    let second = client.until_ready().expect("an answer");
    assert_eq!(second.sqlstate().as_deref(), Some("42501"));
}
