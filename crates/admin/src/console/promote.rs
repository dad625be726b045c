//! `PROMOTE CHECK`: could a replica be promoted now, and what would be lost?
//!
//! ## Limits
//! It judges by what the monitor has seen: it does not ask the servers again, and knows nothing of the WAL that a replica has
//! received and not replayed.

use pgweir_model::{Breaker, Health, Lsn, Node, Role, Topology};

use super::answer::{Answer, Column};
use super::types::{Cell, PgType};
use crate::facts::{ClusterFacts, Facts};
use crate::tables::Row;

/// Returns its columns.
pub(crate) fn columns() -> Vec<Column> {
    vec![
        Column::new("cluster", PgType::Text),
        Column::new("backend", PgType::Text),
        Column::new("ready", PgType::Bool),
        Column::new("lag_ms", PgType::Float8),
        Column::new("lag_bytes", PgType::Int8),
        Column::new("replay_lsn", PgType::Text),
        Column::new("timeline", PgType::Int8),
        Column::new("would_lose_bytes", PgType::Int8),
        Column::new("in_the_way", PgType::Text),
    ]
}

/// Returns one row for each server that is not the primary.
pub(crate) fn answer(facts: &Facts) -> Answer {
    let clusters = facts.clusters.iter().enumerate();
    let rows = clusters.flat_map(|(index, cluster)| {
        let topology = &cluster.topology;
        let nodes = topology.nodes.iter().enumerate();
        let others = nodes.filter(|(place, _)| topology.primary != Some(*place));
        others.map(move |(_, node)| row(facts, index, cluster, node))
    });
    Answer::rows(rows.collect(), "PROMOTE CHECK")
}

fn row(facts: &Facts, index: usize, cluster: &ClusterFacts, node: &Node) -> Row {
    let in_the_way = obstacles(facts, index, &cluster.topology, node);
    let newest = newest(&cluster.topology);
    let seen = node.asked_at.is_some();
    let lost = seen.then(|| newest.distance_bytes(node.position));
    vec![
        (&cluster.name).into(),
        (&node.name).into(),
        in_the_way.is_empty().into(),
        node.lag.map(crate::tables::milliseconds).into(),
        node.lag_bytes.into(),
        seen.then(|| node.position.to_string()).into(),
        node.timeline.into(),
        lost.into(),
        if in_the_way.is_empty() {
            Cell::Null
        } else {
            in_the_way.join("; ").into()
        },
    ]
}

/// The newest position that any server was seen at.
fn newest(topology: &Topology) -> Lsn {
    let positions = topology.nodes.iter().map(|node| node.position);
    positions.max().unwrap_or_default()
}

fn obstacles(facts: &Facts, index: usize, topology: &Topology, node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    match node.health {
        Health::Up => {}
        Health::Down => found.push("it does not answer".to_owned()),
        Health::Unknown => found.push("it has not been seen yet".to_owned()),
    }
    match node.role {
        Some(Role::Primary) => found.push("it is out of recovery already".to_owned()),
        None if node.health != Health::Unknown => found.push("its role is not known".to_owned()),
        _ => {}
    }
    if topology.is_split {
        found.push("several servers claim to be the primary".to_owned());
    }
    if node.timeline != 0 && topology.timeline != 0 && node.timeline < topology.timeline {
        found.push(format!(
            "it is on timeline {}, the primary on {}",
            node.timeline, topology.timeline
        ));
    }
    if !node.within_max_lag && node.role == Some(Role::Replica) {
        found.push("it is further behind than max_lag".to_owned());
    }
    if node.breaker == Breaker::Open {
        found.push("its breaker is open: connections to it fail".to_owned());
    }
    let ahead = topology.nodes.iter().find(|other| {
        other.role == Some(Role::Replica)
            && other.health == Health::Up
            && other.position > node.position
    });
    if let Some(ahead) = ahead.filter(|_| topology.primary().is_none()) {
        found.push(format!("{} has replayed more", ahead.name));
    }
    let config = facts.config.clusters.get(index);
    let backend = config.and_then(|config| config.backends.get(usize::from(node.id.node)));
    if backend.is_some_and(|backend| backend.role == pgweir_config::BackendRole::Replica) {
        found.push("the configuration says role = \"replica\"".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing;

    #[track_caller]
    fn obstacle(change: impl FnOnce(&mut Topology)) -> String {
        let mut facts = testing::facts();
        let mut topology = Topology::clone(&facts.clusters[0].topology);
        change(&mut topology);
        facts.clusters[0].topology = Arc::new(topology);
        let rows = answer(&facts).rows;
        let row = rows.last().unwrap();
        assert_eq!(row[1], "pg2".into());
        match (&row[2], &row[8]) {
            (Cell::Int(1), Cell::Null) => String::new(),
            (Cell::Int(0), Cell::Text(text)) => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_replica_is_ready_unless_something_is_in_the_way() {
        assert_eq!(obstacle(|_| {}), "");
        for (change, words) in [
            (
                (|topology| topology.nodes[1].health = Health::Down) as fn(&mut Topology),
                "does not answer",
            ),
            (
                |topology| topology.nodes[1].within_max_lag = false,
                "max_lag",
            ),
            (
                |topology| topology.nodes[1].role = Some(Role::Primary),
                "out of recovery",
            ),
            (
                |topology| topology.nodes[1].breaker = Breaker::Open,
                "breaker",
            ),
            (|topology| topology.is_split = true, "several servers"),
            (
                |topology| {
                    topology.timeline = 3;
                    topology.nodes[1].timeline = 2;
                },
                "timeline 2, the primary on 3",
            ),
        ] {
            let found = obstacle(change);
            assert!(found.contains(words), "{words}: {found}");
        }
    }

    #[test]
    fn without_a_primary_the_one_that_has_replayed_most_comes_first() {
        let found = obstacle(|topology| {
            topology.primary = None;
            topology.nodes[0].role = Some(Role::Replica);
        });
        assert!(found.contains("pg1 has replayed more"), "{found}");
    }
}
