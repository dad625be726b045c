//! The routing cases of the specification, as far as text alone decides them.

use pgweir_model::Reason;
use pgweir_sql::{HintRoute, classify};

/// Cases that need the catalog, with what is said without it: always on the safe side where a function may write, and a read
/// where a replica would refuse loudly. With the catalog, `crates/cluster/tests/it/catalog.rs` holds them against what the
/// file says.
const NEEDS_CATALOG: &[(&str, Reason)] = &[
    (
        "SELECT add_tax(10), user_total(1), lower('X'), now(), random(), gen_random_uuid(), clock_timestamp()",
        Reason::VolatileFunction,
    ),
    ("SELECT * FROM audited_users", Reason::Read),
    ("SELECT * FROM audited_users2", Reason::Read),
    ("SELECT * FROM scratch", Reason::Read),
];

fn needs_catalog(sql: &str) -> Option<Reason> {
    NEEDS_CATALOG
        .iter()
        .find(|case| case.0 == sql)
        .map(|case| case.1)
}

#[test]
fn every_case_of_the_specification_is_decided_as_it_says() {
    let mut seen = 0;
    for line in include_str!("../cases/routing.txt").lines() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let mut fields = line.splitn(3, " | ");
        let (decision, reason, sql) = (
            fields.next().unwrap(),
            fields.next().unwrap(),
            fields.next().unwrap(),
        );
        seen += 1;
        let classified = classify(sql.as_bytes());
        if let Some(now) = needs_catalog(sql) {
            assert_eq!(classified.reason, now, "{sql}");
            assert_ne!(reason, now.name(), "the catalog is no longer needed: {sql}");
            continue;
        }
        let got = match classified.hint.and_then(|hint| hint.route) {
            Some(HintRoute::Replica) => "replica",
            Some(HintRoute::Primary) => "primary",
            _ if classified.reason == Reason::Local => "local",
            _ if matches!(classified.reason, Reason::Read | Reason::ReadByTokens) => "replica",
            _ => "primary",
        };
        assert!(
            got == decision || decision == "either",
            "{got}, not {decision}: {sql} ({})",
            classified.reason
        );
        let fixed = reason != "-" && reason != "hint";
        assert!(
            !fixed || reason == classified.reason.name(),
            "{}, not {reason}: {sql}",
            classified.reason
        );
    }
    assert!(seen > 100, "only {seen} cases");
}
