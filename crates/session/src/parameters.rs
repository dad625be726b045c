//! Run-time parameters that a session brought along in its startup packet.
//!
//! A shared server connection serves sessions with different parameters. Each connection knows which set it carries;
//! when a session with another set gets it, the difference is sent first, and the session's statement once that has
//! succeeded: a statement never runs with another session's settings.

use std::sync::Arc;

/// The parameters of a startup packet that are run-time settings, sorted by name.
///
/// Sets are interned by the caller: equal `id` means equal contents. Id 0 is the empty set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParameterSet {
    /// Identity for a quick comparison.
    pub id: u64,
    /// Name (lower case) and value.
    pub entries: Vec<(String, String)>,
}

/// A startup parameter that cannot be passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadParameter {
    /// Its name as the client gave it.
    pub name: String,
}

impl ParameterSet {
    /// Collects settings from the parameters of a StartupMessage, reading `options` as the server does
    /// (`-c name=value`, `--name=value`, backslash escapes).
    ///
    /// # Errors
    /// [`BadParameter`] for a name that is none, or an option that is not understood.
    pub fn from_startup<'a>(
        parameters: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Vec<(String, String)>, BadParameter> {
        let mut entries: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| {
            let valid = !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
            if !valid {
                return Err(BadParameter {
                    name: name.to_owned(),
                });
            }
            let name = name.to_ascii_lowercase();
            entries.retain(|(known, _)| *known != name);
            entries.push((name, value.to_owned()));
            Ok(())
        };
        for (name, value) in parameters {
            match name {
                "user" | "database" | "replication" => {}
                "options" => {
                    for (name, value) in read_options(value)? {
                        set(&name, &value)?;
                    }
                }
                _ if name.starts_with("_pq_.") => {}
                _ => set(name, value)?,
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Returns the set of a connection on which these may have been reset: it equals none, and a switch from it sets or
    /// resets every one of them.
    #[must_use]
    pub fn doubtful(&self) -> SharedParameters {
        if self.entries.is_empty() {
            return SharedParameters::default();
        }
        // No value holds a zero byte.
        let doubt = |(name, _): &(String, String)| (name.clone(), "\0".to_owned());
        Arc::new(ParameterSet {
            id: u64::MAX,
            entries: self.entries.iter().map(doubt).collect(),
        })
    }

    /// Returns the SQL that turns a connection that carries `from` into one that carries `self`; empty when they agree.
    ///
    /// Values go through `set_config`, which takes a list-valued setting as one text, as a startup packet does.
    pub fn switch_sql(&self, from: &ParameterSet) -> String {
        let mut sql = String::new();
        for (name, _) in &from.entries {
            if !self.entries.iter().any(|(kept, _)| kept == name) {
                sql.push_str("RESET ");
                sql.push_str(name);
                sql.push(';');
            }
        }
        let mut separator = "SELECT ";
        for entry in &self.entries {
            if from.entries.contains(entry) {
                continue;
            }
            let (name, value) = entry;
            sql.push_str(separator);
            sql.push_str("pg_catalog.set_config('");
            sql.push_str(name);
            sql.push_str("',");
            push_literal(&mut sql, value);
            sql.push_str(",false)");
            separator = ",";
        }
        sql
    }
}

/// Appends `value` as a literal that reads the same whatever `standard_conforming_strings` says.
fn push_literal(sql: &mut String, value: &str) {
    sql.push_str("E'");
    for c in value.chars() {
        match c {
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            _ => sql.push(c),
        }
    }
    sql.push('\'');
}

/// Splits `options` as `pg_split_opts` does and reads `-c name=value`, `-cname=value` and `--name=value`.
fn read_options(options: &str) -> Result<Vec<(String, String)>, BadParameter> {
    let mut words = split_options(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = if let Some(rest) = word.strip_prefix("--") {
            rest.to_owned()
        } else if word == "-c" {
            words.next().unwrap_or_default()
        } else if let Some(rest) = word.strip_prefix("-c") {
            rest.to_owned()
        } else {
            return Err(BadParameter { name: word });
        };
        let Some((name, value)) = setting.split_once('=') else {
            return Err(BadParameter { name: setting });
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut begun = false;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                word.extend(chars.next());
                begun = true;
            }
            c if c.is_ascii_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// A shared, interned set.
pub type SharedParameters = Arc<ParameterSet>;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(id: u64, entries: &[(&str, &str)]) -> ParameterSet {
        ParameterSet {
            id,
            entries: entries
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
        }
    }

    #[test]
    fn reads_options_as_the_server_does() {
        let read = |options| ParameterSet::from_startup([("options", options)].into_iter());
        let ok = |pairs: &[(&str, &str)]| Ok(set(0, pairs).entries);
        assert_eq!(read("-c search_path=a,b"), ok(&[("search_path", "a,b")]));
        assert_eq!(
            read("-cgeqo=off --work-mem=1MB"),
            ok(&[("geqo", "off"), ("work_mem", "1MB")])
        );
        assert_eq!(
            read(r"-c application_name=a\ b\\c"),
            ok(&[("application_name", r"a b\c")])
        );
        assert_eq!(read("  "), ok(&[]));
        assert!(read("-x").is_err());
        assert!(read("-c geqo").is_err());
    }

    #[test]
    fn leaves_out_what_is_no_setting_and_lets_the_last_one_win() {
        let got = ParameterSet::from_startup(
            [
                ("user", "u"),
                ("database", "d"),
                ("TimeZone", "UTC"),
                ("timezone", "CET"),
                ("_pq_.x", "1"),
            ]
            .into_iter(),
        );
        assert_eq!(got, Ok(set(0, &[("timezone", "CET")]).entries));
    }

    #[test]
    fn refuses_a_name_that_could_carry_sql() {
        let got = ParameterSet::from_startup([("a;drop table t", "1")].into_iter());
        assert_eq!(
            got,
            Err(BadParameter {
                name: "a;drop table t".into()
            })
        );
    }

    #[test]
    fn switches_by_the_difference_alone() {
        let a = set(1, &[("application_name", "a"), ("timezone", "CET")]);
        let b = set(2, &[("application_name", "a"), ("search_path", "x, 'y\\")]);
        assert_eq!(
            b.switch_sql(&a),
            "RESET timezone;SELECT pg_catalog.set_config('search_path',E'x, ''y\\\\',false)"
        );
        assert_eq!(a.switch_sql(&a), "");
        assert_eq!(
            set(0, &[]).switch_sql(&a),
            "RESET application_name;RESET timezone;"
        );
    }
}
