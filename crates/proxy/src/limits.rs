//! Time limits of sessions: a client that leaves its transaction open, or does nothing at all, for too long; a batch that runs
//! longer on its server than a rule allows.
//!
//! ## Why it costs next to nothing
//! No timer is set and no clock is read for a message. A session that has nothing left to do notes until when it may stay
//! so, by the worker's coarse clock, and the worker remembers the earliest such moment of all its sessions. Only when that
//! has come does the worker look through them, wakes those that are due, and finds the next moment. Most notes are
//! written over long before, so that this happens about once per limit, however many messages there are.
//!
//! ## Limits
//! The clock is set every [`CLOCK_PERIOD`]: a limit is never cut short, and kept to within two periods.
//!
//! A server is told to stop whatever it runs, so that a batch with a limit has its server connection for itself: it is sent
//! when what went before has been answered, and what comes behind it waits, also for a CancelRequest that is under way.

use std::time::{Duration, Instant};

use pgweir_config::Config;
use pgweir_wire::TransactionStatus;

use crate::client_task::{Client, Input, Next, Stage};
use crate::fault::Fault;
use crate::worker::CLOCK_PERIOD;

/// How long a client may do nothing; `None` for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct IdleLimits {
    outside: Option<Duration>,
    in_transaction: Option<Duration>,
}

impl IdleLimits {
    pub(crate) fn new(config: &Config) -> Self {
        IdleLimits {
            outside: config.server.client_idle_timeout,
            in_transaction: config.server.idle_in_transaction_timeout,
        }
    }
}

/// How long what a session's server runs now may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementLimit {
    /// As long as it wants.
    None,
    /// Until then.
    Until { at: Instant, allowed: Duration },
    /// It has passed: the server has been told to stop.
    Passed,
}

impl StatementLimit {
    /// Begins the limit of a batch that is sent now, if it has one and none is running.
    pub(crate) fn begin(&mut self, allowed: Option<Duration>, now: Instant) {
        if let (StatementLimit::None, Some(allowed)) = (*self, allowed) {
            let at = now + allowed + CLOCK_PERIOD;
            *self = StatementLimit::Until { at, allowed };
        }
    }
}

impl Client {
    /// Looks at the limits of a session that has nothing to do until something comes; returns how it ends where one has
    /// passed. `has_moved` says whether anything was done since it was looked at last.
    pub(crate) fn look_at_limits(&mut self, has_moved: bool) -> Option<Next> {
        let now = self.worker().coarse_now();
        if has_moved {
            self.moved_at = now;
        }
        let due = match self.held.as_ref().map(|held| held.limit) {
            Some(StatementLimit::Until { at, allowed }) => self.look_at_statement(at, allowed, now),
            Some(StatementLimit::None | StatementLimit::Passed) | None => {
                let due = self.idle_until();
                if due.is_some_and(|due| due <= now) {
                    return Some(self.end_idle());
                }
                due
            }
        };
        self.worker().slots.set_due(&self.slot, due);
        None
    }

    /// Stops what the server runs, if it is time; else returns when that will be.
    fn look_at_statement(
        &mut self,
        at: Instant,
        allowed: Duration,
        now: Instant,
    ) -> Option<Instant> {
        if at > now {
            return Some(at);
        }
        if self.session.is_ahead_of_its_batch() {
            // The server is still at what we have put in front of it.
            return Some(now + CLOCK_PERIOD);
        }
        let mut error = Vec::new();
        Fault::statement_timeout(allowed).encode(&mut error);
        self.session.word_cancel(error.into());
        self.cancel_aside(Vec::new());
        if let Some(held) = &mut self.held {
            held.limit = StatementLimit::Passed;
        }
        None
    }

    /// Returns whether the batch at hand may be sent though what is limited runs, or it is limited itself.
    pub(crate) fn may_run_beside_limits(&self) -> bool {
        let limit = self.held.as_ref().map(|held| held.limit);
        if self.session.is_settled() || self.session.is_in_mid_batch() {
            return limit != Some(StatementLimit::Passed) || !self.session.is_settled();
        }
        limit.is_none_or(|limit| limit == StatementLimit::None) && self.timeout_by_rule().is_none()
    }

    /// All replies are in: what ran was in time, or has been stopped.
    pub(crate) fn end_statement_limit(&mut self) {
        let Some(held) = &mut self.held else { return };
        let is_stopping = held.gate.as_ref().is_some_and(|gate| !gate.is_still());
        if held.limit != StatementLimit::Passed || !is_stopping {
            held.limit = StatementLimit::None;
        }
    }

    /// Lets a batch go on that waits for a CancelRequest to be dealt with; returns whether one may.
    pub(crate) fn end_cancel(&mut self) -> bool {
        let has_passed = |limit| limit == StatementLimit::Passed;
        let limit = |client: &Client| client.held.as_ref().map(|held| held.limit);
        if !limit(self).is_some_and(has_passed) || !self.session.is_settled() {
            return false;
        }
        self.end_statement_limit();
        let goes_on = !limit(self).is_some_and(has_passed) && self.input == Input::Blocked;
        if goes_on {
            self.input = Input::Pending;
        }
        goes_on
    }

    /// Returns until when the client may go on to do nothing, if it does nothing.
    fn idle_until(&self) -> Option<Instant> {
        let limits = self.worker().idle_limits.get();
        let limit = match self.client_status() {
            TransactionStatus::Idle => limits.outside,
            TransactionStatus::InTransaction | TransactionStatus::Failed => limits.in_transaction,
        }?;
        // Half a batch is waited for as for the next one. But who has not taken the last answer, or has sent part of a
        // batch to the server, is in the midst of something; and who has sent one that waits is waiting for us.
        let is_idle = self.session.is_settled()
            && !self.session.is_in_mid_batch()
            && !self.is_copy_in()
            && self.out.is_empty()
            && self.parked.is_none()
            && self.stage() != Some(Stage::Asking);
        // The moment from which it counts may have been up to a period later than the clock said.
        is_idle.then(|| self.moved_at + limit + CLOCK_PERIOD)
    }

    fn end_idle(&self) -> Next {
        Next::End(Box::new(match self.client_status() {
            TransactionStatus::Idle => Fault::idle(),
            TransactionStatus::InTransaction | TransactionStatus::Failed => {
                Fault::idle_in_transaction()
            }
        }))
    }
}
