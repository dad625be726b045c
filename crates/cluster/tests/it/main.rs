//! The monitor on real clusters: what it finds, and how soon it sees a fault.

mod catalog;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_cluster::{BreakerSettings, Handle, Monitor, NodeSettings, Settings};
use pgweir_consistency::MaxLag;
use pgweir_devcluster::Cluster;
use pgweir_model::{Health, NodeId, Role, Selection, Topology};

/// How long anything may take that should take a moment: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

const BREAKER: BreakerSettings = BreakerSettings {
    failures: 5,
    open_for: Duration::from_secs(5),
    half_open_trials: 1,
};

const LAG_POLL: Duration = Duration::from_millis(100);

fn settings(cluster: &Cluster) -> Settings {
    let node = |node: &pgweir_devcluster::Node| NodeSettings {
        name: node.name().into(),
        host: node.host().into(),
        port: node.port(),
        expected: None,
        weight: 1,
        is_drained: false,
        is_near: false,
    };
    Settings {
        name: "main".into(),
        index: 0,
        nodes: cluster.nodes().iter().map(node).collect(),
        user: cluster.superuser().into(),
        password: Some(cluster.password().into()),
        database: "postgres".into(),
        lag_poll: LAG_POLL,
        max_lag: MaxLag::Time(Duration::from_secs(5)),
        connect_timeout: Duration::from_secs(2),
        slow_start: Duration::ZERO,
        catalog_refresh: Duration::from_secs(60),
        breaker: BREAKER,
        selection: Selection::default(),
    }
}

fn start(replicas: usize) -> (Cluster, Handle) {
    let cluster = Cluster::builder()
        .replicas(replicas)
        .start()
        .expect("PostgreSQL is installed and starts");
    let handle = Monitor::start(settings(&cluster)).expect("a thread can be had");
    (cluster, handle)
}

/// Waits for a snapshot; the failure shows the last one.
#[track_caller]
fn wait(handle: &Handle, what: &str, condition: impl FnMut(&Topology) -> bool) -> Arc<Topology> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    let found = runtime.block_on(handle.wait_until(Instant::now() + PATIENCE, condition));
    found.unwrap_or_else(|| panic!("not seen: {what}; {:#?}", handle.topology()))
}

fn is_whole(topology: &Topology) -> bool {
    let caught_up =
        |node: &pgweir_model::Node| node.within_max_lag && node.lag == Some(Duration::ZERO);
    topology.primary.is_some() && topology.nodes.iter().all(caught_up)
}

#[test]
fn roles_positions_and_no_lag_are_found_on_an_idle_cluster() {
    let (cluster, handle) = start(2);
    let topology = wait(&handle, "a whole cluster", is_whole);
    assert_eq!(topology.primary, Some(0));
    let roles: Vec<_> = topology.nodes.iter().map(|node| node.role).collect();
    assert_eq!(
        roles,
        [
            Some(Role::Primary),
            Some(Role::Replica),
            Some(Role::Replica)
        ]
    );
    assert!(
        topology
            .nodes
            .iter()
            .all(|node| node.health == Health::Up && node.timeline == 1)
    );

    // The end of a segment file is where positions of the two sides differ by a page header.
    cluster.sql("postgres", "SELECT pg_switch_wal()").unwrap();
    let switched = handle.topology().version + 10;
    wait(&handle, "no lag behind a switched segment", |topology| {
        topology.version > switched && is_whole(topology)
    });

    let (mut versions, mut reader) = (Vec::new(), handle.reader());
    wait(&handle, "snapshots at every tick", |_| {
        versions.push(reader.load().version);
        versions.last() > versions.first().map(|first| first + 5).as_ref()
    });
    assert!(versions.is_sorted());
}

#[test]
fn a_paused_replica_lags_only_when_the_primary_moves_on() {
    let (cluster, handle) = start(1);
    wait(&handle, "a whole cluster", is_whole);
    cluster.replica(0).pause_replay().unwrap();
    let paused = handle.topology().version + 20;
    let idle = wait(&handle, "ticks while paused", |topology| {
        topology.version > paused
    });
    // Whatever the server itself wrote in the meantime is not worth seconds.
    assert!(
        idle.nodes[1].lag < Some(Duration::from_secs(2)),
        "{idle:#?}"
    );

    cluster
        .sql("postgres", "CREATE TABLE moved (a int)")
        .unwrap();
    let wrote_at = Instant::now();
    let lagging = wait(&handle, "lag", |topology| {
        topology.nodes[1].lag > Some(Duration::from_millis(700))
    });
    let lag = lagging.nodes[1].lag.unwrap();
    assert!(lag < wrote_at.elapsed() + Duration::from_secs(2), "{lag:?}");
    assert!(
        lagging.nodes[1].lag_bytes > Some(0) && lagging.nodes[1].replayed_through < Some(wrote_at)
    );
    assert!(lagging.nodes[1].effective_weight < 1000);

    cluster.replica(0).resume_replay().unwrap();
    wait(&handle, "lag gone", |topology| {
        topology.nodes[1].lag == Some(Duration::ZERO)
            && topology.nodes[1].replayed_through > Some(wrote_at)
    });
}

