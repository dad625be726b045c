//! pgbench through the proxy: without an error in each mode, and each statement where it belongs by the servers' own
//! counters.

use std::process::Command;

use pgweir_devcluster::{Cluster, Node};
use pgweir_testkit::eventually;

use crate::support::{DATABASE, PASSWORD, Proxy, USER, config, new_cluster};

/// Clients, and transactions of each: many clients at scale 1 wait for one row, so fewer.
const LOADS: [(usize, usize); 3] = [(1, 200), (16, 30), (64, 10)];

/// Reads to judge the split by: one standard deviation is half a percentage point.
const READS: usize = 10_000;

/// Percentage points that the split may be off.
const TOLERANCE: f64 = 2.0;

fn pgbench(cluster: &Cluster, port: &str, arguments: &[&str]) -> String {
    let program = cluster
        .binaries()
        .client("pgbench")
        .expect("pgbench; it comes with PostgreSQL (Debian: apt-get install postgresql-contrib)");
    let output = Command::new(program)
        .args(["--host", "127.0.0.1", "--port", port, "--username", USER])
        .args(arguments)
        .arg(DATABASE)
        .env("PGPASSWORD", PASSWORD)
        .output()
        .expect("pgbench runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "pgbench {arguments:?}:\n{said}");
    said
}

fn port_of(proxy: &Proxy) -> &str {
    proxy.addr().rsplit_once(':').map_or("", |(_, port)| port)
}

fn initialised(replicas: usize) -> Cluster {
    let cluster = new_cluster(replicas);
    let port = cluster.primary().port().to_string();
    pgbench(
        &cluster,
        &port,
        &["--initialize", "--quiet", "--scale", "1"],
    );
    cluster
        .wait_caught_up(pgweir_testkit::patience::PATIENCE)
        .expect("caught up");
    cluster
}

/// Runs a load and checks that each transaction was carried out.
fn load(
    cluster: &Cluster,
    proxy: &Proxy,
    script: &str,
    protocol: &str,
    (clients, each): (usize, usize),
) {
    let threads = clients.min(2).to_string();
    let (clients, each) = (clients.to_string(), each.to_string());
    let said = pgbench(
        cluster,
        port_of(proxy),
        &[
            "--no-vacuum",
            "--builtin",
            script,
            "--protocol",
            protocol,
            "--client",
            &clients,
            "--jobs",
            &threads,
            "--transactions",
            &each,
        ],
    );
    let total: usize = clients.parse::<usize>().unwrap_or(0) * each.parse::<usize>().unwrap_or(0);
    let processed = format!("number of transactions actually processed: {total}/{total}");
    assert!(
        said.contains(&processed),
        "{script} {protocol} {clients}:\n{said}"
    );
    let failed = said
        .lines()
        .find(|line| line.contains("failed transactions"));
    // Servers before 15 do not print the line.
    assert!(failed.is_none_or(|line| line.contains(": 0 ")), "{said}");
}

/// Returns counters of a database on a node.
fn counter(node: &Node, what: &str) -> i64 {
    let sql = format!("SELECT {what} FROM pg_stat_database WHERE datname = '{DATABASE}'");
    let value = node.sql("postgres", &sql).expect("a counter");
    value.trim().parse().expect("a number")
}

/// Ends the proxy: a server counts what a connection did at the latest when it closes.
fn ended(mut proxy: Proxy) {
    proxy.signal("INT");
    proxy.wait(pgweir_testkit::patience::PATIENCE);
}

fn sessions_gone(cluster: &Cluster) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    for node in cluster.nodes() {
        eventually!(node.sql("postgres", &sql).expect("a count").trim() == "0");
    }
}

