//! Parameters of a session that drivers set and show. The console keeps them; none changes what it does.

use std::collections::BTreeMap;

use pgweir_config::reference::nearest;

use super::answer::refusal;
use crate::control::Refusal;
use crate::tables::Row;

/// The version that drivers are told: the newest whose catalog is imitated.
pub(crate) const SERVER_VERSION: &str = concat!("15.0 (pgweir ", env!("CARGO_PKG_VERSION"), ")");

/// Every parameter with its value at login.
pub(crate) const DEFAULTS: [(&str, &str); 40] = [
    ("application_name", ""),
    ("backslash_quote", "safe_encoding"),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("DateStyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("enable_hashjoin", "on"),
    ("enable_nestloop", "on"),
    ("escape_string_warning", "on"),
    ("extra_float_digits", "1"),
    ("geqo", "on"),
    ("idle_in_transaction_session_timeout", "0"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("IntervalStyle", "postgres"),
    ("is_superuser", "off"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("role", "none"),
    ("row_security", "on"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "150000"),
    ("session_authorization", ""),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("synchronous_commit", "on"),
    ("TimeZone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
];

/// Those that a client is told at login, and when they change.
pub(crate) const REPORTED: [&str; 11] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "standard_conforming_strings",
];

/// Those that stay as they are whatever a client sets: the console writes moments in UTC and ISO, and texts in UTF-8.
const FIXED: [&str; 6] = [
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
    "bytea_output",
];

/// Those that cannot be set.
const READ_ONLY: [&str; 9] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "lc_collate",
    "lc_ctype",
    "max_identifier_length",
    "server_encoding",
    "server_version",
    "server_version_num",
];

/// Most parameters of a name of two parts that a session may make up, and the most bytes of a value. Chosen: drivers make up
/// a few.
const OWN_LIMIT: usize = 100;
const VALUE_LIMIT: usize = 4096;

/// Returns the value at login, whatever the case of the name.
pub(crate) fn default_of(name: &str) -> Option<&'static str> {
    let found = DEFAULTS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value)
}

fn known(name: &str) -> Option<&'static str> {
    let found = DEFAULTS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(known, _)| *known)
}

/// The parameters of one session.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    set: BTreeMap<String, String>,
    /// Those of the startup packet, which RESET goes back to.
    startup: BTreeMap<String, String>,
    user: String,
}

impl Parameters {
    /// Starts with those of the startup packet; unknown ones are left out.
    pub(crate) fn new(user: &str, startup: &[(String, String)]) -> Parameters {
        let mut parameters = Parameters {
            user: user.to_owned(),
            ..Parameters::default()
        };
        for (name, value) in startup {
            // A driver that names what is not known here is served all the same.
            let _unknown = parameters.set(name, Some(value));
        }
        parameters.startup = parameters.set.clone();
        parameters
    }

    /// Returns a value.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn show(&self, name: &str) -> Result<String, Refusal> {
        if name.eq_ignore_ascii_case("session_authorization") {
            return Ok(self.user.clone());
        }
        let key = known(name).unwrap_or(name);
        let set = self.set.get(&key.to_lowercase());
        set.map(String::as_str)
            .or(default_of(name))
            .map(str::to_owned)
            .ok_or_else(|| unknown(name))
    }

    /// Returns every one with its value, and no words about it.
    pub(crate) fn all(&self) -> Vec<Row> {
        let shown = DEFAULTS
            .iter()
            .filter_map(|(name, _)| Some((*name, self.show(name).ok()?)));
        shown
            .map(|(name, value)| vec![name.into(), value.into(), "".into()])
            .collect()
    }

    /// Sets one, or brings back its value at login.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be set.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Refusal> {
        let own = name.contains('.');
        let Some(key) = known(name).or(own.then_some("")) else {
            return Err(unknown(name));
        };
        let is = |list: &[&str]| list.contains(&key);
        if is(&READ_ONLY) {
            return Err(refusal(
                b"55P02",
                format!("parameter \"{key}\" cannot be changed"),
            ));
        }
        if key == "client_encoding" && !value.is_none_or(is_utf8) {
            let message = "the console speaks UTF8 only";
            return Err(refusal(b"22023", message));
        }
        if is(&FIXED) {
            return Ok(());
        }
        let lower = name.to_lowercase();
        match value.or(self.startup.get(&lower).map(String::as_str)) {
            None => self.set.remove(&lower),
            Some(value) if value.len() > VALUE_LIMIT => {
                return Err(refusal(
                    b"22023",
                    format!("the value of \"{name}\" is too long"),
                ));
            }
            Some(_) if self.set.len() >= OWN_LIMIT && !self.set.contains_key(&lower) => {
                return Err(refusal(b"53400", "too many parameters"));
            }
            Some(value) => self.set.insert(lower, value.to_owned()),
        };
        Ok(())
    }

    /// Brings all values at login back.
    pub(crate) fn reset(&mut self) {
        self.set.clone_from(&self.startup);
    }
}

fn is_utf8(value: &str) -> bool {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    ["utf8", "unicode", "sqlascii", "default"].contains(&plain.to_ascii_lowercase().as_str())
}

fn unknown(name: &str) -> Refusal {
    let names = DEFAULTS.iter().map(|(known, _)| *known);
    let meant = nearest(name, names.chain(super::command::show_names()));
    Refusal {
        hint: Some(match meant {
            Some(meant) => format!("Perhaps you meant \"{meant}\"."),
            None => "Those of the proxy are rows: UPDATE settings SET value = ... WHERE name = ..."
                .to_owned(),
        }),
        ..refusal(
            b"42704",
            format!("unrecognized configuration parameter \"{name}\""),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_set_shown_and_reset() {
        let mut parameters =
            Parameters::new("ada", &[("Application_Name".to_owned(), "x".to_owned())]);
        assert_eq!(parameters.show("application_name"), Ok("x".to_owned()));
        assert_eq!(parameters.set("application_name", Some("y")), Ok(()));
        assert_eq!(parameters.show("APPLICATION_NAME"), Ok("y".to_owned()));
        parameters.reset();
        assert_eq!(parameters.show("application_name"), Ok("x".to_owned()));
        assert_eq!(
            parameters.show("session_authorization"),
            Ok("ada".to_owned())
        );
        assert_eq!(parameters.set("my.own", Some("1")), Ok(()));
        assert_eq!(parameters.show("my.own"), Ok("1".to_owned()));
    }

    #[test]
    fn what_the_console_cannot_be_is_refused_or_ignored() {
        let mut parameters = Parameters::new("ada", &[]);
        assert_eq!(parameters.set("timezone", Some("Asia/Tokyo")), Ok(()));
        assert_eq!(parameters.show("TimeZone"), Ok("UTC".to_owned()));
        assert_eq!(
            parameters
                .set("client_encoding", Some("'LATIN1'"))
                .unwrap_err()
                .sqlstate,
            *b"22023"
        );
        assert_eq!(
            parameters
                .set("server_version", Some("9"))
                .unwrap_err()
                .sqlstate,
            *b"55P02"
        );
        let refused = parameters.show("server_versoin").unwrap_err();
        assert_eq!(refused.sqlstate, *b"42704");
        assert!(refused.hint.unwrap().contains("server_version"));
    }
}
