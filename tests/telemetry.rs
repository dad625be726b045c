//! OpenTelemetry: spans of batches reach a collector, continue the caller's trace, and hold nobody up where it is away.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    trace::v1::span::SpanKind,
};
use pgweir_testkit::{eventually, patience};
use pgweir_wire::frontend;
use prost::Message as _;

use crate::support::{Proxy, cluster, config, ok, prepare, run_named, wait_for_replicas};

/// A span as the collector was sent it.
#[derive(Debug, Clone)]
struct Seen {
    service: String,
    name: String,
    kind: SpanKind,
    trace_id: String,
    span_id: String,
    parent_id: String,
    nanos: (u64, u64),
    attributes: BTreeMap<String, String>,
}

impl Seen {
    fn of(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// A collector: takes OTLP over HTTP, and keeps what it is sent.
struct Collector {
    endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let kept = Arc::clone(&seen);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || serve(stream, &kept));
            }
        });
        Collector { endpoint, seen }
    }

    /// Returns all spans of a kind whose shape holds `mark`.
    fn seen(&self, kind: SpanKind, mark: &str) -> Vec<Seen> {
        let seen = self.seen.lock().expect("no panic");
        let is_meant = |span: &&Seen| span.kind == kind && span.of("db.query.text").contains(mark);
        seen.iter().filter(is_meant).cloned().collect()
    }

    /// Waits for the one span of a batch whose shape holds `mark`.
    fn batch(&self, mark: &str) -> Seen {
        eventually!(!self.seen(SpanKind::Server, mark).is_empty());
        let mut found = self.seen(SpanKind::Server, mark);
        assert_eq!(found.len(), 1, "{mark}: {found:?}");
        found.remove(0)
    }
}

/// Takes requests until the connection ends.
fn serve(stream: TcpStream, kept: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    while let Some(body) = request(&mut reader) {
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("protobuf");
        kept.lock().expect("no panic").extend(spans(request));
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        let mut stream = &stream;
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&answer));
        if sent.is_err() {
            return;
        }
    }
}

