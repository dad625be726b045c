//! The decision order of the router: first match wins.
//!
//! ## Why
//! Each step answers one question, and what fails falls towards the primary: a session that must stay where it is, an
//! explicit instruction, a statement that no reading vouches for, and only then the replicas that may show what the
//! session must see. A known write never reaches a replica: it is refused instead. What a rule blocks is refused before
//! anything else is asked.
//!
//! ## Limits
//! It does not wait: a read whose write no replica has replayed yet goes to the primary at once. While there is no primary,
//! reads go on with whatever replica answers, as far as its lag is not known to be too large.

use std::sync::Arc;
use std::time::Instant;

use pgweir_consistency::{Lag, MaxLag, Verdict};
use pgweir_model::{Health, Node, Reason, Role, Topology};

use crate::balance::{Balancer, Loads};
use crate::error::RouteError;
use crate::facts::Facts;
use crate::session_view::{Asks, Consistency, Held, Instruction, SessionView};

/// Where a batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The server connection that the session has.
    Same,
    /// The node at this index of [`Topology::nodes`].
    Node(usize),
    /// Nowhere: the proxy answers.
    Local,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where.
    pub target: Target,
    /// Why.
    pub reason: Reason,
}

/// What is known of the servers at the moment of a decision.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The servers.
    pub topology: &'a Topology,
    /// What this worker thread has in flight on them.
    pub loads: &'a Loads,
    /// The moment of the decision.
    pub now: Instant,
}

/// How far a node is from taking a read; the furthest of all nodes is the reason when none takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It is no replica, or is out of the choice.
    NoReplica,
    /// It does not answer.
    Down,
    /// It is too far behind, or how far is not known.
    Lagging,
    /// It has not replayed what the session wrote.
    NotReplayed,
    /// It may take the read.
    Eligible,
}

/// Returns where the batch goes and why.
///
/// # Errors
/// [`RouteError`]: the batch is understood and refused.
pub fn decide(
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    balancer: &mut Balancer,
) -> Result<Route, RouteError> {
    if let Some(rule) = &facts.rule
        && let Some(message) = rule.block
    {
        return Err(RouteError::Blocked {
            rule: rule.name.into(),
            message: message.into(),
        });
    }
    if facts.reason == Reason::Local {
        return Ok(Route {
            target: Target::Local,
            reason: Reason::Local,
        });
    }
    let held = match session.held {
        Held::Pinned(_) => Some(Reason::Pinned),
        Held::Transaction => Some(Reason::InTransaction),
        Held::Session => Some(Reason::SessionPooling),
        Held::Nothing => None,
    };
    if let Some(reason) = held {
        return Ok(Route {
            target: Target::Same,
            reason,
        });
    }
    if let Some((instruction, by)) = instruction(facts, session) {
        return follow(instruction, by, facts, session, view, balancer);
    }
    if session.session_pooling {
        // Its one connection must be able to take whatever comes later.
        return to_primary(view, Reason::SessionPooling);
    }
    if !facts.is_read() {
        return to_primary(view, facts.reason);
    }
    if !session.splitting {
        return to_primary(view, Reason::SplittingOff);
    }
    if facts.learned {
        return to_primary(view, Reason::Learned);
    }
    match choose(facts, session, view, balancer) {
        Ok(index) => Ok(Route {
            target: Target::Node(index),
            reason: facts.reason,
        }),
        Err(none) => to_primary(view, none),
    }
}

/// Returns the instruction that holds, and the reason that it gives.
///
/// A hint stands above what the session set, and that above a rule. A hint of one statement, or a rule about statements, does
/// not choose the server of a whole session.
pub(crate) fn instruction<'a>(
    facts: &Facts<'a>,
    session: &SessionView<'a>,
) -> Option<(Instruction<'a>, Reason)> {
    let rule = || match facts.rule {
        Some(rule) if rule.is_for_session || !session.session_pooling => rule.route,
        _ => Instruction::Auto,
    };
    let (instruction, by) = match (facts.route, session.route.instruction()) {
        (Some(hint), _) if !session.session_pooling => (hint, Reason::Hint),
        (_, Instruction::Auto) => (rule(), Reason::Rule),
        (_, setting) => (setting, Reason::SessionSetting),
    };
    (instruction != Instruction::Auto).then_some((instruction, by))
}

/// Returns what is asked of a replica: by the hint, else by the session, else by a rule, else by the database.
pub(crate) fn asks(facts: &Facts<'_>, session: &SessionView<'_>) -> Asks {
    let rule = facts.rule.map(|rule| rule.asks).unwrap_or_default();
    let database = Asks {
        max_lag: None,
        consistency: Some(session.consistency),
    };
    facts.asks.or(session.asks).or(rule).or(database)
}

