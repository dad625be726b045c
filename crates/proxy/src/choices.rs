//! What a session chose for itself: the settings `pgweir.*`, from text to what they mean.
//!
//! The session's state keeps them as text, so that they follow transactions and savepoints as PostgreSQL's settings do
//! ([`pgweir_session::state::Own`]); here they are read, once per change.
//!
//! A session's default, to which RESET returns, is what its startup packet said, else what the configuration says of its
//! database.

use pgweir_config::units::{format_duration, format_size};
use pgweir_config::{MaxLag as ConfiguredLag, TransactionReads};
use pgweir_consistency::MaxLag;
use pgweir_model::{Consistency, Lsn};
use pgweir_route::{Asks, RouteSetting};
use pgweir_session::state::Own;

use crate::fault::Fault;

/// The first part of the names of our settings.
pub(crate) const PREFIX: &str = "pgweir.";

/// Defines the settings with their names.
macro_rules! settings {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A setting of ours.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Setting { $($(#[$doc])* $variant,)* }

        impl Setting {
            /// Every one, in the order in which errors list them.
            pub(crate) const ALL: &'static [Setting] = &[$(Setting::$variant,)*];

            /// Returns its full name, which is that of the column of `SHOW`, too.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Setting::$variant => $name,)* }
            }

            /// Returns the column that is named after it.
            fn column(self) -> &'static [&'static str] {
                match self { $(Setting::$variant => &[$name],)* }
            }
        }
    };
}

settings! {
    /// Where its statements go.
    Route = "pgweir.route",
    /// What its reads may see.
    Consistency = "pgweir.consistency",
    /// How far a replica may be behind for its reads.
    MaxLag = "pgweir.max_lag",
    /// A position that its reads must be shown, as another session's `pgweir.lsn` gave it.
    MinLsn = "pgweir.min_lsn",
    /// Where the reads of its transactions run.
    TransactionReads = "pgweir.transaction_reads",
    /// Where its last batch went, and why.
    LastRoute = "pgweir.last_route",
    /// Why it stays on its server connection.
    Pinned = "pgweir.pinned",
    /// A position in the WAL at or above all that it has written.
    Lsn = "pgweir.lsn",
    /// What would have gone where, of the session's database.
    Observed = "pgweir.observed",
    /// This program's version.
    Version = "pgweir.version",
}

impl Setting {
    /// Finds a setting by its full name, lower case.
    pub(crate) fn find(name: &str) -> Result<Setting, Fault> {
        let found = Setting::ALL.iter().find(|setting| setting.name() == name);
        found.copied().ok_or_else(|| {
            let known: Vec<_> = Setting::ALL.iter().map(|setting| setting.name()).collect();
            Fault::unknown_setting(name, &known.join(", "))
        })
    }

    /// Returns the columns of its `SHOW`.
    pub(crate) fn columns(self) -> &'static [&'static str] {
        if self == Setting::Observed {
            return &crate::observe::COLUMNS;
        }
        self.column()
    }

    /// Returns whether it can be set.
    fn is_settable(self) -> bool {
        match self {
            Setting::Route
            | Setting::Consistency
            | Setting::MaxLag
            | Setting::MinLsn
            | Setting::TransactionReads => true,
            Setting::LastRoute
            | Setting::Pinned
            | Setting::Lsn
            | Setting::Observed
            | Setting::Version => false,
        }
    }
}

/// What the settings mean at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    /// `pgweir.route`.
    pub(crate) route: RouteSetting,
    /// `pgweir.max_lag` and `pgweir.consistency`, where the session says something.
    pub(crate) asks: Asks,
    /// Its `pgweir.min_lsn`.
    pub(crate) min_lsn: Option<Lsn>,
    /// `pgweir.transaction_reads`, where the session says something.
    pub(crate) transaction_reads: Option<TransactionReads>,
}

/// The choices of a session with their default, and the text that they were read from.
#[derive(Debug)]
pub(crate) struct Chosen {
    default: Choices,
    now: Choices,
    read_from: Own,
}

