//! `databases`: what clients may ask for, with the settings and the counts of each.

use pgweir_config::Database;
use pgweir_metrics::{DatabaseCounts, Histogram};

use super::{
    Changes, Column, NOTHING, Row, Scene, Schema, Table, boolean, float8, int4, int8, text,
    us_to_ms,
};
use crate::facts::Facts;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "databases",
    about: "The databases as clients name them; `*` serves every name that has no row of its own.",
    columns: COLUMNS,
    changes: Changes::Update,
    needs: NOTHING,
    rows,
};

const COLUMNS: &[Column] = &[
    text("name", "As clients name it."),
    text("cluster", "The cluster that has it."),
    text("dbname", "Its real name on the servers, if another."),
    text(
        "pool_mode",
        "When a client gives its server connection back.",
    ),
    int4(
        "pool_size",
        "Server connections per user and backend, at most.",
    )
    .changeable(),
    int4(
        "pool_min",
        "Server connections per user and backend that are kept open.",
    )
    .changeable(),
    int4(
        "pool_reserve",
        "Server connections beyond `pool_size`, for those who have waited long.",
    )
    .changeable(),
    text(
        "pool_reserve_after",
        "How long the first in line waits for one of them.",
    )
    .changeable(),
    int4(
        "max_backend_connections",
        "Server connections per backend over all users; 0 is no limit.",
    )
    .changeable(),
    text("consistency", "What a read may see.").changeable(),
    text("transaction_reads", "Where the reads of a transaction run.").changeable(),
    text("pin_reads", "Where a pinned session reads.").changeable(),
    int4("read_retries", "How often a read is tried elsewhere.").changeable(),
    text(
        "causal_wait",
        "How long a read waits for a replica that shows what it must see.",
    )
    .changeable(),
    text("splitting", "Whether reads leave the primary.").changeable(),
    boolean("paused", "`PAUSE` holds its batches back."),
    boolean("disabled", "It takes no new clients."),
    int4("clients_active", "Clients that a server works for."),
    int4(
        "clients_waiting",
        "Clients that wait for a server connection.",
    ),
    int4("clients_idle", "Clients that have asked for nothing."),
    int4("connections", "Server connections open for it."),
    int8("transactions", "Transactions that have ended."),
    int8("queries", "Batches answered."),
    int8("received_bytes", "Bytes from clients."),
    int8("sent_bytes", "Bytes to clients."),
    float8(
        "query_mean_ms",
        "The mean time of a batch on a server, in milliseconds.",
    ),
    float8(
        "query_p99_ms",
        "What 99 of 100 batches took at most, in milliseconds.",
    ),
    float8(
        "wait_mean_ms",
        "The mean time of those that waited for a connection, in milliseconds.",
    ),
];

/// Whether what is counted under a name belongs to a database of the configuration: `*` takes what no other does.
fn serves(facts: &Facts, database: &Database, name: &str) -> bool {
    let other = facts.config.database(name);
    other.is_some_and(|other| other.name == database.name)
}

fn summed(facts: &Facts, database: &Database) -> (DatabaseCounts, Histogram) {
    let mut sum = DatabaseCounts::default();
    let mut query = Histogram::default();
    let named = facts.counts.databases.iter();
    for (_, counts) in named.filter(|(name, _)| serves(facts, database, name)) {
        sum.transactions += counts.transactions;
        sum.queries += counts.queries;
        sum.received_bytes += counts.received_bytes;
        sum.sent_bytes += counts.sent_bytes;
        sum.wait.add(&counts.wait);
        counts.query.values().for_each(|one| query.add(one));
    }
    (sum, query)
}

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let facts = scene.facts;
    let databases = facts.config.databases.iter();
    databases.map(|database| row(facts, database)).collect()
}

fn row(facts: &Facts, database: &Database) -> Row {
    let held = facts
        .held_databases
        .iter()
        .find(|(name, ..)| **name == *database.name);
    let (paused, disabled) =
        held.map_or((false, false), |(_, paused, disabled)| (*paused, *disabled));
    let mut states = [0usize; 3];
    let clients = facts.client_states.iter();
    for (_, one) in clients.filter(|(name, _)| serves(facts, database, name)) {
        states
            .iter_mut()
            .zip(one)
            .for_each(|(sum, one)| *sum += one);
    }
    let pools = facts.pools.iter();
    let own = pools.filter(|pool| serves(facts, database, &pool.database));
    let open: usize = own.map(|pool| pool.open).sum();
    let (counts, query) = summed(facts, database);
    let [active, waiting, idle] = states;
    let duration = pgweir_config::units::format_duration;
    vec![
        (&database.name).into(),
        (&database.cluster).into(),
        database.dbname.as_ref().into(),
        database.pool_mode.name().into(),
        database.pool_size.into(),
        database.pool_min.into(),
        database.pool_reserve.into(),
        duration(database.pool_reserve_after).into(),
        database.max_backend_connections.unwrap_or_default().into(),
        database.consistency.name().into(),
        database.transaction_reads.name().into(),
        database.pin_reads.name().into(),
        database.read_retries.into(),
        duration(database.causal_wait).into(),
        database.splitting.name().into(),
        paused.into(),
        disabled.into(),
        active.into(),
        waiting.into(),
        idle.into(),
        open.into(),
        counts.transactions.into(),
        counts.queries.into(),
        counts.received_bytes.into(),
        counts.sent_bytes.into(),
        us_to_ms(query.mean_us()).into(),
        query.quantile_us(0.99).map(|us| us / 1000.0).into(),
        us_to_ms(counts.wait.mean_us()).into(),
    ]
}
