//! Every setting as the console shows it: value, default, where it comes from, and what the running proxy uses.

use std::collections::HashMap;

use super::layout::{Layout, Step};
use super::{Document, Origin, path_of, rule_path};
use crate::diff::{Value, entities};
use crate::edit::{Section, SettingRow, SettingSource};
use crate::reference::{self, Kind, Setting, Table};
use crate::settings::Config;

/// The settings of a configuration by their tables.
type Known = HashMap<Section, HashMap<&'static str, Value>>;

/// What the rows are made from.
struct Rows<'d> {
    document: &'d Document,
    /// The text as it is now, and as it was read or saved last.
    layouts: Option<(Layout<'d>, Layout<'d>)>,
    running: Known,
    /// By the number of a rule from 1: that of the same rule in the saved text.
    rules: Vec<Option<usize>>,
    /// The places of the users, now and before: there may be many.
    users: [HashMap<&'d str, usize>; 2],
}

/// A table whose settings are shown.
struct Shown<'s> {
    section: &'s Section,
    /// Where it is in the text.
    here: Option<Vec<Step<'s>>>,
    /// Where it was when the file was read or saved last.
    before: Option<Vec<Step<'s>>>,
    values: HashMap<&'static str, Value>,
}

impl Document {
    /// Returns every setting of every table that there is, in the order of the documentation and of the file. `running` is
    /// the configuration in force.
    pub fn rows(&self, running: &Config) -> Vec<SettingRow> {
        let layouts = Layout::of(&self.text).zip(Layout::of(&self.saved));
        let rules = layouts
            .as_ref()
            .map(|(now, saved)| same_rules(now, saved))
            .unwrap_or_default();
        let rows = Rows {
            document: self,
            layouts,
            running: known(running),
            rules,
            users: [&self.config, &self.saved_config].map(|config| {
                let names = config.users.iter().map(|user| &*user.name);
                names.zip(0..).collect()
            }),
        };
        let mut all = Vec::new();
        for entity in entities(&self.config) {
            let shown = Shown {
                section: &entity.section,
                here: rows.here(&entity.section),
                before: rows.before(&entity.section),
                values: entity.settings.into_iter().collect(),
            };
            let settings = reference::of(entity.section.table());
            all.extend(settings.map(|setting| rows.row(&shown, setting)));
        }
        all
    }
}

/// Takes a configuration apart, a rule being known by its name as well as by its number.
fn known(config: &Config) -> Known {
    entities(config)
        .into_iter()
        .map(|entity| (entity.section, entity.settings.into_iter().collect()))
        .collect()
}

/// Finds each rule of a text in another one. A rule that was moved by an entry in front of it is still the same.
fn same_rules(now: &Layout<'_>, saved: &Layout<'_>) -> Vec<Option<usize>> {
    let of = |layout: &Layout<'_>, index| {
        let mut values: Vec<_> = layout
            .values(&[Step::Entry(Table::Rule.name(), index)])?
            .into_iter()
            .map(|(key, value)| (key, value.to_owned()))
            .collect();
        values.sort();
        Some(values)
    };
    let (count, saved_count) = (
        now.count(Table::Rule.name()),
        saved.count(Table::Rule.name()),
    );
    let before: Vec<_> = (0..saved_count).map(|index| of(saved, index)).collect();
    let place = |index: usize| {
        let rule = of(now, index);
        let same = before.iter().position(|other| *other == rule);
        // One that was changed where it is.
        same.or_else(|| Some(index).filter(|index| count == saved_count && *index < saved_count))
    };
    (0..count)
        .map(|index| place(index).map(|index| index + 1))
        .collect()
}

