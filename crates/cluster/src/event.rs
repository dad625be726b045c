//! What happens to the servers of a cluster, and how an operator reads of it: each event once, in the log.

use std::fmt;
use std::sync::Arc;

use pgweir_model::{Breaker, Lsn, Role};

use crate::error::ProbeError;
use crate::settings::Settings;

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
    /// A replica was promoted: what the old primary had beyond the new one's position is lost.
    Promoted {
        from: u32,
        to: u32,
        /// The last that was seen of the old primary's WAL.
        left_at: Lsn,
        /// Where the new timeline was first seen; it parted there or earlier.
        seen_at: Lsn,
    },
    /// A server's breaker has moved.
    Breaker { node: usize, state: Breaker },
    /// A server takes writes on a timeline that was left behind.
    LeftBehind {
        node: usize,
        timeline: u32,
        newest: u32,
    },
}

/// An event in words, for whoever keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// The server that it is about, else the cluster.
    pub subject: Arc<str>,
    /// It concerns who takes the writes.
    pub is_succession: bool,
    /// What has happened.
    pub message: String,
}

/// Where a monitor tells of events, beside the log. Called on its thread, so it must be quick.
pub struct Sink(Box<dyn Fn(Happening) + Send + Sync>);

impl Sink {
    /// Returns one that calls `tell` for each.
    pub fn new(tell: impl Fn(Happening) + Send + Sync + 'static) -> Self {
        Sink(Box::new(tell))
    }

    pub(crate) fn tell(&self, happening: Happening) {
        (self.0)(happening);
    }
}

impl Default for Sink {
    fn default() -> Self {
        Sink::new(|_| {})
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl Event {
    /// Returns it in words.
    pub(crate) fn told(&self, settings: &Settings) -> Happening {
        let name = |node: usize| match settings.nodes.get(node) {
            Some(node) => Arc::clone(&node.name),
            None => Arc::from("?"),
        };
        let cluster = || Arc::clone(&settings.name);
        let (subject, is_succession, message) = match self {
            Event::Up { node, role } => (name(*node), false, format!("is up as {role}")),
            Event::Down { node, error } => (name(*node), false, format!("is down: {error}")),
            Event::Role { node, role } => (name(*node), false, format!("is now {role}")),
            Event::Unexpected {
                node,
                seen,
                expected,
            } => {
                let text = format!("is {seen}, and {expected} by the configuration");
                (name(*node), false, text)
            }
            Event::Breaker { node, state } => {
                (name(*node), false, format!("breaker: {}", state.name()))
            }
            Event::Primary {
                node: Some(node),
                timeline,
            } => {
                let text = format!("takes the writes, on timeline {timeline}");
                (name(*node), true, text)
            }
            Event::Primary { node: None, .. } => {
                (cluster(), true, "no primary: writes wait".to_owned())
            }
            Event::Split { timeline } => {
                let text = format!("two primaries on timeline {timeline}: writes are refused");
                (cluster(), true, text)
            }
            Event::Promoted { from, to, .. } => {
                let text = format!("timeline {to} has followed timeline {from}");
                (cluster(), true, text)
            }
            Event::LeftBehind {
                node,
                timeline,
                newest,
            } => {
                let text = format!(
                    "is primary of timeline {timeline}, and {newest} is the newest: it takes no traffic"
                );
                (name(*node), true, text)
            }
        };
        Happening {
            subject,
            is_succession,
            message,
        }
    }

    /// Writes it to the log.
    pub(crate) fn log(&self, settings: &Settings) {
        let cluster = &*settings.name;
        let name = |node: &usize| settings.nodes.get(*node).map_or("?", |node| &*node.name);
        match self {
            Event::Up { node, role } => {
                tracing::info!(cluster, node = name(node), %role, "server is up");
            }
            Event::Down { node, error } => {
                tracing::warn!(cluster, node = name(node), %error, "server is down");
            }
            Event::Role { node, role } => {
                tracing::info!(cluster, node = name(node), %role, "server changed its role");
            }
            Event::Unexpected {
                node,
                seen,
                expected,
            } => {
                let node = name(node);
                tracing::warn!(cluster, node, %seen, %expected, "server has another role than configured");
            }
            Event::Breaker { node, state } => {
                let (node, state) = (name(node), state.name());
                tracing::warn!(cluster, node, state, "breaker has moved");
            }
            Event::Primary { .. }
            | Event::Split { .. }
            | Event::Promoted { .. }
            | Event::LeftBehind { .. } => {
                self.log_succession(cluster, name);
            }
        }
    }

    /// Writes what concerns who takes the writes.
    fn log_succession<'a>(&self, cluster: &str, name: impl Fn(&usize) -> &'a str) {
        match self {
            Event::Primary {
                node: Some(node),
                timeline,
            } => {
                tracing::info!(cluster, node = name(node), timeline, "primary found");
            }
            Event::Primary { node: None, .. } => {
                tracing::warn!(cluster, "no primary: writes wait");
            }
            Event::Split { timeline } => {
                tracing::error!(
                    cluster,
                    timeline,
                    "two primaries on one timeline: writes are refused"
                );
            }
            Event::Promoted {
                from,
                to,
                left_at,
                seen_at,
            } => {
                let lost_bytes_least = left_at.distance_bytes(*seen_at);
                let text = "a new timeline: what the old primary had written beyond it is lost";
                tracing::warn!(cluster, from, to, %left_at, %seen_at, lost_bytes_least, "{text}");
            }
            Event::LeftBehind {
                node,
                timeline,
                newest,
            } => {
                let node = name(node);
                let text = "primary of an old timeline: it takes no traffic";
                tracing::error!(cluster, node, timeline, newest, "{text}");
            }
            Event::Up { .. }
            | Event::Down { .. }
            | Event::Role { .. }
            | Event::Unexpected { .. }
            | Event::Breaker { .. } => {}
        }
    }
}
