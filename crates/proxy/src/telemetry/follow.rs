//! What a session notes of its batches while spans are wanted: when each came, when it was sent, when it had been answered.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use pgweir_model::{NodeId, Reason, Role, Sqlstate};
use pgweir_session::client::Portion;
use pgweir_sql::StatementKind;

use super::{Backend, Outcome, StatementName, StatementSpan, TraceParent};
use crate::client_task::Client;
use crate::seen::Seen;

/// The batch of a session that is at hand.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// When the batch at hand was first looked at; `None` while there is none.
    arrived_at: Option<Instant>,
}

/// A batch that is traced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanStart {
    /// When it was first looked at.
    pub(crate) arrived_at: Instant,
    /// The caller's span.
    pub(crate) parent: Option<TraceParent>,
}

/// A batch that a server was asked to run.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    /// When it was sent.
    pub(crate) sent_at: Instant,
    /// The plan that decided about it.
    pub(crate) seen: Option<Seen>,
    /// The server.
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    /// Why it went there.
    pub(crate) reason: Reason,
}

/// How a batch has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanEnd {
    pub(crate) ended_at: Instant,
    /// Rows returned or changed.
    pub(crate) rows: Option<u64>,
    pub(crate) outcome: Outcome,
}

impl SpanEnd {
    /// It ends now, without rows that anybody has counted.
    pub(crate) fn now(outcome: Outcome) -> Self {
        SpanEnd {
            ended_at: Instant::now(),
            rows: None,
            outcome,
        }
    }
}

impl Client {
    /// Notes that the batch at hand is looked at: for the first time, or again behind a wait.
    #[inline]
    pub(crate) fn note_arrival(&mut self, portion: Portion) {
        if let Some(spans) = &mut self.spans
            && portion != Portion::Ignored
        {
            spans.arrived_at.get_or_insert_with(Instant::now);
        }
    }

    /// Notes that the batch at hand is done with: it was sent or answered.
    #[inline]
    pub(crate) fn forget_arrival(&mut self) {
        if let Some(spans) = &mut self.spans {
            spans.arrived_at = None;
        }
    }

    /// Returns that a batch which is sent now is traced, if it is. Of one that is sent in pieces the first counts. The batch must
    /// not have been forwarded yet.
    #[inline]
    pub(crate) fn start_span(&mut self, portion: Portion, batch: &[u8]) -> Option<SpanStart> {
        match self.spans.is_some() && portion != Portion::Ignored {
            true => self.start_span_now(batch),
            false => None,
        }
    }

    #[cold]
    fn start_span_now(&mut self, batch: &[u8]) -> Option<SpanStart> {
        let is_begun = self.session.is_in_mid_batch() || self.is_copy_in();
        if self.session.facts().statements == 0 || is_begun {
            return None;
        }
        let parent = self.session.find_in_texts(batch, TraceParent::in_sql);
        if !self.is_traced(parent) {
            return None;
        }
        let arrived_at = self.spans.as_mut()?.arrived_at.take();
        Some(SpanStart {
            arrived_at: arrived_at.unwrap_or_else(Instant::now),
            parent,
        })
    }

    fn is_traced(&self, parent: Option<TraceParent>) -> bool {
        let telemetry = self.worker().shared.telemetry.as_ref();
        match parent {
            Some(parent) => parent.is_sampled,
            None => telemetry.is_some_and(|telemetry| telemetry.draws()),
        }
    }

    /// Records a batch that a server has answered.
    #[cold]
    pub(crate) fn record_answered(&self, start: SpanStart, flight: &Flight, end: SpanEnd) {
        self.record(StatementSpan {
            wait: Some(flight.sent_at.saturating_duration_since(start.arrived_at)),
            backend: self.backend(flight.node),
            route: Some((flight.role, flight.reason)),
            ..self.span(start, flight.seen.as_ref(), end)
        });
    }

    /// Notes that the batch at hand came earlier: it was sent, and runs again.
    pub(crate) fn arrived_already(&mut self, arrived_at: Instant) {
        if let Some(spans) = &mut self.spans {
            spans.arrived_at = Some(arrived_at);
        }
    }

    /// Records a batch that fails before it was sent, with the plan that has decided about it, where that is known.
    #[inline]
    pub(crate) fn record_failed(&mut self, batch: &[u8], seen: Option<&Seen>, sqlstate: Sqlstate) {
        if self.spans.is_some() {
            self.record_failed_now(batch, seen, sqlstate);
        }
    }

    #[cold]
    fn record_failed_now(&mut self, batch: &[u8], seen: Option<&Seen>, sqlstate: Sqlstate) {
        let arrived_at = self
            .spans
            .as_mut()
            .and_then(|spans| spans.arrived_at.take());
        let parent = self.session.find_in_texts(batch, TraceParent::in_sql);
        if !self.is_traced(parent) {
            return;
        }
        let end = SpanEnd::now(Outcome::Failed(Some(sqlstate)));
        let start = SpanStart {
            arrived_at: arrived_at.unwrap_or(end.ended_at),
            parent,
        };
        self.record(self.span(start, seen, end));
    }

