//! Running a batch again: after a replica has refused it, given up on it or died over it, or where a prepared statement must
//! be prepared anew.
//!
//! ## Why
//! A hot standby refuses every write, cancels reads that stand in the way of replay, and may vanish. None of that is the
//! client's concern while it has seen nothing of the result and the batch is a transaction of its own:
//!
//! | what happened | the batch goes | at most |
//! |---|---|---|
//! | an error that only recovery raises | to the primary, and the shape is remembered | once |
//! | something missing, perhaps not replayed yet | to the primary | once |
//! | connection lost, shutdown, conflict with recovery, cancelled by another | to a replica that has not failed it, the last time to the primary | `read_retries` |
//! | what goes in front of it is cancelled (a switch of settings, a BEGIN), so that it is skipped, writes too | where it is routed; the last time the client hears it | [`CANCELED_LIMIT`] |
//! | "cached plan must not change result type" | where it is routed, with its statements prepared anew | [`STALE_LIMIT`] |
//!
//! ## Limits
//! - What may have written is never run again, save after a stale plan or a cancelled switch of settings, which are noticed before
//!   anything runs.
//! - What is cancelled in front of a batch too large to be kept is heard by the client at once, as an error of that batch.
//! - On the primary a batch is watched only if it is small and runs a statement that was prepared before; a batch that
//!   follows while it is unanswered ends the watch, because it has been sent already.
//! - A node beyond the 64th is not remembered as failed; the number of retries bounds them all the same.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgweir_config::PoolMode;
use pgweir_model::{Health, NodeId, PrimaryReads, Reason, Role, Sqlstate, Topology};
use pgweir_route::{Instruction, Loads, RouteSetting};
use pgweir_session::client::{Facts, FrontFailure, Marks, Portion};
use pgweir_session::{Refusal, Watch};
use pgweir_sql::plan::Plan;
use pgweir_wire::TransactionStatus;

use crate::acquire::route_facts_of;
use crate::block::Block;
use crate::client_task::{Client, Input, Next};
use crate::fault::Fault;
use crate::signal::Signals;

/// A kept batch larger than this is not kept beyond its use.
const KEPT_BYTES: usize = 4096;

/// A batch that may write is copied, against stale plans, only up to this size. Large enough for a statement and its
/// parameters as applications send them, small enough that the copy costs nothing beside the rest.
const PLAN_BYTES_LIMIT: usize = 8 * 1024;

/// How often a batch runs again because of stale plans. More than once, as the schema may change again meanwhile; not
/// often, as each time costs the server the same.
const STALE_LIMIT: u8 = 3;

/// How often a batch runs again because what went in front of it was cancelled: by somebody who meant another session's
/// statement, or by a limit of time. More than once, as the next connection may have such a limit as well; not often, as a
/// session's own limit would be exceeded each time.
const CANCELED_LIMIT: u8 = 3;

/// How often batches were run again, for whatever reason a client did not hear of.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// On the primary, after an error that the primary would not have raised: `reroutes_total`.
    pub(crate) reroutes: AtomicU64,
    /// Elsewhere, after a replica's fault.
    pub(crate) read_retries: AtomicU64,
    /// With statements prepared anew.
    pub(crate) stale_plans: AtomicU64,
    /// Because what went in front of them was cancelled.
    pub(crate) canceled_switches: AtomicU64,
}

/// A whole batch behind something of ours, so that it runs only where that succeeds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    /// Its block, as it was before.
    pub(crate) block: Option<Block>,
    /// The batch was kept.
    pub(crate) is_kept: bool,
}

/// Where a batch runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Due {
    /// On the primary.
    #[default]
    Primary,
    /// Wherever it is routed.
    Anywhere,
}

/// A batch that may have to be run again.
#[derive(Default)]
pub(crate) struct Replay {
    /// The batch as the client sent it.
    batch: Vec<u8>,
    /// The plan that sent it to a replica.
    plan: Option<Rc<Plan>>,
    /// It has failed, and runs again as soon as the replies of its server are in.
    pub(crate) due: Option<Due>,
    /// Where else it may run.
    elsewhere: Due,
    /// How often it was tried on a replica that failed it.
    failures: u32,
    /// The nodes that failed it, by index.
    failed: u64,
    /// How often its plans were stale.
    stale: u8,
    /// Until when it waits for a replica, once it does.
    waits_until: Option<Instant>,
    /// It has been sent behind something of ours.
    behind: Option<Behind>,
    /// How often that was cancelled.
    canceled: u8,
    /// It runs where the session is pinned, whatever a replica could do.
    pub(crate) stays: bool,
    /// The processes that it signals.
    pub(crate) signals: Option<Signals>,
}

