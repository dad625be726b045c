//! Errors of a server: whose they are, and what they undo.
//!
//! An error of the client's own goes out as it came. One that answers something of the proxy's own, or ends a connection that the
//! session can do without, does not.

use pgweir_model::Sqlstate;
use pgweir_wire::backend::ErrorResponse;
use pgweir_wire::{Gather, Header, TransactionStatus};

use super::refusal::is_stale_plan;
use super::{Cursor, take};
use crate::client::{ClientSession, Probe, Replies};
use crate::outstanding::{Action, Change, Entry, Owed};
use crate::server::{Farewell, Ledger, ServerSession, Syncs};

impl ClientSession {
    /// An error: the server skips to the next Sync, and so do the requests that wait for it.
    pub(super) fn on_error(
        &mut self,
        header: Header,
        cursor: &mut Cursor<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) {
        server.copy_in = false;
        if server.syncs == Syncs::Ignored {
            // A ReadyForQuery too many may follow, which nobody but this client may get.
            server.syncs = Syncs::Doubtful;
            server.mark(Ledger::Beyond);
        }
        let body = cursor.body(header);
        let error = ErrorResponse::decode(body);
        let sqlstate = error.as_ref().ok().and_then(ErrorResponse::sqlstate);
        if error.as_ref().is_ok_and(is_stale_plan) {
            // The schema was changed behind our back: what else is prepared there may be stale as well.
            server.distrust_statements();
        }
        // The server's last words, whatever it was doing.
        let is_last = error.is_ok_and(|e| matches!(e.severity(), b"FATAL" | b"PANIC"));
        if self.is_nobodys(is_last, server) {
            take(header, false, cursor, server, out);
            return;
        }
        let front = self.outstanding.front();
        let substitute = match front.map(|due| (due.action, due.owed)) {
            Some((Action::Substitute, owed)) if is_provoked(owed, sqlstate) => {
                cursor.flush(out);
                let laden = self.outstanding.front_laden();
                let ours = laden.and_then(|entry| entry.error.as_deref());
                out.scratch(ours.unwrap_or_default());
                true
            }
            Some((Action::Break, _)) => {
                take(header, false, cursor, server, out);
                self.skip_to_sync(server);
                return;
            }
            Some((Action::Skip | Action::Tail, _))
                if self.front_is_of_ours() && self.replies != Replies::Abandoned && !is_last =>
            {
                // The switch of parameters failed: the login on the primary accepted them, this server does not. Or a BEGIN
                // did, and what stands behind it is skipped.
                server.mark(Ledger::Beyond);
                let is_canceled = sqlstate.map(Sqlstate) == Some(Sqlstate::QUERY_CANCELED);
                let whole = cursor.rest().get(..header.frame_len());
                let forward = self.on_front_error(is_canceled, whole.unwrap_or_default());
                take(header, forward, cursor, server, out);
                self.skip_to_sync(server);
                return;
            }
            Some((
                Action::Forward | Action::Skip,
                Owed::Parse | Owed::Bind | Owed::DescribeStatement,
            )) if is_name_error(sqlstate) && !self.owns_server => {
                // Somebody has meddled with our names there: what is known of that server's statements is wrong.
                server.mark(Ledger::Beyond);
                false
            }
            Some((Action::Forward, _)) if self.replies != Replies::Abandoned => {
                self.tell_of_cancel(sqlstate, cursor, out)
            }
            _ => false,
        };
        // The last words of a server that has not got to the batch yet say nothing about it.
        let is_ours = is_last && self.front_is_of_ours();
        let forward = !substitute && !is_ours && self.replies != Replies::Abandoned;
        if is_last && forward {
            server.farewell = Farewell::Heard;
        }
        let heard = sqlstate.filter(|_| forward);
        self.tally.note_error(heard, forward || substitute);
        take(header, forward, cursor, server, out);
        if self.replies != Replies::Abandoned {
            self.has_failed = true;
            self.state.on_error();
            self.follow_state(server);
        }
        // Behind its last words a server answers nothing, so that what it owes stays owed until its connection ends.
        if !is_last {
            self.skip_to_sync(server);
        }
    }

