//! Histories of what clients did and saw, and a checker that says which promises of consistency they break. Pure.
//!
//! In the manner of Jepsen and Elle, but small and exact, because the operations are chosen so that their order shows:
//!
//! - An *append* puts a unique value at the end of a list, and a read returns the whole list. The list that is read last, on
//!   the primary, is the order of all appends; every other read must be a beginning of it.
//! - A *write* of a register raises its version by one and is told the new version; a read returns version and value.
//!
//! So each write and each read has one place in the order of its object, and the promises compare places:
//!
//! | promise | broken when |
//! |---|---|
//! | [`Promise::NothingInvented`] | a value is seen that nobody wrote, or whose write is known to have failed |
//! | [`Promise::NothingTwice`] | a value is seen twice in a list, or at two versions |
//! | [`Promise::OneOrder`] | a read is no beginning of the list, or two values have one version |
//! | [`Promise::NothingLost`] | an acknowledged write is not in what is read last |
//! | [`Promise::ReadYourWrites`] | a read does not show a write that its session was told of before |
//! | [`Promise::MonotonicReads`] | a read shows an older state than its session has seen, of this object or through another |
//! | [`Promise::MonotonicWrites`] | two writes of one session took place the other way round |
//! | [`Promise::RealTime`] | an operation did not see a write that anybody was told of before it began |
//!
//! "Through another" object: who has seen a value has seen a state in which all that was acknowledged before that value's
//! write began had happened, so that no later read may lack any of it.
//!
//! ## Limits
//! - Reads that returned nothing are of no use here and are left out by whoever writes the history down.
//! - An operation of unknown outcome may have happened or not; if it is seen, it did.
//! - Real-time order is asked of acknowledged writes. What a read has seen binds the later reads of its own session only.

use std::fmt;
use std::time::Duration;

mod order;
mod sessions;

/// A value that is written: unique in its object over the whole history.
pub type Value = u32;

/// What is read and written; lists and registers are numbered apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A list, empty at first.
    List(u32),
    /// A register, at version 0 with the value 0 at first.
    Register(u32),
}

/// What one operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put a value at the end of a list.
    Append {
        /// The list.
        key: u32,
        /// The value.
        value: Value,
    },
    /// Read a list.
    List {
        /// The list.
        key: u32,
        /// All its values, the oldest first.
        values: Vec<Value>,
    },
    /// Wrote a register.
    Write {
        /// The register.
        key: u32,
        /// The value.
        value: Value,
        /// The version that it made, as far as the client was told.
        version: Option<u64>,
    },
    /// Read a register.
    Register {
        /// The register.
        key: u32,
        /// Its version.
        version: u64,
        /// The value of this version.
        value: Value,
    },
}

impl Action {
    /// Returns what it is about.
    #[must_use]
    pub fn object(&self) -> Object {
        match self {
            Action::Append { key, .. } | Action::List { key, .. } => Object::List(*key),
            Action::Write { key, .. } | Action::Register { key, .. } => Object::Register(*key),
        }
    }

    /// Returns the value that it wrote; none of a read.
    #[must_use]
    pub fn written(&self) -> Option<Value> {
        match self {
            Action::Append { value, .. } | Action::Write { value, .. } => Some(*value),
            Action::List { .. } | Action::Register { .. } => None,
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client was told of its success.
    Ok,
    /// It has certainly not happened.
    Failed,
    /// Nobody can tell: the connection was lost before the answer.
    Unknown,
}

/// One operation of one session. A session does one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The session; a client that has connected anew is another one.
    pub session: u32,
    /// When it began, since the beginning of the history. For a read in a transaction whose snapshot was taken earlier, when
    /// that was asked for.
    pub invoked_at: Duration,
    /// When the client was told of its end; for a write in a transaction, of the commit's.
    pub completed_at: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// What it did.
    pub action: Action,
    /// Which server answered, for whoever reads the report.
    pub place: String,
    /// That server was the primary.
    pub is_on_primary: bool,
}

/// What many sessions did, and what was there at the end.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// All operations. Those of one session are in the order in which it did them.
    pub operations: Vec<Operation>,
    /// Every object as it was read on the primary when all was over. What is not named has never been written.
    pub last: Vec<Action>,
}

