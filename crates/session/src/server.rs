//! What is known of one server connection: transaction status, prepared statements, parameters, what makes it unclean.
//!
//! ```text
//!              checkout                 ReadyForQuery 'I', nothing outstanding, ledger clean
//!   pooled ───────────────► leased ─────────────────────────────────────────────────────────► pooled
//!     ▲                       │  ledger marked (settings changed inside, session state left)
//!     │      reset succeeded  ▼
//!     └─────────────────── resetting ──── anything else, an error, a stray byte ───► closed
//! ```
//! The value is `Send`, so that an idle connection may move to another thread.

use std::sync::Arc;

use hashbrown::HashMap;
use pgweir_model::PinReason;
use pgweir_wire::TransactionStatus;

use crate::parameters::{ParameterSet, SharedParameters};
use crate::statement::StatementId;

/// What a session may have left behind on a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Ledger {
    /// Nothing.
    #[default]
    Clean,
    /// Something ran that may have changed settings or taken session-level locks inside: reset before reuse.
    Suspect,
    /// The session was pinned here: `DISCARD ALL` before reuse.
    SessionState,
    /// Something that no command undoes: close.
    Beyond,
}

/// The prepared statements on one server connection, bounded, the least recently used one giving way.
#[derive(Debug)]
pub struct ServerStatements {
    uses: HashMap<StatementId, Use, foldhash::fast::RandomState>,
    clock: u64,
    /// What was placed before this moment may have plans that a change of the schema has made useless.
    trusted_since: u64,
    leased_at: u64,
    /// What was placed before this moment is prepared anew when a client prepares it anew.
    doubted_before: u64,
    /// The present session has used all of them: none may be closed.
    is_all_in_use: bool,
    /// The transaction at hand changes the schema, so that every plan may become useless at any moment.
    is_schema_changing: bool,
    limit: usize,
}

/// When a statement was placed and last used, by the clock of its table.
#[derive(Debug, Clone, Copy)]
struct Use {
    placed: u64,
    last: u64,
}

impl ServerStatements {
    fn new(limit: usize) -> Self {
        ServerStatements {
            uses: HashMap::default(),
            clock: 0,
            trusted_since: 0,
            doubted_before: 0,
            is_schema_changing: false,
            leased_at: 0,
            is_all_in_use: false,
            limit: limit.max(1),
        }
    }

