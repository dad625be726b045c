//! The token reading: what a statement may do, seen from its tokens without a grammar. The authority on safety.
//!
//! ## Why
//! No parser at hand reads all of PostgreSQL's SQL, and one that reads a statement wrongly is worse than none. Some facts need
//! no parser: a word outside literals is a word, and a name before a parenthesis is a call unless the grammar leaves no room
//! for one there. So this reading finds every DML word, every row lock, call, operator, cast and dangerous relation.
//!
//! ## Limits
//! Where the tokens are ambiguous, they are taken for the dangerous thing: an alias that is also a keyword may cost a trip to
//! the primary. What a name stands for in the catalog (a view, a domain, a user's operator of a known name) is not seen.

mod findings;
mod places;
mod types;
mod with;

use std::borrow::Cow;

use pgweir_model::{PinReason, Reason};
use smallvec::SmallVec;

use self::findings::add_name;
pub(crate) use self::findings::{Findings, NAMES_LIMIT, gravity};
use self::with::With;
use crate::functions::{self, Call};
use crate::lexer::{Token, TokenKind};
use crate::names::{self, Keyword, keyword};
use crate::tokens::Tokens;

/// Whether the statement is a query, or something whose own grammar puts more names before parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything that is not a known construct is a call.
    Query,
    /// `INSERT`, `UPDATE`, `DELETE`, `MERGE`: it writes anyway, calls only matter for their side effects.
    Dml,
}

/// Reads a statement's tokens into the findings.
pub(crate) fn read(tokens: Tokens<'_, '_>, mode: Mode, findings: &mut Findings) {
    let mut reading = Reading {
        t: tokens,
        mode,
        findings,
        frames: SmallVec::new(),
        frame: Frame::new(FrameKind::Top),
        next_frame: None,
        closed: FrameKind::Top,
        closed_from: 0,
        expected: Expected::Anything,
        scope: SmallVec::new(),
        defined: SmallVec::new(),
    };
    for index in 0..tokens.len() {
        reading.token(index);
    }
    if !reading.frames.is_empty() {
        let open = reading.frames.iter().chain([&reading.frame]);
        if open
            .into_iter()
            .any(|frame| frame.kind == FrameKind::SetConfig)
        {
            reading.findings.pin(PinReason::Setting);
        }
        reading.findings.give_up();
    }
}

/// Returns whether the statement can be over after its last token.
pub(crate) fn is_complete(tokens: Tokens<'_, '_>) -> bool {
    let last = tokens.before(tokens.len(), 1);
    let named = {
        let previous = tokens.before(tokens.len(), 2);
        previous.is_punct(".") || previous.is_word("as")
    };
    match last.kind {
        TokenKind::Operator => last.text == b"*",
        TokenKind::Punct => last.text == b")" || last.text == b"]",
        TokenKind::Word => named || !last.is_any(NEEDS_MORE),
        _ => true,
    }
}

/// Reserved words that cannot be the last of a query.
const NEEDS_MORE: &[&str] = &[
    "and",
    "any",
    "array",
    "as",
    "asymmetric",
    "both",
    "case",
    "cast",
    "collate",
    "cross",
    "else",
    "except",
    "fetch",
    "for",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "intersect",
    "into",
    "is",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "offset",
    "on",
    "or",
    "order",
    "right",
    "select",
    "similar",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "union",
    "using",
    "values",
    "variadic",
    "when",
    "where",
    "window",
    "with",
    "ilike",
    "between",
    "by",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Top,
    Paren,
    Bracket,
    /// `CAST(`, `TREAT(`, `XMLSERIALIZE(`: `AS` is followed by a type.
    Cast,
    /// `DISTINCT ON (`: an expression may follow directly behind it.
    DistinctOn,
    /// The columns of an alias, perhaps with types.
    Columns,
    /// `JSON_...(`, `XMLTABLE(`: `RETURNING` and `COLUMNS` bring types.
    Typed,
    /// `EXTRACT(`, `SUBSTRING(`, `TRIM(`, `OVERLAY(`: `FROM` names no table.
    Cut,
    /// `GROUPING SETS (`.
    GroupingSets,
    /// `OPERATOR(`: an operand follows.
    Operator,
    /// The arguments of a function; of a type, if a string follows.
    Call,
    /// `set_config(`: its last argument says whether it outlives the transaction.
    SetConfig,
}

