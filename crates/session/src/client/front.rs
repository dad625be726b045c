//! What goes in front of a session's batch on its server connection: the switch of settings, a BEGIN that was held back, a
//! question of the proxy's own.
//!
//! The client hears nothing of the answers. Should one of them fail, the batch behind it does not run.

use pgweir_wire::frontend::{Execute, Parse, Query, Sync, Target, bind_head, tag, target_head};
use pgweir_wire::{Gather, ListBuf, TransactionStatus};

use super::{ClientSession, Probe};
use crate::outstanding::{Action, Entry, Owed};
use crate::parameters::SharedParameters;
use crate::server::ServerSession;
use crate::statement::{GUARD, MISSING_NAME};

/// What follows the names in a Bind without parameters whose results are text.
const BIND_NOTHING: &[u8] = &[0, 0, 0, 0, 0, 0];

impl ClientSession {
    /// Prepares a server connection for this session: its parameters, and a fresh start for statements whose result types
    /// may have changed since they were prepared there (`epoch`).
    ///
    /// What is needed goes in front of the first batch, in the same write. Should the switch of parameters fail (a role that
    /// was dropped, a limit that it exceeds), the batch must not run with those of the session before: the switch ends with
    /// the making of a statement, which is described and closed between it and the batch. Where there is no such statement the
    /// server skips the batch, whatever kind it is, and the connection is given up.
    pub fn begin_lease(&mut self, server: &mut ServerSession, epoch: u64, out: &mut Gather) {
        server.statements.lease();
        self.context.epoch = epoch;
        let mut text = Vec::new();
        if server.epoch != epoch {
            if !server.statements.is_empty() || server.unnamed.is_some() {
                text.extend_from_slice(b"DEALLOCATE ALL;");
                server.statements.clear();
            }
            server.epoch = epoch;
        }
        let mut switch = Vec::new();
        if !self.state.wanted().same(&server.parameters) {
            switch = self.state.wanted().switch_sql(&server.parameters);
            server.parameters = SharedParameters::clone(self.state.wanted());
        }
        self.state.switched();
        if switch.is_empty() {
            if !text.is_empty() {
                self.ask(&text, server, out);
            }
            return;
        }
        text.extend_from_slice(&switch);
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
        front.is_some_and(|entry| matches!(entry.action, Action::Skip) && entry.owed == Owed::Query)
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

    /// Puts a statement of ours in front of the session's next batch. If it fails, so does the session.
    pub fn ask(&mut self, sql: &[u8], server: &mut ServerSession, out: &mut Gather) {
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
