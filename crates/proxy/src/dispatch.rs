//! Takes the client's input batch by batch: where each goes, and what the session remembers of it.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Instant;

use pgweir_config::PoolMode;
use pgweir_model::{PinReason, Reason};
use pgweir_route::Facts as RouteFacts;
use pgweir_session::client::{Facts, Marks, Portion, ScanMode};
use pgweir_session::server::Ledger;
use pgweir_session::{Scan, Violation};
use pgweir_wire::{Gather, TransactionStatus};

use crate::block::{BlockStage, Taken};
use crate::client_task::{Client, Input, Next, Place, Stage};
use crate::fault::Fault;
use crate::local::Answered;
use crate::retry::Behind;

/// Why the input was not taken to its end, and how far it was.
pub(crate) struct Stop {
    pub(crate) consumed: usize,
    pub(crate) next: Box<Next>,
}

/// What became of a portion.
pub(crate) enum Act {
    /// It has been sent or answered.
    Done,
    /// It waits until the server has answered what it has.
    Park,
    /// It waits likewise, and must be looked at anew then: what its names mean is not known yet.
    Rescan,
    /// It needs what takes time.
    Stop(Box<Next>),
    /// It fails; the session goes on.
    Fail(Fault),
}

impl Client {
    /// Acts on as much of `input` as can be acted on now; returns how many bytes are done with.
    pub(crate) fn process(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<usize, Stop> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let stop = |next| Stop { consumed: at, next };
            let (portion, len) = match self.parked.take() {
                Some(parked) => {
                    // They may be others than when it was scanned.
                    self.follow_rules();
                    parked
                }
                None if rest.is_empty() => break,
                None => match self.scan(rest) {
                    Ok(Scan::Ready { portion, len }) => (portion, len),
                    Ok(Scan::Incomplete) => break,
                    Ok(Scan::Oversize) => match self.on_oversize() {
                        Act::Done => continue,
                        Act::Park | Act::Rescan => {
                            self.input = Input::Blocked;
                            break;
                        }
                        Act::Stop(next) => return Err(stop(next)),
                        Act::Fail(fault) => return Err(stop(end(fault.fatal()))),
                    },
                    Err(next) => return Err(stop(next)),
                },
            };
            match self.act(cx, rest, portion, len) {
                Ok(Act::Done) => {
                    self.forget_arrival();
                    at += len;
                }
                Ok(Act::Park) => {
                    self.parked = Some((portion, len));
                    self.input = Input::Blocked;
                    break;
                }
                Ok(Act::Rescan) => {
                    self.session.drop_batch();
                    self.input = Input::Blocked;
                    break;
                }
                Ok(Act::Stop(next)) => {
                    self.parked = Some((portion, len));
                    return Err(stop(next));
                }
                Ok(Act::Fail(fault)) => {
                    let seen = self.seen();
                    let batch = rest.get(..len).unwrap_or(rest);
                    self.record_failed(batch, seen.as_ref(), fault.sqlstate);
                    self.fail_here(fault, portion).map_err(stop)?;
                    at += len;
                }
                Err(violation) => return Err(stop(end(Fault::protocol(&violation)))),
            }
            // What went out has not been taken whole: the rest waits its turn.
            if !self.out.is_empty()
                || self
                    .held
                    .as_ref()
                    .is_some_and(|h| !h.lease.state.outgoing.is_empty())
            {
                if at < input.len() {
                    self.input = Input::Pending;
                }
                break;
            }
        }
        Ok(at)
    }

    fn scan(&mut self, rest: &[u8]) -> Result<Scan, Box<Next>> {
        self.follow_config();
        self.refresh_lens();
        let worker = Rc::clone(self.worker());
        let mut tables = worker.tables.borrow_mut();
        tables.epoch = worker.shared.epoch.load(Ordering::Relaxed);
        let mode = self.scan_mode();
        let scan = self
            .session
            .scan(rest, mode, &mut tables)
            .map_err(|violation| refuse(&violation))?;
        // A statement for the proxy itself is answered as a whole, even where others would be passed on piece by piece.
        let is_piece = matches!(
            scan,
            Scan::Ready {
                portion: Portion::Piece,
                ..
            }
        );
        if is_piece && self.session.facts().local_statements > 0 && !self.session.is_in_mid_batch()
        {
            self.session.drop_batch();
            let scan = self
                .session
                .scan(rest, ScanMode::Whole, &mut tables)
                .map_err(|violation| refuse(&violation))?;
            return match scan {
                Scan::Oversize => Err(end(Fault::mixed_batch().fatal())),
                Scan::Incomplete | Scan::Ready { .. } => Ok(scan),
            };
        }
        Ok(scan)
    }

    /// Where the server is settled, messages are passed on as they come; else a whole batch is needed to decide.
    fn scan_mode(&self) -> ScanMode {
        let Some(held) = &self.held else {
            return ScanMode::Whole;
        };
        let settled_there = self.session.is_in_mid_batch()
            || self.is_oversize
            || !held.pins.is_empty() && !self.may_read_beside()
            || self.identity.pool_mode == PoolMode::Session
            || held.lease.state.session.is_copy_in()
            || (self.session.is_settled()
                && held.status() != TransactionStatus::Idle
                && self.block.is_none());
        if settled_there {
            ScanMode::Stream
        } else {
            ScanMode::Whole
        }
    }

    /// A batch that is too large to be read as a whole goes to the primary and streams.
    fn on_oversize(&mut self) -> Act {
        self.session.drop_batch();
        if self.is_movable() && self.session.is_settled() {
            self.leave_replica();
        }
        match &self.held {
            Some(held) if held.is_primary() || held.stage == Stage::Fresh => {}
            // A transaction that stays on its replica.
            Some(_) if self.session.is_settled() && self.block.is_some() => {}
            Some(_) if self.session.is_settled() => return Act::Fail(Fault::mixed_batch()),
            Some(_) => return Act::Park,
            None if self.is_held_back() => return Act::Stop(Box::new(Next::AwaitResume)),
            None => {
                let facts = RouteFacts::new(Reason::Oversize);
                // Nobody has read what it does: it goes to the primary whatever the session asks for.
                let place = match self.decide(&facts, true) {
                    Ok(place) => Place {
                        reason: Reason::Oversize,
                        ..place
                    },
                    Err(act) => return act,
                };
                match self.try_checkout(place) {
                    Ok(true) => {}
                    Ok(false) => return Act::Stop(Box::new(Next::Checkout(place))),
                    Err(fault) => return Act::Fail(fault),
                }
            }
        }
        self.is_oversize = true;
        Act::Done
    }

    fn act(
        &mut self,
        cx: &mut Context<'_>,
        rest: &[u8],
        portion: Portion,
        len: usize,
    ) -> Result<Act, Violation> {
        match portion {
            // What was sent before it is still run and answered, as PostgreSQL does. COPY data will not come any more.
            Portion::Terminate
                if !self.session.are_whole_batches_answered() && !self.is_copy_in() =>
            {
                return Ok(Act::Park);
            }
            Portion::Terminate => return Ok(Act::Stop(Box::new(Next::Gone))),
            // COPY data goes where the COPY runs; PostgreSQL ignores it where none does.
            Portion::Ignored if self.held.is_none() || self.stage() == Some(Stage::Asking) => {
                self.session.skip_ignored(rest, len)?;
                return Ok(Act::Done);
            }
            Portion::Ignored | Portion::Batch | Portion::Flushed | Portion::Piece => {}
        }
        self.note_arrival(portion);
        if let Err(next) = self.come_back() {
            return Ok(Act::Stop(next));
        }
        // What came before is to run again; its server is left as soon as its replies are in.
        if self.replay.due.is_some() && self.held.is_some() {
            return Ok(Act::Park);
        }
        // A server that waits for COPY data answers nothing before it gets something, and be it the wrong thing.
        if self.session.must_wait() && !self.is_copy_in() {
            return Ok(Act::Rescan);
        }
        self.choices.follow(self.session.state.own());
        if self.failing.is_none()
            && let Some(fault) = self.refusal(portion)
            && let Some(act) = self.refuse(&fault, portion)
        {
            return Ok(act);
        }
        if self.session.facts().local_statements > 0 {
            return self.act_locally(cx, rest, len);
        }
        if self.awaits_end() || self.signals_behind_another(portion) {
            return Ok(Act::Park);
        }
        let batch = rest.get(..len).unwrap_or(rest);
        if let Some(whom) = self.signalled_clients(portion, batch) {
            return Ok(Act::Stop(Box::new(Next::Locate(whom))));
        }
        if let Err(act) = self.leave_pin(portion) {
            return Ok(act);
        }
        if portion != Portion::Ignored && self.must_move(portion) {
            self.leave_replica();
        }
        if self.held.is_none() {
            if !self.session.facts().marks.has(Marks::NEEDS_SERVER) {
                return self
                    .answer_locally(cx, rest, portion, len)
                    .map(|()| Act::Done);
            }
            // A batch that comes to a block by a replay has been through this.
            if self.replay.due.is_none()
                && let Taken::Yes(act) = self.act_on_block(cx, rest, portion, len)
            {
                return Ok(act);
            }
            match self.acquire(portion) {
                Ok(()) => {}
                Err(act) => return Ok(act),
            }
        } else if portion != Portion::Ignored && !self.may_ride_along() {
            return Ok(Act::Park);
        }
        if self.strands_state() && !self.may_strand(portion) {
            let _server_fails = self.refuse(&Fault::state_on_replica(), portion);
        }
        self.send(cx, rest, portion, len)
    }

    /// A batch that comes while the server is still answering goes along on the same connection if that is right for it
    /// whatever the answers will be. On a replica it waits: its own failure there could not be repaired any more. And nowhere does
    /// it follow what may yet be skipped, because its settings or its BEGIN fail: the server would not skip it as well.
    fn may_ride_along(&self) -> bool {
        let Some(held) = &self.held else { return false };
        if held.stage == Stage::Asking {
            // Whether it has the connection for itself is not known yet.
            return false;
        }
        if !self.may_run_beside_limits() {
            return false;
        }
        // What it says of its own errors must be the signals' alone.
        if self.awaits_signals() {
            return false;
        }
        let stays = held.is_primary()
            || !held.pins.is_empty()
            || self.identity.pool_mode == PoolMode::Session;
        self.session.is_settled()
            || self.session.is_in_mid_batch()
            || stays && !self.session.front_is_of_ours()
    }

    /// Returns whether the server waits for COPY data.
    pub(crate) fn is_copy_in(&self) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.lease.state.session.is_copy_in())
    }

    /// Returns why the batch at hand is refused.
    fn refusal(&self, portion: Portion) -> Option<Fault> {
        let facts = self.session.facts();
        if facts.local_statements == 0 {
            return self.blocked();
        }
        // What is out of a batch is answered only after its end, and a COPY waits for its data.
        let is_cut =
            portion != Portion::Batch || self.session.is_in_mid_batch() || self.is_copy_in();
        let is_mixed = facts.mixes_local() && !self.opens_block_locally();
        (is_cut || is_mixed).then(Fault::mixed_batch)
    }

    /// Refuses the batch at hand: at once where no server is concerned, else by letting the server fail when it is sent, so
    /// that both know what became of the transaction.
    fn refuse(&mut self, fault: &Fault, portion: Portion) -> Option<Act> {
        if self.held.is_none() && portion == Portion::Batch {
            return Some(Act::Fail(fault.clone()));
        }
        let mut error = Vec::new();
        fault.encode(&mut error);
        self.note_own_error(fault.sqlstate);
        self.failing = Some(error.into());
        // Nothing of it is run, so that none of its effects counts.
        self.session.void_facts();
        None
    }

    /// Statements for the proxy: answered when everything before them has been.
    fn act_locally(
        &mut self,
        cx: &mut Context<'_>,
        rest: &[u8],
        len: usize,
    ) -> Result<Act, Violation> {
        if !self.session.is_settled() {
            return Ok(Act::Park);
        }
        let batch = rest.get(..len).unwrap_or(rest);
        let mut reply = Vec::new();
        match self.answer(batch, &mut reply) {
            Answered::Whole => self.account_for_own_answer(),
            Answered::Awaits(what) => return Ok(Act::Stop(Box::new(what.next()))),
            Answered::Failed(fault) => {
                let has_server = self.held.is_some();
                if has_server && self.client_status() == TransactionStatus::InTransaction {
                    self.out.push(&reply);
                    let _server_fails = self.refuse(&fault, Portion::Batch);
                    return self.send(cx, rest, Portion::Batch, len);
                }
                self.note_own_error(fault.sqlstate);
                fault.encode(&mut reply);
                let status = self.fail_block();
                pgweir_wire::backend::ReadyForQuery { status }.encode(&mut reply);
            }
        }
        self.session.drop_batch();
        Ok(match self.out.send_slice(&mut self.stream, cx, &reply) {
            Ok(()) => Act::Done,
            Err(_) => Act::Stop(Box::new(Next::Gone)),
        })
    }

    /// Close, Sync and Flush of a session without a server.
    fn answer_locally(
        &mut self,
        cx: &mut Context<'_>,
        rest: &[u8],
        portion: Portion,
        len: usize,
    ) -> Result<(), Violation> {
        if portion == Portion::Batch {
            self.account_for_own_answer();
        }
        let status = self.client_status();
        let worker = Rc::clone(self.worker());
        let mut gather = worker.gather.borrow_mut();
        gather.clear();
        self.session
            .answer_locally(rest, len, status, &mut gather)?;
        // A client that is gone is noticed at the next read.
        let _gone = self.out.send(&mut self.stream, cx, rest, &gather);
        Ok(())
    }

    /// Sends a portion to the server that the session has, once that carries what the session needs.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        rest: &[u8],
        portion: Portion,
        len: usize,
    ) -> Result<Act, Violation> {
        let worker = Rc::clone(self.worker());
        self.observe(portion);
        self.is_oversize = false;
        let mut gather = worker.gather.borrow_mut();
        gather.clear();
        self.prepare(&mut gather);
        self.session.stop_watching();
        let failing = self.failing.take();
        let timeout = self.timeout_by_rule().filter(|_| failing.is_none());
        let is_first = self.is_first_batch();
        let block = self.block;
        self.note_effects();
        let opens_block = is_first && self.block.is_some();
        let is_failed_block = self
            .block
            .is_some_and(|block| block.stage == BlockStage::Failed);
        let is_replica = self.held.as_ref().is_some_and(|held| !held.is_primary());
        let opening = self.opening(is_replica);
        if is_first {
            self.begin_block_there(is_replica);
        }
        // On the primary what follows a BEGIN is the client's own affair.
        let watch = match failing.is_some() || opens_block && !is_replica {
            true => None,
            false => self.watch_for(portion, is_first),
        };
        let batch = rest.get(..len).unwrap_or(rest);
        self.translate_process_ids(batch);
        // Behind that: the batch itself may still run again elsewhere, what comes after it may not.
        self.note_effects_on_block();
        let sent_at = Instant::now();
        let departure = self.depart(portion, batch, sent_at);
        let Some(held) = &mut self.held else {
            return Ok(Act::Done);
        };
        held.stage = Stage::Used;
        held.sent_at.get_or_insert(sent_at);
        held.limit.begin(timeout, worker.coarse_now());
        let server = &mut *held.lease;
        if opens_block {
            self.session.open_transaction(
                opening.as_deref(),
                &mut server.state.session,
                &mut gather,
            );
            if is_failed_block {
                self.session.fail_transaction(&mut gather);
            }
        }
        let state = &mut server.state.session;
        let is_behind = is_first && portion == Portion::Batch && failing.is_none();
        match failing {
            Some(error) => self
                .session
                .forward_failing(rest, len, error, state, &mut gather)?,
            None => self.session.forward(rest, len, state, &mut gather)?,
        }
        self.departed(departure);
        let is_kept = watch.is_some_and(|watch| self.begin_watch(watch, batch));
        match is_behind && self.session.front_is_of_ours() {
            true => self.keep_behind_front(Behind { block, is_kept }, batch),
            false => self.forget_front(),
        }
        self.transmit(cx, rest, portion, &mut gather);
        Ok(Act::Done)
    }

    /// Writes what was gathered to the server, and to the client what is owed to it by nobody else.
    fn transmit(
        &mut self,
        cx: &mut Context<'_>,
        rest: &[u8],
        portion: Portion,
        gather: &mut Gather,
    ) {
        let Some(held) = &mut self.held else { return };
        let server = &mut *held.lease;
        // A server that is gone is noticed at the next read, where its last words may stand.
        let _gone = server
            .state
            .outgoing
            .send(&mut server.stream, cx, rest, gather);
        if self.session.is_settled() && portion != Portion::Batch {
            gather.clear();
            self.session.emit_due_fakes(gather);
            let _gone = self.out.send(&mut self.stream, cx, &[], gather);
        }
    }

    fn is_first_batch(&self) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.stage != Stage::Used)
    }

    /// Puts what a server connection lacks that is new to the session in front of the batch at hand.
    fn prepare(&mut self, gather: &mut Gather) {
        let epoch = self.worker().shared.epoch.load(Ordering::Relaxed);
        let Some(held) = &mut self.held else { return };
        if held.stage != Stage::Fresh {
            return;
        }
        let state = &mut held.lease.state.session;
        // What another session drew from a sequence here must not pass for this one's.
        let also: &[u8] = match self.session.facts().pin {
            Some(PinReason::Sequence) => b"DISCARD SEQUENCES;",
            _ => b"",
        };
        self.session.begin_lease(state, epoch, also, gather);
    }

    /// Remembers what the batch at hand does to the session and its server connection.
    fn note_effects(&mut self) {
        let Some(held) = &mut self.held else { return };
        let facts: &Facts = self.session.facts();
        let server = &mut held.lease.state.session;
        if facts.marks.has(Marks::WRITES) {
            held.traces.wrote = true;
        }
        if facts.marks.has(Marks::SUSPECT) || !self.identity.reads_text {
            server.mark(Ledger::Suspect);
        }
        if facts.pin.is_some() || facts.marks.has(Marks::HIDES) {
            // What was discarded before says nothing about this.
            self.session.state.take_discarded();
        }
        let facts: &Facts = self.session.facts();
        if let Some(reason) = facts.pin {
            server.mark_pin(reason);
            // On a replica only the transaction keeps it.
            if held.is_primary() {
                held.pins = held.pins.union(facts.pins);
            }
        }
        if facts.marks.has(Marks::HIDES) {
            held.lease.state.session.mark_pin(PinReason::Setting);
            if held.is_primary() {
                held.pins.insert(PinReason::Setting);
            }
        }
        held.traces.asked &= !facts.marks.has(Marks::SUSPECT);
        held.traces.may_unpin |= facts.marks.has(Marks::MAY_UNPIN);
        let owns_server = !held.pins.is_empty() || self.identity.pool_mode == PoolMode::Session;
        if facts.marks.has(Marks::DDL) && facts.pin.is_none() {
            held.traces.ddl = true;
        }
        self.session.set_owns_server(owns_server);
    }

    /// Returns whether the batch would leave something in a READ ONLY transaction on a replica that outlives it there and
    /// cannot be brought to the primary.
    pub(crate) fn strands_state(&self) -> bool {
        let in_transaction = self.held.as_ref().is_some_and(|held| {
            !held.is_primary() && held.status() == TransactionStatus::InTransaction
        });
        in_transaction && self.session.facts().pin.is_some()
    }

    /// Returns whether the batch at hand is sent nevertheless: nobody can say that it would, or the replica refuses it as any
    /// READ ONLY transaction does, and its success can be kept from the client.
    pub(crate) fn may_strand(&self, portion: Portion) -> bool {
        let facts = self.session.facts();
        portion == Portion::Batch
            && self.session.is_settled()
            && !self.session.is_in_mid_batch()
            && (facts.pins.iter())
                .all(|pin| matches!(pin, PinReason::Unread | PinReason::TempTable))
    }

    /// Answers a batch with an error; the session goes on behind it.
    pub(crate) fn fail_here(&mut self, fault: Fault, portion: Portion) -> Result<(), Box<Next>> {
        self.replay.end();
        self.primary_until = None;
        self.waited.set(None);
        // After a Flush the rest of the batch is still to come, and nobody would know where it ends. In a transaction the
        // server would not know that it failed.
        if fault.is_fatal || portion != Portion::Batch || self.held.is_some() {
            return Err(end(fault.fatal()));
        }
        self.note_own_error(fault.sqlstate);
        let mut error = Vec::new();
        fault.encode(&mut error);
        self.fail_with(&error);
        Ok(())
    }

    /// Answers a batch of a session that has no server with a complete ErrorResponse message.
    pub(crate) fn fail_with(&mut self, error: &[u8]) {
        self.session.drop_batch();
        self.failing = None;
        self.out.push(error);
        let status = self.fail_block();
        let mut ready = Vec::new();
        pgweir_wire::backend::ReadyForQuery { status }.encode(&mut ready);
        self.out.push(&ready);
    }
}

/// What becomes of a client that broke the protocol.
fn refuse(violation: &Violation) -> Box<Next> {
    match violation {
        // No border of a message can be found any more. PostgreSQL closes without a word, and so do we.
        Violation::Decode(pgweir_wire::DecodeError::BadLength { .. }) => Box::new(Next::Gone),
        _ => end(Fault::protocol(violation)),
    }
}

fn end(fault: Fault) -> Box<Next> {
    Box::new(Next::End(Box::new(fault)))
}
