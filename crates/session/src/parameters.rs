//! Run-time parameters of a session: those of its startup packet and those it has SET since.
//!
//! A shared server connection serves sessions with different parameters. Each connection knows which set it carries;
//! when a session with another set gets it, the difference goes in front of the session's statement, which the
//! server skips should that fail: a statement never runs with another session's settings.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The settings of a session or of a server connection beyond the connection's own, sorted by name.
///
/// Equal `id` means equal contents. Id 0 is the empty set.
#[derive(Debug, Clone, Default)]
pub struct ParameterSet {
    /// Identity for a quick comparison, made of the contents. To find another set with the number of a given one takes 2^64
    /// attempts; whoever finds two of his own with one number confuses himself.
    pub id: u64,
    entries: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Setting {
    /// The parameter's name, lower case.
    pub name: Box<str>,
    /// What it is set to.
    pub value: Value,
}

/// What a parameter is set to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A value as a startup packet gives it.
    Text(Box<str>),
    /// What a statement of the client sets.
    Statement {
        /// The statement, in the client's encoding.
        sql: Box<[u8]>,
        /// The values, where they are plain words or literals.
        words: Option<Box<[String]>>,
    },
}

/// A startup parameter that cannot be passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadParameter {
    /// Its name as the client gave it.
    pub name: String,
}

/// The parameters that say who the session is. They are set last, as that may take away the right to set others, and
/// undone first.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];

/// The parameters that give a text its meaning when it is parsed.
const READ_BY: [&str; 19] = [
    "array_nulls",
    "backslash_quote",
    "datestyle",
    "default_text_search_config",
    "escape_string_warning",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "operator_precedence_warning",
    "role",
    "search_path",
    "session_authorization",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

impl ParameterSet {
    /// Makes the set of a startup packet, under an id of its own.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        let entry = |(name, value): (String, String)| Setting {
            name: name.into(),
            value: Value::Text(value.into()),
        };
        ParameterSet::of(pairs.into_iter().map(entry).collect())
    }

    fn of(mut entries: Vec<Setting>) -> Self {
        if entries.is_empty() {
            return ParameterSet::default();
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        ParameterSet {
            id: number_of(&entries),
            entries,
        }
    }

    /// Returns the settings, sorted by name.
    pub fn entries(&self) -> &[Setting] {
        &self.entries
    }

    /// Returns what `name` (lower case) is set to.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.entries.iter().find(|entry| &*entry.name == name);
        found.map(|entry| &entry.value)
    }

    /// Returns a statement that sets one of the parameters, `local` to the transaction if that is asked; `SELECT` where it is not
    /// in the set.
    pub fn setting_sql(&self, name: &str, local: bool) -> Vec<u8> {
        let mut sql = Vec::new();
        match self.get(name) {
            Some(Value::Text(value)) => push_set(&mut sql, name, value, local),
            Some(Value::Statement { sql: statement, .. }) => sql.extend_from_slice(statement),
            None => sql.extend_from_slice(b"SELECT"),
        }
        sql
    }

    /// Returns a number that stands for those of the settings that give a text its meaning when it is parsed: which objects
    /// its names stand for, which types its parameters get, how its constants are read. 0 where none of them is set.
    pub fn reading(&self) -> u64 {
        let is_read_by = |entry: &&Setting| READ_BY.contains(&&*entry.name);
        let mut found = self.entries.iter().filter(is_read_by).peekable();
        match found.peek() {
            Some(_) => number_of(found),
            None => 0,
        }
    }

    /// Returns whether a connection that carries one set needs no change to carry the other.
    pub fn same(&self, other: &ParameterSet) -> bool {
        self.id == other.id
    }

    /// Returns the set with one setting made, `None` for one taken out.
    #[must_use]
    pub fn with(&self, name: &str, value: Option<Value>) -> SharedParameters {
        let others = self.entries.iter().filter(|entry| &*entry.name != name);
        let mut entries: Vec<Setting> = others.cloned().collect();
        entries.extend(value.map(|value| Setting {
            name: name.into(),
            value,
        }));
        Arc::new(ParameterSet::of(entries))
    }

    /// Returns the set after `RESET ALL` on a session that began with `startup`: who it is stays.
    #[must_use]
    pub fn reset_all(&self, startup: &ParameterSet) -> SharedParameters {
        let is_identity = |entry: &&Setting| IDENTITY.contains(&&*entry.name);
        let mut entries: Vec<Setting> = self.entries.iter().filter(is_identity).cloned().collect();
        let others = startup.entries.iter().filter(|entry| !is_identity(entry));
        entries.extend(others.cloned());
        Arc::new(ParameterSet::of(entries))
    }

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
        // What stands in `options` is set first, wherever it stands in the packet.
        let parameters: Vec<_> = parameters.collect();
        for (_, options) in parameters.iter().filter(|(name, _)| *name == "options") {
            for (name, value) in read_options(options)? {
                set(&name, &value)?;
            }
        }
        for (name, value) in parameters {
            match name {
                "user" | "database" | "replication" | "options" => {}
                _ if name.starts_with("_pq_.") => {}
                _ => set(name, value)?,
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Returns the SQL that turns a connection that carries `from` into one that carries `self`; empty when they agree.
    ///
    /// Values of startup packets go through `set_config`, which takes a list-valued setting as one text, as the packet does.
    pub fn switch_sql(&self, from: &ParameterSet) -> Vec<u8> {
        let mut sql = Vec::new();
        let differs = |name: &&str| self.get(name) != from.get(name);
        let switches_identity = IDENTITY.iter().any(differs);
        if switches_identity && IDENTITY.iter().any(|name| from.get(name).is_some()) {
            sql.extend_from_slice(b"RESET SESSION AUTHORIZATION;RESET ROLE;");
        }
        let is_identity = |entry: &&Setting| IDENTITY.contains(&&*entry.name);
        for entry in from.entries.iter().filter(|entry| !is_identity(entry)) {
            if self.get(&entry.name).is_none() {
                sql.extend_from_slice(b"RESET ");
                push_name(&mut sql, &entry.name);
                sql.push(b';');
            }
        }
        let mut texts = Vec::new();
        for entry in self.entries.iter().filter(|entry| !is_identity(entry)) {
            if from.get(&entry.name) == Some(&entry.value) {
                continue;
            }
            match &entry.value {
                Value::Text(value) => push_set_config(&mut texts, &entry.name, value, false),
                Value::Statement { sql: statement, .. } => {
                    sql.extend_from_slice(statement);
                    // A comment may stand at its end.
                    sql.extend_from_slice(b"\n;");
                }
            }
        }
        if !texts.is_empty() {
            sql.extend_from_slice(&texts);
            sql.push(b';');
        }
        if switches_identity {
            self.push_identity(&mut sql);
        }
        sql
    }

    fn push_identity(&self, sql: &mut Vec<u8>) {
        for name in IDENTITY {
            match self.get(name) {
                Some(Value::Text(value)) => push_set_config(sql, name, value, false),
                Some(Value::Statement { sql: statement, .. }) => sql.extend_from_slice(statement),
                None => continue,
            }
            sql.extend_from_slice(b"\n;");
        }
    }
}

/// Returns the number that stands for some settings: never 0, and never the one that stands for none in particular.
fn number_of<'a>(entries: impl IntoIterator<Item = &'a Setting>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for entry in entries {
        entry.hash(&mut hasher);
    }
    hasher.finish().clamp(1, u64::MAX - 1)
}

