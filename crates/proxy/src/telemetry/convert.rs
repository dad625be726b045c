//! A batch that has ended as OpenTelemetry's spans, by the semantic conventions for databases:
//! <https://opentelemetry.io/docs/specs/semconv/database/postgresql/>.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator, SpanData, SpanEvents, SpanLinks};

use super::{Backend, Outcome, StatementName, StatementSpan};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) system: SystemTime,
}

impl Moment {
    fn system_of(&self, instant: Instant) -> SystemTime {
        let ago = self.instant.saturating_duration_since(instant);
        self.system.checked_sub(ago).unwrap_or(self.system)
    }
}

/// Returns the span of a batch, and behind it that of the time at the server, if one was asked.
pub(super) fn spans(span: &StatementSpan, now: Moment, ids: &impl IdGenerator) -> Vec<SpanData> {
    let trace_id = match span.parent {
        Some(parent) => TraceId::from(parent.trace_id),
        None => ids.new_trace_id(),
    };
    let parent_id = span.parent.map(|parent| SpanId::from(parent.span_id));
    let own_id = ids.new_span_id();
    let batch = SpanData {
        parent_span_id: parent_id.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: parent_id.is_some(),
        span_kind: SpanKind::Server,
        name: name(&span.kind, &span.database),
        start_time: now.system_of(span.started_at),
        end_time: now.system_of(span.ended_at),
        attributes: attributes(span),
        status: status(span),
        ..blank(trace_id, own_id)
    };
    let (Some(wait), Some(backend)) = (span.wait, &span.backend) else {
        return vec![batch];
    };
    let mut attributes = vec![
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.namespace", span.database.to_string()),
    ];
    add_backend(backend, &mut attributes);
    let at_server = SpanData {
        parent_span_id: own_id,
        span_kind: SpanKind::Client,
        name: batch.name.clone(),
        start_time: now.system_of(span.started_at + wait),
        end_time: batch.end_time,
        attributes,
        status: batch.status.clone(),
        ..blank(trace_id, ids.new_span_id())
    };
    vec![batch, at_server]
}

/// Returns a span of which nothing is known but whose it is.
fn blank(trace_id: TraceId, span_id: SpanId) -> SpanData {
    let scope = InstrumentationScope::builder("pgweir")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build();
    let flags = TraceFlags::SAMPLED;
    SpanData {
        span_context: SpanContext::new(trace_id, span_id, flags, false, TraceState::NONE),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(""),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope,
    }
}

/// Returns a name of which there are few: the command and what it is about.
fn name(kind: &StatementName, database: &str) -> Cow<'static, str> {
    let target = kind.table.as_deref().unwrap_or(database);
    match &kind.operation {
        Some(operation) => format!("{operation} {target}").into(),
        None => target.to_owned().into(),
    }
}

fn attributes(span: &StatementSpan) -> Vec<KeyValue> {
    let mut list = vec![
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.namespace", span.database.to_string()),
        KeyValue::new("pgweir.user", span.user.to_string()),
    ];
    if let Some(operation) = &span.kind.operation {
        list.push(KeyValue::new("db.operation.name", operation.to_string()));
    }
    if let Some(table) = &span.kind.table {
        list.push(KeyValue::new("db.collection.name", table.to_string()));
    }
    if let Some(shape) = &span.shape {
        list.push(KeyValue::new("db.query.text", shape.to_string()));
    }
    if let Some(backend) = &span.backend {
        add_backend(backend, &mut list);
    }
    if let Some((role, reason)) = span.route {
        list.push(KeyValue::new("pgweir.route", role.to_string()));
        list.push(KeyValue::new("pgweir.reason", reason.name()));
    }
    if let Some(wait) = span.wait {
        list.push(KeyValue::new("pgweir.wait_ms", wait.as_secs_f64() * 1000.0));
    }
    if let Some(rows) = span.rows {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        list.push(KeyValue::new("db.response.returned_rows", rows));
    }
    if let Outcome::Failed(None) = span.outcome {
        // The word of the conventions for an error of which no more is known.
        list.push(KeyValue::new("error.type", "_OTHER"));
    }
    if let Outcome::Failed(Some(sqlstate)) = span.outcome {
        list.push(KeyValue::new(
            "db.response.status_code",
            sqlstate.to_string(),
        ));
        list.push(KeyValue::new("error.type", sqlstate.to_string()));
    }
    list
}

fn add_backend(backend: &Backend, list: &mut Vec<KeyValue>) {
    let (address, port) = (&backend.address.host, backend.address.port);
    list.push(KeyValue::new("server.address", address.to_string()));
    list.push(KeyValue::new("server.port", i64::from(port)));
    list.push(KeyValue::new("pgweir.backend", backend.name.to_string()));
}

