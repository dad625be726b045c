//! What a batch waits for before it can be sent: a primary, a position, a replica that shows enough.
//!
//! Each wait has a limit, ends when the client leaves or cancels, and goes back to the relay, which looks at the parked batch
//! again: what was decided before the wait is decided anew behind it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pgweir_admin::Phase;
use pgweir_cluster::Handle;
use pgweir_consistency::Demand;
use pgweir_model::{Breaker, Health, Node, Reason, Role, Topology};

use crate::checkout::End;
use crate::client_task::{Client, Input, Place, Waited};
use crate::fault::Fault;
use crate::local::position;

/// How long `SHOW pgweir.lsn` waits for a position behind the session's last write. Chosen: many times the usual interval of
/// the monitor, and short enough for somebody who waits for an answer.
const SAMPLE_WAIT: Duration = Duration::from_secs(2);

/// The wait between two tries to connect to a primary that is not there. Chosen: a failover is over within some of them, and
/// a crowd of clients that all try again does not keep a server that starts from starting.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How much a client may send while it waits.
const WAITING_INPUT_LIMIT: usize = 1024 * 1024;

/// Why a wait ended early.
pub(crate) enum Interrupted {
    Gone,
    Canceled,
    /// The node that was waited for is not any more what the batch was sent there for, or the database is held back.
    Moved,
    /// The session is to end.
    Ended,
}

/// What is waited for, and so what else ends the wait.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Something that no server has a part in.
    Any,
    /// Something without which no server can be chosen: the database must not be held back.
    Chosen,
    /// A connection: likewise, and the node must be what it was chosen for.
    Connected(Place),
}

/// Counts a batch among those that wait for a primary.
struct InLine<'a>(&'a AtomicUsize);

impl<'a> InLine<'a> {
    /// Joins the line; `None` where as many wait already as may.
    fn join(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = InLine(waiting);
        (before < limit).then_some(place)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    fn cluster(&self) -> Option<Handle> {
        let clusters = &self.worker().shared.clusters;
        clusters.get(usize::from(self.identity.cluster)).cloned()
    }

    /// Goes on with the parked batch, or fails it.
    pub(crate) fn after_wait<T>(
        &mut self,
        outcome: Result<T, Interrupted>,
    ) -> Result<Option<T>, End> {
        self.input = Input::Pending;
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(Interrupted::Moved) => Ok(None),
            Err(Interrupted::Gone) => Err(None),
            Err(Interrupted::Ended) => Err(Some(Box::new(Fault::terminated()))),
            Err(Interrupted::Canceled) => {
                self.fail_batch(Fault::canceled_while_waiting())?;
                Ok(None)
            }
        }
    }

    /// Returns when the parked batch is given up that waits for a primary: `failover_wait` after it began to.
    fn primary_deadline(&mut self) -> Instant {
        let config = self.worker().shared.config.load();
        let cluster = config.clusters.get(usize::from(self.identity.cluster));
        let limit = cluster.map_or(Duration::ZERO, |cluster| cluster.failover_wait);
        *self
            .primary_until
            .get_or_insert_with(|| Instant::now() + limit)
    }

