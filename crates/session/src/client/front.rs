//! What goes in front of a session's batch on its server connection: the switch of settings, a BEGIN that was held back, a
//! question of the proxy's own.
//!
//! The client hears nothing of the answers. Should one of them fail, the batch behind it does not run.

use pgweir_wire::frontend::{Execute, Parse, Query, Sync, Target, bind_head, tag, target_head};
use pgweir_wire::{Gather, ListBuf, TransactionStatus};

use super::{ClientSession, Probe, Replies};
use crate::outstanding::{Action, Entry, Owed};
use crate::parameters::SharedParameters;
use crate::server::ServerSession;
use crate::statement::{GUARD, MISSING_NAME};

/// What follows the names in a Bind without parameters whose results are text.
const BIND_NOTHING: &[u8] = &[0, 0, 0, 0, 0, 0];

/// What it means for a batch that something of ours in front of it has failed. The server has skipped the batch, unless it is
/// said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontFailure {
    /// The batch was watched as a read: another server may run it.
    OfRead,
    /// Somebody cancelled it, or a limit of time did. It was not the batch that was meant.
    Canceled,
    /// The server does not take the session as it is; what has become of the batch is not known. The client has heard the error,
    /// if it is not kept.
    Refused,
}

impl ClientSession {
    /// Prepares a server connection for this session: its parameters, and a fresh start for statements whose result types
    /// may have changed since they were prepared there (`epoch`).
    ///
    /// What is needed goes in front of the first batch, in the same write, and `also` with it: statements with a semicolon
    /// behind each. Should it fail (a role that was dropped, a limit that is exceeded, somebody who cancels it), the batch must
    /// not run with what the session before has left: the last thing of it is the making of a statement, which is described
    /// and closed between it and the batch. Where there is no such statement the server skips the batch, whatever kind it is,
    /// and the connection is given up.
    pub fn begin_lease(
        &mut self,
        server: &mut ServerSession,
        epoch: u64,
        also: &[u8],
        out: &mut Gather,
    ) {
        server.statements.lease();
        self.context.epoch = epoch;
        let is_as_wanted = self.state.wanted().same(&server.parameters);
        if is_as_wanted && server.epoch == epoch && also.is_empty() {
            self.state.switched();
            return;
        }
        let mut text = Vec::new();
        if server.epoch != epoch {
            if !server.statements.is_empty() || server.unnamed.is_some() {
                text.extend_from_slice(b"DEALLOCATE ALL;");
                server.statements.clear();
            }
            server.epoch = epoch;
        }
        text.extend_from_slice(also);
        if !is_as_wanted {
            text.extend_from_slice(&self.state.wanted().switch_sql(&server.parameters));
            server.parameters = SharedParameters::clone(self.state.wanted());
        }
        self.state.switched();
        if text.is_empty() {
            return;
        }
        text.extend_from_slice(b"PREPARE ");
        text.extend_from_slice(GUARD);
        text.extend_from_slice(b" AS SELECT 1");
        self.ask(&text, server, out);
        out.scratch_mut(|bytes| {
            target_head(bytes, tag::DESCRIBE, Target::Statement, GUARD);
            target_head(bytes, tag::CLOSE, Target::Statement, GUARD);
        });
        self.outstanding.push(Entry::skip(Owed::DescribeStatement));
        self.outstanding.push(Entry::skip(Owed::Close));
    }

    /// Returns whether the server is still busy with a Query of ours in front of the batch. What it says of the extended messages
    /// behind that it keeps to itself until the batch is done, so nothing can be learned from those.
    pub fn is_ahead_of_its_batch(&self) -> bool {
        let front = self.outstanding.front();
        front.is_some_and(|due| due.action == Action::Skip && due.owed == Owed::Query)
    }

    /// Returns whether the next reply is that of a request of ours in front of the batch: a switch of parameters, a BEGIN. The
    /// Parse of a statement that the batch needs, and the Close that makes room for it, belong to the batch.
    ///
    /// Until then nothing may follow the batch: should what is in front fail, the server skips no further than to a Sync.
    pub fn front_is_of_ours(&self) -> bool {
        self.outstanding
            .front()
            .is_some_and(|due| match due.action {
                Action::Skip => {
                    let laden = self.outstanding.front_laden();
                    laden.is_none_or(|entry| entry.places.is_none())
                }
                Action::Tail | Action::Break => true,
                Action::Forward | Action::Fake | Action::Substitute => false,
            })
    }

    /// Returns what the failure of what stood in front of the batch means, if it has failed: the server connection must be
    /// closed.
    pub fn front_failure(&self) -> Option<FrontFailure> {
        match self.replies {
            Replies::FrontFailed(failure) => Some(failure),
            Replies::Passed | Replies::Watched(_) | Replies::Abandoned | Replies::FrontFailing => {
                None
            }
        }
    }