/// Reads one request; returns its body.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = None;
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
        lines.push(line);
    }
    assert_eq!(
        lines.first().map(String::as_str),
        Some("post /v1/traces http/1.1")
    );
    assert!(
        lines
            .iter()
            .any(|line| line == "content-type: application/x-protobuf"),
        "{lines:?}"
    );
    let mut body = vec![0; length?];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut list = Vec::new();
    for resource in request.resource_spans {
        let of_resource = attributes(resource.resource.unwrap_or_default().attributes);
        for span in resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            list.push(Seen {
                service: of_resource.get("service.name").cloned().unwrap_or_default(),
                kind: span.kind(),
                name: span.name,
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                nanos: (span.start_time_unix_nano, span.end_time_unix_nano),
                attributes: attributes(span.attributes),
            });
        }
    }
    list
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |kv: KeyValue| {
        let value = kv.value.and_then(|value| value.value);
        (kv.key, value.map(text).unwrap_or_default())
    };
    list.into_iter().map(value).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traced(endpoint: &str, more: &str) -> Proxy {
    let telemetry =
        format!("\n[telemetry]\nendpoint = \"{endpoint}\"\nservice_name = \"shop\"\n{more}");
    Proxy::start_ready(&(config(cluster()) + &telemetry))
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[test]
fn a_batch_has_a_span_that_says_where_it_went_and_shows_no_value() {
    let collector = Collector::start();
    let proxy = traced(&collector.endpoint, "");
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    ok(&mut client, "SELECT 'sesame' AS plainly, pg_sleep(0.02)");
    ok(&mut client, "CREATE TABLE spanned (a text)");
    ok(&mut client, "INSERT INTO spanned VALUES ('sesame')");
    prepare(&mut client, "s", "SELECT 'sesame' AS bound");
    assert_eq!(run_named(&mut client, "s").error(), None);
    ok(&mut client, "DROP TABLE spanned");

    let read = collector.batch("plainly");
    assert_eq!((&*read.service, &*read.name), ("shop", "SELECT app"));
    assert_eq!(
        (read.of("pgweir.route"), read.of("pgweir.reason")),
        ("replica", "read")
    );
    assert!(read.of("pgweir.backend").starts_with("replica"), "{read:?}");
    assert_eq!(
        (read.of("db.system.name"), read.of("db.namespace")),
        ("postgresql", "app")
    );
    assert_eq!(read.of("db.operation.name"), "SELECT");
    assert!(read.nanos.1 - read.nanos.0 >= 20_000_000, "{read:?}");
    assert_eq!(read.parent_id, "");
    let replicas = [0, 1].map(|index| cluster().replica(index).port().to_string());
    assert!(
        replicas.contains(&read.of("server.port").to_owned()),
        "{read:?}"
    );

    let write = collector.batch("insert into spanned");
    assert_eq!(
        (&*write.name, write.of("db.collection.name")),
        ("INSERT spanned", "spanned")
    );
    assert_eq!(
        (write.of("pgweir.route"), write.of("pgweir.reason")),
        ("primary", "write")
    );
    assert_ne!(write.trace_id, read.trace_id);

    // Prepared once, run once; each is a batch, and within each there is the time at the server.
    eventually!(collector.seen(SpanKind::Server, "bound").len() == 2);
    let all = collector.seen.lock().expect("no panic").clone();
    for batch in all.iter().filter(|span| span.kind == SpanKind::Server) {
        let within = all.iter().find(|span| span.parent_id == batch.span_id);
        let within = within.unwrap_or_else(|| panic!("nothing at the server: {batch:?}"));
        assert_eq!(
            (&within.trace_id, within.kind),
            (&batch.trace_id, SpanKind::Client)
        );
        assert!(within.nanos.0 >= batch.nanos.0 && within.nanos.1 <= batch.nanos.1);
    }
    assert!(!format!("{all:?}").contains("sesame"));
}

#[test]
fn the_callers_trace_goes_on_and_its_flag_decides() {
    let collector = Collector::start();
    // Of what says nothing hardly anything is traced.
    let proxy = traced(&collector.endpoint, "sample_one_in = 1000000\n");
    let mut client = proxy.client();
    let parent =
        |flags: &str| format!("/*action='list',traceparent='00-{TRACE}-{CALLER}-{flags}'*/");
    ok(
        &mut client,
        &format!("SELECT 1 AS unwanted {}", parent("00")),
    );
    ok(&mut client, "SELECT 1 AS silent");
    ok(&mut client, &format!("SELECT 1 AS simple {}", parent("01")));
    let answer = client
        .execute(
            &format!("{} SELECT $1::text AS extended", parent("01")),
            &[Some("x")],
        )
        .expect("an answer");
    assert_eq!(answer.error(), None);
    // What was prepared with it brings it when it is run.
    prepare(
        &mut client,
        "s",
        &format!("SELECT 1 AS named {}", parent("01")),
    );
    run_named(&mut client, "s");

    for mark in ["simple", "extended"] {
        let span = collector.batch(mark);
        assert_eq!(
            (&*span.trace_id, &*span.parent_id),
            (TRACE, CALLER),
            "{span:?}"
        );
        let inner = collector.seen.lock().expect("no panic").clone();
        let inner = inner.iter().find(|other| other.parent_id == span.span_id);
        assert_eq!(inner.map(|inner| &*inner.trace_id), Some(TRACE));
    }
    eventually!(collector.seen(SpanKind::Server, "named").len() == 2);
    for span in collector.seen(SpanKind::Server, "named") {
        assert_eq!(
            (&*span.trace_id, &*span.parent_id),
            (TRACE, CALLER),
            "{span:?}"
        );
    }
    for mark in ["unwanted", "silent"] {
        assert_eq!(collector.seen(SpanKind::Server, mark).len(), 0, "{mark}");
    }
}

#[test]
fn each_batch_of_a_transaction_and_of_a_pipeline_has_its_span() {
    let collector = Collector::start();
    let proxy = traced(&collector.endpoint, "");
    let mut client = proxy.client();
    for sql in [
        "BEGIN",
        "SELECT 1 AS inside",
        "CREATE TEMP TABLE inner_one (a int)",
        "COMMIT",
    ] {
        ok(&mut client, sql);
    }
    let mut batches = Vec::new();
    for sql in [
        "INSERT INTO inner_one VALUES (1)",
        "SELECT a AS piped FROM inner_one",
        "DISCARD ALL",
    ] {
        frontend::Query {
            sql: sql.as_bytes(),
        }
        .encode(&mut batches);
    }
    client.send(&batches).expect("sent");
    for _ in 0..3 {
        assert_eq!(client.until_ready().expect("an answer").error(), None);
    }
    collector.batch("discard all");
    collector.batch("inside");
    let moved = collector.batch("create temp table inner_one");
    assert_eq!(moved.of("pgweir.route"), "primary", "{moved:?}");
    let inserted = collector.batch("insert into inner_one");
    let piped = collector.batch("piped");
    assert!(piped.nanos.0 >= inserted.nanos.0, "{inserted:?} {piped:?}");
    let committed = collector.seen(SpanKind::Server, "commit");
    assert!(
        committed.iter().any(|span| span.name == "COMMIT app"),
        "{committed:?}"
    );
}

#[test]
fn what_waits_is_exported_when_the_proxy_ends() {
    let collector = Collector::start();
    let mut proxy = traced(&collector.endpoint, "");
    ok(&mut proxy.client(), "SELECT 1 AS parting");
    proxy.signal("TERM");
    assert!(proxy.wait(patience::PATIENCE).success());
    assert_eq!(collector.seen(SpanKind::Server, "parting").len(), 1);
}

#[test]
fn a_batch_that_fails_for_want_of_a_connection_has_a_span_with_the_error() {
    let collector = Collector::start();
    let config = config(cluster()).replace(
        "causal_wait = \"5s\"",
        "causal_wait = \"5s\"\npool_size = 1\nsplitting = \"off\"",
    ) + &format!(
        "\n[server]\nquery_wait_timeout = \"50ms\"\n[telemetry]\nendpoint = \"{}\"\n",
        collector.endpoint
    );
    let proxy = Proxy::start_ready(&config);
    let mut holder = proxy.client();
    ok(&mut holder, "BEGIN; SELECT 1");
    let mut client = proxy.client();
    let refused = client.query("SELECT 1 AS waiting").expect("an answer");
    assert_eq!(
        refused
            .error()
            .and_then(|error| error.sqlstate())
            .as_deref(),
        Some("57014")
    );
    let span = collector.batch("waiting");
    assert_eq!(span.of("db.response.status_code"), "57014", "{span:?}");
    assert!(span.nanos.1 - span.nanos.0 >= 50_000_000, "{span:?}");
    assert_eq!(span.of("server.address"), "");
}

#[test]
fn a_collector_that_is_away_holds_nobody_up_and_what_is_lost_is_counted() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let mut proxy = traced(&format!("http://{}", gone.expect("a free port")), "");
    let mut client = proxy.client();
    for _ in 0..20 {
        ok(&mut client, "SELECT 1");
    }
    eventually!(proxy.log().contains("the collector does not take spans"));
    let failed =
        "SELECT value FROM metrics WHERE name = 'pgweir_spans_total' AND labels LIKE '%failed%'";
    let mut console = proxy.console();
    // Those with which the test waited for its servers are among them.
    eventually!({
        let value = ok(&mut console, failed).value();
        value.is_some_and(|count| count.parse::<f64>().is_ok_and(|count| count >= 20.0))
    });
    ok(&mut client, "SELECT 1");
    proxy.signal("TERM");
    assert!(proxy.wait(patience::PATIENCE).success());
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("spans were lost"));
    let line = line.unwrap_or_else(|| panic!("nothing is said of it:\n{log}"));
    assert!(lost(line, "failed=") >= 21, "{line}");
}