    /// Waits until the cluster has a primary, then lets the parked batch be routed again.
    pub(crate) async fn await_primary(&mut self) -> Result<(), End> {
        let deadline = self.primary_deadline();
        let Some(cluster) = self.cluster() else {
            return self.fail_batch(Fault::no_primary());
        };
        let shared = std::sync::Arc::clone(&self.worker().shared);
        let limit = shared.config.load().server.max_queue;
        let Some(_place) = InLine::join(&shared.awaiting_primary, limit) else {
            return self.fail_batch(Fault::queue_full(limit));
        };
        let outcome = self.unless_held(cluster.wait_for_primary(deadline)).await;
        match self.after_wait(outcome)? {
            Some(Err(_)) => self.fail_batch(Fault::no_primary()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Waits a moment until the primary, or another one, may be reached, then lets the parked batch be routed again. At the
    /// end of its patience the batch fails with `fault`.
    pub(crate) async fn await_reachable(&mut self, fault: Fault) -> Result<(), End> {
        if Instant::now() >= self.primary_deadline() {
            return self.fail_batch(fault);
        }
        let shared = std::sync::Arc::clone(&self.worker().shared);
        let limit = shared.config.load().server.max_queue;
        let Some(_place) = InLine::join(&shared.awaiting_primary, limit) else {
            return self.fail_batch(Fault::queue_full(limit));
        };
        let outcome = self.unless_held(tokio::time::sleep(RECONNECT_PAUSE)).await;
        self.after_wait(outcome).map(|_| ())
    }

    /// Waits until the monitor has asked the primary for its position since the session was last served; then the parked
    /// batch is looked at again.
    pub(crate) async fn await_sample(&mut self) -> Result<(), End> {
        let Some(cluster) = self.cluster() else {
            return self.fail_batch(Fault::no_position());
        };
        let _hurry = cluster.hurry();
        let (newest_at, floor) = self.seen_until();
        let known = cluster.wait_until(Instant::now() + SAMPLE_WAIT, |topology| {
            position(topology, newest_at, floor).is_some()
        });
        let outcome = self.unless_interrupted(known).await;
        match self.after_wait(outcome)? {
            Some(None) => self.fail_batch(Fault::no_position()),
            Some(Some(_)) | None => Ok(()),
        }
    }

    /// Waits, at most `causal_wait`, until a replica shows what the parked read must see; then it is routed again, wherever
    /// that leads.
    pub(crate) async fn await_replay(&mut self, demand: Demand) -> Result<(), End> {
        let mut is_met = false;
        if let Some(cluster) = self.cluster() {
            let _hurry = cluster.hurry();
            let deadline = Instant::now() + self.identity.causal_wait;
            let shown = cluster.wait_until(deadline, |topology| {
                let mut demand = demand;
                demand.token.settle(topology);
                topology.nodes.iter().any(|node| shows(node, &demand))
            });
            let outcome = self.unless_held(shown).await;
            let Some(found) = self.after_wait(outcome)? else {
                return Ok(());
            };
            is_met = found.is_some();
        }
        self.waited.set(Some(Waited { demand, is_met }));
        self.input = Input::Pending;
        Ok(())
    }

    /// Waits for another look at the servers, then lets the parked batch be routed again: a read that no replica may take now,
    /// where the primary takes none.
    pub(crate) async fn await_replica(
        &mut self,
        demand: Demand,
        reason: Reason,
    ) -> Result<(), End> {
        let limit = self.worker().shared.config.load().server.query_wait_timeout;
        let is_first = !self.replay.is_waiting_for_replica();
        let deadline = self.replay.wait_for_replica(limit);
        let Some(cluster) = self.cluster() else {
            return self.fail_batch(Fault::no_replica(limit, reason));
        };
        let seen = self.topology().version;
        let is_worth_it = |topology: &Topology| {
            let mut demand = demand;
            demand.token.settle(topology);
            let is_shown = || topology.nodes.iter().any(|node| shows(node, &demand));
            topology.version > seen && (reason != Reason::NotReplayed || is_shown())
        };
        let soon = Instant::now() + self.identity.causal_wait;
        let looked = async {
            if is_first && reason == Reason::NotReplayed {
                let _hurry = cluster.hurry();
                let found = cluster.wait_until(soon.min(deadline), is_worth_it).await;
                if found.is_some() {
                    return found;
                }
            } else if !is_first {
                // Whoever has waited once does not look at every snapshot.
                tokio::time::sleep(RECONNECT_PAUSE).await;
                if Instant::now() >= deadline {
                    return None;
                }
            }
            cluster.wait_until(deadline, is_worth_it).await
        };
        let outcome = self.unless_held(looked).await;
        match self.after_wait(outcome)? {
            Some(None) => self.fail_batch(Fault::no_replica(limit, reason)),
            Some(Some(_)) => {
                // Where it is bound to is decided anew.
                let is_met = false;
                self.waited.set(Some(Waited { demand, is_met }));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Runs `work` while listening to the client, who may leave or cancel meanwhile.
    pub(crate) async fn unless_interrupted<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        self.interruptible(Until::Any, work).await
    }

    /// Likewise, as long as the session's database is not held back.
    async fn unless_held<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        self.interruptible(Until::Chosen, work).await
    }

    /// Likewise, as long as a node is what a batch was sent there for.
    pub(crate) async fn unless_moved<T>(
        &mut self,
        place: Place,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        self.interruptible(Until::Connected(place), work).await
    }

    async fn interruptible<T>(
        &mut self,
        until: Until,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let place = match until {
            Until::Any | Until::Chosen => None,
            Until::Connected(place) => Some(place),
        };
        let minds_holds = !matches!(until, Until::Any);
        let mut work = pin!(work);
        let mut roles_seen = self.worker().roles();
        poll_fn(|cx| {
            self.slot.register(cx);
            if self.is_ended() {
                return Poll::Ready(Err(Interrupted::Ended));
            }
            if self.slot.take_requests().is_some() {
                return Poll::Ready(Err(Interrupted::Canceled));
            }
            // Nobody serves it.
            drop(self.slot.take_signals());
            if self.poll_client_gone(cx).is_ready() {
                return Poll::Ready(Err(Interrupted::Gone));
            }
            // What has been granted goes to others, or is closed: nothing may run from now on.
            if minds_holds && self.is_held_back() {
                return Poll::Ready(Err(Interrupted::Moved));
            }
            // First what there is to have: it would be lost.
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            let roles = self.worker().roles();
            if std::mem::replace(&mut roles_seen, roles) != roles
                && place.is_some_and(|place| !self.is_as_decided(place))
            {
                return Poll::Ready(Err(Interrupted::Moved));
            }
            Poll::Pending
        })
        .await
    }

    /// Runs `work` as long as nobody ends the session; what the client does meanwhile is looked at later.
    pub(crate) async fn unless_ended<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.slot.register(cx);
            match self.is_ended() {
                true => Poll::Ready(Err(Interrupted::Ended)),
                false => work.as_mut().poll(cx).map(Ok),
            }
        })
        .await
    }

    /// Returns whether the session is to end now, whatever it does.
    pub(crate) fn is_ended(&self) -> bool {
        self.slot.is_killed() || self.worker().phase() == Phase::Stopping
    }

    /// Returns whether no server connection may be taken for the session now.
    pub(crate) fn is_held_back(&self) -> bool {
        let identity = &self.identity;
        self.worker()
            .is_held_back(identity.cluster, &identity.server_database)
    }

    /// Waits until the session's database is not held back any more, then lets the batch at hand be looked at again: as if it
    /// came then. It waits as for a connection, at most `query_wait_timeout`, as PgBouncer's clients do.
    pub(crate) async fn await_resume(&mut self) -> Result<(), End> {
        let worker = Rc::clone(self.worker());
        let limit = worker.shared.config.load().server.query_wait_timeout;
        let (cluster, database) = (
            self.identity.cluster,
            std::sync::Arc::clone(&self.identity.server_database),
        );
        // Its task is woken whenever one of these changes.
        let resumed = poll_fn(|_| {
            let waits = worker.is_held_back(cluster, &database) && !worker.phase().is_ending();
            match waits {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        });
        let resumed = async { tokio::time::timeout(limit, resumed).await };
        let outcome = self.unless_interrupted(resumed).await;
        match self.after_wait(outcome)? {
            None => return Ok(()),
            Some(Err(_)) => return self.fail_batch(Fault::held_back(limit)),
            Some(Ok(())) if worker.phase().is_ending() => {
                return Err(Some(Box::new(Fault::terminated())));
            }
            Some(Ok(())) => {}
        }
        // What it waited for before begins anew.
        self.primary_until = None;
        self.waited.set(None);
        self.replay.forget_wait();
        Ok(())
    }

    /// Keeps what the client sends, up to a limit; ready when it is gone.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let worker = Rc::clone(self.worker());
        let mut buffer = worker.buffer.borrow_mut();
        while self.inbuf.len() < WAITING_INPUT_LIMIT {
            match self.stream.poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => {
                    self.slot.shown.add_received(count);
                    let sent = buffer.get(..count).unwrap_or_default();
                    self.inbuf.extend_from_slice(sent);
                    if let Some(tap) = &mut self.tap {
                        tap.read_from_client(sent);
                    }
                }
            }
        }
        Poll::Pending
    }
}

/// Returns whether a replica takes reads, as far as a wait needs to know, and shows what one must see.
fn shows(node: &Node, demand: &Demand) -> bool {
    node.role == Some(Role::Replica)
        && node.health == Health::Up
        && node.breaker == Breaker::Closed
        && node.is_in_choice()
        && demand.is_met_by(node)
}
