//! PgBouncer's `SHOW`, in the column layout of its version 1.24, so that its exporters and dashboards work unchanged.
//!
//! ## Limits
//! What has no counterpart here is 0 or empty. The console itself is shown as PgBouncer shows its own, as a database and a user of
//! its name; of its sessions, `SHOW CLIENTS` has the one that asks.

mod sockets;
mod stats;

use pgweir_config::reference::Table;
use pgweir_config::{Edit, ListenAddress, Section};

use super::answer::{Answer, Column};
use super::command::Show;
use super::functions::Caller;
use super::types::{Cell, PgType};
use crate::facts::{ClientState, Facts, Wanted};
use crate::tables::Row;

pub(crate) use stats::Sampler;

/// The version that tools are told: what the layout is of.
const VERSION: &str = concat!("PgBouncer 1.24.0 (pgweir ", env!("CARGO_PKG_VERSION"), ")");

/// Returns what an answer is made of.
pub(crate) fn wanted(show: Show) -> Wanted {
    let sessions = matches!(
        show,
        Show::Pools | Show::Clients | Show::Servers | Show::Sockets | Show::Users | Show::Lists
    );
    Wanted {
        sessions,
        settings: show == Show::Config,
        ..Wanted::default()
    }
}

/// Columns by PgBouncer's own letters: text, 32 and 64 bits.
fn layout(columns: &[(&str, char)]) -> Vec<Column> {
    let ty = |letter: &char| match letter {
        'i' => PgType::Int4,
        'q' => PgType::Int8,
        _ => PgType::Text,
    };
    columns
        .iter()
        .map(|(name, letter)| Column::new(name, ty(letter)))
        .collect()
}

/// Returns the columns of an answer.
pub(crate) fn columns(show: Show) -> Vec<Column> {
    match show {
        Show::Pools => layout(POOLS),
        Show::Stats => stats::columns_of_stats(),
        Show::StatsTotals | Show::StatsAverages => stats::columns_of_totals(),
        Show::Totals => layout(&[("name", 's'), ("value", 'q')]),
        Show::Clients | Show::Servers => layout(sockets::COLUMNS),
        Show::Sockets => {
            let both = [sockets::COLUMNS, sockets::DEBUG_COLUMNS].concat();
            layout(&both)
        }
        Show::Databases => layout(DATABASES),
        Show::Users => layout(USERS),
        Show::Config => layout(&[
            ("key", 's'),
            ("value", 's'),
            ("default", 's'),
            ("changeable", 's'),
        ]),
        Show::Lists => layout(&[("list", 's'), ("items", 'i')]),
        Show::Version => layout(&[("version", 's')]),
        Show::Mem => layout(&[
            ("name", 's'),
            ("size", 'i'),
            ("used", 'i'),
            ("free", 'i'),
            ("memtotal", 'i'),
        ]),
        Show::DnsHosts => layout(&[("hostname", 's'), ("ttl", 'q'), ("addrs", 's')]),
        Show::DnsZones => layout(&[("zonename", 's'), ("serial", 'q'), ("count", 'i')]),
        Show::State => layout(&[("key", 's'), ("value", 's')]),
        Show::Peers => layout(&[
            ("peer_id", 'i'),
            ("host", 's'),
            ("port", 'i'),
            ("pool_size", 'i'),
        ]),
        Show::PeerPools => layout(PEER_POOLS),
    }
}

const POOLS: &[(&str, char)] = &[
    ("database", 's'),
    ("user", 's'),
    ("cl_active", 'i'),
    ("cl_waiting", 'i'),
    ("cl_active_cancel_req", 'i'),
    ("cl_waiting_cancel_req", 'i'),
    ("sv_active", 'i'),
    ("sv_active_cancel", 'i'),
    ("sv_being_canceled", 'i'),
    ("sv_idle", 'i'),
    ("sv_used", 'i'),
    ("sv_tested", 'i'),
    ("sv_login", 'i'),
    ("maxwait", 'i'),
    ("maxwait_us", 'i'),
    ("pool_mode", 's'),
    ("load_balance_hosts", 's'),
];

const PEER_POOLS: &[(&str, char)] = &[
    ("peer_id", 'i'),
    ("cl_active_cancel_req", 'i'),
    ("cl_waiting_cancel_req", 'i'),
    ("sv_active_cancel", 'i'),
    ("sv_login", 'i'),
];

