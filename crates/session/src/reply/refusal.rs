//! Which errors of a server are no answer to the client's batch, so that it may run again: the closed list.
//!
//! ## Why
//! A client must never see an error that the primary would not have raised, nor one that the proxy's own keeping of
//! prepared statements causes. A read on a replica is therefore watched until its result begins.
//!
//! ## Limits
//! Only while nothing of the result has left. What the client hears afterwards it hears once, as the server said it.
//! SQLSTATE and the place in the source decide where they can, because messages are translated (`lc_messages`).

use pgweir_model::Sqlstate;
use pgweir_wire::backend::{ErrorResponse, field, tag};

/// What the replies to a batch are watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// A read on a replica: for whatever the primary, or another replica, would not have said.
    Read,
    /// Likewise, in a READ ONLY transaction: that it cannot write is what the primary would say too.
    ReadOnly,
    /// Likewise, where nobody vouches that it does nothing outside of the database: what has begun there is not repeated.
    UnvouchedReadOnly,
    /// A statement that was sent to a replica although nobody vouches that it reads: it is repeated only where the
    /// replica refused it.
    Unvouched,
    /// A text that nobody can read, in a transaction that stays on its replica: it may make something there that the session
    /// would lose with it. That it fails is the client's to hear.
    Stranding,
    /// Any batch that runs statements prepared earlier: for plans that a change of the schema has made useless.
    Plan,
}

/// Why a batch is to be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Only recovery raises it: the primary can run the batch, and batches like it.
    Recovery,
    /// Something is missing that the replica may not have replayed yet, or the session is in a mode that only the primary
    /// has: that says nothing about other batches like it.
    Behind,
    /// A prepared statement must be prepared anew; nothing has run.
    StalePlan,
    /// The replica gave up on the read, or is going away: another server can run it.
    Fault,
    /// Likewise, unless it was the client that cancelled it.
    Canceled,
    /// It has worked, and should not have: see [`Watch::Stranding`].
    Stranded,
}

impl Watch {
    /// Returns why the batch is to be run again after this error; `None`: the error is the client's.
    pub fn refusal(self, error: &ErrorResponse<'_>) -> Option<Refusal> {
        if is_stale_plan(error) && self != Watch::Stranding {
            return Some(Refusal::StalePlan);
        }
        match self {
            Watch::Plan | Watch::Stranding => None,
            Watch::Unvouched => refused_by_replica(error),
            Watch::Read => refused_by_replica(error).or_else(|| replica_fault(error)),
            Watch::ReadOnly => refused_where_reading(error).or_else(|| replica_fault(error)),
            Watch::UnvouchedReadOnly => refused_where_reading(error),
        }
    }

    /// Returns whether the batch only reads on a replica, so that another server may run it whatever becomes of this one.
    pub fn is_read(self) -> bool {
        matches!(self, Watch::Read | Watch::ReadOnly)
    }

    /// Returns whether a reply of this tag is part of a result, or says that there is none.
    pub(super) fn is_result(self, reply: u8) -> bool {
        match self {
            Watch::Read
            | Watch::ReadOnly
            | Watch::UnvouchedReadOnly
            | Watch::Unvouched
            | Watch::Stranding => matches!(
                reply,
                tag::DATA_ROW
                    | tag::COMMAND_COMPLETE
                    | tag::EMPTY_QUERY_RESPONSE
                    | tag::PORTAL_SUSPENDED
                    | tag::COPY_OUT_RESPONSE
                    | tag::COPY_IN_RESPONSE
                    | tag::READY_FOR_QUERY
            ),
            // What may come before a statement has begun to run, and nothing else.
            Watch::Plan => !matches!(
                reply,
                tag::PARSE_COMPLETE
                    | tag::BIND_COMPLETE
                    | tag::CLOSE_COMPLETE
                    | tag::PARAMETER_DESCRIPTION
                    | tag::ROW_DESCRIPTION
                    | tag::NO_DATA
            ),
        }
    }

    /// Returns why a batch whose result has begun is not to be heard.
    pub(super) fn refuses_result(self) -> Option<Refusal> {
        (self == Watch::Stranding).then_some(Refusal::Stranded)
    }

    /// Returns whether an error behind the beginning of a result still counts, as long as none of that result has left.
    ///
    /// On a replica it does: there nothing can have happened. Elsewhere the first statement of the batch has run.
    pub(super) fn looks_behind_results(self) -> bool {
        self != Watch::Plan
    }
}

/// Returns whether a server raises this error only because it is in recovery, so that the primary may well not.
///
/// The list was measured on a hot standby: 25006 for most; 0A000, 55000 and XX000 with a telling message; 55000 of
/// `currval`/`lastval` because session-local state lives on the primary; and what is missing because the change that
/// made it has not been replayed yet.
pub fn is_recovery_error(error: &ErrorResponse<'_>) -> bool {
    refused_by_replica(error).is_some()
}

