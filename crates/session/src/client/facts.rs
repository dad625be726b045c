//! What one batch asks for, gathered over its statements: the input of the routing decision and of the session's ledger.

use std::rc::Rc;

use pgweir_model::catalog::{Hidden, Verdict};
use pgweir_model::{PinReason, Reason};
use pgweir_sql::effects::TransactionControl;
use pgweir_sql::plan::{Plan, Traits};
use pgweir_sql::{Classified, PinSet, TransactionModes};

/// The facts of one batch (or of the part of it that is at hand).
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The plan that decides: the first that is no read, else the first.
    pub deciding: Option<Rc<Plan>>,
    /// What it is, as the session sees its names.
    pub verdict: Option<Verdict>,
    /// The first with a hint.
    pub hinted: Option<Rc<Plan>>,
    /// All of them, in order, where [`ClientSession::keep_plans`](super::ClientSession::keep_plans) asks for that; one that
    /// comes several times in a row stands once.
    pub plans: Vec<Rc<Plan>>,
    /// The first reason to keep the session on its server connection.
    pub pin: Option<PinReason>,
    /// All of them.
    pub pins: PinSet,
    /// Statements and calls, of any kind.
    pub statements: u32,
    /// Statements that the proxy answers itself.
    pub local_statements: u32,
    /// Something in it may return rows: not just transaction control and settings, which drivers run with a limit of one row.
    pub(super) returns_rows: bool,
    /// It holds a SET TRANSACTION.
    pub sets_modes: bool,
    /// The modes of its BEGIN.
    pub begin: Option<TransactionModes>,
    /// What else is known of the batch.
    pub marks: Marks,
}

/// A set of things that are true of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u32);

impl Marks {
    /// Something in it may have changed settings or taken locks inside: the server connection is reset afterwards.
    pub const SUSPECT: Marks = Marks(1);
    /// It is, or may be, more than a read: the session's next read must see what it did.
    pub const WRITES: Marks = Marks(2);
    /// It holds a FunctionCall.
    pub const FUNCTION_CALL: Marks = Marks(4);
    /// It changes the schema: statements prepared before may have stale result types.
    pub const DDL: Marks = Marks(8);
    /// Something in it was too large to be read.
    pub const UNREAD: Marks = Marks(16);
    /// Something in it needs a server: it is not just Close, Sync or Flush.
    pub const NEEDS_SERVER: Marks = Marks(32);
    /// It names a statement that does not exist.
    pub const UNKNOWN_STATEMENT: Marks = Marks(64);
    /// It opens a transaction block.
    pub const OPENS_TRANSACTION: Marks = Marks(128);
    /// It leaves a cursor or portal open, so that the transaction cannot move to another server.
    pub const LEAVES_OPEN: Marks = Marks(1 << 10);
    /// It may undo what keeps the session on its server connection.
    pub const MAY_UNPIN: Marks = Marks(1 << 13);
    /// It holds what a transaction that reads on a replica cannot do there.
    pub const NEEDS_PRIMARY: Marks = Marks(1 << 11);
    /// It touches settings or transactions: its text is to be read for that.
    pub const STATE: Marks = Marks(1 << 12);
    /// What one of its statement names means depends on how an earlier batch ends.
    pub const DEPENDS: Marks = Marks(256);
    /// It may set a parameter that no view of the server lists.
    pub const HIDES: Marks = Marks(1 << 15);
    /// It signals processes of the server by their IDs.
    pub const SIGNALS: Marks = Marks(1 << 14);
    /// It reads relations, or may.
    pub const READS_DATA: Marks = Marks(1 << 16);
    /// It runs something: it does not only prepare, describe or close.
    pub const RUNS: Marks = Marks(1 << 17);
    /// It makes the server forget prepared statements.
    pub const DISCARDS: Marks = Marks(512);

    /// Returns whether all of `marks` are set.
    pub fn has(self, marks: Marks) -> bool {
        self.0 & marks.0 == marks.0
    }

    /// Sets `marks`.
    pub fn set(&mut self, marks: Marks) {
        self.0 |= marks.0;
    }
}

