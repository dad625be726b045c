//! `learned_routes`: shapes that a replica refused, and that go to the primary since.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, text};
use crate::facts::Wanted;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "learned_routes",
    about: "Statements that go to the primary because a replica refused them once.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: Wanted {
        learned: true,
        ..NOTHING
    },
    rows,
};

const COLUMNS: &[Column] = &[
    text("fingerprint", "That of the shape."),
    text(
        "statement",
        "The shape: the text with its literals taken out.",
    ),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let learned = scene.facts.learned.iter();
    learned
        .map(|one| {
            vec![
                format!("{:016x}", one.fingerprint).into(),
                (&one.shape).into(),
            ]
        })
        .collect()
}
