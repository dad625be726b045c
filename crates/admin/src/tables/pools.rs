//! `pools`: the server connections of one user to one database on one server.

use super::{
    Changes, Column, NOTHING, Row, Scene, Schema, Table, float8, int4, milliseconds, text,
};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "pools",
    about: "The pools: server connections of one user to one database on one server.",
    columns: COLUMNS,
    changes: Changes::None,
    needs: NOTHING,
    rows,
};

const COLUMNS: &[Column] = &[
    text("backend", "The server."),
    text("cluster", "Its cluster."),
    text("database", "The database as clients name it."),
    text("server_database", "Its real name on the server."),
    text("user", "The role that the connections logged in as."),
    int4("size", "How many connections there may be."),
    int4("open", "How many there are, those being opened included."),
    int4("active", "How many of them are in use."),
    int4("idle", "How many of them are idle."),
    int4("waiting", "Clients in line."),
    float8(
        "oldest_wait_ms",
        "How long the first of them has waited, in milliseconds.",
    ),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let facts = scene.facts;
    let pools = facts.pools.iter();
    pools
        .map(|pool| {
            vec![
                facts.node_name(pool.key.node).into(),
                facts.cluster_name(pool.key.node).into(),
                (&pool.database).into(),
                (&pool.key.database).into(),
                (&pool.key.user).into(),
                pool.limit.into(),
                pool.open.into(),
                pool.in_use().into(),
                pool.idle.into(),
                pool.waiting.into(),
                pool.oldest_wait.map(milliseconds).into(),
            ]
        })
        .collect()
}
