//! The tables of the result cache, of sharding and of two-phase commit: these are not built, so that there are no rows. The
//! columns are there for whoever writes a dashboard today.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, int4, int8, moment, text};

const fn empty(name: &'static str, about: &'static str, columns: &'static [Column]) -> Table {
    Table {
        schema: Schema::Public,
        name,
        about,
        columns,
        changes: Changes::None,
        needs: NOTHING,
        rows: none,
    }
}

fn none(_: &Scene<'_>) -> Vec<Row> {
    Vec::new()
}

pub(super) const CACHE_TABLES: Table = empty(
    "cache_tables",
    "Tables whose results are cached. The cache is not built: there are none.",
    &[
        text("name", "The table."),
        text("ttl", "How long a result is kept."),
        int8("entries", "Results that read it."),
        int8("bytes", "Their size."),
        int8("hits", "Reads that the cache answered."),
        int8("misses", "Reads that it did not."),
        int8("invalidations", "Results dropped because it was written."),
    ],
);

pub(super) const CACHE_ENTRIES: Table = empty(
    "cache_entries",
    "Results in the cache. The cache is not built: there are none.",
    &[
        text("fingerprint", "That of the statement's shape."),
        text("database", "The database as clients name it."),
        int8("bytes", "The size of the result."),
        int8("hits", "Times that it was used."),
        moment("created_at", "When it was made."),
        moment("expires_at", "When it is dropped."),
    ],
);

pub(super) const SHARDS: Table = empty(
    "shards",
    "The shards of sharded databases. Sharding is not built: there are none.",
    &[
        text("database", "The database as clients name it."),
        int4(
            "position",
            "Its place in the order of the hash remainders, from 0.",
        ),
        text("cluster", "The cluster that holds it."),
    ],
);

pub(super) const SHARDED_TABLES: Table = empty(
    "sharded_tables",
    "Tables of sharded databases. Sharding is not built: there are none.",
    &[
        text("database", "The database as clients name it."),
        text("name", "The table."),
        text("kind", "`sharded`, `reference` or `single`."),
        text("column_name", "The sharding key."),
        text("type", "Its type."),
        text("method", "`hash`, `list` or `range`."),
    ],
);

pub(super) const TWO_PHASE_TRANSACTIONS: Table = empty(
    "two_phase_transactions",
    "Transactions over several shards. Sharding is not built: there are none.",
    &[
        text("gid", "Its global identifier."),
        text("database", "The database as clients name it."),
        text("state", "How far it is."),
        moment("since", "When it began."),
    ],
);