/// Appends one more `set_config` to a SELECT, or begins it.
fn push_set_config(sql: &mut Vec<u8>, name: &str, value: &str, local: bool) {
    let is_first = sql.last().is_none_or(|byte| !matches!(byte, b')'));
    sql.extend_from_slice(if is_first { b"SELECT " } else { b"," });
    sql.extend_from_slice(b"pg_catalog.set_config('");
    sql.extend_from_slice(name.as_bytes());
    sql.extend_from_slice(b"',");
    push_literal(sql, value);
    sql.extend_from_slice(if local { b",true)" } else { b",false)" });
}

/// Appends a SET: unlike `set_config` it takes no snapshot, so a transaction may still be given its modes behind it.
fn push_set(sql: &mut Vec<u8>, name: &str, value: &str, local: bool) {
    let elements = match QUOTED_LISTS.contains(&name) {
        true => split_list(value),
        false => Some(vec![value.to_owned()]),
    };
    let Some(elements) = elements.filter(|elements| !elements.is_empty()) else {
        return push_set_config(sql, name, value, local);
    };
    sql.extend_from_slice(if local { b"SET LOCAL " } else { b"SET " });
    push_name(sql, name);
    for (index, element) in elements.iter().enumerate() {
        sql.extend_from_slice(if index == 0 { b" TO " } else { b"," });
        push_literal(sql, element);
    }
}

/// The parameters whose SET quotes each element of a list, so that a list must be given element by element.
const QUOTED_LISTS: [&str; 5] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
];

/// Splits a list of identifiers as `SplitIdentifierString` does; `None` where it is none.
fn split_list(text: &str) -> Option<Vec<String>> {
    let mut elements = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (element, behind) = if let Some(quoted) = rest.strip_prefix('"') {
            let mut element = String::new();
            let mut behind = quoted;
            loop {
                let end = behind.find('"')?;
                element.push_str(behind.get(..end)?);
                behind = behind.get(end + 1..)?;
                match behind.strip_prefix('"') {
                    Some(after) => {
                        element.push('"');
                        behind = after;
                    }
                    None => break (element, behind),
                }
            }
        } else {
            let end = rest
                .find(|c: char| c == ',' || c.is_ascii_whitespace())
                .unwrap_or(rest.len());
            (rest.get(..end)?.to_ascii_lowercase(), rest.get(end..)?)
        };
        if element.is_empty() {
            return None;
        }
        elements.push(element);
        let behind = behind.trim_start();
        rest = match behind.strip_prefix(',') {
            Some(next) if !next.trim_start().is_empty() => next.trim_start(),
            None if behind.is_empty() => behind,
            _ => return None,
        };
    }
    Some(elements)
}