impl Facts {
    /// Adds a statement that is run, prepared or bound.
    ///
    /// `is_local` says that the proxy answers it.
    pub(super) fn add_plan(&mut self, plan: &Rc<Plan>, verdict: Verdict, is_local: bool) {
        let classified = &plan.classified;
        self.count(classified, is_local);
        if classified.hint.is_some() && self.hinted.is_none() {
            self.hinted = Some(Rc::clone(plan));
        }
        let effects = &classified.effects;
        let traits = plan.traits;
        if traits.has(Traits::MAY_UNPIN) {
            self.marks.set(Marks::MAY_UNPIN);
        }
        if effects.state {
            self.marks.set(Marks::STATE);
        }
        // A setting made by a function is asked of the server, whether it pins or not.
        if verdict.suspect || traits.has(Traits::PINS_SETTING) {
            self.marks.set(Marks::SUSPECT);
        }
        if verdict.hidden.has(Hidden::SETTING) {
            self.marks.set(Marks::HIDES);
        }
        if effects.ddl || verdict.hidden.has(Hidden::SCHEMA) {
            self.marks.set(Marks::DDL);
        }
        if traits.has(Traits::SIGNALS) {
            self.marks.set(Marks::SIGNALS);
        }
        if traits.has(Traits::READS_DATA) {
            self.marks.set(Marks::READS_DATA);
        }
        if traits.has(Traits::DISCARDS) {
            self.marks.set(Marks::DISCARDS);
        }
        if traits.has(Traits::OPENS_TRANSACTION) {
            self.marks.set(Marks::OPENS_TRANSACTION);
        }
        self.returns_rows |=
            effects.transaction == TransactionControl::None && !traits.has(Traits::NEUTRAL);
        let is_a_read = is_read(verdict.reason) && !plan.is_learned_primary();
        if let TransactionControl::Begin(modes) = effects.transaction {
            // A second one in a batch is too much to follow.
            if self.begin.is_some() || self.statements > 1 {
                self.marks.set(Marks::NEEDS_PRIMARY);
            }
            self.begin = Some(modes);
        } else if !is_a_read && !traits.has(Traits::NEUTRAL) {
            if writes(verdict.reason, traits) {
                self.marks.set(Marks::WRITES);
            }
            self.marks.set(Marks::NEEDS_PRIMARY);
        }
        match (effects.transaction, &mut self.begin) {
            (TransactionControl::Set(modes), Some(begin)) => *begin = begin.and(modes),
            (TransactionControl::Set(_), None) => self.sets_modes = true,
            _ => {}
        }
        if self.sets_modes && self.statements > 1 {
            // What comes with it may be the first statement of a transaction of other modes.
            self.marks.set(Marks::NEEDS_PRIMARY);
        }
        if traits.has(Traits::DECLARES) {
            self.marks.set(Marks::LEAVES_OPEN);
        }
        let replace = match (&self.deciding, self.verdict) {
            (Some(deciding), Some(verdict)) => {
                is_read(verdict.reason) && !deciding.is_learned_primary() && !is_a_read
            }
            _ => true,
        };
        if replace {
            self.deciding = Some(Rc::clone(plan));
            self.verdict = Some(verdict);
        }
    }

    /// A text that mixes statements for the proxy with others counts as one of each.
    fn count(&mut self, classified: &Classified, is_local: bool) {
        let mixes = !is_local && classified.mixes_local();
        self.statements += 1 + u32::from(mixes);
        self.local_statements += u32::from(is_local || mixes);
    }

    /// Keeps a plan for those who look at all of them.
    pub(super) fn keep(&mut self, plan: &Rc<Plan>) {
        let is_again = self.plans.last().is_some_and(|last| Rc::ptr_eq(last, plan));
        if !is_again {
            self.plans.push(Rc::clone(plan));
        }
    }

    /// Returns whether the proxy answers the whole batch itself.
    pub fn is_local(&self) -> bool {
        self.local_statements > 0 && self.local_statements == self.statements
    }

    /// Returns whether it mixes statements for the proxy with others, which no one can run.
    pub fn mixes_local(&self) -> bool {
        self.local_statements > 0 && self.local_statements < self.statements
    }
}

/// Returns whether a replica may be given a statement of this class.
pub fn is_read(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Read | Reason::ReadByTokens | Reason::ReadOnlyTransaction
    )
}

/// Returns whether a statement that only the primary runs may change what a later read sees. Locks, questions about the node
/// and the sequences, which are read on the primary alone, do not.
fn writes(reason: Reason, traits: Traits) -> bool {
    let is_answered = matches!(reason, Reason::RowLock | Reason::PrimaryOnly);
    !(is_answered && traits.has(Traits::CHANGES_NOTHING))
}
