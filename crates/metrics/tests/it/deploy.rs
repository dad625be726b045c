//! `docs/metrics.md` and the files below `deploy/` name what is exported, and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use pgweir_metrics::catalog::{self, CATALOG, Kind};
use serde_json::Value;

use crate::promql::mentions;

/// Labels that Prometheus adds.
const OUTSIDE: [&str; 2] = ["instance", "job"];

/// Metrics that Prometheus makes itself.
const OF_PROMETHEUS: [&str; 1] = ["up"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Asserts that an expression names metrics and labels that exist. Returns the metrics.
fn check(place: &str, expression: &str) -> Vec<String> {
    let found = mentions(expression);
    assert!(
        !found.metrics.is_empty(),
        "{place}: {expression} names no metric"
    );
    let mut known: Vec<&str> = OUTSIDE.to_vec();
    for (name, labels) in &found.metrics {
        if OF_PROMETHEUS.contains(&name.as_str()) {
            continue;
        }
        let metric = catalog::find(name);
        let metric = metric.unwrap_or_else(|| panic!("{place}: there is no metric {name}"));
        assert!(
            metric.kind != Kind::Histogram || metric.name != name,
            "{place}: {name} has no series of its own; name its _bucket, _sum or _count"
        );
        let mut own = metric.labels.to_vec();
        if name.ends_with("_bucket") {
            own.push("le");
        }
        for label in labels {
            let is_known = own.contains(&label.as_str()) || OUTSIDE.contains(&label.as_str());
            assert!(is_known, "{place}: {name} has no label {label}");
        }
        known.extend(own);
    }
    for label in &found.groupings {
        assert!(
            known.contains(&label.as_str()),
            "{place}: no metric of {expression} has a label {label}"
        );
    }
    found.metrics.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_page_of_metrics_is_current() {
    let path = root().join("docs/metrics.md");
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, catalog::markdown()).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == catalog::markdown(),
        "docs/metrics.md is not what the catalogue says: run with UPDATE_EXPECT=1"
    );
}

/// The expressions of the rules, which stand on one line or are indented below `expr: |`.
fn rules(text: &str) -> Vec<String> {
    let mut expressions = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim_start().strip_prefix("expr: ") else {
            continue;
        };
        if expression != "|" {
            expressions.push(expression.to_owned());
            continue;
        }
        let depth = line.len() - line.trim_start().len();
        let mut block = String::new();
        while let Some(line) = lines.next_if(|line| line.len() - line.trim_start().len() > depth) {
            block.push_str(line.trim());
            block.push(' ');
        }
        expressions.push(block);
    }
    expressions
}

#[test]
fn the_alerts_name_metrics_that_exist() {
    let text = read("deploy/prometheus-alerts.yml");
    let expressions = rules(&text);
    assert_eq!(expressions.len(), text.matches("- alert: ").count());
    for expression in &expressions {
        check("prometheus-alerts.yml", expression);
    }
}

/// Runs promtool, which `cargo xtask setup` installs, and asserts that it is content.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("promtool is missing: cargo xtask setup installs it");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn promtool_accepts_the_alerts_and_the_scrape() {
    promtool(&["check", "rules", "deploy/prometheus-alerts.yml"]);
    promtool(&["check", "config", "deploy/prometheus.yml"]);
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    promtool(&["test", "rules", "crates/metrics/tests/it/alerts.yml"]);
}

/// Every text below a key of this name.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|field| texts(field, key, found));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| texts(entry, key, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_names_metrics_and_labels_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana-dashboard.json")).unwrap();
    let (mut expressions, mut variables) = (Vec::new(), Vec::new());
    texts(&dashboard, "expr", &mut expressions);
    texts(&dashboard["templating"], "query", &mut variables);
    assert!(expressions.len() > 30, "{} expressions", expressions.len());
    let mut shown: Vec<String> = Vec::new();
    for expression in expressions {
        shown.extend(check("grafana-dashboard.json", expression));
    }
    let values = variables
        .iter()
        .filter_map(|query| query.strip_prefix("label_values("));
    let mut count = 0;
    for query in values {
        let (metric, label) = query.strip_suffix(')').unwrap().rsplit_once(',').unwrap();
        check(
            "grafana-dashboard.json",
            &format!("sum by ({}) ({metric})", label.trim()),
        );
        count += 1;
    }
    assert_eq!(count, 4, "variables of the dashboard");
    // What an operator looks for first.
    for metric in [
        catalog::QUERIES,
        catalog::BACKEND_UP,
        catalog::BACKEND_LAG,
        catalog::POOL_WAITING,
        catalog::OWN_ERRORS,
    ] {
        assert!(
            shown.iter().any(|name| name == metric.name),
            "{}",
            metric.name
        );
    }
}

#[test]
fn a_metric_that_does_not_exist_is_found() {
    for expression in [
        "pgweir_nonsense_total",
        "pgweir_queries_total{shape=\"x\"}",
        "sum by (user) (pgweir_queries_total)",
        "rate(pgweir_query_duration_seconds[5m])",
    ] {
        let found = std::panic::catch_unwind(|| check("here", expression));
        assert!(found.is_err(), "{expression}");
    }
    assert!(
        CATALOG
            .iter()
            .all(|metric| !metric.labels.contains(&"instance"))
    );
}