impl Choices {
    /// Takes the text of a setting over.
    ///
    /// # Errors
    /// The fault that the client is told: 22023 for a value that fits none, 55P02 for a setting that cannot be set, 0A000 for
    /// what is not built. Nothing has changed then.
    pub(crate) fn set(
        &mut self,
        setting: Setting,
        value: &str,
        is_backend: impl FnOnce(&str) -> bool,
    ) -> Result<(), Fault> {
        let bad = |valid: &str| Fault::bad_value(setting.name(), value, valid);
        let word = value.trim().to_ascii_lowercase();
        match setting {
            Setting::Route => {
                let route = RouteSetting::parse(value);
                if let RouteSetting::Backend(name) = &route
                    && !is_backend(name)
                {
                    return Err(bad("auto, primary, replica, or the name of a backend"));
                }
                self.route = route;
            }
            Setting::Consistency => {
                let level = Consistency::from_name(&word);
                let level = level.ok_or_else(|| bad("session, eventual and strong"))?;
                self.asks.consistency = Some(level);
            }
            Setting::MaxLag => {
                let limit = pgweir_sql::MaxLag::parse(value.trim())
                    .ok_or_else(|| bad("a time or a size with its unit, as in 2s or 16MB"))?;
                self.asks.max_lag = Some(match limit {
                    pgweir_sql::MaxLag::Age(age) => MaxLag::Time(age),
                    pgweir_sql::MaxLag::Bytes(bytes) => MaxLag::Bytes(bytes),
                });
            }
            Setting::MinLsn if word.is_empty() => self.min_lsn = None,
            Setting::MinLsn => {
                let lsn = word.parse().map_err(|_| bad("an LSN, as in 16/B374D848"))?;
                self.min_lsn = Some(lsn);
            }
            Setting::TransactionReads => {
                let found = TransactionReads::ALL
                    .iter()
                    .find(|known| known.name() == word);
                let found = found.ok_or_else(|| {
                    let names: Vec<_> = TransactionReads::ALL.iter().map(|w| w.name()).collect();
                    bad(&names.join(" and "))
                })?;
                self.transaction_reads = Some(*found);
            }
            Setting::LastRoute
            | Setting::Pinned
            | Setting::Lsn
            | Setting::Observed
            | Setting::Version => {
                return Err(Fault::read_only_setting(setting.name()));
            }
        }
        Ok(())
    }
}

impl Chosen {
    /// Returns the choices of a session at its login.
    pub(crate) fn new(default: Choices) -> Self {
        Chosen {
            now: default.clone(),
            default,
            read_from: Own::default(),
        }
    }

    /// Reads the session's settings anew if they have changed.
    pub(crate) fn follow(&mut self, own: &Own) {
        if self.read_from.is(own) {
            return;
        }
        self.now = self.default.clone();
        for (name, value) in own.values() {
            // It was checked when it was set; a backend that has gone since is reported when a statement asks for it.
            if let Ok(setting) = Setting::find(name) {
                let _checked = self.now.set(setting, value, |_| true);
            }
        }
        self.read_from = own.clone();
    }

    /// Returns whether a value fits a setting.
    ///
    /// # Errors
    /// As [`Choices::set`].
    pub(crate) fn check(
        &self,
        setting: Setting,
        value: Option<&str>,
        is_backend: impl FnOnce(&str) -> bool,
    ) -> Result<(), Fault> {
        match value {
            Some(value) => self.now.clone().set(setting, value, is_backend),
            None if setting.is_settable() => Ok(()),
            None => Err(Fault::read_only_setting(setting.name())),
        }
    }
}

impl std::ops::Deref for Chosen {
    type Target = Choices;

    fn deref(&self) -> &Choices {
        &self.now
    }
}

/// Returns a limit of lag as `SHOW` gives it.
pub(crate) fn shown_lag(chosen: Option<MaxLag>, configured: Option<ConfiguredLag>) -> String {
    match (chosen, configured) {
        (Some(MaxLag::Time(age)), _) | (None, Some(ConfiguredLag::Time(age))) => {
            format_duration(age)
        }
        (Some(MaxLag::Bytes(bytes)), _) | (None, Some(ConfiguredLag::Bytes(bytes))) => {
            format_size(bytes)
        }
        (None, None) => String::new(),
    }
}