const DATABASES: &[(&str, char)] = &[
    ("name", 's'),
    ("host", 's'),
    ("port", 'i'),
    ("database", 's'),
    ("force_user", 's'),
    ("pool_size", 'i'),
    ("min_pool_size", 'i'),
    ("reserve_pool_size", 'i'),
    ("server_lifetime", 'i'),
    ("pool_mode", 's'),
    ("load_balance_hosts", 's'),
    ("max_connections", 'i'),
    ("current_connections", 'i'),
    ("max_client_connections", 'i'),
    ("current_client_connections", 'i'),
    ("paused", 'i'),
    ("disabled", 'i'),
];

const USERS: &[(&str, char)] = &[
    ("name", 's'),
    ("pool_size", 's'),
    ("reserve_pool_size", 's'),
    ("pool_mode", 's'),
    ("max_user_connections", 'i'),
    ("current_connections", 'i'),
    ("max_user_client_connections", 'i'),
    ("current_client_connections", 'i'),
];

/// Returns an answer to the caller.
pub(crate) fn answer(show: Show, facts: &Facts, sampler: &mut Sampler, caller: &Caller) -> Answer {
    let rows = match show {
        Show::Pools => pools(facts),
        Show::Stats => sampler.stats(facts),
        Show::StatsTotals => stats::totals(facts),
        Show::StatsAverages => sampler.averages(facts),
        Show::Totals => sampler.sums(facts),
        Show::Clients => sockets::clients(facts, caller),
        Show::Servers => sockets::servers(facts),
        Show::Sockets => sockets::all(facts, caller),
        Show::Databases => databases(facts),
        Show::Users => users(facts),
        Show::Config => config(facts),
        Show::Lists => lists(facts),
        Show::Version => vec![vec![VERSION.into()]],
        Show::State => state(facts),
        Show::Mem | Show::DnsHosts | Show::DnsZones | Show::Peers | Show::PeerPools => Vec::new(),
    };
    Answer::rows(rows, "SHOW")
}

fn zero() -> Cell {
    Cell::Int(0)
}

/// One row for each database and user that has clients or connections.
fn pools(facts: &Facts) -> Vec<Row> {
    let login = |user: &str| match facts.config.user(user) {
        Some(user) => user.login().to_string(),
        None => user.to_owned(),
    };
    let of_clients = facts
        .clients
        .iter()
        .map(|client| (client.database.to_string(), client.user.to_string()));
    let of_pools = facts.pools.iter().map(|pool| {
        let users = facts.config.users.iter();
        let found = users.clone().find(|user| *user.login() == pool.key.user);
        let user = found.map_or(&pool.key.user, |user| &user.name);
        (pool.database.to_string(), user.to_string())
    });
    let mut keys: Vec<_> = of_clients.chain(of_pools).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.iter()
        .map(|(database, user)| {
            let clients = || {
                let all = facts.clients.iter();
                all.filter(|client| *client.database == **database && *client.user == **user)
            };
            let waiting = clients()
                .filter(|client| client.state == ClientState::Waiting)
                .count();
            let login = login(user);
            let pools = || {
                let all = facts.pools.iter();
                all.filter(|pool| *pool.database == **database && *pool.key.user == *login)
            };
            let idle: usize = pools().map(|pool| pool.idle).sum();
            let open: usize = pools().map(|pool| pool.open).sum();
            let wait = pools()
                .filter_map(|pool| pool.oldest_wait)
                .max()
                .unwrap_or_default();
            let mode = facts
                .config
                .database(database)
                .map(|database| database.pool_mode.name());
            vec![
                database.as_str().into(),
                user.as_str().into(),
                clients().count().saturating_sub(waiting).into(),
                waiting.into(),
                zero(),
                zero(),
                open.saturating_sub(idle).into(),
                zero(),
                zero(),
                idle.into(),
                zero(),
                zero(),
                zero(),
                wait.as_secs().into(),
                wait.subsec_micros().into(),
                mode.into(),
                Cell::Null,
            ]
        })
        .chain(std::iter::once(console_pool(facts)))
        .collect()
}