/// Appends a parameter's name, part by part in quotes: a custom one may be spelled like a keyword.
fn push_name(sql: &mut Vec<u8>, name: &str) {
    for (index, part) in name.split('.').enumerate() {
        if index > 0 {
            sql.push(b'.');
        }
        sql.push(b'"');
        sql.extend_from_slice(part.replace('"', "\"\"").as_bytes());
        sql.push(b'"');
    }
}

/// Appends `value` as a literal that reads the same whatever `standard_conforming_strings` says.
fn push_literal(sql: &mut Vec<u8>, value: &str) {
    sql.extend_from_slice(b"E'");
    for byte in value.bytes() {
        match byte {
            b'\'' => sql.extend_from_slice(b"''"),
            b'\\' => sql.extend_from_slice(b"\\\\"),
            _ => sql.push(byte),
        }
    }
    sql.push(b'\'');
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

    fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        entries.iter().map(owned).collect()
    }

    fn set(entries: &[(&str, &str)]) -> ParameterSet {
        ParameterSet::from_pairs(pairs(entries))
    }

    fn statement(sql: &str) -> Option<Value> {
        Some(Value::Statement {
            sql: sql.as_bytes().into(),
            words: None,
        })
    }

    fn switch(to: &ParameterSet, from: &ParameterSet) -> String {
        String::from_utf8(to.switch_sql(from)).expect("text")
    }

    #[test]
    fn reads_options_as_the_server_does() {
        let read = |options| ParameterSet::from_startup([("options", options)].into_iter());
        let ok = |entries: &[(&str, &str)]| Ok(pairs(entries));
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
        assert_eq!(got, Ok(pairs(&[("timezone", "CET")])));
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
    fn lists_are_set_element_by_element() {
        let sql = |name, value| {
            let set = set(&[(name, value)]);
            String::from_utf8(set.setting_sql(name, true)).expect("text")
        };
        assert_eq!(
            sql("search_path", r#" App, "$user","a ""b""" "#),
            r#"SET LOCAL "search_path" TO E'app',E'$user',E'a "b"'"#
        );
        assert_eq!(
            sql("datestyle", "ISO, DMY"),
            r#"SET LOCAL "datestyle" TO E'ISO, DMY'"#
        );
        for odd in ["", "a,", "a b", "\"a"] {
            assert!(sql("search_path", odd).starts_with("SELECT pg_catalog.set_config("));
        }
    }

    #[test]
    fn switches_by_the_difference_alone() {
        let a = set(&[("application_name", "a"), ("timezone", "CET")]);
        let b = set(&[("application_name", "a"), ("search_path", "x, 'y\\")]);
        assert_eq!(
            switch(&b, &a),
            "RESET \"timezone\";SELECT pg_catalog.set_config('search_path',E'x, ''y\\\\',false);"
        );
        assert_eq!(switch(&a, &a), "");
        assert_eq!(
            switch(&set(&[]), &a),
            "RESET \"application_name\";RESET \"timezone\";"
        );
        assert_eq!(
            switch(&set(&[("a.x", "1"), ("b", "2")]), &set(&[])),
            "SELECT pg_catalog.set_config('a.x',E'1',false),pg_catalog.set_config('b',E'2',false);"
        );
    }

    #[test]
    fn who_the_session_is_comes_last_and_is_undone_first() {
        let plain = set(&[("timezone", "CET")]);
        let boss = plain.with("role", statement("SET ROLE boss"));
        let clerk = plain
            .with("role", statement("SET ROLE clerk -- x"))
            .with(
                "session_authorization",
                statement("SET SESSION AUTHORIZATION app"),
            )
            .with("timezone", statement("SET TIME ZONE 'UTC'"));
        assert_eq!(switch(&boss, &plain), "SET ROLE boss\n;");
        assert_eq!(
            switch(&clerk, &boss),
            "RESET SESSION AUTHORIZATION;RESET ROLE;SET TIME ZONE 'UTC'\n;\
             SET SESSION AUTHORIZATION app\n;SET ROLE clerk -- x\n;"
        );
        assert_eq!(
            switch(&plain, &boss),
            "RESET SESSION AUTHORIZATION;RESET ROLE;"
        );
        assert_eq!(switch(&boss, &boss), "");
    }

    #[test]
    fn sets_with_the_same_contents_need_no_switch() {
        let a = set(&[("timezone", "CET")]);
        let b = set(&[("timezone", "CET")]);
        assert!(a.id == b.id && a.same(&b));
        assert!(!a.same(&set(&[("timezone", "UTC")])));
    }

    #[test]
    fn reset_all_leaves_who_the_session_is() {
        let startup = set(&[("timezone", "CET")]);
        let now = startup
            .with("role", statement("SET ROLE boss"))
            .with("timezone", None)
            .with("geqo", statement("SET geqo TO off"));
        let after = now.reset_all(&startup);
        assert_eq!(after.entries().len(), 2);
        assert_eq!(after.get("timezone"), Some(&Value::Text("CET".into())));
        assert_eq!(after.get("role"), statement("SET ROLE boss").as_ref());
    }
}
