//! The roles and the sessions: `pg_roles`, `pg_user`, `pg_auth_members`, `pg_stat_activity`.

use pgweir_model::Role;

use super::{
    DATABASE, NOTHING, OWNER, Row, SESSIONS, Scene, Table, boolean, catalog, column, int4, moment,
    name, oid, text,
};
use crate::console::types::{Cell, PgType};
use crate::facts::ClientFacts;

/// The object ID of the first user; the others follow.
const FIRST_USER: u32 = 20_000;

/// A process ID as PostgreSQL shows it: of 32 bits with a sign.
fn signed(id: u32) -> Cell {
    i64::from(i32::from_be_bytes(id.to_be_bytes())).into()
}

pub(super) const ROLES: Table = catalog(
    "pg_roles",
    &[
        oid("oid"),
        name("rolname"),
        boolean("rolsuper", ""),
        boolean("rolinherit", ""),
        boolean("rolcreaterole", ""),
        boolean("rolcreatedb", ""),
        boolean("rolcanlogin", ""),
        boolean("rolreplication", ""),
        int4("rolconnlimit", ""),
        text("rolpassword", ""),
        moment("rolvaliduntil", ""),
        boolean("rolbypassrls", ""),
        text("rolconfig", ""),
    ],
    NOTHING,
    |scene| {
        roles(scene)
            .into_iter()
            .map(|(oid, name, is_super)| {
                vec![
                    oid.into(),
                    name.into(),
                    is_super.into(),
                    true.into(),
                    false.into(),
                    false.into(),
                    true.into(),
                    false.into(),
                    Cell::Int(-1),
                    "********".into(),
                    Cell::Null,
                    false.into(),
                    Cell::Null,
                ]
            })
            .collect()
    },
);

/// The users, and the role that asks where it is none of them: object ID, name, whether it may change things.
fn roles<'a>(scene: &Scene<'a>) -> Vec<(u32, &'a str, bool)> {
    let config = &scene.facts.config;
    let mut names: Vec<&str> = config.users.iter().map(|user| &*user.name).collect();
    if !names.contains(&scene.user) {
        names.push(scene.user);
    }
    let is_admin = |name: &str| config.admin.users.iter().any(|user| **user == *name);
    let numbered = (FIRST_USER..).zip(names);
    let owner = std::iter::once((OWNER, "pgweir", true));
    let users = numbered.map(|(oid, name)| (oid, name, is_admin(name)));
    owner
        .chain(users.filter(|(_, name, _)| *name != "pgweir"))
        .collect()
}

pub(super) const USER: Table = catalog(
    "pg_user",
    &[
        name("usename"),
        oid("usesysid"),
        boolean("usecreatedb", ""),
        boolean("usesuper", ""),
        boolean("userepl", ""),
        boolean("usebypassrls", ""),
        text("passwd", ""),
        moment("valuntil", ""),
        text("useconfig", ""),
    ],
    NOTHING,
    |scene| {
        roles(scene)
            .into_iter()
            .map(|(oid, name, is_super)| {
                vec![
                    name.into(),
                    oid.into(),
                    false.into(),
                    is_super.into(),
                    false.into(),
                    false.into(),
                    "********".into(),
                    Cell::Null,
                    Cell::Null,
                ]
            })
            .collect()
    },
);

pub(super) const STAT_ACTIVITY: Table = catalog(
    "pg_stat_activity",
    &[
        oid("datid"),
        name("datname"),
        int4("pid", ""),
        int4("leader_pid", ""),
        oid("usesysid"),
        name("usename"),
        text("application_name", ""),
        text("client_addr", ""),
        text("client_hostname", ""),
        int4("client_port", ""),
        moment("backend_start", ""),
        moment("xact_start", ""),
        moment("query_start", ""),
        moment("state_change", ""),
        text("wait_event_type", ""),
        text("wait_event", ""),
        text("state", ""),
        int4("backend_xid", ""),
        int4("backend_xmin", ""),
        column("query_id", PgType::Int8, ""),
        text("query", ""),
        text("backend_type", ""),
    ],
    SESSIONS,
    |scene| {
        let clients = scene.facts.clients.iter();
        let others = clients.map(|client| activity(scene, client));
        others.chain([own_activity(scene)]).collect()
    },
);

fn activity(scene: &Scene<'_>, client: &ClientFacts) -> Row {
    use crate::facts::ClientState::{Active, Idle, Waiting};
    let state = match (client.state, client.in_transaction) {
        (Active | Waiting, _) => "active",
        (Idle, true) => "idle in transaction",
        (Idle, false) => "idle",
    };
    let waits = client.state == Waiting;
    let (host, port) = client
        .address
        .rsplit_once(':')
        .unwrap_or((&client.address, ""));
    let on = match client.role {
        Some(Role::Primary) => "primary",
        Some(Role::Replica) => "replica",
        None => "pool",
    };
    let user = roles(scene)
        .into_iter()
        .find(|(_, name, _)| **name == *client.user);
    vec![
        Cell::Int(0),
        (&client.database).into(),
        signed(client.id),
        Cell::Null,
        user.map(|(oid, ..)| oid).into(),
        (&client.user).into(),
        (&client.application).into(),
        host.into(),
        Cell::Null,
        port.parse::<u16>().ok().into(),
        client.connected_at.into(),
        client.transaction_since.into(),
        client.moved_at.into(),
        client.moved_at.into(),
        waits.then_some("Client").into(),
        waits.then_some(on).into(),
        state.into(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        client.query.as_ref().into(),
        "client backend".into(),
    ]
}

/// The session that asks.
fn own_activity(scene: &Scene<'_>) -> Row {
    let user = roles(scene)
        .into_iter()
        .find(|(_, name, _)| *name == scene.user);
    vec![
        DATABASE.into(),
        scene.database.into(),
        signed(scene.process_id),
        Cell::Null,
        user.map(|(oid, ..)| oid).into(),
        scene.user.into(),
        "".into(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        scene.facts.taken_at.into(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        "active".into(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        "client backend".into(),
    ]
}

pub(super) const AUTH_MEMBERS: Table = catalog(
    "pg_auth_members",
    &[
        oid("roleid"),
        oid("member"),
        oid("grantor"),
        boolean("admin_option", ""),
    ],
    NOTHING,
    |_| Vec::new(),
);
