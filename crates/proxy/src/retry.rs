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
//! | "cached plan must not change result type" | where it is routed, with its statements prepared anew | [`STALE_LIMIT`] |
//!
//! ## Limits
//! - What may have written is never run again, save after a stale plan, which is noticed before anything runs.
//! - On the primary a batch is watched only if it is small and runs a statement that was prepared before; a batch that
//!   follows while it is unanswered ends the watch, because it has been sent already.
//! - A node beyond the 64th is not remembered as failed; the number of retries bounds them all the same.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgweir_config::PoolMode;
use pgweir_model::{Health, NodeId, Reason, Role, Topology};
use pgweir_route::{Instruction, RouteSetting};
use pgweir_session::client::{Facts, Marks, Portion};
use pgweir_session::{Refusal, Watch};
use pgweir_sql::plan::Plan;
use pgweir_wire::TransactionStatus;

use crate::acquire::route_facts_of;
use crate::client_task::{Client, Input, Next};
use crate::fault::Fault;

/// A kept batch larger than this is not kept beyond its use.
const KEPT_BYTES: usize = 4096;

/// A batch that may write is copied, against stale plans, only up to this size. Large enough for a statement and its
/// parameters as applications send them, small enough that the copy costs nothing beside the rest.
const PLAN_BYTES_LIMIT: usize = 8 * 1024;

/// How often a batch runs again because of stale plans. More than once, as the schema may change again meanwhile; not
/// often, as each time costs the server the same.
const STALE_LIMIT: u8 = 3;

/// How often batches were run again, for whatever reason a client did not hear of.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// On the primary, after an error that the primary would not have raised: `reroutes_total`.
    pub(crate) reroutes: AtomicU64,
    /// Elsewhere, after a replica's fault.
    pub(crate) read_retries: AtomicU64,
    /// With statements prepared anew.
    pub(crate) stale_plans: AtomicU64,
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
        let is_last = self.failures >= limit && topology.primary.is_some();
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
            || self.names_backend(facts, held.reason);
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
    fn names_backend(&self, facts: &Facts, reason: Reason) -> bool {
        match reason {
            Reason::SessionSetting => matches!(self.choices.route, RouteSetting::Backend(_)),
            Reason::Hint => facts.deciding.as_ref().is_some_and(|plan| {
                matches!(route_facts_of(plan).route, Some(Instruction::Backend(_)))
            }),
            _ => false,
        }
    }

    /// Watches the replies to a batch that has just been translated.
    pub(crate) fn begin_watch(&mut self, watch: Watch, batch: &[u8]) {
        let is_worth_it = watch != Watch::Plan
            || (self.session.uses_old_plan() && batch.len() <= PLAN_BYTES_LIMIT);
        if is_worth_it {
            self.replay.keep(batch);
            self.session.watch(watch);
        }
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
            Refusal::Canceled if held.gate.is_some() => None,
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
            self.replay.end();
            self.parked = None;
            self.input = Input::Pending;
            // The session has no server: the error leaves as the batch's own.
            let _never_fatal = self.fail_here(Fault::canceled_while_waiting(), Portion::Batch);
            return;
        }
        self.queue_replay();
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
        self.count_load(held.node, false);
        if let Some(cluster) = self
            .worker()
            .shared
            .clusters
            .get(usize::from(held.node.cluster))
        {
            cluster.report_failure(held.node);
        }
        tracing::warn!(server = %held.lease.state.address, "a server connection was lost in use");
        let may_repeat =
            self.session.is_watching_read() && self.replay.failures < self.identity.read_retries;
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
        self.session.forget_server();
        if self.block.is_some() {
            self.leave_block(true);
        }
        self.run_again(held.gate.is_some());
        Ok(())
    }

    /// A server does not take the session's settings or its BEGIN, and has skipped the batch. A replica may not have replayed
    /// yet what they name; the primary has accepted them before.
    pub(crate) fn on_switch_failed(&mut self) -> Result<(), Box<Next>> {
        if !self.session.may_repeat_elsewhere() {
            return Err(Box::new(Next::End(Box::new(Fault::parameters_refused()))));
        }
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        self.count_load(held.node, false);
        let counters = &self.worker().shared.retries;
        counters.reroutes.fetch_add(1, Ordering::Relaxed);
        self.replay.due = Some(Due::Primary);
        self.session.forget_server();
        if self.block.is_some() {
            self.leave_block(true);
        }
        self.run_again(held.gate.is_some());
        Ok(())
    }

    /// A replica cannot be connected to; returns whether the parked batch is routed again.
    pub(crate) fn on_replica_unreachable(&mut self, node: NodeId, reason: Reason) -> bool {
        let facts = self.session.facts();
        let is_chosen_by_name = self.names_backend(facts, reason);
        let again = !is_chosen_by_name && self.replay.failures < self.identity.read_retries;
        if again {
            self.replay.note_failure(node);
            self.input = Input::Pending;
        }
        again
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
    fn a_node_beyond_what_is_remembered_does_no_harm() {
        let mut replay = Replay::default();
        replay.note_failure(NodeId {
            cluster: 0,
            node: 64,
        });
        assert_eq!(healthy(&replay, &topology(), 2), [0, 1, 2]);
    }
}