fn follow(
    instruction: Instruction<'_>,
    by: Reason,
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    balancer: &mut Balancer,
) -> Result<Route, RouteError> {
    let refused = RouteError::ReplicaWrite {
        instruction: match by {
            Reason::Hint => "the hint",
            Reason::Rule => "a rule of the configuration",
            _ => "pgweir.route",
        },
    };
    match instruction {
        Instruction::Auto | Instruction::Primary => to_primary(view, by),
        Instruction::Replica if facts.is_known_write() => Err(refused),
        Instruction::Replica => match choose(facts, session, view, balancer) {
            Ok(index) => Ok(Route {
                target: Target::Node(index),
                reason: by,
            }),
            Err(none) => to_primary(view, none),
        },
        Instruction::Backend(name) => {
            let (index, node) = named(view.topology, name)?;
            if view.topology.primary != Some(index) && facts.is_known_write() {
                return Err(refused);
            }
            if node.health == Health::Down {
                return Err(RouteError::BackendDown {
                    name: Arc::clone(&node.name),
                });
            }
            Ok(Route {
                target: Target::Node(index),
                reason: by,
            })
        }
    }
}

fn to_primary(view: &View<'_>, reason: Reason) -> Result<Route, RouteError> {
    let index = view.topology.primary.ok_or(RouteError::NoPrimary)?;
    Ok(Route {
        target: Target::Node(index),
        reason,
    })
}

/// Returns a replica for a read, or why there is none.
fn choose(
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    balancer: &mut Balancer,
) -> Result<usize, Reason> {
    let eligible = |node: &Node| standing(node, facts, session, view) == Standing::Eligible;
    balancer
        .pick(view.topology, view.loads, eligible)
        .ok_or_else(|| {
            let standings = view
                .topology
                .nodes
                .iter()
                .map(|node| standing(node, facts, session, view));
            standings.max().unwrap_or(Standing::NoReplica).reason()
        })
}

impl Standing {
    /// Returns why a read goes to the primary when no node stands better.
    pub(crate) fn reason(self) -> Reason {
        match self {
            // Not reached for `Eligible`: the balancer takes an eligible node.
            Standing::NoReplica | Standing::Eligible => Reason::NoReplica,
            Standing::Down => Reason::ReplicaDown,
            Standing::Lagging => Reason::ReplicaLag,
            Standing::NotReplayed => Reason::NotReplayed,
        }
    }
}

/// Returns whether a node may take a read of this session, and what it lacks.
pub(crate) fn standing(
    node: &Node,
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
) -> Standing {
    if node.role == Some(Role::Primary) || node.weight == 0 {
        return Standing::NoReplica;
    }
    if node.role.is_none() || node.health != Health::Up {
        return Standing::Down;
    }
    let asks = asks(facts, session);
    if !is_within_limit(node, asks.max_lag, view) {
        return Standing::Lagging;
    }
    let must_show = session
        .wrote_at
        .filter(|_| asks.consistency == Some(Consistency::Session));
    match (must_show, node.replayed_through) {
        (None, _) => Standing::Eligible,
        (Some(wrote_at), Some(through)) if through > wrote_at => Standing::Eligible,
        (Some(_), _) => Standing::NotReplayed,
    }
}

fn is_within_limit(node: &Node, limit: Option<MaxLag>, view: &View<'_>) -> bool {
    let topology = view.topology;
    if topology
        .expires_at
        .is_some_and(|expires_at| view.now > expires_at)
    {
        return false;
    }
    if topology.primary.is_none() && node.lag.is_none() && node.lag_bytes.is_none() {
        // Behind what? With no primary in sight since the start, reads that work are worth more than none.
        return true;
    }
    let Some(limit) = limit else {
        return node.within_max_lag;
    };
    // What has passed since the snapshot may have been written on the primary.
    let age = topology
        .published_at
        .map(|at| view.now.saturating_duration_since(at))
        .unwrap_or_default();
    let time = node.lag.map(|lag| {
        if matches!(limit, MaxLag::Time(_)) {
            lag.saturating_add(age)
        } else {
            lag
        }
    });
    let lag = Lag {
        bytes: node.lag_bytes,
        time,
        replayed_through: node.replayed_through,
    };
    limit.verdict(&lag) == Verdict::Fresh
}

fn named<'a>(topology: &'a Topology, name: &str) -> Result<(usize, &'a Node), RouteError> {
    let found = topology
        .nodes
        .iter()
        .enumerate()
        .find(|(_, node)| &*node.name == name);
    found.ok_or_else(|| RouteError::UnknownBackend {
        name: Arc::from(name),
        nearest: nearest(topology, name),
    })
}

/// Returns the name that differs least, if it differs in no more than a third.
fn nearest(topology: &Topology, name: &str) -> Option<Arc<str>> {
    let distance = |node: &&Node| strsim::damerau_levenshtein(&node.name, name);
    let node = topology.nodes.iter().min_by_key(distance)?;
    (distance(&node) <= (name.chars().count() / 3).max(1)).then(|| Arc::clone(&node.name))
}

#[cfg(test)]
mod tests;
