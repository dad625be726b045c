//! What a text does to the session that runs it, beyond its result.
//!
//! The session machine decides what follows from it: this module only says what happened.

use pgweir_model::PinReason;

/// The session side effects of one text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of a text; any combination of them occurs"
)]
pub struct Effects {
    /// The gravest of `pins`: one that survives `DISCARD ALL` if there is one, else the first of the text.
    pub pin: Option<PinReason>,
    /// All that ties the session to the server connection that runs the text.
    pub pins: PinSet,
    /// What it does to the transaction.
    pub transaction: TransactionControl,
    /// What it undoes, in order of the text. A session applies these before it applies `pins`, which is safe in any order.
    pub discard: Vec<Discard>,
    /// It may have changed session settings out of sight (`DO`, `CALL`, a function that is not a known built-in, ...):
    /// the server connection is reset before another session gets it.
    pub suspect: bool,
    /// It reads `COPY` data from the client.
    pub copy_from_stdin: bool,
    /// It changes the schema, so that what is known of the catalog is out of date.
    pub ddl: bool,
    /// It touches the state of the session or of its transaction: [`state_statements`](crate::state_statements) of a text of
    /// this shape says how.
    pub state: bool,
    /// Some of that changes run-time parameters.
    pub settings: bool,
}

impl Effects {
    /// Adds a reason to stay on the server connection.
    pub(crate) fn add_pin(&mut self, reason: PinReason) {
        self.pins.insert(reason);
        match self.pin {
            Some(held) if held.survives_discard() || !reason.survives_discard() => {}
            _ => self.pin = Some(reason),
        }
    }
}

/// A set of [`PinReason`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinSet(u16);

impl PinSet {
    fn bit(reason: PinReason) -> u16 {
        let position = PinReason::ALL
            .iter()
            .position(|r| *r == reason)
            .unwrap_or(0);
        1 << position
    }

    /// Adds a reason.
    pub fn insert(&mut self, reason: PinReason) {
        self.0 |= Self::bit(reason);
    }

    /// Takes a reason out.
    pub fn remove(&mut self, reason: PinReason) {
        self.0 &= !Self::bit(reason);
    }

    /// Returns whether the reason is in the set.
    pub fn contains(self, reason: PinReason) -> bool {
        self.0 & Self::bit(reason) != 0
    }

    /// Returns whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the set of the reasons in either.
    pub fn union(self, other: PinSet) -> PinSet {
        PinSet(self.0 | other.0)
    }

    /// Returns the reasons, in order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = PinReason> {
        PinReason::ALL
            .iter()
            .copied()
            .filter(move |reason| self.contains(*reason))
    }
}

/// An isolation level, as `BEGIN` and `SET TRANSACTION` name it.
///
/// See <https://www.postgresql.org/docs/current/sql-set-transaction.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// `READ UNCOMMITTED`, which PostgreSQL treats as `READ COMMITTED`.
    ReadUncommitted,
    /// `READ COMMITTED`.
    ReadCommitted,
    /// `REPEATABLE READ`.
    RepeatableRead,
    /// `SERIALIZABLE`, which a standby does not have.
    Serializable,
}

/// The modes given to `BEGIN`, `START TRANSACTION` or `SET TRANSACTION`; `None` where the text names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionModes {
    /// `READ ONLY` (true) or `READ WRITE` (false).
    pub read_only: Option<bool>,
    /// `ISOLATION LEVEL ...`.
    pub isolation: Option<Isolation>,
    /// `DEFERRABLE` (true) or `NOT DEFERRABLE` (false).
    pub deferrable: Option<bool>,
}

impl TransactionModes {
    /// Returns whether `SERIALIZABLE` is asked for.
    pub fn serializable(self) -> bool {
        self.isolation == Some(Isolation::Serializable)
    }

    /// Returns these modes with those of a later `SET TRANSACTION` over them.
    #[must_use]
    pub fn and(self, later: TransactionModes) -> TransactionModes {
        TransactionModes {
            read_only: later.read_only.or(self.read_only),
            isolation: later.isolation.or(self.isolation),
            deferrable: later.deferrable.or(self.deferrable),
        }
    }

    /// Returns whether the modes allow a replica for the whole transaction: `READ ONLY` and not `SERIALIZABLE`.
    pub fn replica_may_run(self) -> bool {
        self.read_only == Some(true) && !self.serializable()
    }
}

/// What a text does to the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionControl {
    /// Nothing.
    #[default]
    None,
    /// `BEGIN` or `START TRANSACTION`, alone in its text.
    Begin(TransactionModes),
    /// `COMMIT`, `END`, `ROLLBACK` or `ABORT`, alone in its text.
    End {
        /// `COMMIT` or `END` rather than `ROLLBACK` or `ABORT`.
        commit: bool,
        /// `AND CHAIN`: a transaction of the same modes begins at once.
        chain: bool,
    },
    /// `SET TRANSACTION`, alone in its text.
    Set(TransactionModes),
    /// A savepoint command, alone in its text.
    Savepoint(SavepointCommand),
    /// `PREPARE TRANSACTION`: the transaction leaves the session.
    PrepareTransaction,
    /// Transaction control inside a text of several statements. The server's ReadyForQuery tells the outcome.
    Sequence {
        /// The last `BEGIN` of the text has no `COMMIT` or `ROLLBACK` after it.
        opens: bool,
        /// A `COMMIT`, `ROLLBACK` or `PREPARE TRANSACTION` ends the transaction that was open before the text.
        closes: bool,
    },
}

/// Which savepoint command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavepointCommand {
    /// `SAVEPOINT name`.
    Set,
    /// `RELEASE [SAVEPOINT] name`.
    Release,
    /// `ROLLBACK TO [SAVEPOINT] name`.
    RollbackTo,
}

/// What a text undoes of the session's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discard {
    /// `DISCARD ALL`.
    All,
    /// `DISCARD TEMP`.
    Temp,
    /// `DISCARD PLANS`.
    Plans,
    /// `DISCARD SEQUENCES`.
    Sequences,
    /// `RESET ALL`.
    Settings,
    /// `DEALLOCATE ALL`.
    DeallocateAll,
    /// `DEALLOCATE name`: the name as the server folds it.
    Deallocate(Box<str>),
    /// `UNLISTEN *`.
    UnlistenAll,
    /// `UNLISTEN channel`.
    Unlisten(Box<str>),
    /// `CLOSE ALL`.
    CloseAll,
    /// `SELECT pg_advisory_unlock_all()`.
    AdvisoryUnlockAll,
}
