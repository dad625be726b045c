//! `routes`: how often batches went where, and why.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, int8, text};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "routes",
    about: "Where batches went and why, counted since the start.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: NOTHING,
    rows,
};

const COLUMNS: &[Column] = &[
    text("database", "The database as clients name it."),
    text(
        "decision",
        "`primary`, `replica`, or `local`: the proxy itself.",
    ),
    text("reason", "Why."),
    int8("count", "How many."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let databases = scene.facts.counts.databases.iter();
    let routes = databases.flat_map(|(name, counts)| {
        let routes = counts.routes.iter();
        routes.map(move |((destination, reason), count)| {
            vec![
                name.into(),
                destination.name().into(),
                reason.name().into(),
                (*count).into(),
            ]
        })
    });
    routes.collect()
}
