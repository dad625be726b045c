//! Takes a server's bytes apart and gives each reply to the request that owns it.
//!
//! Runs of adjacent messages for the client are passed on as one range of the input; rows and COPY data are not looked at
//! beyond their header. Only ErrorResponse, ParameterStatus, ReadyForQuery and CommandComplete are read.

mod failure;
mod refusal;

use pgweir_wire::backend::{
    CommandComplete, ErrorResponse, ParameterStatus, ReadyForQuery, rows_of, tag,
};
use pgweir_wire::{Gather, HEADER_LEN, Header, TransactionStatus};

use crate::client::{ClientSession, Probe, Replies};
use crate::error::Violation;
use crate::outstanding::{Action, Change, Due, Owed};
use crate::parameters::SharedParameters;
use crate::server::{Ledger, ServerSession, Syncs};

pub use refusal::{Refusal, Watch, is_recovery_error, is_stale_plan};

/// A message that must be read as a whole may be this long; a longer one is passed on unread (an ErrorResponse that
/// quotes a huge statement). Not smaller than any ParameterStatus that occurs, not larger than a read buffer.
const READ_WHOLE_LIMIT: usize = 32 * 1024;

/// A message of at most this size is passed on only as a whole, so that an error of ours can follow whenever the server
/// dies. Not smaller than usual rows, not larger than what may be copied once per read without being noticed.
const KEEP_WHOLE_LIMIT: usize = 8 * 1024;

/// Parameters whose new value depends on the one before, and which every server reports.
const RELATIVE: [&str; 1] = ["DateStyle"];

/// `ParseComplete`, `CloseComplete` as we send them for requests that the server never saw.
const PARSE_COMPLETE: &[u8] = &[tag::PARSE_COMPLETE, 0, 0, 0, 4];
const CLOSE_COMPLETE: &[u8] = &[tag::CLOSE_COMPLETE, 0, 0, 0, 4];

/// What the caller must know of the bytes it handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyEvent {
    /// Nothing special.
    None,
    /// The batch has failed in a way that is not the client's, and nothing of its result is in the output: throw the rest
    /// of the replies away and run it again, or let the client have the error.
    Replay(Refusal),
    /// A RESET has taken from the connection what the session came with: call
    /// [`restore`](ClientSession::restore), whose replies end the batch.
    Restore,
}

/// The outcome of [`ClientSession::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the input that are done with; the rest must be handed in again with more behind it.
    pub consumed: usize,
    /// What happened.
    pub event: ReplyEvent,
}

/// The position in the input and the start of the run of bytes that goes out as one range.
struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
    run: usize,
}

impl<'a> Cursor<'a> {
    /// Ends the run here and puts it out.
    fn flush(&mut self, out: &mut Gather) {
        if self.run < self.at {
            out.input(self.run..self.at);
        }
        self.run = self.at;
    }

    /// Passes over `len` bytes that do not go out.
    fn skip(&mut self, len: usize, out: &mut Gather) {
        self.flush(out);
        self.at += len;
        self.run = self.at;
    }

    /// Returns how many bytes are left.
    fn left(&self) -> usize {
        self.input.len().saturating_sub(self.at)
    }

    fn rest(&self) -> &'a [u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    fn body(&self, header: Header) -> &'a [u8] {
        self.input
            .get(self.at + HEADER_LEN..self.at + header.frame_len())
            .unwrap_or_default()
    }
}

