//! Cuts a client's bytes into batches and finds out what each asks for, without changing anything.

use std::rc::Rc;

use pgweir_model::PinReason;
use pgweir_sql::plan::{Plan, Traits};
use pgweir_sql::{Classified, Discard, PinSet, StateEvent, hidden, state_statements};
use pgweir_wire::frontend::{BindHead, Close, Describe, Execute, Parse, Query, Target, tag};
use pgweir_wire::{Frame, Header};

use super::facts::Marks;
use super::{ClientSession, Kept, Tables, significant};
use crate::error::{Side, Violation};
use crate::statement::{Context, Statement};

/// A message above this size that needs only its head read may go on before it is whole. Not smaller than what a read
/// usually brings, so that small messages are never cut.
const STREAM_ABOVE: usize = 32 * 1024;

/// How much must be at hand before a portion is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanMode {
    /// A whole batch: it is still to be decided where it goes.
    Whole,
    /// Whatever is there: the server is settled.
    Stream,
}

/// A stretch of input that can be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// A whole batch.
    Batch,
    /// The messages up to a Flush: the rest of the batch follows on the same server.
    Flushed,
    /// Messages, or a part of one, for the server that the session has.
    Piece,
    /// COPY data while nobody copies: ignored, as PostgreSQL does.
    Ignored,
    /// Terminate.
    Terminate,
}

/// The outcome of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed.
    Incomplete,
    /// The batch is larger than `route_buffer`: settle for the primary and scan again with [`ScanMode::Stream`].
    Oversize,
    /// `len` bytes from the start of the input can be acted on.
    Ready {
        /// What they are.
        portion: Portion,
        /// How many.
        len: usize,
    },
}

impl ClientSession {
    /// Looks at the client's bytes from where the last portion ended.
    ///
    /// Called again with the same bytes and more behind them it goes on where it stopped.
    ///
    /// # Errors
    /// A [`Violation`] when the bytes are no message that a client may send.
    pub fn scan(
        &mut self,
        input: &[u8],
        mode: ScanMode,
        tables: &mut Tables,
    ) -> Result<Scan, Violation> {
        if self.rest.len > 0 {
            let len = self.rest.len.min(input.len());
            let portion = if self.rest.is_dropped {
                Portion::Ignored
            } else {
                Portion::Piece
            };
            return Ok(if len == 0 {
                Scan::Incomplete
            } else {
                Scan::Ready { portion, len }
            });
        }
        loop {
            let scanned = self.batch.scanned;
            let rest = input.get(scanned..).unwrap_or_default();
            let Some(header) = Header::peek(rest)? else {
                break;
            };
            if header.frame_len() > self.limits.max_message {
                return Err(Violation::TooLarge {
                    length: header.frame_len(),
                    limit: self.limits.max_message,
                });
            }
            if is_copy(header.tag) && !self.is_open && mode == ScanMode::Whole {
                return Ok(self.scan_copy(header, rest, scanned));
            }
            let Some(bytes) = rest.get(..header.frame_len()) else {
                return self.scan_cut(header, rest, mode, tables);
            };
            let frame = Frame {
                tag: header.tag,
                bytes,
            };
            let Some(portion) = self.scan_frame(frame, tables)? else {
                self.batch.scanned += header.frame_len();
                continue;
            };
            if portion == Portion::Terminate && scanned > 0 {
                break;
            }
            return Ok(Scan::Ready {
                portion,
                len: scanned + header.frame_len(),
            });
        }
        if mode == ScanMode::Stream && self.batch.scanned > 0 {
            return Ok(Scan::Ready {
                portion: Portion::Piece,
                len: self.batch.scanned,
            });
        }
        Ok(if self.batch.scanned > self.limits.route_buffer {
            Scan::Oversize
        } else {
            Scan::Incomplete
        })
    }

    /// Passes over `len` bytes of input that go nowhere: COPY data that nobody reads, of which more may be to come.
    ///
    /// # Errors
    /// A [`Violation`] when they are no message after all.
    pub fn skip_ignored(&mut self, input: &[u8], len: usize) -> Result<(), Violation> {
        if self.rest.len > 0 {
            self.rest.len -= self.rest.len.min(len);
        } else if let Some(header) = Header::peek(input)? {
            self.rest.len = header.frame_len().saturating_sub(len);
            self.rest.is_dropped = true;
        }
        Ok(())
    }

