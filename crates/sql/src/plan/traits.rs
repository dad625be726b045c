//! What a plan is asked for every batch, found out once: a set of bits instead of walks over its lists.

use pgweir_model::PinReason;

use crate::classify::{Classified, Name, StatementKind};
use crate::effects::TransactionControl;
use crate::functions::{Call, judge};
use crate::signals::is_signal_function;

/// A set of what is true of every text of a shape, whatever the catalog says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits(u16);

impl Traits {
    /// A catalog may change its verdict.
    pub const ASKS_CATALOG: Traits = Traits(1);
    /// It may undo session state: what it undoes is to be asked of the server.
    pub const MAY_UNPIN: Traits = Traits(1 << 1);
    /// It makes the server forget something.
    pub const DISCARDS: Traits = Traits(1 << 3);
    /// It opens a transaction block.
    pub const OPENS_TRANSACTION: Traits = Traits(1 << 4);
    /// It runs where its transaction is, whether that is a replica or the primary.
    pub const NEUTRAL: Traits = Traits(1 << 5);
    /// It declares a cursor.
    pub const DECLARES: Traits = Traits(1 << 6);
    /// It pins the session by a setting.
    pub const PINS_SETTING: Traits = Traits(1 << 7);
    /// It calls `set_config`.
    pub const CALLS_SET_CONFIG: Traits = Traits(1 << 8);
    /// It holds a `DO` block.
    pub const DOES: Traits = Traits(1 << 9);
    /// Queries only, none of which calls what changes something out of sight: where only the primary can answer them, they
    /// still change nothing that a later read sees.
    pub const CHANGES_NOTHING: Traits = Traits(1 << 10);
    /// It is one `EXECUTE`.
    pub const EXECUTES: Traits = Traits(1 << 11);
    /// It calls `pg_cancel_backend` or `pg_terminate_backend`.
    pub const SIGNALS: Traits = Traits(1 << 12);
    /// It reads relations, or may: it names one, or calls what is no known built-in function.
    pub const READS_DATA: Traits = Traits(1 << 13);

    /// Returns whether all of `traits` are true.
    #[inline]
    pub const fn has(self, traits: Traits) -> bool {
        self.0 & traits.0 == traits.0
    }

    /// Returns what is in either of them.
    #[must_use]
    pub const fn union(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }

    /// Finds out what is true of a classified text.
    pub fn of(classified: &Classified) -> Traits {
        use StatementKind as Kind;
        let effects = &classified.effects;
        let transaction = effects.transaction;
        let statements = &classified.statements;
        let any = |kind: Kind| statements.iter().any(|statement| statement.kind == kind);
        let calls = |prefix: &str| {
            let mut functions = classified.functions.iter();
            functions.any(|function| function.name.starts_with(prefix))
        };
        let is_neutral = classified.is_neutral()
            || classified.is_settings_only()
            || matches!(
                transaction,
                TransactionControl::End { chain: false, .. } | TransactionControl::Set(_)
            );
        let is_one = statements.len() == 1;
        let all = [
            (Self::ASKS_CATALOG, classified.asks_catalog()),
            (Self::MAY_UNPIN, may_unpin(classified)),
            (Self::DISCARDS, !effects.discard.is_empty()),
            (Self::OPENS_TRANSACTION, opens_transaction(transaction)),
            (Self::NEUTRAL, is_neutral),
            (Self::DECLARES, any(Kind::Declare)),
            (
                Self::PINS_SETTING,
                effects.pins.contains(PinReason::Setting),
            ),
            (
                Self::CALLS_SET_CONFIG,
                classified
                    .functions
                    .iter()
                    .any(|function| &*function.name == "set_config"),
            ),
            (Self::DOES, any(Kind::Do)),
            (
                Self::CHANGES_NOTHING,
                statements.iter().all(|s| s.kind == Kind::Query)
                    && !CHANGING.iter().any(|prefix| calls(prefix)),
            ),
            (Self::EXECUTES, is_one && any(Kind::Execute)),
            (
                Self::SIGNALS,
                classified
                    .functions
                    .iter()
                    .any(|function| is_signal_function(&function.name)),
            ),
            (Self::READS_DATA, reads_data(classified)),
        ];
        let mut traits = Traits::default();
        for (it, is_so) in all {
            if is_so {
                traits.0 |= it.0;
            }
        }
        traits
    }
}

