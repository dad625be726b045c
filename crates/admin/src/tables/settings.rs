//! `settings`: every setting with its value.

use pgweir_config::{Section, SettingRow};

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, boolean, text};
use crate::facts::Wanted;

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "settings",
    about: "Every setting of the configuration. What is changed here is lost at a restart unless `SAVE CONFIG` writes it back.",
    columns: COLUMNS,
    changes: Changes::Update,
    needs: Wanted {
        settings: true,
        ..NOTHING
    },
    rows,
};

const COLUMNS: &[Column] = &[
    text(
        "name",
        "Its name; those of a rule begin with `match.` or `action.`.",
    ),
    text(
        "value",
        "Its value as people write it; `***` for a secret. NULL brings the default back.",
    )
    .changeable(),
    text(
        "unit",
        "The unit of a bare number: always empty, as a duration or a size is written with its unit (`500ms`, `16MB`), and refused without.",
    ),
    text("source", "`default`, `file`, `command line` or `console`."),
    boolean(
        "changeable",
        "Whether the running proxy can take another value.",
    ),
    boolean(
        "restart_needed",
        "It has been changed and holds only after a restart.",
    ),
    text("description", "What it means."),
    text(
        "section",
        "Its table, as in `server`, `clusters.main`, `databases.app`.",
    ),
    text("default_value", "What holds where none is given."),
    text("takes", "What it takes, in words."),
    text(
        "running_value",
        "What the running proxy uses, where that is another one until a restart.",
    ),
];

/// Returns the name of a setting here: what a rule does to statements is told apart from the setting that it stands above,
/// so that `WHERE name = 'max_lag'` means the clusters' alone.
fn shown_name(row: &SettingRow) -> String {
    match row.section {
        Section::RuleMatch(_) => format!("match.{}", row.name),
        Section::RuleAction(_) => format!("action.{}", row.name),
        _ => row.name.to_owned(),
    }
}

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let settings = scene.facts.settings.iter();
    settings
        .map(|setting| {
            vec![
                shown_name(setting).into(),
                setting.value.as_deref().into(),
                setting.unit.into(),
                setting.source.name().into(),
                setting.is_changeable.into(),
                setting.needs_restart.into(),
                setting.about.into(),
                setting.path.as_str().into(),
                setting.default.into(),
                setting.takes.as_str().into(),
                setting.running.as_deref().into(),
            ]
        })
        .collect()
}