#[test]
fn a_collector_that_does_not_answer_holds_nobody_up_and_the_queue_stays_bounded() {
    // It accepts connections, since the kernel does, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut proxy = traced(
        &format!("http://{}", silent.local_addr().expect("bound")),
        "",
    );
    let mut client = proxy.client();
    // Far more than the queue holds, sooner than an export gives up.
    let mut batches = Vec::new();
    for _ in 0..250 {
        frontend::Query { sql: b"SELECT 1" }.encode(&mut batches);
    }
    eventually!({
        client.send(&batches).expect("sent");
        (0..250).all(|_| {
            client
                .until_ready()
                .is_ok_and(|answer| answer.error().is_none())
        }) && proxy.log().contains("spans were dropped")
    });
    drop(client);
    proxy.signal("TERM");
    assert!(proxy.wait(patience::PATIENCE).success());
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("spans were lost"));
    let line = line.unwrap_or_else(|| panic!("nothing is said of it:\n{log}"));
    assert!(lost(line, "dropped=") > 0, "{line}");
}

/// Returns the number behind a key of a line of the log.
fn lost(line: &str, key: &str) -> u64 {
    let (_, rest) = line
        .split_once(key)
        .unwrap_or_else(|| panic!("no {key} in {line}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn how_many_are_traced_is_changed_on_the_console() {
    let collector = Collector::start();
    let proxy = traced(&collector.endpoint, "");
    let mut client = proxy.client();
    ok(&mut client, "SELECT 1 AS drawn_before");
    collector.batch("drawn_before");
    let change = "UPDATE settings SET value = '1000000' WHERE name = 'sample_one_in'";
    ok(&mut proxy.console(), change);
    // One in a million at most.
    (0..200).for_each(|_| drop(ok(&mut client, "SELECT 1 AS drawn_after")));
    // What the caller has decided to trace still is, and comes behind those.
    let followed = "SELECT 1 AS followed /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/";
    ok(&mut client, followed);
    collector.batch("followed");
    let drawn = collector.seen(SpanKind::Server, "drawn_after");
    assert!(drawn.len() <= 1, "{drawn:?}");
}
