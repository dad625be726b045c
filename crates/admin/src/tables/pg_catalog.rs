//! `pg_catalog`: as much of PostgreSQL's catalog as psql, drivers and tools ask for, so that they list the console's tables.
//!
//! What PostgreSQL has and the console has not (indexes, triggers, policies, ...) is there with its columns and no rows.

mod empty;
mod sessions;

use self::sessions::{AUTH_MEMBERS, ROLES, STAT_ACTIVITY, USER};
use super::{
    Changes, Column, NOTHING, Row, SESSIONS, Scene, Schema, Table, Wanted, all, boolean, column,
    int4, moment, oid_of, text,
};
use crate::console::types::{Cell, PgType};

/// The owner of everything, as `pg_roles` has it.
pub(super) const OWNER: u32 = 10;

/// The console's database.
const DATABASE: u32 = 5;

pub(super) const TABLES: [&Table; 17 + empty::TABLES.len()] = {
    let own: [&Table; 17] = [
        &NAMESPACE,
        &CLASS,
        &ATTRIBUTE,
        &TYPE,
        &DATABASE_TABLE,
        &ROLES,
        &USER,
        &AM,
        &TABLESPACE,
        &DESCRIPTION,
        &SETTINGS,
        &STAT_ACTIVITY,
        &PG_TABLES,
        &COLLATION,
        &LANGUAGE,
        &SHDESCRIPTION,
        &AUTH_MEMBERS,
    ];
    let mut all: [&Table; 17 + empty::TABLES.len()] = [&NAMESPACE; 17 + empty::TABLES.len()];
    let mut index = 0;
    while index < all.len() {
        #[expect(clippy::indexing_slicing, reason = "worked out when it is compiled")]
        let table = if index < 17 {
            own[index]
        } else {
            &empty::TABLES[index - 17]
        };
        #[expect(clippy::indexing_slicing, reason = "worked out when it is compiled")]
        {
            all[index] = table;
        }
        index += 1;
    }
    all
};

const fn oid(name: &'static str) -> Column {
    column(name, PgType::Oid, "")
}

const fn name(name: &'static str) -> Column {
    column(name, PgType::Name, "")
}

const fn letter(name: &'static str) -> Column {
    column(name, PgType::Char, "")
}

const fn int2(name: &'static str) -> Column {
    column(name, PgType::Int2, "")
}