    /// Returns the error that the client has not heard of, a complete ErrorResponse message, and forgets it; empty where there
    /// is none.
    pub fn take_front_error(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.front_error)
    }

    /// Notes that what stands in front of the batch has failed; returns whether the client hears of it now.
    ///
    /// `error` is the complete message, as far as it is there.
    pub(crate) fn on_front_error(&mut self, is_canceled: bool, error: &[u8]) -> bool {
        if self.replies == Replies::FrontFailing {
            // The guard is not there.
            self.replies = Replies::FrontFailed(FrontFailure::Canceled);
            return false;
        }
        let front = self.outstanding.front();
        let is_ahead = front.is_some_and(|due| due.action == Action::Skip);
        let is_query = front.is_some_and(|due| due.owed == Owed::Query);
        let failure = match self.replies {
            Replies::Watched(watch) if watch.is_read() => FrontFailure::OfRead,
            _ if is_canceled && is_ahead => FrontFailure::Canceled,
            _ => FrontFailure::Refused,
        };
        self.replies = Replies::FrontFailed(failure);
        if failure == FrontFailure::Canceled {
            self.front_error = error.to_vec();
            if is_query {
                // Cancelled behind its last statement it may yet have made the guard, and taken back everything else.
                self.replies = Replies::FrontFailing;
            }
        }
        failure == FrontFailure::Refused
    }

    /// Notes that the server describes a statement. Where that is the guard although the switch in front of it has failed, the
    /// batch runs, and with settings that are not the session's.
    pub(crate) fn on_described(&mut self) {
        if self.replies == Replies::FrontFailing {
            self.replies = Replies::FrontFailed(FrontFailure::Refused);
        }
    }

    /// Brings back what a RESET has taken from the connection although the session came with it. What the server reports of it
    /// is news to the client, which was told of the RESET, and its ReadyForQuery is the one that the client waits for.
    pub fn restore(&mut self, server: &mut ServerSession, out: &mut Gather) {
        let in_transaction = server.status == TransactionStatus::InTransaction;
        let sql = self.state.restore_sql(in_transaction);
        self.state.restored(in_transaction);
        server.parameters = SharedParameters::clone(self.state.carried());
        server.unnamed = None;
        out.scratch_mut(|bytes| Query { sql: &sql }.encode(bytes));
        self.outstanding.push(Entry {
            action: Action::Tail,
            ..Entry::forward(Owed::Query)
        });
    }

    /// Makes the transaction that was just opened fail, as it did where it ran before.
    pub fn fail_transaction(&mut self, out: &mut Gather) {
        out.scratch_mut(|bytes| {
            target_head(bytes, tag::DESCRIBE, Target::Statement, MISSING_NAME);
            Sync.encode(bytes);
        });
        self.outstanding.push(Entry {
            action: Action::Break,
            ..Entry::forward(Owed::DescribeStatement)
        });
        self.outstanding.push(Entry::skip(Owed::Sync));
    }

    /// Sends a Query of ours.
    fn ask(&mut self, sql: &[u8], server: &mut ServerSession, out: &mut Gather) {
        server.unnamed = None;
        out.scratch_mut(|bytes| Query { sql }.encode(bytes));
        self.outstanding.push(Entry::skip(Owed::Query));
    }

    /// Asks the server for one row about what the session has left there. Its failure harms nobody.
    pub fn probe(&mut self, sql: &[u8], server: &mut ServerSession, out: &mut Gather) {
        self.ask(sql, server, out);
        self.probe = Probe::Asked(Vec::new());
    }

    /// Opens the session's transaction on this server: its BEGIN, which no server has seen yet or only another one, and what
    /// the session has set in it since.
    ///
    /// As extended messages without a Sync: should one fail, the server skips the batch that comes behind them, whatever kind
    /// it is, so that it never runs outside of its transaction.
    ///
    /// `begin` stands for the client's own BEGIN, where that would not do.
    pub fn open_transaction(
        &mut self,
        begin: Option<&[u8]>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) {
        server.unnamed = None;
        let (own, steps) = self.state.transaction();
        let mut count = 0;
        for sql in begin.or(own).into_iter().chain(steps) {
            out.scratch_mut(|bytes| {
                Parse {
                    name: b"",
                    sql,
                    parameter_types: ListBuf::new().as_list(),
                }
                .encode(bytes);
                bind_head(bytes, b"", b"", BIND_NOTHING.len());
                bytes.extend_from_slice(BIND_NOTHING);
                Execute {
                    portal: b"",
                    max_rows: 0,
                }
                .encode(bytes);
            });
            count += 1;
        }
        for _ in 0..count {
            for owed in [Owed::Parse, Owed::Bind, Owed::Execute] {
                self.outstanding.push(Entry::skip(owed));
            }
        }
    }
}
