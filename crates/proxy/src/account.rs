//! What is counted and logged of each batch that has been answered.
//!
//! ```text
//!   a batch is sent ──► Flights: when, where, why, its plan
//!   the session says that it has been answered ──► account(Answered) ──► counters of the database and the server
//!                                                                   ├──► statistics of its statement
//!                                                                   └──► the log, if it was slow
//! ```
//!
//! ## Why
//! Whatever is to know of a batch when it is over goes through [`Client::account`], so that counters, statistics and the log
//! never tell different stories. A batch costs two looks at the clock: one when it is sent, one when it has been answered.
//!
//! ## What counts as what
//! - A *query* is a batch: a simple query, or the extended messages up to a Sync, those that the proxy answers itself included.
//! - A *transaction* is one for the client: also one of which no server has heard, as its BEGIN was held back.
//! - A batch of several statements counts as a call of the one that decides where it goes (the first that is no read, else the
//!   first), with the rows and the time of all. What only prepares, describes or closes is no call of a statement.
//! - *Wait* is what a batch waited for before it was sent the last time: a server connection, a server, and a server that
//!   failed it.
//!
//! ## Limits
//! - Of a pipeline each batch is timed from when it was sent, so that it includes what the server does for those before it. What
//!   waits in the proxy behind others is not timed.
//! - What is not answered is not counted as a query: its error is, where it has one.

mod cells;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgweir_config::PoolMode;
use pgweir_metrics::{Destination, Lap};
use pgweir_model::{NodeId, Reason, Role, Sqlstate};
use pgweir_session::BatchAnswer;
use pgweir_session::client::{Marks, Portion};
use pgweir_sql::display::{DISPLAY_BYTES_LIMIT, beginning};
use pgweir_wire::TransactionStatus;

pub(crate) use cells::{Books, DatabaseCell, shown};

use crate::client_task::{Client, Stage};
use crate::seen::Seen;
use crate::telemetry::{Outcome, SpanEnd, SpanFlight, SpanStart};

/// A batch that is under way: what is known of it before it has been answered.
#[derive(Debug)]
pub(crate) struct Flight {
    /// When it was sent, the last time.
    sent_at: Instant,
    /// How long it had waited before it was sent.
    wait: Duration,
    /// The server that works on it; `None` for the proxy itself.
    place: Option<(NodeId, Role)>,
    /// Why it went there.
    reason: Reason,
    /// It runs something.
    runs: bool,
    /// The plan that decided about it; `None` where nobody has read it.
    seen: Option<Seen>,
    /// What only some want to know.
    notes: Option<Box<Notes>>,
}

/// What is noted of a batch where the log is to have its text, or where it is traced.
#[derive(Debug, Default)]
struct Notes {
    text: Option<Box<str>>,
    span: Option<SpanStart>,
}

impl Flight {
    fn destination(&self) -> Destination {
        match self.place {
            None => Destination::Local,
            Some((_, Role::Primary)) => Destination::Primary,
            Some((_, Role::Replica)) => Destination::Replica,
        }
    }

    /// Adds what is known of a further piece of the batch.
    fn add(&mut self, piece: Flight) {
        self.runs |= piece.runs;
        if self.seen.is_none() {
            self.seen = piece.seen;
        }
        // Of the span, and of the text, the first piece counts that has one.
        if let Some(piece) = piece.notes {
            let notes = self.notes.get_or_insert_default();
            notes.text = notes.text.take().or(piece.text);
        }
    }

    fn text(&self) -> Option<&str> {
        self.notes.as_ref()?.text.as_deref()
    }

    /// Returns what its span is made of, where it has one.
    fn span(&self) -> Option<(SpanStart, SpanFlight)> {
        let start = self.notes.as_ref()?.span?;
        let (node, role) = self.place?;
        let flight = SpanFlight {
            sent_at: self.sent_at,
            seen: self.seen.clone(),
            node,
            role,
            reason: self.reason,
        };
        Some((start, flight))
    }
}

/// How a batch was answered.
#[derive(Debug, Clone, Copy)]
struct Answered {
    at: Instant,
    /// How long the server took.
    server: Duration,
    /// Its rows, whether it failed, and whether a transaction is over.
    answer: BatchAnswer,
}

/// Those of one session, oldest first. Only a pipeline has more than one, and only that allocates.
#[derive(Debug, Default)]
struct Flights {
    first: Option<Flight>,
    /// Empty where there is no first.
    rest: VecDeque<Flight>,
}

