//! The steady state of a session: bytes from the client to its server and back, in one poll loop.
//!
//! Per wake-up and direction it makes one read and one write. Input is read into the thread's buffer, taken apart in
//! place, and written from there; only what cannot be acted upon or written yet is copied into the session's own memory.
//!
//! ## Back-pressure
//! A peer is not read while the other one has bytes waiting to be written. So a session holds at most one read's worth
//! of bytes in each direction, plus a batch of at most `route_buffer` that is not whole yet.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use pgweir_config::PoolMode;
use pgweir_session::{ReplyEvent, Violation};
use pgweir_wire::TransactionStatus;

use crate::client_task::{Client, Held, Input, Next, Stage, Traces};
use crate::fault::Fault;
use crate::proxy::Phase;

/// How a step of the loop ended.
pub(crate) type Step = Result<bool, Box<Next>>;

/// Bytes of a partial message that are put in front of the next read instead of being appended to.
const JOIN_BELOW: usize = 16 * 1024;

impl Client {
    /// Relays until something has to be waited for.
    pub(crate) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.slot.register(cx);
        if let Some(next) = self.look_at_phase() {
            return Poll::Ready(next);
        }
        loop {
            let progress = match self.step(cx) {
                Ok(progress) => progress,
                Err(next) => return Poll::Ready(*next),
            };
            // After what the client has sent before it: a cancel that overtook its statement would be lost.
            // What is asked in front of it, or behind it, is not the client's to cancel.
            let is_ours =
                self.stage() == Some(Stage::Asking) || self.session.is_ahead_of_its_batch();
            if (!progress || !self.session.is_settled())
                && !is_ours
                && let Some(requests) = self.slot.take_requests()
            {
                self.cancel_aside(requests);
            }
            if !progress {
                // It may have become free to end.
                return self.look_at_phase().map_or(Poll::Pending, Poll::Ready);
            }
        }
    }

    /// One round through what can be done; returns whether anything was.
    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        let mut progress = false;
        if !self.out.is_empty() {
            match self.out.poll_flush(&mut self.stream, cx) {
                Poll::Ready(Ok(())) => progress = true,
                Poll::Ready(Err(_)) => return Err(Box::new(Next::Gone)),
                Poll::Pending => {}
            }
        }
        if self.held.is_some() && self.out.is_empty() {
            progress |= self.step_server(cx)?;
        }
        if self.may_take_input() && self.input == Input::Pending {
            progress |= self.step_pending(cx)?;
        }
        // Also where a look at what was kept has brought nothing: only a read waits for more.
        if self.may_take_input() && self.input == Input::Open {
            progress |= self.step_client(cx)?;
        }
        // Usually the last reply has done this. It has not where the client was still sending when it came.
        if self.stage() == Some(Stage::Used) && self.session.is_settled() {
            self.release_if_over();
            // What the server is then asked still has to be sent.
            progress |= self.stage() == Some(Stage::Asking);
        }
        Ok(progress)
    }

    fn look_at_phase(&self) -> Option<Next> {
        let phase = self.worker().phase();
        let ends = match phase {
            Phase::Serving => false,
            Phase::Draining => {
                self.held.is_none()
                    && self.block.is_none()
                    && self.inbuf.is_empty()
                    && self.session.is_settled()
            }
            Phase::Stopping => true,
        };
        ends.then(|| Next::End(Box::new(Fault::terminated())))
    }

    /// Returns whether more of the client's input may be taken: what came of the last has been written.
    fn may_take_input(&self) -> bool {
        let server_has_taken = self
            .held
            .as_ref()
            .is_none_or(|held| held.lease.state.outgoing.is_empty());
        server_has_taken
            && self.out.is_empty()
            && self.input != Input::Blocked
            && !self.session.is_pipeline_full()
    }

    /// Writes what waits for the server, reads what it sent.
    pub(crate) fn step_server(&mut self, cx: &mut Context<'_>) -> Step {
        let worker = std::rc::Rc::clone(self.worker());
        let mut buffer = worker.buffer.borrow_mut();
        let Some(held) = &mut self.held else {
            return Ok(false);
        };
        let server = &mut *held.lease;
        if let Poll::Ready(Err(_)) = server.state.outgoing.poll_flush(&mut server.stream, cx) {
            // What the server said before it went may still be there to be read.
            server.state.outgoing = pgweir_net::Outgoing::new();
        }
        let carried = server.state.carry.len();
        if let Some(front) = buffer.get_mut(..carried) {
            front.copy_from_slice(&server.state.carry);
        }
        let Some(room) = buffer.get_mut(carried..).filter(|room| !room.is_empty()) else {
            return Err(self.server_violation(&Violation::TooLarge {
                length: carried,
                limit: carried,
            }));
        };
        let count = match server.stream.poll_read(cx, room) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => {
                drop(buffer);
                return match self.lose_if_spare() {
                    true => Ok(true),
                    false => self.on_server_lost().map(|()| true),
                };
            }
            Poll::Ready(Ok(count)) => count,
        };
        server.state.carry.clear();
        let input = buffer.get(..carried + count).unwrap_or_default();
        self.take_replies(cx, input)?;
        Ok(true)
    }

    /// Gives the server's bytes to the client, as far as they are its.
    fn take_replies(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<(), Box<Next>> {
        let worker = std::rc::Rc::clone(self.worker());
        let mut rest = input;
        loop {
            let reopens = self.block.is_some() && self.is_movable();
            let Some(held) = &mut self.held else {
                return Ok(());
            };
            let mut gather = worker.gather.borrow_mut();
            gather.clear();
            self.session.set_reopens(reopens);
            let received =
                match self
                    .session
                    .receive(rest, &mut held.lease.state.session, &mut gather)
                {
                    Ok(received) => received,
                    Err(violation) => {
                        drop(gather);
                        return Err(self.server_violation(&violation));
                    }
                };
            // Before the client hears of it: what it tells another session must hold there.
            self.note_schema_change();
            let Some(held) = &mut self.held else {
                return Ok(());
            };
            let sent = self.out.send(&mut self.stream, cx, rest, &gather);
            rest = rest.get(received.consumed..).unwrap_or_default();
            if sent.is_err() {
                // The server connection may outlive the client, and is out of step without this.
                held.lease.state.carry.extend_from_slice(rest);
                return Err(Box::new(Next::Gone));
            }
            match received.event {
                ReplyEvent::None => {}
                ReplyEvent::Replay(refusal) => {
                    drop(gather);
                    self.on_refusal(refusal)?;
                    continue;
                }
                ReplyEvent::Restore => {
                    drop(gather);
                    self.restore_settings();
                    continue;
                }
            }
            held.lease.state.carry.extend_from_slice(rest);
            break;
        }
        if self.session.switch_failed() {
            return self.on_switch_failed();
        }
        let is_leaving = |held: &Held| held.lease.state.session.is_leaving();
        if self.held.as_ref().is_some_and(is_leaving) && self.lose_if_spare() {
            return Ok(());
        }
        if self.session.is_settled() {
            self.on_settled();
        } else if self.input == Input::Blocked
            && (self.session.are_whole_batches_answered() || self.is_copy_in())
        {
            // What is out of the batch at hand is answered only after its rest, and a COPY only after its data.
            self.input = Input::Pending;
        }
        Ok(())
    }

    /// Lets everybody know of a change of the schema once it is committed.
    fn note_schema_change(&mut self) {
        let Some(held) = &mut self.held else { return };
        if !held.traces.ddl
            || held.status() != TransactionStatus::Idle
            || !self.session.is_settled()
        {
            return;
        }
        held.traces.ddl = false;
        let shared = &self.counted.worker.shared;
        shared.epoch.fetch_add(1, Ordering::Relaxed);
        if let Some(cluster) = shared.clusters.get(usize::from(self.identity.cluster)) {
            cluster.refresh_catalog(&self.identity.server_database);
        }
    }

    /// A RESET has taken from the server connection what the session came with: it is brought back.
    fn restore_settings(&mut self) {
        let worker = std::rc::Rc::clone(self.worker());
        let Some(held) = &mut self.held else { return };
        let mut gather = worker.gather.borrow_mut();
        gather.clear();
        self.session
            .restore(&mut held.lease.state.session, &mut gather);
        let outgoing = &mut held.lease.state.outgoing;
        gather.slices(&[]).for_each(|bytes| outgoing.push(bytes));
    }

    /// All replies are in: the transaction may be over, and the server connection free.
    fn on_settled(&mut self) {
        self.input = if self.inbuf.is_empty() {
            Input::Open
        } else {
            Input::Pending
        };
        // A batch waits for the answer to a question of ours.
        if self.stage() != Some(Stage::Asking) && self.replay.due.is_none() {
            self.replay.end();
        }
        self.release_if_over();
    }

    /// Ends the use of the server connection if the transaction is over and nothing keeps the session there.
    fn release_if_over(&mut self) {
        if self.session.is_in_mid_batch() {
            return;
        }
        if self.stage() == Some(Stage::Asking) {
            if !self.session.is_settled() {
                return;
            }
            self.take_answer();
        }
        let Some(held) = &mut self.held else { return };
        // A batch that is to run again leaves its server whatever became of it there.
        let is_due = self.replay.due.is_some();
        let is_over = held.status() == TransactionStatus::Idle || is_due;
        if !is_over || !held.lease.is_quiet() || held.stage != Stage::Used {
            return;
        }
        let traces = held.traces;
        held.traces = Traces {
            may_unpin: traces.may_unpin,
            asked: traces.asked,
            ..Traces::default()
        };
        if traces.wrote && held.is_primary() {
            self.wrote_at = Some(Instant::now());
            if let Some(cluster) = self
                .counted
                .worker
                .shared
                .clusters
                .get(usize::from(self.identity.cluster))
            {
                cluster.poke();
            }
        }
        if self.asks_before_release() {
            return;
        }
        let is_pinned = self.held.as_ref().is_some_and(|held| !held.pins.is_empty());
        if is_pinned || self.identity.pool_mode == PoolMode::Session {
            if is_due {
                self.run_again_here();
            }
            return;
        }
        let is_canceled = self.held.as_ref().is_some_and(|held| held.gate.is_some());
        self.release();
        if is_due {
            self.run_again(is_canceled);
        }
    }

    /// Gives the server connection back.
    fn release(&mut self) {
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.count_load(held.node, false);
        let runs_anew = self.replay.due.is_some();
        if runs_anew {
            // Whatever was set in its transaction there is rolled back.
            self.session.leave(&mut held.lease.state.session);
        }
        self.leave_block(runs_anew);
        let gate_is_open = held.gate.as_ref().is_none_or(|gate| gate.is_open());
        if gate_is_open && held.lease.is_reusable() {
            held.lease.checkin(self.worker().coarse_now());
        } else {
            self.reset_aside(held);
        }
    }

    /// Looks again at input that was kept.
    fn step_pending(&mut self, cx: &mut Context<'_>) -> Step {
        self.input = Input::Open;
        let input = std::mem::take(&mut self.inbuf);
        let consumed = self.process(cx, &input);
        let used = consumed
            .as_ref()
            .copied()
            .unwrap_or_else(|stop| stop.consumed);
        self.inbuf = input;
        if used == self.inbuf.len() {
            // An idle session holds no memory for input.
            self.inbuf = Vec::new();
        } else {
            self.inbuf.drain(..used);
        }
        match consumed {
            Ok(used) => Ok(used > 0),
            Err(stop) => Err(stop.next),
        }
    }

    /// Reads what the client sent.
    fn step_client(&mut self, cx: &mut Context<'_>) -> Step {
        let worker = std::rc::Rc::clone(self.worker());
        let mut buffer = worker.buffer.borrow_mut();
        let joined = if self.inbuf.len() < JOIN_BELOW {
            self.inbuf.len()
        } else {
            0
        };
        if let (Some(front), Some(kept)) = (buffer.get_mut(..joined), self.inbuf.get(..joined)) {
            front.copy_from_slice(kept);
        }
        let room = buffer.get_mut(joined..).unwrap_or_default();
        let count = match self.stream.poll_read(cx, room) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return Err(Box::new(Next::Gone)),
            Poll::Ready(Ok(count)) => count,
        };
        let input = buffer.get(..joined + count).unwrap_or_default();
        if joined < self.inbuf.len() {
            self.inbuf.extend_from_slice(input);
            drop(buffer);
            return self.step_pending(cx).map(|_| true);
        }
        let (used, next) = match self.process(cx, input) {
            Ok(used) => (used, None),
            Err(stop) => (stop.consumed, Some(stop.next)),
        };
        let rest = input.get(used..).unwrap_or_default();
        if rest.is_empty() {
            self.inbuf = Vec::new();
        } else {
            self.inbuf.clear();
            self.inbuf.extend_from_slice(rest);
        }
        next.map_or(Ok(true), Err)
    }

    /// A server connection that died before anything was sent on it: the batch that waits gets another.
    fn give_up_unused(&mut self) {
        if let Some(held) = self.held.take() {
            self.count_load(held.node, false);
        }
    }

    /// Gives up a server connection that has died, where the session can do without it; returns whether that is so.
    fn lose_if_spare(&mut self) -> bool {
        let Some(held) = &self.held else { return false };
        if self.replay.due.is_some() {
            // There is a batch to be brought elsewhere.
            return false;
        }
        match held.stage {
            Stage::Fresh => self.give_up_unused(),
            Stage::Asking if held.pins.is_empty() => self.lose_quietly(),
            Stage::Asking | Stage::Used if self.reopens() => self.lose_quietly(),
            Stage::Asking | Stage::Used => return false,
        }
        true
    }

    /// A server connection that died when the session could do without it: its transaction is over, or only read on a replica
    /// and is opened anew elsewhere.
    fn lose_quietly(&mut self) {
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.count_load(held.node, false);
        if held.stage == Stage::Asking {
            self.session.server_lost();
            self.leave_block(false);
        } else {
            self.session.leave(&mut held.lease.state.session);
            self.lose_block_replica(held.status());
        }
        if self.input == Input::Blocked {
            self.input = Input::Pending;
        }
        let clusters = &self.worker().shared.clusters;
        if let Some(cluster) = clusters.get(usize::from(held.node.cluster)) {
            cluster.report_failure(held.node);
        }
    }

    fn server_violation(&mut self, violation: &Violation) -> Box<Next> {
        if let Some(held) = self.held.take() {
            self.count_load(held.node, false);
            tracing::error!(server = %held.lease.state.address, %violation, "the server broke the protocol");
        }
        self.session.server_lost();
        Box::new(Next::End(Box::new(Fault::server_violation())))
    }
}
