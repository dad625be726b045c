//! The statements that change what a session carries: where they go, and what they leave that no tracker can move.
//!
//! They are read by [`session_statements`](crate::session_statements), which the session asks about the real text as well.

use pgweir_model::{PinReason, Reason};

use super::Read;
use crate::classify::{LocalCommand, StatementKind};
use crate::effects::{Discard, SavepointCommand, TransactionControl, TransactionModes};
use crate::session_statements::{self, Reading, Setting, StateEvent};
use crate::tokens::Tokens;

/// Classifies a statement whose first word is one of those that `super::read` sends here.
pub(super) fn read(text: &[u8], t: Tokens<'_, '_>) -> Read {
    match session_statements::read(text, t.0) {
        Reading::Events(events) => match events.as_slice() {
            [event] => of_event(t, event),
            events => {
                let mut all = Read::new(StatementKind::Set, Reason::PrimaryOnly);
                all.findings.effects.state = !events.is_empty();
                all.findings.effects.settings = events.iter().any(StateEvent::is_setting);
                all
            }
        },
        Reading::Pins(reason) => Read::pinned(kind(t), Reason::PrimaryOnly, reason),
        Reading::Nothing => without_event(t),
        Reading::Unread => unread(t),
    }
}

/// Returns whether the text of an `EXPLAIN` or `CREATE` touches the state of the session.
pub(super) fn is_touched(text: &[u8], t: Tokens<'_, '_>) -> bool {
    matches!(session_statements::read(text, t.0), Reading::Events(_))
}

fn of_event(t: Tokens<'_, '_>, event: &StateEvent<'_>) -> Read {
    use StatementKind as Kind;
    let savepoint = |command| {
        Read::new(Kind::Savepoint, Reason::Read).control(TransactionControl::Savepoint(command))
    };
    let mut read = match event {
        StateEvent::Begin(modes) => begin(*modes),
        StateEvent::Commit { chain } => ended(Kind::Commit, *chain),
        StateEvent::Rollback { chain } => ended(Kind::Rollback, *chain),
        StateEvent::PrepareTransaction => {
            Read::new(Kind::TwoPhase, Reason::Write).control(TransactionControl::PrepareTransaction)
        }
        StateEvent::Savepoint(_) => savepoint(SavepointCommand::Set),
        StateEvent::Release(_) => savepoint(SavepointCommand::Release),
        StateEvent::RollbackTo(_) => savepoint(SavepointCommand::RollbackTo),
        StateEvent::SetTransaction(modes) => set_transaction(*modes),
        StateEvent::Constraints => Read::new(Kind::Set, Reason::Read),
        StateEvent::Set(setting) => set(setting),
        StateEvent::Reset { name, local } => reset(t, name, *local),
        StateEvent::ResetAll => {
            Read::new(Kind::Reset, Reason::PrimaryOnly).discards(Discard::Settings)
        }
        StateEvent::DiscardAll => {
            Read::new(Kind::Discard, Reason::PrimaryOnly).discards(Discard::All)
        }
        StateEvent::Prepare { .. } => {
            Read::pinned(Kind::Prepare, Reason::Write, PinReason::SqlPrepare)
        }
        // What it runs stands in another text.
        StateEvent::Execute { .. } => Read::new(Kind::Execute, Reason::Write).suspect(),
        StateEvent::Deallocate { name, .. } => {
            let name = String::from_utf8_lossy(name);
            Read::new(Kind::Deallocate, Reason::PrimaryOnly)
                .discards(Discard::Deallocate(name.into()))
        }
        StateEvent::DeallocateAll => {
            Read::new(Kind::Deallocate, Reason::PrimaryOnly).discards(Discard::DeallocateAll)
        }
    };
    read.findings.effects.state = true;
    read.findings.effects.settings = event.is_setting();
    read
}

fn begin(modes: TransactionModes) -> Read {
    let reason = if modes.replica_may_run() {
        Reason::ReadOnlyTransaction
    } else {
        Reason::Transaction
    };
    Read::new(StatementKind::Begin, reason).control(TransactionControl::Begin(modes))
}

fn ended(kind: StatementKind, chain: bool) -> Read {
    let commit = kind == StatementKind::Commit;
    Read::new(kind, Reason::Read).control(TransactionControl::End { commit, chain })
}

fn set_transaction(modes: TransactionModes) -> Read {
    // A mode that a standby refuses sends the transaction to the primary before its first query.
    let reason = if modes.read_only == Some(false) || modes.serializable() {
        Reason::Transaction
    } else {
        Reason::Read
    };
    Read::new(StatementKind::SetTransaction, reason).control(TransactionControl::Set(modes))
}

fn set(setting: &Setting<'_>) -> Read {
    // A replica may be behind with the role, the tablespace or the text search configuration that it would look up. What
    // lasts no longer than a transaction goes where that is.
    let reason = if setting.local {
        Reason::Read
    } else {
        Reason::PrimaryOnly
    };
    let mut read = Read::new(StatementKind::Set, reason);
    if let Some(reason) = session_statements::pin(setting) {
        read.findings.pin(reason);
    }
    if setting.name.starts_with("pgweir.") {
        read.local = setting
            .value
            .as_ref()
            .map(|values| LocalCommand::SetSetting {
                name: (*setting.name).into(),
                value: Some(values.join(", ").into()),
                local: setting.local,
            });
    }
    read
}

fn reset(t: Tokens<'_, '_>, name: &str, local: bool) -> Read {
    let reason = if local {
        Reason::Read
    } else {
        Reason::PrimaryOnly
    };
    let mut read = Read::new(kind(t), reason);
    if name.starts_with("pgweir.") {
        read.local = Some(if t.word(0, "reset") {
            LocalCommand::ResetSetting(name.into())
        } else {
            LocalCommand::SetSetting {
                name: name.into(),
                value: None,
                local,
            }
        });
    }
    read
}

/// A statement that is in order and changes nothing that a session keeps.
fn without_event(t: Tokens<'_, '_>) -> Read {
    use StatementKind as Kind;
    match t.at(0).text {
        b"discard" => {
            let what = match t.at(1).text {
                b"plans" => Discard::Plans,
                b"sequences" => Discard::Sequences,
                _ => Discard::Temp,
            };
            Read::new(Kind::Discard, Reason::PrimaryOnly).discards(what)
        }
        b"commit" | b"rollback" => Read::new(Kind::TwoPhase, Reason::Write),
        // The snapshot of another transaction, or a mode of this one that goes back to its default.
        _ => Read::new(Kind::SetTransaction, Reason::PrimaryOnly),
    }
}

/// A statement that PostgreSQL should refuse. If it does not, what it sets is at least not lost.
fn unread(t: Tokens<'_, '_>) -> Read {
    let mut read = Read::unparsed(kind(t));
    match t.at(0).text {
        b"set" | b"reset" => read.findings.pin(PinReason::Setting),
        b"prepare" => read.findings.pin(PinReason::SqlPrepare),
        _ => {}
    }
    read
}

fn kind(t: Tokens<'_, '_>) -> StatementKind {
    use StatementKind as Kind;
    match t.at(0).text {
        b"set" => Kind::Set,
        b"reset" => Kind::Reset,
        b"begin" | b"start" => Kind::Begin,
        b"commit" | b"end" => Kind::Commit,
        b"rollback" | b"abort" => Kind::Rollback,
        b"savepoint" | b"release" => Kind::Savepoint,
        b"prepare" => Kind::Prepare,
        b"execute" => Kind::Execute,
        b"deallocate" => Kind::Deallocate,
        b"discard" => Kind::Discard,
        _ => Kind::Unknown,
    }
}
