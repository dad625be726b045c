//! Reads `[[rules]]`: what each entry says, and whether what it names exists.

use std::collections::HashSet;
use std::sync::Arc;

use toml::de::DeTable;

use super::section::{Reader, Section};
use super::value::{self, Wrong, kind_of};
use crate::reference::{self, Table};
use crate::rules::{RULES_LIMIT, Rule, RuleAction, RuleMatch, RuleRoute};
use crate::settings::{Cluster, Database, User};

/// What a rule may name.
pub(super) struct Known<'a> {
    pub(super) clusters: &'a [Cluster],
    pub(super) databases: &'a [Database],
    pub(super) users: &'a [User],
}

/// Reads all rules, in the order of the file.
pub(super) fn rules(reader: &Reader<'_>, tree: &DeTable<'_>, known: &Known<'_>) -> Vec<Rule> {
    let Some((key, value)) = tree.get_key_value("rules") else {
        return Vec::new();
    };
    let at = key.span().start;
    let Some(entries) = value.get_ref().as_array() else {
        let message = format!("expected [[rules]], found {}", kind_of(value.get_ref()));
        reader.problem(at, "rules".to_owned(), Wrong::new(message));
        return Vec::new();
    };
    if entries.len() > RULES_LIMIT {
        let message = format!("{} are more than {RULES_LIMIT}", entries.len());
        reader.problem(at, "rules".to_owned(), Wrong::new(message));
        return Vec::new();
    }
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = entry.span().start;
        let label = "[[rules]]".to_owned();
        let Some(mut section) = Section::of(reader, Table::Rule, label, at, entry) else {
            continue;
        };
        let rule = rule(&mut section, index, known);
        if !names.insert(Arc::clone(&rule.name)) {
            let message = format!("{} is there twice", rule.name);
            section.problem(at, "name", Wrong::new(message));
        }
        section.finish();
        all.push(rule);
    }
    all
}

fn rule(section: &mut Section<'_, '_>, index: usize, known: &Known<'_>) -> Rule {
    let name = section.name("name");
    let matches = part(section, "match", Table::RuleMatch)
        .map(|mut part| {
            let matches = matches(&mut part, known);
            part.finish();
            matches
        })
        .unwrap_or_default();
    let action = part(section, "action", Table::RuleAction)
        .map(|mut part| {
            let action = action(&mut part, known);
            part.finish();
            action
        })
        .unwrap_or_default();
    Rule {
        name: name.unwrap_or_else(|| (index + 1).to_string().into()),
        matches,
        action,
    }
}

/// Opens `match` or `action`: both must be there, so that nobody writes a rule for everything by forgetting a line.
fn part<'r, 'i>(
    rule: &mut Section<'r, 'i>,
    key: &'static str,
    table: Table,
) -> Option<Section<'r, 'i>> {
    if !rule.has(key) {
        rule.problem(rule.at(), key, Wrong::new("missing"));
    }
    rule.part(key, table)
}

fn matches(section: &mut Section<'_, '_>, known: &Known<'_>) -> RuleMatch {
    let (user_at, database_at) = (section.place_of("user"), section.place_of("database"));
    let matches = RuleMatch {
        user: section.name("user"),
        database: section.name("database"),
        application: section.name("application"),
        tables: section
            .optional("tables", |_, value| value::tables(value))
            .unwrap_or_default(),
        regex: section.optional("regex", |_, value| value::pattern(value)),
        fingerprint: section.optional("fingerprint", |_, value| value::fingerprint(value)),
        kind: section.optional("kind", value::word),
    };
    if let Some(user) = &matches.user
        && !known.users.is_empty()
        && !known.users.iter().any(|other| other.name == *user)
    {
        let nearest = reference::nearest(user, known.users.iter().map(|user| &*user.name));
        let wrong = Wrong::new(format!("there is no user {user}")).suggest(nearest);
        section.problem(user_at, "user", wrong);
    }
    let names = || known.databases.iter().map(|database| &*database.name);
    if let Some(database) = &matches.database
        && !names().any(|name| name == "*" || *name == **database)
    {
        let nearest = reference::nearest(database, names());
        let wrong = Wrong::new(format!("there is no [databases.{database}]")).suggest(nearest);
        section.problem(database_at, "database", wrong);
    }
    matches
}

fn action(section: &mut Section<'_, '_>, known: &Known<'_>) -> RuleAction {
    let at = section.at();
    let route_at = section.place_of("route");
    let is_empty = !section.has_any();
    let action = RuleAction {
        route: section.name("route").map(route),
        max_lag: section.optional("max_lag", |_, value| value::max_lag(value)),
        consistency: section.optional("consistency", value::word),
        timeout: section.optional("timeout", value::duration),
        block: section.optional("block", |_, value| value::name(value)),
    };
    if is_empty {
        let keys: Vec<_> = reference::of(Table::RuleAction)
            .map(|key| key.key)
            .collect();
        let message = format!("says nothing; known are {}", keys.join(", "));
        section.whole_problem(at, Wrong::new(message));
    }
    let others = action.route.is_some()
        || action.max_lag.is_some()
        || action.consistency.is_some()
        || action.timeout.is_some();
    if action.block.is_some() && others {
        let message = "stands alone: what is refused goes nowhere";
        section.problem(at, "block", Wrong::new(message));
    }
    let backends = || known.clusters.iter().flat_map(|cluster| &cluster.backends);
    if let Some(RuleRoute::Backend(name)) = &action.route
        && !backends().any(|backend| backend.name == *name)
    {
        let words = ["auto", "primary", "replica"].into_iter();
        let names = words.chain(backends().map(|backend| &*backend.name));
        let nearest = reference::nearest(name, names);
        let message = format!("{name:?} is none of auto, primary, replica, and no backend");
        section.problem(route_at, "route", Wrong::new(message).suggest(nearest));
    }
    action
}

fn route(word: Arc<str>) -> RuleRoute {
    match &*word {
        "auto" => RuleRoute::Auto,
        "primary" => RuleRoute::Primary,
        "replica" => RuleRoute::Replica,
        _ => RuleRoute::Backend(word),
    }
}