    /// Tells the client in our words that its statement was cancelled, where the server says so and we have some.
    fn tell_of_cancel(
        &mut self,
        sqlstate: Option<[u8; 5]>,
        cursor: &mut Cursor<'_>,
        out: &mut Gather,
    ) -> bool {
        let is_canceled = sqlstate.map(Sqlstate) == Some(Sqlstate::QUERY_CANCELED);
        let Some(ours) = self.cancel_error.take_if(|_| is_canceled) else {
            return false;
        };
        cursor.flush(out);
        out.scratch(&ours);
        true
    }

    /// Takes what the server skips after an error: all up to the next Sync, unless it was a simple query that failed.
    fn skip_to_sync(&mut self, server: &mut ServerSession) {
        let front = self.outstanding.front().map(|due| due.owed);
        if matches!(front, None | Some(Owed::Query | Owed::FunctionCall)) {
            return;
        }
        // A Parse that fails has dropped the unnamed statement before it was looked at.
        if front == Some(Owed::Parse)
            && let Some(Change::Define { name, .. }) =
                self.outstanding.front_laden().map(|entry| &entry.change)
            && name.is_empty()
        {
            self.undefine(b"");
        }
        let mut skipped = Vec::new();
        while let Some(entry) = self.outstanding.pop_skipped() {
            skipped.push(entry);
        }
        // Backwards: what was taken from the server and put there again in one batch is there as before.
        for entry in skipped.into_iter().rev() {
            self.undo(entry, server);
        }
    }

    /// Returns whether nothing ties the session to its server connection any more, or yet.
    fn is_done_with(&self, server: &ServerSession) -> bool {
        self.outstanding.is_empty()
            && !self.is_in_mid_batch()
            && !self.owns_server
            && (server.status == TransactionStatus::Idle || self.reopens)
    }

    fn undo(&mut self, entry: Entry, server: &mut ServerSession) {
        if let Some(id) = entry.places {
            if entry.owed == Owed::Close {
                server.statements.place(id);
                return;
            }
            server.statements.forget(id);
            if server.unnamed == Some(id) {
                server.unnamed = None;
            }
        }
    }

    /// Returns whether an error is no answer to anything of the client's; notes what it means for the connection.
    fn is_nobodys(&mut self, is_last: bool, server: &mut ServerSession) -> bool {
        if self.front_failure().is_some() {
            // What follows from the first error: the batch is skipped.
            return true;
        }
        // A question of ours, and what it is asked for.
        let is_asked = self.probe != Probe::None && !self.owns_server;
        if is_last && (self.is_done_with(server) || is_asked) {
            // The session's next statement runs elsewhere: what ends this connection is no concern of its client.
            server.mark(Ledger::Beyond);
            server.farewell = Farewell::Unheard;
            return true;
        }
        let is_answer = self.probe != Probe::None && !is_last && self.front_is_of_ours();
        if is_answer {
            self.probe = Probe::Failed;
        }
        is_answer
    }
}

/// Returns whether a request that was made to fail has failed for that reason.
fn is_provoked(owed: Owed, sqlstate: Option<[u8; 5]>) -> bool {
    let expected = if owed == Owed::Parse {
        Sqlstate::DUPLICATE_PREPARED_STATEMENT
    } else {
        Sqlstate::INVALID_SQL_STATEMENT_NAME
    };
    sqlstate.map(Sqlstate) == Some(expected)
}

/// Returns whether a server says that a statement name does not exist, or does already.
fn is_name_error(sqlstate: Option<[u8; 5]>) -> bool {
    sqlstate.map(Sqlstate).is_some_and(|code| {
        code == Sqlstate::INVALID_SQL_STATEMENT_NAME
            || code == Sqlstate::DUPLICATE_PREPARED_STATEMENT
    })
}
