//! `TRACE client_id`: every message of one client, on both sides of the proxy, as lines without values.
//!
//! ```text
//!   client ──► read ──► the session ──► Outgoing ──► server
//!               │                         │ what is recorded there
//!               └────────► Tap ◄──────────┘
//!                           └─► lines ──► whoever asked
//!
//!   2026-11-30 03:26:10.123456+00 ⇥ client ⇥ F ⇥ 27 ⇥ Parse ⇥ "" <9 bytes redacted> 0
//!   2026-11-30 03:26:10.123612+00 ⇥ server pg2 ⇥ F ⇥ 33 ⇥ Parse ⇥ "pgweir_1_1" <9 bytes redacted> 0
//! ```
//!
//! ## Why it costs nothing to those who are not traced
//! What is read is handed to the tap where there is one, and what is written is recorded by the [`Outgoing`](pgweir_net::Outgoing)
//! of a connection that was told to: one look at an `Option` for each read and each write.
//!
//! ## Limits
//! - A trace begins at the next message in each direction; the login is never part of it.
//! - Of a message above [`reader::MESSAGE_BYTES_LIMIT`] only the length is shown.
//! - What the proxy asks a server of its own accord when the session has left it (a reset) is not the client's.
//! - Lines that nobody takes in time are left out, and counted.

mod reader;

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use pgweir_admin::{Refusal, TraceLine};
use pgweir_model::{NodeId, Sqlstate};
use pgweir_wire::trace::{Direction, Line};
use tokio::sync::{mpsc, oneshot};

use crate::cancel::{Slot, Slots};
use crate::client_task::{Client, Held};
use crate::proxy::Shared;
use crate::worker::Mail;
use reader::{Reader, Seen};

/// Lines that may wait for whoever reads them. Chosen: what a screen full of pipelined statements makes, 2 MiB at most.
const LINES_LIMIT: usize = 1024;

/// The longest line. Not shorter, as the columns of a wide row are to be seen; not longer, as it bounds what waits.
const LINE_BYTES_LIMIT: usize = 2048;

/// Stands at the end of a line that was longer.
const CUT_MARK: &str = " ...";

/// How long a worker may take to find a client: a turn of its thread, usually.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The trace of one client.
#[derive(Debug)]
pub(crate) struct Tap {
    lines: Lines,
    client: Side,
    server: Side,
    /// The server that the session uses.
    label: String,
}

/// Both directions of a connection, by who sends.
#[derive(Debug, Default)]
struct Side {
    frontend: Reader,
    backend: Reader,
}

/// Where the lines go.
#[derive(Debug)]
struct Lines {
    sender: mpsc::Sender<TraceLine>,
    left_out: u64,
}

impl Lines {
    fn push(&mut self, place: &str, direction: Direction, seen: Seen<'_>) {
        let at = pgweir_admin::format_time(SystemTime::now());
        if self.left_out > 0 {
            let line = format!("{at}\t... {} lines left out", self.left_out);
            if self.sender.try_send(line).is_err() {
                self.left_out += 1;
                return;
            }
            self.left_out = 0;
        }
        let letter = match direction {
            Direction::Frontend => 'F',
            Direction::Backend => 'B',
        };
        let line = match seen {
            Seen::Whole(frame) => ShortLine::write(format_args!(
                "{at}\t{place}\t{}",
                Line::new(direction, frame)
            )),
            Seen::Large(name, length) => {
                format!("{at}\t{place}\t{letter}\t{length}\t{name}\t (too long to be shown)")
            }
            Seen::Lost => format!("{at}\t{place}\t{letter}\t?\tno message: the rest is not shown"),
        };
        if self.sender.try_send(line).is_err() {
            self.left_out += 1;
        }
    }
}

/// A line as it is written, up to its limit: what is beyond is never formatted.
#[derive(Debug, Default)]
struct ShortLine(String);

impl ShortLine {
    fn write(text: fmt::Arguments<'_>) -> String {
        let mut line = ShortLine::default();
        if line.write_fmt(text).is_err() {
            line.0.push_str(CUT_MARK);
        }
        line.0
    }
}

impl fmt::Write for ShortLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (LINE_BYTES_LIMIT - CUT_MARK.len()).saturating_sub(self.0.len());
        let end = text.floor_char_boundary(room);
        self.0.push_str(text.get(..end).unwrap_or_default());
        match end < text.len() {
            true => Err(fmt::Error),
            false => Ok(()),
        }
    }
}

/// Which connection bytes were seen on.
#[derive(Debug, Clone, Copy)]
enum Place {
    Client,
    Server,
}

