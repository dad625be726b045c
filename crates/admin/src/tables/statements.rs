//! `statements`: what was run, by shape.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, float8, int8, text, us_to_ms};
use crate::facts::Wanted;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "statements",
    about: "Statements by shape; `RESET STATEMENTS` empties it.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: Wanted {
        statements: true,
        ..NOTHING
    },
    rows,
};

const COLUMNS: &[Column] = &[
    text(
        "fingerprint",
        "That of the shape, as `EXPLAIN ROUTE` prints it.",
    ),
    text("database", "The database as clients name it."),
    text(
        "statement",
        "The shape: the text with its literals taken out.",
    ),
    int8("calls", "Times that it was answered."),
    int8("errors", "Times that it ended in an error."),
    int8("rows", "Rows returned or changed."),
    float8("total_ms", "Time on servers, in milliseconds."),
    float8("mean_ms", "Its mean."),
    float8("p99_ms", "What 99 of 100 calls took at most."),
    int8("primary_calls", "Times that the primary answered it."),
    int8("replica_calls", "Times that a replica did."),
    int8("cache_calls", "Times that the cache did."),
    text("last_reason", "Why it went last where it went."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let statements = scene.facts.statements.iter();
    statements
        .map(|(key, statement)| {
            let p99 = statement.query.quantile_us(0.99);
            vec![
                format!("{:016x}", key.fingerprint).into(),
                (&key.database).into(),
                (&statement.shape).into(),
                statement.calls.into(),
                statement.errors.into(),
                statement.rows.into(),
                us_to_ms(statement.query.sum_us()).into(),
                us_to_ms(statement.query.mean_us()).into(),
                p99.map(|us| us / 1000.0).into(),
                statement.on_primary.into(),
                statement.on_replica.into(),
                statement.from_cache.into(),
                statement.last_reason.map(|reason| reason.name()).into(),
            ]
        })
        .collect()
}