impl Replay {
    /// Keeps a batch.
    fn keep(&mut self, batch: &[u8]) {
        self.batch.clear();
        if self.batch.capacity() > KEPT_BYTES {
            self.batch = Vec::new();
        }
        self.batch.extend_from_slice(batch);
    }

    /// Forgets the attempts: the batch at hand has been answered.
    pub(crate) fn end(&mut self) {
        self.due = None;
        self.failures = 0;
        self.failed = 0;
        self.stale = 0;
        self.waits_until = None;
        self.canceled = 0;
        self.stays = false;
        if let Some(signals) = self.signals.take() {
            signals.finish();
        }
    }

    /// Begins or goes on with a wait for a replica, any replica: those that have failed it may have recovered. Returns when
    /// the wait ends, which is `limit` after it began.
    pub(crate) fn wait_for_replica(&mut self, limit: Duration) -> Instant {
        self.failed = 0;
        *self
            .waits_until
            .get_or_insert_with(|| Instant::now() + limit)
    }

    /// Forgets a wait for a replica: it begins anew.
    pub(crate) fn forget_wait(&mut self) {
        self.waits_until = None;
    }

    /// Returns whether a read that was failed so often runs again.
    pub(crate) fn may_retry(&self, limit: u32) -> bool {
        self.failures < limit
    }

    /// Returns whether it has begun to wait for a replica.
    pub(crate) fn is_waiting_for_replica(&self) -> bool {
        self.waits_until.is_some()
    }

    /// Returns whether the batch at hand was tried on a replica that failed it.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    fn note_failure(&mut self, node: NodeId) {
        self.failures += 1;
        self.failed |= 1u64.checked_shl(u32::from(node.node)).unwrap_or(0);
    }

    /// Returns the servers as the batch at hand is to see them: without the replicas that have failed it, and the last time
    /// with the primary alone; `None` where it sees them as they are.
    pub(crate) fn narrowed(&self, topology: &Topology, limit: u32) -> Option<Topology> {
        if self.failures == 0 {
            return None;
        }
        let may_fall_back = topology.selection.primary_reads != PrimaryReads::Never;
        let is_last = may_fall_back && self.failures >= limit && topology.primary.is_some();
        let mut narrowed = topology.clone();
        for (index, node) in (0u32..).zip(&mut narrowed.nodes) {
            let has_failed = self.failed.checked_shr(index).unwrap_or(0) & 1 == 1;
            if node.role != Some(Role::Primary) && (is_last || has_failed) {
                node.health = Health::Down;
            }
        }
        Some(narrowed)
    }
}

impl Client {
    /// Returns what the replies to the batch at hand are to be watched for. Asked before it is translated; it may turn out
    /// that nothing is to be watched.
    ///
    /// `is_first` says that it is the first that the session sends on its server connection.
    pub(crate) fn watch_for(&mut self, portion: Portion, is_first: bool) -> Option<Watch> {
        let held = self.held.as_ref()?;
        let facts = self.session.facts();
        let is_alone = is_first || (self.session.is_settled() && !self.session.is_in_mid_batch());
        let is_complete = !facts.marks.has(Marks::OPENS_TRANSACTION) || self.block.is_some();
        let status = held.status();
        if portion != Portion::Batch
            || !is_alone
            || !is_complete
            || status == TransactionStatus::Failed
        {
            return None;
        }
        let stays = held.is_primary()
            || !held.pins.is_empty()
            || self.identity.pool_mode == PoolMode::Session
            || self.names_backend(facts, held.reason)
            // Elsewhere the process is another one.
            || held.reason == Reason::Signal;
        if stays {
            self.replay.elsewhere = Due::Anywhere;
            let is_own = status == TransactionStatus::Idle && self.block.is_none();
            return is_own.then_some(Watch::Plan);
        }
        if self.strands_state() {
            return Some(Watch::Stranding);
        }
        if !is_first && !self.is_movable() {
            return None;
        }
        let is_read_only = self
            .block
            .is_some_and(|block| self.meaning(block.modes).is_read_only());
        let watch = if is_read_only && facts.marks.has(Marks::WRITES) {
            Watch::UnvouchedReadOnly
        } else if is_read_only {
            Watch::ReadOnly
        } else if facts.marks.has(Marks::WRITES) {
            Watch::Unvouched
        } else {
            Watch::Read
        };
        // A transaction that has read on one replica would see time go back on another; the primary is behind none.
        self.replay.elsewhere = if is_first {
            Due::Anywhere
        } else {
            Due::Primary
        };
        self.replay.plan.clone_from(&facts.deciding);
        Some(watch)
    }

