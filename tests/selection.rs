//! Which server takes a read, as the operator chose it: how replicas are balanced, and whether the primary takes part.

use std::collections::BTreeMap;

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, eventually};

use crate::support::{
    Proxy, cluster, config, direct, last_route, new_cluster, ok, value, wait_for_replicas,
};

/// The configuration of a cluster with more lines for the cluster itself.
fn with_cluster(cluster: &Cluster, lines: &str) -> String {
    config(cluster).replace("[databases", &format!("{lines}\n[databases"))
}

/// Returns how many of so many reads each server took, by its port. A session that reads without a pause stays with a server
/// for seconds; it is the sessions that are spread.
fn reads_of_many(proxy: &Proxy, sessions: usize) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..sessions {
        for (port, count) in reads(&mut proxy.client(), 4) {
            *counts.entry(port).or_default() += count;
        }
    }
    counts
}

/// Returns how many of so many reads of one session each server took, by its port.
fn reads(client: &mut Client, count: usize) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        let port = value(client, "SHOW port").parse().expect("a port");
        *counts.entry(port).or_default() += 1;
    }
    counts
}

#[test]
fn every_way_of_balancing_keeps_to_the_weights() {
    for balance in ["least_loaded", "round_robin", "random"] {
        let lines = format!("balance = \"{balance}\"");
        let proxy = Proxy::start_ready(&with_cluster(cluster(), &lines));
        let mut client = proxy.client();
        wait_for_replicas(&mut client);
        let counts = reads_of_many(&proxy, 100);
        for replica in &cluster().nodes()[1..] {
            let count = counts.get(&replica.port()).copied().unwrap_or(0);
            assert!((140..260).contains(&count), "{balance}: {counts:?}");
        }
        assert_eq!(counts.len(), 2, "{balance}: {counts:?}");
    }
}

#[test]
fn a_primary_that_shares_takes_reads_by_its_weight() {
    let proxy = Proxy::start_ready(&with_cluster(cluster(), "primary_reads = \"share\""));
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    let counts = reads_of_many(&proxy, 75);
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(
        counts.values().all(|count| (70..130).contains(count)),
        "{counts:?}"
    );
    ok(&mut client, "SET pgweir.route = 'replica'");
    assert!(!reads(&mut client, 50).contains_key(&cluster().primary().port()));
}

#[test]
fn the_own_zone_takes_the_reads_until_nobody_there_can() {
    let own = new_cluster(2);
    let near = own.replica(1).port();
    let text = with_cluster(&own, "balance = \"nearest\"").replace(
        &format!("port = {near} }}"),
        &format!("port = {near}, zone = \"a\" }}"),
    );
    let proxy = Proxy::start_ready(&format!("[server]\nzone = \"a\"\n{text}"));
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    assert_eq!(reads(&mut client, 50), BTreeMap::from([(near, 50)]));
    own.replica(1).kill().expect("killed");
    let other = own.replica(0).port();
    eventually!(reads(&mut client, 1).contains_key(&other));
    assert_eq!(reads(&mut client, 50), BTreeMap::from([(other, 50)]));
}

#[test]
fn where_the_primary_never_takes_reads_they_wait_for_a_replica() {
    let own = new_cluster(1);
    // Past the proxies, which then know its schema from the start.
    ok(&mut direct(&own), "CREATE TABLE waited (a int)");
    own.wait_caught_up(pgweir_testkit::patience::PATIENCE)
        .expect("caught up");
    let text = with_cluster(&own, "primary_reads = \"never\"\nmax_lag = \"1h\"");
    let text = format!("[server]\nquery_wait_timeout = \"700ms\"\n{text}");
    let proxy = Proxy::start_ready(&text.replace("700ms", "30s"));
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    // Its own write is not seen there yet: the read waits until it is.
    own.replica(0).pause_replay().expect("paused");
    ok(&mut client, "INSERT INTO waited VALUES (1)");
    client.send_query("SELECT a FROM waited").expect("sent");
    own.replica(0).resume_replay().expect("resumed");
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("1"));
    assert_eq!(last_route(&mut client), "replica (read)");
    // Nobody is there: it waits until somebody is.
    own.replica(0).kill().expect("killed");
    client.send_query("SELECT a FROM waited").expect("sent");
    own.replica(0).start().expect("started");
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("1"));
    assert_eq!(last_route(&mut client), "replica (read)");
    // Nobody comes.
    own.replica(0).kill().expect("killed");
    let impatient = Proxy::start_ready(&text);
    let mut client = impatient.client();
    let answer = client.query("SELECT a FROM waited").expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"));
    let error = answer.error().expect("an error").comparable();
    assert!(error.contains("no replica could take the read"), "{error}");
    ok(&mut client, "INSERT INTO waited VALUES (2)");
}