/// The console has the client that asks, and no server connection.
fn console_pool(facts: &Facts) -> Row {
    let name = &facts.config.admin.database;
    let mut row: Row = POOLS.iter().map(|_| zero()).collect();
    let told = [
        ("database", name.into()),
        ("user", name.into()),
        ("cl_active", Cell::Int(1)),
        ("pool_mode", "statement".into()),
        ("load_balance_hosts", Cell::Null),
    ];
    for (told, cell) in told {
        let mut places = POOLS.iter().zip(&mut row);
        if let Some((_, place)) = places.find(|((name, _), _)| *name == told) {
            *place = cell;
        }
    }
    row
}

fn databases(facts: &Facts) -> Vec<Row> {
    let lifetime = facts.config.server.server_lifetime;
    let lifetime = lifetime.map_or(0, |lifetime| lifetime.as_secs());
    let all = facts.config.databases.iter();
    all.map(|database| {
        let serves = |name: &str| {
            let found = facts.config.database(name);
            found.is_some_and(|found| found.name == database.name)
        };
        let cluster = facts.clusters.get(usize::from(database.cluster_index));
        let topology = cluster.map(|cluster| &cluster.topology);
        let node = topology.and_then(|topology| topology.primary().or(topology.nodes.first()));
        let pools = facts.pools.iter().filter(|pool| serves(&pool.database));
        let clients = facts.client_states.iter().filter(|(name, _)| serves(name));
        let clients: usize = clients
            .map(|(_, states)| states.iter().sum::<usize>())
            .sum();
        let held = facts
            .held_databases
            .iter()
            .find(|(name, ..)| **name == *database.name);
        let (paused, disabled) = held.map_or((false, false), |held| (held.1, held.2));
        vec![
            (&database.name).into(),
            node.map(|node| &node.host).into(),
            node.map(|node| node.port).into(),
            database.dbname.as_ref().unwrap_or(&database.name).into(),
            Cell::Null,
            database.pool_size.into(),
            database.pool_min.into(),
            database.pool_reserve.into(),
            lifetime.into(),
            database.pool_mode.name().into(),
            Cell::Null,
            database.max_backend_connections.unwrap_or_default().into(),
            pools.map(|pool| pool.open).sum::<usize>().into(),
            zero(),
            clients.into(),
            paused.into(),
            disabled.into(),
        ]
    })
    .chain(std::iter::once(console_database(facts)))
    .collect()
}

/// The console, as PgBouncer shows its own.
fn console_database(facts: &Facts) -> Row {
    let name = &facts.config.admin.database;
    vec![
        name.into(),
        Cell::Null,
        listening(facts).1.into(),
        name.into(),
        name.into(),
        zero(),
        zero(),
        zero(),
        zero(),
        "statement".into(),
        Cell::Null,
        zero(),
        zero(),
        zero(),
        Cell::Int(1),
        zero(),
        zero(),
    ]
}

/// The first address over TCP, or the port that names the socket.
fn listening(facts: &Facts) -> (String, u16) {
    let server = &facts.config.server;
    let first = server.listen.iter().find_map(|address| match address {
        ListenAddress::Tcp(host, port) => Some((host.clone(), *port)),
        ListenAddress::Unix(_) => None,
    });
    first.unwrap_or_else(|| (String::new(), server.unix_port()))
}

fn users(facts: &Facts) -> Vec<Row> {
    let all = facts.config.users.iter();
    all.map(|user| {
        let pools = facts
            .pools
            .iter()
            .filter(|pool| pool.key.user == *user.login());
        let clients = facts
            .clients
            .iter()
            .filter(|client| client.user == user.name);
        vec![
            (&user.name).into(),
            "".into(),
            "".into(),
            Cell::Null,
            zero(),
            pools.map(|pool| pool.open).sum::<usize>().into(),
            zero(),
            clients.count().into(),
        ]
    })
    .collect()
}

/// PgBouncer's names of settings that can be set by them, ours in `[server]`, and the unit of a number.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("max_client_conn", "max_clients", ""),
    ("query_wait_timeout", "query_wait_timeout", "s"),
    ("server_lifetime", "server_lifetime", "s"),
    ("server_idle_timeout", "server_idle_timeout", "s"),
    ("client_idle_timeout", "client_idle_timeout", "s"),
];