impl ClientSession {
    /// Gives the server's bytes to the requests that own them.
    ///
    /// `out` receives what goes to the client.
    ///
    /// # Errors
    /// A [`Violation`] when a reply is owed to nobody or is no message: both connections must be closed.
    pub fn receive(
        &mut self,
        input: &[u8],
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<Received, Violation> {
        let mut cursor = Cursor {
            input,
            at: 0,
            run: 0,
        };
        self.finish_cut_message(&mut cursor, server, out);
        while server.cut.remaining == 0 {
            if let Replies::Watched(watch) = self.replies
                && !self.is_ahead_of_batch(cursor.rest())?
            {
                match look_ahead(watch, cursor.rest())? {
                    LookAhead::Undecided => break,
                    LookAhead::Refused(refusal) => {
                        cursor.flush(out);
                        self.remember_told(server);
                        return Ok(Received {
                            consumed: cursor.at,
                            event: ReplyEvent::Replay(refusal),
                        });
                    }
                    LookAhead::Result => self.replies = Replies::Passed,
                }
            }
            let Some(header) = Header::peek(cursor.rest())? else {
                break;
            };
            self.emit_fakes(&mut cursor, out);
            if !self.step(header, &mut cursor, server, out)? {
                break;
            }
            if std::mem::take(&mut self.is_restore_due) {
                cursor.flush(out);
                return Ok(Received {
                    consumed: cursor.at,
                    event: ReplyEvent::Restore,
                });
            }
        }
        cursor.flush(out);
        Ok(Received {
            consumed: cursor.at,
            event: ReplyEvent::None,
        })
    }

    /// Puts out the replies of ours that are due before anything the server sends.
    ///
    /// For a batch of which nothing went to the server and that ends in Flush.
    pub fn emit_due_fakes(&mut self, out: &mut Gather) {
        let mut cursor = Cursor {
            input: &[],
            at: 0,
            run: 0,
        };
        self.emit_fakes(&mut cursor, out);
    }

    /// Returns whether the next reply is to something of ours that stands in front of the batch, and so decides nothing.
    /// An error does where it is of what the batch needs.
    fn is_ahead_of_batch(&self, input: &[u8]) -> Result<bool, Violation> {
        if self.front_is_of_ours() {
            return Ok(true);
        }
        let front = self.outstanding.front();
        if !front.is_some_and(|due| due.action == Action::Skip) {
            return Ok(false);
        }
        let next = Header::peek(input)?;
        Ok(next.is_none_or(|header| header.tag != tag::ERROR_RESPONSE))
    }

    fn finish_cut_message(
        &mut self,
        cursor: &mut Cursor<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) {
        if server.cut.remaining == 0 {
            return;
        }
        let taken = server.cut.remaining.min(cursor.input.len());
        server.cut.remaining -= taken;
        if server.cut.is_forwarded {
            cursor.at += taken;
        } else {
            cursor.skip(taken, out);
        }
        if server.cut.remaining > 0 {
            return;
        }
        server.cut.is_forwarded = false;
        if server.cut.ends_request {
            self.end_front(cursor, server, out);
        }
    }

    /// Puts out the replies of ours that are due now. Asked at every message, and mostly there are none.
    #[inline]
    fn emit_fakes(&mut self, cursor: &mut Cursor<'_>, out: &mut Gather) {
        while self.outstanding.is_front_fake() {
            self.emit_fake(cursor, out);
        }
    }

    fn emit_fake(&mut self, cursor: &mut Cursor<'_>, out: &mut Gather) {
        if let Some(entry) = self.outstanding.pop() {
            if entry.owed != Owed::CopyEnd {
                cursor.flush(out);
                out.scratch(if entry.owed == Owed::Close {
                    CLOSE_COMPLETE
                } else {
                    PARSE_COMPLETE
                });
            }
            self.apply(entry.change);
        }
    }

    /// Takes one message; returns false when more bytes are needed for it, or no more are to be taken.
    fn step(
        &mut self,
        header: Header,
        cursor: &mut Cursor<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<bool, Violation> {
        // A client that has part of a message can be told nothing any more, should the server die.
        let whole = header.frame_len() <= cursor.left();
        if !whole && header.frame_len() <= KEEP_WHOLE_LIMIT {
            return Ok(false);
        }
        // Rows first: there may be millions, and nothing about them needs a look.
        if header.tag == tag::DATA_ROW {
            let forward = match self.outstanding.front() {
                Some(Due {
                    owed: Owed::Query | Owed::Execute,
                    action,
                }) => action == Action::Forward,
                _ => return Err(Violation::UnownedReply { tag: header.tag }),
            };
            if !forward && let Probe::Asked(row) = &mut self.probe {
                row.extend_from_slice(cursor.body(header));
            }
            take(header, forward, cursor, server, out);
            return Ok(true);
        }
        let is_read = matches!(
            header.tag,
            tag::ERROR_RESPONSE
                | tag::PARAMETER_STATUS
                | tag::READY_FOR_QUERY
                | tag::COMMAND_COMPLETE
        );
        if is_read && !whole && header.frame_len() <= READ_WHOLE_LIMIT {
            return Ok(false);
        }
        match header.tag {
            tag::ERROR_RESPONSE => self.on_error(header, cursor, server, out),
            tag::READY_FOR_QUERY => self.on_ready(header, cursor, server, out)?,
            tag::PARAMETER_STATUS => self.on_parameter_status(header, cursor, server, out),
            tag::NOTICE_RESPONSE => {
                let forward = !self
                    .outstanding
                    .front()
                    .is_some_and(|due| due.action == Action::Skip);
                take(header, forward, cursor, server, out);
            }
            tag::NOTIFICATION_RESPONSE => take(header, true, cursor, server, out),
            _ => self.on_reply(header, cursor, server, out)?,
        }
        // What comes behind the failure of what stood in front of the batch is for nobody.
        Ok(self.front_failure().is_none())
    }

    /// A reply that belongs to the request at the front.
    fn on_reply(
        &mut self,
        header: Header,
        cursor: &mut Cursor<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        let unowned = Violation::UnownedReply { tag: header.tag };
        let front = self.outstanding.front().ok_or_else(|| unowned.clone())?;
        let owed = front.owed;
        let forward = matches!(front.action, Action::Forward | Action::Substitute);
        let rows = matches!(owed, Owed::Query | Owed::Execute);
        let ends = match header.tag {
            tag::PARSE_COMPLETE if owed == Owed::Parse => true,
            tag::BIND_COMPLETE if owed == Owed::Bind => true,
            tag::CLOSE_COMPLETE if owed == Owed::Close => true,
            tag::PARAMETER_DESCRIPTION if owed == Owed::DescribeStatement => {
                self.on_described();
                false
            }
            tag::ROW_DESCRIPTION | tag::NO_DATA
                if matches!(owed, Owed::DescribeStatement | Owed::DescribePortal) =>
            {
                true
            }
            tag::ROW_DESCRIPTION if owed == Owed::Query => false,
            tag::COMMAND_COMPLETE if rows => {
                server.copy_in = false;
                if server.syncs == Syncs::Ignored {
                    server.syncs = Syncs::Counted;
                }
                // Our own DEALLOCATE ALL, in front of a batch, has been accounted for when it was sent.
                if forward {
                    self.tally.add_rows(rows_of(cursor.body(header)));
                    self.on_command_complete(cursor.body(header), server);
                    self.apply_events(cursor.body(header), server);
                }
                owed == Owed::Execute
            }
            tag::EMPTY_QUERY_RESPONSE if rows => owed == Owed::Execute,
            tag::PORTAL_SUSPENDED if owed == Owed::Execute => true,
            tag::COPY_IN_RESPONSE if rows => {
                // A server that reads COPY data ignores Sync; libpq sends one before it knows that it is in COPY.
                while self.outstanding.drop_sync_behind_front() {
                    self.is_open = true;
                    server.syncs = Syncs::Ignored;
                }
                // A client that did not wait to be asked may have sent all of it, or something else, which ends the COPY.
                let is_sent = self.outstanding.take_copy_end_behind_front();
                server.copy_in = !is_sent && self.outstanding.len() == 1;
                false
            }
            tag::COPY_OUT_RESPONSE | tag::COPY_DATA | tag::COPY_DONE if rows => false,
            tag::FUNCTION_CALL_RESPONSE if owed == Owed::FunctionCall => false,
            _ => return Err(unowned),
        };
        take(header, forward, cursor, server, out);
        if ends {
            self.end_front(cursor, server, out);
        }
        Ok(())
    }

    /// The last reply to the request at the front has come, or the first part of it: nothing of ours goes between the parts.
    fn end_front(&mut self, cursor: &mut Cursor<'_>, server: &mut ServerSession, out: &mut Gather) {
        server.cut.ends_request = server.cut.remaining > 0;
        if server.cut.ends_request {
            return;
        }
        if !self.outstanding.pop_plain()
            && let Some(entry) = self.outstanding.pop()
        {
            self.apply(entry.change);
        }
        // What is watched is not decided yet: the next message does that, and then these are due.
        if !matches!(self.replies, Replies::Watched(_)) {
            self.emit_fakes(cursor, out);
        }
    }

    /// Notes what a command's tag says about state that both sides keep a list of.
    fn on_command_complete(&mut self, body: &[u8], server: &mut ServerSession) {
        if body.first() != Some(&b'D') {
            return;
        }
        let command = CommandComplete::decode(body)
            .map(|complete| complete.tag)
            .unwrap_or_default();
        if command == b"DEALLOCATE ALL" || command == b"DISCARD ALL" || command == b"DISCARD PLANS"
        {
            if command != b"DISCARD PLANS" {
                self.forget_statements();
                // What is being prepared by name comes behind it; an unnamed statement is in no list.
                let coming: Vec<_> = (self.outstanding.placed())
                    .filter(|id| server.statements.touch(*id))
                    .collect();
                server.statements.clear();
                for id in coming {
                    server.statements.place(id);
                }
            }
            server.unnamed = None;
        }
    }

    /// Takes the success of one more statement of the request at the front into account.
    fn apply_events(&mut self, body: &[u8], server: &mut ServerSession) {
        let Some(events) = self.outstanding.front_events() else {
            return;
        };
        let index = events.completed;
        events.completed += 1;
        for event in events.list.iter().filter(|event| event.index == index) {
            self.state.apply(event.clone(), body);
        }
        self.follow_state(server);
    }

    /// Notes what the server connection carries, and in which settings statements are accepted now.
    fn follow_state(&mut self, server: &mut ServerSession) {
        server.parameters = SharedParameters::clone(self.state.carried());
        if self.state.take_unclear() {
            server.mark(Ledger::Suspect);
        }
        self.context.settings = match self.state.has_local() {
            true => u64::MAX,
            false => self.state.wanted_now().id,
        };
        self.reading = self.state.wanted_now().reading();
    }

    fn on_parameter_status(
        &mut self,
        header: Header,
        cursor: &mut Cursor<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) {
        if let Ok(status) = ParameterStatus::decode(cursor.body(header)) {
            let text = |bytes| String::from_utf8_lossy(bytes);
            server.report(&text(status.name), &text(status.value));
        }
        // What our own switch of parameters causes is no news to this client: its login reported it.
        let ours = self
            .outstanding
            .front()
            .is_some_and(|due| due.action == Action::Skip);
        take(header, !ours, cursor, server, out);
    }

    fn on_ready(
        &mut self,
        header: Header,
        cursor: &mut Cursor<'_>,
        server: &mut ServerSession,
        out: &mut Gather,
    ) -> Result<(), Violation> {
        server.status = ReadyForQuery::decode(cursor.body(header))?.status;
        server.copy_in = false;
        if server.status == TransactionStatus::Idle {
            server.statements.end_schema_change();
        }
        self.outstanding.end_skipping();
        let Some(due) = self.outstanding.front() else {
            if server.syncs != Syncs::Doubtful {
                return Err(Violation::UnownedReply { tag: header.tag });
            }
            self.is_open = false;
            take(header, true, cursor, server, out);
            return Ok(());
        };
        let change = match self.outstanding.pop_plain() {
            true => Change::None,
            false => (self.outstanding.pop()).map_or(Change::None, |entry| entry.change),
        };
        match due.owed {
            Owed::Query | Owed::FunctionCall | Owed::Sync => {}
            Owed::Parse
            | Owed::Bind
            | Owed::DescribeStatement
            | Owed::DescribePortal
            | Owed::Execute
            | Owed::CopyEnd
            | Owed::Close => return Err(Violation::UnownedReply { tag: header.tag }),
        }
        // A server that says that it is ready skips nothing any more.
        if self.outstanding.is_empty() {
            self.is_open = false;
        }
        let is_clients = matches!(due.action, Action::Forward | Action::Tail);
        if is_clients {
            self.follow_status(server);
        }
        // The client is not told that it is done before it has what it came with.
        self.is_restore_due = is_clients
            && self.state.lacks()
            && server.status != TransactionStatus::Failed
            && self.outstanding.is_settled();
        if is_clients && !self.is_restore_due {
            self.tell_parameters(cursor, server, out);
        }
        take(
            header,
            is_clients && !self.is_restore_due,
            cursor,
            server,
            out,
        );
        self.apply(change);
        if self.is_restore_due {
            return Ok(());
        }
        if is_clients {
            let is_idle = server.status == TransactionStatus::Idle;
            self.tally.end_batch(is_idle);
        }
        // Fakes behind a Sync belong to the next batch and wait for its first reply, unless nothing else is due.
        if self.outstanding.is_settled() {
            self.cancel_error = None;
            if self.replies == Replies::Abandoned {
                self.replies = Replies::Passed;
            }
            self.emit_fakes(cursor, out);
        }
        Ok(())
    }

    /// Tells the client which parameters are not what the server said that its transaction has left.
    fn tell_parameters(
        &mut self,
        cursor: &mut Cursor<'_>,
        server: &ServerSession,
        out: &mut Gather,
    ) {
        let Some(told) = self.told.take() else { return };
        for (name, value) in server.reported() {
            let is_news = told
                .iter()
                .any(|(known, said)| known == name && said != value);
            if !is_news || **name == *"in_hot_standby" {
                continue;
            }
            cursor.flush(out);
            out.scratch_mut(|bytes| {
                ParameterStatus {
                    name: name.as_bytes(),
                    value: value.as_bytes(),
                }
                .encode(bytes)
            });
        }
    }

    /// Takes the end of a request into account: settings last when its transaction is over.
    fn follow_status(&mut self, server: &mut ServerSession) {
        if !self.state.is_moving() {
            return;
        }
        for name in RELATIVE {
            if let Some(value) = server.reported_value(name) {
                self.state
                    .settle_relative(&name.to_ascii_lowercase(), value);
            }
        }
        if server.status == TransactionStatus::Idle {
            self.state.on_idle();
            self.forget_portals();
        }
        self.follow_state(server);
    }

    #[inline]
    fn apply(&mut self, change: Change) {
        match change {
            Change::None => {}
            Change::Define { name, statement } => {
                statement.accept(self.context);
                self.define(name, statement);
            }
            Change::Undefine { name } => self.undefine(&name),
        }
    }
}

/// Reads on without taking anything: does the reply begin with a result, or with an error that is not the client's?
fn look_ahead(watch: Watch, input: &[u8]) -> Result<LookAhead, Violation> {
    let mut rest = input;
    let mut decided = false;
    while let Some(header) = Header::peek(rest)? {
        let whole = header.frame_len() <= rest.len();
        if header.tag == tag::ERROR_RESPONSE {
            if !whole && header.frame_len() <= READ_WHOLE_LIMIT && !decided {
                return Ok(LookAhead::Undecided);
            }
            let body = rest.get(HEADER_LEN..header.frame_len()).unwrap_or_default();
            let refusal = ErrorResponse::decode(body)
                .ok()
                .and_then(|error| watch.refusal(&error));
            return Ok(refusal.map_or(LookAhead::Result, LookAhead::Refused));
        }
        decided |= watch.is_result(header.tag);
        // What comes after the end of the batch is not about it.
        let is_over = header.tag == tag::READY_FOR_QUERY;
        if !whole || is_over || (decided && !watch.looks_behind_results()) {
            break;
        }
        rest = rest.get(header.frame_len()..).unwrap_or_default();
    }
    let full = input.len() >= READ_WHOLE_LIMIT;
    Ok(if decided || full {
        (watch.refuses_result()).map_or(LookAhead::Result, LookAhead::Refused)
    } else {
        LookAhead::Undecided
    })
}

enum LookAhead {
    /// Not enough bytes to tell.
    Undecided,
    /// A result, or an error that is the client's.
    Result,
    /// An error that is not.
    Refused(Refusal),
}

/// Passes over one message, which goes out or not; what has not arrived of it follows later.
fn take(
    header: Header,
    forward: bool,
    cursor: &mut Cursor<'_>,
    server: &mut ServerSession,
    out: &mut Gather,
) {
    let here = header.frame_len().min(cursor.left());
    server.cut.remaining = header.frame_len() - here;
    server.cut.is_forwarded = forward;
    if forward {
        cursor.at += here;
    } else {
        cursor.skip(here, out);
    }
}
