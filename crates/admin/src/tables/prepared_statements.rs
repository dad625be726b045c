//! `prepared_statements`: what the workers keep prepared for their clients.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, int4, text};
use crate::facts::Wanted;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "prepared_statements",
    about: "Prepared statements that the workers keep, each worker for itself.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: Wanted {
        prepared: true,
        ..NOTHING
    },
    rows,
};

const COLUMNS: &[Column] = &[
    text("name", "Its name on the servers."),
    text("statement", "Its text."),
    int4("clients", "Clients that have it."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let prepared = scene.facts.prepared.iter();
    prepared
        .map(|one| vec![(&one.name).into(), (&one.text).into(), one.clients.into()])
        .collect()
}