/// Likewise in a READ ONLY transaction: that it cannot write is what the primary says too.
fn refused_where_reading(error: &ErrorResponse<'_>) -> Option<Refusal> {
    refused_by_replica(error).filter(|_| !contains(error.message(), b"in a read-only transaction"))
}

fn refused_by_replica(error: &ErrorResponse<'_>) -> Option<Refusal> {
    let message = error.message();
    let says = |needle: &str| contains(message, needle.as_bytes());
    let raised_in = |routines: &[&str]| {
        let routine = error.field(field::ROUTINE).unwrap_or_default();
        routines.iter().any(|name| name.as_bytes() == routine)
    };
    let is_recovery = match error.sqlstate().map(Sqlstate)? {
        Sqlstate::READ_ONLY_SQL_TRANSACTION => true,
        // The session's mode, and nothing about the statement.
        Sqlstate::FEATURE_NOT_SUPPORTED
            if says("serializable mode") || raised_in(&MODE_ROUTINES) =>
        {
            return Some(Refusal::Behind);
        }
        Sqlstate::FEATURE_NOT_SUPPORTED => {
            says("during recovery")
                || says("hot standby")
                || says("in recovery")
                || says("unlogged")
                || raised_in(&FEATURE_ROUTINES)
        }
        Sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            says("recovery is in progress")
                || says("currval")
                || says("lastval")
                || raised_in(&STATE_ROUTINES)
        }
        // Internal errors are not translated.
        Sqlstate::INTERNAL_ERROR => {
            says("during recovery") || says("OIDs") || says("TransactionIds") || says("WAL entries")
        }
        Sqlstate::UNDEFINED_TABLE
        | Sqlstate::UNDEFINED_COLUMN
        | Sqlstate::UNDEFINED_FUNCTION
        | Sqlstate::UNDEFINED_OBJECT
        | Sqlstate::INVALID_SCHEMA_NAME
        | Sqlstate::INSUFFICIENT_PRIVILEGE => return Some(Refusal::Behind),
        _ => false,
    };
    is_recovery.then_some(Refusal::Recovery)
}

/// Where 0A000 is raised in recovery only, or of a table that a standby cannot read, whatever the language of the message
/// (`plancat.c`, `logical.c`; REL_13 to REL_18).
const FEATURE_ROUTINES: [&str; 2] = ["get_relation_info", "CheckLogicalDecodingRequirements"];

/// Likewise, because of the transaction's modes (`variable.c`, `predicate.c`; REL_13 to REL_18).
const MODE_ROUTINES: [&str; 5] = [
    "check_XactReadOnly",
    "check_transaction_read_only",
    "check_XactIsoLevel",
    "check_transaction_isolation",
    "GetSerializableTransactionSnapshot",
];

/// Where 55000 is raised in recovery, or for want of the session's sequence state (`lock.c`, `sequence.c`).
const STATE_ROUTINES: [&str; 4] = [
    "LockAcquireExtended",
    "currval_oid",
    "lastval",
    "pg_current_wal_lsn",
];

/// What a replica says when it gives up on a read for reasons of its own.
fn replica_fault(error: &ErrorResponse<'_>) -> Option<Refusal> {
    if matches!(error.severity(), b"FATAL" | b"PANIC") {
        return Some(Refusal::Fault);
    }
    let message = error.message();
    let routine = error.field(field::ROUTINE).unwrap_or_default();
    // A function may raise these codes as well, and would do so anywhere.
    let is_raised = routine == b"exec_stmt_raise";
    match error.sqlstate().map(Sqlstate)? {
        Sqlstate::ADMIN_SHUTDOWN | Sqlstate::CRASH_SHUTDOWN | Sqlstate::CANNOT_CONNECT_NOW => {
            (!is_raised).then_some(Refusal::Fault)
        }
        // "canceling statement due to conflict with recovery".
        Sqlstate::SERIALIZATION_FAILURE => {
            let is_conflict = routine.starts_with(b"ProcessInterrupts")
                || routine.starts_with(b"ProcessRecoveryConflict")
                || contains(message, b"conflict with recovery");
            (is_conflict && !is_raised).then_some(Refusal::Fault)
        }
        Sqlstate::DEADLOCK_DETECTED => (!is_raised).then_some(Refusal::Fault),
        // The same code stands for the client's own statement_timeout, which only the message tells apart: in another
        // language the error is the client's.
        Sqlstate::QUERY_CANCELED => {
            (message == b"canceling statement due to user request").then_some(Refusal::Canceled)
        }
        _ => None,
    }
}

/// Returns whether a prepared statement has failed because the schema has changed since ("cached plan must not change
/// result type"). Told by the place in the source, which no translation changes: `plancache.c RevalidateCachedQuery`.
pub fn is_stale_plan(error: &ErrorResponse<'_>) -> bool {
    error.field(field::ROUTINE) == Some(b"RevalidateCachedQuery")
        && error.sqlstate().map(Sqlstate) == Some(Sqlstate::FEATURE_NOT_SUPPORTED)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
