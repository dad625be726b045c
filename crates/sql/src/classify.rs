//! From a text to what is known of it: [`Classified`].

use pgweir_model::{Reason, Verdict};
use smallvec::SmallVec;

use crate::effects::{Effects, TransactionControl};
use crate::hint::{self, Hint};
use crate::lexer::Token;
use crate::reading::{Findings, NAMES_LIMIT};
use crate::shape::Shaper;
use crate::split::Splitter;
use crate::statement;
use crate::tokens::{Tokens, significant};
use crate::verdict::join;

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
    /// Set when the whole text is one statement for the proxy; see [`Classified::is_local`] for several.
    pub local: Option<LocalCommand>,
    /// The relations that it names, without duplicates, in order of the text. References to common table expressions are left
    /// out, but for those to a later one of the same `WITH RECURSIVE`.
    pub tables: Vec<Name>,
    /// The functions that it calls, without duplicates, in order of the text. Constructs of the grammar (`coalesce`) are not.
    pub functions: Vec<Name>,
    /// What else its reason rests on besides the text, if anything is known of the catalog.
    pub names: Names,
    /// What is left of its reason and of [`Effects::suspect`] if every name turns out to be harmless.
    pub(crate) rest: Verdict,
}

/// The names of a text that the catalog is asked about, beside [`Classified::tables`] and [`Classified::functions`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Its operators, without duplicates; those that words of the grammar stand for (`LIKE`) are among them.
    pub operators: Vec<Name>,
    /// The types that are not known as built-in ones, without duplicates.
    pub types: Vec<Name>,
    /// Whether it casts to built-in types.
    pub casts: bool,
    /// Whether there were more names than are kept.
    pub overflow: bool,
    /// What happens to what is behind the names.
    pub usage: Usage,
}

/// What a text does with what is behind its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    /// It runs it.
    #[default]
    Run,
    /// It only plans to: `EXPLAIN`.
    Planned,
}

impl Names {
    /// Adds an operator without schema.
    pub(crate) fn operator(&mut self, sign: &[u8]) {
        let is_it = |name: &Name| name.schema.is_none() && name.name.as_bytes() == sign;
        if !self.operators.iter().any(is_it) {
            let name = String::from_utf8_lossy(sign).into();
            self.overflow |= !add(&mut self.operators, Name { schema: None, name });
        }
    }

    fn append(&mut self, more: Names) {
        for (list, more) in [
            (&mut self.operators, more.operators),
            (&mut self.types, more.types),
        ] {
            for name in more {
                self.overflow |= !add(list, name);
            }
        }
        self.casts |= more.casts;
        self.overflow |= more.overflow;
        if more.usage == Usage::Run {
            self.usage = Usage::Run;
        }
    }
}

/// Adds a name that is not there yet; returns false where there is no room: a list has a limit, which keeps a long text from
/// costing its length squared.
pub(crate) fn add(list: &mut Vec<Name>, name: Name) -> bool {
    if list.contains(&name) {
        return true;
    }
    let fits = list.len() < NAMES_LIMIT;
    if fits {
        list.push(name);
    }
    fits
}

impl Classified {
    /// Returns whether a replica may run it.
    pub fn replica_may_run(&self) -> bool {
        matches!(
            self.reason,
            Reason::Read | Reason::ReadByTokens | Reason::ReadOnlyTransaction
        )
    }

    /// Returns whether all that it does is to set or reset parameters that can be tracked. On its own it goes to the primary;
    /// in a transaction it may run where that is.
    pub fn is_settings_only(&self) -> bool {
        let effects = &self.effects;
        effects.settings
            && effects.pins.is_empty()
            && !effects.suspect
            && self.statements.iter().all(|statement| {
                let known = matches!(statement.kind, StatementKind::Set | StatementKind::Reset);
                known && matches!(statement.reason, Reason::PrimaryOnly | Reason::Read)
            })
    }

    /// Returns whether all that it does is to set, release or go back to savepoints: it runs where its transaction is.
    pub fn is_neutral(&self) -> bool {
        !self.statements.is_empty()
            && self.statements.iter().all(|statement| {
                statement.kind == StatementKind::Savepoint && statement.reason == Reason::Read
            })
    }

    /// Returns whether the proxy answers all of its statements itself.
    pub fn is_local(&self) -> bool {
        self.reason == Reason::Local
    }

