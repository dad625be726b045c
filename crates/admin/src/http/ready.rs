//! Whether the proxy should be sent clients.
//!
//! ## Why
//! Ready means that a client that comes now can do some work here. A cluster without a primary is ready while a replica takes
//! reads: statements for the primary wait for a failover, every proxy of a service sees the same, and a service whose proxies all
//! leave it turns a short wait into refused connections.

use std::time::Instant;

use pgweir_model::{Breaker, Node, Topology};
use serde::Serialize;

use crate::control::Phase;
use crate::facts::Facts;

/// The answer of `/readyz`.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Readiness {
    #[serde(rename = "ready")]
    pub(super) is_ready: bool,
    /// Why it is not ready.
    pub(super) problems: Vec<String>,
    /// What is amiss and keeps nobody away.
    pub(super) warnings: Vec<String>,
}

/// Returns whether a client could work here, and what is amiss.
pub(super) fn readiness(facts: &Facts) -> Readiness {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    if facts.phase != Phase::Serving {
        problems.push(format!("the proxy is {}", facts.phase.name()));
    }
    for (index, cluster) in facts.clusters.iter().enumerate() {
        let is_used = facts
            .config
            .databases
            .iter()
            .any(|database| usize::from(database.cluster_index) == index);
        let name = &cluster.name;
        if is_used && cluster.topology.primary().is_none() {
            let split = if cluster.topology.is_split {
                ": several servers claim to be it"
            } else {
                ""
            };
            warnings.push(format!("cluster {name} has no primary{split}"));
        }
        if is_used && !has_server(&cluster.topology, facts.now) {
            problems.push(format!("no server of cluster {name} takes work"));
        }
    }
    Readiness {
        is_ready: problems.is_empty(),
        problems,
        warnings,
    }
}

/// Whether there is a primary, or a replica that reads could go to now.
fn has_server(topology: &Topology, now: Instant) -> bool {
    let takes_reads =
        |node: &Node| topology.takes_reads(node, now) && node.breaker != Breaker::Open;
    topology.primary().is_some() || topology.nodes.iter().any(takes_reads)
}