    /// COPY data that begins a batch belongs to no batch.
    fn scan_copy(&mut self, header: Header, rest: &[u8], scanned: usize) -> Scan {
        if scanned > 0 {
            // Extended messages stand before it: COPY data within a batch, which only an unusual client pipelines.
            return Scan::Oversize;
        }
        Scan::Ready {
            portion: Portion::Ignored,
            len: header.frame_len().min(rest.len()),
        }
    }

    /// A message that is not all there.
    fn scan_cut(
        &mut self,
        header: Header,
        rest: &[u8],
        mode: ScanMode,
        tables: &mut Tables,
    ) -> Result<Scan, Violation> {
        let scanned = self.batch.scanned;
        let total = header.frame_len();
        if mode == ScanMode::Whole {
            let too_much = scanned + total > self.limits.route_buffer;
            return Ok(if too_much {
                Scan::Oversize
            } else {
                Scan::Incomplete
            });
        }
        let stream_above = STREAM_ABOVE.min(self.limits.route_buffer);
        let can_go_on = match header.tag {
            tag::COPY_DATA => true,
            tag::FUNCTION_CALL if total > stream_above => {
                self.batch.facts.marks.set(Marks::FUNCTION_CALL);
                self.note_unread();
                true
            }
            tag::BIND if total > stream_above => match BindHead::decode(body_prefix(rest))? {
                Some(head) => {
                    self.note_statement(head.statement);
                    true
                }
                None => false,
            },
            tag::QUERY if total > self.limits.route_buffer => {
                self.note_unread();
                true
            }
            tag::PARSE if total > self.limits.route_buffer => {
                let Some(name_len) = body_prefix(rest).iter().position(|b| *b == 0) else {
                    return Ok(Scan::Incomplete);
                };
                let name = body_prefix(rest).get(..name_len).unwrap_or_default();
                let statement = tables.statements.prepare_unread();
                self.note_unread();
                let facts = &mut self.batch.facts;
                facts.pin = facts.pin.or(Some(PinReason::Unread));
                facts.pins.insert(PinReason::Unread);
                self.batch.facts.marks.set(Marks::NEEDS_SERVER);
                self.note_definition(name, statement);
                true
            }
            _ if total > self.limits.route_buffer => {
                return Err(Violation::TooLarge {
                    length: total,
                    limit: self.limits.route_buffer,
                });
            }
            _ => false,
        };
        let len = if can_go_on {
            scanned + rest.len()
        } else {
            scanned
        };
        Ok(if len == 0 {
            Scan::Incomplete
        } else {
            Scan::Ready {
                portion: Portion::Piece,
                len,
            }
        })
    }

