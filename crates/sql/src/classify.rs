//! From a text to what is known of it: [`Classified`].

use pgweir_model::Reason;
use smallvec::SmallVec;

use crate::effects::Effects;
use crate::hint::Hint;

/// What a text is, as far as its words tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// Why it goes where it goes. [`Reason::Read`], [`Reason::ReadByTokens`] and [`Reason::ReadOnlyTransaction`] may use a
    /// replica, [`Reason::Local`] is answered by the proxy, anything else needs the primary. The gravest of its statements
    /// decides.
    pub reason: Reason,
    /// What it does to the session.
    pub effects: Effects,
    /// Its statements, empty ones left out: none for an empty text. [`crate::split::split`] gives their places in a text.
    pub statements: SmallVec<[Statement; 1]>,
    /// What its hint comments say.
    pub hint: Option<Hint>,
    /// Set when the whole text is one statement for the proxy.
    pub local: Option<LocalCommand>,
    /// The relations that it names, without duplicates, in order of the text. Common table expressions may be among them
    /// where only the tokens were read.
    pub tables: Vec<Name>,
    /// The functions that it calls, without duplicates, in order of the text. Constructs of the grammar (`coalesce`) are not.
    pub functions: Vec<Name>,
}

impl Classified {
    /// Returns whether a replica may run it.
    pub fn replica_may_run(&self) -> bool {
        matches!(self.reason, Reason::Read | Reason::ReadByTokens | Reason::ReadOnlyTransaction)
    }

    /// Returns whether it is known to write: an instruction cannot send it to a replica.
    pub fn is_known_write(&self) -> bool {
        matches!(self.reason, Reason::Write | Reason::RowLock)
    }
}

/// One statement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// What it is.
    pub kind: StatementKind,
    /// What it alone would be classified as.
    pub reason: Reason,
}

/// The kind of a statement, by its leading words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// `SELECT`, `VALUES`, `TABLE`, `WITH ... SELECT`.
    Query,
    /// `INSERT`, also behind `WITH`.
    Insert,
    /// `UPDATE`, also behind `WITH`.
    Update,
    /// `DELETE`, also behind `WITH`.
    Delete,
    /// `MERGE`, also behind `WITH`.
    Merge,
    /// `COPY ... TO`.
    CopyTo,
    /// `COPY ... FROM`.
    CopyFrom,
    /// `EXPLAIN`.
    Explain,
    /// `SHOW`.
    Show,
    /// `SET`.
    Set,
    /// `RESET`.
    Reset,
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`.
    Savepoint,
    /// `PREPARE TRANSACTION`, `COMMIT PREPARED`, `ROLLBACK PREPARED`.
    TwoPhase,
    /// `PREPARE`.
    Prepare,
    /// `EXECUTE`.
    Execute,
    /// `DEALLOCATE`.
    Deallocate,
    /// `DECLARE`.
    Declare,
    /// `FETCH`, `MOVE`.
    Fetch,
    /// `CLOSE`.
    Close,
    /// `LISTEN`.
    Listen,
    /// `UNLISTEN`.
    Unlisten,
    /// `NOTIFY`.
    Notify,
    /// `DISCARD`.
    Discard,
    /// `CALL`.
    Call,
    /// `DO`.
    Do,
    /// A change of the schema or of rights.
    Ddl,
    /// Any other known utility: `VACUUM`, `LOCK`, `LOAD`, ...
    Utility,
    /// None of the above.
    Unknown,
}

/// A statement that the proxy answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalCommand {
    /// `SHOW pgweir.name`: the full name, lower case.
    ShowSetting(Box<str>),
    /// `SET [SESSION | LOCAL] pgweir.name = value`.
    SetSetting {
        /// The full name, lower case.
        name: Box<str>,
        /// The value; `None` for `DEFAULT`.
        value: Option<Box<str>>,
        /// `SET LOCAL`: until the end of the transaction.
        local: bool,
    },
    /// `RESET pgweir.name`: the full name, lower case.
    ResetSetting(Box<str>),
    /// `EXPLAIN ROUTE statement`: [`crate::split::explained`] finds the statement in a text.
    ExplainRoute,
}

/// A name as the server folds it, with its schema if the text gives one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The schema (or all that stands before the last dot).
    pub schema: Option<Box<str>>,
    /// The last part.
    pub name: Box<str>,
}

/// Classifies a text. Total: bytes that are not SQL are [`Reason::Unparsed`].
pub fn classify(_sql: &[u8]) -> Classified {
    Classified {
        reason: Reason::Unparsed,
        effects: Effects::default(),
        statements: SmallVec::new(),
        hint: None,
        local: None,
        tables: Vec::new(),
        functions: Vec::new(),
    }
}
