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
use pgweir_model::{Health, Lsn, Node, NodeId, Role, Topology};

use crate::error::ProbeError;
use crate::probe::Observation;
use crate::settings::{NodeSettings, Settings};

/// Failures in a row after which a server is down.
const FAILURES_TO_DOWN: u32 = 2;

/// Something that an operator wants to know, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A server answers (again).
    Up { node: usize, role: Role },
    /// A server does not answer.
    Down { node: usize, error: ProbeError },
    /// A server has changed its role.
    Role { node: usize, role: Role },
    /// A server's role is not the one that the configuration gives.
    Unexpected {
        node: usize,
        seen: Role,
        expected: Role,
    },
    /// Another server takes the writes, or none.
    Primary { node: Option<usize>, timeline: u32 },
    /// Two servers take writes on one timeline.
    Split { timeline: u32 },
    /// A server takes writes on a timeline that was left behind.
    LeftBehind {
        node: usize,
        timeline: u32,
        newest: u32,
    },
}

/// What is known of one server.
#[derive(Debug, Clone, Default)]
struct Seen {
    health: Option<Health>,
    failures: u32,
    last: Option<Observation>,
    timeline: u32,
    /// When it answered again after it was down.
    recovered_at: Option<Instant>,
    left_behind: bool,
}

impl Seen {
    fn health(&self) -> Health {
        self.health.unwrap_or(Health::Unknown)
    }

    fn role(&self) -> Option<Role> {
        self.last.map(|last| last.role)
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
            events: Vec::new(),
        }
    }

    pub(crate) fn reconfigure(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
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
            return self.on_failure(node, error);
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
        seen.health = Some(Health::Up);
        seen.failures = 0;
        seen.last = Some(answer);
        self.elect();
        if self.primary == Some(node) {
            self.system_identifier = Some(answer.system_identifier);
            self.samples.push(Sample {
                sent_at: answer.asked_at,
                inserted: answer.position,
                flushed: answer.flushed,
                timeline: answer.timeline.unwrap_or(answer.checkpoint_timeline),
            });
        }
    }

    /// Takes a failure.
    pub(crate) fn on_failure(&mut self, node: usize, error: ProbeError) {
        let Some(seen) = self.nodes.get_mut(node) else {
            return;
        };
        seen.failures = seen.failures.saturating_add(1);
        let never_seen = seen.health() == Health::Unknown;
        let is_down = never_seen || error.is_definite() || seen.failures >= FAILURES_TO_DOWN;
        if is_down && seen.health() != Health::Down {
            seen.health = Some(Health::Down);
            seen.recovered_at = None;
            self.events.push(Event::Down { node, error });
            self.elect();
        }
    }

    fn elect(&mut self) {
        let newest = self
            .nodes
            .iter()
            .map(|seen| seen.timeline)
            .max()
            .unwrap_or(0);
        let mut right = None;
        let mut is_split = false;
        for (node, seen) in self.nodes.iter_mut().enumerate() {
            let left_behind = seen.claims_primary() && seen.timeline < newest;
            if left_behind && !seen.left_behind {
                self.events.push(Event::LeftBehind {
                    node,
                    timeline: seen.timeline,
                    newest,
                });
            }
            seen.left_behind = left_behind;
            if seen.claims_primary() && !left_behind {
                is_split |= right.is_some();
                right = Some(node);
            }
        }
        if is_split && !self.is_split {
            self.events.push(Event::Split { timeline: newest });
        }
        self.is_split = is_split;
        let primary = right.filter(|_| !is_split);
        if primary != self.primary {
            self.primary = primary;
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
        Topology {
            version: self.version,
            published_at: Some(now),
            expires_at: Some(now + self.settings.snapshot_life()),
            nodes: nodes
                .map(|((settings, seen), index)| self.node(settings, seen, index, now))
                .collect(),
            primary: self.primary,
        }
    }

    fn node(&self, settings: &NodeSettings, seen: &Seen, index: u16, now: Instant) -> Node {
        let id = NodeId {
            cluster: self.settings.index,
            node: index,
        };
        let (name, host) = (Arc::clone(&settings.name), Arc::clone(&settings.host));
        let unseen = Node::unseen(id, name, host, settings.port, settings.weight);
        let Some(last) = seen.last else {
            return Node {
                health: seen.health(),
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
            effective_weight: self.slow_start(seen, settings.weight.saturating_mul(factor), now),
            role: Some(last.role),
            health: seen.health(),
            timeline: seen.timeline,
            position: last.position,
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

#[cfg(test)]
mod tests;
