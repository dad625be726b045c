//! `clients`: who is connected and what it does.

use super::{
    Changes, Column, Row, SESSIONS, Scene, Schema, Table, boolean, float8, int4, int8,
    milliseconds, moment, text,
};
use crate::facts::{ClientFacts, Facts};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "clients",
    about: "The clients; `KILL` and `CANCEL` take their id.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: SESSIONS,
    rows,
};

const COLUMNS: &[Column] = &[
    int8("id", "The process ID that it was given."),
    text("user", "Its role."),
    text("database", "The database as it named it."),
    text("application", "Its `application_name` at login."),
    text("address", "Where it connects from."),
    text("local_address", "The address that it connected to."),
    boolean("tls", "Whether the connection is encrypted."),
    text("state", "`active`, `waiting` or `idle`."),
    boolean("in_transaction", "Its transaction is open."),
    text(
        "pinned",
        "Why it stays on its server connection; NULL where nothing keeps it.",
    ),
    text("backend", "The server that works for it."),
    text("role", "The role of that server."),
    int8(
        "server_process_id",
        "The process ID of the server connection there.",
    ),
    text("last_reason", "Why its last batch went where it went."),
    float8(
        "wait_ms",
        "How long its batch has waited, or waited last, in milliseconds.",
    ),
    text("query", "The shape of what it runs, or ran last."),
    moment("connected_at", "When it logged in."),
    moment(
        "since",
        "When it last asked for something, or was answered.",
    ),
    int8("bytes", "Bytes that it sent and was sent."),
    int8("received_bytes", "Bytes that it sent."),
    int8("sent_bytes", "Bytes that were sent to it."),
    int4("prepared_statements", "Prepared statements that it has."),
];

/// Returns the names of what pins a client; `None` where nothing does.
pub(super) fn pinned(client: &ClientFacts) -> Option<String> {
    let names: Vec<_> = client.pins.iter().map(|pin| pin.name()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let clients = scene.facts.clients.iter();
    clients.map(|client| row(scene.facts, client)).collect()
}

fn row(facts: &Facts, client: &ClientFacts) -> Row {
    let bytes = client.received_bytes.saturating_add(client.sent_bytes);
    vec![
        client.id.into(),
        (&client.user).into(),
        (&client.database).into(),
        (&client.application).into(),
        (&client.address).into(),
        (&client.local_address).into(),
        client.is_tls.into(),
        client.state.name().into(),
        client.in_transaction.into(),
        pinned(client).into(),
        client.node.map(|node| facts.node_name(node)).into(),
        client.role.map(|role| role.to_string()).into(),
        client.server_process_id.into(),
        client.last_route.map(|(_, reason)| reason.name()).into(),
        milliseconds(client.wait).into(),
        client.query.as_ref().into(),
        client.connected_at.into(),
        client.moved_at.into(),
        bytes.into(),
        client.received_bytes.into(),
        client.sent_bytes.into(),
        client.prepared_statements.into(),
    ]
}
