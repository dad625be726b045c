//! Transaction control, as `TransactionStmt` of PostgreSQL's grammar has it.
//!
//! ## Why strict
//! The proxy answers a `BEGIN` and an empty `COMMIT` itself. It may only answer what the server would have accepted.
//!
//! See <https://www.postgresql.org/docs/current/sql-begin.html>.

use super::cursor::Cursor;
use super::{Reading, StateEvent};
use crate::effects::{Isolation, TransactionModes};

/// Behind `BEGIN`.
pub(super) fn begin<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    cursor.take_any(&["work", "transaction"]);
    begun(cursor)
}

/// Behind `START`.
pub(super) fn start<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    cursor.take("transaction").then(|| begun(cursor)).flatten()
}

fn begun<'a>(cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    let modes = if cursor.is_over() {
        TransactionModes::default()
    } else {
        modes(cursor)?
    };
    Some(Reading::event(StateEvent::Begin(modes)))
}

/// Reads one transaction mode or more, up to the end. The last of a kind counts. Commas may be left out.
pub(super) fn modes(mut cursor: Cursor<'_, '_>) -> Option<TransactionModes> {
    let mut modes = TransactionModes::default();
    loop {
        if cursor.take_all(&["read", "only"]) {
            modes.read_only = Some(true);
        } else if cursor.take_all(&["read", "write"]) {
            modes.read_only = Some(false);
        } else if cursor.take_all(&["isolation", "level"]) {
            modes.isolation = Some(isolation(&mut cursor)?);
        } else if cursor.take_all(&["not", "deferrable"]) {
            modes.deferrable = Some(false);
        } else if cursor.take("deferrable") {
            modes.deferrable = Some(true);
        } else {
            return None;
        }
        if cursor.is_over() {
            return Some(modes);
        }
        cursor.take_sign(",");
    }
}

fn isolation(cursor: &mut Cursor<'_, '_>) -> Option<Isolation> {
    if cursor.take("serializable") {
        Some(Isolation::Serializable)
    } else if cursor.take_all(&["repeatable", "read"]) {
        Some(Isolation::RepeatableRead)
    } else if cursor.take_all(&["read", "committed"]) {
        Some(Isolation::ReadCommitted)
    } else if cursor.take_all(&["read", "uncommitted"]) {
        Some(Isolation::ReadUncommitted)
    } else {
        None
    }
}

/// Behind `COMMIT`.
pub(super) fn commit<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    if cursor.take("prepared") {
        return two_phase(cursor);
    }
    end(cursor)
}

/// Behind `END`.
pub(super) fn end<'a>(cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    let chain = ended(cursor)?;
    Some(Reading::event(StateEvent::Commit { chain }))
}

/// Behind `ROLLBACK`.
pub(super) fn rollback<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    if cursor.take("prepared") {
        return two_phase(cursor);
    }
    let mut to = cursor;
    to.take_any(&["work", "transaction"]);
    if to.take("to") {
        return savepoint_name(to, StateEvent::RollbackTo);
    }
    abort(cursor)
}

/// Behind `ABORT`.
pub(super) fn abort<'a>(cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    let chain = ended(cursor)?;
    Some(Reading::event(StateEvent::Rollback { chain }))
}

/// `[WORK | TRANSACTION] [AND [NO] CHAIN]`; returns whether it chains.
fn ended(mut cursor: Cursor<'_, '_>) -> Option<bool> {
    cursor.take_any(&["work", "transaction"]);
    let chain = cursor.take_all(&["and", "chain"]);
    if !chain {
        cursor.take_all(&["and", "no", "chain"]);
    }
    cursor.is_over().then_some(chain)
}

/// `COMMIT PREPARED 'name'` and `ROLLBACK PREPARED 'name'`: of another transaction.
fn two_phase<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    cursor.string()?;
    cursor.is_over().then_some(Reading::Nothing)
}

/// Behind `SAVEPOINT`.
pub(super) fn savepoint<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    let name = cursor.name()?;
    cursor
        .is_over()
        .then(|| Reading::event(StateEvent::Savepoint(name)))
}

/// Behind `RELEASE`.
pub(super) fn release<'a>(cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    savepoint_name(cursor, StateEvent::Release)
}

/// `[SAVEPOINT] name`, where the name may be `savepoint`.
fn savepoint_name<'a>(
    mut cursor: Cursor<'_, 'a>,
    event: impl FnOnce(std::borrow::Cow<'a, [u8]>) -> StateEvent<'a>,
) -> Option<Reading<'a>> {
    if cursor.peek(1).is_some() && !cursor.is_at(1, "uescape") {
        cursor.take("savepoint").then_some(())?;
    }
    let name = cursor.name()?;
    cursor.is_over().then(|| Reading::event(event(name)))
}