    /// Returns whether the batch is on a server that the client asked for by its name: it wants to hear that one.
    pub(crate) fn names_backend(&self, facts: &Facts, reason: Reason) -> bool {
        match reason {
            Reason::SessionSetting => matches!(self.choices.route, RouteSetting::Backend(_)),
            Reason::Hint => facts.deciding.as_ref().is_some_and(|plan| {
                matches!(route_facts_of(plan).route, Some(Instruction::Backend(_)))
            }),
            _ => false,
        }
    }

    /// Watches the replies to a batch that has just been translated; returns whether it was kept.
    pub(crate) fn begin_watch(&mut self, watch: Watch, batch: &[u8]) -> bool {
        let is_worth_it = watch != Watch::Plan
            || (self.session.uses_old_plan() && batch.len() <= PLAN_BYTES_LIMIT);
        if is_worth_it {
            self.replay.keep(batch);
            self.session.watch(watch);
        }
        is_worth_it
    }

    /// Keeps a batch that goes out behind something of ours, if it is not large. `is_kept` says that it has been kept already.
    pub(crate) fn keep_behind_front(&mut self, behind: Behind, batch: &[u8]) {
        let keeps = !behind.is_kept && batch.len() <= PLAN_BYTES_LIMIT;
        if keeps {
            self.replay.keep(batch);
        }
        self.replay.behind = Some(Behind {
            is_kept: behind.is_kept || keeps,
            ..behind
        });
    }

    /// Notes that a batch goes out behind nothing of ours.
    pub(crate) fn forget_front(&mut self) {
        self.replay.behind = None;
    }

    /// The batch has failed before anything of its result has left: decides whether it runs again or the client hears of it.
    /// A batch that should have failed ends the session.
    pub(crate) fn on_refusal(&mut self, refusal: Refusal) -> Result<(), Box<Next>> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let counters = &self.counted.worker.shared.retries;
        let due = match refusal {
            Refusal::Recovery | Refusal::Behind => {
                counters.reroutes.fetch_add(1, Ordering::Relaxed);
                // What is missing here may be missing there too; that says nothing about the shape.
                if refusal == Refusal::Recovery
                    && let Some(plan) = self.replay.plan.take()
                {
                    plan.learn_primary(self.session.lens());
                }
                Some(Due::Primary)
            }
            Refusal::StalePlan if self.replay.stale < STALE_LIMIT => {
                counters.stale_plans.fetch_add(1, Ordering::Relaxed);
                self.replay.stale += 1;
                let server = &mut held.lease.state.session;
                server.distrust_statements();
                // The change came past the proxy, or before a replica had replayed it: every other connection may have
                // the same plan. Unless that has been noticed since.
                let _noticed = self.counted.worker.shared.epoch.compare_exchange(
                    server.epoch,
                    server.epoch + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                Some(self.replay.elsewhere)
            }
            Refusal::StalePlan => None,
            Refusal::Canceled if held.is_canceled() => None,
            Refusal::Fault if held.is_terminating() => None,
            Refusal::Fault | Refusal::Canceled
                if self.replay.failures < self.identity.read_retries =>
            {
                counters.read_retries.fetch_add(1, Ordering::Relaxed);
                self.replay.note_failure(held.node);
                Some(self.replay.elsewhere)
            }
            Refusal::Fault | Refusal::Canceled => None,
            Refusal::Stranded => {
                return Err(Box::new(Next::End(Box::new(
                    Fault::state_on_replica().fatal(),
                ))));
            }
        };
        tracing::debug!(?refusal, ?due, "a batch was refused");
        if due.is_some() {
            self.session.abandon_replies(&mut held.lease.state.session);
            self.replay.due = due;
            self.recall_flights();
        } else {
            self.session.stop_watching();
        }
        Ok(())
    }

