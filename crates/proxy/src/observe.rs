//! `splitting = "observe"`: everything runs on the primary, and what `on` would have decided is counted per shape of statement.
//!
//! ## What is counted
//! Each batch that would have been routed, under the shape that decides it: where it would have gone, why, and whether it would
//! have been *stale* there. A read is counted as stale if the replica that would have been chosen had, when the monitor last
//! looked, not replayed all of the primary's WAL, or not what the session has written. Where the consistency asked for would
//! have kept it from such a replica, the decision says so: `primary`, `not_replayed`.
//!
//! In a transaction the same is counted as would have happened: its reads on the replica of the first of them, until its first
//! statement that needs the primary.
//!
//! ## Why
//! Each thread counts for itself; who asks collects from all of them. So counting takes no lock.
//!
//! ## Limits
//! - Statements of transaction control, those that the proxy answers, and what comes piece by piece on a connection that the
//!   session keeps, are not counted. A driver that prepares in one batch and runs in another counts twice.
//! - What `on` would have done about a replica's errors is not known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgweir_config::PoolMode;
use pgweir_consistency::Demand;
use pgweir_model::{Consistency, NodeId, Reason, Role};
use pgweir_route::Facts as RouteFacts;
use pgweir_session::client::{Facts, Marks, Portion};
use pgweir_sql::plan::Plan;
use pgweir_sql::{Fingerprint, TransactionControl};
use pgweir_wire::TransactionStatus;
use tokio::sync::oneshot;

use crate::acquire::route_facts;
use crate::block::{Block, FirstOfBlock};
use crate::checkout::End;
use crate::client_task::{Client, Next, Place};
use crate::dispatch::Act;
use crate::worker::Mail;

/// Outcomes that a thread counts apart; further shapes are counted together. Chosen: applications have some hundred shapes, and a
/// thousand outcomes are below half a megabyte.
const OUTCOMES_LIMIT: usize = 1000;

/// How much of a shape is shown, in bytes.
const SHAPE_LIMIT: usize = 200;

/// What stands for the shapes beyond the limit.
const OTHERS: &str = "(others)";

/// How long a thread has to say what it has counted. It is usually a turn.
const COLLECT_LIMIT: Duration = Duration::from_secs(2);

/// Columns of `SHOW pgweir.observed`.
pub(crate) const COLUMNS: [&str; 6] = [
    "fingerprint",
    "shape",
    "decision",
    "reason",
    "calls",
    "stale",
];

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    database: Arc<str>,
    /// `None` for all shapes beyond the limit.
    fingerprint: Option<Fingerprint>,
    decision: Decision,
    reason: Reason,
}

/// Where a batch would have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Decision {
    Primary,
    Replica,
    Refused,
}

impl Decision {
    fn name(self) -> &'static str {
        match self {
            Decision::Primary => "primary",
            Decision::Replica => "replica",
            Decision::Refused => "refused",
        }
    }
}

/// How often.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    shape: Arc<str>,
    calls: u64,
    stale: u64,
}

/// What one thread has counted, or several together.
#[derive(Debug, Default)]
pub(crate) struct Observations(HashMap<Outcome, Count>);

impl Observations {
    /// Counts one more; the shape is asked for only where it is new.
    fn add(&mut self, outcome: Outcome, is_stale: bool, shape: impl FnOnce() -> Arc<str>) {
        let is_full = self.0.len() >= OUTCOMES_LIMIT && !self.0.contains_key(&outcome);
        let (outcome, shape): (_, Box<dyn FnOnce() -> Arc<str>>) = match is_full {
            true => (
                Outcome {
                    fingerprint: None,
                    ..outcome
                },
                Box::new(|| OTHERS.into()),
            ),
            false => (outcome, Box::new(shape)),
        };
        let count = self.0.entry(outcome).or_insert_with(|| Count {
            shape: shape(),
            calls: 0,
            stale: 0,
        });
        count.calls += 1;
        count.stale += u64::from(is_stale);
    }

    /// Returns what belongs to a database, for another thread.
    pub(crate) fn of(&self, database: &str) -> Vec<(Outcome, Count)> {
        let own = self.0.iter().filter(|(of, _)| *of.database == *database);
        own.map(|(outcome, count)| (outcome.clone(), count.clone()))
            .collect()
    }

    fn merge(&mut self, counted: Vec<(Outcome, Count)>) {
        for (outcome, more) in counted {
            match self.0.get_mut(&outcome) {
                Some(count) => {
                    count.calls += more.calls;
                    count.stale += more.stale;
                }
                None => drop(self.0.insert(outcome, more)),
            }
        }
    }