const fn catalog(
    name: &'static str,
    columns: &'static [Column],
    needs: Wanted,
    rows: fn(&Scene<'_>) -> Vec<Row>,
) -> Table {
    Table {
        schema: Schema::PgCatalog,
        name,
        about: "",
        columns,
        changes: Changes::None,
        needs,
        rows,
    }
}

const NAMESPACE: Table = catalog(
    "pg_namespace",
    &[
        oid("oid"),
        name("nspname"),
        oid("nspowner"),
        text("nspacl", ""),
    ],
    NOTHING,
    |_| {
        let row = |schema: Schema| {
            vec![
                schema.oid().into(),
                schema.name().into(),
                OWNER.into(),
                Cell::Null,
            ]
        };
        Schema::ALL.into_iter().map(row).collect()
    },
);

const CLASS: Table = catalog(
    "pg_class",
    &[
        oid("oid"),
        name("relname"),
        oid("relnamespace"),
        oid("reltype"),
        oid("reloftype"),
        oid("relowner"),
        oid("relam"),
        oid("relfilenode"),
        oid("reltablespace"),
        int4("relpages", ""),
        column("reltuples", PgType::Float8, ""),
        int4("relallvisible", ""),
        oid("reltoastrelid"),
        boolean("relhasindex", ""),
        boolean("relisshared", ""),
        letter("relpersistence"),
        letter("relkind"),
        int2("relnatts"),
        int2("relchecks"),
        boolean("relhasrules", ""),
        boolean("relhastriggers", ""),
        boolean("relhassubclass", ""),
        boolean("relrowsecurity", ""),
        boolean("relforcerowsecurity", ""),
        boolean("relispopulated", ""),
        letter("relreplident"),
        boolean("relispartition", ""),
        oid("relrewrite"),
        text("relacl", ""),
        text("reloptions", ""),
        text("relpartbound", ""),
        boolean("relhasoids", ""),
        int4("relfrozenxid", ""),
    ],
    NOTHING,
    |_| all().map(class).collect(),
);

fn class(table: &Table) -> Row {
    let none = || Cell::Int(0);
    vec![
        oid_of(table).into(),
        table.name.into(),
        table.schema.oid().into(),
        none(),
        none(),
        OWNER.into(),
        2u32.into(),
        none(),
        none(),
        none(),
        Cell::Real(-1.0),
        none(),
        none(),
        none(),
        none(),
        "p".into(),
        "r".into(),
        table.columns.len().into(),
        none(),
        none(),
        none(),
        none(),
        none(),
        none(),
        Cell::Int(1),
        "n".into(),
        none(),
        none(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        none(),
        none(),
    ]
}

const ATTRIBUTE: Table = catalog(
    "pg_attribute",
    &[
        oid("attrelid"),
        name("attname"),
        oid("atttypid"),
        int4("attstattarget", ""),
        int2("attlen"),
        int2("attnum"),
        int4("attndims", ""),
        int4("atttypmod", ""),
        boolean("attbyval", ""),
        letter("attalign"),
        letter("attstorage"),
        letter("attcompression"),
        boolean("attnotnull", ""),
        boolean("atthasdef", ""),
        boolean("atthasmissing", ""),
        letter("attidentity"),
        letter("attgenerated"),
        boolean("attisdropped", ""),
        boolean("attislocal", ""),
        int4("attinhcount", ""),
        oid("attcollation"),
        text("attacl", ""),
        text("attoptions", ""),
        text("attfdwoptions", ""),
        text("attmissingval", ""),
    ],
    NOTHING,
    |_| {
        let columns = all().flat_map(|table| {
            let columns = table.columns.iter().enumerate();
            columns.map(move |(index, column)| attribute(table, index + 1, column))
        });
        columns.collect()
    },
);

fn attribute(table: &Table, number: usize, column: &Column) -> Row {
    let no = || Cell::Int(0);
    let collation = match column.ty {
        PgType::Text => 100u32,
        PgType::Name => 950,
        _ => 0,
    };
    let storage = if column.ty == PgType::Text { "x" } else { "p" };
    vec![
        oid_of(table).into(),
        column.name.into(),
        column.ty.oid().into(),
        Cell::Int(-1),
        i64::from(column.ty.size()).into(),
        number.into(),
        no(),
        Cell::Int(-1),
        no(),
        "i".into(),
        storage.into(),
        "".into(),
        no(),
        no(),
        no(),
        "".into(),
        "".into(),
        no(),
        Cell::Int(1),
        no(),
        collation.into(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ]
}

const TYPE: Table = catalog(
    "pg_type",
    &[
        oid("oid"),
        name("typname"),
        oid("typnamespace"),
        oid("typowner"),
        int2("typlen"),
        boolean("typbyval", ""),
        letter("typtype"),
        letter("typcategory"),
        boolean("typispreferred", ""),
        boolean("typisdefined", ""),
        letter("typdelim"),
        oid("typrelid"),
        text("typsubscript", ""),
        oid("typelem"),
        oid("typarray"),
        text("typinput", ""),
        text("typoutput", ""),
        text("typreceive", ""),
        text("typsend", ""),
        oid("typbasetype"),
        int4("typtypmod", ""),
        int4("typndims", ""),
        boolean("typnotnull", ""),
        oid("typcollation"),
        text("typdefault", ""),
        text("typacl", ""),
        letter("typalign"),
        letter("typstorage"),
    ],
    NOTHING,
    |_| PgType::ALL.into_iter().map(type_row).collect(),
);

fn type_row(ty: PgType) -> Row {
    let (category, array) = match ty {
        PgType::Bool => ("B", 1000u32),
        PgType::Char => ("Z", 1002),
        PgType::Name => ("S", 1003),
        PgType::Int2 => ("N", 1005),
        PgType::Int4 => ("N", 1007),
        PgType::Int8 => ("N", 1016),
        PgType::Float8 => ("N", 1022),
        PgType::Text => ("S", 1009),
        PgType::Oid => ("N", 1028),
        PgType::Timestamptz => ("D", 1185),
    };
    let no = || Cell::Int(0);
    let function = |suffix: &str| Cell::Text(format!("{}{suffix}", ty.name()));
    vec![
        ty.oid().into(),
        ty.name().into(),
        Schema::PgCatalog.oid().into(),
        OWNER.into(),
        i64::from(ty.size()).into(),
        no(),
        "b".into(),
        category.into(),
        no(),
        Cell::Int(1),
        ",".into(),
        no(),
        "-".into(),
        no(),
        array.into(),
        function("in"),
        function("out"),
        function("recv"),
        function("send"),
        no(),
        Cell::Int(-1),
        no(),
        no(),
        (if ty == PgType::Text { 100u32 } else { 0 }).into(),
        Cell::Null,
        Cell::Null,
        "i".into(),
        "p".into(),
    ]
}

const DATABASE_TABLE: Table = catalog(
    "pg_database",
    &[
        oid("oid"),
        name("datname"),
        oid("datdba"),
        int4("encoding", ""),
        letter("datlocprovider"),
        boolean("datistemplate", ""),
        boolean("datallowconn", ""),
        int4("datconnlimit", ""),
        oid("datlastsysoid"),
        int4("datfrozenxid", ""),
        oid("dattablespace"),
        text("datcollate", ""),
        text("datctype", ""),
        text("daticulocale", ""),
        text("datcollversion", ""),
        text("datacl", ""),
    ],
    NOTHING,
    |scene| {
        vec![vec![
            DATABASE.into(),
            scene.database.into(),
            OWNER.into(),
            Cell::Int(6),
            "c".into(),
            false.into(),
            true.into(),
            Cell::Int(-1),
            Cell::Int(0),
            Cell::Int(0),
            Cell::Int(1663),
            "C".into(),
            "C".into(),
            Cell::Null,
            Cell::Null,
            Cell::Null,
        ]]
    },
);

const AM: Table = catalog(
    "pg_am",
    &[
        oid("oid"),
        name("amname"),
        text("amhandler", ""),
        letter("amtype"),
    ],
    NOTHING,
    |_| {
        vec![vec![
            2u32.into(),
            "heap".into(),
            "heap_tableam_handler".into(),
            "t".into(),
        ]]
    },
);

const TABLESPACE: Table = catalog(
    "pg_tablespace",
    &[
        oid("oid"),
        name("spcname"),
        oid("spcowner"),
        text("spcacl", ""),
        text("spcoptions", ""),
    ],
    NOTHING,
    |_| {
        vec![vec![
            1663u32.into(),
            "pg_default".into(),
            OWNER.into(),
            Cell::Null,
            Cell::Null,
        ]]
    },
);

const DESCRIPTION: Table = catalog(
    "pg_description",
    &[
        oid("objoid"),
        oid("classoid"),
        int4("objsubid", ""),
        text("description", ""),
    ],
    NOTHING,
    |_| {
        let described = all().filter(|table| !table.about.is_empty());
        let rows = described.flat_map(|table| {
            let own = std::iter::once((0, table.about));
            let columns = table.columns.iter().map(|column| column.about);
            own.chain((1usize..).zip(columns))
                .map(move |(number, about)| {
                    vec![
                        oid_of(table).into(),
                        1259u32.into(),
                        number.into(),
                        about.into(),
                    ]
                })
        });
        rows.collect()
    },
);

const SHDESCRIPTION: Table = catalog(
    "pg_shdescription",
    &[oid("objoid"), oid("classoid"), text("description", "")],
    NOTHING,
    |_| {
        vec![vec![
            DATABASE.into(),
            1262u32.into(),
            "The console of pgweir.".into(),
        ]]
    },
);

const SETTINGS: Table = catalog(
    "pg_settings",
    &[
        text("name", ""),
        text("setting", ""),
        text("unit", ""),
        text("category", ""),
        text("short_desc", ""),
        text("extra_desc", ""),
        text("context", ""),
        text("vartype", ""),
        text("source", ""),
        text("min_val", ""),
        text("max_val", ""),
        text("enumvals", ""),
        text("boot_val", ""),
        text("reset_val", ""),
        text("sourcefile", ""),
        int4("sourceline", ""),
        boolean("pending_restart", ""),
    ],
    NOTHING,
    |_| {
        crate::console::parameters::DEFAULTS
            .iter()
            .map(|(name, value)| {
                vec![
                    (*name).into(),
                    (*value).into(),
                    Cell::Null,
                    "Client".into(),
                    "".into(),
                    Cell::Null,
                    "user".into(),
                    "string".into(),
                    "default".into(),
                    Cell::Null,
                    Cell::Null,
                    Cell::Null,
                    (*value).into(),
                    (*value).into(),
                    Cell::Null,
                    Cell::Null,
                    false.into(),
                ]
            })
            .collect()
    },
);

const PG_TABLES: Table = catalog(
    "pg_tables",
    &[
        name("schemaname"),
        name("tablename"),
        name("tableowner"),
        name("tablespace"),
        boolean("hasindexes", ""),
        boolean("hasrules", ""),
        boolean("hastriggers", ""),
        boolean("rowsecurity", ""),
    ],
    NOTHING,
    |_| {
        all()
            .map(|table| {
                vec![
                    table.schema.name().into(),
                    table.name.into(),
                    "pgweir".into(),
                    Cell::Null,
                    false.into(),
                    false.into(),
                    false.into(),
                    false.into(),
                ]
            })
            .collect()
    },
);

const COLLATION: Table = catalog(
    "pg_collation",
    &[
        oid("oid"),
        name("collname"),
        oid("collnamespace"),
        oid("collowner"),
        letter("collprovider"),
        boolean("collisdeterministic", ""),
        int4("collencoding", ""),
        text("collcollate", ""),
        text("collctype", ""),
        text("colliculocale", ""),
        text("collversion", ""),
    ],
    NOTHING,
    |_| {
        let row = |oid: u32, name: &str| {
            vec![
                oid.into(),
                name.into(),
                Schema::PgCatalog.oid().into(),
                OWNER.into(),
                "c".into(),
                true.into(),
                Cell::Int(-1),
                name.into(),
                name.into(),
                Cell::Null,
                Cell::Null,
            ]
        };
        vec![row(100, "default"), row(950, "C")]
    },
);

const LANGUAGE: Table = catalog(
    "pg_language",
    &[
        oid("oid"),
        name("lanname"),
        oid("lanowner"),
        boolean("lanispl", ""),
        boolean("lanpltrusted", ""),
        oid("lanplcallfoid"),
        oid("laninline"),
        oid("lanvalidator"),
        text("lanacl", ""),
    ],
    NOTHING,
    |_| {
        let no = || Cell::Int(0);
        vec![vec![
            14u32.into(),
            "sql".into(),
            OWNER.into(),
            no(),
            Cell::Int(1),
            no(),
            no(),
            no(),
            Cell::Null,
        ]]
    },
);