impl Tap {
    fn new(sender: mpsc::Sender<TraceLine>) -> Self {
        Tap {
            lines: Lines {
                sender,
                left_out: 0,
            },
            client: Side::default(),
            server: Side::default(),
            label: String::new(),
        }
    }

    /// Takes what was read from the client.
    pub(crate) fn read_from_client(&mut self, bytes: &[u8]) {
        self.take(Place::Client, Direction::Frontend, bytes);
    }

    /// Takes what was read from the server.
    pub(crate) fn read_from_server(&mut self, bytes: &[u8]) {
        self.take(Place::Server, Direction::Backend, bytes);
    }

    fn take(&mut self, place: Place, direction: Direction, bytes: &[u8]) {
        let (side, label) = match place {
            Place::Client => (&mut self.client, "client"),
            Place::Server => (&mut self.server, &*self.label),
        };
        let reader = match direction {
            Direction::Frontend => &mut side.frontend,
            Direction::Backend => &mut side.backend,
        };
        let lines = &mut self.lines;
        reader.take(direction, bytes, |seen| lines.push(label, direction, seen));
    }

    /// The session uses another server connection from now on.
    fn use_server(&mut self, label: String) {
        self.server = Side::default();
        self.label = label;
    }
}

impl Client {
    /// Begins the trace that was asked for, if one was.
    #[inline]
    pub(crate) fn look_at_trace(&mut self) {
        if self.slot.has_trace_request() {
            self.begin_trace();
        }
    }

    #[cold]
    fn begin_trace(&mut self) {
        let Some(sender) = self.slot.take_trace_request() else {
            return;
        };
        let mut tap = Box::new(Tap::new(sender));
        // Whoever is in the midst of a message is followed from its end on.
        let rest = self.session.rest_of_message();
        tap.client.frontend.skip(rest);
        if let Some(held) = &self.held {
            tap.use_server(self.label_of(held.node));
            let server = &held.lease.state;
            tap.server.backend.skip(server.session.rest_of_reply());
            if server.session.is_reply_cut() {
                tap.client.backend.skip(server.session.rest_of_reply());
            }
            if !self.session.is_rest_dropped() {
                tap.server.frontend.skip(rest);
            }
            tap.read_from_server(&server.carry);
        }
        tap.read_from_client(&self.inbuf);
        self.tap = Some(tap);
        self.record_output(true);
    }

    /// Has what is written recorded, or not any more.
    fn record_output(&mut self, is_recorded: bool) {
        self.out.record(is_recorded);
        for held in [&mut self.held, &mut self.aside].into_iter().flatten() {
            held.lease.state.outgoing.record(is_recorded);
        }
    }

    /// Follows the session to a server connection that it has just been given.
    #[inline]
    pub(crate) fn trace_server(&mut self, held: &mut Held) {
        held.lease.state.outgoing.record(self.tap.is_some());
        if self.tap.is_some() {
            let label = self.label_of(held.node);
            if let Some(tap) = &mut self.tap {
                tap.use_server(label);
            }
        }
    }

    /// Takes the last of what was written to the server connection that the session gives back: what is written there from now on
    /// is not the client's.
    #[inline]
    pub(crate) fn leave_traced_server(&mut self) {
        if self.tap.is_some() {
            self.trace_output_now();
            if let Some(held) = &mut self.held {
                held.lease.state.outgoing.record(false);
            }
        }
    }

    /// Likewise, to one that it had put aside.
    pub(crate) fn trace_server_again(&mut self) {
        if self.tap.is_some()
            && let Some(mut held) = self.held.take()
        {
            self.trace_server(&mut held);
            self.held = Some(held);
        }
    }

    fn label_of(&self, node: NodeId) -> String {
        let topology = self.topology();
        let name = topology.nodes.iter().find(|seen| seen.id == node);
        let name = name.map(|seen| &*seen.name).unwrap_or_default();
        format!("server {name}")
    }

    /// Takes what was written since it was last called.
    #[inline]
    pub(crate) fn trace_output(&mut self) {
        if self.tap.is_some() {
            self.trace_output_now();
        }
    }

    #[cold]
    fn trace_output_now(&mut self) {
        let Some(tap) = &mut self.tap else { return };
        if let Some(held) = &mut self.held {
            let sent = held.lease.state.outgoing.take_recorded();
            tap.take(Place::Server, Direction::Frontend, &sent);
        }
        let sent = self.out.take_recorded();
        tap.take(Place::Client, Direction::Backend, &sent);
        if tap.lines.sender.is_closed() {
            self.tap = None;
            self.record_output(false);
        }
    }
}

