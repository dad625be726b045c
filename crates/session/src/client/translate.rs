//! Process IDs of servers in the place of those that the proxy gave its clients, in a batch that signals them.
//!
//! Literals are replaced in the client's own text, parameters in its Bind. A statement that was prepared keeps its text, as it may
//! run again when the number means another server process: in its place one of the changed text is bound, this once.

use std::rc::Rc;

use pgweir_sql::plan::Traits;
use pgweir_sql::signals::{ProcessId, Signal, signal_calls, with_process_ids};
use pgweir_wire::frontend::{Bind, Query, tag};
use pgweir_wire::{Frames, Gather, ListBuf};

use super::{ClientSession, Tables, significant};
use crate::statement::{Statement, StatementId};

/// What replaces what in the batch that is forwarded next.
#[derive(Debug, Default)]
pub(super) struct Translation {
    /// The process IDs that the client knows, and the servers' for them.
    ids: Vec<(u32, u32)>,
    /// The statements to be bound in place of others.
    statements: Vec<(StatementId, Rc<Statement>)>,
}

impl Translation {
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn of(&self, id: u32) -> Option<u32> {
        let found = self.ids.iter().find(|(known, _)| *known == id);
        found.map(|(_, new)| *new)
    }
}

impl ClientSession {
    /// Returns which processes the batch at hand signals, by the IDs in its texts and Binds.
    pub fn signalled(&self, batch: &[u8]) -> Vec<(Signal, u32)> {
        let mut found = Vec::new();
        let mut frames = Frames::new(batch);
        while let Ok(Some(frame)) = frames.next() {
            match frame.tag {
                tag::QUERY => {
                    if let Ok(query) = Query::decode(frame.body()) {
                        add_calls(query.sql, None, &mut found);
                    }
                }
                tag::BIND => {
                    if let Ok(bind) = Bind::decode(frame.body())
                        && let Some(statement) = self.signalling(bind.statement)
                    {
                        add_calls(statement.text(), Some(&bind), &mut found);
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Replaces process IDs in the batch at hand, which is forwarded next: pairs of the client's and the server's.
    pub fn translate(&mut self, ids: Vec<(u32, u32)>, batch: &[u8], tables: &mut Tables) {
        let mut translation = Translation {
            ids,
            statements: Vec::new(),
        };
        let mut frames = Frames::new(batch);
        while let Ok(Some(frame)) = frames.next() {
            if frame.tag != tag::BIND {
                continue;
            }
            let bound = Bind::decode(frame.body()).ok();
            let Some(statement) = bound.and_then(|bind| self.signalling(bind.statement)) else {
                continue;
            };
            let sql = statement.text();
            let Some(mut tail) = with_process_ids(sql, |id| translation.of(id)) else {
                continue;
            };
            let len = tail.len();
            let types = statement.tail.as_deref().and_then(|t| t.get(sql.len()..));
            tail.extend_from_slice(types.unwrap_or_default());
            let sql = tail.get(..len).unwrap_or_default();
            // Nobody else's, and not kept.
            let changed = tables
                .statements
                .prepare(&tail, sql, None, &mut tables.plans);
            translation.statements.push((statement.id, changed));
        }
        self.translation = translation;
    }

    /// Returns the statement that a Bind of the batch at hand uses.
    pub(super) fn bound(&self, name: &[u8]) -> Option<Rc<Statement>> {
        let name = significant(name);
        let here = match name {
            b"" => self.batch.unnamed.clone().flatten(),
            name => self.batch.defined.get(name).cloned(),
        };
        here.or_else(|| self.resolve(name))
    }

    /// Returns the statement that a Bind of the batch at hand uses, if it signals anybody.
    fn signalling(&self, name: &[u8]) -> Option<Rc<Statement>> {
        let signals = |statement: &Rc<Statement>| {
            let plan = statement.plan.as_ref();
            plan.is_some_and(|plan| plan.traits.has(Traits::SIGNALS))
        };
        self.bound(name).filter(signals)
    }

    /// Puts out a Query with other process IDs; returns whether there are any in it.
    pub(super) fn forward_translated_query(&self, body: &[u8], out: &mut Gather) -> bool {
        if self.translation.is_empty() {
            return false;
        }
        let changed = Query::decode(body)
            .ok()
            .and_then(|query| with_process_ids(query.sql, |id| self.translation.of(id)));
        let Some(sql) = changed else { return false };
        out.scratch_mut(|bytes| Query { sql: &sql }.encode(bytes));
        true
    }

    /// Returns the statement that is bound in place of this one.
    pub(super) fn translated(&self, statement: Rc<Statement>) -> Rc<Statement> {
        let mut changed = self.translation.statements.iter();
        match changed.find(|(id, _)| *id == statement.id) {
            Some((_, changed)) => Rc::clone(changed),
            None => statement,
        }
    }

    /// Puts out a Bind of the statement that the server knows as `name`, with other process IDs for parameters; returns whether
    /// there are any in it.
    pub(super) fn forward_translated_bind(
        &self,
        body: &[u8],
        statement: &Statement,
        name: &[u8],
        out: &mut Gather,
    ) -> bool {
        if self.translation.is_empty() {
            return false;
        }
        let Ok(bind) = Bind::decode(body) else {
            return false;
        };
        let mut changed = Vec::new();
        for call in signal_calls(statement.text()) {
            let ProcessId::Parameter(number) = call.process_id else {
                continue;
            };
            let index = usize::from(number).wrapping_sub(1);
            let id = bound_id(&bind, index).and_then(|id| self.translation.of(id));
            if let Some(id) = id {
                changed.push((index, written(id, bind.parameter_format(index))));
            }
        }
        if changed.is_empty() {
            return false;
        }
        let values = bind.parameters.iter().enumerate().map(|(index, value)| {
            let new = changed.iter().find(|(at, _)| *at == index);
            new.map(|(_, bytes)| bytes.as_slice()).or(value)
        });
        let Ok(parameters) = ListBuf::collect(values) else {
            return false;
        };
        out.scratch_mut(|bytes| {
            Bind {
                statement: name,
                parameters: parameters.as_list(),
                ..bind
            }
            .encode(bytes);
        });
        true
    }
}

fn add_calls(sql: &[u8], bind: Option<&Bind<'_>>, found: &mut Vec<(Signal, u32)>) {
    for call in signal_calls(sql) {
        let id = match call.process_id {
            ProcessId::Literal(id) => Some(id),
            ProcessId::Parameter(number) => {
                bind.and_then(|bind| bound_id(bind, usize::from(number).wrapping_sub(1)))
            }
        };
        found.extend(id.map(|id| (call.signal, id)));
    }
}

/// Returns the process ID that a parameter is, as text or as `int4`.
fn bound_id(bind: &Bind<'_>, index: usize) -> Option<u32> {
    let value = bind.parameters.get(index)??;
    match bind.parameter_format(index) {
        0 => std::str::from_utf8(value).ok()?.trim().parse().ok(),
        _ => value.try_into().ok().map(u32::from_be_bytes),
    }
}

fn written(id: u32, format: i16) -> Vec<u8> {
    match format {
        0 => id.to_string().into_bytes(),
        _ => id.to_be_bytes().to_vec(),
    }
}
