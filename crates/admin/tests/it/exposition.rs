//! The facts as metrics: what is there, that promtool finds nothing wrong with it, and that it stays bounded.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pgweir_admin::{PoolFacts, exposition};
use pgweir_metrics::catalog::{CATALOG, Kind};
use pgweir_metrics::exposition::{Format, write};
use pgweir_metrics::{DatabaseCounts, Destination, HISTOGRAM_SERIES_LIMIT, SERIES_LIMIT};
use pgweir_model::{PoolKey, Reason};
use pgweir_testkit::Rng;

use crate::sample::{Sample, histogram, node_id};

fn busy() -> Sample {
    let mut sample = Sample::new(7);
    sample.step(3.0);
    sample.stop_replica(true);
    sample.step(1.0);
    sample
}

/// What promtool says of a text, and whether it is content. `cargo xtask setup` installs it.
fn promtool(text: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: cargo xtask setup installs it");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn promtool_finds_nothing_wrong_with_the_text() {
    let text = write(&exposition::families(&busy().facts), Format::Text);
    let (is_content, said) = promtool(&text);
    assert!(is_content && said.is_empty(), "{said}\n{text}");
    let (is_content, _) = promtool("# HELP a_total x\n# TYPE a_total gauge\na_total 1\n");
    assert!(!is_content, "promtool accepts anything");
}

#[test]
fn every_metric_of_the_catalogue_has_a_series() {
    let families = exposition::families(&busy().facts);
    let empty: Vec<_> = families
        .iter()
        .filter(|family| family.is_empty())
        .map(|family| family.metric().name)
        .collect();
    assert_eq!(empty, [] as [&str; 0]);
    assert_eq!(families.len(), CATALOG.len());
}

#[test]
fn numbers_are_those_of_the_facts() {
    let mut sample = busy();
    sample.facts.held_databases = vec![("app".into(), true, false)];
    let samples = exposition::samples(&sample.facts);
    let value = |name: &str, labels: &str| {
        let mut found = samples
            .iter()
            .filter(|(n, l, _)| n == name && l == labels)
            .map(|(_, _, value)| *value);
        let value = found.next();
        assert_eq!(found.next(), None, "{name} {labels} is there twice");
        value
    };
    let app = &sample.facts.counts.databases["app"];
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let reads = app.routes[&(Destination::Replica, Reason::Read)] as f64;
    let labels = "database=\"app\",route=\"replica\",reason=\"read\"";
    assert_eq!(value("pgweir_queries_total", labels), Some(reads));
    let pg3 = "cluster=\"main\",backend=\"pg3\"";
    assert_eq!(value("pgweir_backend_up", pg3), Some(0.0));
    assert_eq!(
        value("pgweir_backend_breaker", &format!("{pg3},state=\"open\"")),
        Some(1.0)
    );
    assert_eq!(value("pgweir_backend_weight", pg3), Some(50.0));
    assert_eq!(value("pgweir_backend_effective_weight", pg3), Some(0.0));
    assert_eq!(value("pgweir_backend_check_errors_total", pg3), Some(1.0));
    let pg1 = "cluster=\"main\",backend=\"pg1\"";
    assert_eq!(value("pgweir_backend_up", pg1), Some(1.0));
    assert_eq!(
        value("pgweir_backend_role", &format!("{pg1},role=\"primary\"")),
        Some(1.0)
    );
    assert_eq!(
        value("pgweir_cluster_has_primary", "cluster=\"main\""),
        Some(1.0)
    );
    assert_eq!(
        value("pgweir_database_paused", "database=\"app\""),
        Some(1.0)
    );
    assert_eq!(
        value("pgweir_database_paused", "database=\"reports\""),
        Some(0.0)
    );
    assert_eq!(value("pgweir_build_info", "version=\"0.1.0\""), Some(1.0));
    let pool = &sample.facts.pools[0];
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let in_use = (pool.open - pool.idle) as f64;
    let labels = format!("database=\"app\",user=\"app\",{pg1},state=\"in_use\"");
    assert_eq!(value("pgweir_pool_connections", &labels), Some(in_use));
}

/// A name as a client might think of it.
fn name(rng: &mut Rng) -> Arc<str> {
    let bytes = rng.bytes(12);
    let mut name = String::from_utf8_lossy(&bytes).into_owned();
    if rng.chance(1, 20) {
        name.push_str("\"} 1\n# TYPE evil gauge\n\\");
        name.push_str(&"long".repeat(500));
    }
    name.into()
}

/// Adds thousands of databases, users and errors.
fn flood(sample: &mut Sample, rng: &mut Rng) {
    for _ in 0..5_000 {
        let (database, user) = (name(rng), name(rng));
        let mut counts = DatabaseCounts::default();
        for reason in Reason::ALL.iter().take(5) {
            counts.routes.insert((Destination::Primary, *reason), 1);
        }
        counts.query.insert(Destination::Replica, histogram(300));
        let class = rng.bytes(2);
        counts.server_errors.insert([class[0], class[1]], 1);
        let state = rng.bytes(5);
        let state = [state[0], state[1], state[2], state[3], state[4]];
        counts.own_errors.insert(state, 1);
        let facts = &mut sample.facts;
        facts.counts.databases.insert(database.clone(), counts);
        facts.client_states.push((database.clone(), [1, 2, 3]));
        facts.held_databases.push((database.clone(), true, false));
        facts.pools.push(PoolFacts {
            key: PoolKey {
                node: node_id(rng.below(3)),
                database: database.clone(),
                user,
            },
            database,
            limit: 20,
            open: 3,
            idle: 1,
            waiting: 0,
            oldest_wait: Some(Duration::from_millis(5)),
        });
    }
}

#[test]
fn series_stay_bounded_whatever_names_clients_and_servers_think_of() {
    let mut sample = busy();
    flood(&mut sample, &mut Rng::from_env());
    let families = exposition::families(&sample.facts);
    // What is folded keeps its fixed labels: at most every route with every reason, or every server with every state.
    let folded = Destination::ALL.len() * Reason::ALL.len();
    for family in &families {
        let limit = match family.metric().kind {
            Kind::Histogram => HISTOGRAM_SERIES_LIMIT,
            Kind::Counter | Kind::Gauge | Kind::Info => SERIES_LIMIT,
        };
        let (name, count) = (family.metric().name, family.len());
        assert!(count <= limit + folded, "{name} has {count} series");
    }
    let text = write(&families, Format::Text);
    assert!(!text.contains("\n# TYPE evil"), "a name became a line");
    assert!(
        text.contains("pgweir_queries_total{database=\"app\",route=\"replica\",reason=\"read\"}")
    );
    assert!(text.contains("database=\"other\""));
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series)
        .collect();
    let distinct: BTreeSet<_> = lines.iter().collect();
    assert_eq!(distinct.len(), lines.len(), "a series is there twice");
    let total: u64 = sample
        .facts
        .counts
        .databases
        .values()
        .flat_map(|counts| counts.routes.values())
        .sum();
    let samples = exposition::samples(&sample.facts);
    let shown: f64 = samples
        .iter()
        .filter(|(name, ..)| name == "pgweir_queries_total")
        .map(|(.., value)| value)
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let total = total as f64;
    assert!(
        (shown - total).abs() < 0.5,
        "folding lost {}",
        total - shown
    );
    let (is_content, said) = promtool(&text);
    assert!(is_content, "{said}");
}
