//! The statements that change what a session carries, read from the real text: settings, transactions, prepared statements.
//!
//! ## Why
//! A plan belongs to a shape, from which literals are gone, and a name is in it as the client spelt it. What is set to what,
//! which savepoint, which prepared statement stands only in the text. So the session asks here, and only for the texts whose
//! plan says that there is something to ask for ([`Effects::state`](crate::Effects::state)).
//!
//! The classification of these statements asks the same reading, over the shape, so that the two cannot disagree. It follows
//! PostgreSQL's `gram.y` rule by rule: what is an event here is a statement that PostgreSQL's grammar accepts.
//!
//! ## Limits
//! - Names are cut at 63 bytes as if text and database were UTF-8: a database of another encoding may cut a longer one
//!   elsewhere.
//! - A parameter whose name is not UTF-8 is not tracked: its `SET` pins.
//! - What runs inside a `DO` block, a procedure or a function is out of sight: its statement is `suspect`.

mod cursor;
mod literal;
mod prepared;
mod setting;
mod transaction;

use std::borrow::Cow;
use std::ops::Range;

use pgweir_model::PinReason;
use smallvec::{SmallVec, smallvec};

use self::cursor::Cursor;
use crate::effects::TransactionModes;
use crate::lexer::{Lexer, Token, TokenKind};
use crate::split::Splitter;

pub(crate) use self::setting::pin;

/// A statement of a text that touches the state of the session or of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateStatement<'a> {
    /// Its place among the non-empty statements of the text, from 0: the place of its CommandComplete.
    pub index: usize,
    /// Byte offset of `text` in the whole text.
    pub start: usize,
    /// The statement, without its semicolon and what surrounds it.
    pub text: &'a [u8],
    /// What it does once the server has said that it succeeded.
    pub event: StateEvent<'a>,
}