impl Slots {
    /// Has a client traced.
    pub(crate) fn trace(&self, client: u32) -> Result<mpsc::Receiver<TraceLine>, Refusal> {
        let slot = self.find(client).ok_or_else(|| no_client(client))?;
        let (sender, receiver) = mpsc::channel(LINES_LIMIT);
        match slot.request_trace(sender) {
            true => Ok(receiver),
            false => Err(refusal(
                Sqlstate::OBJECT_IN_USE,
                format!("client {client} is being traced already"),
            )),
        }
    }
}

/// What a client's slot knows of its trace.
#[derive(Debug, Default)]
pub(crate) struct TraceRequest {
    is_new: std::cell::Cell<bool>,
    sender: std::cell::RefCell<Option<mpsc::Sender<TraceLine>>>,
    /// That of the trace that has begun last.
    running: std::cell::RefCell<Option<mpsc::WeakSender<TraceLine>>>,
}

impl Slot {
    fn has_trace_request(&self) -> bool {
        self.trace.is_new.get()
    }

    fn take_trace_request(&self) -> Option<mpsc::Sender<TraceLine>> {
        self.trace.is_new.set(false);
        self.trace.sender.take()
    }

    /// Leaves a request for the client's task; returns false where there is a trace already that somebody reads.
    fn request_trace(&self, sender: mpsc::Sender<TraceLine>) -> bool {
        let running = self
            .trace
            .running
            .borrow()
            .as_ref()
            .and_then(mpsc::WeakSender::upgrade);
        if running.is_some_and(|running| !running.is_closed()) {
            return false;
        }
        self.trace.running.replace(Some(sender.downgrade()));
        self.trace.sender.replace(Some(sender));
        self.trace.is_new.set(true);
        self.wake();
        true
    }
}

impl Shared {
    /// Has every message of a client written down from now on, until the receiver is dropped or the client goes.
    ///
    /// # Errors
    /// [`Refusal`]: there is no such client, or it is being traced.
    ///
    /// # Cancel safety
    /// Cancel safe: a trace whose receiver nobody has ends.
    pub(crate) async fn trace(&self, client: u32) -> Result<mpsc::Receiver<TraceLine>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Slots::worker_of(client), Mail::Trace { client, reply });
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(outcome)) => outcome,
            // No worker has such a client, or it has ended.
            Ok(Err(_)) => Err(no_client(client)),
            Err(_) => Err(refusal(
                Sqlstate::QUERY_CANCELED,
                format!("client {client} could not be asked in time"),
            )),
        }
    }
}

fn no_client(client: u32) -> Refusal {
    refusal(
        Sqlstate::UNDEFINED_OBJECT,
        format!("there is no client {client}"),
    )
}

fn refusal(sqlstate: Sqlstate, message: String) -> Refusal {
    Refusal {
        sqlstate: sqlstate.0,
        message,
        detail: None,
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::Who;

    #[test]
    fn lines_that_nobody_takes_are_left_out_and_counted() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut tap = Tap::new(sender);
        let mut sync = Vec::new();
        pgweir_wire::frontend::Sync.encode(&mut sync);
        for _ in 0..5 {
            tap.read_from_client(&sync);
        }
        let mut take = || receiver.try_recv().ok();
        assert!(take().is_some_and(|line| line.ends_with("client\tF\t4\tSync")));
        assert!(take().is_some_and(|line| line.ends_with("Sync")));
        assert_eq!(take(), None);
        tap.read_from_client(&sync);
        assert!(take().is_some_and(|line| line.ends_with("... 3 lines left out")));
        assert!(take().is_some_and(|line| line.ends_with("Sync")));
        assert_eq!(take(), None);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let within = LINE_BYTES_LIMIT - CUT_MARK.len();
        let short = "x".repeat(within);
        assert_eq!(ShortLine::write(format_args!("{short}")), short);
        // The mark takes the place of a character that would be cut in two.
        let long = ShortLine::write(format_args!("y{}{}", "\u{e9}".repeat(within), "behind"));
        assert_eq!(
            long.len(),
            LINE_BYTES_LIMIT - usize::from(within.is_multiple_of(2))
        );
        assert!(long.ends_with("\u{e9} ..."));
    }

    #[test]
    fn one_trace_at_a_time_and_another_once_nobody_reads_it() {
        let slots = Slots::new(0);
        let (id, slot) = slots.add(Box::default(), Who::nobody());
        let first = slots.trace(id).unwrap();
        let sender = slot.take_trace_request().unwrap();
        assert_eq!(slots.trace(id).unwrap_err().sqlstate, *b"55006");
        drop(first);
        assert!(sender.is_closed());
        assert!(slots.trace(id).is_ok());
        assert!(slots.trace(id + 1).is_err());
    }
}