    /// Returns the rows of `SHOW pgweir.observed`: the most frequent first.
    fn rows(self) -> Vec<Vec<String>> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by(|(of, one), (other, two)| {
            let named = |outcome: &Outcome| (outcome.fingerprint, outcome.reason);
            (two.calls.cmp(&one.calls)).then_with(|| named(of).cmp(&named(other)))
        });
        let row = |(outcome, count): (Outcome, Count)| {
            let fingerprint = outcome
                .fingerprint
                .map(|fingerprint| fingerprint.to_string());
            vec![
                fingerprint.unwrap_or_default(),
                count.shape.to_string(),
                outcome.decision.name().to_owned(),
                outcome.reason.name().to_owned(),
                count.calls.to_string(),
                count.stale.to_string(),
            ]
        };
        all.into_iter().map(row).collect()
    }
}

/// What `on` would have made of the session's transaction so far.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shadow {
    /// Held back.
    Held(Block),
    /// It reads on this replica, and must stay there if it is READ ONLY.
    OnReplica { node: NodeId, read_only: bool },
    /// It runs on the primary.
    OnPrimary,
}

impl Client {
    /// Counts what `on` would have decided about the batch at hand, which is about to be sent, where that is asked for.
    pub(crate) fn observe(&mut self, portion: Portion) {
        if !self.identity.observes() {
            return;
        }
        let is_whole = matches!(portion, Portion::Batch | Portion::Flushed);
        if !is_whole || self.session.is_in_mid_batch() || self.failing.is_some() {
            return;
        }
        let status = self.client_status();
        if status == TransactionStatus::Idle && self.session.is_settled() {
            self.shadow = None;
        }
        let Some(seen) = self.seen() else {
            return;
        };
        let plan = &seen.plan;
        if let Some(modes) = self.session.facts().begin
            && is_control(plan)
        {
            self.shadow = Some(Shadow::Held(Block::held(modes)));
            return;
        }
        if is_control(plan) || status == TransactionStatus::Failed {
            return;
        }
        let (decision, reason, node) = self.would_be(portion);
        let is_stale = node.is_some_and(|node| self.is_stale(node));
        let outcome = Outcome {
            database: Arc::clone(&self.identity.database),
            fingerprint: Some(seen.displayed().fingerprint),
            decision,
            reason,
        };
        let worker = self.worker();
        let mut observed = worker.observed.borrow_mut();
        observed.add(outcome, is_stale, || shown(&seen.displayed().text));
    }

    /// Returns where the batch would have gone and why, and the replica.
    fn would_be(&mut self, portion: Portion) -> (Decision, Reason, Option<NodeId>) {
        let pinned = self.held.as_ref().is_some_and(|held| !held.pins.is_empty());
        if pinned {
            return (Decision::Primary, Reason::Pinned, None);
        }
        let facts = self.session.facts();
        let block = match self.shadow {
            None => None,
            Some(Shadow::Held(block)) => Some(block),
            Some(Shadow::OnPrimary) => return (Decision::Primary, Reason::InTransaction, None),
            Some(Shadow::OnReplica { node, read_only }) => {
                let moves = !stays(facts, portion, read_only);
                if moves {
                    self.shadow = Some(Shadow::OnPrimary);
                    return (Decision::Primary, primary_reason(facts), None);
                }
                return (Decision::Replica, Reason::InTransaction, Some(node));
            }
        };
        let begins = block.or(facts.begin.map(Block::held));
        let read_only = begins.is_some_and(|block| self.is_read_only(block));
        let decided = match self.first_of_block(block, facts, portion) {
            _ if !self.identity.reads_text => return (Decision::Primary, Reason::Unparsed, None),
            FirstOfBlock::MayRead(facts) => self.decide(&facts, false),
            FirstOfBlock::OnPrimary => {
                self.shadow = Some(Shadow::OnPrimary);
                let reason = primary_reason(self.session.facts());
                return (Decision::Primary, reason, None);
            }
            FirstOfBlock::NoBlock if portion != Portion::Batch => {
                return (Decision::Primary, Reason::OpenBatch, None);
            }
            FirstOfBlock::NoBlock if self.default_meaning().is_serializable() => {
                return (Decision::Primary, Reason::Transaction, None);
            }
            FirstOfBlock::NoBlock => self.decide(&route_facts(facts), false),
        };
        let outcome = self.outcome_of(decided);
        if begins.is_some() {
            self.shadow = Some(match outcome.2 {
                Some(node) => Shadow::OnReplica { node, read_only },
                None => Shadow::OnPrimary,
            });
        }
        outcome
    }