    /// Ends the use of a server by a batch that is to run again. The connection may stay the session's.
    pub(crate) fn run_again_here(&mut self) {
        // Decided already: it is here.
        self.replay.due = None;
        self.queue_replay();
    }

    /// Puts the batch in front of whatever the client has sent since. A batch that the client has cancelled meanwhile fails
    /// instead.
    pub(crate) fn run_again(&mut self, is_canceled: bool) {
        if is_canceled {
            let fault = Fault::canceled_while_waiting();
            self.note_own_error(fault.sqlstate);
            let mut error = Vec::new();
            fault.encode(&mut error);
            self.fail_kept(&error);
            return;
        }
        self.queue_replay();
    }

    /// Fails a batch that has left its server, with a complete ErrorResponse message: it leaves as the batch's own.
    fn fail_kept(&mut self, error: &[u8]) {
        let batch = std::mem::take(&mut self.replay.batch);
        // What the session knows of plans is of the batch that it has looked at last, which may be one behind this.
        self.record_failed(&batch, None, Sqlstate::QUERY_CANCELED);
        self.forget_wait();
        self.parked = None;
        self.input = Input::Pending;
        self.replay.end();
        self.fail_with(error);
    }

    fn queue_replay(&mut self) {
        let mut batch = std::mem::take(&mut self.replay.batch);
        batch.extend_from_slice(&self.inbuf);
        self.inbuf = batch;
        self.parked = None;
        // What was decided about a batch behind it is decided again.
        self.failing = None;
        self.session.drop_batch();
        self.input = Input::Pending;
    }

    /// The server connection is gone. A batch that only read on a replica and has no result yet gets another; else the session
    /// ends.
    pub(crate) fn on_server_lost(&mut self) -> Result<(), Box<Next>> {
        let Some(held) = self.held.take() else {
            return Err(Box::new(Next::Gone));
        };
        self.count_load(held.node, Loads::finished);
        self.counted.worker.books.note_loss(held.node);
        self.tell_of_loss(&held);
        tracing::warn!(server = %held.lease.state.address, "a server connection was lost in use");
        let may_repeat = !held.is_terminating()
            && self.session.is_watching_read()
            && self.replay.may_retry(self.identity.read_retries);
        if self.replay.due.is_none() && may_repeat {
            let counters = &self.worker().shared.retries;
            counters.read_retries.fetch_add(1, Ordering::Relaxed);
            self.replay.note_failure(held.node);
            self.replay.due = Some(self.replay.elsewhere);
        } else if self.replay.due.is_none() {
            self.session.server_lost();
            let server = &held.lease.state.session;
            let may_have_written =
                held.traces.wrote || held.status() != TransactionStatus::Idle && held.is_primary();
            // Of a read the server itself has said all there is to say. That of a write it does not say what became of it.
            let is_told = server.has_said_farewell() && !may_have_written;
            if server.is_reply_cut() || is_told {
                return Err(Box::new(Next::Gone));
            }
            return Err(Box::new(Next::End(Box::new(Fault::server_lost(
                may_have_written,
            )))));
        }
        if self.has_shown(held.role) {
            self.note_use(held.node, held.role);
        }
        self.recall_flights();
        self.session.forget_server();
        if self.block.is_some() {
            self.leave_block(true);
        }
        self.run_again(held.is_canceled());
        Ok(())
    }

    /// Returns whether a server that is left with a batch that is to run again has shown something before: the batch was not
    /// the first of its transaction there.
    pub(crate) fn has_shown(&self, role: Role) -> bool {
        role == Role::Replica && self.block.is_some() && self.replay.elsewhere == Due::Primary
    }

