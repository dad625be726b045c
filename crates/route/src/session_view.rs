//! What the decision needs to know of a session.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pgweir_consistency::{MaxLag, Token};
use pgweir_model::{Consistency, Lsn, PinReason};

/// What a session is to the router at the moment of a decision.
#[derive(Debug, Clone, Copy)]
pub struct SessionView<'a> {
    /// The server connection that it has, and why it must be used.
    pub held: Held,
    /// Its `pgweir.route`.
    pub route: &'a RouteSetting,
    /// What it has written and seen, settled with the topology of the decision.
    pub token: Token,
    /// The position that it must be shown: its `pgweir.min_lsn`.
    pub min_lsn: Option<Lsn>,
    /// When the batch at hand arrived; only `strong` asks for it.
    pub arrived_at: Option<Instant>,
    /// What it chose for its reads: its `pgweir.max_lag` and `pgweir.consistency`.
    pub asks: Asks,
    /// What the reads of its database may see where nobody asks for something else.
    pub consistency: Consistency,
    /// Whether reads of this database go to replicas at all: `splitting = "on"`.
    pub splitting: bool,
    /// Whether its pool mode gives it one server connection for life.
    pub session_pooling: bool,
}

/// The server connection that a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Held {
    /// None that it must use.
    #[default]
    Nothing,
    /// One that it stays on because of state that cannot be moved.
    Pinned(PinReason),
    /// One that its open transaction runs on, failed ones included.
    Transaction,
    /// One for its life, by session pooling.
    Session,
}

/// What somebody wants of the replicas that take a read: a hint, a session, or a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asks {
    /// How far they may be behind, in place of the cluster's `max_lag`.
    pub max_lag: Option<MaxLag>,
    /// What they must show.
    pub consistency: Option<Consistency>,
}

impl Asks {
    /// Returns these wishes, and those of `other` where there are none.
    #[must_use]
    pub fn or(self, other: Asks) -> Asks {
        Asks {
            max_lag: self.max_lag.or(other.max_lag),
            consistency: self.consistency.or(other.consistency),
        }
    }
}

/// An explicit instruction where it stands: [`RouteSetting`] borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction<'a> {
    /// As the statement is classified.
    Auto,
    /// The primary.
    Primary,
    /// A replica, whatever the classification says, short of a known write.
    Replica,
    /// The backend of this name.
    Backend(&'a str),
}

impl fmt::Display for Instruction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Instruction::Auto => "auto",
            Instruction::Primary => "primary",
            Instruction::Replica => "replica",
            Instruction::Backend(name) => name,
        })
    }
}

/// The value of `pgweir.route`, as a session keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum RouteSetting {
    /// As the statement is classified.
    #[default]
    Auto,
    /// The primary.
    Primary,
    /// A replica, whatever the classification says, short of a known write.
    Replica,
    /// The backend of this name.
    Backend(Arc<str>),
}

impl RouteSetting {
    /// Reads a value as a client writes it; what is none of the three words, whatever its case, names a backend.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("auto") {
            RouteSetting::Auto
        } else if text.eq_ignore_ascii_case("primary") {
            RouteSetting::Primary
        } else if text.eq_ignore_ascii_case("replica") {
            RouteSetting::Replica
        } else {
            RouteSetting::Backend(Arc::from(text))
        }
    }

    /// Returns what it asks.
    pub fn instruction(&self) -> Instruction<'_> {
        match self {
            RouteSetting::Auto => Instruction::Auto,
            RouteSetting::Primary => Instruction::Primary,
            RouteSetting::Replica => Instruction::Replica,
            RouteSetting::Backend(name) => Instruction::Backend(name),
        }
    }
}

impl fmt::Display for RouteSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instruction().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        for text in ["auto", "primary", "replica", "pg2", "PG-2.example:5432"] {
            assert_eq!(RouteSetting::parse(text).to_string(), text);
        }
    }

    #[test]
    fn words_have_no_case_and_nothing_means_auto() {
        assert_eq!(RouteSetting::parse(" Replica "), RouteSetting::Replica);
        assert_eq!(RouteSetting::parse(""), RouteSetting::Auto);
    }
}