    fn outcome_of(&self, decided: Result<Place, Act>) -> (Decision, Reason, Option<NodeId>) {
        match decided {
            Ok(place) if place.role == Role::Primary => (Decision::Primary, place.reason, None),
            Ok(place) => (Decision::Replica, place.reason, Some(place.node)),
            // It would wait a moment for a replica; whether that would help is not known.
            Err(Act::Stop(next)) if matches!(*next, Next::AwaitReplay(_)) => {
                (Decision::Primary, Reason::NotReplayed, None)
            }
            Err(_) => {
                let reason = route_facts(self.session.facts()).reason;
                (Decision::Refused, reason, None)
            }
        }
    }

    /// Returns whether a read on this replica might not have seen all that has been written.
    fn is_stale(&self, node: NodeId) -> bool {
        let topology = self.topology();
        let Some(node) = topology.nodes.iter().find(|known| known.id == node) else {
            return true;
        };
        let demand = Demand {
            level: Consistency::Session,
            token: self.token.get(),
            min_lsn: None,
            arrived_at: None,
        };
        node.lag_bytes != Some(0) || !demand.is_met_by(node)
    }

    /// Collects what all threads have counted for the session's database.
    pub(crate) async fn collect_observations(&mut self) -> Result<(), End> {
        let shared = Arc::clone(&self.worker().shared);
        let of = Arc::clone(&self.identity.database);
        let collected = async {
            let mut all = Observations::default();
            for worker in 0..shared.workers().len() {
                let (reply, counted) = oneshot::channel();
                let database = Arc::clone(&of);
                shared.send(worker, Mail::Observed { database, reply });
                if let Ok(Ok(counted)) = tokio::time::timeout(COLLECT_LIMIT, counted).await {
                    all.merge(counted);
                }
            }
            all
        };
        let outcome = self.unless_interrupted(collected).await;
        if let Some(all) = self.after_wait(outcome)? {
            self.observed = Some(all.rows());
        }
        Ok(())
    }

    fn is_read_only(&self, block: Block) -> bool {
        self.identity.pool_mode == PoolMode::Transaction && self.meaning(block.modes).is_read_only()
    }
}

/// Returns whether a text controls the transaction and does nothing else.
fn is_control(plan: &Plan) -> bool {
    let classified = &plan.classified;
    classified.statements.len() == 1 && classified.effects.transaction != TransactionControl::None
}

/// Returns whether a transaction would have stayed on its replica.
fn stays(facts: &Facts, portion: Portion, read_only: bool) -> bool {
    let needs_primary =
        facts.marks.has(Marks::NEEDS_PRIMARY) || facts.marks.has(Marks::LEAVES_OPEN);
    facts.pin.is_none() && (read_only || !needs_primary && portion == Portion::Batch)
}

/// Returns why a batch of a transaction is the primary's.
fn primary_reason(facts: &Facts) -> Reason {
    let read: RouteFacts<'_> = route_facts(facts);
    match read.is_read() {
        true => Reason::Transaction,
        false => read.reason,
    }
}

/// Returns the beginning of a shape, as it is shown.
fn shown(text: &str) -> Arc<str> {
    let end = text.floor_char_boundary(SHAPE_LIMIT);
    text.get(..end).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(number: u64) -> Outcome {
        Outcome {
            database: "app".into(),
            fingerprint: Some(Fingerprint(number)),
            decision: Decision::Replica,
            reason: Reason::Read,
        }
    }

    #[test]
    fn counts_as_many_outcomes_as_it_may_and_the_rest_together() {
        let mut observations = Observations::default();
        let limit = u64::try_from(OUTCOMES_LIMIT).unwrap();
        for number in 0..limit + 7 {
            observations.add(outcome(number), number >= limit, || "select".into());
        }
        observations.add(outcome(0), true, || panic!("it is known"));
        let rows = observations.rows();
        assert_eq!(rows.len(), OUTCOMES_LIMIT + 1);
        assert_eq!(rows[0], ["", OTHERS, "replica", "read", "7", "7"]);
        assert_eq!(rows[1][4..], ["2", "1"]);
        assert_eq!(rows[2][4..], ["1", "0"]);
    }

    #[test]
    fn adds_up_what_threads_have_counted_for_one_database() {
        let mut one = Observations::default();
        one.add(outcome(1), true, || "select".into());
        let elsewhere = Outcome {
            database: "other".into(),
            ..outcome(1)
        };
        one.add(elsewhere, false, || "select".into());
        let mut all = Observations::default();
        all.merge(one.of("app"));
        all.merge(one.of("app"));
        let expected = ["0000000000000001", "select", "replica", "read", "2", "2"];
        assert_eq!(all.rows(), [expected]);
    }

    #[test]
    fn a_shape_is_cut_at_a_character() {
        let long = "ä".repeat(SHAPE_LIMIT);
        assert_eq!(shown(&long).len(), SHAPE_LIMIT);
        let odd = format!("x{long}");
        assert_eq!(shown(&odd).len(), SHAPE_LIMIT - 1);
    }
}