fn status(span: &StatementSpan) -> Status {
    match span.outcome {
        Outcome::Failed(_) => Status::error(""),
        Outcome::Done => Status::Unset,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use opentelemetry_sdk::trace::RandomIdGenerator;
    use pgweir_backend::Address;
    use pgweir_model::{Reason, Role, Sqlstate};

    use super::*;
    use crate::telemetry::TraceParent;

    fn answered(now: Instant) -> StatementSpan {
        StatementSpan {
            started_at: now - Duration::from_millis(50),
            ended_at: now - Duration::from_millis(10),
            wait: Some(Duration::from_millis(15)),
            parent: Some(TraceParent {
                trace_id: 7,
                span_id: 9,
                is_sampled: true,
            }),
            kind: StatementName {
                operation: Some("SELECT".into()),
                table: Some("orders".into()),
            },
            shape: Some("select * from orders where id = 0".into()),
            database: "app".into(),
            user: "u".into(),
            backend: Some(Backend {
                name: "pg2".into(),
                address: Arc::new(Address {
                    host: "10.0.0.2".into(),
                    port: 5432,
                }),
            }),
            route: Some((Role::Replica, Reason::Read)),
            rows: Some(3),
            outcome: Outcome::Done,
        }
    }

    fn convert(span: &StatementSpan, instant: Instant) -> Vec<SpanData> {
        let system = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let moment = Moment { instant, system };
        spans(span, moment, &RandomIdGenerator::default())
    }

    fn value(span: &SpanData, key: &str) -> Option<String> {
        let mut found = span.attributes.iter().filter(|kv| kv.key.as_str() == key);
        found.next().map(|kv| kv.value.to_string())
    }

    #[test]
    fn a_batch_continues_the_trace_of_its_caller_and_the_server_that_of_the_batch() {
        let now = Instant::now();
        let spans = convert(&answered(now), now);
        let [batch, at_server] = spans.as_slice() else {
            panic!("{spans:?}");
        };
        assert_eq!(batch.name, "SELECT orders");
        assert_eq!(
            (batch.span_kind.clone(), at_server.span_kind.clone()),
            (SpanKind::Server, SpanKind::Client)
        );
        assert_eq!(batch.span_context.trace_id(), TraceId::from(7));
        assert_eq!(batch.parent_span_id, SpanId::from(9));
        assert_eq!(at_server.span_context.trace_id(), TraceId::from(7));
        assert_eq!(at_server.parent_span_id, batch.span_context.span_id());
        let lasted = |span: &SpanData| span.end_time.duration_since(span.start_time).unwrap();
        assert_eq!(lasted(batch), Duration::from_millis(40));
        assert_eq!(lasted(at_server), Duration::from_millis(25));
        for (key, expected) in [
            ("db.system.name", "postgresql"),
            ("db.namespace", "app"),
            ("db.operation.name", "SELECT"),
            ("db.query.text", "select * from orders where id = 0"),
            ("server.address", "10.0.0.2"),
            ("server.port", "5432"),
            ("pgweir.backend", "pg2"),
            ("pgweir.route", "replica"),
            ("pgweir.reason", "read"),
            ("pgweir.wait_ms", "15"),
            ("db.response.returned_rows", "3"),
        ] {
            assert_eq!(value(batch, key).as_deref(), Some(expected), "{key}");
        }
        assert_eq!(batch.status, Status::Unset);
    }

    #[test]
    fn a_batch_that_no_server_was_asked_about_is_one_span_with_its_error() {
        let now = Instant::now();
        let refused = StatementSpan {
            wait: None,
            backend: None,
            route: None,
            parent: None,
            rows: None,
            kind: StatementName::default(),
            outcome: Outcome::Failed(Some(Sqlstate::QUERY_CANCELED)),
            ..answered(now)
        };
        let spans = convert(&refused, now);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].name, "app");
        assert_ne!(spans[0].span_context.trace_id(), TraceId::INVALID);
        assert_eq!(spans[0].parent_span_id, SpanId::INVALID);
        assert_eq!(
            value(&spans[0], "db.response.status_code").as_deref(),
            Some("57014")
        );
        assert_eq!(value(&spans[0], "pgweir.route"), None);
        assert!(matches!(spans[0].status, Status::Error { .. }));

        let failed = StatementSpan {
            outcome: Outcome::Failed(None),
            ..answered(now)
        };
        let spans = convert(&failed, now);
        assert_eq!(value(&spans[0], "error.type").as_deref(), Some("_OTHER"));
        assert!(
            spans
                .iter()
                .all(|span| matches!(span.status, Status::Error { .. }))
        );
    }
}
