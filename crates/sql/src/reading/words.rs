//! The words of a statement that say what it does, or what the names behind them are: the verbs, `FROM`, `JOIN`, `FOR UPDATE`.

use pgweir_model::{PinReason, Reason};

use super::{Clause, Expected, FrameKind, Mode, Reading};
use crate::lexer::Token;

impl<'a> Reading<'_, 'a, '_> {
    pub(super) fn word(&mut self, i: usize, token: Token<'a>) {
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
