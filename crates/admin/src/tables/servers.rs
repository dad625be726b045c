//! `servers`: the server connections.

use super::{Changes, Column, Row, SESSIONS, Scene, Schema, Table, int4, int8, moment, text};
use crate::facts::ServerState;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "servers",
    about: "The server connections.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: SESSIONS,
    rows,
};

const COLUMNS: &[Column] = &[
    int8("process_id", "The process ID that the server gave it."),
    text("backend", "The server."),
    text("database", "The database's real name there."),
    text("user", "The role that it logged in as."),
    text("state", "`active` or `idle`."),
    int8("client", "The client that has it."),
    text("address", "The host and port that it is connected to."),
    moment("connected_at", "When it was opened."),
    moment("since", "When it was last given out or back."),
    int4("prepared_statements", "Prepared statements on it."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let servers = scene.facts.servers.iter();
    servers
        .map(|server| {
            let state = match server.state {
                ServerState::Active => "active",
                ServerState::Idle => "idle",
            };
            vec![
                server.process_id.into(),
                scene.facts.node_name(server.key.node).into(),
                (&server.key.database).into(),
                (&server.key.user).into(),
                state.into(),
                server.client.into(),
                (&server.address).into(),
                server.connected_at.into(),
                server.moved_at.into(),
                server.prepared_statements.into(),
            ]
        })
        .collect()
}
