//! The decision order of the router: first match wins.
//!
//! ## Why
//! Each step answers one question, and what fails falls towards the primary: a session that must stay where it is, an
//! explicit instruction, a statement that no reading vouches for, and only then the replicas that may show what the
//! session must see. A known write never reaches a replica: it is refused instead. What a rule blocks is refused before
//! anything else is asked.
//!
//! ## Limits
//! It does not wait: a read for which no replica shows enough yet goes to the primary, with a reason that says so; whether
//! it is worth waiting first is what [`may_catch_up`] tells. While there is no primary, reads go on with whatever replica
//! answers, as far as its lag is not known to be too large.
//! Where `primary_reads` is `never`, a read for which no replica is eligible goes nowhere: the caller waits and asks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_consistency::{Demand, Lag, MaxLag, Verdict};
use pgweir_model::{Breaker, Consistency, Health, Node, PrimaryReads, Reason, Role, Topology};

use crate::balance::{Balancer, Loads, Pick};
use crate::error::RouteError;
use crate::facts::Facts;
use crate::session_view::{Asks, Held, Instruction, SessionView};

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
    /// It has not replayed what the read must see.
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
    match choose(Among::Readers, facts, session, view, balancer) {
        Ok(index) => Ok(Route {
            target: Target::Node(index),
            reason: facts.reason,
        }),
        Err(none) => without_replica(view, none),
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
pub fn asks(facts: &Facts<'_>, session: &SessionView<'_>) -> Asks {
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
        Instruction::Replica => match choose(Among::Replicas, facts, session, view, balancer) {
            Ok(index) => Ok(Route {
                target: Target::Node(index),
                reason: by,
            }),
            Err(none) => without_replica(view, none),
        },
        Instruction::Backend(name) => {
            let (index, node) = named(view.topology, name)?;
            if view.topology.primary != Some(index) && facts.is_known_write() {
                return Err(refused);
            }
            if node.is_drained && view.topology.primary != Some(index) {
                return Err(RouteError::BackendDrained {
                    name: Arc::clone(&node.name),
                });
            }
            // One that was the primary, or claims to be it beside another, would take what is not known to write.
            let is_false_primary =
                node.role == Some(Role::Primary) && view.topology.primary != Some(index);
            if node.health == Health::Down || is_false_primary {
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
    let index = view.topology.primary.ok_or(match view.topology.is_split {
        true => RouteError::Split,
        false => RouteError::NoPrimary,
    })?;
    Ok(Route {
        target: Target::Node(index),
        reason,
    })
}

/// Returns what a replica must show to take this read.
pub fn demand(facts: &Facts<'_>, session: &SessionView<'_>) -> Demand {
    demand_of(asks(facts, session), session)
}

fn demand_of(asks: Asks, session: &SessionView<'_>) -> Demand {
    Demand {
        level: asks.consistency.unwrap_or_default(),
        token: session.token,
        min_lsn: session.min_lsn,
        arrived_at: session.arrived_at,
    }
}

/// Returns whether a replica lacks nothing but what the read must see, and is so little behind that it may have it `within`
/// that time.
pub fn may_catch_up(
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    within: Duration,
) -> bool {
    let wants = Wants::of(facts, session);
    view.topology.nodes.iter().any(|node| {
        wants.standing(node, view) == Standing::NotReplayed
            && node.lag.is_some_and(|lag| lag <= within)
    })
}

/// Returns where a read goes for which no replica is eligible.
fn without_replica(view: &View<'_>, reason: Reason) -> Result<Route, RouteError> {
    match view.topology.selection.primary_reads {
        PrimaryReads::Never => Err(RouteError::NoReplica { reason }),
        PrimaryReads::Fallback | PrimaryReads::Share => to_primary(view, reason),
    }
}

/// Whom a choice is among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Among {
    /// The eligible replicas.
    Replicas,
    /// They, and the primary where it takes reads by its weight.
    Readers,
}

/// Returns whether a node is the primary and takes reads as a replica without lag does.
pub(crate) fn shares(node: &Node, topology: &Topology) -> bool {
    topology.selection.primary_reads == PrimaryReads::Share
        && node.is_in_choice()
        && (topology.primary()).is_some_and(|primary| primary.id == node.id)
}

/// Returns a node for a read, or why there is none.
fn choose(
    among: Among,
    facts: &Facts<'_>,
    session: &SessionView<'_>,
    view: &View<'_>,
    balancer: &mut Balancer,
) -> Result<usize, Reason> {
    // A session that is bound to a replica stays there: the primary, once used, is left only after a wait.
    let wants = Wants::of(facts, session);
    let bound_to = wants.bound_to();
    if let Some(index) = bound_to
        && let Some(node) = view.topology.nodes.get(index)
        && wants.standing(node, view) == Standing::Eligible
    {
        return Ok(index);
    }
    let eligible = |node: &Node| {
        among == Among::Readers && bound_to.is_none() && shares(node, view.topology)
            || wants.standing(node, view) == Standing::Eligible
    };
    let what = match wants.demand.level {
        Consistency::Session => Pick::Session,
        Consistency::Eventual | Consistency::Strong => Pick::Read,
    };
    balancer
        .pick_for(what, view.topology, view.loads, eligible)
        .ok_or_else(|| {
            let standings = view
                .topology
                .nodes
                .iter()
                .map(|node| wants.standing(node, view));
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

/// What a read wants of whoever takes it: worked out once for all nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wants {
    max_lag: Option<MaxLag>,
    demand: Demand,
}

impl Wants {
    pub(crate) fn of(facts: &Facts<'_>, session: &SessionView<'_>) -> Self {
        let asks = asks(facts, session);
        Wants {
            max_lag: asks.max_lag,
            demand: demand_of(asks, session),
        }
    }

    /// Returns the replica that a session stays with which has just read there.
    fn bound_to(&self) -> Option<usize> {
        let node = self.demand.token.visited();
        node.filter(|_| self.demand.level == Consistency::Session)
    }

    /// Returns whether a node may take the read, and what it lacks.
    pub(crate) fn standing(&self, node: &Node, view: &View<'_>) -> Standing {
        if node.role == Some(Role::Primary) || !node.is_in_choice() {
            return Standing::NoReplica;
        }
        if node.role.is_none() || node.health != Health::Up || !is_let_through(node, view) {
            return Standing::Down;
        }
        if !is_within_limit(node, self.max_lag, view) {
            return Standing::Lagging;
        }
        if self.demand.is_met_by(node) {
            Standing::Eligible
        } else {
            Standing::NotReplayed
        }
    }
}

fn is_let_through(node: &Node, view: &View<'_>) -> bool {
    match node.breaker {
        Breaker::Closed => true,
        Breaker::Open => false,
        Breaker::HalfOpen { trials } => view.loads.meant_for(usize::from(node.id.node)) < trials,
    }
}

fn is_within_limit(node: &Node, limit: Option<MaxLag>, view: &View<'_>) -> bool {
    let topology = view.topology;
    if !topology.vouches_at(view.now) {
        return false;
    }
    if topology.is_unmeasured(node) {
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