impl Flights {
    fn push(&mut self, flight: Flight) {
        match &self.first {
            None => self.first = Some(flight),
            Some(_) => self.rest.push_back(flight),
        }
    }

    fn pop(&mut self) -> Option<Flight> {
        let flight = self.first.take();
        if !self.rest.is_empty() {
            self.first = self.rest.pop_front();
        }
        flight
    }

    fn last_mut(&mut self) -> Option<&mut Flight> {
        match self.rest.is_empty() {
            true => self.first.as_mut(),
            false => self.rest.back_mut(),
        }
    }

    fn clear(&mut self) {
        self.first = None;
        if !self.rest.is_empty() {
            self.rest = VecDeque::new();
        }
    }
}

/// What one session keeps to account for its batches.
#[derive(Debug)]
pub(crate) struct Account {
    /// Where its batches are counted.
    pub(crate) database: Rc<DatabaseCell>,
    flights: Flights,
    /// How long the batch at hand has waited so far.
    wait: Duration,
    /// When the first batch of its transaction was sent, once that has been answered. A BEGIN that is held back counts: for the
    /// client the transaction has begun with it.
    transaction_began: Option<Instant>,
    /// Its server has read texts in another way than our lexer.
    pub(crate) has_misread: bool,
}

impl Account {
    pub(crate) fn new(database: Rc<DatabaseCell>) -> Self {
        Account {
            database,
            flights: Flights::default(),
            wait: Duration::ZERO,
            transaction_began: None,
            has_misread: false,
        }
    }

    /// Returns when the transaction began that is open.
    pub(crate) fn transaction_began(&self) -> Option<Instant> {
        self.transaction_began
    }
}

/// A portion that is about to be forwarded.
pub(crate) struct Departure {
    /// How many batches had begun before.
    begun: u64,
    flight: Flight,
}

impl Client {
    /// Notes what the portion at hand is, which is about to be forwarded at `now`. It takes the deciding plan out of the facts.
    #[inline]
    pub(crate) fn depart(&mut self, portion: Portion, batch: &[u8], now: Instant) -> Departure {
        let held = self.held.as_ref();
        let flight = Flight {
            sent_at: now,
            wait: Duration::ZERO,
            place: held.map(|held| (held.node, held.role)),
            reason: self.reason_here(),
            runs: self.session.facts().marks.has(Marks::RUNS),
            notes: self.notes(portion, batch),
            seen: self.take_seen(),
        };
        Departure {
            begun: self.session.batches_begun(),
            flight,
        }
    }

    /// Returns what is noted of the portion at hand; in most configurations nothing.
    #[inline]
    fn notes(&mut self, portion: Portion, batch: &[u8]) -> Option<Box<Notes>> {
        let span = self.start_span(portion, batch);
        let logs_text = self.worker().logs_text();
        if span.is_none() && !logs_text {
            return None;
        }
        let text = match logs_text {
            true => (self.session).find_in_texts(batch, |text| Some(shortened(text))),
            false => None,
        };
        Some(Box::new(Notes { text, span }))
    }

    /// Returns why the portion at hand goes to the server that the session has.
    fn reason_here(&self) -> Reason {
        let Some(held) = &self.held else {
            return Reason::InTransaction;
        };
        match held.stage {
            Stage::Fresh => held.reason,
            _ if !held.pins.is_empty() => Reason::Pinned,
            _ if self.identity.pool_mode == PoolMode::Session => Reason::SessionPooling,
            _ if held.status() != TransactionStatus::Idle => Reason::InTransaction,
            _ => held.reason,
        }
    }

    /// Notes that the portion is on its way: the beginning of a batch, or more of one.
    #[inline]
    pub(crate) fn departed(&mut self, departure: Departure) {
        let Departure { begun, mut flight } = departure;
        if let Some(seen) = &flight.seen {
            self.slot.shown.set_statement(seen);
        }
        if self.session.batches_begun() != begun {
            let route = flight.place.map(|(_, role)| (role, flight.reason));
            self.slot.shown.last_route.set(route);
            flight.wait = std::mem::take(&mut self.account.wait);
            self.account.flights.push(flight);
        } else if let Some(last) = self.account.flights.last_mut() {
            last.add(flight);
        }
    }