/// Something that a level of consistency promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// What is seen was written.
    NothingInvented,
    /// What is written is written once.
    NothingTwice,
    /// All see the states of an object in one order.
    OneOrder,
    /// What was acknowledged stays.
    NothingLost,
    /// A session sees what it wrote.
    ReadYourWrites,
    /// A session never sees an older state than it has seen.
    MonotonicReads,
    /// The primary shows what a replica has shown of a commit that nobody had been told of. No level promises it: PostgreSQL
    /// itself shows a commit on its replicas before it has heard from the synchronous ones, and only then on the primary.
    PrimaryIsAhead,
    /// A session's writes take place in its order.
    MonotonicWrites,
    /// Everybody sees what was acknowledged to anybody before.
    RealTime,
}

/// What a database promises to its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A state that once was.
    Eventual,
    /// The session's own writes, and never an older state.
    Session,
    /// Every write that was acknowledged before.
    Strong,
}

impl Level {
    /// Returns what the level promises.
    #[must_use]
    pub fn promises(self) -> &'static [Promise] {
        use Promise::{
            MonotonicReads, MonotonicWrites, NothingInvented, NothingLost, NothingTwice, OneOrder,
            ReadYourWrites, RealTime,
        };
        match self {
            Level::Eventual => &[NothingInvented, NothingTwice, OneOrder, NothingLost],
            Level::Session => &[
                NothingInvented,
                NothingTwice,
                OneOrder,
                NothingLost,
                ReadYourWrites,
                MonotonicReads,
                MonotonicWrites,
            ],
            Level::Strong => &[
                NothingInvented,
                NothingTwice,
                OneOrder,
                NothingLost,
                ReadYourWrites,
                MonotonicReads,
                MonotonicWrites,
                RealTime,
            ],
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Eventual => "eventual",
            Level::Session => "session",
            Level::Strong => "strong",
        })
    }
}

/// A promise that was not kept, with the operations that show it.
#[derive(Debug, Clone)]
pub struct Violation<'a> {
    /// The promise.
    pub promise: Promise,
    /// What is wrong, in words.
    pub what: String,
    /// The operations concerned, in the order in which they began.
    pub operations: Vec<&'a Operation>,
}

impl<'a> Violation<'a> {
    fn new(promise: Promise, what: String, mut operations: Vec<&'a Operation>) -> Self {
        operations.sort_by_key(|operation| operation.invoked_at);
        operations.dedup_by(|a, b| std::ptr::eq(*a, *b));
        Self {
            promise,
            what,
            operations,
        }
    }
}

/// Returns every broken promise, of all levels; which of them were given is for the caller to say ([`Level::promises`]).
#[must_use]
pub fn check(history: &History) -> Vec<Violation<'_>> {
    let (order, mut violations) = order::of(history);
    violations.extend(sessions::check(history, &order));
    violations
}

impl fmt::Display for Violation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.what)?;
        for operation in &self.operations {
            write!(f, "\n    {operation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>10.3?} to {:>10.3?} session {:>3}: {}",
            self.invoked_at, self.completed_at, self.session, self.action
        )?;
        match self.outcome {
            Outcome::Ok => {}
            Outcome::Failed => write!(f, ", failed")?,
            Outcome::Unknown => write!(f, ", outcome unknown")?,
        }
        match self.place.as_str() {
            "" => Ok(()),
            place => write!(f, " on {place}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More of a list's end than anybody looks at.
        const SHOWN: usize = 6;
        match self {
            Action::Append { key, value } => write!(f, "append {value} to list {key}"),
            Action::List { key, values } => {
                let skipped = values.len().saturating_sub(SHOWN);
                write!(f, "read list {key}: {} values, ", values.len())?;
                write!(f, "{}", if skipped > 0 { "the last " } else { "" })?;
                write!(f, "{:?}", values.get(skipped..).unwrap_or_default())
            }
            Action::Write {
                key,
                value,
                version: Some(version),
            } => write!(f, "write {value} to register {key} as version {version}"),
            Action::Write { key, value, .. } => write!(f, "write {value} to register {key}"),
            Action::Register {
                key,
                version,
                value,
            } => write!(f, "read register {key}: version {version}, value {value}"),
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
