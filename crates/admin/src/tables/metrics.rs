//! `metrics`: every exported metric as rows, the same samples as `/metrics` has.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, float8, text};
use crate::exposition;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "metrics",
    about: "Every exported metric as rows.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: NOTHING,
    rows,
};

const COLUMNS: &[Column] = &[
    text("name", "The metric."),
    text(
        "labels",
        "Its labels as `/metrics` writes them: `key=\"value\"`, separated by commas.",
    ),
    float8("value", "Its value."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    exposition::samples(scene.facts)
        .into_iter()
        .map(|(name, labels, value)| vec![name.into(), labels.into(), value.into()])
        .collect()
}
