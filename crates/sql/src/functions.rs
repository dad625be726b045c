//! What a called function may do, as far as its name tells without the catalog.
//!
//! ## Why
//! A replica refuses writes loudly, but it accepts what it should not have been given: advisory locks, session settings,
//! questions about the node. Those must be known by name. Anything that is not a known-safe built-in goes to the primary.
//!
//! ## Limits
//! A user's function that overloads the name of a built-in for its own types is taken for the built-in here. Functions behind
//! views, casts of known types, operators of known names, aggregates and policies are not seen: [`crate::verdict`] does that.

mod builtin;

use pgweir_model::PinReason;

use crate::names::listed;

/// What a call of a function means for routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A built-in that a replica may run.
    Safe,
    /// Only the primary can answer.
    PrimaryOnly,
    /// A built-in that is volatile, but changes nothing in the session.
    Volatile,
    /// Not known: it may do anything.
    Unknown,
}

/// Judges a call by its name, in the letter case that the server sees.
pub(crate) fn judge(schema: Option<&[u8]>, name: &[u8]) -> Call {
    // Extensions live in schemas of their own choosing; what `dblink` does is out of the server's sight in any of them.
    if name.starts_with(b"dblink") {
        return Call::PrimaryOnly;
    }
    if schema.is_some_and(|schema| schema != b"pg_catalog") {
        return Call::Unknown;
    }
    let in_family = |prefix: &&str| name.starts_with(prefix.as_bytes());
    if listed(builtin::SAFE, name) {
        Call::Safe
    } else if listed(builtin::PRIMARY_ONLY, name)
        || builtin::PRIMARY_ONLY_PREFIXES.iter().any(in_family)
    {
        Call::PrimaryOnly
    } else if listed(builtin::VOLATILE, name) {
        Call::Volatile
    } else {
        Call::Unknown
    }
}

/// Returns what a call leaves behind in the session. `set_config` is judged by its arguments instead.
///
/// `nextval` does not pin, although a later `currval` would want it to: `currval` itself does, and applications that only
/// draw numbers would otherwise lose pooling altogether.
pub(crate) fn pin(name: &[u8]) -> Option<PinReason> {
    match name {
        b"pg_advisory_lock"
        | b"pg_advisory_lock_shared"
        | b"pg_try_advisory_lock"
        | b"pg_try_advisory_lock_shared" => Some(PinReason::AdvisoryLock),
        b"setseed" => Some(PinReason::SetSeed),
        b"currval" | b"lastval" => Some(PinReason::Sequence),
        _ => None,
    }
}

/// Returns whether a known built-in leaves something in the server connection that only a reset removes.
pub(crate) fn is_suspect(name: &[u8]) -> bool {
    // A dblink connection and the origin of replication belong to the server process.
    name.starts_with(b"dblink") || name.starts_with(b"pg_replication_origin_session")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_without_duplicates() {
        for table in [
            builtin::SAFE,
            builtin::PRIMARY_ONLY,
            builtin::PRIMARY_ONLY_PREFIXES,
            builtin::VOLATILE,
        ] {
            assert!(
                table
                    .windows(2)
                    .all(|pair| pair[0].as_bytes() < pair[1].as_bytes())
            );
        }
    }

    #[test]
    fn no_function_is_both_safe_and_primary_only() {
        for name in builtin::SAFE {
            assert!(!listed(builtin::PRIMARY_ONLY, name.as_bytes()), "{name}");
            assert!(
                !builtin::PRIMARY_ONLY_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix)),
                "{name}"
            );
        }
    }

    #[test]
    fn only_pg_catalog_vouches_for_a_name() {
        assert_eq!(judge(None, b"lower"), Call::Safe);
        assert_eq!(judge(Some(b"pg_catalog"), b"lower"), Call::Safe);
        assert_eq!(judge(Some(b"app"), b"lower"), Call::Unknown);
        assert_eq!(judge(None, b"no_such_function"), Call::Unknown);
    }

    #[test]
    fn what_runs_sql_from_text_is_unknown() {
        for name in [
            "query_to_xml",
            "table_to_xml",
            "database_to_xml",
            "schema_to_xml",
            "ts_stat",
            "ts_rewrite",
            "cursor_to_xml",
        ] {
            assert_eq!(judge(None, name.as_bytes()), Call::Unknown, "{name}");
        }
    }
}
