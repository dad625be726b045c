//! `pg_cancel_backend` and `pg_terminate_backend` of a process ID that a client of this proxy was given: the server process that
//! serves that client now is signalled in its place, by the statement itself, so that PostgreSQL's own permissions hold.
//!
//! ```text
//!   the signaller's task                         the client's own task
//!   a batch names a process ID ── Mail::Signal ──► holds its server connection by its gate
//!   sends it with the server's ◄── Located ────── says which process serves it
//!   all replies are in ────────── done ─────────► may give its server connection back
//! ```
//!
//! ## Why it never hits another client
//! As with a [CancelRequest](crate::cancel): from the moment that a client says which process serves it until the signaller's
//! statement has been answered, that server connection stays with this client. Where the outcome is not known it is closed: also
//! where a termination has failed, as a batch may fail behind one that was sent.
//! A number is replaced only where the statement runs on the node of that process.
//!
//! ## Limits
//! - Of a client that no server serves there is nothing to cancel: the number stays, and PostgreSQL says that it is no process
//!   of its own. One that is to be terminated by its own role gets an idle connection, if there is one, to be terminated on.
//!   Whether another role may do that is not known before PostgreSQL has said so, and no client waits for it.
//! - A batch runs on one node: of several processes those on the node of the first are signalled.
//! - To a replica it goes only if it does nothing else of which it matters where; what reads tables, writes, or locks runs where
//!   it would without the signal, and so does what finds the replica out of reach. Processes elsewhere are then not signalled.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pgweir_config::PoolMode;
use pgweir_model::{NodeId, Reason, Role};
use pgweir_session::client::{Marks, Portion};
use pgweir_sql::signals::Signal;
use pgweir_wire::TransactionStatus;
use tokio::sync::oneshot;

use crate::cancel::{Gate, Slots};
use crate::checkout::End;
use crate::client_task::{CANCEL_LIMIT, Client, Place, Stage};
use crate::worker::Mail;

/// How many processes one batch may signal; further ones are left alone. Chosen: nobody names more by hand, and each costs its
/// client's task a turn.
const TARGETS_LIMIT: usize = 16;

/// How long a client's task has to say what serves it. It is usually a turn of its thread; one that waits for a server itself
/// does not answer, and is served by none.
const LOCATE_LIMIT: Duration = Duration::from_secs(1);

/// How long a server process that was told to end has for that before its connection counts as spared. Chosen: longer than a
/// process needs to hear a signal, shorter than a pool would miss the connection.
const TERMINATION_LIMIT: Duration = Duration::from_millis(500);

/// A question to a client: which process serves it?
#[derive(Debug)]
pub(crate) struct SignalRequest {
    pub(crate) signal: Signal,
    /// The role that asks PostgreSQL for it.
    pub(crate) server_user: Arc<str>,
    /// Where the one who asks may signal anybody.
    pub(crate) cluster: u16,
    /// Dropped where there is none.
    pub(crate) reply: oneshot::Sender<Located>,
}

/// The answer.
#[derive(Debug)]
pub(crate) struct Located {
    node: NodeId,
    process_id: u32,
    /// Told what became of the signal; dropped where that is not known.
    done: oneshot::Sender<Outcome>,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The statement was not sent to the server of that process.
    NotSent,
    /// It has been answered.
    Answered,
    /// It has failed: PostgreSQL has refused it, unless something else in its batch went wrong.
    Failed,
}

/// The processes that the batch at hand signals.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// By the ID that the client of each was given.
    targets: Vec<(u32, Located)>,
    /// The server that the batch was sent to.
    sent_to: Option<NodeId>,
    /// It has been answered, without an error.
    has_succeeded: bool,
}

impl Signals {
    /// Lets the clients go on: the batch has been answered, or was not sent.
    pub(crate) fn finish(mut self) {
        let sent_to = self.sent_to;
        for (_, located) in self.targets.drain(..) {
            let outcome = match located.is_spared(sent_to) {
                true => Outcome::NotSent,
                false if self.has_succeeded => Outcome::Answered,
                false => Outcome::Failed,
            };
            // Its client has gone.
            let _unheard = located.done.send(outcome);
        }
    }
}

impl Drop for Signals {
    /// Of a batch that nobody waits for any more it is not known what became of it, but for the processes to which it was not sent.
    fn drop(&mut self) {
        let sent_to = self.sent_to;
        for (_, located) in self.targets.drain(..) {
            if located.is_spared(sent_to) {
                let _unheard = located.done.send(Outcome::NotSent);
            }
        }
    }
}

