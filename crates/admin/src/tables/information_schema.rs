//! `information_schema`: the standard's names for what `pg_catalog` has.

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, all, column, int4, text};
use crate::console::types::{Cell, PgType};

pub(super) const TABLES: [&Table; 8] = [
    &TABLES_VIEW,
    &COLUMNS_VIEW,
    &SCHEMATA,
    &VIEWS,
    &ROUTINES,
    &TABLE_CONSTRAINTS,
    &KEY_COLUMN_USAGE,
    &REFERENTIAL_CONSTRAINTS,
];

const fn name(name: &'static str) -> Column {
    column(name, PgType::Name, "")
}

const fn standard(
    name: &'static str,
    columns: &'static [Column],
    rows: fn(&Scene<'_>) -> Vec<Row>,
) -> Table {
    Table {
        schema: Schema::Standard,
        name,
        about: "",
        columns,
        changes: Changes::None,
        needs: NOTHING,
        rows,
    }
}

fn none(_: &Scene<'_>) -> Vec<Row> {
    Vec::new()
}

const TABLES_VIEW: Table = standard(
    "tables",
    &[
        name("table_catalog"),
        name("table_schema"),
        name("table_name"),
        text("table_type", ""),
        text("is_insertable_into", ""),
        text("is_typed", ""),
    ],
    |scene| {
        let row = |table: &Table| {
            let insertable = if table.changes == Changes::All {
                "YES"
            } else {
                "NO"
            };
            vec![
                scene.database.into(),
                table.schema.name().into(),
                table.name.into(),
                "BASE TABLE".into(),
                insertable.into(),
                "NO".into(),
            ]
        };
        all().map(row).collect()
    },
);

const COLUMNS_VIEW: Table = standard(
    "columns",
    &[
        name("table_catalog"),
        name("table_schema"),
        name("table_name"),
        name("column_name"),
        int4("ordinal_position", ""),
        text("column_default", ""),
        text("is_nullable", ""),
        text("data_type", ""),
        int4("character_maximum_length", ""),
        int4("character_octet_length", ""),
        int4("numeric_precision", ""),
        int4("numeric_scale", ""),
        int4("datetime_precision", ""),
        name("udt_catalog"),
        name("udt_schema"),
        name("udt_name"),
        text("is_identity", ""),
        text("is_generated", ""),
        text("is_updatable", ""),
    ],
    |scene| {
        let columns = all().flat_map(|table| {
            let columns = (1usize..).zip(table.columns);
            columns.map(move |(number, column)| column_row(scene, table, number, column))
        });
        columns.collect()
    },
);

fn column_row(scene: &Scene<'_>, table: &Table, number: usize, column: &Column) -> Row {
    let yes_or_no = |yes: bool| Cell::from(if yes { "YES" } else { "NO" });
    vec![
        scene.database.into(),
        table.schema.name().into(),
        table.name.into(),
        column.name.into(),
        number.into(),
        Cell::Null,
        yes_or_no(true),
        column.ty.sql_name().into(),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Null,
        scene.database.into(),
        "pg_catalog".into(),
        column.ty.name().into(),
        yes_or_no(false),
        "NEVER".into(),
        yes_or_no(column.changeable),
    ]
}

const SCHEMATA: Table = standard(
    "schemata",
    &[
        name("catalog_name"),
        name("schema_name"),
        name("schema_owner"),
        text("default_character_set_name", ""),
        text("sql_path", ""),
    ],
    |scene| {
        let row = |schema: Schema| {
            vec![
                scene.database.into(),
                schema.name().into(),
                "pgweir".into(),
                Cell::Null,
                Cell::Null,
            ]
        };
        Schema::ALL.into_iter().map(row).collect()
    },
);

const VIEWS: Table = standard(
    "views",
    &[
        name("table_catalog"),
        name("table_schema"),
        name("table_name"),
        text("view_definition", ""),
        text("check_option", ""),
        text("is_updatable", ""),
    ],
    none,
);

const ROUTINES: Table = standard(
    "routines",
    &[
        name("specific_catalog"),
        name("specific_schema"),
        name("specific_name"),
        name("routine_catalog"),
        name("routine_schema"),
        name("routine_name"),
        text("routine_type", ""),
        text("data_type", ""),
        text("routine_definition", ""),
    ],
    none,
);

const TABLE_CONSTRAINTS: Table = standard(
    "table_constraints",
    &[
        name("constraint_catalog"),
        name("constraint_schema"),
        name("constraint_name"),
        name("table_catalog"),
        name("table_schema"),
        name("table_name"),
        text("constraint_type", ""),
        text("is_deferrable", ""),
        text("initially_deferred", ""),
    ],
    none,
);

const KEY_COLUMN_USAGE: Table = standard(
    "key_column_usage",
    &[
        name("constraint_catalog"),
        name("constraint_schema"),
        name("constraint_name"),
        name("table_catalog"),
        name("table_schema"),
        name("table_name"),
        name("column_name"),
        int4("ordinal_position", ""),
        int4("position_in_unique_constraint", ""),
    ],
    none,
);

const REFERENTIAL_CONSTRAINTS: Table = standard(
    "referential_constraints",
    &[
        name("constraint_catalog"),
        name("constraint_schema"),
        name("constraint_name"),
        name("unique_constraint_catalog"),
        name("unique_constraint_schema"),
        name("unique_constraint_name"),
        text("match_option", ""),
        text("update_rule", ""),
        text("delete_rule", ""),
    ],
    none,
);
