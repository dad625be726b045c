//! `SHOW CLIENTS`, `SHOW SERVERS`, `SHOW SOCKETS`.

use super::zero;
use crate::console::functions::Caller;
use crate::console::types::Cell;
use crate::facts::{ClientFacts, Facts, ServerFacts, ServerState};
use crate::tables::Row;
use crate::time;

pub(super) const COLUMNS: &[(&str, char)] = &[
    ("type", 's'),
    ("user", 's'),
    ("database", 's'),
    ("replication", 's'),
    ("state", 's'),
    ("addr", 's'),
    ("port", 'i'),
    ("local_addr", 's'),
    ("local_port", 'i'),
    ("connect_time", 's'),
    ("request_time", 's'),
    ("wait", 'i'),
    ("wait_us", 'i'),
    ("close_needed", 'i'),
    ("ptr", 's'),
    ("link", 's'),
    ("remote_pid", 'i'),
    ("tls", 's'),
    ("application_name", 's'),
    ("prepared_statements", 'i'),
    ("id", 'i'),
];

pub(super) const DEBUG_COLUMNS: &[(&str, char)] = &[
    ("recv_pos", 'i'),
    ("pkt_pos", 'i'),
    ("pkt_remain", 'i'),
    ("send_pos", 'i'),
    ("send_remain", 'i'),
    ("pkt_avail", 'i'),
    ("send_avail", 'i'),
];

pub(super) fn clients(facts: &Facts, caller: &Caller) -> Vec<Row> {
    let all = facts.clients.iter().map(client);
    let is_shown = facts
        .clients
        .iter()
        .any(|client| client.id == caller.process_id);
    let own = (!is_shown).then(|| console_client(facts, caller));
    all.chain(own).collect()
}

/// The session that asks. Where it comes from is not known here.
fn console_client(facts: &Facts, caller: &Caller) -> Row {
    let at = time::format_seconds(facts.taken_at);
    vec![
        "C".into(),
        (&caller.user).into(),
        (&caller.database).into(),
        "none".into(),
        "active".into(),
        "".into(),
        zero(),
        "".into(),
        zero(),
        at.as_str().into(),
        at.as_str().into(),
        zero(),
        zero(),
        zero(),
        handle('c', caller.process_id),
        "".into(),
        zero(),
        "".into(),
        "".into(),
        zero(),
        caller.process_id.into(),
    ]
}

pub(super) fn servers(facts: &Facts) -> Vec<Row> {
    facts.servers.iter().map(server).collect()
}

pub(super) fn all(facts: &Facts, caller: &Caller) -> Vec<Row> {
    let mut rows = clients(facts, caller);
    rows.extend(servers(facts));
    for row in &mut rows {
        row.extend(DEBUG_COLUMNS.iter().map(|_| zero()));
    }
    rows
}

fn host_and_port(address: &str) -> (String, u16) {
    match address.rsplit_once(':') {
        Some((host, port)) => {
            let host = host.trim_matches(['[', ']']).to_owned();
            (host, port.parse().unwrap_or_default())
        }
        None => (address.to_owned(), 0),
    }
}

/// What stands for an address in memory: the same for a client and in the link to it.
fn handle(letter: char, id: u32) -> Cell {
    format!("{letter}{id}").into()
}

fn client(client: &ClientFacts) -> Row {
    let (host, port) = host_and_port(&client.address);
    let (local_host, local_port) = host_and_port(&client.local_address);
    let wait = match client.state {
        crate::facts::ClientState::Waiting => client.wait,
        _ => std::time::Duration::ZERO,
    };
    let link = client
        .server_process_id
        .map_or("".into(), |id| handle('s', id));
    vec![
        "C".into(),
        (&client.user).into(),
        (&client.database).into(),
        "none".into(),
        client.state.name().into(),
        host.into(),
        port.into(),
        local_host.into(),
        local_port.into(),
        time::format_seconds(client.connected_at).into(),
        time::format_seconds(client.moved_at).into(),
        wait.as_secs().into(),
        wait.subsec_micros().into(),
        zero(),
        handle('c', client.id),
        link,
        zero(),
        (if client.is_tls { "TLS" } else { "" }).into(),
        (&client.application).into(),
        client.prepared_statements.into(),
        client.id.into(),
    ]
}

fn server(server: &ServerFacts) -> Row {
    let (host, port) = host_and_port(&server.address);
    let state = match server.state {
        ServerState::Active => "active",
        ServerState::Idle => "idle",
    };
    let link = server.client.map_or("".into(), |id| handle('c', id));
    vec![
        "S".into(),
        (&server.key.user).into(),
        (&server.key.database).into(),
        "none".into(),
        state.into(),
        host.into(),
        port.into(),
        "".into(),
        zero(),
        time::format_seconds(server.connected_at).into(),
        time::format_seconds(server.moved_at).into(),
        zero(),
        zero(),
        zero(),
        handle('s', server.process_id),
        link,
        server.process_id.into(),
        "".into(),
        "".into(),
        server.prepared_statements.into(),
        server.process_id.into(),
    ]
}
