//! Clusters to decide upon, for this crate's tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_consistency::Token;
use pgweir_model::{Consistency, Health, Lsn, Node, NodeId, Role, Selection, Topology};

use crate::session_view::{Asks, Held, RouteSetting, SessionView};

/// Returns a healthy cluster: `pg1` is the primary, `pg2`, `pg3`, ... are caught-up replicas of these weights.
pub(crate) fn cluster(weights: &[u32], now: Instant) -> Topology {
    let node = |node: u16, weight: u32| {
        let name: Arc<str> = format!("pg{}", node + 1).into();
        Node {
            role: Some(if node == 0 {
                Role::Primary
            } else {
                Role::Replica
            }),
            health: Health::Up,
            timeline: 1,
            position: Lsn(1000),
            lag_bytes: Some(0),
            lag: Some(Duration::ZERO),
            replayed_through: Some(now),
            asked_at: Some(now),
            connected_at: Some(now),
            within_max_lag: true,
            ..Node::unseen(
                NodeId { cluster: 0, node },
                name,
                "localhost".into(),
                5432 + node,
                weight,
            )
        }
    };
    let nodes = std::iter::once(&1)
        .chain(weights)
        .zip(0..)
        .map(|(weight, index)| node(index, *weight))
        .collect();
    Topology {
        version: 1,
        published_at: Some(now),
        expires_at: None,
        nodes,
        primary: Some(0),
        timeline: 1,
        roles_version: 1,
        is_split: false,
        selection: Selection::default(),
    }
}

/// Returns a session that has written nothing and asks nothing.
pub(crate) fn session(route: &RouteSetting) -> SessionView<'_> {
    SessionView {
        held: Held::Nothing,
        route,
        token: Token::default(),
        min_lsn: None,
        arrived_at: None,
        asks: Asks::default(),
        consistency: Consistency::Session,
        splitting: true,
        session_pooling: false,
    }
}
