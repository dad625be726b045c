//! The decision cases as far as text alone decides them: before a catalog is loaded, this is all that the router has.
//!
//! The files are played on real clusters, too; the format and what the marks mean stand in `tests/cases.rs` of the
//! repository. What the text alone says stands behind an `@` where it is another reason than with the catalog.

use pgweir_model::Reason;
use pgweir_sql::classify;

const FILES: &[(&str, &str)] = &[
    (
        "documentation.txt",
        include_str!("../cases/documentation.txt"),
    ),
    ("orms.txt", include_str!("../cases/orms.txt")),
    ("peers.txt", include_str!("../cases/peers.txt")),
];

fn decision_of(reason: Reason) -> &'static str {
    match reason {
        Reason::Read | Reason::ReadByTokens | Reason::ReadOnlyTransaction => "replica",
        Reason::Local => "local",
        _ => "primary",
    }
}

/// Returns what is wrong with the classification of a line, if anything is.
fn judge(line: &str) -> Option<String> {
    let mut fields = line.splitn(3, " | ");
    let (Some(marks), Some(reasons), Some(sql)) = (fields.next(), fields.next(), fields.next())
    else {
        return Some(format!("not of the form decision | reason | SQL: {line}"));
    };
    let decision = marks.split(' ').next().unwrap_or_default();
    let got = classify(sql.replace("\\n", "\n").as_bytes()).reason;
    let (with_catalog, alone) = match reasons.split_once(" @") {
        Some((with_catalog, alone)) => (with_catalog, Some(alone)),
        None => (reasons, None),
    };
    let is_right = match alone {
        Some(alone) => got.name() == alone,
        None if decision == "either" => true,
        None => decision_of(got) == decision && (with_catalog == "-" || with_catalog == got.name()),
    };
    // An `@` that says nothing else would hide that the catalog is not needed.
    let is_needed = alone.is_none_or(|alone| {
        let alone_decides = Reason::ALL
            .iter()
            .find(|reason| reason.name() == alone)
            .map(|reason| decision_of(*reason));
        alone != with_catalog && (with_catalog != "-" || alone_decides != Some(decision))
    });
    (!is_right || !is_needed).then(|| format!("{got}, not {decision} ({reasons}): {sql}"))
}

#[test]
fn what_text_alone_decides_is_decided_as_the_files_say() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (file, text) in FILES {
        for line in text.lines() {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            seen += 1;
            wrong.extend(judge(line).map(|what| format!("{file}: {what}")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(seen >= 500, "only {seen} cases");
}