/// What the functions that only the primary runs, and that change something, begin with: large objects, other servers, and
/// what writes to the catalog.
const CHANGING: [&str; 5] = ["lo_", "lowrite", "dblink", "pg_import", "pg_logical"];

fn may_unpin(classified: &Classified) -> bool {
    use StatementKind as Kind;
    let undoes = |kind: Kind| {
        matches!(
            kind,
            Kind::Close
                | Kind::Ddl
                | Kind::Discard
                | Kind::Unlisten
                | Kind::Deallocate
                | Kind::Commit
                | Kind::Rollback
        )
    };
    let unlocks = |name: &str| name.starts_with("pg_advisory_unlock");
    classified.effects.suspect
        || !classified.effects.discard.is_empty()
        || classified.statements.iter().any(|s| undoes(s.kind))
        || classified.functions.iter().any(|f| unlocks(&f.name))
}

fn reads_data(classified: &Classified) -> bool {
    let is_unknown = |function: &Name| {
        let schema = function.schema.as_deref().map(str::as_bytes);
        judge(schema, function.name.as_bytes()) == Call::Unknown
    };
    !classified.tables.is_empty()
        || classified.names.overflow
        || classified.functions.iter().any(is_unknown)
}

fn opens_transaction(control: TransactionControl) -> bool {
    match control {
        TransactionControl::Begin(_) => true,
        TransactionControl::Sequence { opens, .. } => opens,
        TransactionControl::End { chain, .. } => chain,
        TransactionControl::None
        | TransactionControl::Set(_)
        | TransactionControl::Savepoint(_)
        | TransactionControl::PrepareTransaction => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify;

    #[test]
    fn what_is_asked_of_every_plan_is_found_out_from_its_text() {
        for (sql, traits) in [
            ("SELECT 1 FROM t", Traits::ASKS_CATALOG),
            ("DEALLOCATE x", Traits::MAY_UNPIN),
            ("DROP TABLE t", Traits::MAY_UNPIN),
            ("SELECT pg_advisory_unlock(1)", Traits::MAY_UNPIN),
            ("DISCARD ALL", Traits::DISCARDS),
            ("BEGIN", Traits::OPENS_TRANSACTION),
            ("COMMIT AND CHAIN", Traits::OPENS_TRANSACTION),
            ("COMMIT", Traits::NEUTRAL),
            ("SAVEPOINT a", Traits::NEUTRAL),
            ("SET work_mem = '1MB'", Traits::NEUTRAL),
            ("DECLARE c CURSOR FOR SELECT 1", Traits::DECLARES),
            (
                "SELECT set_config('a.b', 'c', false)",
                Traits::CALLS_SET_CONFIG,
            ),
            ("SELECT set_config('a.b', 'c', false)", Traits::PINS_SETTING),
            ("DO 'x'", Traits::DOES),
            ("SELECT pg_backend_pid()", Traits::CHANGES_NOTHING),
            ("EXECUTE x", Traits::EXECUTES),
            (
                "SELECT 1; SELECT pg_catalog.pg_cancel_backend($1)",
                Traits::SIGNALS,
            ),
            ("SELECT pg_cancel_backend(1); TABLE t", Traits::READS_DATA),
            ("SELECT balance()", Traits::READS_DATA),
        ] {
            let found = Traits::of(&classify(sql.as_bytes()));
            assert!(found.has(traits), "{sql}: {found:?}, {traits:?}");
        }
        let plain = Traits::of(&classify(b"SELECT a FROM t"));
        let expected = Traits::ASKS_CATALOG
            .union(Traits::CHANGES_NOTHING)
            .union(Traits::READS_DATA);
        assert_eq!(plain, expected);
        let signals = Traits::of(&classify(b"SELECT pg_cancel_backend(1), pg_sleep(1)"));
        assert!(!signals.has(Traits::READS_DATA), "{signals:?}");
        for sql in ["SELECT lo_create(0)", "INSERT INTO t VALUES (1)"] {
            let found = Traits::of(&classify(sql.as_bytes()));
            assert!(!found.has(Traits::CHANGES_NOTHING), "{sql}");
        }
    }
}