/// The clause of a statement, as far as it decides what a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    Other,
    /// A list of tables: a comma brings the next.
    Tables,
    /// That of a `DELETE` or `MERGE`, before the `USING` that brings tables.
    BeforeUsing,
    /// `GROUP BY`.
    Group,
}

/// What a name that comes now is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Anything,
    /// A relation, or a common table expression.
    Table,
    /// The relation that is modified.
    Target,
}

impl FrameKind {
    /// Whether an expression may follow directly behind its end. Behind any other a name is an alias, not a call.
    fn precedes_operand(self) -> bool {
        matches!(self, FrameKind::DistinctOn | FrameKind::Operator)
    }
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: FrameKind,
    /// Where it was opened.
    from: usize,
    clause: Clause,
    with: With,
    /// Whether the `WITH` is `RECURSIVE`.
    recursive: bool,
    /// Behind the word `COLUMNS`.
    columns: bool,
    /// Commas so far.
    commas: usize,
    /// How many common table expressions were in scope before.
    outer_scope: usize,
    /// How many tables were known before the `WITH`.
    outer_tables: usize,
}

impl Frame {
    fn new(kind: FrameKind) -> Self {
        Frame {
            kind,
            clause: Clause::Other,
            with: With::Outside,
            recursive: false,
            columns: kind == FrameKind::Columns,
            commas: 0,
            outer_scope: 0,
            from: 0,
            outer_tables: 0,
        }
    }
}