    /// Returns whether the statement is there and can be used, and marks it as used.
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        match self.uses.get_mut(&id) {
            Some(of) if of.placed >= self.trusted_since => {
                of.last = self.clock;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Notes that none of those placed so far is to be used again without being placed anew.
    pub fn distrust(&mut self) {
        self.clock += 1;
        self.trusted_since = self.clock;
    }

    /// As [`touch`](Self::touch), for a client that prepares the statement: what may be stale does not count as there,
    /// because on a connection of its own the client would get a fresh one.
    pub fn touch_fresh(&mut self, id: StatementId) -> bool {
        let of = self.uses.get(&id);
        !self.is_schema_changing
            && of.is_some_and(|of| of.placed >= self.doubted_before)
            && self.touch(id)
    }

    /// Takes out a statement that is to be placed again: if it is there, it must be closed first.
    pub fn take(&mut self, id: StatementId) -> Option<StatementId> {
        self.uses.remove(&id).map(|_| id)
    }

    /// Notes that the transaction at hand changes the schema.
    pub fn begin_schema_change(&mut self) {
        self.is_schema_changing = true;
    }

    /// Returns whether the transaction at hand changes the schema.
    pub fn is_schema_changing(&self) -> bool {
        self.is_schema_changing
    }

    /// Notes that no transaction is open any more: what was placed so far was placed before, or in, what it changed.
    pub fn end_schema_change(&mut self) {
        if std::mem::take(&mut self.is_schema_changing) {
            self.clock += 1;
            self.doubted_before = self.clock;
        }
    }

    /// Takes out a statement that must be closed before another is placed; `None` while there is room.
    ///
    /// One that the present session has used is never taken: closing a statement closes the portals made of it. So the
    /// limit may be passed for as long as one session uses more than it.
    /// Looks at all of them: it happens only on the way to a Parse, which costs the server far more.
    pub fn evict(&mut self) -> Option<StatementId> {
        if self.is_all_in_use || self.uses.len() < self.limit {
            return None;
        }
        let (id, used) = self
            .uses
            .iter()
            .map(|(id, of)| (*id, of.last))
            .min_by_key(|(_, used)| *used)?;
        if used > self.leased_at {
            self.is_all_in_use = true;
            return None;
        }
        self.uses.remove(&id);
        Some(id)
    }

    /// Notes that the statement is being placed.
    pub fn place(&mut self, id: StatementId) {
        self.clock += 1;
        let now = self.clock;
        self.uses.insert(
            id,
            Use {
                placed: now,
                last: now,
            },
        );
    }

    /// Notes that another session begins to use the connection.
    pub fn lease(&mut self) {
        self.leased_at = self.clock;
        self.is_all_in_use = false;
    }

    /// Notes that the server dropped them all.
    pub fn clear(&mut self) {
        self.uses.clear();
    }

    /// Notes that the statement is not there after all.
    pub fn forget(&mut self, id: StatementId) {
        self.uses.remove(&id);
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.uses.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }
}

/// Whether a server has said that it ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    None,
    /// The client has been given its words.
    Heard,
    /// The session could do without it, and nobody has.
    Unheard,
}

/// The state of one server connection after its login.
#[derive(Debug)]
pub struct ServerSession {
    /// As the last ReadyForQuery said.
    pub status: TransactionStatus,
    /// Statements prepared under names of ours.
    pub statements: ServerStatements,
    /// What its unnamed statement is, where that is known to be one of ours.
    pub unnamed: Option<StatementId>,
    /// The startup parameters that it carries beyond its own.
    pub parameters: SharedParameters,
    /// Whether it may be given to another session.
    pub ledger: Ledger,
    /// The schema epoch that its statements were prepared in; statements of an older one are dropped before use.
    pub epoch: u64,
    /// The newest value of every parameter that it reported.
    reported: Vec<(Box<str>, Box<str>)>,
    /// What [`reads_text`] says of these.
    reads_text: bool,
    /// The reply of which a part has come.
    pub(crate) cut: CutReply,
    /// Whether the server is reading COPY data.
    pub(crate) copy_in: bool,
    /// Its last words.
    pub(crate) farewell: Farewell,
    /// How many ReadyForQuery are to come is not known exactly.
    pub(crate) syncs: Syncs,
}

/// Encodings in which a byte of a longer character may look like a quote or a backslash.
const UNSAFE_ENCODINGS: [&str; 7] = [
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
    "SHIFT_JIS_2004",
];

/// Returns whether our lexer reads texts as a server does that reports these parameters.
pub fn reads_text(reported: &[(Box<str>, Box<str>)]) -> bool {
    reported.iter().all(|(name, value)| match &**name {
        "standard_conforming_strings" => **value == *"on",
        "client_encoding" => !UNSAFE_ENCODINGS.contains(&value.to_ascii_uppercase().as_str()),
        _ => true,
    })
}

/// A reply larger than the read buffer, which streams through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CutReply {
    /// Bytes of it that are still to come; 0 between replies.
    pub(crate) remaining: usize,
    /// They go to the client.
    pub(crate) is_forwarded: bool,
    /// It is the last reply to its request.
    pub(crate) ends_request: bool,
}

/// What became of a Sync that stood behind a COPY FROM: a server that reads COPY data ignores it, one that fails before it
/// reads any answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Syncs {
    /// There was none.
    #[default]
    Counted,
    /// It is taken to be ignored.
    Ignored,
    /// The COPY failed, nobody can tell when: one ReadyForQuery more may come.
    Doubtful,
}

impl ServerSession {
    /// Makes the state of a connection that has just reported ReadyForQuery after its login.
    pub fn new(reported: Vec<(Box<str>, Box<str>)>, statement_limit: usize) -> Self {
        ServerSession {
            status: TransactionStatus::Idle,
            statements: ServerStatements::new(statement_limit),
            unnamed: None,
            parameters: Arc::new(ParameterSet::default()),
            ledger: Ledger::Clean,
            epoch: 0,
            reads_text: reads_text(&reported),
            reported,
            cut: CutReply::default(),
            copy_in: false,
            farewell: Farewell::None,
            syncs: Syncs::Counted,
        }
    }

    /// Returns the parameters that the server reported, each with its newest value, in order of first report.
    pub fn reported(&self) -> &[(Box<str>, Box<str>)] {
        &self.reported
    }

