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

use pgweir_model::{PinReason, Reason};
use smallvec::SmallVec;

use crate::classify::Name;
use crate::effects::Effects;
use crate::functions::{self, Verdict};
use crate::lexer::{Token, TokenKind};
use crate::names::{self, Keyword, keyword};
use crate::tokens::Tokens;

/// What was found in a statement so far.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The gravest reason.
    pub(crate) reason: Reason,
    pub(crate) effects: Effects,
    pub(crate) tables: Vec<Name>,
    pub(crate) functions: Vec<Name>,
}

/// Most names of a kind that are kept: they are for reports and lookups, and a list without bound would make a long text
/// cost its length squared. Chosen; statements of people name fewer.
pub(crate) const NAMES_LIMIT: usize = 256;

impl Findings {
    pub(crate) fn new(reason: Reason) -> Self {
        Findings {
            reason,
            effects: Effects::default(),
            tables: Vec::new(),
            functions: Vec::new(),
        }
    }

    /// Takes a reason into account: the graver one stays.
    pub(crate) fn object(&mut self, reason: Reason) {
        if gravity(reason) > gravity(self.reason) {
            self.reason = reason;
        }
    }

    /// Something that may run any code of a user.
    pub(crate) fn distrust(&mut self) {
        self.object(Reason::VolatileFunction);
        self.effects.suspect = true;
    }

    /// Not understood: nothing is vouched for.
    pub(crate) fn give_up(&mut self) {
        self.object(Reason::Unparsed);
        self.effects.suspect = true;
    }

    pub(crate) fn pin(&mut self, reason: PinReason) {
        self.effects.add_pin(reason);
        self.object(Reason::PrimaryOnly);
    }

    pub(crate) fn table(&mut self, tokens: Tokens<'_, '_>, start: usize, end: usize) {
        add_name(&mut self.tables, tokens, start, end);
    }
}

fn add_name(list: &mut Vec<Name>, tokens: Tokens<'_, '_>, start: usize, end: usize) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
    let schema = tokens.qualifier(start, end).map(|schema| text(&schema));
    let name = Name {
        schema,
        name: text(&tokens.at(end).folded()),
    };
    if list.len() < NAMES_LIMIT && !list.contains(&name) {
        list.push(name);
    }
}

/// Orders reasons: of several, the graver one is reported and decides.
pub(crate) fn gravity(reason: Reason) -> u8 {
    match reason {
        Reason::Write => 8,
        Reason::RowLock => 7,
        Reason::PrimaryOnly => 6,
        Reason::VolatileFunction => 5,
        Reason::Unparsed => 4,
        Reason::Transaction => 3,
        Reason::ReadOnlyTransaction => 2,
        Reason::ReadByTokens => 1,
        _ => 0,
    }
}

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
        table_expected: false,
    };
    for index in 0..tokens.len() {
        reading.token(index);
    }
    if !reading.frames.is_empty() {
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
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: FrameKind,
    /// Inside a list of tables, where a comma brings the next.
    from: bool,
    /// Behind the word `COLUMNS`.
    columns: bool,
}

impl Frame {
    fn new(kind: FrameKind) -> Self {
        Frame {
            kind,
            from: false,
            columns: kind == FrameKind::Columns,
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
    /// A name that comes now names a table.
    table_expected: bool,
}

impl Reading<'_, '_, '_> {
    fn token(&mut self, i: usize) {
        let token = self.t.at(i);
        match token.kind {
            TokenKind::Word => self.word(i, token),
            TokenKind::QuotedIdent => self.name(i, token),
            TokenKind::Punct => self.punct(i, token),
            TokenKind::Operator if !names::is_builtin_operator(token.text) => {
                self.findings.distrust()
            }
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
                self.push(kind);
            }
            b"[" => self.push(FrameKind::Bracket),
            b")" => self.pop(false),
            b"]" => self.pop(true),
            b"," => self.table_expected = self.frame.from,
            b"::" => self.check_type(i + 1),
            _ => {}
        }
    }