    /// Looks at one whole message; returns what the batch is if this message ends it.
    fn scan_frame(
        &mut self,
        frame: Frame<'_>,
        tables: &mut Tables,
    ) -> Result<Option<Portion>, Violation> {
        let body = frame.body();
        match frame.tag {
            tag::QUERY => {
                self.batch.facts.marks.set(Marks::NEEDS_SERVER);
                self.batch.facts.marks.set(Marks::RUNS);
                match Query::decode(body) {
                    Ok(query) => {
                        let plan = tables.plans.get(query.sql);
                        self.add_plan(&plan, query.sql);
                    }
                    // The server says what is wrong with it.
                    Err(_) => self.note_malformed(),
                }
                return Ok(Some(Portion::Batch));
            }
            tag::PARSE => self.scan_parse(body, tables),
            tag::BIND => match BindHead::decode(body) {
                Ok(Some(head)) => {
                    if !head.portal.is_empty() {
                        self.batch.facts.marks.set(Marks::LEAVES_OPEN);
                    }
                    self.note_statement(head.statement);
                }
                Ok(None) | Err(_) => self.note_malformed(),
            },
            tag::DESCRIBE => {
                self.batch.facts.marks.set(Marks::NEEDS_SERVER);
                match Describe::decode(body) {
                    Ok(describe) if describe.kind == Target::Statement => {
                        self.note_statement(describe.name)
                    }
                    Ok(_) => {}
                    Err(_) => self.note_malformed(),
                }
            }
            tag::CLOSE => {
                if Close::decode(body).is_err() {
                    self.note_malformed();
                }
            }
            tag::EXECUTE => {
                let facts = &mut self.batch.facts;
                facts.marks.set(Marks::NEEDS_SERVER);
                facts.marks.set(Marks::RUNS);
                let is_limited = |execute: Execute<'_>| execute.max_rows != 0;
                if facts.returns_rows && Execute::decode(body).is_ok_and(is_limited) {
                    facts.marks.set(Marks::LEAVES_OPEN);
                }
            }
            tag::SYNC => return Ok(Some(Portion::Batch)),
            tag::FLUSH => return Ok(Some(Portion::Flushed)),
            tag::FUNCTION_CALL => {
                self.batch.facts.marks.set(Marks::FUNCTION_CALL);
                self.batch.facts.marks.set(Marks::RUNS);
                self.note_unread();
                return Ok(Some(Portion::Batch));
            }
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {}
            tag::TERMINATE => return Ok(Some(Portion::Terminate)),
            tag => {
                return Err(Violation::UnknownTag {
                    side: Side::Client,
                    tag,
                });
            }
        }
        Ok(None)
    }

    fn scan_parse(&mut self, body: &[u8], tables: &mut Tables) {
        let Ok(parse) = Parse::decode(body) else {
            self.batch.parsed.push_back(None);
            self.note_malformed();
            return;
        };
        let tail = body.get(parse.name.len() + 1..).unwrap_or_default();
        let statement =
            tables
                .statements
                .prepare(tail, parse.sql, self.reading(), &mut tables.plans);
        if let Some(plan) = &statement.plan {
            self.add_plan(plan, parse.sql);
        }
        let context = Context {
            epoch: tables.epoch,
            ..self.context
        };
        let is_new = parse.name.is_empty()
            || self.resolve(parse.name).is_none()
                && self.in_batch(significant(parse.name)).is_none();
        if !(is_new && statement.is_accepted(context)) {
            self.batch.facts.marks.set(Marks::NEEDS_SERVER);
        }
        self.note_place(&statement);
        self.note_definition(parse.name, statement);
    }

    /// Returns the named statement that the batch at hand defines.
    fn in_batch(&self, name: &[u8]) -> Option<Rc<Statement>> {
        self.batch.defined.get(name).cloned()
    }

    fn note_place(&mut self, statement: &Statement) {
        if self.outstanding.is_placed_by_earlier_batch(statement.id) {
            self.batch.facts.marks.set(Marks::DEPENDS);
        }
    }

    /// Adds a statement to the facts; `text` is its own, not its shape.
    fn add_plan(&mut self, plan: &Rc<Plan>, text: &[u8]) {
        let classified = &plan.classified;
        if plan.traits.has(Traits::EXECUTES)
            && let Some(executed) = self.executed(text)
        {
            // What it runs decides; that it is run by name does not matter.
            let verdict = executed.verdict(&self.lens);
            self.batch.facts.marks.set(Marks::STATE);
            self.batch.facts.add_plan(&executed, verdict, false);
            self.keep(&executed);
            return;
        }
        let is_local =
            classified.is_local() || self.deallocates_own(&classified.effects.discard, classified);
        let verdict = plan.verdict(&self.lens);
        self.batch.facts.add_plan(plan, verdict, is_local);
        let pins = hidden_pins(plan, text);
        let facts = &mut self.batch.facts;
        if !pins.is_empty() {
            facts.pins = facts.pins.union(pins);
            facts.pin = facts.pin.or(pins.iter().next());
        }
        if plan.traits.has(Traits::DOES) && hidden::changes_schema(text) {
            facts.marks.set(Marks::DDL);
        }
        if plan.classified.effects.settings && self.state.has_startup() {
            // Should it take away what the session came with, that is brought back before anything else is run.
            self.batch.facts.marks.set(Marks::DISCARDS);
        }
        self.keep(plan);
    }

