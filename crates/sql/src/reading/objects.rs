//! What the names of a statement stand for: relations, functions that are called, operators.

use pgweir_model::{PinReason, Reason};

use super::findings::{Findings, add_name};
use super::with::With;
use super::{Clause, Expected, FrameKind, Reading};
use crate::functions::{self, Call};
use crate::lexer::{Token, TokenKind};
use crate::names::{self, Keyword, keyword};

impl<'a> Reading<'_, 'a, '_> {
    /// Whether the parenthesis at `open` holds an operator. A star alone may be all the arguments of a function.
    pub(super) fn is_operator(&self, open: usize) -> bool {
        let first = self.t.at(open + 1);
        let bare = first.kind == TokenKind::Operator && first.text != b"*";
        let sign = self.t.chain_end(open + 1) + 2;
        let qualified = first.is_name() && self.t.at(sign).kind == TokenKind::Operator;
        self.t.punct(open, "(") && (bare || qualified)
    }

    /// `OPERATOR(schema.op)`.
    pub(super) fn operator(&mut self, open: usize) {
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

    pub(super) fn operator_sign(&mut self, i: usize, token: Token<'_>) {
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

    pub(super) fn name(&mut self, i: usize, token: Token<'a>) {
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
    pub(super) fn is_local_set_config(&self, close: usize) -> bool {
        self.frame.commas == 2
            && self.t.before(close, 1).is_word("true")
            && self.t.before(close, 2).is_punct(",")
    }
}
