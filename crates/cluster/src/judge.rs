//! From answers to a snapshot: roles, health, the one primary, lag. Pure: the moment is an argument.
//!
//! ## Why
//! - A server is down after two failures in a row, or one that leaves no doubt: one lost packet must not move traffic, a
//!   refused connection must.
//! - Of two that claim to be the primary the higher timeline is right: the other was replaced. An old primary that comes
//!   back is refused even while the new one is away, because a timeline above its own has been seen. At equal timelines
//!   neither is believed, and writes are refused until one gives way.
//! - What is seen stands above what the configuration expects; the difference is logged.

use std::sync::Arc;
use std::time::Instant;

use pgweir_consistency::{Lag, Replay, Sample, SampleLog, Verdict};
use pgweir_model::{Breaker, Health, Lsn, Node, NodeId, Role, Topology};

use crate::breaker::Breaker as BreakerMachine;
use crate::error::ProbeError;
use crate::event::Event;
use crate::probe::Observation;
use crate::settings::{NodeSettings, Settings};

/// Failures in a row after which a server is down.
const FAILURES_TO_DOWN: u32 = 2;

/// What is known of one server.
#[derive(Debug, Clone, Default)]
struct Seen {
    health: Option<Health>,
    failures: u32,
    down_since: Option<Instant>,
    /// Nothing is there that could still take writes: its last failure has left no doubt.
    is_gone: bool,
    last: Option<Observation>,
    timeline: u32,
    /// When it answered again after it was down.
    recovered_at: Option<Instant>,
    left_behind: bool,
    breaker: BreakerMachine,
    /// The state that was told of last.
    breaker_told: Breaker,
}

impl Seen {
    fn health(&self) -> Health {
        self.health.unwrap_or(Health::Unknown)
    }

    fn role(&self) -> Option<Role> {
        self.last.map(|last| last.role)
    }

    fn identifier(&self) -> Option<i64> {
        self.last.map(|last| last.system_identifier)
    }

    /// Returns whether it was last seen as a primary and is not known to be gone.
    fn may_take_writes(&self) -> bool {
        self.role() == Some(Role::Primary) && !self.is_gone
    }

    fn claims_primary(&self) -> bool {
        self.health() == Health::Up && self.role() == Some(Role::Primary)
    }
}

/// The state behind the snapshots of one cluster.
#[derive(Debug)]
pub(crate) struct Judge {
    settings: Arc<Settings>,
    nodes: Vec<Seen>,
    samples: SampleLog,
    primary: Option<usize>,
    is_split: bool,
    /// Of the first primary seen; servers with another one are not of this cluster.
    system_identifier: Option<i64>,
    version: u64,
    roles_version: u64,
    events: Vec<Event>,
}