    fn keep(&mut self, plan: &Rc<Plan>) {
        if self.kept == Kept::All {
            self.batch.facts.keep(plan);
        }
    }

    /// Returns the plan of the statement that an `EXECUTE` runs, if that was prepared by the protocol.
    fn executed(&self, text: &[u8]) -> Option<Rc<Plan>> {
        let statements = state_statements(text);
        let StateEvent::Execute { name, .. } = &statements.first()?.event else {
            return None;
        };
        self.resolve(name)?.plan.clone()
    }

    /// Returns whether the text is a DEALLOCATE of a statement that was prepared by the protocol: no server knows its name.
    fn deallocates_own(&self, discard: &[Discard], classified: &Classified) -> bool {
        match discard {
            [Discard::Deallocate(name)] if classified.statements.len() == 1 => {
                self.resolve(name.as_bytes()).is_some()
            }
            _ => false,
        }
    }

    /// A message that cannot be read: it goes to the primary, which says what is wrong with it, or is made to fail there.
    fn note_malformed(&mut self) {
        self.batch.facts.marks.set(Marks::NEEDS_SERVER);
        self.batch.facts.marks.set(Marks::NEEDS_PRIMARY);
        self.batch.facts.marks.set(Marks::UNKNOWN_STATEMENT);
    }

    fn note_unread(&mut self) {
        let facts = &mut self.batch.facts;
        facts.statements += 1;
        facts.marks.set(Marks::NEEDS_SERVER);
        facts.marks.set(Marks::UNREAD);
        facts.marks.set(Marks::WRITES);
        facts.marks.set(Marks::NEEDS_PRIMARY);
        facts.marks.set(Marks::SUSPECT);
    }

    fn note_definition(&mut self, name: &[u8], statement: Rc<Statement>) {
        self.batch.parsed.push_back(Some(Rc::clone(&statement)));
        if name.is_empty() {
            self.batch.unnamed = Some(Some(statement));
        } else {
            // Whether the name is free.
            if self.outstanding.depends_on_earlier_batch(significant(name)) {
                self.batch.facts.marks.set(Marks::DEPENDS);
            }
            self.batch
                .defined
                .insert(significant(name).into(), statement);
        }
    }

    /// Adds the plan of a statement that the batch uses by name.
    fn note_statement(&mut self, name: &[u8]) {
        self.batch.facts.marks.set(Marks::NEEDS_SERVER);
        let name = significant(name);
        let in_batch = if name.is_empty() {
            self.batch.unnamed.clone()
        } else {
            self.in_batch(name).map(Some)
        };
        // A statement that this very batch prepares has been added by its Parse.
        if let Some(Some(_)) = in_batch {
            return;
        }
        if self.outstanding.depends_on_earlier_batch(name) {
            self.batch.facts.marks.set(Marks::DEPENDS);
        }
        let resolved = self.resolve(name);
        if let Some(statement) = &resolved {
            self.note_place(statement);
        }
        match resolved {
            Some(statement) => match &statement.plan {
                Some(plan) => {
                    let plan = Rc::clone(plan);
                    self.add_plan(&plan, statement.text());
                }
                None => self.note_unread(),
            },
            None => {
                self.batch.facts.marks.set(Marks::UNKNOWN_STATEMENT);
                self.batch.facts.marks.set(Marks::NEEDS_PRIMARY);
            }
        }
    }
}

/// Returns what keeps the session on its server connection, as far as only the text tells.
fn hidden_pins(plan: &Plan, text: &[u8]) -> PinSet {
    let mut pins = plan.classified.effects.pins;
    let sets = Traits::PINS_SETTING.union(Traits::CALLS_SET_CONFIG);
    if plan.traits.has(sets) && hidden::sets_adopted_only(text) {
        pins.remove(PinReason::Setting);
    }
    if plan.traits.has(Traits::DOES) && hidden::sets_unlisted(text) {
        pins.insert(PinReason::Setting);
    }
    pins
}

fn is_copy(tag: u8) -> bool {
    matches!(tag, tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL)
}

fn body_prefix(rest: &[u8]) -> &[u8] {
    rest.get(pgweir_wire::HEADER_LEN..).unwrap_or_default()
}
