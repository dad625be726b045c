//! What a transaction is to the router: whether it may write, and whether each of its statements looks anew.
//!
//! A BEGIN says only what differs from the session's defaults, and those from what its login found.

use pgweir_session::parameters::Value;
use pgweir_sql::{Isolation, TransactionModes};

use crate::client_task::Client;

/// What modes mean once the session's defaults are counted in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meaning {
    read_only: bool,
    isolation: Isolation,
}

impl Meaning {
    /// Returns whether a replica may run the transaction, as long as it only reads.
    pub(crate) fn allows_replica(self) -> bool {
        if self.read_only {
            !self.is_serializable()
        } else {
            self.may_move()
        }
    }

    /// Returns whether it is one that no replica runs.
    pub(crate) fn is_serializable(self) -> bool {
        self.isolation == Isolation::Serializable
    }

    /// Returns whether it cannot write.
    pub(crate) fn is_read_only(self) -> bool {
        self.read_only
    }

    /// Returns whether it may move from a replica to the primary: every statement has its own snapshot.
    pub(crate) fn may_move(self) -> bool {
        matches!(
            self.isolation,
            Isolation::ReadCommitted | Isolation::ReadUncommitted
        )
    }
}

impl Client {
    /// Returns what a transaction without modes of its own is: looked up for every batch, so kept until a setting changes.
    pub(crate) fn default_meaning(&self) -> Meaning {
        let id = self.session.state.wanted().id;
        if let Some((of, meaning)) = self.default_meaning.get()
            && of == id
        {
            return meaning;
        }
        let isolation = match self.default_of("default_transaction_isolation").as_deref() {
            Some("read committed") => Isolation::ReadCommitted,
            Some("read uncommitted") => Isolation::ReadUncommitted,
            Some("repeatable read") => Isolation::RepeatableRead,
            // What is not known may be the strictest.
            _ => Isolation::Serializable,
        };
        let read_only = self.default_of("default_transaction_read_only");
        let meaning = Meaning {
            read_only: matches!(read_only.as_deref(), Some("on" | "true" | "yes" | "1")),
            isolation,
        };
        self.default_meaning.set(Some((id, meaning)));
        meaning
    }

    /// Returns what modes come to in this session.
    pub(crate) fn meaning(&self, modes: TransactionModes) -> Meaning {
        let default = self.default_meaning();
        Meaning {
            read_only: modes.read_only.unwrap_or(default.read_only),
            isolation: modes.isolation.unwrap_or(default.isolation),
        }
    }

    /// Returns what the session has set a parameter to, or what its login found; `None` where that is not known.
    fn default_of(&self, name: &str) -> Option<String> {
        match self.session.state.wanted().get(name) {
            Some(Value::Text(text)) => Some(text.trim().to_ascii_lowercase()),
            Some(Value::Statement { words, .. }) => match words.as_deref() {
                Some([word]) => Some(word.to_ascii_lowercase()),
                _ => None,
            },
            None => {
                let defaults = &self.identity.defaults;
                let value = match name {
                    "default_transaction_isolation" => &defaults.isolation,
                    _ => &defaults.read_only,
                };
                Some(value.to_string())
            }
        }
    }
}

/// Defaults of a session that decide about its transactions, as its login found them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    /// `default_transaction_isolation`.
    pub(crate) isolation: Box<str>,
    /// `default_transaction_read_only`.
    pub(crate) read_only: Box<str>,
    /// `search_path`.
    pub(crate) search_path: Box<str>,
}
