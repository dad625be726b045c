//! What is known of a cluster's servers at one moment: an immutable snapshot, replaced whole.
//!
//! The control plane writes it, the data path reads it. A decision never mixes two snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Lsn, NodeId, Role};

/// Whether a node answers the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// The last check succeeded.
    Up,
    /// The last checks failed.
    Down,
}

/// One server.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its place in the configuration.
    pub id: NodeId,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Host name, IP address, or the folder of a Unix-domain socket (it begins with `/`).
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Share of the reads relative to the other replicas; 0 takes it out of the choice.
    pub weight: u32,
    /// What the choice uses: `weight` x [`Node::WEIGHT_SCALE`] x lag factor (1 at no lag, 0 at `max_lag`) x slow start
    /// after recovery. Worked out with the snapshot, so that no choice has to.
    pub effective_weight: u32,
    /// The role as last seen; `None` until it has been seen.
    pub role: Option<Role>,
    /// Whether it answers.
    pub health: Health,
    /// The timeline that it was last seen on; 0 until it has been seen.
    pub timeline: u32,
    /// Position inserted (primary) or replayed (replica) when last seen.
    pub position: Lsn,
    /// WAL bytes between the primary's newest sample and `position`; `None` when either is unknown. 0 for the primary.
    pub lag_bytes: Option<u64>,
    /// Age of the newest primary sample that this replica has replayed, counted only while WAL is outstanding;
    /// `None` when it has replayed none yet. Zero for the primary.
    pub lag: Option<Duration>,
    /// The moment at which the newest primary sample that this replica has replayed was *sent*: all that was committed
    /// before it is visible here. `None` when there is none yet. For the primary: when it was asked for `position`.
    pub replayed_through: Option<Instant>,
    /// Whether `lag` (and `lag_bytes`, where `max_lag` is in bytes) is within the cluster's `max_lag`.
    pub within_max_lag: bool,
}

impl Node {
    /// What one unit of configured weight is in [`Node::effective_weight`].
    ///
    /// Chosen: fine enough that a lag factor is exact to a thousandth, and small enough that a weight of a million does
    /// not overflow.
    pub const WEIGHT_SCALE: u32 = 1000;

    /// Returns a server of which nothing is known but its configuration.
    pub fn unseen(id: NodeId, name: Arc<str>, host: Arc<str>, port: u16, weight: u32) -> Self {
        Node {
            id,
            name,
            host,
            port,
            weight,
            effective_weight: weight.saturating_mul(Node::WEIGHT_SCALE),
            role: None,
            health: Health::Unknown,
            timeline: 0,
            position: Lsn::default(),
            lag_bytes: None,
            lag: None,
            replayed_through: None,
            within_max_lag: false,
        }
    }
}

/// The servers of one cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// Grows by one with each snapshot.
    pub version: u64,
    /// When it was published; `None` for one that no monitor made.
    pub published_at: Option<Instant>,
    /// After this moment nothing here vouches for a replica any more: the monitor has stalled. `None` if it never expires.
    pub expires_at: Option<Instant>,
    /// The servers, by `NodeId::node`.
    pub nodes: Vec<Node>,
    /// Index into `nodes` of the server that takes writes: seen out of recovery and healthy, on the highest timeline.
    pub primary: Option<usize>,
}

impl Topology {
    /// Returns the node that takes writes.
    pub fn primary(&self) -> Option<&Node> {
        self.nodes.get(self.primary?)
    }

    /// Returns the nodes that were last seen in recovery.
    pub fn replicas(&self) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(|node| node.role == Some(Role::Replica))
    }
}
