//! `clusters`: a primary and its replicas, as last seen.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, boolean, int4, int8, text};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "clusters",
    about: "The clusters: each a primary and its replicas.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: NOTHING,
    rows,
};

const COLUMNS: &[Column] = &[
    text("name", "Its name in the configuration."),
    text(
        "primary",
        "The server that takes writes; NULL while there is none.",
    ),
    int4("backends", "How many servers it has."),
    int4(
        "replicas",
        "How many of them were last seen in recovery and answer.",
    ),
    int4("down", "How many of them do not answer."),
    int8(
        "timeline",
        "The timeline of the primary; 0 before it was seen.",
    ),
    boolean(
        "is_split",
        "Several servers claim to be the primary: none takes writes.",
    ),
    text("balance", "How one of the eligible replicas is chosen."),
    text("primary_reads", "Whether the primary takes reads."),
    int8("version", "Grows by one with each look at the servers."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let clusters = scene.facts.clusters.iter().enumerate();
    clusters
        .map(|(index, cluster)| {
            let topology = &cluster.topology;
            let up = |node: &&pgweir_model::Node| node.health == pgweir_model::Health::Up;
            let down = |node: &&pgweir_model::Node| node.health == pgweir_model::Health::Down;
            let config = scene.facts.config.clusters.get(index);
            vec![
                (&cluster.name).into(),
                topology.primary().map(|node| &node.name).into(),
                topology.nodes.len().into(),
                topology.replicas().filter(up).count().into(),
                topology.nodes.iter().filter(down).count().into(),
                topology.timeline.into(),
                topology.is_split.into(),
                config.map(|config| config.balance.name()).into(),
                config.map(|config| config.primary_reads.name()).into(),
                topology.version.into(),
            ]
        })
        .collect()
}