/// Returns the change that `SET name = value` is, if the name is one of PgBouncer's.
pub(crate) fn edit(name: &str, value: &str) -> Option<Edit> {
    let found = SETTINGS
        .iter()
        .find(|(theirs, ..)| name.eq_ignore_ascii_case(theirs));
    let (_, key, unit) = found?;
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let value = match is_number {
        true => format!("{value}{unit}"),
        false => value.to_owned(),
    };
    Some(Edit::Set {
        section: Section::Single(Table::Server),
        key: (*key).to_owned(),
        value: Some(value),
    })
}

/// The few settings whose names tools of PgBouncer ask for, then all by their own.
fn config(facts: &Facts) -> Vec<Row> {
    let server = &facts.config.server;
    let (host, port) = listening(facts);
    let seconds = |duration: std::time::Duration| duration.as_secs().to_string();
    let database = facts.config.databases.first();
    let known = [
        ("listen_addr", host),
        ("listen_port", port.to_string()),
        ("max_client_conn", server.max_clients.to_string()),
        (
            "default_pool_size",
            database.map_or(0, |one| one.pool_size).to_string(),
        ),
        (
            "pool_mode",
            database
                .map_or("transaction", |one| one.pool_mode.name())
                .to_owned(),
        ),
        ("max_db_connections", "0".to_owned()),
        ("max_user_connections", "0".to_owned()),
        ("query_wait_timeout", seconds(server.query_wait_timeout)),
        (
            "server_lifetime",
            seconds(server.server_lifetime.unwrap_or_default()),
        ),
        (
            "server_idle_timeout",
            seconds(server.server_idle_timeout.unwrap_or_default()),
        ),
        (
            "client_idle_timeout",
            seconds(server.client_idle_timeout.unwrap_or_default()),
        ),
        ("stats_period", stats::PERIOD.as_secs().to_string()),
    ];
    let known = known.into_iter().map(|(key, value)| {
        let changeable = SETTINGS.iter().any(|(name, ..)| *name == key);
        let changeable = if changeable { "yes" } else { "no" };
        vec![key.into(), value.into(), Cell::Null, changeable.into()]
    });
    let own = facts.settings.iter().map(|setting| {
        let changeable = if setting.is_changeable { "yes" } else { "no" };
        vec![
            format!("{}.{}", setting.path, setting.name).into(),
            setting.value.as_deref().into(),
            setting.default.into(),
            changeable.into(),
        ]
    });
    known.chain(own).collect()
}

fn lists(facts: &Facts) -> Vec<Row> {
    let open: usize = facts.pools.iter().map(|pool| pool.open).sum();
    let idle: usize = facts.pools.iter().map(|pool| pool.idle).sum();
    let known: usize = facts
        .client_states
        .iter()
        .map(|(_, states)| states.iter().sum::<usize>())
        .sum();
    let most = usize::try_from(facts.config.server.max_clients).unwrap_or(usize::MAX);
    let items = [
        ("databases", facts.config.databases.len() + 1),
        ("users", facts.config.users.len()),
        ("peers", 0),
        ("pools", pools(facts).len()),
        ("peer_pools", 0),
        ("free_clients", most.saturating_sub(facts.client_count)),
        ("used_clients", facts.client_count),
        ("login_clients", facts.client_count.saturating_sub(known)),
        ("free_servers", idle),
        ("used_servers", open.saturating_sub(idle)),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    items
        .into_iter()
        .map(|(name, count)| vec![name.into(), count.into()])
        .collect()
}

fn state(facts: &Facts) -> Vec<Row> {
    let databases = facts.config.databases.iter();
    let is_paused = |name: &str| {
        let mut held = facts.held_databases.iter();
        held.any(|(held, paused, _)| **held == *name && *paused)
    };
    let paused = facts
        .config
        .databases
        .iter()
        .all(|database| is_paused(&database.name));
    let paused = paused && databases.count() > 0;
    let yes_or_no = |yes: bool| Cell::from(if yes { "yes" } else { "no" });
    vec![
        vec!["active".into(), yes_or_no(!paused)],
        vec!["paused".into(), yes_or_no(paused)],
        vec!["suspended".into(), yes_or_no(false)],
    ]
}