impl Located {
    /// Returns whether a batch was not sent to the server of the process.
    fn is_spared(&self, sent_to: Option<NodeId>) -> bool {
        sent_to != Some(self.node)
    }
}

impl Client {
    /// Returns whom the batch at hand signals among the clients of this proxy, where that has not been found out yet.
    pub(crate) fn signalled_clients(
        &self,
        portion: Portion,
        batch: &[u8],
    ) -> Option<Vec<(Signal, u32)>> {
        if !self.may_signal(portion) || self.replay.signals.is_some() {
            return None;
        }
        let mut found = self.session.signalled(batch);
        found.retain(|(_, id)| Slots::is_given_out(*id));
        found.truncate(TARGETS_LIMIT);
        Some(found).filter(|found| !found.is_empty())
    }

    /// Returns whether the batch at hand signals somebody while others are unanswered: whom it means is found out behind those.
    pub(crate) fn signals_behind_another(&self, portion: Portion) -> bool {
        self.may_signal(portion) && !self.session.is_settled()
    }

    /// Returns whether the batch at hand may signal clients. One behind its own beginning, or in place of COPY data, cannot wait.
    fn may_signal(&self, portion: Portion) -> bool {
        portion == Portion::Batch
            && self.session.facts().marks.has(Marks::SIGNALS)
            && !self.session.is_in_mid_batch()
            && !self.is_copy_in()
    }

    /// Returns whether a batch that signals clients has been sent and not been answered, so that no other may follow. The rest of
    /// it, and the data of its COPY, may.
    pub(crate) fn awaits_signals(&self) -> bool {
        self.replay.signals.is_some()
            && !self.session.is_settled()
            && !self.session.is_in_mid_batch()
            && !self.is_copy_in()
    }

    /// Asks clients which processes serve them; then the parked batch goes on.
    pub(crate) async fn locate(&mut self, whom: Vec<(Signal, u32)>) -> Result<(), End> {
        let cluster = self.identity.cluster;
        let shared = Arc::clone(&self.worker().shared);
        let server_user = Arc::clone(&self.identity.server_user);
        let ask = |(signal, id): (Signal, u32)| {
            let (reply, answer) = oneshot::channel();
            let request = SignalRequest {
                signal,
                server_user: Arc::clone(&server_user),
                cluster,
                reply,
            };
            let process_id = id;
            shared.send(
                Slots::worker_of(id),
                Mail::Signal {
                    process_id,
                    request,
                },
            );
            (id, answer)
        };
        let own = self.process_id;
        let answers: Vec<_> = whom
            .into_iter()
            .filter(|(_, id)| *id != own)
            .map(ask)
            .collect();
        let all = async {
            let mut signals = Signals::default();
            let until = tokio::time::Instant::now() + LOCATE_LIMIT;
            for (id, answer) in answers {
                if let Ok(Ok(located)) = tokio::time::timeout_at(until, answer).await {
                    signals.targets.push((id, located));
                }
            }
            signals
        };
        let outcome = self.unless_interrupted(all).await;
        if let Some(signals) = self.after_wait(outcome)? {
            self.replay.signals = Some(signals);
        }
        Ok(())
    }

    /// Returns the replica whose processes the batch at hand signals; `None` for the primary's, for a batch that does anything
    /// else of which it matters where, and where that replica cannot be reached.
    pub(crate) fn signal_place(&self) -> Option<Place> {
        let (_, located) = self.replay.signals.as_ref()?.targets.first()?;
        let place = Place {
            node: located.node,
            role: Role::Replica,
            reason: Reason::Signal,
        };
        let topology = self.topology();
        let is_primary = topology
            .primary()
            .is_some_and(|primary| primary.id == located.node);
        let is_reachable = !is_primary && !self.replay.has_failed() && self.is_as_decided(place);
        (is_reachable && self.replay.due.is_none() && self.only_signals()).then_some(place)
    }

    /// Returns whether the batch at hand does nothing of which it matters on which server it runs, beside the signals.
    fn only_signals(&self) -> bool {
        let facts = self.session.facts();
        let touched = [
            Marks::WRITES,
            Marks::READS_DATA,
            Marks::SUSPECT,
            Marks::HIDES,
            Marks::MAY_UNPIN,
        ];
        self.identity.reads_text
            && self.block.is_none()
            && facts.begin.is_none()
            && facts.pin.is_none()
            && !touched.into_iter().any(|mark| facts.marks.has(mark))
            && !self.default_meaning().is_serializable()
    }

