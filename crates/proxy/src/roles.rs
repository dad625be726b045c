//! What a session does when a server changes its role or falls silent while the session uses it, or waits for it.
//!
//! ## Why
//! A server that was replaced may go on: a primary that was only frozen, or cut off, takes writes that nobody will ever see
//! again. So a session leaves a primary as soon as another one is known, whatever it runs there. A replica that has fallen
//! silent answers nobody, and its connections need not break: a read that it has not begun to answer runs elsewhere.
//! What cannot be repeated waits for the server as long as a statement waits for a primary, and is then given up.

use std::time::Duration;

use pgweir_model::{Health, Node, NodeId, Reason, Role, Topology};

use crate::client_task::{Client, Held, Next, Place};

/// A state of the servers that never was: a session that has seen it looks at the present one.
pub(crate) const LOOK_AGAIN: u64 = u64::MAX;

/// What is to be done about a server connection in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Stays,
    /// The server does not answer: what can be repeated is.
    Silent,
    /// It is given up, whatever becomes of what it runs.
    Lost,
}

impl Client {
    /// Looks at the server connection in use after something has changed among the servers.
    #[inline]
    pub(crate) fn look_at_roles(&mut self) -> Result<(), Box<Next>> {
        let roles = self.worker().roles();
        match roles == self.roles_seen {
            true => Ok(()),
            false => self.look_at_new_roles(roles),
        }
    }

    fn look_at_new_roles(&mut self, roles: u64) -> Result<(), Box<Next>> {
        self.roles_seen = roles;
        let Some(held) = &self.held else {
            return Ok(());
        };
        let verdict = verdict(held, &self.topology(), self.silence_limit());
        let may_retry = self.replay.may_retry(self.identity.read_retries);
        let is_repeatable = self.session.is_watching_read() && may_retry || self.reopens();
        if verdict == Verdict::Stays || verdict == Verdict::Silent && !is_repeatable {
            return Ok(());
        }
        tracing::warn!(node = %held.node, ?verdict, "a server connection in use is given up");
        match self.lose_if_spare()? {
            true => Ok(()),
            false => self.on_server_lost(),
        }
    }

    /// Returns how long a silent server is waited for.
    fn silence_limit(&self) -> Duration {
        let config = self.worker().shared.config.load();
        let cluster = config.clusters.get(usize::from(self.identity.cluster));
        cluster.map_or(Duration::MAX, |cluster| cluster.failover_wait)
    }

    /// Returns whether a node is still what a batch was sent there for.
    pub(crate) fn is_as_decided(&self, place: Place) -> bool {
        let topology = self.topology();
        match place.role {
            Role::Primary => !is_replaced(&topology, place.node),
            Role::Replica => topology
                .nodes
                .get(usize::from(place.node.node))
                .is_some_and(|node| node.health != Health::Down && self.may_go_there(node, place)),
        }
    }
}

impl Client {
    /// Returns whether the operator lets a batch have a connection to a replica that it was sent to. A weight says nothing about
    /// one that was asked for.
    fn may_go_there(&self, node: &Node, place: Place) -> bool {
        let is_chosen = !matches!(
            place.reason,
            Reason::Hint | Reason::SessionSetting | Reason::Rule | Reason::Signal
        );
        // Who is to be stopped there is there.
        let is_drained = node.is_drained && place.reason != Reason::Signal;
        !is_drained && (node.is_in_choice() || !is_chosen)
    }
}

fn verdict(held: &Held, topology: &Topology, limit: Duration) -> Verdict {
    if held.role == Role::Primary && is_replaced(topology, held.node) {
        return Verdict::Lost;
    }
    let node = topology.nodes.get(usize::from(held.node.node));
    let down_since = node
        .filter(|node| node.health == Health::Down)
        .and_then(|node| node.down_since);
    let Some(down_since) = down_since else {
        return Verdict::Stays;
    };
    let now = topology.published_at.unwrap_or(down_since);
    match held.role {
        _ if now.saturating_duration_since(down_since) >= limit => Verdict::Lost,
        Role::Replica => Verdict::Silent,
        // A primary that answers late is still the only one.
        Role::Primary => Verdict::Stays,
    }
}

/// Returns whether another server, or none of several, takes the writes in place of this one.
fn is_replaced(topology: &Topology, node: NodeId) -> bool {
    match topology.primary() {
        Some(primary) => primary.id != node,
        None => topology.is_split,
    }
}
