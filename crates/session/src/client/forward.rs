//! Translates a client's messages for one server connection and notes what it will owe for them.
//!
//! Payloads are passed on as ranges of the input. Only the statement name in Parse, Bind and Describe is rewritten, as a
//! new head in front of the untouched tail.

use std::rc::Rc;

use pgweir_model::Sqlstate;
use pgweir_sql::plan::Plan;
use pgweir_sql::{StateEvent, TransactionControl, state_statements};
use pgweir_wire::backend::{ErrorBuilder, ReadyForQuery, Severity, tag as backend_tag};
use pgweir_wire::frontend::{
    BindHead, Close, Describe, Parse, Query, Sync, Target, bind_head, parse_head, tag, target_head,
};
use pgweir_wire::{DecodeError, Gather, HEADER_LEN, Header, TransactionStatus};

use super::{ClientSession, Marks, Plans, Translation, significant};
use crate::error::{Side, Violation};
use crate::outstanding::{Action, Change, Entry, Events, Owed};
use crate::server::ServerSession;
use crate::state::Event;
use crate::statement::{MISSING_NAME, Statement, StatementId, TAKEN};

/// One message of the input: where it stands and how much of it is there.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    header: Header,
    /// Offset of the header in the input.
    start: usize,
    /// Offset behind what is there of it.
    end: usize,
    /// What is there of the body.
    body: &'a [u8],
}

/// Under which name a statement is on the server.
enum Placed {
    Unnamed,
    Named,
    /// It cannot be brought there: its text was too large to be kept.
    Nowhere,
}

impl ClientSession {
    /// Translates the first `len` bytes of `input`, which `scan` has found, and forgets what `scan` found.
    ///
    /// # Errors
    /// A [`Violation`] when a message cannot be read after all.
    pub fn forward(
        &mut self,
        input: &[u8],
        len: usize,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        if !self.is_open {
            self.plans = Plans::New;
            self.outstanding.begin_batch();
        }
        if self.batch.facts.marks.has(Marks::DISCARDS) {
            self.outstanding.note_discards();
        }
        if self.batch.facts.marks.has(Marks::DDL) {
            server.statements.begin_schema_change();
        }
        let input = input.get(..len).unwrap_or(input);
        let mut at = self.rest.len.min(input.len());
        if at > 0 {
            self.rest.len -= at;
            if !self.rest.is_dropped {
                out.input(0..at);
            }
        }
        while let Some(header) = Header::peek(input.get(at..).unwrap_or_default())? {
            let end = input.len().min(at + header.frame_len());
            let body = input.get(at + HEADER_LEN..end).unwrap_or_default();
            let message = Message {
                header,
                start: at,
                end,
                body,
            };
            self.rest.is_dropped = false;
            self.forward_message(message, server, out)?;
            self.rest.len = header.frame_len() - (end - at);
            at = end;
        }
        if !self.translation.is_empty() {
            self.translation = Translation::default();
        }
        self.batch.reset();
        Ok(())
    }

