//! Which replies a server still owes, and what becomes of each.
//!
//! Every message that goes to a server and is answered gets one entry, in order. A reply belongs to the entry at the
//! front; a reply that no entry owns is a [`Violation`](crate::Violation) and the connection dies. This is what keeps
//! one client's rows from ever reaching another.
//!
//! ```text
//!   sent:      Parse*  Bind   Execute   Sync          * the server has it already: nothing is sent
//!   entries:   Fake    Forward Forward  Forward
//!   replies:   (ours)  2       D.. C    Z
//! ```

use std::collections::VecDeque;
use std::rc::Rc;

use crate::statement::{Statement, StatementId};

/// The kind of request whose reply is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// A simple Query: everything up to ReadyForQuery.
    Query,
    /// A FunctionCall: FunctionCallResponse and ReadyForQuery.
    FunctionCall,
    /// Sync: ReadyForQuery.
    Sync,
    /// ParseComplete.
    Parse,
    /// BindComplete.
    Bind,
    /// ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// Nothing: the client has ended its COPY data here. A Sync before it may be ignored by the server, one behind it is not.
    CopyEnd,
}

/// What becomes of a reply.
#[derive(Debug)]
pub enum Action {
    /// The client gets it.
    Forward,
    /// We asked, not the client: it is swallowed. An error is not: it is the client's.
    Skip,
    /// Nothing was sent for it: the client gets a reply of ours when its turn comes.
    Fake,
    /// The request cannot succeed; the server's error is replaced by this complete ErrorResponse message.
    Substitute(Box<[u8]>),
}

/// What a successful reply changes in the client's list of prepared statements. Not applied when the server skips the
/// request after an error.
#[derive(Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// `name` now means `statement`. The empty name is the unnamed statement and allocates nothing.
    Define {
        /// The client's name.
        name: Box<[u8]>,
        /// What it means.
        statement: Rc<Statement>,
    },
    /// `name` is gone.
    Undefine {
        /// The client's name.
        name: Box<[u8]>,
    },
}

impl Change {
    fn name(&self) -> Option<&[u8]> {
        match self {
            Change::None => None,
            Change::Define { name, .. } | Change::Undefine { name } => Some(name),
        }
    }
}

/// One request whose reply is due.
#[derive(Debug)]
pub struct Entry {
    /// What is due.
    pub owed: Owed,
    /// What becomes of it.
    pub action: Action,
    /// What it changes for the client.
    pub change: Change,
    /// The statement that this Parse places on the server, or this Close takes from it: undone if the server skips it.
    pub places: Option<StatementId>,
}

impl Entry {
    /// An entry that forwards a reply and changes nothing.
    pub fn forward(owed: Owed) -> Self {
        Entry {
            owed,
            action: Action::Forward,
            change: Change::None,
            places: None,
        }
    }

    /// An entry that swallows a reply.
    pub fn skip(owed: Owed) -> Self {
        Entry {
            owed,
            action: Action::Skip,
            change: Change::None,
            places: None,
        }
    }
}

/// The replies that are due, oldest first.
#[derive(Debug, Default)]
pub struct Outstanding {
    entries: VecDeque<Entry>,
    /// Entries that carry a [`Change`]: lets a name be looked up without a walk in the usual case of none.
    changes: usize,
    /// Entries that place or take a statement.
    placing: usize,
    /// Entries that the server really has to answer.
    awaited: usize,
    /// A batch among them makes the server forget prepared statements.
    is_discarding: bool,
    /// The server skips what it gets up to the next Sync, which is still to be sent.
    is_skipping: bool,
}

/// What a client's name means while changes are on their way.
#[derive(Debug)]
pub enum Pending {
    /// No outstanding request touches it.
    Untouched,
    /// It will mean this.
    Defined(Rc<Statement>),
    /// It will be gone.
    Undefined,
}

impl Pending {
    /// Returns whether the meaning of the name is still open.
    pub fn is_open(&self) -> bool {
        !matches!(self, Pending::Untouched)
    }
}

impl Outstanding {
    /// Adds a request.
    pub fn push(&mut self, entry: Entry) {
        self.changes += usize::from(entry.change.name().is_some());
        self.placing += usize::from(entry.places.is_some());
        self.awaited += usize::from(!matches!(entry.action, Action::Fake));
        self.is_skipping &= entry.owed != Owed::Sync;
        self.entries.push_back(entry);
    }

