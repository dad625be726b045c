//! `users`: who may log in, what they may do here, and what they use. Never a password.

use pgweir_config::{Secret, User};

use super::{Changes, Column, Row, SESSIONS, Scene, Schema, Table, int4, text};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "users",
    about: "The logins that clients may use. A password can be set and is never shown.",
    columns: COLUMNS,
    changes: Changes::All,
    needs: SESSIONS,
    rows,
};

/// What stands for a password that there is.
const HIDDEN: &str = "***";

const COLUMNS: &[Column] = &[
    text("name", "Role name."),
    text(
        "password",
        "`***` where there is one. To set: clear text, or a verifier.",
    )
    .changeable(),
    text("server_user", "The role on the servers, if another.").changeable(),
    text(
        "server_password",
        "`***` where there is one for the servers alone.",
    )
    .changeable(),
    text(
        "console",
        "`admin` or `viewer` where it may log in to the console.",
    ),
    int4("clients", "Its clients."),
    int4("connections", "Server connections open for it."),
    int4("waiting", "Its clients in line for a connection."),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let users = scene.facts.config.users.iter();
    users.map(|user| row(scene, user)).collect()
}

fn row(scene: &Scene<'_>, user: &User) -> Row {
    let facts = scene.facts;
    let admin = &facts.config.admin;
    let console = if admin.users.contains(&user.name) {
        Some("admin")
    } else {
        admin.viewers.contains(&user.name).then_some("viewer")
    };
    let pools = || {
        facts
            .pools
            .iter()
            .filter(|pool| pool.key.user == *user.login())
    };
    let hidden = |secret: &Option<Secret>| secret.as_ref().map(|_| HIDDEN);
    let clients = facts
        .clients
        .iter()
        .filter(|client| client.user == user.name);
    vec![
        (&user.name).into(),
        hidden(&user.password).into(),
        user.server_user.as_ref().into(),
        hidden(&user.server_password).into(),
        console.into(),
        clients.count().into(),
        pools().map(|pool| pool.open).sum::<usize>().into(),
        pools().map(|pool| pool.waiting).sum::<usize>().into(),
    ]
}