    /// Accounts for the batches that have been answered since the last call; returns when they were, if there were any.
    pub(crate) fn account_for_answers(&mut self) -> Option<Instant> {
        if !self.session.tally.has_answers() {
            return None;
        }
        let now = Instant::now();
        match self.session.tally.take_only_answer() {
            Some(answer) => self.account_for_answer(answer, now),
            None => (self.session.tally.take_answers().into_iter())
                .for_each(|answer| self.account_for_answer(answer, now)),
        }
        self.account.database.note_messages(&mut self.session.tally);
        if self.session.is_settled() && !self.session.is_in_mid_batch() {
            // What a server has skipped behind an error was never answered.
            self.account.flights.clear();
        }
        Some(now)
    }

    /// Accounts for the oldest batch of those that are under way.
    #[inline]
    fn account_for_answer(&mut self, answer: BatchAnswer, now: Instant) {
        let Some(flight) = self.account.flights.pop() else {
            return;
        };
        if let Some((span, flight)) = flight.span() {
            let end = SpanEnd {
                ended_at: now,
                rows: Some(answer.rows),
                outcome: match answer.is_error {
                    true => Outcome::Failed(None),
                    false => Outcome::Done,
                },
            };
            self.record_answered(span, &flight, end);
        }
        let answered = Answered {
            at: now,
            server: now.saturating_duration_since(flight.sent_at),
            answer,
        };
        self.account(&flight, answered);
    }

    /// Accounts for a batch that the proxy has answered itself.
    pub(crate) fn account_for_own_answer(&mut self) {
        let now = Instant::now();
        let flight = Flight {
            sent_at: now,
            wait: std::mem::take(&mut self.account.wait),
            place: None,
            reason: Reason::Local,
            runs: self.session.facts().marks.has(Marks::RUNS),
            seen: self.take_seen(),
            notes: None,
        };
        let answered = Answered {
            at: now,
            server: Duration::ZERO,
            answer: BatchAnswer {
                // One that has begun, and that is over without a server.
                ends_transaction: self.account.transaction_began.is_some()
                    && self.client_status() == TransactionStatus::Idle,
                ..BatchAnswer::default()
            },
        };
        self.account(&flight, answered);
    }

    /// Counts a batch that has been answered, and logs it if it was slow. All that is to be done about one is done here.
    fn account(&mut self, flight: &Flight, answered: Answered) {
        let (destination, reason) = (flight.destination(), flight.reason);
        let lap = Lap::from(answered.server);
        let worker = &self.counted.worker;
        let database = &self.account.database;
        database.note_batch(destination, reason);
        if let Some((node, _)) = flight.place {
            database.note_query(destination, lap);
            worker.books.note_node_query(node, lap);
            if flight.runs
                && let Some(seen) = &flight.seen
            {
                worker.books.note_statement(database, seen, |statement| {
                    statement.record(destination, reason, lap, answered.answer.rows);
                    statement.errors += u64::from(answered.answer.is_error);
                });
            }
        }
        let total = flight.wait.saturating_add(answered.server);
        let is_slow = total > worker.slow_after();
        self.account_for_transaction(flight, answered, lap);
        if !flight.wait.is_zero() {
            self.note_waited(flight.wait);
        }
        if is_slow {
            self.log_slow(flight, answered);
        }
    }

    /// Counts the transaction that a batch has ended, or notes that one is open.
    #[inline]
    fn account_for_transaction(&mut self, flight: &Flight, answered: Answered, lap: Lap) {
        let began = self.account.transaction_began;
        if answered.answer.ends_transaction {
            self.account.transaction_began = None;
            let took_us = match began {
                Some(began) => Lap::from(answered.at.saturating_duration_since(began)).us(),
                None => lap.us(),
            };
            self.account.database.note_transaction(took_us);
        } else if began.is_none()
            && (flight.place.is_some() || self.client_status() != TransactionStatus::Idle)
        {
            self.account.transaction_began = Some(flight.sent_at);
        }
    }

    #[cold]
    fn note_waited(&self, wait: Duration) {
        self.account.database.note_wait(wait);
        self.slot.shown.wait.set(wait);
    }

    /// Adds what the batch at hand has waited for since `began`.
    pub(crate) fn add_wait(&mut self, began: Instant) {
        self.account.wait = self.account.wait.saturating_add(began.elapsed());
    }

    /// Forgets the batches that a server works on, because they run again: their time there counts as a wait.
    pub(crate) fn recall_flights(&mut self) {
        if let Some(first) = self.account.flights.pop() {
            self.account.wait = self.account.wait.saturating_add(first.wait);
            self.add_wait(first.sent_at);
            if let Some((span, _)) = first.span() {
                self.arrived_already(span.arrived_at);
            }
        }
        self.account.flights.clear();
    }