    /// Puts the processes of the server that the batch at hand is sent to in the place of its clients'.
    pub(crate) fn translate_process_ids(&mut self, batch: &[u8]) {
        let (Some(signals), Some(held)) = (&mut self.replay.signals, &self.held) else {
            return;
        };
        signals.sent_to = Some(held.node);
        let _before_it = self.session.take_failed();
        let here = (signals.targets.iter()).filter(|(_, located)| located.node == held.node);
        let mut ids: Vec<_> = here
            .map(|(id, located)| (*id, located.process_id))
            .collect();
        ids.push((self.process_id, held.lease.state.key.process_id));
        let worker = Rc::clone(&self.counted.worker);
        let tables = &mut *worker.tables.borrow_mut();
        self.session.translate(ids, batch, tables);
    }

    /// Notes whether the batch at hand, if it signals anybody, has been answered without an error.
    pub(crate) fn note_signalled(&mut self) {
        if let Some(signals) = &mut self.replay.signals {
            signals.has_succeeded = !self.session.take_failed();
        }
    }

    /// Says which process serves this client, and keeps its server connection until the signal has been sent.
    pub(crate) fn on_signal_requests(&mut self, requests: Vec<SignalRequest>) {
        for request in requests {
            if request.cluster != self.identity.cluster {
                continue;
            }
            let terminates = request.signal == Signal::Terminate;
            // Whoever logs in as the same role may do this. Whether another one may is for PostgreSQL to say, and nobody waits
            // for that.
            let is_awaited = terminates && request.server_user == self.identity.server_user;
            if is_awaited && self.held.is_none() && self.block.is_none() {
                self.borrow_server();
            }
            let Some(held) = &mut self.held else { continue };
            let gate = Rc::clone(held.gate.get_or_insert_with(Rc::default));
            let (done, is_done) = oneshot::channel();
            let located = Located {
                node: held.node,
                process_id: held.lease.state.key.process_id,
                done,
            };
            if request.reply.send(located).is_err() {
                continue;
            }
            gate.begin();
            match terminates {
                true => gate.note_termination(),
                false => gate.note_cancel(),
            }
            if is_awaited {
                gate.begin_wait();
            }
            let slot = Rc::clone(&self.slot);
            drop(tokio::task::spawn_local(async move {
                let is_known = outcome_of(request.signal, &gate, is_done).await;
                if is_awaited {
                    gate.end_wait();
                }
                gate.end(is_known);
                slot.wake();
            }));
        }
    }

    /// Takes an idle connection to the primary, for a client that no server serves, to be terminated on.
    fn borrow_server(&mut self) {
        let topology = self.topology();
        let primary = topology.primary().filter(|_| !self.is_held_back());
        let Some(primary) = primary else {
            return;
        };
        let last_route = self.last_route;
        let place = Place {
            node: primary.id,
            role: Role::Primary,
            reason: Reason::Signal,
        };
        // Where there is none, it is as if no process served it.
        let _none_idle = self.try_checkout(place);
        self.last_route = last_route;
    }

    /// Returns whether the server connection is kept for nothing but a signal that may end it, and the session with it.
    pub(crate) fn awaits_end(&self) -> bool {
        let is_kept = self.held.as_ref().is_some_and(|held| {
            held.gate.as_ref().is_some_and(|gate| gate.is_awaited())
                && held.stage == Stage::Used
                && held.pins.is_empty()
                && held.status() == TransactionStatus::Idle
        });
        is_kept && self.identity.pool_mode != PoolMode::Session && self.session.is_settled()
    }

    /// Returns whether a connection that was taken to be terminated on has been spared.
    pub(crate) fn is_spared(&self) -> bool {
        self.held.as_ref().is_some_and(|held| {
            let is_over = held.gate.as_ref().is_some_and(|gate| gate.is_still());
            is_over && held.stage == Stage::Fresh
        })
    }
}

/// Waits until it is known what became of a signal, and of the process that it may have ended; returns whether that is.
async fn outcome_of(signal: Signal, gate: &Gate, is_done: oneshot::Receiver<Outcome>) -> bool {
    let told = tokio::time::timeout(CANCEL_LIMIT, is_done).await;
    let outcome = told.ok().and_then(Result::ok);
    if signal == Signal::Terminate {
        match outcome {
            Some(Outcome::NotSent | Outcome::Failed) => gate.take_back_termination(),
            Some(Outcome::Answered) | None => tokio::time::sleep(TERMINATION_LIMIT).await,
        }
    }
    match outcome {
        Some(Outcome::NotSent | Outcome::Answered) => true,
        // The process may yet end.
        Some(Outcome::Failed) => signal == Signal::Cancel,
        None => false,
    }
}
