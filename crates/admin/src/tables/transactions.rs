//! `transactions`: the clients whose transaction is open.

use super::clients::pinned;
use super::{
    Changes, Column, Row, SESSIONS, Scene, Schema, Table, float8, int8, milliseconds, moment, text,
};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "transactions",
    about: "The transactions that are open.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: SESSIONS,
    rows,
};

const COLUMNS: &[Column] = &[
    int8("client", "The client, by its id."),
    text("user", "Its role."),
    text("database", "Its database."),
    text("state", "`active`, `waiting` or `idle`."),
    text(
        "backend",
        "The server that it runs on; NULL before its first statement.",
    ),
    text("role", "The role of that server."),
    moment("since", "When it began."),
    float8("age_ms", "How long it has been open, in milliseconds."),
    text(
        "pinned",
        "What keeps it on its server connection beyond its end.",
    ),
    text("query", "The shape of what it runs, or ran last."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let open = scene
        .facts
        .clients
        .iter()
        .filter(|client| client.in_transaction);
    open.map(|client| {
        let age = client
            .transaction_since
            .and_then(|since| scene.facts.taken_at.duration_since(since).ok());
        vec![
            client.id.into(),
            (&client.user).into(),
            (&client.database).into(),
            client.state.name().into(),
            client.node.map(|node| scene.facts.node_name(node)).into(),
            client.role.map(|role| role.to_string()).into(),
            client.transaction_since.into(),
            age.map(milliseconds).into(),
            pinned(client).into(),
            client.query.as_ref().into(),
        ]
    })
    .collect()
}
