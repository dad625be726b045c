//! How a cluster's reads are spread over its servers: what the operator chose, as part of the snapshot that is decided upon.

/// How one of the eligible replicas is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Balance {
    /// By weight, away from one that has clearly more in flight than another.
    #[default]
    LeastLoaded,
    /// By weight, in a fixed order.
    RoundRobin,
    /// By weight, drawn by lot.
    Random,
    /// As [`Balance::LeastLoaded`] among the replicas of the proxy's own zone, and among the others where those do not
    /// suffice.
    Nearest,
}

/// Whether the primary takes reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PrimaryReads {
    /// No: a read waits until a replica is eligible.
    Never,
    /// Those for which no replica is eligible.
    #[default]
    Fallback,
    /// By its weight, as a replica without lag.
    Share,
}

/// What the operator chose for a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Selection {
    /// How one of the eligible replicas is chosen.
    pub balance: Balance,
    /// Whether the primary takes reads.
    pub primary_reads: PrimaryReads,
}
