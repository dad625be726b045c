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
mod frames;
mod objects;
mod places;
mod types;
mod with;
mod words;

use std::borrow::Cow;

use pgweir_model::PinReason;
use smallvec::SmallVec;

pub(crate) use self::findings::{Findings, NAMES_LIMIT, gravity};
use self::frames::{Clause, Expected, Frame, FrameKind};
use self::with::With;
use crate::lexer::{Token, TokenKind};
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
}