#[test]
fn a_poke_brings_a_write_to_the_reader_before_the_next_tick() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let mut slow = settings(&cluster);
    slow.lag_poll = Duration::from_secs(5);
    let handle = Monitor::start(slow).unwrap();
    wait(&handle, "a whole cluster", is_whole);
    let mut soonest = Duration::MAX;
    cluster
        .sql("postgres", "CREATE TABLE seen (a int)")
        .unwrap();
    for _ in 0..5 {
        cluster
            .sql("postgres", "INSERT INTO seen VALUES (1)")
            .unwrap();
        let wrote_at = Instant::now();
        (0..100).for_each(|_| handle.poke());
        wait(&handle, "the write replayed", |topology| {
            topology.nodes[1].replayed_through > Some(wrote_at)
        });
        soonest = soonest.min(wrote_at.elapsed());
    }
    assert!(soonest < Duration::from_secs(1), "{soonest:?}");
}

#[test]
fn a_killed_replica_is_down_and_comes_back() {
    let (cluster, handle) = start(1);
    wait(&handle, "a whole cluster", is_whole);
    cluster.replica(0).kill().unwrap();
    handle.report_failure(NodeId {
        cluster: 0,
        node: 1,
    });
    let down = wait(&handle, "the replica down", |topology| {
        topology.nodes[1].health == Health::Down
    });
    assert_eq!(
        (down.primary, down.nodes[1].role),
        (Some(0), Some(Role::Replica))
    );
    cluster.replica(0).start().unwrap();
    wait(&handle, "the replica back", is_whole);
}

#[test]
fn a_frozen_replica_ages_out_and_then_goes_down() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let mut tight = settings(&cluster);
    tight.max_lag = MaxLag::Time(Duration::from_millis(500));
    let handle = Monitor::start(tight).unwrap();
    wait(&handle, "a whole cluster", is_whole);
    cluster.replica(0).freeze().unwrap();
    wait(&handle, "the replica not fresh", |topology| {
        !topology.nodes[1].within_max_lag
    });
    wait(&handle, "the replica down", |topology| {
        topology.nodes[1].health == Health::Down
    });
    cluster.replica(0).thaw().unwrap();
    wait(&handle, "the replica back", is_whole);
}

#[test]
fn a_promoted_replica_is_the_primary_within_a_poll_and_a_bit() {
    let (cluster, handle) = start(2);
    wait(&handle, "a whole cluster", is_whole);
    cluster.primary().kill().unwrap();
    wait(&handle, "no primary", |topology| topology.primary.is_none());
    cluster.promote(1).unwrap();
    let promoted_at = Instant::now();
    let topology = wait(&handle, "the new primary", |topology| {
        topology.primary == Some(1)
    });
    let took = promoted_at.elapsed();
    assert!(took < LAG_POLL + Duration::from_millis(900), "{took:?}");
    assert_eq!(
        (topology.nodes[1].role, topology.nodes[1].timeline),
        (Some(Role::Primary), 2)
    );
    // The other replica still follows the old timeline: nothing vouches for what it shows.
    assert!(!topology.nodes[2].within_max_lag);

    // The old primary comes back as if nothing had happened.
    cluster.node(0).start().unwrap();
    let returned = wait(&handle, "the old primary up", |topology| {
        topology.nodes[0].health == Health::Up
    });
    assert_eq!(returned.primary, Some(1));
    assert_eq!(
        (returned.nodes[0].role, returned.nodes[0].timeline),
        (Some(Role::Primary), 1)
    );
}

#[test]
fn a_cluster_that_is_not_there_and_a_wrong_password_are_down_not_a_panic() {
    let cluster = Cluster::builder().start().unwrap();
    let mut wrong = settings(&cluster);
    wrong.password = Some("wrong".into());
    let absent = NodeSettings {
        name: "absent".into(),
        port: 1,
        ..wrong.nodes[0].clone()
    };
    let nowhere = NodeSettings {
        name: "nowhere".into(),
        host: "/no/such/folder".into(),
        ..absent.clone()
    };
    wrong.nodes.extend([absent, nowhere]);
    let handle = Monitor::start(wrong.clone()).unwrap();
    let all_down = |topology: &Topology| {
        topology
            .nodes
            .iter()
            .all(|node| node.health == Health::Down)
    };
    wait(&handle, "all down", all_down);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let soon = Instant::now() + Duration::from_millis(50);
    assert!(runtime.block_on(handle.wait_for_primary(soon)).is_err());
}

#[test]
fn weights_and_limits_are_taken_over_while_it_runs() {
    let (cluster, handle) = start(1);
    wait(&handle, "a whole cluster", is_whole);
    let mut changed = settings(&cluster);
    changed.nodes[1].weight = 7;
    assert!(handle.reconfigure(changed.clone()));
    wait(&handle, "the new weight", |topology| {
        topology.nodes[1].weight == 7
    });
    changed.nodes.pop();
    assert!(!handle.reconfigure(changed));
}

#[test]
fn the_last_handle_takes_the_monitor_with_it() {
    let (cluster, handle) = start(0);
    wait(&handle, "a primary", |topology| topology.primary.is_some());
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgweir monitor'";
    assert_ne!(cluster.sql("postgres", count).unwrap(), "0");
    drop((handle.clone(), handle));
    let deadline = Instant::now() + PATIENCE;
    while cluster.sql("postgres", count).unwrap() != "0" {
        assert!(Instant::now() < deadline, "the monitor is still connected");
    }
}