    /// Returns the newest value of a parameter that the server reports.
    pub fn reported_value(&self, name: &str) -> Option<&str> {
        let found = self.reported.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| &**value)
    }

    /// Returns whether our lexer reads texts as the server does now, by what it has reported.
    #[inline]
    pub fn reads_text(&self) -> bool {
        self.reads_text
    }

    /// Notes that its statements may be stale whatever the schema epoch says: each is prepared anew before its next use.
    pub fn distrust_statements(&mut self) {
        self.statements.distrust();
        self.unnamed = None;
    }

    /// Notes a ParameterStatus.
    pub fn report(&mut self, name: &str, value: &str) {
        match self.reported.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, kept)) => *kept = value.into(),
            None => self.reported.push((name.into(), value.into())),
        }
        self.reads_text = reads_text(&self.reported);
    }

    /// Marks what a session may leave behind; marks only ever get worse until [`reset_done`](Self::reset_done).
    pub fn mark(&mut self, ledger: Ledger) {
        self.ledger = self.ledger.max(ledger);
    }

    /// Marks what a pin leaves behind.
    pub fn mark_pin(&mut self, reason: PinReason) {
        self.mark(if reason.survives_discard() {
            Ledger::Beyond
        } else {
            Ledger::SessionState
        });
    }

    /// Returns whether the connection is between transactions, between messages, and carries nothing of its last session.
    pub fn is_clean(&self) -> bool {
        self.is_between_messages()
            && self.status == TransactionStatus::Idle
            && self.ledger == Ledger::Clean
    }

    /// Returns whether no reply is cut in two.
    pub fn is_between_messages(&self) -> bool {
        self.cut.remaining == 0 && !self.copy_in
    }

    /// Returns how many bytes are still to come of the reply that is cut in two; 0 between replies.
    pub fn rest_of_reply(&self) -> usize {
        self.cut.remaining
    }

    /// Returns whether the client has been given the beginning of a reply whose end has not come: whatever else it is sent
    /// would be taken for the rest.
    pub fn is_reply_cut(&self) -> bool {
        self.cut.remaining > 0 && self.cut.is_forwarded
    }

    /// Returns whether the client has been told by the server itself that the connection ends.
    pub fn has_said_farewell(&self) -> bool {
        self.farewell == Farewell::Heard
    }

    /// Returns whether the server has said its last words to nobody: the end of its connection follows, and nothing may be
    /// sent there any more.
    pub fn is_leaving(&self) -> bool {
        self.farewell == Farewell::Unheard
    }

    /// Returns whether the server is reading COPY data.
    pub fn is_copy_in(&self) -> bool {
        self.copy_in
    }

    /// Returns the SQL that undoes what the ledger says, or `None` where nothing can (the connection must be closed).
    ///
    /// After a suspect statement everything goes that a function may leave behind, except the prepared statements, which
    /// are worth keeping and which no function can touch by our names.
    pub fn reset_sql(&self) -> Option<&'static str> {
        match self.ledger {
            Ledger::Clean => Some(""),
            Ledger::Suspect => Some(
                "CLOSE ALL;SET SESSION AUTHORIZATION DEFAULT;RESET ROLE;RESET ALL;UNLISTEN *;\
                 SELECT pg_catalog.pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP",
            ),
            Ledger::SessionState => Some("DISCARD ALL"),
            Ledger::Beyond => None,
        }
    }

    /// Notes that the SQL of [`reset_sql`](Self::reset_sql) succeeded.
    pub fn reset_done(&mut self) {
        if self.ledger == Ledger::SessionState {
            self.statements.clear();
        }
        self.unnamed = None;
        self.parameters = Arc::new(ParameterSet::default());
        self.ledger = Ledger::Clean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_the_newest_report_says() {
        let mut server = ServerSession::new(Vec::new(), 1);
        assert!(server.reads_text());
        for (name, value, reads) in [
            ("standard_conforming_strings", "off", false),
            ("DateStyle", "ISO", false),
            ("standard_conforming_strings", "on", true),
            ("client_encoding", "sjis", false),
            ("client_encoding", "UTF8", true),
        ] {
            server.report(name, value);
            assert_eq!(server.reads_text(), reads, "{name} = {value}");
        }
        let reported = vec![("client_encoding".into(), "GBK".into())];
        assert!(!ServerSession::new(reported, 1).reads_text());
    }
}