    fn push(&mut self, kind: FrameKind) {
        self.frames.push(self.frame);
        // `FROM ((a JOIN b ON ...) ...)`: a table may follow the parentheses around a join.
        let from = self.frame.from && self.table_expected && kind == FrameKind::Paren;
        self.frame = Frame {
            from,
            ..Frame::new(kind)
        };
    }

    fn pop(&mut self, bracket: bool) {
        if (self.frame.kind == FrameKind::Bracket) != bracket {
            self.findings.give_up();
        }
        self.closed = self.frame.kind;
        match self.frames.pop() {
            Some(frame) => self.frame = frame,
            None => self.findings.give_up(),
        }
        self.table_expected = false;
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

    fn opens_query(&self, i: usize) -> bool {
        let values = self.t.word(i, "values") && self.t.punct(i + 1, "(");
        values || self.t.punct(i, "(") || self.t.at(i).is_any(&["select", "with", "table"])
    }

    fn word(&mut self, i: usize, token: Token<'_>) {
        let previous = self.t.before(i, 1);
        if previous.is_punct(".") || previous.is_word("as") && self.frame.kind != FrameKind::Cast {
            // A name, whatever the word means elsewhere. `AS` is also followed by a query, which begins no other way than by
            // a parenthesis, and by `NOT MATERIALIZED`.
            return self.name(i, token);
        }
        match token.text {
            b"insert" | b"update" | b"delete" | b"merge" => {
                self.dml(i);
                // The verb is not the table that follows it, though it is no reserved word.
                if self.table_expected && !self.t.punct(i + 1, "(") {
                    return;
                }
            }
            b"into" => self.into(i),
            b"for" => self.lock(i),
            b"from" => self.from(i),
            b"join" => self.table_expected = true,
            b"table" => self.table_expected = true,
            b"where" | b"group" | b"having" | b"order" | b"limit" | b"window" | b"union"
            | b"intersect" | b"except" | b"select" | b"set" | b"offset" | b"fetch" | b"values"
            | b"on" => {
                self.frame.from &= token.text == b"on";
                self.table_expected = false;
            }
            b"as" if self.frame.kind == FrameKind::Cast => self.check_type(i + 1),
            b"returning" if self.frame.kind == FrameKind::Typed => self.check_type(i + 1),
            b"columns" if self.frame.kind == FrameKind::Typed => self.frame.columns = true,
            b"operator" if self.t.punct(i + 1, "(") => return self.operator(i + 1),
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
            self.table_expected = self.t.word(i, "update") && !previous.is_any(&["do", "then"]);
        }
    }

    fn into(&mut self, i: usize) {
        self.findings.object(Reason::Write);
        self.table_expected = true;
        if !self.t.before(i, 1).is_any(&["insert", "merge"]) {
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
        if self.frame.kind != FrameKind::Cut && !self.t.before(i, 1).is_word("distinct") {
            self.frame.from = true;
            self.table_expected = true;
        }
    }

    /// `OPERATOR(schema.op)`. The operator's own token is judged like any other when it comes.
    fn operator(&mut self, open: usize) {
        let first = open + 1;
        if self.t.at(first).is_name() {
            let end = self.t.chain_end(first);
            let schema = self.t.qualifier(first, end + 2);
            if schema.as_deref() != Some(b"pg_catalog") {
                self.findings.distrust();
            }
        }
    }

    fn name(&mut self, i: usize, token: Token<'_>) {
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

    fn take_table(&mut self, i: usize, token: Token<'_>) {
        if !self.table_expected || self.t.punct(i + 1, ".") {
            return;
        }
        let start = self.t.chain_start(i);
        let is_keyword =
            start == i && token.kind == TokenKind::Word && keyword(token.text) == Keyword::Reserved;
        if is_keyword {
            return;
        }
        self.table_expected = false;
        let is_function = self.t.punct(i + 1, "(") && !self.t.before(start, 1).is_word("into");
        if !is_function {
            self.findings.table(self.t, start, i);
        }
    }

    /// A name directly before a string is the name of a type, or one of the words that take a string.
    fn check_prefix(&mut self, i: usize, token: Token<'_>, name: &[u8]) {
        let start = self.t.chain_start(i);
        let plain_word = start == i && token.kind == TokenKind::Word;
        let known = match keyword(token.text) {
            Keyword::Reserved | Keyword::ColumnName if plain_word => true,
            Keyword::TypeFunction | Keyword::Unreserved
                if plain_word && token.is_any(TAKES_STRING) =>
            {
                true
            }
            _ => self.is_builtin_type(start, i, name),
        };
        if !known {
            self.findings.distrust();
        }
    }

    /// In a list of column definitions, the second of two names is a type.
    fn is_column_type(&self, i: usize, token: Token<'_>) -> bool {
        let opener = self.t.before(i, 2);
        let second = self.t.before(i, 1).is_name()
            && (opener.is_punct("(") || opener.is_punct(",") || opener.is_word("columns"));
        let skipped = token.kind == TokenKind::Word
            && (matches!(keyword(token.text), Keyword::Reserved | Keyword::ColumnName)
                || token.is_word("path"));
        second && !skipped
    }

    fn check_type(&mut self, i: usize) {
        let start = i + usize::from(self.t.word(i, "setof"));
        if !self.t.at(start).is_name() {
            return;
        }
        let end = self.t.chain_end(start);
        // Without the catalog a user's type may be a domain whose check calls a function, or the target of a cast that does.
        if !self.is_builtin_type(start, end, &self.t.at(end).folded()) {
            self.findings.distrust();
        }
    }

    fn is_builtin_type(&self, start: usize, end: usize, name: &[u8]) -> bool {
        let schema = self.t.qualifier(start, end);
        schema.is_none_or(|schema| schema == b"pg_catalog") && names::is_builtin_type(name)
    }

    /// Decides what a name before a parenthesis is: a construct of the grammar, an alias with columns, a type, or a call.
    fn before_parenthesis(&mut self, i: usize, token: Token<'_>, name: &[u8]) {
        let start = self.t.chain_start(i);
        let plain_word = start == i && token.kind == TokenKind::Word;
        if plain_word && matches!(keyword(token.text), Keyword::Reserved | Keyword::ColumnName) {
            return;
        }
        if plain_word && let Some(frame) = self.construct(i, token) {
            self.next_frame = Some(frame);
            return;
        }
        if self.t.before(start, 1).is_punct("::") {
            return;
        }
        if self.is_alias(start, i) {
            self.next_frame = Some(FrameKind::Columns);
            return;
        }
        add_name(&mut self.findings.functions, self.t, start, i);
        let schema = self.t.qualifier(start, i);
        self.call(schema.as_deref(), name, i + 1);
    }

    fn call(&mut self, schema: Option<&[u8]>, name: &[u8], open: usize) {
        match functions::judge(schema, name) {
            Verdict::Safe => {}
            Verdict::Volatile => self.findings.object(Reason::VolatileFunction),
            Verdict::Unknown => self.findings.distrust(),
            Verdict::PrimaryOnly => {
                self.findings.object(Reason::PrimaryOnly);
                if let Some(reason) = functions::pin(name) {
                    self.findings.pin(reason);
                }
                if name == b"set_config" && !self.is_local_set_config(open) {
                    self.findings.pin(PinReason::Setting);
                }
                self.findings.effects.suspect |= functions::is_suspect(name);
            }
        }
    }

    /// Whether the third argument of a `set_config` is the word `true`: the setting ends with the transaction.
    fn is_local_set_config(&self, open: usize) -> bool {
        let Some(close) = self.t.closing(open) else {
            return false;
        };
        let (mut depth, mut commas) = (0_usize, 0_usize);
        for index in open..close {
            match self.t.at(index).text {
                b"(" | b"[" => depth += 1,
                b")" | b"]" => depth = depth.saturating_sub(1),
                b"," if depth == 1 => commas += 1,
                _ => {}
            }
        }
        commas == 2
            && self.t.before(close, 1).is_word("true")
            && self.t.before(close, 2).is_punct(",")
    }

    /// Returns the frame that a keyword opens where its place makes it a construct rather than a function's name.
    fn construct(&self, i: usize, token: Token<'_>) -> Option<FrameKind> {
        let previous = self.t.before(i, 1);
        let earlier = self.t.before(i, 2);
        let after_operand = self.ends_operand(i);
        let fits = match token.text {
            // Behind `DISTINCT ON (...)` these could be functions.
            b"over" | b"filter" => previous.is_punct(")") && self.closed != FrameKind::DistinctOn,
            b"sets" => previous.is_word("grouping"),
            b"rollup" | b"cube" => {
                let by = if previous.is_any(&["distinct", "all"]) {
                    (earlier, self.t.before(i, 3))
                } else {
                    (previous, earlier)
                };
                by.0.is_word("by") && by.1.is_word("group")
            }
            b"materialized" => {
                (previous.is_word("as") || previous.is_word("not")) && self.opens_query(i + 2)
            }
            b"varying" => previous.is_any(&["character", "char", "nchar", "bit"]),
            b"second" => previous.is_any(&["interval", "to"]),
            b"by" => previous.is_any(&["order", "group", "partition"]),
            b"first" | b"next" => previous.is_word("fetch"),
            b"columns" => self.frame.kind == FrameKind::Typed || self.frame.columns,
            b"system" | b"bernoulli" => previous.is_word("tablesample"),
            b"zone" => previous.is_word("time"),
            b"conflict" => previous.is_word("on"),
            b"set" | b"insert" => self.mode == Mode::Dml,
            b"join" => {
                after_operand
                    || previous.is_any(&[
                        "left", "right", "full", "inner", "outer", "cross", "natural",
                    ])
            }
            b"ilike" | b"overlaps" => after_operand || previous.is_word("not"),
            _ => false,
        };
        fits.then_some(if token.text == b"columns" {
            FrameKind::Columns
        } else {
            FrameKind::Paren
        })
    }

    /// Whether an operand ends just before `i`, so that no expression can begin there.
    fn ends_operand(&self, i: usize) -> bool {
        let previous = self.t.before(i, 1);
        match previous.kind {
            TokenKind::QuotedIdent => true,
            TokenKind::Word => {
                self.t.before(i, 2).is_punct(".") || keyword(previous.text) == Keyword::None
            }
            TokenKind::Punct => previous.text == b")" && self.closed != FrameKind::DistinctOn,
            _ => false,
        }
    }

    /// Whether the name from `start` to `i`, before a parenthesis, is an alias or a table with its columns. The grammar puts
    /// no call directly behind `AS`, a closing parenthesis (but that of `DISTINCT ON`), or a name that is no keyword.
    fn is_alias(&self, start: usize, i: usize) -> bool {
        let previous = self.t.before(start, 1);
        if previous.is_word("into") && self.mode == Mode::Dml {
            return true;
        }
        if start != i {
            return false;
        }
        let behind_ordinality =
            previous.is_word("ordinality") && self.t.before(start, 2).is_word("with");
        previous.is_any(&["as", "with", "recursive"])
            || behind_ordinality
            || self.ends_operand(i)
            || previous.is_punct(",") && self.is_common_table(i + 1)
    }

    /// Whether the parenthesis at `open` holds the columns of a common table expression: only names, then `AS (SELECT`.
    fn is_common_table(&self, open: usize) -> bool {
        let mut close = open + 1;
        while self.t.at(close).is_name() || self.t.punct(close, ",") {
            close += 1;
        }
        if !self.t.punct(close, ")") || !self.t.word(close + 1, "as") {
            return false;
        }
        let mut query = close + 2;
        query += usize::from(self.t.word(query, "not"));
        query += usize::from(self.t.word(query, "materialized"));
        self.t.punct(query, "(") && self.opens_query(query + 1)
    }
}

/// Keywords that a string may follow without being a constant of a type.
const TAKES_STRING: &[&str] = &[
    "by",
    "content",
    "default",
    "delimiter",
    "document",
    "encoding",
    "error",
    "escape",
    "format",
    "ilike",
    "is",
    "key",
    "like",
    "null",
    "passing",
    "path",
    "preceding",
    "quote",
    "range",
    "similar",
    "uescape",
    "value",
    "varying",
    "version",
    "zone",
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
