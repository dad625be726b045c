//! `PREPARE`, `EXECUTE` and `DEALLOCATE`, and the statements that may hold an `EXECUTE`.
//!
//! See <https://www.postgresql.org/docs/current/sql-prepare.html>.

use super::cursor::Cursor;
use super::{Reading, StateEvent};

/// Behind `PREPARE`.
pub(super) fn prepare<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    // `transaction` may also be the name of a statement.
    if cursor.is("transaction") && !cursor.is_at(1, "as") && !cursor.is_sign_at(1, "(") {
        cursor.next();
        cursor.string()?;
        let over = cursor.is_over();
        return over.then(|| Reading::event(StateEvent::PrepareTransaction));
    }
    let name = cursor.name()?;
    if cursor.is_sign_at(0, "(") {
        cursor.parentheses()?;
    }
    cursor.take("as").then_some(())?;
    let body = cursor.range()?;
    Some(Reading::event(StateEvent::Prepare { name, body }))
}

/// Behind `EXECUTE`.
pub(super) fn execute<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    let event = executed(&mut cursor)?;
    cursor.is_over().then(|| Reading::event(event))
}

fn executed<'a>(cursor: &mut Cursor<'_, 'a>) -> Option<StateEvent<'a>> {
    let before = cursor.range()?;
    let name = cursor.name()?;
    let name_range = before.start..cursor.taken_up_to()?;
    let arguments = match cursor.is_sign_at(0, "(") {
        true => Some(cursor.parentheses()?),
        false => None,
    };
    Some(StateEvent::Execute {
        name,
        name_range,
        arguments,
    })
}

/// Behind `DEALLOCATE`.
pub(super) fn deallocate<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    // `prepare` may also be the name of a statement.
    if cursor.peek(1).is_some() && !cursor.is_at(1, "uescape") {
        cursor.take("prepare").then_some(())?;
    }
    let before = cursor.range()?;
    let event = if cursor.take("all") {
        StateEvent::DeallocateAll
    } else {
        StateEvent::Deallocate {
            name: cursor.name()?,
            name_range: before,
        }
    };
    cursor.is_over().then(|| Reading::event(event))
}

/// Behind `EXPLAIN`: whether it runs or not, the server looks the prepared statement up.
pub(super) fn explain<'a>(mut cursor: Cursor<'_, 'a>) -> Reading<'a> {
    if cursor.is_sign_at(0, "(") {
        if cursor.parentheses().is_none() {
            return Reading::Nothing;
        }
    } else {
        cursor.take_any(&["analyze", "analyse"]);
        cursor.take("verbose");
    }
    if cursor.take("execute") {
        execute(cursor).unwrap_or(Reading::Unread)
    } else if cursor.take("create") {
        create(cursor)
    } else {
        Reading::Nothing
    }
}

/// Behind `CREATE`: `[TEMP] TABLE name ... AS EXECUTE name (...) [WITH [NO] DATA]`.
pub(super) fn create<'a>(mut cursor: Cursor<'_, 'a>) -> Reading<'a> {
    cursor.take_any(&["local", "global"]);
    cursor.take_any(&["temp", "temporary", "unlogged"]);
    if !cursor.take("table") {
        return Reading::Nothing;
    }
    // The first `AS` outside parentheses: it is reserved, so it can be nothing else.
    while !cursor.is("as") {
        let taken = match cursor.is_sign_at(0, "(") {
            true => cursor.parentheses().is_some(),
            false => cursor.next().is_some(),
        };
        if !taken {
            return Reading::Nothing;
        }
    }
    if !cursor.take_all(&["as", "execute"]) {
        return Reading::Nothing;
    }
    let Some(event) = executed(&mut cursor) else {
        return Reading::Unread;
    };
    if !cursor.take_all(&["with", "data"]) {
        cursor.take_all(&["with", "no", "data"]);
    }
    if cursor.is_over() {
        Reading::event(event)
    } else {
        Reading::Unread
    }
}