/// Takes our settings out of those of a startup packet, and reads them.
///
/// # Errors
/// As [`Choices::set`], and 42704 for a name that is none.
pub(crate) fn take_startup(
    entries: &mut Vec<(String, String)>,
    default: &mut Choices,
    is_backend: impl Fn(&str) -> bool,
) -> Result<(), Fault> {
    let is_ours = |entry: &(String, String)| entry.0.starts_with(PREFIX);
    for (name, value) in entries.iter().filter(|entry| is_ours(entry)) {
        default.set(Setting::find(name)?, value, &is_backend)?;
    }
    entries.retain(|entry| !is_ours(entry));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn set(choices: &mut Choices, name: &str, value: &str) -> Result<(), String> {
        Setting::find(name)
            .and_then(|setting| choices.set(setting, value, |name| name == "pg2"))
            .map_err(|fault| format!("{}: {}", fault.sqlstate, fault.message))
    }

    #[test]
    fn values_are_read_as_they_are_documented() {
        let mut choices = Choices::default();
        for (name, value) in [
            ("pgweir.route", "pg2"),
            ("pgweir.consistency", " Eventual "),
            ("pgweir.max_lag", "16MB"),
            ("pgweir.min_lsn", "16/b374d848"),
            ("pgweir.transaction_reads", "until_write"),
        ] {
            set(&mut choices, name, value).unwrap();
        }
        assert_eq!(choices.route, RouteSetting::Backend("pg2".into()));
        assert_eq!(choices.asks.consistency, Some(Consistency::Eventual));
        assert_eq!(choices.asks.max_lag, Some(MaxLag::Bytes(16 << 20)));
        assert_eq!(choices.min_lsn, Some(Lsn(0x16_B374_D848)));
        set(&mut choices, "pgweir.min_lsn", "").unwrap();
        assert_eq!(choices.min_lsn, None);
        let until_write = Some(TransactionReads::UntilWrite);
        assert_eq!(choices.transaction_reads, until_write);
        set(&mut choices, "pgweir.max_lag", "2s").unwrap();
        let two = MaxLag::Time(Duration::from_secs(2));
        assert_eq!(choices.asks.max_lag, Some(two));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut changed = Choices::default();
        for (name, value, sqlstate) in [
            ("pgweir.route", "pg9", "22023"),
            ("pgweir.consistency", "never", "22023"),
            ("pgweir.min_lsn", "0", "22023"),
            ("pgweir.max_lag", "2", "22023"),
            ("pgweir.max_lag", "soon", "22023"),
            ("pgweir.transaction_reads", "replica", "22023"),
            ("pgweir.version", "2", "55P02"),
            ("pgweir.lsn", "0/1", "55P02"),
            ("pgweir.pinned", "x", "55P02"),
            ("pgweir.last_route", "x", "55P02"),
            ("pgweir.rout", "auto", "42704"),
        ] {
            let error = set(&mut changed, name, value).unwrap_err();
            assert!(error.starts_with(sqlstate), "{name} = {value}: {error}");
        }
        assert_eq!(format!("{changed:?}"), format!("{:?}", Choices::default()));
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let fault = Setting::find("pgweir.x").unwrap_err();
        let hint = fault.hint.unwrap();
        for setting in Setting::ALL {
            assert!(hint.contains(setting.name()), "{hint}");
            // Rows of their own.
            let is_table = *setting == Setting::Observed;
            assert_eq!(setting.columns() == [setting.name()], !is_table);
        }
    }

    #[test]
    fn the_startup_packet_gives_the_default_and_keeps_none_of_ours() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut entries = vec![pair("geqo", "off"), pair("pgweir.route", "replica")];
        let mut default = Choices::default();
        take_startup(&mut entries, &mut default, |_| false).unwrap();
        assert_eq!(entries, [pair("geqo", "off")]);
        assert_eq!(default.route, RouteSetting::Replica);
        let mut wrong = vec![pair("pgweir.rout", "replica")];
        let fault = take_startup(&mut wrong, &mut default, |_| false).unwrap_err();
        assert_eq!(fault.sqlstate.to_string(), "42704");
    }

    #[test]
    fn a_limit_is_shown_with_its_unit_and_else_the_configured_one() {
        let two = MaxLag::Time(Duration::from_secs(2));
        assert_eq!(shown_lag(Some(two), None), "2s");
        let configured = ConfiguredLag::Bytes(1 << 20);
        assert_eq!(shown_lag(None, Some(configured)), "1MiB");
    }
}
