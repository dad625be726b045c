//! `pins`: what keeps clients on their server connections.

use super::{Changes, Column, Row, SESSIONS, Scene, Schema, Table, int8, text};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "pins",
    about: "What keeps clients on their server connections: a row for each client and reason.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: SESSIONS,
    rows,
};

const COLUMNS: &[Column] = &[
    int8("client", "The client, by its id."),
    text("user", "Its role."),
    text("database", "Its database."),
    text("reason", "What keeps it."),
    text("backend", "The server that it stays on."),
    int8(
        "server_process_id",
        "The process ID of the connection there.",
    ),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let clients = scene.facts.clients.iter();
    let pins = clients.flat_map(|client| {
        let pins = client.pins.iter();
        pins.map(move |pin| {
            vec![
                client.id.into(),
                (&client.user).into(),
                (&client.database).into(),
                pin.name().into(),
                client.node.map(|node| scene.facts.node_name(node)).into(),
                client.server_process_id.into(),
            ]
        })
    });
    pins.collect()
}