/// What a statement does to the state of a session.
///
/// The names of savepoints and prepared statements are bytes, since a client need not speak UTF-8; they are folded, unescaped
/// and cut as the server does it. Ranges are byte offsets in the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateEvent<'a> {
    /// `BEGIN`, `START TRANSACTION`.
    Begin(TransactionModes),
    /// `COMMIT`, `END`.
    Commit {
        /// `AND CHAIN`.
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`.
    Rollback {
        /// `AND CHAIN`.
        chain: bool,
    },
    /// `PREPARE TRANSACTION`: the transaction leaves the session.
    PrepareTransaction,
    /// `SAVEPOINT name`.
    Savepoint(Cow<'a, [u8]>),
    /// `RELEASE [SAVEPOINT] name`.
    Release(Cow<'a, [u8]>),
    /// `ROLLBACK TO [SAVEPOINT] name`.
    RollbackTo(Cow<'a, [u8]>),
    /// `SET TRANSACTION`, or `SET transaction_isolation` and its two relatives: of the transaction, with or without `LOCAL`.
    SetTransaction(TransactionModes),
    /// `SET CONSTRAINTS`, until the end of the transaction.
    Constraints,
    /// `SET`, of one parameter. `SET SESSION CHARACTERISTICS` gives one for each of its modes.
    Set(Setting<'a>),
    /// `RESET name`, `SET name TO DEFAULT` and their relatives.
    Reset {
        /// The parameter, as in [`Setting::name`].
        name: Cow<'a, str>,
        /// `SET LOCAL name TO DEFAULT`: until the end of the transaction.
        local: bool,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `PREPARE name AS ...`.
    Prepare {
        /// The name of the statement.
        name: Cow<'a, [u8]>,
        /// The statement behind `AS`.
        body: Range<usize>,
    },
    /// `EXECUTE name`, also behind `EXPLAIN` and in `CREATE TABLE ... AS EXECUTE name`.
    Execute {
        /// The name of the statement.
        name: Cow<'a, [u8]>,
        /// The name as it is written.
        name_range: Range<usize>,
        /// The arguments with their parentheses.
        arguments: Option<Range<usize>>,
    },
    /// `DEALLOCATE name`.
    Deallocate {
        /// The name of the statement.
        name: Cow<'a, [u8]>,
        /// The name as it is written.
        name_range: Range<usize>,
    },
    /// `DEALLOCATE ALL`.
    DeallocateAll,
}

impl StateEvent<'_> {
    /// Returns whether it changes run-time parameters.
    pub fn is_setting(&self) -> bool {
        matches!(
            self,
            StateEvent::Set(_)
                | StateEvent::Reset { .. }
                | StateEvent::ResetAll
                | StateEvent::DiscardAll
        )
    }
}

/// A parameter that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The name of the parameter in lower case, whatever the spelling of the statement: `timezone` for `SET TIME ZONE`,
    /// `search_path` for `SET SCHEMA`, `role` for `SET ROLE`.
    pub name: Cow<'a, str>,
    /// `SET LOCAL`: until the end of the transaction.
    pub local: bool,
    /// One statement that does just this, with the same scope.
    pub sql: Cow<'a, [u8]>,
    /// The value, or the elements of a list, as the server takes them: unquoted, unescaped, folded. `None` where it is not
    /// made of literals and words (`INTERVAL '1' HOUR`), or not UTF-8.
    pub value: Option<Vec<String>>,
}

impl Setting<'_> {
    /// Returns the value where it is one, not a list.
    pub fn single(&self) -> Option<&str> {
        match self.value.as_deref() {
            Some([value]) => Some(value),
            _ => None,
        }
    }

    /// Returns the value of a Boolean parameter, as PostgreSQL's `parse_bool` reads it.
    pub fn as_bool(&self) -> Option<bool> {
        literal::boolean(self.single()?)
    }
}

/// Returns the statements of a text that touch session or transaction state, in order. Total, as classification is.
///
/// # Examples
///
/// ```
/// use pgweir_sql::{StateEvent, state_statements};
///
/// let found = state_statements(b"SELECT 1; SET TIME ZONE 'UTC'");
/// let StateEvent::Set(setting) = &found[0].event else { panic!() };
/// assert_eq!((found[0].index, &*setting.name, setting.single()), (1, "timezone", Some("UTC")));
/// ```
pub fn state_statements(sql: &[u8]) -> SmallVec<[StateStatement<'_>; 2]> {
    let mut found = SmallVec::new();
    let mut tokens: SmallVec<[Token<'_>; 16]> = SmallVec::new();
    let mut splitter = Splitter::default();
    let mut index = 0;
    for token in Lexer::new(sql) {
        if matches!(token.kind, TokenKind::Whitespace | TokenKind::Comment) {
            continue;
        }
        if splitter.ends_with(&token) {
            if !tokens.is_empty() {
                add(sql, &tokens, index, &mut found);
                index += 1;
            }
            tokens.clear();
        } else if tokens.first().is_none_or(|first| Verb::of(first).is_some()) {
            tokens.push(token);
        }
    }
    add(sql, &tokens, index, &mut found);
    found
}

fn add<'a>(
    sql: &'a [u8],
    tokens: &[Token<'a>],
    index: usize,
    found: &mut SmallVec<[StateStatement<'a>; 2]>,
) {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return;
    };
    if let Reading::Events(events) = read(sql, tokens) {
        found.extend(events.into_iter().map(|event| StateStatement {
            index,
            start: first.start,
            text: sql.get(first.start..last.end()).unwrap_or(&[]),
            event,
        }));
    }
}

/// The words that begin the statements of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Abort,
    Begin,
    Commit,
    Create,
    Deallocate,
    Discard,
    End,
    Execute,
    Explain,
    Prepare,
    Release,
    Reset,
    Rollback,
    Savepoint,
    Set,
    Start,
}

impl Verb {
    fn of(token: &Token<'_>) -> Option<Verb> {
        const VERBS: [(&str, Verb); 16] = [
            ("abort", Verb::Abort),
            ("begin", Verb::Begin),
            ("commit", Verb::Commit),
            ("create", Verb::Create),
            ("deallocate", Verb::Deallocate),
            ("discard", Verb::Discard),
            ("end", Verb::End),
            ("execute", Verb::Execute),
            ("explain", Verb::Explain),
            ("prepare", Verb::Prepare),
            ("release", Verb::Release),
            ("reset", Verb::Reset),
            ("rollback", Verb::Rollback),
            ("savepoint", Verb::Savepoint),
            ("set", Verb::Set),
            ("start", Verb::Start),
        ];
        let is = |(word, _): &&(&str, Verb)| token.text.eq_ignore_ascii_case(word.as_bytes());
        let word = token.kind == TokenKind::Word;
        word.then(|| VERBS.iter().find(is))
            .flatten()
            .map(|(_, verb)| *verb)
    }
}

/// What one statement is to this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading<'a> {
    /// It does this.
    Events(SmallVec<[StateEvent<'a>; 1]>),
    /// It leaves something in the session that can be neither tracked nor repeated.
    Pins(PinReason),
    /// It is in order, and changes nothing that is of interest here.
    Nothing,
    /// It begins like a statement of this module, and does not go on like one that PostgreSQL accepts.
    Unread,
}

impl<'a> Reading<'a> {
    fn event(event: StateEvent<'a>) -> Self {
        Reading::Events(smallvec![event])
    }
}

/// Reads one statement, which consists of these tokens of `text`.
pub(crate) fn read<'a>(text: &'a [u8], tokens: &[Token<'a>]) -> Reading<'a> {
    let mut cursor = Cursor::new(text, tokens);
    let Some(first) = cursor.next() else {
        return Reading::Nothing;
    };
    let read = match Verb::of(&first) {
        Some(Verb::Set) => setting::set(cursor),
        Some(Verb::Reset) => setting::reset(cursor),
        Some(Verb::Begin) => transaction::begin(cursor),
        Some(Verb::Start) => transaction::start(cursor),
        Some(Verb::Commit) => transaction::commit(cursor),
        Some(Verb::End) => transaction::end(cursor),
        Some(Verb::Rollback) => transaction::rollback(cursor),
        Some(Verb::Abort) => transaction::abort(cursor),
        Some(Verb::Savepoint) => transaction::savepoint(cursor),
        Some(Verb::Release) => transaction::release(cursor),
        Some(Verb::Prepare) => prepared::prepare(cursor),
        Some(Verb::Execute) => prepared::execute(cursor),
        Some(Verb::Deallocate) => prepared::deallocate(cursor),
        Some(Verb::Explain) => Some(prepared::explain(cursor)),
        Some(Verb::Create) => Some(prepared::create(cursor)),
        Some(Verb::Discard) => discard(cursor),
        None => Some(Reading::Nothing),
    };
    read.unwrap_or(Reading::Unread)
}

/// `DISCARD { ALL | PLANS | SEQUENCES | TEMP | TEMPORARY }`.
fn discard<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    let reading = if cursor.take("all") {
        Reading::event(StateEvent::DiscardAll)
    } else if cursor.take_any(&["plans", "sequences", "temp", "temporary"]) {
        Reading::Nothing
    } else {
        return None;
    };
    cursor.is_over().then_some(reading)
}
