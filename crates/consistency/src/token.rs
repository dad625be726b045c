//! The session token: what a session has written and seen, and whether a replica shows at least that.
//!
//! ## Why
//! - *Read your writes.* What the session did on the primary is noted as a moment. A replica that has replayed a sample
//!   that was sent later shows all of it; no position travels with the statement, and a write costs no round trip.
//! - *Monotonic reads.* Where a replica stood when it answered is not known, only that it was no further than when the
//!   monitor next asks it. So the session stays with the replica that it read from (which never goes back) until that
//!   question has been answered; then the position is the session's floor, and any replica at or beyond it will do. A
//!   session that reads on meanwhile has the question asked soon.
//! - A read on the primary counts like a write: it may have shown what no replica has yet.
//! - *Timelines.* After a promotion positions of the old timeline mean nothing, and what was only there is gone: the token
//!   becomes the moment at which the new timeline was first seen.
//!
//! ## Limits
//! A replica that is restarted may show an older state than before. It is noticed by the monitor's connection, which does
//! not outlive the server: what was seen before that was opened does not bind a session to the replica. A session that
//! comes to a restarted replica before the monitor does (at most one and a half `lag_poll`) may see it.

use std::time::Instant;

use pgweir_model::{Consistency, Lsn, Node, Role, Topology};

use crate::sample::without_page_header;

/// What a session has written and seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Token {
    /// When it last used the primary: its last transaction there had ended by then.
    primary_at: Option<Instant>,
    /// The replica that it last read from, while its position then is not known.
    visit: Option<Visit>,
    /// What it has seen on replicas, on `timeline`.
    floor: Lsn,
    /// 0 while it has seen no topology.
    timeline: u32,
}

/// A read from a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Visit {
    /// Index into the topology's nodes, its `NodeId::node`.
    node: usize,
    /// When the read had ended.
    at: Instant,
}

impl Token {
    /// Notes that a transaction on the primary has ended by `at`.
    ///
    /// The primary is behind no replica, so that this is all there is to know.
    pub fn used_primary(&mut self, at: Instant) {
        self.primary_at = Some(at);
        self.visit = None;
        self.floor = Lsn::default();
    }

    /// Notes that a read from the replica at `node` of the topology has ended by `at`.
    pub fn used_replica(&mut self, node: usize, at: Instant) {
        // A replica that was left before its position was known: whoever shows that moment shows what it showed.
        if let Some(left) = self.visit.filter(|visit| visit.node != node) {
            self.primary_at = self.primary_at.max(Some(left.at));
        }
        self.visit = Some(Visit { node, at });
    }

    /// Returns the latest moment of which it tells; `None` for a session that has done nothing.
    pub fn newest_at(&self) -> Option<Instant> {
        self.primary_at.max(self.visit.map(|visit| visit.at))
    }

    /// Returns the position at or below which all lies that it has seen on replicas, as far as that is known.
    pub fn floor(&self) -> Lsn {
        self.floor
    }

    /// Returns the replica that the session is bound to until it is known where that stood, by its index in the topology.
    pub fn visited(&self) -> Option<usize> {
        self.visit.map(|visit| visit.node)
    }

    /// Returns whether there is one.
    pub fn is_visiting(&self) -> bool {
        self.visit.is_some()
    }

    /// Returns whether the last that it used was the primary.
    pub fn is_on_primary(&self) -> bool {
        self.primary_at.is_some() && self.visit.is_none() && self.floor == Lsn::default()
    }

    /// Makes the moment of what binds the session to a replica: whoever shows that moment shows what it has seen there.
    pub fn unbind(&mut self) {
        if let Some(visit) = self.visit.take() {
            self.primary_at = self.primary_at.max(Some(visit.at));
        }
    }

    /// Takes what a newer topology says: the position of the replica that was read from, or a new timeline.
    pub fn settle(&mut self, topology: &Topology) {
        if topology.timeline != self.timeline && topology.timeline != 0 {
            self.cut(topology);
        }
        let Some(visit) = self.visit else { return };
        let Some(node) = topology.nodes.get(visit.node) else {
            return;
        };
        if node.connected_at.is_some_and(|opened| opened > visit.at) {
            self.unbind();
        } else if node.asked_at.is_some_and(|asked_at| asked_at > visit.at)
            && node.timeline == topology.timeline
        {
            self.floor = self.floor.max(node.position);
            self.visit = None;
        }
    }

    /// Gives up the positions of another timeline.
    fn cut(&mut self, topology: &Topology) {
        if self.timeline != 0 {
            let seen = match self.floor {
                Lsn(0) => None,
                // It was seen some time before the new timeline was.
                _ => topology.published_at,
            };
            self.primary_at = self.newest_at().max(seen);
            self.visit = None;
            self.floor = Lsn::default();
        }
        self.timeline = topology.timeline;
    }

    /// Returns whether a replica shows all that the session has written and seen.
    fn is_shown_by(&self, node: &Node) -> bool {
        let shows = |at: Instant| node.replayed_through.is_some_and(|through| through > at);
        let is_there = |visit: Visit| {
            visit.node == usize::from(node.id.node)
                && node.role == Some(Role::Replica)
                && node.connected_at.is_some_and(|opened| opened <= visit.at)
        };
        self.primary_at.is_none_or(shows)
            && (self.floor == Lsn::default()
                || node.timeline == self.timeline && node.position >= self.floor)
            && self
                .visit
                .is_none_or(|visit| is_there(visit) || shows(visit.at))
    }
}

/// What a replica must show to take a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The level that is asked for.
    pub level: Consistency,
    /// That of the session, settled with the topology at hand.
    pub token: Token,
    /// A position that the session has been told of: `pgweir.min_lsn`.
    pub min_lsn: Option<Lsn>,
    /// When the read arrived; for [`Consistency::Strong`] everything that was committed before must be shown.
    pub arrived_at: Option<Instant>,
}

impl Demand {
    /// Returns the same of a session that is not bound to the replica that it read from.
    #[must_use]
    pub fn unbound(mut self) -> Self {
        self.token.unbind();
        self
    }

    /// Returns whether a replica shows enough.
    pub fn is_met_by(&self, node: &Node) -> bool {
        let by_level = match self.level {
            Consistency::Eventual => true,
            Consistency::Session => self.token.is_shown_by(node),
            Consistency::Strong => {
                let through = node.replayed_through;
                self.arrived_at
                    .is_some_and(|arrived_at| through.is_some_and(|through| through > arrived_at))
            }
        };
        let by_position = self
            .min_lsn
            .is_none_or(|least| node.position >= without_page_header(least));
        by_level && by_position
    }
}

#[cfg(test)]
mod tests;
