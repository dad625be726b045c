//! `rules`: `[[rules]]`, in their order.

use pgweir_config::units::{format_duration, format_size};
use pgweir_config::{MaxLag, Rule};

use super::{Changes, Column, NOTHING, Row, Scene, Schema, Table, int4, text};

pub(super) const TABLE: Table = Table {
    schema: Schema::Public,
    name: "rules",
    about: "What to do with statements, by who sends them and what they are. The first that holds wins.",
    columns: COLUMNS,
    changes: Changes::All,
    needs: NOTHING,
    rows,
};

const COLUMNS: &[Column] = &[
    int4(
        "position",
        "Its number, from 1. One that is inserted comes there, or last.",
    ),
    text("name", "What it is called.").changeable(),
    text("user", "It holds for this role.").changeable(),
    text("database", "It holds in this database.").changeable(),
    text("application", "It holds for this `application_name`.").changeable(),
    text("tables", "It holds where one of these is named.").changeable(),
    text("regex", "It holds where this is found in the shape.").changeable(),
    text("fingerprint", "It holds for this shape.").changeable(),
    text("kind", "It holds for statements of this kind.").changeable(),
    text("route", "Where the statement goes.").changeable(),
    text("max_lag", "How far a replica may be behind.").changeable(),
    text("consistency", "What it may see.").changeable(),
    text("timeout", "How long it may run.").changeable(),
    text("block", "It is refused with this message.").changeable(),
];

/// The settings of a rule that are columns here: the column, and the key as an edit that inserts names it.
pub(crate) const KEYS: [(&str, &str); 13] = [
    ("name", "name"),
    ("user", "match.user"),
    ("database", "match.database"),
    ("application", "match.application"),
    ("tables", "match.tables"),
    ("regex", "match.regex"),
    ("fingerprint", "match.fingerprint"),
    ("kind", "match.kind"),
    ("route", "action.route"),
    ("max_lag", "action.max_lag"),
    ("consistency", "action.consistency"),
    ("timeout", "action.timeout"),
    ("block", "action.block"),
];

fn rows(scene: &Scene<'_>) -> Vec<Row> {
    let rules = scene.facts.config.rules.iter().enumerate();
    rules.map(|(index, rule)| row(index + 1, rule)).collect()
}

fn row(position: usize, rule: &Rule) -> Row {
    let Rule {
        name,
        matches,
        action,
    } = rule;
    let tables: Vec<_> = matches.tables.iter().map(ToString::to_string).collect();
    let max_lag = action.max_lag.map(|limit| match limit {
        MaxLag::Time(duration) => format_duration(duration),
        MaxLag::Bytes(bytes) => format_size(bytes),
    });
    vec![
        position.into(),
        name.into(),
        matches.user.as_ref().into(),
        matches.database.as_ref().into(),
        matches.application.as_ref().into(),
        (!tables.is_empty()).then(|| tables.join(", ")).into(),
        matches
            .regex
            .as_ref()
            .map(|regex| regex.regex().as_str())
            .into(),
        matches.fingerprint.map(|one| format!("{one:016x}")).into(),
        matches.kind.map(pgweir_config::RuleKind::name).into(),
        action.route.as_ref().map(ToString::to_string).into(),
        max_lag.into(),
        action
            .consistency
            .map(pgweir_model::Consistency::name)
            .into(),
        action.timeout.map(format_duration).into(),
        action.block.as_ref().into(),
    ]
}
