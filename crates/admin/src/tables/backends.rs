//! `backends`: the servers of all clusters, as last seen and as used.

use pgweir_model::{Health, Node, NodeId};

use super::{
    Changes, Column, NOTHING, Row, Scene, Schema, Table, float8, int4, int8, milliseconds, moment,
    text,
};
use crate::facts::{ClusterFacts, Facts, NodeFacts};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "backends",
    about: "The servers of all clusters, as last seen and as used.",
    columns: COLUMNS,
    changes: Changes::Update,
    needs: NOTHING,
    rows,
};

const COLUMNS: &[Column] = &[
    text("name", "Its name in the configuration."),
    text("cluster", "The cluster that it belongs to."),
    text("host", "Host name, IP address, or the folder of a socket."),
    int4("port", "Port."),
    text(
        "role",
        "`primary` or `replica`, as it says itself; NULL before it was seen.",
    ),
    text("state", "`up`, `down`, `unknown`, `draining` or `drained`."),
    int4(
        "weight",
        "Share of the reads relative to the other replicas; 0 takes none.",
    )
    .changeable(),
    float8(
        "effective_weight",
        "The weight after its lag and a slow start are taken into account.",
    ),
    text("zone", "Where it stands.").changeable(),
    int8("lag_bytes", "WAL that it has not replayed yet."),
    float8("lag_ms", "How old what it shows is, in milliseconds."),
    text(
        "replay_lsn",
        "The position that it has inserted (primary) or replayed (replica).",
    ),
    int8("timeline", "The timeline that it was last seen on."),
    int4("connections", "Server connections to it."),
    int4("in_flight", "Batches that it has not answered yet."),
    int8("queries", "Batches that it has answered."),
    float8(
        "latency_p50_ms",
        "What half of its answers took at most, in milliseconds.",
    ),
    float8(
        "latency_p99_ms",
        "What 99 of 100 of its answers took at most, in milliseconds.",
    ),
    text("breaker", "`closed`, `open` or `half_open`."),
    int8(
        "errors",
        "Times that it failed: checks, connections that could not be opened or were lost.",
    ),
    text("last_error", "The last of these."),
    moment("since", "Since when it has its role and health."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let facts = scene.facts;
    let nodes = facts.clusters.iter().flat_map(|cluster| {
        let nodes = cluster.topology.nodes.iter().zip(&cluster.nodes);
        nodes.map(move |(node, extra)| (cluster, node, extra))
    });
    nodes
        .map(|(cluster, node, extra)| row(facts, cluster, node, extra))
        .collect()
}

/// Returns the connections to a server, over all its pools.
pub(super) fn connections(facts: &Facts, id: NodeId) -> usize {
    let of_node = facts.pools.iter().filter(|pool| pool.key.node == id);
    of_node.map(|pool| pool.open).sum()
}

fn state(node: &Node, open: usize) -> &'static str {
    match (node.health, node.is_drained) {
        (Health::Down, _) => "down",
        (_, true) if open > 0 => "draining",
        (_, true) => "drained",
        (Health::Up, false) => "up",
        (Health::Unknown, false) => "unknown",
    }
}

fn row(facts: &Facts, cluster: &ClusterFacts, node: &Node, extra: &NodeFacts) -> Row {
    let counts = facts.counts.nodes.get(&node.id);
    let open = connections(facts, node.id);
    let quantile = |share: f64| {
        let us = counts.and_then(|counts| counts.query.quantile_us(share));
        us.map(|us| us / 1000.0)
    };
    let failures = counts.map_or(0, |counts| counts.connect_failures + counts.losses);
    let config = facts.config.backend(node.id);
    let scale = f64::from(Node::WEIGHT_SCALE);
    vec![
        (&node.name).into(),
        (&cluster.name).into(),
        (&node.host).into(),
        node.port.into(),
        node.role.map(|role| role.to_string()).into(),
        state(node, open).into(),
        node.weight.into(),
        (f64::from(node.effective_weight) / scale).into(),
        config.and_then(|config| config.zone.as_ref()).into(),
        node.lag_bytes.into(),
        node.lag.map(milliseconds).into(),
        node.asked_at.map(|_| node.position.to_string()).into(),
        node.timeline.into(),
        open.into(),
        extra.in_flight.into(),
        counts.map_or(0, |counts| counts.queries).into(),
        quantile(0.5).into(),
        quantile(0.99).into(),
        node.breaker.name().into(),
        extra.errors.saturating_add(failures).into(),
        facts.last_error(node.id).into(),
        extra.since.into(),
    ]
}