    /// Returns the span of a batch that no server was asked about.
    fn span(&self, start: SpanStart, seen: Option<&Seen>, end: SpanEnd) -> StatementSpan {
        StatementSpan {
            started_at: start.arrived_at,
            ended_at: end.ended_at,
            wait: None,
            parent: start.parent,
            kind: seen.map(statement_name).unwrap_or_default(),
            shape: seen.map(|seen| Arc::clone(&seen.displayed().text)),
            database: self.identity.database.clone(),
            user: self.identity.user.clone(),
            backend: None,
            route: None,
            rows: end.rows,
            outcome: end.outcome,
        }
    }

    fn backend(&self, node: NodeId) -> Option<Backend> {
        let topology = self.topology();
        let name = topology
            .nodes
            .iter()
            .find(|seen| seen.id == node)?
            .name
            .clone();
        let address = self.worker().address(node)?;
        Some(Backend { name, address })
    }

    fn record(&self, span: StatementSpan) {
        if let Some(telemetry) = &self.worker().shared.telemetry {
            telemetry.record(span);
        }
    }
}

/// Returns what a batch does: the command of its first statement beside transaction control, and the table, where it names one
/// alone.
fn statement_name(seen: &Seen) -> StatementName {
    let classified = &seen.plan.classified;
    let mut named = classified
        .statements
        .iter()
        .filter_map(|statement| operation(statement.kind));
    // The rest begin with their command, and of those there are few.
    let is_known =
        (classified.statements.first()).is_some_and(|first| first.kind != StatementKind::Unknown);
    let operation = match named.next() {
        Some(name) => Some(Cow::Borrowed(name)),
        None if is_known => leading_word(&seen.plan.shape).map(Cow::Owned),
        None => None,
    };
    let table = match classified.tables.as_slice() {
        // In a text that is read wrongly a name may be part of a value.
        [one] if seen.displayed().is_whole => Some(one.name.clone()),
        _ => None,
    };
    StatementName { operation, table }
}

/// Returns the command of what reads or writes rows, which may stand behind others.
fn operation(kind: StatementKind) -> Option<&'static str> {
    match kind {
        StatementKind::Query => Some("SELECT"),
        StatementKind::Insert => Some("INSERT"),
        StatementKind::Update => Some("UPDATE"),
        StatementKind::Delete => Some("DELETE"),
        StatementKind::Merge => Some("MERGE"),
        _ => None,
    }
}

/// Returns the first word of a shape, in capital letters.
fn leading_word(shape: &[u8]) -> Option<String> {
    use pgweir_sql::lexer::{Lexer, TokenKind};
    let word = Lexer::new(shape).find(|token| token.kind == TokenKind::Word)?;
    Some(std::str::from_utf8(word.text).ok()?.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use pgweir_sql::plan::PlanTable;

    use super::*;

    #[test]
    fn a_statement_is_named_by_its_command_and_its_table() {
        let mut plans = PlanTable::new(10);
        for (sql, operation, table) in [
            (
                "SELECT * FROM shop.orders WHERE id = 17",
                Some("SELECT"),
                Some("orders"),
            ),
            ("WITH x AS (SELECT 1) SELECT * FROM x", Some("SELECT"), None),
            (
                "SELECT * FROM a JOIN b ON a.id = b.id",
                Some("SELECT"),
                None,
            ),
            ("insert into t values (1)", Some("INSERT"), Some("t")),
            ("/* note */ vacuum", Some("VACUUM"), None),
            ("CREATE TABLE t (a int)", Some("CREATE"), None),
            ("BEGIN; SELECT 1", Some("SELECT"), None),
            ("BEGIN; VACUUM", Some("BEGIN"), None),
            ("gibberish it is", None, None),
        ] {
            let named = statement_name(&Seen {
                plan: plans.get(sql.as_bytes()),
                is_read: true,
            });
            assert_eq!(named.operation.as_deref(), operation, "{sql}");
            if operation != Some("CREATE") {
                assert_eq!(named.table.as_deref(), table, "{sql}");
            }
        }
    }

    #[test]
    fn no_table_is_named_where_the_text_is_read_otherwise() {
        let seen = Seen {
            plan: PlanTable::new(1).get(b"SELECT 1 FROM leak3d"),
            is_read: false,
        };
        let named = statement_name(&seen);
        assert_eq!(named.operation.as_deref(), Some("SELECT"));
        assert_eq!(named.table, None);
        let named = statement_name(&Seen {
            is_read: true,
            ..seen
        });
        assert_eq!(named.table.as_deref(), Some("leak3d"));
    }
}
