//! What is known of a cluster's servers at one moment: an immutable snapshot, replaced whole.
//!
//! The control plane writes it, the data path reads it. A decision never mixes two snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Lsn, NodeId, Role, Selection};

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

/// Whether a node's circuit breaker lets reads through.
///
/// The monitor counts failures of the data path and its own; an open breaker keeps reads off a node that still answers the
/// monitor. The primary has none: there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Breaker {
    /// Reads go through.
    #[default]
    Closed,
    /// None does.
    Open,
    /// As many as `trials` at once, per worker thread, to see whether it works again.
    HalfOpen {
        /// The most at once.
        trials: u32,
    },
}

impl Breaker {
    /// Returns its name in the console and the logs.
    pub fn name(self) -> &'static str {
        match self {
            Breaker::Closed => "closed",
            Breaker::Open => "open",
            Breaker::HalfOpen { .. } => "half_open",
        }
    }
}

/// One server.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one server"
)]
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
    /// An operator wants nothing new to run here: it is out of the choice, whatever its weight. As the primary it takes writes
    /// all the same.
    pub is_drained: bool,
    /// What the choice uses: `weight` x [`Node::WEIGHT_SCALE`] x lag factor (1 at no lag, 0 at `max_lag`) x slow start
    /// after recovery; 0 where it is drained. Worked out with the snapshot, so that no choice has to.
    pub effective_weight: u32,
    /// Whether it stands in the proxy's own zone.
    pub is_near: bool,
    /// The role as last seen; `None` until it has been seen.
    pub role: Option<Role>,
    /// Whether it answers.
    pub health: Health,
    /// The timeline that it was last seen on; 0 until it has been seen.
    pub timeline: u32,
    /// Position inserted (primary) or replayed (replica) when last seen.
    pub position: Lsn,
    /// The moment just before it was asked for `position`; `None` until it has been seen.
    pub asked_at: Option<Instant>,
    /// When the control plane's connection was opened that it last answered on. What a session saw on a replica before
    /// that may be gone: it may have been restarted, and replay a part of its WAL again.
    pub connected_at: Option<Instant>,
    /// Whether reads go through to it.
    pub breaker: Breaker,
    /// Since when it has not answered; `None` while it is up, or has not been asked.
    pub down_since: Option<Instant>,
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
            is_drained: false,
            effective_weight: weight.saturating_mul(Node::WEIGHT_SCALE),
            is_near: false,
            role: None,
            health: Health::Unknown,
            timeline: 0,
            position: Lsn::default(),
            asked_at: None,
            connected_at: None,
            breaker: Breaker::Closed,
            down_since: None,
            lag_bytes: None,
            lag: None,
            replayed_through: None,
            within_max_lag: false,
        }
    }

    /// Returns whether the operator lets it be chosen for reads.
    pub fn is_in_choice(&self) -> bool {
        self.weight > 0 && !self.is_drained
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
    /// The timeline of the primary's samples; 0 while there are none.
    pub timeline: u32,
    /// Grows by one when a role, a server's health or the primary is another than before: what a session that holds a server
    /// connection, or waits for one, has to look at.
    pub roles_version: u64,
    /// Several servers claim to be the primary on one timeline: none of them takes writes.
    pub is_split: bool,
    /// How reads are spread over them.
    pub selection: Selection,
}

impl Topology {
    /// Returns the node that takes writes.
    pub fn primary(&self) -> Option<&Node> {
        self.nodes.get(self.primary?)
    }

    /// Returns whether this still vouches for replicas.
    pub fn vouches_at(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|expires_at| now <= expires_at)
    }

    /// Returns whether a replica is measured against nothing: no primary has been in sight since the start. Reads that work
    /// are worth more than none.
    pub fn is_unmeasured(&self, replica: &Node) -> bool {
        let has_samples = self.timeline != 0;
        let has_lag = replica.lag.is_some() || replica.lag_bytes.is_some();
        self.primary.is_none() && !has_samples && !has_lag
    }

    /// Returns whether reads that ask for nothing special may go to a replica, whatever its breaker lets through.
    pub fn takes_reads(&self, node: &Node, now: Instant) -> bool {
        node.role == Some(Role::Replica)
            && node.health == Health::Up
            && node.is_in_choice()
            && self.vouches_at(now)
            && (node.within_max_lag || self.is_unmeasured(node))
    }

    /// Returns the nodes that were last seen in recovery.
    pub fn replicas(&self) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(|node| node.role == Some(Role::Replica))
    }
}