    /// Returns the request whose reply is due next.
    pub fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Takes the request at the front: its reply has come (or is ours to give).
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.changes -= usize::from(entry.change.name().is_some());
        self.placing -= usize::from(entry.places.is_some());
        self.awaited -= usize::from(!matches!(entry.action, Action::Fake));
        Some(entry)
    }

    /// Takes the request at the front if the server skips it after an error in an extended message: all up to a Sync,
    /// simple queries included.
    pub fn pop_skipped(&mut self) -> Option<Entry> {
        match self.front() {
            Some(entry) if entry.owed == Owed::Sync => None,
            Some(_) => self.pop(),
            None => {
                self.is_skipping = true;
                None
            }
        }
    }

    /// Returns whether the server skips what it gets until a Sync, so that it will answer nothing else.
    pub fn is_skipping(&self) -> bool {
        self.is_skipping
    }

    /// Notes that the request added last will fail, so that the server skips what comes up to a Sync.
    pub fn begin_skipping(&mut self) {
        self.is_skipping = true;
    }

    /// Notes that the Execute at the front will fail, so that the server skips what comes up to a Sync.
    ///
    /// Returns false where the request at the front is another.
    pub fn skip_behind_execute(&mut self) -> bool {
        self.is_skipping = self
            .front()
            .is_some_and(|entry| entry.owed == Owed::Execute);
        self.is_skipping
    }

    /// Notes that the server says that it is ready, and so skips nothing any more.
    pub fn end_skipping(&mut self) {
        self.is_skipping = false;
    }

    /// Takes a Sync that directly follows the request at the front: the server in COPY IN ignores it.
    ///
    /// Returns whether there was one.
    pub fn drop_sync_behind_front(&mut self) -> bool {
        let found = self
            .entries
            .get(1)
            .is_some_and(|entry| entry.owed == Owed::Sync);
        if found {
            self.entries.remove(1);
            self.awaited -= 1;
        }
        found
    }

    /// Takes the end of the COPY data that directly follows the request at the front.
    ///
    /// Returns whether there was one.
    pub fn take_copy_end_behind_front(&mut self) -> bool {
        let found = self
            .entries
            .get(1)
            .is_some_and(|entry| entry.owed == Owed::CopyEnd);
        if found {
            self.entries.remove(1);
        }
        found
    }

    /// Returns what `name` will mean once all that is due has come.
    pub fn pending(&self, name: &[u8]) -> Pending {
        if self.changes == 0 {
            return Pending::Untouched;
        }
        for entry in self.entries.iter().rev() {
            match &entry.change {
                Change::Define {
                    name: defined,
                    statement,
                } if **defined == *name => {
                    return Pending::Defined(Rc::clone(statement));
                }
                Change::Undefine { name: undefined } if **undefined == *name => {
                    return Pending::Undefined;
                }
                Change::None | Change::Define { .. } | Change::Undefine { .. } => {}
            }
        }
        Pending::Untouched
    }

    /// Returns whether the meaning of `name` depends on how an *earlier* batch ends, one with a Sync of its own: if that
    /// fails, the change is undone, and the present batch runs all the same.
    pub fn depends_on_earlier_batch(&self, name: &[u8]) -> bool {
        if self.changes == 0 {
            return false;
        }
        self.earlier_batches()
            .any(|entry| entry.change.name() == Some(name))
    }

    /// Returns whether an earlier batch places a statement on the server or takes it from there, which is undone if that
    /// batch fails.
    pub fn is_placed_by_earlier_batch(&self, id: StatementId) -> bool {
        self.placing > 0 && self.earlier_batches().any(|entry| entry.places == Some(id))
    }

    /// Notes that a batch begins to go out.
    pub fn begin_batch(&mut self) {
        self.is_discarding = self.is_discarding();
    }

    /// Notes that the batch that goes out makes the server forget prepared statements.
    pub fn note_discards(&mut self) {
        self.is_discarding = true;
    }

    /// Returns whether the server may still be about to forget prepared statements.
    pub fn is_discarding(&self) -> bool {
        self.is_discarding && self.holds_whole_batch()
    }

    /// Returns whether a batch that has gone out as a whole is still to be answered.
    pub fn holds_whole_batch(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(entry.owed, Owed::Sync | Owed::Query | Owed::FunctionCall))
    }

    /// Returns the statements that are being placed on the server.
    pub fn placed(&self) -> impl Iterator<Item = StatementId> {
        self.entries
            .iter()
            .filter(|entry| entry.owed == Owed::Parse)
            .filter_map(|entry| entry.places)
    }

    fn earlier_batches(&self) -> impl Iterator<Item = &Entry> {
        let last_end = self
            .entries
            .iter()
            .rposition(|entry| matches!(entry.owed, Owed::Sync | Owed::Query | Owed::FunctionCall));
        self.entries
            .iter()
            .take(last_end.map_or(0, |last| last + 1))
    }

    /// Returns whether the server owes nothing.
    pub fn is_settled(&self) -> bool {
        self.awaited == 0
    }

    /// Returns whether nothing is due at all, replies of ours included.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many requests are due.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets all: the server connection is gone, or its replies are thrown away.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.changes = 0;
        self.placing = 0;
        self.awaited = 0;
        self.is_skipping = false;
    }

    /// Turns every due reply into one that is swallowed.
    pub fn skip_all(&mut self) {
        self.entries
            .retain(|entry| !matches!(entry.action, Action::Fake));
        for entry in &mut self.entries {
            entry.action = Action::Skip;
            entry.change = Change::None;
        }
        self.changes = 0;
    }
}
