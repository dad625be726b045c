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

use pgweir_admin::Phase;
use pgweir_config::PoolMode;
use pgweir_model::{NodeId, Role};
use pgweir_route::Loads;
use pgweir_session::{ReplyEvent, Violation};
use pgweir_wire::TransactionStatus;

use crate::client_task::{Client, Held, Input, Next, Stage, Traces};
use crate::fault::Fault;

/// How a step of the loop ended.
pub(crate) type Step = Result<bool, Box<Next>>;

/// Bytes of a partial message that are put in front of the next read instead of being appended to.
const JOIN_BELOW: usize = 16 * 1024;

impl Client {
    /// Relays until something has to be waited for.
    pub(crate) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        // Another task waits from now on, if it is another.
        self.awaits_input &= self.slot.register(cx);
        self.look_at_trace();
        if let Some(next) = self.look_at_phase() {
            return self.leave_relay(next);
        }
        if let Err(next) = self.look_at_roles() {
            return self.leave_relay(*next);
        }
        let mut has_moved = self.end_cancel();
        loop {
            let progress = match self.step(cx) {
                Ok(progress) => progress,
                Err(next) => {
                    self.write_down();
                    // Whatever it waits for has limits of its own.
                    self.worker().slots.set_due(&self.slot, None);
                    return self.leave_relay(*next);
                }
            };
            has_moved |= progress;
            let progress = progress && !self.is_at_rest();
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
            if !progress
                && !is_ours
                && let Some(requests) = self.slot.take_signals()
            {
                self.on_signal_requests(requests);
                continue;
            }
            if !progress {
                // It may have become free to end.
                let next = (self.look_at_phase()).or_else(|| self.look_at_limits(has_moved));
                self.write_down();
                return next.map_or(Poll::Pending, |next| self.leave_relay(next));
            }
        }
    }

    /// Ends the relay for what has to be waited for otherwise. Whoever does that may wait for the client's input himself.
    fn leave_relay(&mut self, next: Next) -> Poll<Next> {
        self.awaits_input = false;
        Poll::Ready(next)
    }

    /// Returns whether nothing can be done before the client sends something: another round would only find that out.
    fn is_at_rest(&self) -> bool {
        self.awaits_input
            && self.held.is_none()
            && self.aside.is_none()
            && self.parked.is_none()
            && self.input == Input::Open
            && self.out.is_empty()
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
            let stepped = self.step_server(cx);
            self.trace_output();
            progress |= stepped?;
        }
        if self.may_take_input() && self.input == Input::Pending {
            let stepped = self.step_pending(cx);
            self.trace_output();
            progress |= stepped?;
        }
        // Also where a look at what was kept has brought nothing: only a read waits for more.
        if self.may_take_input() && self.input == Input::Open {
            let stepped = self.step_client(cx);
            self.trace_output();
            progress |= stepped?;
        }
        // Usually the last reply has done this. It has not where the client was still sending when it came.
        if self.stage() == Some(Stage::Used) && self.session.is_settled() {
            self.release_if_over(None);
            // What the server is then asked still has to be sent.
            progress |= self.stage() == Some(Stage::Asking);
            if self.held.is_none() && self.input == Input::Blocked {
                self.input = Input::Pending;
                progress = true;
            }
        }
        if self.is_spared() {
            self.release();
        }
        if self.parked.is_none() {
            progress |= self.return_to_pin();
        }
        Ok(progress)
    }

    #[inline]
    fn look_at_phase(&self) -> Option<Next> {
        let is_serving = matches!(self.worker().phase(), Phase::Serving | Phase::Lingering);
        match is_serving && !self.slot.is_killed() {
            true => None,
            false => self.look_at_end(),
        }
    }

    #[cold]
    fn look_at_end(&self) -> Option<Next> {
        let ends = match self.worker().phase() {
            _ if self.slot.is_killed() => true,
            Phase::Serving | Phase::Lingering => false,
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
                return match self.lose_if_spare()? {
                    true => Ok(true),
                    false => self.on_server_lost().map(|()| true),
                };
            }
            Poll::Ready(Ok(count)) => count,
        };
        server.state.carry.clear();
        if let Some(tap) = &mut self.tap {
            tap.read_from_server(buffer.get(carried..carried + count).unwrap_or_default());
        }
        let input = buffer.get(..carried + count).unwrap_or_default();
        self.take_replies(cx, input)?;
        Ok(true)
    }

    /// Gives the server's bytes to the client, as far as they are its.
    fn take_replies(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<(), Box<Next>> {
        let worker = std::rc::Rc::clone(self.worker());
        let was_behind = self.input == Input::Blocked && self.session.front_is_of_ours();
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
                drop(gather);
                // The servers have run what the client does not hear of any more.
                self.account_for_answers();
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
        let answered_at = self.account_for_answers();
        if let Some(failure) = self.session.front_failure() {
            return self.on_front_failed(failure);
        }
        let is_leaving = |held: &Held| held.lease.state.session.is_leaving();
        if self.held.as_ref().is_some_and(is_leaving) && self.lose_if_spare()? {
            return Ok(());
        }
        if self.session.is_settled() {
            self.on_settled(answered_at);
        } else if self.input == Input::Blocked
            && (self.session.are_whole_batches_answered()
                || self.is_copy_in()
                || was_behind && !self.session.front_is_of_ours())
        {
            // What is out of the batch at hand is answered only after its rest, and a COPY only after its data.
            // What may follow a batch may do so once nothing of ours can make the server skip that.
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
    fn on_settled(&mut self, answered_at: Option<Instant>) {
        self.note_latency(answered_at);
        self.end_statement_limit();
        self.forget_cancel();
        self.input = if self.inbuf.is_empty() {
            Input::Open
        } else {
            Input::Pending
        };
        // A batch waits for the answer to a question of ours.
        if self.stage() != Some(Stage::Asking) && self.replay.due.is_none() {
            self.note_signalled();
            self.replay.end();
        }
        self.release_if_over(answered_at);
    }

    /// Forgets a CancelRequest that has been dealt with: what runs next was not cancelled.
    fn forget_cancel(&mut self) {
        if let Some(held) = &mut self.held
            && self.replay.due.is_none()
        {
            held.gate = held
                .gate
                .take()
                .filter(|gate| !gate.is_open() || gate.is_terminating());
        }
    }

    /// Ends the use of the server connection if the transaction is over and nothing keeps the session there. `answered_at` is
    /// when the last reply was in, where that has just come.
    fn release_if_over(&mut self, answered_at: Option<Instant>) {
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
        let (node, role) = (held.node, held.role);
        // What a replica has refused, or failed, was not seen.
        if role == Role::Primary || !is_due || self.has_shown(role) {
            // What would have been read on a replica has not been seen on the primary.
            if traces.wrote || !self.identity.observes() {
                self.note_use_until(node, role, answered_at.unwrap_or_else(Instant::now));
            }
            self.tell_monitor(node, role, traces.wrote);
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
        if !is_due && self.awaits_end() {
            return;
        }
        let is_canceled = self.held.as_ref().is_some_and(Held::is_canceled);
        self.release();
        if is_due {
            self.run_again(is_canceled);
        }
    }

    /// Notes in the session's token that it has seen, or written, what a server had until now.
    pub(crate) fn note_use(&self, node: NodeId, role: Role) {
        self.note_use_until(node, role, Instant::now());
    }

    fn note_use_until(&self, node: NodeId, role: Role, now: Instant) {
        let mut token = self.token.get();
        match role {
            Role::Primary => token.used_primary(now),
            Role::Replica => token.used_replica(usize::from(node.node), now),
        }
        self.token.set(token);
    }

    /// Lets the monitor know of a transaction that is over, as far as it wants to.
    fn tell_monitor(&self, node: NodeId, role: Role, wrote: bool) {
        let clusters = &self.worker().shared.clusters;
        match clusters.get(usize::from(node.cluster)) {
            Some(cluster) if role == Role::Replica => cluster.report_success(node),
            Some(cluster) if wrote => cluster.poke(),
            _ => {}
        }
    }

    /// Lets the monitor look at a server whose connection was lost. One that has said why it went has not failed.
    pub(crate) fn tell_of_loss(&self, held: &Held) {
        let clusters = &self.worker().shared.clusters;
        let Some(cluster) = clusters.get(usize::from(held.node.cluster)) else {
            return;
        };
        match held.lease.state.session.has_said_farewell() {
            true => cluster.look_at(held.node),
            false => cluster.report_failure(held.node),
        }
    }

    /// Gives the server connection back.
    fn release(&mut self) {
        self.leave_traced_server();
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.count_load(held.node, Loads::finished);
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
        // The task is registered, and is woken when there is something.
        if self.awaits_input && !self.stream.has_input() {
            return Ok(false);
        }
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
        let polled = self.stream.poll_read(cx, room);
        // A task that has used up its turn is put off without being registered.
        self.awaits_input = polled.is_pending() && tokio::task::coop::has_budget_remaining();
        let count = match polled {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return Err(Box::new(Next::Gone)),
            Poll::Ready(Ok(count)) => count,
        };
        self.slot.shown.add_received(count);
        let input = buffer.get(..joined + count).unwrap_or_default();
        if let Some(tap) = &mut self.tap {
            tap.read_from_client(input.get(joined..).unwrap_or_default());
        }
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
            self.count_load(held.node, Loads::finished);
        }
    }

    /// Gives up a server connection that has died, where the session can do without it; returns whether that is so. A session
    /// that was terminated there ends.
    pub(crate) fn lose_if_spare(&mut self) -> Step {
        let Some(held) = &self.held else {
            return Ok(false);
        };
        if self.replay.due.is_some() {
            // There is a batch to be brought elsewhere.
            return Ok(false);
        }
        if held.is_terminating() && self.session.is_settled() {
            return Err(Box::new(
                match held.lease.state.session.has_said_farewell() {
                    true => Next::Gone,
                    false => Next::End(Box::new(Fault::terminated())),
                },
            ));
        }
        match held.stage {
            Stage::Fresh => self.give_up_unused(),
            Stage::Asking if held.pins.is_empty() => self.lose_quietly(),
            Stage::Asking | Stage::Used if self.reopens() => self.lose_quietly(),
            Stage::Asking | Stage::Used => return Ok(false),
        }
        Ok(true)
    }

    /// A server connection that died when the session could do without it: its transaction is over, or only read on a replica
    /// and is opened anew elsewhere.
    fn lose_quietly(&mut self) {
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.count_load(held.node, Loads::finished);
        if held.stage == Stage::Asking {
            self.session.server_lost();
            self.leave_block(false);
        } else {
            self.note_use(held.node, held.role);
            self.session.leave(&mut held.lease.state.session);
            self.lose_block_replica(held.status());
        }
        if self.input == Input::Blocked {
            self.input = Input::Pending;
        }
        self.tell_of_loss(&held);
    }

    fn server_violation(&mut self, violation: &Violation) -> Box<Next> {
        if let Some(held) = self.held.take() {
            self.count_load(held.node, Loads::finished);
            tracing::error!(server = %held.lease.state.address, %violation, "the server broke the protocol");
        }
        self.session.server_lost();
        Box::new(Next::End(Box::new(Fault::server_violation())))
    }
}
