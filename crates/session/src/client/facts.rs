//! What one batch asks for, gathered over its statements: the input of the routing decision and of the session's ledger.

use std::rc::Rc;

use pgweir_model::{PinReason, Reason};
use pgweir_sql::Discard;
use pgweir_sql::effects::TransactionControl;
use pgweir_sql::plan::Plan;

/// The facts of one batch (or of the part of it that is at hand).
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The plan that decides: the first that is no read, else the first.
    pub deciding: Option<Rc<Plan>>,
    /// The first reason to keep the session on its server connection.
    pub pin: Option<PinReason>,
    /// Statements and calls, of any kind.
    pub statements: u32,
    /// Statements that the proxy answers itself.
    pub local_statements: u32,
    /// What else is known of the batch.
    pub marks: Marks,
}

/// A set of things that are true of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u16);

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
    /// It rolls a transaction back.
    pub const ROLLS_BACK: Marks = Marks(1 << 14);
    /// It resets settings of the session, those of its startup packet included.
    pub const RESETS: Marks = Marks(1 << 15);
    /// What one of its statement names means depends on how an earlier batch ends.
    pub const DEPENDS: Marks = Marks(256);
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
    pub(super) fn add_plan(&mut self, plan: &Rc<Plan>, is_local: bool) {
        let classified = &plan.classified;
        self.statements += 1;
        if is_local {
            self.local_statements += 1;
        }
        let effects = &classified.effects;
        self.pin = self.pin.or(effects.pin);
        if matches!(
            effects.transaction,
            TransactionControl::End { commit: false, .. }
        ) {
            self.marks.set(Marks::ROLLS_BACK);
        }
        let resets = |discard: &Discard| matches!(discard, Discard::All | Discard::Settings);
        if effects.discard.iter().any(resets) {
            self.marks.set(Marks::RESETS);
        }
        if effects.suspect {
            self.marks.set(Marks::SUSPECT);
        }
        if effects.ddl {
            self.marks.set(Marks::DDL);
        }
        if !effects.discard.is_empty() {
            self.marks.set(Marks::DISCARDS);
        }
        if opens_transaction(effects.transaction) {
            self.marks.set(Marks::OPENS_TRANSACTION);
        }
        let is_read = |plan: &Plan| is_read(plan.classified.reason) && !plan.learned_primary.get();
        if !is_read(plan) {
            self.marks.set(Marks::WRITES);
        }
        let replace = match &self.deciding {
            None => true,
            Some(deciding) => is_read(deciding) && !is_read(plan),
        };
        if replace {
            self.deciding = Some(Rc::clone(plan));
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

fn opens_transaction(control: TransactionControl) -> bool {
    match control {
        TransactionControl::Begin(_) => true,
        TransactionControl::Sequence { opens, .. } => opens,
        TransactionControl::End { chain, .. } => chain,
        TransactionControl::None
        | TransactionControl::Set(_)
        | TransactionControl::Savepoint(_)
        | TransactionControl::PrepareTransaction => false,
    }
}