impl Rows<'_> {
    fn row(&self, at: &Shown<'_>, setting: &'static Setting) -> SettingRow {
        let source = self.source(at, setting);
        let value = match setting.kind {
            Kind::Part => self.part(at.section, setting.key),
            Kind::Path => Written::Text(self.string(at, setting.key)),
            Kind::Password if source == SettingSource::Default => Written::Text(None),
            _ => Written::Known(at.values.get(setting.key)),
        };
        let running = self.running.get(at.section);
        let running = running.and_then(|all| all.get(setting.key));
        let wanted = at.values.get(setting.key);
        let needs_restart = wanted.is_some() && running != wanted;
        let shown = |value: Option<&Value>| value.cloned().and_then(Value::shown);
        let default = setting.default.map(bare);
        SettingRow {
            section: at.section.clone(),
            path: at.section.to_string(),
            name: setting.key,
            value: match (value, source, default) {
                (Written::Text(text), ..) => text,
                // As the documentation writes it.
                (Written::Known(_), SettingSource::Default, Some(default)) => {
                    Some(default.to_owned())
                }
                (Written::Known(value), ..) => shown(value),
            },
            running: shown(running).filter(|_| needs_restart),
            unit: "",
            takes: setting.kind.describe(),
            default,
            source,
            is_changeable: setting.reloadable
                && setting.kind != Kind::Part
                && !self.document.is_overridden(at.section, setting.key),
            needs_restart,
            about: setting.about,
        }
    }

    /// Shows a table of its own: its settings are rows themselves.
    fn part(&self, section: &Section, key: &str) -> Written<'static> {
        let config = &self.document.config;
        let rule = |number: &usize| config.rules.get(number.checked_sub(1)?);
        let text = match (section, key) {
            (Section::Rule(number), "match") => rule(number).map(|rule| rule.matches.to_string()),
            (Section::Rule(number), "action") => rule(number).map(|rule| rule.action.to_string()),
            _ => None,
        };
        Written::Text(text)
    }

    fn string(&self, at: &Shown<'_>, key: &str) -> Option<String> {
        self.layouts.as_ref()?.0.string(at.here.as_deref()?, key)
    }

    fn source(&self, at: &Shown<'_>, setting: &Setting) -> SettingSource {
        if self.document.is_overridden(at.section, setting.key) {
            return SettingSource::CommandLine;
        }
        let (Some((now, saved)), Some(here)) = (&self.layouts, at.here.as_deref()) else {
            return SettingSource::Default;
        };
        let key = setting.key;
        let is_table = matches!(setting.kind, Kind::Part | Kind::Backends);
        let is_given = match is_table {
            true => now.has(here, key),
            false => now.value(here, key).is_some(),
        };
        let is_saved = at.before.as_deref().is_some_and(|before| match is_table {
            // Its settings say themselves where they come from.
            true => saved.has(before, key) == is_given,
            false => saved.value(before, key) == now.value(here, key),
        });
        match (is_given, is_saved, &self.document.origin) {
            (false, true, _) => SettingSource::Default,
            (true, true, Origin::File(_)) => SettingSource::File,
            (true, true, Origin::Upstreams(_)) => SettingSource::CommandLine,
            // In a table that is new, what is not given was never given.
            (false, false, _) if at.before.is_none() => SettingSource::Default,
            (_, false, _) => SettingSource::Console,
        }
    }

    fn here<'s>(&self, section: &'s Section) -> Option<Vec<Step<'s>>> {
        let [users, _] = &self.users;
        place_of(&self.document.config, users, section)
    }

    fn before<'s>(&self, section: &'s Section) -> Option<Vec<Step<'s>>> {
        let rule = |number: &usize| {
            let index = number.checked_sub(1)?;
            let number = self.rules.get(index).copied().flatten()?;
            Some(rule_path(section.table(), number))
        };
        match section {
            Section::Rule(number) | Section::RuleMatch(number) | Section::RuleAction(number) => {
                rule(number)
            }
            section => {
                let [_, users] = &self.users;
                place_of(&self.document.saved_config, users, section)
            }
        }
    }
}

/// Does as [`path_of`] does, without looking through all users for one.
fn place_of<'s>(
    config: &Config,
    users: &HashMap<&str, usize>,
    section: &'s Section,
) -> Option<Vec<Step<'s>>> {
    match section {
        Section::User(name) => {
            let index = *users.get(name.as_str())?;
            Some(vec![Step::Entry(Table::User.name(), index)])
        }
        section => path_of(config, section),
    }
}

/// A value, or a text that stands for one.
enum Written<'v> {
    Known(Option<&'v Value>),
    Text(Option<String>),
}

/// Returns a default without the quotes and brackets of TOML.
fn bare(default: &'static str) -> &'static str {
    let inner = |text: &'static str, open, close| text.strip_prefix(open)?.strip_suffix(close);
    let text = inner(default, '[', ']').unwrap_or(default);
    inner(text, '"', '"').unwrap_or(text)
}