struct Reading<'t, 'a, 'f> {
    t: Tokens<'t, 'a>,
    mode: Mode,
    findings: &'f mut Findings,
    /// The frames around the present one.
    frames: SmallVec<[Frame; 8]>,
    frame: Frame,
    /// What the parenthesis that follows will be, where the word before it says so.
    next_frame: Option<FrameKind>,
    /// The frame that was closed last.
    closed: FrameKind,
    /// Where that was opened.
    closed_from: usize,
    expected: Expected,
    /// The common table expressions that a name without a schema stands for here, at most [`NAMES_LIMIT`].
    scope: SmallVec<[Cow<'a, [u8]>; 4]>,
    /// The one whose query is being read, for each frame that has one.
    defined: SmallVec<[Cow<'a, [u8]>; 4]>,
}

impl<'a> Reading<'_, 'a, '_> {
    fn token(&mut self, i: usize) {
        let token = self.t.at(i);
        match token.kind {
            TokenKind::Word | TokenKind::QuotedIdent if self.follow_with(i, token) => {}
            TokenKind::Word => self.word(i, token),
            TokenKind::QuotedIdent => self.name(i, token),
            TokenKind::Punct => self.punct(i, token),
            // `name(1) 'x'` is a constant of a type.
            TokenKind::String | TokenKind::DollarString
                if self.closed == FrameKind::Call && self.t.before(i, 1).is_punct(")") =>
            {
                let end = self.closed_from.saturating_sub(1);
                self.distrust_type(self.t.chain_start(end), end);
            }
            TokenKind::Operator => self.operator_sign(i, token),
            TokenKind::Junk | TokenKind::Unterminated | TokenKind::UnicodeIdent => {
                self.findings.give_up()
            }
            _ => {}
        }
    }

    fn punct(&mut self, i: usize, token: Token<'_>) {
        match token.text {
            b"(" => {
                let kind = self.next_frame.take().unwrap_or_else(|| self.opened(i));
                match self.frame.with {
                    With::Query if self.opens_definition(i) => self.push(i, FrameKind::Paren),
                    With::Query => self.push(i, FrameKind::Columns),
                    With::Behind => {
                        self.frame.with = With::Outside;
                        self.push(i, kind);
                    }
                    _ => self.push(i, kind),
                }
            }
            b"[" => self.push(i, FrameKind::Bracket),
            b")" => {
                if self.frame.kind == FrameKind::SetConfig && !self.is_local_set_config(i) {
                    self.findings.pin(PinReason::Setting);
                }
                self.pop(false);
            }
            b"]" => self.pop(true),
            b"," => {
                self.expected = if self.frame.clause == Clause::Tables {
                    Expected::Table
                } else {
                    Expected::Anything
                };
                self.frame.commas += 1;
                if self.frame.with == With::Behind {
                    self.frame.with = With::Name;
                }
            }
            b"::" => self.check_type(i + 1),
            _ => {}
        }
    }

    fn push(&mut self, i: usize, kind: FrameKind) {
        self.frames.push(self.frame);
        // `FROM ((a JOIN b ON ...) ...)`: a table may follow the parentheses around a join.
        let list = self.frame.clause == Clause::Tables && self.expected == Expected::Table;
        self.frame = Frame {
            clause: if list && kind == FrameKind::Paren {
                Clause::Tables
            } else {
                Clause::Other
            },
            outer_scope: self.scope.len(),
            from: i,
            ..Frame::new(kind)
        };
    }

    fn pop(&mut self, bracket: bool) {
        if (self.frame.kind == FrameKind::Bracket) != bracket {
            self.findings.give_up();
        }
        self.closed = self.frame.kind;
        self.closed_from = self.frame.from;
        self.scope.truncate(self.frame.outer_scope);
        match self.frames.pop() {
            Some(frame) => self.frame = frame,
            None => self.findings.give_up(),
        }
        self.expected = Expected::Anything;
        if self.frame.with == With::Query && self.closed != FrameKind::Columns {
            self.frame.with = With::Behind;
            if let Some(name) = self.defined.pop()
                && !self.frame.recursive
            {
                self.bring_into_scope(name);
            }
        }
    }

    /// Returns what a parenthesis at `i` opens, where no word before it has said.
    fn opened(&self, i: usize) -> FrameKind {
        let previous = self.t.before(i, 1);
        let plain = !self.t.before(i, 2).is_punct(".");
        if previous.kind != TokenKind::Word || !plain {
            return FrameKind::Paren;
        }
        match previous.text {
            b"on" if self.t.before(i, 2).is_word("distinct") => FrameKind::DistinctOn,
            b"cast" | b"treat" | b"xmlserialize" => FrameKind::Cast,
            b"as" if !self.opens_query(i + 1) && !self.t.at(i + 1).is_any(OPENS_NO_COLUMNS) => {
                FrameKind::Columns
            }
            b"columns" => FrameKind::Columns,
            b"extract" | b"substring" | b"trim" | b"overlay" => FrameKind::Cut,
            text if text.starts_with(b"json") || text == b"xmltable" => FrameKind::Typed,
            _ => FrameKind::Paren,
        }
    }

    fn word(&mut self, i: usize, token: Token<'a>) {
        let previous = self.t.before(i, 1);
        if previous.is_punct(".") || self.is_label(i) && self.frame.kind != FrameKind::Cast {
            // A name, whatever the word means elsewhere. `AS` is also followed by a query, which begins no other way than by
            // a parenthesis, and by `NOT MATERIALIZED`.
            return self.name(i, token);
        }
        for operator in implied_operators(token.text) {
            self.findings.names.operator(operator.as_bytes());
        }
        match token.text {
            b"insert" | b"update" | b"delete" | b"merge" => {
                let is_table = self.expected != Expected::Anything;
                self.dml(i);
                // The verb is not the table that follows it, though it is no reserved word.
                if !is_table && self.expected != Expected::Anything && !self.t.punct(i + 1, "(") {
                    return;
                }
            }
            b"into" => self.into(i),
            b"for" => self.lock(i),
            b"from" => self.from(i),
            b"join" if !self.frame.columns => return self.join(i, token),
            b"table" if !previous.is_any(&["into", "temp", "temporary", "unlogged"]) => {
                self.expected = Expected::Table
            }
            b"using" if self.frame.clause == Clause::BeforeUsing => self.begin_tables(),
            b"rows" if self.expected == Expected::Table && self.t.words(i + 1, &["from"]) => return,
            b"group" if self.t.word(i + 1, "by") => {
                self.frame.clause = Clause::Group;
                self.expected = Expected::Anything;
            }
            b"on" => self.expected = Expected::Anything,
            b"returning" if self.frame.kind == FrameKind::Typed => self.check_type(i + 1),
            // `VALUES` may also be an alias.
            b"values" if self.expected == Expected::Table && self.t.punct(i + 1, "(") => {
                self.frame.clause = Clause::Other;
                self.expected = Expected::Anything;
            }
            // Not that of a `CASE`.
            b"when"
                if self.mode == Mode::Dml
                    && (self.t.word(i + 1, "matched")
                        || self.t.words(i + 1, &["not", "matched"])) =>
            {
                self.frame.clause = Clause::Other;
                self.expected = Expected::Anything;
            }
            word if ENDS_TABLES.contains(&word) => {
                self.frame.clause = Clause::Other;
                self.expected = Expected::Anything;
            }
            b"as" if self.frame.kind == FrameKind::Cast => self.check_type(i + 1),
            b"columns" if self.frame.kind == FrameKind::Typed => self.frame.columns = true,
            b"operator" if self.is_operator(i + 1) => {
                self.next_frame = Some(FrameKind::Operator);
                return self.operator(i + 1);
            }
            b"only" | b"lateral" => return,
            _ => {}
        }
        self.name(i, token);
    }

    fn dml(&mut self, i: usize) {
        let previous = self.t.before(i, 1);
        let locks =
            previous.is_word("for") || previous.is_word("key") && self.t.before(i, 2).is_word("no");
        let qualifies = self.t.punct(i + 1, ".");
        if !locks && !qualifies {
            self.findings.object(Reason::Write);
            // From here on the text is that of a write, even if it began as a query.
            self.mode = Mode::Dml;
            if self.expected != Expected::Anything {
                return;
            }
            let names_target = self.t.at(i + 1).is_name() && !previous.is_any(&["do", "then"]);
            if self.t.word(i, "update") && names_target {
                self.expected = Expected::Target;
            }
            if self.t.at(i).is_any(&["delete", "merge"]) {
                self.frame.clause = Clause::BeforeUsing;
            }
        }
    }

    fn into(&mut self, i: usize) {
        self.findings.object(Reason::Write);
        if self.t.before(i, 1).is_any(&["insert", "merge"]) {
            self.expected = Expected::Target;
        } else {
            // The table is yet to be created.
            self.expected = Expected::Anything;
            self.findings.effects.ddl = true;
            let scope = usize::from(self.t.at(i + 1).is_any(&["local", "global"]));
            if self.t.at(i + 1 + scope).is_any(&["temp", "temporary"]) {
                self.findings.pin(PinReason::TempTable);
            }
        }
    }

    fn lock(&mut self, i: usize) {
        let t = self.t;
        let locks = t.at(i + 1).is_any(&["update", "share"])
            || t.words(i + 1, &["no", "key"])
            || t.words(i + 1, &["key", "share"]);
        if locks {
            self.findings.object(Reason::RowLock);
        }
    }

    fn from(&mut self, i: usize) {
        let distinct =
            self.t.before(i, 1).is_word("distinct") && self.t.before(i, 2).is_any(&["is", "not"]);
        if self.frame.kind == FrameKind::Cut || distinct {
            return;
        }
        if self.frame.clause == Clause::BeforeUsing {
            self.expected = Expected::Target;
        } else {
            self.begin_tables();
        }
    }

    fn begin_tables(&mut self) {
        self.frame.clause = Clause::Tables;
        self.expected = Expected::Table;
    }

    fn join(&mut self, i: usize, token: Token<'a>) {
        let next = self.t.at(i + 1);
        let is_call = next.is_punct("(") && self.construct(i, token).is_none();
        // Behind an alias that is a keyword, `JOIN (` looks like a call: then it is both.
        if is_call || next.is_string() {
            self.name(i, token);
        }
        if !next.is_string() && (!is_call || self.frame.clause == Clause::Tables) {
            self.expected = Expected::Table;
            self.next_frame = is_call.then_some(FrameKind::Paren);
        }
    }

    /// Whether the word at `i` is a name because `AS` stands before it. That may itself be a name: `SELECT a AS as FROM t`.
    fn is_label(&self, i: usize) -> bool {
        let before = self.t.before(i, 2);
        self.t.before(i, 1).is_word("as") && !before.is_punct(".") && !before.is_word("as")
    }

    /// Whether the parenthesis at `open` holds an operator. A star alone may be all the arguments of a function.
    fn is_operator(&self, open: usize) -> bool {
        let first = self.t.at(open + 1);
        let bare = first.kind == TokenKind::Operator && first.text != b"*";
        let sign = self.t.chain_end(open + 1) + 2;
        let qualified = first.is_name() && self.t.at(sign).kind == TokenKind::Operator;
        self.t.punct(open, "(") && (bare || qualified)
    }

    /// `OPERATOR(schema.op)`.
    fn operator(&mut self, open: usize) {
        let first = open + 1;
        if self.t.at(first).is_name() {
            let sign = self.t.chain_end(first) + 2;
            let Findings { names, .. } = &mut *self.findings;
            let mut list = std::mem::take(&mut names.operators);
            add_name(&mut list, names, self.t, first, sign);
            names.operators = list;
            if self.t.qualifier(first, sign).as_deref() != Some(b"pg_catalog") {
                self.findings.distrust_name();
            }
        }
    }

    fn operator_sign(&mut self, i: usize, token: Token<'_>) {
        if !names::is_builtin_operator(token.text) {
            self.findings.distrust_name();
        }
        // Behind a point it is the rest of `OPERATOR(schema.op)`, which was noted with its schema, or the star of `t.*`.
        let previous = self.t.before(i, 1);
        let is_star = token.text == b"*"
            && (previous.is_punct("(") || previous.is_punct(",") || previous.is_word("select"));
        if !previous.is_punct(".") && !is_star {
            self.findings.names.operator(&token.folded());
        }
    }

    fn name(&mut self, i: usize, token: Token<'a>) {
        let name = token.folded();
        let called = self.t.punct(i + 1, "(");
        if names::is_temp_schema(&name) {
            self.findings.pin(PinReason::TempTable);
        } else if !called && names::is_primary_only_relation(&name) {
            self.findings.object(Reason::PrimaryOnly);
        }
        if self.t.at(i + 1).is_string() {
            self.check_prefix(i, token, &name);
        }
        if self.frame.columns && self.is_column_type(i, token) {
            self.check_type(i);
        }
        if called {
            self.before_parenthesis(i, token, &name);
        }
        self.take_table(i, token);
    }

    fn take_table(&mut self, i: usize, token: Token<'a>) {
        if self.expected == Expected::Anything || self.t.punct(i + 1, ".") {
            return;
        }
        let start = self.t.chain_start(i);
        let plain_word = start == i && token.kind == TokenKind::Word;
        if plain_word && token.is_any(&["from", "into", "table", "using"]) {
            return;
        }
        let is_target = self.expected == Expected::Target;
        self.expected = Expected::Anything;
        let is_function = self.t.punct(i + 1, "(") && !self.t.before(start, 1).is_word("into");
        let is_keyword = plain_word
            && matches!(
                keyword(token.text),
                Keyword::Reserved | Keyword::TypeFunction
            );
        let is_common = start == i && !is_target && self.scope.contains(&token.folded());
        if !is_function && !is_keyword && !is_common {
            self.findings.table(self.t, start, i);
        }
    }

    /// Decides what a name before a parenthesis is: a construct of the grammar, an alias with columns, a type, or a call.
    fn before_parenthesis(&mut self, i: usize, token: Token<'_>, name: &[u8]) {
        let start = self.t.chain_start(i);
        let plain_word = start == i && token.kind == TokenKind::Word;
        if plain_word && matches!(keyword(token.text), Keyword::Reserved | Keyword::ColumnName) {
            let previous = self.t.before(i, 1);
            let is_alias = previous.is_word("as")
                || self.frame.clause == Clause::Tables && self.is_alias(start, i);
            let may_alias =
                keyword(token.text) == Keyword::ColumnName && !token.is_any(&["between", "values"]);
            if is_alias && may_alias {
                self.next_frame = Some(FrameKind::Columns);
            }
            // Without `FROM` and the like inside, these two are calls of functions that a user may have overloaded.
            if token.is_any(&["substring", "overlay"]) {
                self.findings.function(self.t, i, i);
            }
            return;
        }
        if plain_word && let Some(frame) = self.construct(i, token) {
            self.next_frame = Some(frame);
            return;
        }
        if self.t.before(start, 1).is_punct("::") || self.frame.with == With::Query {
            return;
        }
        if self.is_alias(start, i) {
            self.next_frame = Some(FrameKind::Columns);
            return;
        }
        if !names::is_builtin_type(name) {
            self.next_frame = Some(FrameKind::Call);
        }
        self.findings.function(self.t, start, i);
        let schema = self.t.qualifier(start, i);
        self.call(schema.as_deref(), name);
    }

    fn call(&mut self, schema: Option<&[u8]>, name: &[u8]) {
        match functions::judge(schema, name) {
            Call::Safe => {}
            Call::Volatile => self.findings.object_to_name(Reason::VolatileFunction),
            Call::Unknown => self.findings.distrust_name(),
            Call::PrimaryOnly => {
                self.findings.object_to_name(Reason::PrimaryOnly);
                if let Some(reason) = functions::pin(name) {
                    self.findings.pin(reason);
                }
                if name == b"set_config" {
                    self.next_frame = Some(FrameKind::SetConfig);
                }
                if functions::is_suspect(name) {
                    self.findings.suspect();
                }
            }
        }
    }

    /// Whether the third argument of the `set_config` that ends at `close` is the word `true`: the setting ends with the
    /// transaction.
    fn is_local_set_config(&self, close: usize) -> bool {
        self.frame.commas == 2
            && self.t.before(close, 1).is_word("true")
            && self.t.before(close, 2).is_punct(",")
    }
}

/// Returns the operators that a word of the grammar stands for.
fn implied_operators(word: &[u8]) -> &'static [&'static str] {
    match word {
        b"in" => &["=", "<>"],
        b"using" | b"natural" | b"when" | b"distinct" | b"nullif" => &["="],
        b"between" => &[">=", "<=", "<", ">"],
        b"like" => &["~~", "!~~"],
        b"ilike" => &["~~*", "!~~*"],
        b"similar" => &["~", "!~"],
        _ => &[],
    }
}

/// Reserved words behind which no tables are listed any more.
const ENDS_TABLES: &[&[u8]] = &[
    b"where",
    b"having",
    b"order",
    b"limit",
    b"window",
    b"union",
    b"intersect",
    b"except",
    b"select",
    b"offset",
    b"fetch",
    b"returning",
];

/// The words that may begin a window definition or a data-modifying statement; the columns of an alias begin with none of
/// them and a type, or the word itself is objected to.
const OPENS_NO_COLUMNS: &[&str] = &[
    "delete",
    "groups",
    "insert",
    "merge",
    "order",
    "partition",
    "range",
    "rows",
    "update",
];