    /// Ends the spans of the batches that a server works on: they end so, without an answer of its.
    pub(crate) fn end_flights(&mut self, outcome: Outcome) {
        let end = SpanEnd::now(outcome);
        while let Some(flight) = self.account.flights.pop() {
            if let Some((span, flight)) = flight.span() {
                self.record_answered(span, &flight, end);
            }
        }
    }

    /// Notes that the batch at hand waits from now on.
    pub(crate) fn begin_wait(&mut self) {
        self.slot.shown.waiting_since.set(Some(Instant::now()));
    }

    /// Notes that it does not any more. What fails meanwhile has been accounted for with its wait.
    pub(crate) fn end_wait(&mut self) {
        if let Some(began) = self.slot.shown.waiting_since.take() {
            self.add_wait(began);
        }
    }

    /// Forgets what the batch at hand has waited for: it is over, and the next has nothing to do with that.
    pub(crate) fn forget_wait(&mut self) {
        self.account.wait = Duration::ZERO;
    }

    /// Counts a batch, or a session, that ends with an error of the proxy's own.
    pub(crate) fn note_own_error(&mut self, sqlstate: Sqlstate) {
        self.account.database.note_own_error(sqlstate);
        self.end_wait();
        let wait = std::mem::take(&mut self.account.wait);
        if !wait.is_zero() {
            self.note_waited(wait);
        }
    }

    /// Adds what the session has counted to what stays when it is gone.
    pub(crate) fn close_account(&mut self) {
        self.account.database.note_messages(&mut self.session.tally);
        let received = self.slot.shown.received_bytes.get();
        self.account.database.note_bytes(received, self.out.total());
    }

    /// Lets an operator know of a batch that took long.
    #[cold]
    fn log_slow(&self, flight: &Flight, answered: Answered) {
        let topology = self.topology();
        let backend = (flight.place)
            .and_then(|(node, _)| topology.nodes.get(usize::from(node.node)))
            .map(|node| &*node.name);
        let displayed = flight.seen.as_ref().map(Seen::displayed);
        let fingerprint = displayed.map(|displayed| displayed.fingerprint.to_string());
        let text = flight.text();
        let shape = displayed.filter(|_| text.is_none());
        tracing::info!(
            fingerprint = fingerprint.as_deref(),
            shape = shape.map(|shape| &*shape.text),
            text,
            route = flight.destination().name(),
            reason = flight.reason.name(),
            backend,
            user = &*self.identity.user,
            database = &*self.identity.database,
            rows = answered.answer.rows,
            is_error = answered.answer.is_error,
            wait_ms = ms(flight.wait),
            server_ms = ms(answered.server),
            total_ms = ms(flight.wait.saturating_add(answered.server)),
            "slow statement"
        );
    }
}

/// Returns a duration in milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Returns the beginning of a text, as it is logged.
fn shortened(text: &[u8]) -> Box<str> {
    beginning(text, DISPLAY_BYTES_LIMIT).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(rows: u64) -> Flight {
        Flight {
            sent_at: Instant::now(),
            wait: Duration::from_secs(rows),
            place: None,
            reason: Reason::Write,
            runs: false,
            seen: None,
            notes: None,
        }
    }

    #[test]
    fn batches_leave_in_the_order_in_which_they_came() {
        let mut flights = Flights::default();
        (1..=3).for_each(|number| flights.push(flight(number)));
        flights.last_mut().unwrap().runs = true;
        let mut left = || {
            flights
                .pop()
                .map(|flight| (flight.wait.as_secs(), flight.runs))
        };
        assert_eq!(left(), Some((1, false)));
        assert_eq!(left(), Some((2, false)));
        assert_eq!(left(), Some((3, true)));
        assert_eq!(left(), None);
        flights.push(flight(4));
        flights.push(flight(5));
        flights.clear();
        assert!(flights.pop().is_none());
        flights.push(flight(6));
        assert_eq!(
            flights.last_mut().map(|flight| flight.wait.as_secs()),
            Some(6)
        );
    }

    #[test]
    fn milliseconds_are_told_to_the_microsecond() {
        assert_eq!(ms(Duration::from_nanos(1_234_567)), 1.235);
        assert_eq!(ms(Duration::ZERO), 0.0);
    }
}