    /// Returns whether the proxy answers some of its statements and a server the others, so that neither can run the text.
    pub fn mixes_local(&self) -> bool {
        let is_local = |statement: &Statement| statement.reason == Reason::Local;
        self.reason != Reason::Local && self.statements.iter().any(is_local)
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
    /// What it alone would be classified as: [`Reason::Local`] where the proxy answers it.
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
    /// `SET` of a parameter, and `SET CONSTRAINTS`.
    Set,
    /// `SET TRANSACTION`, and `SET` or `RESET` of a parameter that is a mode of the transaction.
    SetTransaction,
    /// `RESET` of a parameter.
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
///
/// # Examples
///
/// ```
/// use pgweir_model::Reason;
///
/// assert_eq!(pgweir_sql::classify(b"SELECT * FROM users WHERE id = 17").reason, Reason::Read);
/// assert_eq!(pgweir_sql::classify(b"SELECT nextval('s')").reason, Reason::PrimaryOnly);
/// assert_eq!(pgweir_sql::classify(b"SELEC 1").reason, Reason::Unparsed);
/// ```
pub fn classify(sql: &[u8]) -> Classified {
    classify_shape(Shaper::new().shape(sql).text)
}

/// Classifies a text that is its own shape. Nothing else may be classified: see [`crate::shape`].
pub(crate) fn classify_shape(text: &[u8]) -> Classified {
    let (tokens, comments) = significant(text);
    let mut merged = Merged::default();
    let mut splitter = Splitter::default();
    let mut start = 0;
    for (index, token) in tokens.iter().enumerate() {
        if splitter.ends_with(token) {
            merged.add(text, tokens.get(start..index));
            start = index + 1;
        }
    }
    merged.add(text, tokens.get(start..));
    merged.finish(hint_of(&comments))
}

fn hint_of(comments: &[Token<'_>]) -> Option<Hint> {
    let mut hint = None::<Hint>;
    for content in comments
        .iter()
        .filter_map(|comment| hint::content(comment.text))
    {
        hint.get_or_insert_default().read(content);
    }
    hint
}

/// The statements of a text so far.
#[derive(Debug)]
struct Merged {
    findings: Findings,
    statements: SmallVec<[Statement; 1]>,
    local: Option<LocalCommand>,
    controls: SmallVec<[TransactionControl; 2]>,
}

impl Default for Merged {
    fn default() -> Self {
        Merged {
            findings: Findings::new(Reason::Read),
            statements: SmallVec::new(),
            local: None,
            controls: SmallVec::new(),
        }
    }
}

impl Merged {
    fn add(&mut self, text: &[u8], tokens: Option<&[Token<'_>]>) {
        let Some(tokens) = tokens.filter(|tokens| !tokens.is_empty()) else {
            return;
        };
        let read = statement::read(text, Tokens(tokens));
        self.statements.push(Statement {
            kind: read.kind,
            reason: match read.local {
                Some(_) => Reason::Local,
                None => read.findings.reason,
            },
        });
        self.local = read.local;
        let more = read.findings;
        if more.effects.transaction != TransactionControl::None {
            self.controls.push(more.effects.transaction);
        }
        if self.statements.len() == 1 {
            self.findings = more;
            return;
        }
        let Findings {
            reason,
            rest,
            effects,
            tables,
            functions,
            names,
        } = more;
        let all = &mut self.findings;
        all.object_to_name(reason);
        all.rest = join(all.rest, rest);
        effects.pins.iter().for_each(|pin| all.effects.add_pin(pin));
        all.effects.discard.extend(effects.discard);
        all.effects.suspect |= effects.suspect;
        all.effects.copy_from_stdin |= effects.copy_from_stdin;
        all.effects.ddl |= effects.ddl;
        all.effects.state |= effects.state;
        all.effects.settings |= effects.settings;
        all.names.append(names);
        for (list, more) in [(&mut all.tables, tables), (&mut all.functions, functions)] {
            for name in more {
                all.names.overflow |= !add(list, name);
            }
        }
    }

    fn finish(mut self, hint: Option<Hint>) -> Classified {
        let is_local = |statement: &Statement| statement.reason == Reason::Local;
        let all_local = !self.statements.is_empty() && self.statements.iter().all(is_local);
        if self.statements.len() > 1 {
            self.local = None;
            self.findings.effects.transaction = sequence(&self.controls);
        }
        let Findings {
            mut reason,
            mut rest,
            mut effects,
            tables,
            functions,
            names,
        } = self.findings;
        if all_local {
            reason = Reason::Local;
            rest = Verdict::because(reason);
            effects = Effects::default();
        }
        Classified {
            reason,
            effects,
            statements: self.statements,
            hint,
            local: self.local,
            tables,
            functions,
            names,
            rest,
        }
    }
}

fn sequence(controls: &[TransactionControl]) -> TransactionControl {
    if controls.is_empty() {
        return TransactionControl::None;
    }
    let (mut opens, mut closes) = (false, false);
    for control in controls {
        match control {
            TransactionControl::Begin(_) => opens = true,
            TransactionControl::End { chain, .. } => {
                closes |= !opens;
                opens = *chain;
            }
            TransactionControl::PrepareTransaction => {
                closes |= !opens;
                opens = false;
            }
            TransactionControl::None
            | TransactionControl::Set(_)
            | TransactionControl::Savepoint(_)
            | TransactionControl::Sequence { .. } => {}
        }
    }
    TransactionControl::Sequence { opens, closes }
}
