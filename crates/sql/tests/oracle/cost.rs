//! Texts that a reading with a loop in a loop would choke on: the cost of a classification grows with its text alone.

use std::time::{Duration, Instant};

use pgweir_model::PinReason;
use pgweir_sql::classify;

/// Far above what a reading in one pass takes in a debug build (below half a second), far below what one of a quadratic cost
/// takes (minutes).
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// A text of at least that many bytes: `open`, `inner`, `close`, with as many of the outer two as it takes.
fn nested(open: &str, inner: &str, close: &str, bytes: usize) -> String {
    let levels = bytes / (open.len() + close.len()) + 1;
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

fn assert_in_time(text: &str) {
    let started = (processor_time(), Instant::now());
    classify(text.as_bytes());
    let took = match (started.0, processor_time()) {
        (Some(before), Some(after)) => after - before,
        _ => started.1.elapsed(),
    };
    let start: String = text.chars().take(60).collect();
    assert!(took < TIME_LIMIT, "{took:?} for {start}");
}

/// The time that this thread has run, where the system tells: other processes must not fail the test.
fn processor_time() -> Option<Duration> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = statistics.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

const MIB: usize = 1 << 20;

#[test]
fn a_mebibyte_of_nested_calls_is_read_in_one_pass() {
    for (open, close) in [
        ("set_config('a', ", ", true)"),
        ("set_config(", ")"),
        ("lower(", ")"),
        ("f_user(1, ", ")"),
        ("(", ")"),
        ("ARRAY[", "]"),
        ("a[", "]"),
        ("EXISTS (SELECT ", ")"),
        ("(WITH RECURSIVE a AS (SELECT 1) SELECT ", ")"),
        ("(SELECT 1 FROM t, ", ")"),
        ("CAST(", " AS int)"),
        ("1 OPERATOR(pg_catalog.+) (", ")"),
    ] {
        assert_in_time(&format!("SELECT {}", nested(open, "1", close, MIB)));
        // And where they are never closed.
        assert_in_time(&format!("SELECT {}", open.repeat(MIB / open.len())));
    }
}

#[test]
fn twenty_five_thousand_parentheses_are_read_in_one_pass() {
    let (open, close) = ("(".repeat(25_000), ")".repeat(25_000));
    assert_in_time(&format!("SELECT {open}1{close}"));
    assert_in_time(&format!("{open}SELECT 1{close}"));
    assert_in_time(&format!("SELECT * FROM {open}t{close}"));
    assert_in_time(&format!("EXPLAIN {open}SELECT 1{close}"));
    assert_in_time(&format!("COPY {open}SELECT 1{close} TO STDOUT"));
    assert_in_time(&format!("INSERT INTO t {open}SELECT 1{close}"));
}

#[test]
fn a_quarter_mebibyte_of_anything_is_read_in_one_pass() {
    for piece in [
        "+-",
        "*+-",
        "+/**/",
        "-+/*a*/",
        "+ -",
        "@-",
        "a.",
        "\"a\".",
        "a.b, ",
        "$a$ $b$ ",
        "$a",
        "1.",
        "e'a' ",
        "'a''",
        "\"a\"\"",
        "/* /* */",
        "/*",
        "--\n",
        "a AS ",
        "AS ",
        "WITH ",
        "WITH a AS (",
        "a, ",
        ", a AS (SELECT 1)",
        "JOIN ",
        "JOIN (",
        "FROM t, ",
        "UPDATE ",
        "INTO ",
        "CASE ",
        ";",
        "SELECT 1;",
        "::int",
        "::a.b",
        "INTERVAL ",
        "NOT ",
        "OPERATOR(",
        "GROUPING SETS (",
        "JSON_OBJECT(",
        "\u{e9}",
        "set_config(",
        "(a, b) AS ",
    ] {
        let text = piece.repeat(MIB / 4 / piece.len());
        assert_in_time(&text);
        assert_in_time(&format!("SELECT {text}"));
        assert_in_time(&format!("SELECT * FROM {text}"));
        assert_in_time(&format!("WITH {text}"));
    }
}

#[test]
fn each_of_nested_set_configs_counts() {
    let setting = |text: &str| {
        classify(text.as_bytes())
            .effects
            .pins
            .contains(PinReason::Setting)
    };
    assert!(!setting(
        "SELECT set_config('a', set_config('b', 'c', true), true)"
    ));
    assert!(setting(
        "SELECT set_config('a', set_config('b', 'c', false), true)"
    ));
    assert!(setting(
        "SELECT set_config('a', set_config('b', 'c', true), false)"
    ));
    assert!(setting(
        "SELECT set_config('a', (SELECT 'b', true), true, true)"
    ));
    assert!(setting("SELECT set_config('a', 'b', true"));
    assert!(!setting("SELECT set_config('a', concat('b', 'c'), true)"));
    assert!(setting("SELECT set_config('a', 'b', true OR false)"));
}