    /// Lets the server fail in place of the first `len` bytes of `input`, which `scan` has found: its transaction fails, and
    /// the client gets `error`, a complete ErrorResponse message. Nothing of the input reaches the server.
    ///
    /// # Errors
    /// A [`Violation`] when a message cannot be read after all.
    pub fn forward_failing(
        &mut self,
        input: &[u8],
        len: usize,
        error: Box<[u8]>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        let skips_anyway = self.outstanding.is_skipping() || server.copy_in || self.rest.len > 0;
        if skips_anyway {
            return self.forward(input, len, server, out);
        }
        if !self.is_open {
            self.outstanding.begin_batch();
        }
        self.is_open = true;
        let header = Header::peek(input)?;
        self.fail_with(error, out);
        let ends_itself =
            header.is_some_and(|header| matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL));
        if ends_itself {
            out.scratch_mut(|bytes| Sync.encode(bytes));
            self.outstanding.forward(Owed::Sync);
            self.is_open = false;
            self.batch.reset();
            return Ok(());
        }
        // All but a Sync is dropped now.
        self.batch.facts = super::Facts::default();
        self.forward(input, len, server, out)
    }

    fn forward_message(
        &mut self,
        message: Message<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        if self.outstanding.is_skipping() && message.header.tag != tag::SYNC {
            // The batch has failed: the server would skip this, and answer nothing.
            if message.header.tag == tag::PARSE {
                self.batch.parsed.pop_front();
            }
            self.rest.is_dropped = true;
            return Ok(());
        }
        let as_it_is = message.start..message.end;
        // COPY data belongs to the Query or Execute before it and neither opens nor ends a batch.
        let was_open = self.is_open;
        let is_copy = matches!(
            message.header.tag,
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL
        );
        self.is_open |= !is_copy;
        if server.copy_in && !is_copy && !matches!(message.header.tag, tag::SYNC | tag::FLUSH) {
            // Whatever else a server gets while it reads COPY data ends the COPY, with an error, and is not acted upon.
            server.copy_in = false;
            if self.outstanding.skip_behind_execute() {
                if message.header.tag == tag::PARSE {
                    self.batch.parsed.pop_front();
                }
                out.input(as_it_is);
                return Ok(());
            }
        }
        match message.header.tag {
            tag::QUERY => {
                self.forward_query(message, server, out);
                // Behind extended messages without a Sync the server may skip it: only ReadyForQuery tells.
                self.is_open = was_open;
            }
            tag::PARSE => self.forward_parse(message, server, out),
            tag::BIND => self.forward_bind(message, server, out)?,
            tag::DESCRIBE => self.forward_describe(message, server, out)?,
            tag::CLOSE => self.forward_close(message, out),
            tag::EXECUTE => {
                out.input(as_it_is);
                match self.events_of_portal(message.body) {
                    None => self.outstanding.forward(Owed::Execute),
                    events => self.outstanding.push(Entry {
                        events,
                        ..Entry::forward(Owed::Execute)
                    }),
                }
            }
            tag::SYNC => {
                out.input(as_it_is);
                if !server.is_copy_in() {
                    self.outstanding.forward(Owed::Sync);
                    self.is_open = false;
                }
            }
            tag::FLUSH => out.input(as_it_is),
            tag::FUNCTION_CALL => {
                out.input(as_it_is);
                self.outstanding.forward(Owed::FunctionCall);
                self.is_open = was_open;
            }
            tag::COPY_DATA => out.input(as_it_is),
            tag::COPY_DONE | tag::COPY_FAIL => {
                out.input(as_it_is);
                self.owe_copy_end(server);
            }
            tag => {
                return Err(Violation::UnknownTag {
                    side: Side::Client,
                    tag,
                });
            }
        }
        Ok(())
    }

    fn forward_query(
        &mut self,
        message: Message<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) {
        if !self.forward_translated_query(message.body, out)
            && !self.forward_execute(message, server, out)
        {
            out.input(message.start..message.end);
        }
        self.owe_query(message.body, server);
    }

    /// `EXECUTE` of a statement that was prepared by the protocol: the server knows it by another name. Returns whether that was
    /// it.
    fn forward_execute(
        &mut self,
        message: Message<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> bool {
        if !self.batch.facts.marks.has(Marks::STATE) || server.status == TransactionStatus::Failed {
            return false;
        }
        let Some(sql) = message.body.split(|byte| *byte == 0).next() else {
            return false;
        };
        let statements = state_statements(sql);
        let [only] = statements.as_slice() else {
            return false;
        };
        let StateEvent::Execute {
            name, name_range, ..
        } = &only.event
        else {
            return false;
        };
        let Some(statement) = self.resolve(name).filter(|s| s.tail.is_some()) else {
            return false;
        };
        if server.statements.touch(statement.id) {
            self.plans = Plans::Old;
        } else {
            // In a batch of its own: should it fail, the server does not wait for a Sync that never comes.
            self.make_room(statement.id, server, out);
            self.tally.server_parses += 1;
            let tail = statement.tail.as_deref().unwrap_or_default();
            out.scratch_mut(|bytes| {
                parse_head(bytes, &statement.server_name, tail.len());
                bytes.extend_from_slice(tail);
                Sync.encode(bytes);
            });
            server.statements.place(statement.id);
            self.outstanding.push(Entry {
                action: Action::Break,
                places: Some(statement.id),
                ..Entry::forward(Owed::Parse)
            });
            self.outstanding.push(Entry::skip(Owed::Sync));
        }
        let mut text = sql.get(..name_range.start).unwrap_or_default().to_vec();
        text.extend_from_slice(&statement.server_name);
        text.extend_from_slice(sql.get(name_range.end..).unwrap_or_default());
        out.scratch_mut(|bytes| Query { sql: &text }.encode(bytes));
        true
    }

    /// A simple query drops the unnamed statement, the server's and the client's.
    fn owe_query(&mut self, body: &[u8], server: &mut ServerSession) {
        server.unnamed = None;
        let is_touched = self.unnamed.is_some() || self.outstanding.pending(b"").is_open();
        let touches_state = self.batch.facts.marks.has(Marks::STATE);
        if !is_touched && !touches_state {
            return self.outstanding.forward(Owed::Query);
        }
        let change = match is_touched {
            true => Change::Undefine {
                name: Box::default(),
            },
            false => Change::None,
        };
        let events = match touches_state {
            true => body.split(|byte| *byte == 0).next().and_then(events_of),
            false => None,
        };
        self.outstanding.push(Entry {
            change,
            events,
            ..Entry::forward(Owed::Query)
        });
    }

    /// Returns what the statement of a portal does to the state.
    fn events_of_portal(&self, body: &[u8]) -> Option<Box<Events>> {
        if self.portals.is_empty() {
            return None;
        }
        let portal = body.split(|byte| *byte == 0).next().unwrap_or_default();
        let (_, statement) = self.portals.iter().find(|(name, _)| **name == *portal)?;
        events_of(statement.text())
    }

    /// Remembers that a portal is made of a statement that touches the state, or that it no longer is.
    fn note_portal(&mut self, portal: &[u8], statement: &Rc<Statement>) {
        let touches = |plan: &Rc<Plan>| plan.classified.effects.state;
        let touches = statement.plan.as_ref().is_some_and(touches);
        if touches || !self.portals.is_empty() {
            self.portals.retain(|(name, _)| **name != *portal);
        }
        if touches {
            self.portals.push((portal.into(), Rc::clone(statement)));
        }
    }

    fn owe_copy_end(&mut self, server: &mut ServerSession) {
        // Sent without waiting to be asked: the server's asking is then answered already.
        let is_early = !std::mem::take(&mut server.copy_in);
        if is_early && !self.outstanding.is_settled() {
            self.outstanding.push(Entry {
                action: Action::Fake,
                ..Entry::forward(Owed::CopyEnd)
            });
        }
    }

    fn forward_close(&mut self, message: Message<'_>, out: &mut Gather) {
        match Close::decode(message.body) {
            Ok(close) if close.kind == Target::Portal => {
                out.input(message.start..message.end);
                self.outstanding.forward(Owed::Close);
            }
            Ok(close) => self
                .outstanding
                .push(close_statement(significant(close.name))),
            Err(error) => self.fail_malformed(&error, out),
        }
    }

    fn forward_parse(
        &mut self,
        message: Message<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) {
        self.tally.client_parses += 1;
        let name_len = message
            .body
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(message.body.len());
        let name = message.body.get(..name_len).unwrap_or_default();
        let Some(Some(statement)) = self.batch.parsed.pop_front() else {
            if let Err(error) = Parse::decode(message.body) {
                self.fail_malformed(&error, out);
            }
            return;
        };
        // What is on its way may end the transaction.
        let is_failed = server.status == TransactionStatus::Failed
            && !self.outstanding.may_end_failure()
            && !ends_transaction(&statement);
        if !name.is_empty() && !is_failed && self.resolve(name).is_some() {
            let text = format!(
                "prepared statement \"{}\" already exists",
                String::from_utf8_lossy(name)
            );
            // An error in its text comes first, so the server gets it, under a name that is taken there as well.
            self.take_name(out);
            parse_under(TAKEN, message, name_len, out);
            let code = Sqlstate::DUPLICATE_PREPARED_STATEMENT.0;
            let error = ErrorBuilder::new(Severity::Error, code, &text).build();
            self.outstanding
                .push(Entry::substitute(Owed::Parse, error.into()));
            // What stands behind it in the batch will be skipped, whatever it is.
            self.outstanding.begin_skipping();
            return;
        }
        let id = statement.id;
        let mut entry = Entry {
            change: Change::Define {
                name: significant(name).into(),
                statement: Rc::clone(&statement),
            },
            ..Entry::forward(Owed::Parse)
        };
        let is_unnamed_there = name.is_empty()
            && server.unnamed == Some(id)
            && !server.statements.is_schema_changing();
        if is_failed {
            // It is refused, wherever it is known.
            self.tally.server_parses += 1;
            parse_under(b"", message, name_len, out);
            server.unnamed = None;
        } else if server.statements.touch_fresh(id) || is_unnamed_there {
            entry.action = Action::Fake;
        } else if name.is_empty() && !statement.is_repeated() {
            self.tally.server_parses += 1;
            out.input(message.start..message.end);
            server.unnamed = Some(id);
            entry.places = Some(id);
        } else {
            self.tally.server_parses += 1;
            self.make_room(id, server, out);
            parse_under(&statement.server_name, message, name_len, out);
            server.statements.place(id);
            entry.places = Some(id);
        }
        self.outstanding.push(entry);
    }

    fn forward_bind(
        &mut self,
        message: Message<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        self.tally.binds += 1;
        let head = match BindHead::decode(message.body) {
            Ok(Some(head)) => head,
            Ok(None) => {
                let error = DecodeError::MissingNul {
                    message: "Bind",
                    field: "statement",
                    offset: 0,
                };
                self.fail_malformed(&error, out);
                return Ok(());
            }
            Err(error) => {
                self.fail_malformed(&error, out);
                return Ok(());
            }
        };
        let Some(statement) = self.resolve(head.statement) else {
            if self.may_be_sql_statement(head.statement) {
                out.input(message.start..message.end);
                self.outstanding.forward(Owed::Bind);
                return Ok(());
            }
            self.fail_missing(head.statement, out);
            self.rest.is_dropped = true;
            return Ok(());
        };
        let statement = self.translated(statement);
        self.note_portal(head.portal, &statement);
        let name: &[u8] = match self.place(&statement, server, out) {
            Placed::Unnamed => b"",
            Placed::Named => &statement.server_name,
            Placed::Nowhere => {
                self.fail_missing(head.statement, out);
                self.rest.is_dropped = true;
                return Ok(());
            }
        };
        if self.forward_translated_bind(message.body, &statement, name, out) {
            // Written anew.
        } else if *name == *head.statement {
            out.input(message.start..message.end);
        } else {
            let rest_len = message.header.body_len() - head.rest_offset;
            out.scratch_mut(|bytes| bind_head(bytes, head.portal, name, rest_len));
            out.input(message.start + HEADER_LEN + head.rest_offset..message.end);
        }
        self.outstanding.forward(Owed::Bind);
        Ok(())
    }

    fn forward_describe(
        &mut self,
        message: Message<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        let describe = match Describe::decode(message.body) {
            Ok(describe) => describe,
            Err(error) => {
                self.fail_malformed(&error, out);
                return Ok(());
            }
        };
        if describe.kind == Target::Portal {
            out.input(message.start..message.end);
            self.outstanding.forward(Owed::DescribePortal);
            return Ok(());
        }
        let Some(statement) = self.resolve(describe.name) else {
            if self.may_be_sql_statement(describe.name) {
                out.input(message.start..message.end);
                self.outstanding.forward(Owed::DescribeStatement);
                return Ok(());
            }
            self.fail_missing(describe.name, out);
            return Ok(());
        };
        let name: &[u8] = match self.place(&statement, server, out) {
            Placed::Unnamed => b"",
            Placed::Named => &statement.server_name,
            Placed::Nowhere => {
                self.fail_missing(describe.name, out);
                return Ok(());
            }
        };
        if *name == *describe.name {
            out.input(message.start..message.end);
        } else {
            out.scratch_mut(|bytes| target_head(bytes, tag::DESCRIBE, Target::Statement, name));
        }
        self.outstanding.forward(Owed::DescribeStatement);
        Ok(())
    }

    /// Makes sure that the server has the statement, preparing it there if it must.
    fn place(
        &mut self,
        statement: &Rc<Statement>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Placed {
        if server.statements.touch(statement.id) {
            self.plans = Plans::Old;
            return Placed::Named;
        }
        if server.unnamed == Some(statement.id) {
            // Unless it has just been prepared, in this very batch.
            if !self.outstanding.pending(b"").is_open() {
                self.plans = Plans::Old;
            }
            return Placed::Unnamed;
        }
        let Some(tail) = &statement.tail else {
            return Placed::Nowhere;
        };
        self.tally.server_parses += 1;
        self.make_room(statement.id, server, out);
        out.scratch_mut(|bytes| {
            parse_head(bytes, &statement.server_name, tail.len());
            bytes.extend_from_slice(tail);
        });
        server.statements.place(statement.id);
        self.outstanding.push(Entry {
            places: Some(statement.id),
            ..Entry::skip(Owed::Parse)
        });
        Placed::Named
    }

    /// Sees to it that [`TAKEN`] is a statement on the server: an empty text, which no setting and no failure keeps from that.
    /// Whether it is one already is not kept: batches that are on their way may be skipped.
    fn take_name(&mut self, out: &mut Gather) {
        out.scratch_mut(|bytes| {
            target_head(bytes, tag::CLOSE, Target::Statement, TAKEN);
            parse_head(bytes, TAKEN, EMPTY_TAIL.len());
            bytes.extend_from_slice(EMPTY_TAIL);
        });
        self.outstanding.push(Entry::skip(Owed::Close));
        self.outstanding.push(Entry::skip(Owed::Parse));
    }

    /// Closes statements on the server until this one fits: what it was before, and others.
    fn make_room(&mut self, id: StatementId, server: &mut ServerSession, out: &mut Gather) {
        let mut former = server.statements.take(id);
        while let Some(evicted) = former.take().or_else(|| server.statements.evict()) {
            let name = evicted.server_name();
            out.scratch_mut(|bytes| {
                target_head(bytes, tag::CLOSE, Target::Statement, name.as_bytes())
            });
            self.outstanding.push(Entry {
                places: Some(evicted),
                ..Entry::skip(Owed::Close)
            });
        }
    }

    fn fail_missing(&mut self, name: &[u8], out: &mut Gather) {
        let text = match name {
            b"" => "unnamed prepared statement does not exist".to_owned(),
            name => format!(
                "prepared statement \"{}\" does not exist",
                String::from_utf8_lossy(name)
            ),
        };
        self.fail(Sqlstate::INVALID_SQL_STATEMENT_NAME, &text, out);
    }

    /// A message whose length is right and whose inside is not: an error in PostgreSQL's words, and the session goes on.
    fn fail_malformed(&mut self, error: &DecodeError, out: &mut Gather) {
        let text = match error {
            DecodeError::MissingNul { .. } => "invalid string in message".to_owned(),
            DecodeError::Truncated { .. } => "insufficient data left in message".to_owned(),
            DecodeError::BadValue { message, value, .. } => {
                format!("invalid {} message subtype {value}", message.to_uppercase())
            }
            DecodeError::BadLength { .. }
            | DecodeError::TooLarge { .. }
            | DecodeError::UnknownTag { .. }
            | DecodeError::Trailing { .. } => "invalid message format".to_owned(),
        };
        self.fail(Sqlstate::PROTOCOL_VIOLATION, &text, out);
    }

    /// Lets the server fail here, so that it skips the rest of the batch and rolls back what the batch did, and gives the
    /// client an error of ours instead of the server's.
    fn fail(&mut self, sqlstate: Sqlstate, message: &str, out: &mut Gather) {
        let error = ErrorBuilder::new(Severity::Error, sqlstate.0, message).build();
        self.fail_with(error.into(), out);
    }

    /// The same with a complete ErrorResponse message.
    fn fail_with(&mut self, error: Box<[u8]>, out: &mut Gather) {
        out.scratch_mut(|bytes| target_head(bytes, tag::DESCRIBE, Target::Statement, MISSING_NAME));
        self.outstanding
            .push(Entry::substitute(Owed::DescribeStatement, error));
        // What stands behind it in the batch will be skipped, whatever it is.
        self.outstanding.begin_skipping();
    }

    /// Answers a batch that needs no server: Parse of what a server has accepted before, Close, Sync, Flush.
    ///
    /// # Errors
    /// A [`Violation`] when a message cannot be read after all.
    pub fn answer_locally(
        &mut self,
        input: &[u8],
        len: usize,
        status: TransactionStatus,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        let input = input.get(..len).unwrap_or(input);
        let mut at = 0;
        while let Some(header) = Header::peek(input.get(at..).unwrap_or_default())? {
            let body = input
                .get(at + HEADER_LEN..at + header.frame_len())
                .unwrap_or_default();
            match header.tag {
                tag::PARSE => {
                    self.tally.client_parses += 1;
                    let name =
                        significant(body.split(|byte| *byte == 0).next().unwrap_or_default());
                    if let Some(Some(statement)) = self.batch.parsed.pop_front() {
                        self.define(name.into(), statement);
                    }
                    out.scratch(&[backend_tag::PARSE_COMPLETE, 0, 0, 0, 4]);
                }
                tag::CLOSE => {
                    let close = Close::decode(body)?;
                    if close.kind == Target::Statement {
                        self.undefine(close.name);
                    }
                    out.scratch(&[backend_tag::CLOSE_COMPLETE, 0, 0, 0, 4]);
                }
                tag::SYNC => {
                    out.scratch_mut(|bytes| ReadyForQuery { status }.encode(bytes));
                }
                _ => {}
            }
            at += header.frame_len();
        }
        self.batch.reset();
        Ok(())
    }
}

/// Returns whether a failed transaction takes the statement.
fn ends_transaction(statement: &Statement) -> bool {
    statement.plan.as_ref().is_none_or(|plan| {
        !matches!(
            plan.classified.effects.transaction,
            TransactionControl::None | TransactionControl::Set(_) | TransactionControl::Begin(_)
        )
    })
}

/// What follows the name of a Parse of no text and no types.
const EMPTY_TAIL: &[u8] = b"\0\0\0";

/// Puts out a client's Parse under another name; `name_len` is that of the client's.
fn parse_under(name: &[u8], message: Message<'_>, name_len: usize, out: &mut Gather) {
    let tail_start = message.start + HEADER_LEN + name_len + 1;
    let tail_len = message.header.frame_len() - HEADER_LEN - name_len - 1;
    out.scratch_mut(|bytes| parse_head(bytes, name, tail_len));
    out.input(tail_start..message.end);
}

/// Close of a statement never reaches a server: others may use the same one.
fn close_statement(name: &[u8]) -> Entry {
    Entry {
        action: Action::Fake,
        change: Change::Undefine { name: name.into() },
        ..Entry::forward(Owed::Close)
    }
}

/// Returns what the statements of a text do to the state.
fn events_of(sql: &[u8]) -> Option<Box<Events>> {
    let list: Vec<_> = state_statements(sql).iter().filter_map(Event::of).collect();
    (!list.is_empty()).then(|| Box::new(Events { list, completed: 0 }))
}