    /// What stood in front of a batch has failed: the session's settings, its BEGIN. The server has skipped the batch, and its
    /// connection is given up.
    pub(crate) fn on_front_failed(&mut self, failure: FrontFailure) -> Result<(), Box<Next>> {
        let error = self.session.take_front_error();
        let counters = &self.counted.worker.shared.retries;
        let due = match (failure, self.replay.behind) {
            // A replica may not have replayed yet what they name; the primary has accepted them before.
            (FrontFailure::OfRead, _) => {
                counters.reroutes.fetch_add(1, Ordering::Relaxed);
                Some(Due::Primary)
            }
            (FrontFailure::Canceled, Some(behind)) => {
                let again = behind.is_kept && self.replay.canceled < CANCELED_LIMIT;
                if again {
                    counters.canceled_switches.fetch_add(1, Ordering::Relaxed);
                }
                again.then_some(Due::Anywhere)
            }
            (FrontFailure::Canceled, None) | (FrontFailure::Refused, _) => {
                self.out.push(&error);
                return Err(Box::new(Next::End(Box::new(Fault::parameters_refused()))));
            }
        };
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        self.count_load(held.node, Loads::finished);
        self.recall_flights();
        self.session.forget_server();
        self.block = self.replay.behind.and_then(|behind| behind.block);
        let is_canceled = held.is_canceled();
        match due {
            Some(due) => {
                self.replay.canceled += u8::from(failure == FrontFailure::Canceled);
                self.replay.due = Some(due);
                self.run_again(is_canceled);
            }
            None => self.fail_kept(&error),
        }
        Ok(())
    }

    /// A replica cannot be connected to; returns whether the parked batch is routed again, in the end to the primary. One that
    /// the client has asked for by its name is no other.
    pub(crate) fn on_replica_unreachable(&mut self, node: NodeId, reason: Reason) -> bool {
        let facts = self.session.facts();
        let is_chosen_by_name = self.names_backend(facts, reason);
        if !is_chosen_by_name {
            self.replay.note_failure(node);
            self.input = Input::Pending;
        }
        !is_chosen_by_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        let nodes = (0..3).map(|node| {
            let id = NodeId { cluster: 0, node };
            let mut node = pgweir_model::Node::unseen(id, "n".into(), "h".into(), 1, 100);
            node.health = Health::Up;
            node.role = Some(if id.node == 0 {
                Role::Primary
            } else {
                Role::Replica
            });
            node
        });
        Topology {
            nodes: nodes.collect(),
            primary: Some(0),
            ..Topology::default()
        }
    }

    fn healthy(replay: &Replay, topology: &Topology, limit: u32) -> Vec<usize> {
        let narrowed = replay.narrowed(topology, limit);
        let nodes = &narrowed.as_ref().unwrap_or(topology).nodes;
        let up = |(index, node): (usize, &pgweir_model::Node)| {
            (node.health == Health::Up).then_some(index)
        };
        nodes.iter().enumerate().filter_map(up).collect()
    }

    #[test]
    fn a_failed_replica_is_out_and_the_last_try_is_the_primarys() {
        let mut topology = topology();
        let mut replay = Replay::default();
        assert_eq!(healthy(&replay, &topology, 2), [0, 1, 2]);
        replay.note_failure(NodeId {
            cluster: 0,
            node: 2,
        });
        assert_eq!(healthy(&replay, &topology, 2), [0, 1]);
        assert_eq!(healthy(&replay, &topology, 1), [0]);
        // While there is no primary, a replica that has not failed is worth more than none.
        topology.primary = None;
        assert_eq!(healthy(&replay, &topology, 1), [0, 1]);
        replay.end();
        assert_eq!(healthy(&replay, &topology, 1), [0, 1, 2]);
    }

    #[test]
    fn a_primary_that_takes_no_reads_is_no_last_try_and_a_wait_forgives() {
        let mut topology = topology();
        topology.selection.primary_reads = PrimaryReads::Never;
        let mut replay = Replay::default();
        replay.note_failure(NodeId {
            cluster: 0,
            node: 2,
        });
        assert_eq!(healthy(&replay, &topology, 1), [0, 1]);
        let limit = Duration::from_secs(1);
        let until = replay.wait_for_replica(limit);
        assert_eq!(healthy(&replay, &topology, 1), [0, 1, 2]);
        // One wait, however often it is looked again.
        assert_eq!(replay.wait_for_replica(limit), until);
    }

    #[test]
    fn a_node_beyond_what_is_remembered_does_no_harm() {
        let mut replay = Replay::default();
        replay.note_failure(NodeId {
            cluster: 0,
            node: 64,
        });
        assert_eq!(healthy(&replay, &topology(), 2), [0, 1, 2]);
    }
}
