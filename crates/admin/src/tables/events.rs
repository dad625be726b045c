//! `events`: what has happened, oldest first.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, int8, moment, text};
use crate::facts::Wanted;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "events",
    about: "What has happened: the last 10,000.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: Wanted {
        events: true,
        ..NOTHING
    },
    rows,
};

const COLUMNS: &[Column] = &[
    int8("id", "Rises by one with each."),
    moment("at", "When."),
    text(
        "kind",
        "`server`, `primary`, `config`, `console` or `process`.",
    ),
    text(
        "subject",
        "The cluster, server, database or setting that it is about.",
    ),
    text("message", "What, in words."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let events = scene.facts.events.iter();
    events
        .map(|event| {
            vec![
                event.id.into(),
                event.at.into(),
                event.kind.name().into(),
                (&event.subject).into(),
                (&event.message).into(),
            ]
        })
        .collect()
}