impl Judge {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let nodes = vec![Seen::default(); settings.nodes.len()];
        Judge {
            settings,
            nodes,
            samples: SampleLog::new(),
            primary: None,
            is_split: false,
            system_identifier: None,
            version: 0,
            roles_version: 0,
            events: Vec::new(),
        }
    }

    pub(crate) fn reconfigure(&mut self, settings: Arc<Settings>) {
        let is_in_choice = |node: &NodeSettings| node.weight > 0 && !node.is_drained;
        let mut nodes = self.settings.nodes.iter().zip(&settings.nodes);
        if nodes.any(|(old, new)| is_in_choice(old) != is_in_choice(new)) {
            // Reads that wait for one of its connections are to go elsewhere.
            self.roles_version += 1;
        }
        self.settings = settings;
    }

    /// Returns the time between two looks at every server.
    pub(crate) fn lag_poll(&self) -> std::time::Duration {
        self.settings.lag_poll
    }

    /// Returns what happened since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the node that takes writes.
    pub(crate) fn primary(&self) -> Option<usize> {
        self.primary
    }

    /// Returns the newest position that the primary gave.
    pub(crate) fn newest_position(&self) -> Option<Lsn> {
        self.samples.newest().map(|sample| sample.inserted)
    }

    /// Returns what the primary had flushed then.
    pub(crate) fn newest_flushed(&self) -> Option<Lsn> {
        self.samples.newest().map(|sample| sample.flushed)
    }

    /// Returns whether a server does not answer.
    pub(crate) fn is_down(&self, node: usize) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|seen| seen.health() == Health::Down)
    }

    /// Returns whether a healthy replica has not replayed `target` as far as is known.
    pub(crate) fn is_behind(&self, node: usize, target: Lsn) -> bool {
        self.nodes.get(node).is_some_and(|seen| {
            let replica = seen.last.filter(|last| last.role == Role::Replica);
            seen.health() == Health::Up && replica.is_some_and(|last| last.position < target)
        })
    }

    /// Takes an answer.
    pub(crate) fn on_answer(&mut self, node: usize, answer: Observation) {
        if let Some(expected) = self
            .system_identifier
            .filter(|expected| *expected != answer.system_identifier)
        {
            let error = ProbeError::Foreign {
                found: answer.system_identifier,
                expected,
            };
            return self.on_failure(node, error, answer.asked_at);
        }
        let expected = self
            .settings
            .nodes
            .get(node)
            .and_then(|settings| settings.expected);
        let Some(seen) = self.nodes.get_mut(node) else {
            return;
        };
        let before = seen.role();
        if seen.health() == Health::Down && before == Some(Role::Replica) {
            seen.recovered_at = Some(answer.asked_at);
        }
        if seen.health() == Health::Down {
            // What it failed at was that it was down, and it comes back slowly as it is.
            seen.breaker = BreakerMachine::default();
        }
        if seen.health() != Health::Up {
            self.events.push(Event::Up {
                node,
                role: answer.role,
            });
        } else if before != Some(answer.role) {
            self.events.push(Event::Role {
                node,
                role: answer.role,
            });
        }
        if let Some(expected) =
            expected.filter(|expected| *expected != answer.role && before != Some(answer.role))
        {
            self.events.push(Event::Unexpected {
                node,
                seen: answer.role,
                expected,
            });
        }
        // A replica that receives nothing is still on the timeline that it was on, and its checkpoint may be older.
        let remembered = if before == Some(answer.role) {
            seen.timeline
        } else {
            0
        };
        seen.timeline = answer
            .timeline
            .unwrap_or(answer.checkpoint_timeline.max(remembered));
        if seen.health() != Health::Up || before != Some(answer.role) {
            self.roles_version += 1;
        }
        seen.health = Some(Health::Up);
        seen.down_since = None;
        seen.is_gone = false;
        seen.failures = 0;
        seen.last = Some(answer);
        self.elect();
        if self.primary == Some(node) {
            self.system_identifier = Some(answer.system_identifier);
            self.sample(answer);
        }
    }

    fn sample(&mut self, answer: Observation) {
        let timeline = answer.timeline.unwrap_or(answer.checkpoint_timeline);
        if let Some(last) = self.samples.newest()
            && timeline > last.timeline
        {
            self.events.push(Event::Promoted {
                from: last.timeline,
                to: timeline,
                left_at: last.flushed,
                seen_at: answer.position,
            });
        }
        if timeline < self.samples.timeline() {
            // The promotion was undone: this is the primary all the same.
            self.samples.clear();
        }
        self.samples.push(Sample {
            sent_at: answer.asked_at,
            inserted: answer.position,
            flushed: answer.flushed,
            timeline,
        });
    }

    /// Takes what the data path says of a server: failures, and whether it has answered since it was last asked about.
    pub(crate) fn on_signals(&mut self, node: usize, failures: u32, succeeded: bool, now: Instant) {
        let settings = self.settings.breaker;
        let Some(seen) = self.nodes.get_mut(node) else {
            return;
        };
        if failures > 0 {
            seen.breaker.on_failures(failures, &settings, now);
        }
        if succeeded {
            seen.breaker.on_success(&settings, now);
        }
    }

    /// Returns whether the data path is to tell when the server answers it.
    pub(crate) fn is_suspect(&self, node: usize) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|seen| seen.breaker.is_suspect())
    }

    /// Takes a failure.
    pub(crate) fn on_failure(&mut self, node: usize, error: ProbeError, now: Instant) {
        let Some(seen) = self.nodes.get_mut(node) else {
            return;
        };
        seen.failures = seen.failures.saturating_add(1);
        let never_seen = seen.health() == Health::Unknown;
        let was_gone = std::mem::replace(&mut seen.is_gone, error.is_definite());
        let is_news = seen.is_gone && !was_gone;
        let is_down = never_seen || error.is_definite() || seen.failures >= FAILURES_TO_DOWN;
        if is_down && seen.health() != Health::Down {
            seen.health = Some(Health::Down);
            seen.down_since = Some(now);
            self.roles_version += 1;
            seen.recovered_at = None;
            self.events.push(Event::Down { node, error });
            self.elect();
        } else if is_news {
            self.elect();
        }
    }

    fn elect(&mut self) {
        let newest = |of: &Seen, nodes: &[Seen]| {
            // What another cluster has come to says nothing.
            let same = nodes
                .iter()
                .filter(|seen| seen.identifier() == of.identifier());
            same.map(|seen| seen.timeline).max().unwrap_or(0)
        };
        let mut right = None;
        let mut rivals = 0;
        let mut timeline = self
            .nodes
            .iter()
            .map(|seen| seen.timeline)
            .max()
            .unwrap_or(0);
        for node in 0..self.nodes.len() {
            let Some(seen) = self.nodes.get(node) else {
                continue;
            };
            let newest = newest(seen, &self.nodes);
            let left_behind = seen.claims_primary() && seen.timeline < newest;
            // One that has fallen silent may still take writes.
            rivals += u32::from(seen.may_take_writes() && seen.timeline == newest);
            if seen.claims_primary() && !left_behind {
                right = Some(node);
                timeline = newest;
            }
            if left_behind && !seen.left_behind {
                self.events.push(Event::LeftBehind {
                    node,
                    timeline: seen.timeline,
                    newest,
                });
            }
            if let Some(seen) = self.nodes.get_mut(node) {
                seen.left_behind = left_behind;
            }
        }
        let is_split = rivals > 1 && right.is_some();
        let newest = timeline;
        if is_split && !self.is_split {
            self.events.push(Event::Split { timeline: newest });
        }
        self.roles_version += u64::from(self.is_split != is_split);
        self.is_split = is_split;
        let primary = right.filter(|_| !is_split);
        if primary != self.primary {
            self.primary = primary;
            self.roles_version += 1;
            self.events.push(Event::Primary {
                node: primary,
                timeline: newest,
            });
        }
    }

    /// Returns what is known at `now`.
    pub(crate) fn snapshot(&mut self, now: Instant) -> Topology {
        self.version += 1;
        let nodes = self.settings.nodes.iter().zip(&self.nodes).zip(0..);
        let nodes = nodes
            .map(|((settings, seen), index)| self.node(settings, seen, index, now))
            .collect();
        let mut topology = Topology {
            version: self.version,
            published_at: Some(now),
            expires_at: Some(now + self.settings.snapshot_life()),
            nodes,
            primary: self.primary,
            timeline: self.samples.timeline(),
            roles_version: self.roles_version,
            is_split: self.is_split,
            selection: self.settings.selection,
        };
        spare_the_last(&mut topology, now);
        for ((index, node), seen) in topology.nodes.iter().enumerate().zip(&mut self.nodes) {
            if node.breaker != seen.breaker_told {
                seen.breaker_told = node.breaker;
                let state = node.breaker;
                self.events.push(Event::Breaker { node: index, state });
            }
        }
        topology
    }

    fn node(&self, settings: &NodeSettings, seen: &Seen, index: u16, now: Instant) -> Node {
        let id = NodeId {
            cluster: self.settings.index,
            node: index,
        };
        let (name, host) = (Arc::clone(&settings.name), Arc::clone(&settings.host));
        let unseen = Node {
            is_near: settings.is_near,
            is_drained: settings.is_drained,
            effective_weight: effective(settings, Node::WEIGHT_SCALE),
            ..Node::unseen(id, name, host, settings.port, settings.weight)
        };
        let Some(last) = seen.last else {
            return Node {
                health: seen.health(),
                down_since: seen.down_since,
                ..unseen
            };
        };
        let is_primary = self.primary == Some(usize::from(index));
        let replay = Replay {
            position: last.position,
            timeline: seen.timeline,
            asked_at: last.asked_at,
        };
        let lag = match last.role {
            Role::Primary if is_primary => Lag {
                bytes: Some(0),
                time: Some(std::time::Duration::ZERO),
                replayed_through: Some(last.asked_at),
            },
            Role::Primary => Lag::default(),
            Role::Replica => Lag::measure(&self.samples, replay, self.settings.patience(), now),
        };
        let factor = self.settings.max_lag.weight_factor(&lag);
        Node {
            effective_weight: self.slow_start(seen, effective(settings, factor), now),
            role: Some(last.role),
            health: seen.health(),
            down_since: seen.down_since,
            timeline: seen.timeline,
            position: last.position,
            asked_at: Some(last.asked_at),
            connected_at: Some(last.connected_at),
            breaker: match last.role {
                Role::Primary => Breaker::Closed,
                Role::Replica => seen.breaker.state(&self.settings.breaker, now),
            },
            lag_bytes: lag.bytes,
            lag: lag.time,
            replayed_through: lag.replayed_through,
            within_max_lag: self.settings.max_lag.verdict(&lag) == Verdict::Fresh,
            ..unseen
        }
    }

    /// Returns what a replica has of its weight after it recovered: it grows evenly to the whole.
    fn slow_start(&self, seen: &Seen, weight: u32, now: Instant) -> u32 {
        let whole = self.settings.slow_start.as_millis();
        let Some(recovered_at) = seen.recovered_at else {
            return weight;
        };
        let since = now.saturating_duration_since(recovered_at).as_millis();
        if since >= whole || weight == 0 {
            return weight;
        }
        u32::try_from(u128::from(weight) * since / whole)
            .unwrap_or(weight)
            .max(1)
    }
}

/// Returns what a server has of the choice: its weight, unless it is drained.
fn effective(settings: &NodeSettings, factor: u32) -> u32 {
    match settings.is_drained {
        true => 0,
        false => settings.weight.saturating_mul(factor),
    }
}

/// Closes the breakers of the replicas while no other replica can take the reads: a replica that fails some is worth more
/// than none, and what it fails is run again elsewhere.
fn spare_the_last(topology: &mut Topology, now: Instant) {
    let nodes = topology.nodes.iter();
    let takes_reads: Vec<bool> = nodes.map(|node| topology.takes_reads(node, now)).collect();
    let nodes = topology.nodes.iter_mut().zip(takes_reads);
    let takers: Vec<&mut Node> = nodes
        .filter_map(|(node, takes_reads)| takes_reads.then_some(node))
        .collect();
    if takers.iter().all(|node| node.breaker != Breaker::Closed) {
        for node in takers {
            node.breaker = Breaker::Closed;
        }
    }
}

#[cfg(test)]
mod tests;
