//! `help`: the tables and commands of the console in words; `help_columns` and `help_commands` in more of them.

use super::{Changes, NOTHING, OWN, Row, Scene, Schema, Table, boolean, text};
use crate::console::command;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "help",
    about: "What there is: tables and commands.",
    columns: &[
        text("kind", "`table` or `command`."),
        text("name", "Its name, or how it is written."),
        text("description", "What it is for."),
    ],
    changes: Changes::None,
    needs: NOTHING,
    rows,
};

pub(super) const COLUMNS_TABLE: Table = Table {
    schema: Schema::Public,
    name: "help_columns",
    about: "The columns of the tables.",
    columns: &[
        text("table_name", "The table."),
        text("column_name", "The column."),
        text("type", "Its type."),
        boolean("changeable", "Whether UPDATE may set it."),
        text("description", "What it means."),
    ],
    changes: Changes::None,
    needs: NOTHING,
    rows: columns,
};

pub(super) const COMMANDS_TABLE: Table = Table {
    schema: Schema::Public,
    name: "help_commands",
    about: "The commands.",
    columns: &[
        text("syntax", "How it is written."),
        boolean("changes", "Whether viewers may not give it."),
        text("description", "What it does."),
    ],
    changes: Changes::None,
    needs: NOTHING,
    rows: commands,
};

fn rows(_: &Scene<'_>) -> Vec<Row> {
    let tables = OWN
        .into_iter()
        .map(|table| vec!["table".into(), table.name.into(), table.about.into()]);
    let commands = command::SYNTAX
        .iter()
        .map(|one| vec!["command".into(), one.text.into(), one.about.into()]);
    tables.chain(commands).collect()
}

fn columns(_: &Scene<'_>) -> Vec<Row> {
    let all = OWN.into_iter().flat_map(|table| {
        table.columns.iter().map(move |column| {
            vec![
                table.name.into(),
                column.name.into(),
                column.ty.sql_name().into(),
                column.changeable.into(),
                column.about.into(),
            ]
        })
    });
    all.collect()
}

fn commands(_: &Scene<'_>) -> Vec<Row> {
    let all = command::SYNTAX.iter();
    all.map(|one| vec![one.text.into(), one.changes.into(), one.about.into()])
        .collect()
}