#[test]
fn each_load_of_pgbench_runs_in_each_protocol_and_writes_only_on_the_primary() {
    let cluster = initialised(2);
    let proxy = Proxy::start_ready(&config(&cluster));
    let written = "tup_inserted + tup_updated + tup_deleted";
    let before = counter(cluster.primary(), written);
    let mut transactions = 0;
    for protocol in ["simple", "extended", "prepared"] {
        for (clients, each) in LOADS {
            load(&cluster, &proxy, "tpcb-like", protocol, (clients, each));
            load(
                &cluster,
                &proxy,
                "select-only",
                protocol,
                (clients, each * 10),
            );
            transactions += clients * each;
        }
    }
    let port = cluster.primary().port().to_string();
    let consistent = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history) \
                      AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history), \
                      (SELECT count(*) FROM pgbench_history)";
    let seen = cluster.sql(DATABASE, consistent).expect("a row");
    assert_eq!(seen.trim(), format!("t|{transactions}"), "on port {port}");
    ended(proxy);
    sessions_gone(&cluster);
    // Three updates and an insert each.
    let expected = i64::try_from(transactions * 4).expect("a number");
    eventually!(counter(cluster.primary(), written) - before >= expected);
    for replica in [0, 1] {
        let errors = format!(
            "grep -c 'read-only transaction' {}",
            cluster.replica(replica).log_path().display()
        );
        let grep = Command::new("sh")
            .args(["-c", &errors])
            .output()
            .expect("sh");
        let count = String::from_utf8_lossy(&grep.stdout).trim().to_owned();
        assert_eq!(count, "0", "writes were tried on replica {replica}");
    }
}

fn split_of_the_reads(weights: [u32; 2]) {
    let cluster = initialised(2);
    // Where each read is drawn by itself: at level session a session stays with a replica for seconds.
    let eventual = "[databases.\"*\"]\nconsistency = \"eventual\"";
    let mut text = config(&cluster).replace("[databases.\"*\"]", eventual);
    for (node, weight) in ["replica1", "replica2"].iter().zip(weights) {
        let name = format!("{{ name = \"{node}\"");
        text = text.replace(&name, &format!("{name}, weight = {weight}"));
    }
    let proxy = Proxy::start_ready(&text);
    let mut client = proxy.client();
    eventually!({
        let answer = client.query("EXPLAIN ROUTE SELECT 1").expect("an answer");
        let eligible = |row: &&Vec<Option<String>>| row[1].as_deref() == Some("eligible");
        answer.rows().iter().filter(eligible).count() == 2
    });
    drop(client);
    let commits = |node: &Node| counter(node, "xact_commit");
    let nodes = [cluster.primary(), cluster.replica(0), cluster.replica(1)];
    let before = nodes.map(commits);
    for (protocol, share) in [("simple", 2), ("extended", 4), ("prepared", 4)] {
        load(
            &cluster,
            &proxy,
            "select-only",
            protocol,
            (16, READS / share / 16),
        );
    }
    ended(proxy);
    sessions_gone(&cluster);
    let mut reads = [0; 3];
    let enough = i64::try_from(READS / 16 / 4 * 4 * 16).expect("a number") - 100;
    eventually!({
        for ((reads, node), before) in reads.iter_mut().zip(nodes).zip(before) {
            *reads = commits(node) - before;
        }
        reads[1] + reads[2] >= enough
    });
    let total = reads[1] + reads[2];
    let percent = |part: i64| {
        100.0 * f64::from(i32::try_from(part).unwrap_or(0))
            / f64::from(i32::try_from(total).unwrap_or(1))
    };
    let wanted = 100.0 * f64::from(weights[0]) / f64::from(weights[0] + weights[1]);
    let got = percent(reads[1]);
    assert!(
        (got - wanted).abs() <= TOLERANCE,
        "{got:.2}% of the reads, not {wanted}%: {reads:?}"
    );
    // Logins and the proxy's own sessions, not reads.
    assert!(reads[0] < 200, "reads on the primary: {reads:?}");
}

#[test]
fn reads_land_on_equal_replicas_in_equal_shares() {
    split_of_the_reads([100, 100]);
}

#[test]
fn reads_land_on_replicas_by_their_weights() {
    split_of_the_reads([75, 25]);
}
