//! Just enough of PromQL to find the metrics that an expression names, and their labels.
//!
//! It is a scanner, not a parser: `promtool` and Prometheus say whether an expression is right; here it is only asked what it
//! is about.

use std::collections::BTreeSet;

/// What an expression is about.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Mentions {
    /// Metrics, each with the labels that its selector names.
    pub(crate) metrics: Vec<(String, Vec<String>)>,
    /// Labels of `by`, `on` and their like.
    pub(crate) groupings: BTreeSet<String>,
}

/// Words that take a list of labels.
const GROUPINGS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Words between expressions.
const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

/// Returns what an expression names.
pub(crate) fn mentions(expression: &str) -> Mentions {
    let mut found = Mentions::default();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || "_\"[".contains(c)) {
        rest = rest.split_at(start).1;
        if let Some(text) = rest.strip_prefix('"') {
            rest = text.split_once('"').map_or("", |(_, after)| after);
            continue;
        }
        if rest.starts_with('[') {
            rest = rest.split_once(']').map_or("", |(_, after)| after);
            continue;
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        rest = after;
        if GROUPINGS.contains(&word) {
            if let Some((labels, behind)) = after.strip_prefix('(').and_then(|l| l.split_once(')'))
            {
                let labels = labels.split(',').map(|label| label.trim().to_owned());
                found
                    .groupings
                    .extend(labels.filter(|label| !label.is_empty()));
                rest = behind;
            }
        } else if OPERATORS.contains(&word)
            || ["(", "by ", "by(", "without "]
                .iter()
                .any(|next| after.starts_with(next))
        {
            // A function, or what stands between two expressions.
        } else {
            let (labels, behind) = selector(after);
            found.metrics.push((word.to_owned(), labels));
            rest = behind;
        }
    }
    found
}

/// The labels between braces, and what follows them.
fn selector(text: &str) -> (Vec<String>, &str) {
    let Some(mut rest) = text.strip_prefix('{') else {
        return (Vec::new(), text);
    };
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',', '\n']);
        if let Some(behind) = rest.strip_prefix('}') {
            return (labels, behind);
        }
        let label = rest.split(['=', '!', '~']).next().unwrap_or("");
        labels.push(label.trim().to_owned());
        let value = rest.split_once('"').expect("a value is quoted").1;
        rest = value.split_once('"').expect("a value ends").1;
    }
}

#[test]
fn metrics_labels_and_groupings_are_found() {
    let found = mentions(
        "histogram_quantile(0.9, sum by (le, route) (rate(a_bucket{database=~\"$x\", route!=\"b\"}[5m]))) > on (c) d_total or vector(0)",
    );
    let metrics = [
        (
            "a_bucket".to_owned(),
            vec!["database".to_owned(), "route".to_owned()],
        ),
        ("d_total".to_owned(), vec![]),
    ];
    assert_eq!(found.metrics, metrics);
    let groupings: Vec<_> = found.groupings.iter().map(String::as_str).collect();
    assert_eq!(groupings, ["c", "le", "route"]);
}
