//! Where a batch goes, and the server connection that it gets there.

use std::time::{Duration, Instant};

use pgweir_config::PoolMode;
use pgweir_model::{Consistency, NodeId, PrimaryReads, Reason, Role, Topology};
use pgweir_pool::{Checkout, CheckoutError};
use pgweir_route::{
    Facts as RouteFacts, Held as HeldView, Loads, Route, RouteSetting, SessionView, Target, View,
    asks, decide, demand, may_catch_up,
};
use pgweir_session::client::{Facts, Marks, Portion};
use pgweir_sql::PinSet;
use pgweir_sql::plan::Plan;

use crate::block::FirstOfBlock;
use crate::client_task::{Client, Held, Next, Place, Stage, Traces, Waited, place_for};
use crate::dispatch::Act;
use crate::fault::Fault;
use crate::limits::StatementLimit;
use crate::retry::Due;

/// How long a session that reads without a pause stays with one replica before it waits for the others, which takes some
/// milliseconds. Chosen: a thousandth of its time at most, and soon enough to take part when a replica has come back.
const BOUND_LIMIT: Duration = Duration::from_secs(3);

impl Client {
    /// Gets the server connection that the batch at hand needs.
    pub(crate) fn acquire(&mut self, portion: Portion) -> Result<(), Act> {
        if self.is_held_back() {
            return Err(Act::Stop(Box::new(Next::AwaitResume)));
        }
        let facts = self.session.facts();
        if self.identity.pool_mode == PoolMode::Statement
            && facts.marks.has(Marks::OPENS_TRANSACTION)
        {
            return Err(Act::Fail(Fault::no_transactions()));
        }
        let is_replay = self.replay.due == Some(Due::Primary);
        let signalled = self.signal_place();
        let place = match self.first_of_block(self.block, facts, portion) {
            _ if let Some(place) = signalled => place,
            _ if self.identity.observes() => self.decide_primary(Reason::Observed)?,
            // A text that cannot be read may be anything, whatever the session asks for itself.
            _ if !self.identity.reads_text => self.decide_primary(Reason::Unparsed)?,
            // Each statement to come sees what was committed before it, which no replica promises.
            FirstOfBlock::MayRead(facts) if self.block_must_be_current(&facts) => {
                self.decide_primary(Reason::Transaction)?
            }
            FirstOfBlock::MayRead(facts) => self.decide(&facts, is_replay)?,
            FirstOfBlock::OnPrimary => {
                let reason = match route_facts(facts) {
                    read if read.is_read() => Reason::Transaction,
                    other => other.reason,
                };
                self.decide(&RouteFacts::new(reason), true)
                    .map(|place| Place { reason, ..place })?
            }
            // An open batch may yet write.
            FirstOfBlock::NoBlock if portion != Portion::Batch => {
                self.decide_primary(Reason::OpenBatch)?
            }
            // A standby does not have SERIALIZABLE.
            FirstOfBlock::NoBlock if self.default_meaning().is_serializable() => {
                self.decide_primary(Reason::Transaction)?
            }
            FirstOfBlock::NoBlock => self.decide(&route_facts(facts), is_replay)?,
        };
        match self.try_checkout(place) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Act::Stop(Box::new(Next::Checkout(place)))),
            Err(fault) => Err(Act::Fail(fault)),
        }
    }

    /// Returns the primary, whatever the session asks for.
    fn decide_primary(&self, reason: Reason) -> Result<Place, Act> {
        let place = self.decide(&RouteFacts::new(reason), true)?;
        Ok(Place { reason, ..place })
    }

    /// Decides where a batch goes.
    pub(crate) fn decide(&self, facts: &RouteFacts<'_>, is_replay: bool) -> Result<Place, Act> {
        let worker = self.worker();
        let Some(cluster) = worker.cluster(self.identity.cluster) else {
            return Err(Act::Fail(Fault::no_primary()));
        };
        let mut cluster = cluster.borrow_mut();
        let cluster = &mut *cluster;
        let topology = cluster.topology.load();
        let narrowed = self.replay.narrowed(topology, self.identity.read_retries);
        let topology = narrowed.as_ref().unwrap_or(topology);
        let rules = worker.rules();
        let plans = self.session.facts().plans.iter();
        let facts = match is_replay {
            // Whatever it asks for: a replica has just refused it.
            true => &RouteFacts {
                route: None,
                ..*facts
            },
            false => &RouteFacts {
                rule: rules.ruling(plans, &self.applicable),
                ..*facts
            },
        };
        let mut session = self.view(HeldView::Nothing, topology);
        if is_replay {
            session.route = &RouteSetting::Primary;
        }
        let waited = self.waited.take();
        let level = asks(facts, &session).consistency.unwrap_or_default();
        session.arrived_at = match waited {
            Some(waited) => waited.demand.arrived_at,
            // Only this level costs a look at the clock.
            None => (level == Consistency::Strong).then(Instant::now),
        };
        let may_be_bound = facts.is_read() && level == Consistency::Session;
        let is_bound = may_be_bound && self.look_at_binding(&mut session, topology, waited);
        let view = View {
            topology,
            loads: &cluster.loads,
            now: worker.coarse_now(),
        };
        let within = self.identity.causal_wait;
        match decide(facts, &session, &view, &mut cluster.balancer) {
            Ok(route) if is_bound && route.reason == facts.reason => Err(Act::Stop(Box::new(
                Next::AwaitReplay(demand(facts, &session).unbound()),
            ))),
            Ok(route)
                if route.reason == Reason::NotReplayed
                    && waited.is_none()
                    && !within.is_zero()
                    && may_catch_up(facts, &session, &view, within) =>
            {
                Err(Act::Stop(Box::new(Next::AwaitReplay(demand(
                    facts, &session,
                )))))
            }
            Ok(route) => {
                place_of(route, topology, is_replay).ok_or_else(|| Act::Fail(Fault::no_primary()))
            }
            Err(pgweir_route::RouteError::NoPrimary) => {
                Err(Act::Stop(Box::new(Next::AwaitPrimary)))
            }
            Err(pgweir_route::RouteError::NoReplica { reason }) => Err(Act::Stop(Box::new(
                Next::AwaitReplica(demand(facts, &session), reason),
            ))),
            Err(error) => Err(Act::Fail(Fault::from_route(&error))),
        }
    }

    /// Returns the session as the router is to see it beside this topology.
    pub(crate) fn view(&self, held: HeldView, topology: &Topology) -> SessionView<'_> {
        let mut token = self.token.get();
        token.settle(topology);
        self.token.set(token);
        self.unsettled_view(held)
    }

    /// Likewise, where the servers do not matter.
    fn unsettled_view(&self, held: HeldView) -> SessionView<'_> {
        SessionView {
            held,
            route: &self.choices.route,
            token: self.token.get(),
            min_lsn: self.choices.min_lsn,
            arrived_at: None,
            asks: self.choices.asks,
            consistency: self.identity.consistency,
            splitting: self.identity.decides(),
            session_pooling: self.identity.pool_mode == PoolMode::Session,
        }
    }

    /// Has the monitor find out where a replica stands that the session is bound to, or frees the session from it where that
    /// was waited for. Returns whether it has been bound for so long that it is worth a wait.
    ///
    /// A session that reads without a pause has always just read: what the monitor finds is older. Without this it would stay
    /// with its server, whoever else is idle, or has come back.
    fn look_at_binding(
        &self,
        session: &mut SessionView<'_>,
        topology: &Topology,
        waited: Option<Waited>,
    ) -> bool {
        let worker = self.worker();
        if waited.is_some_and(|waited| waited.is_met) {
            session.token.unbind();
            self.token.set(session.token);
        }
        let shares = topology.selection.primary_reads == PrimaryReads::Share;
        let is_bound = session.token.is_visiting() || shares && session.token.is_on_primary();
        if !is_bound || waited.is_some() {
            self.chose_at.set(worker.coarse_now());
            return false;
        }
        let clusters = &worker.shared.clusters;
        if let Some(handle) = clusters.get(usize::from(self.identity.cluster)) {
            handle.settle();
        }
        let bound_for = worker
            .coarse_now()
            .saturating_duration_since(self.chose_at.get());
        bound_for >= BOUND_LIMIT && !self.identity.causal_wait.is_zero()
    }

    /// Returns whether what a batch reads must show all that was committed before it came.
    pub(crate) fn asks_strong(&self, facts: &RouteFacts<'_>) -> bool {
        let rules = self.worker().rules();
        let facts = RouteFacts {
            rule: rules.ruling(self.session.facts().plans.iter(), &self.applicable),
            ..*facts
        };
        let session = self.unsettled_view(HeldView::Nothing);
        asks(&facts, &session).consistency == Some(Consistency::Strong)
    }

    /// Takes an idle connection; returns false where there is none at once.
    pub(crate) fn try_checkout(&mut self, place: Place) -> Result<bool, Fault> {
        let now = self.worker().coarse_now();
        match self.pool(place.node).try_checkout(now) {
            Ok(Checkout::Ready(lease)) => {
                self.hold(place, lease);
                Ok(true)
            }
            // Given up and asked for again by the task that can wait: its place in the queue is the same.
            Ok(Checkout::Open(_) | Checkout::Wait(_)) => Ok(false),
            Err(CheckoutError::QueueFull { limit }) => Err(Fault::queue_full(limit)),
            Err(CheckoutError::Draining) => Err(Fault::shutting_down()),
        }
    }

    /// Returns this thread's part of the pool for a node.
    pub(crate) fn pool(
        &mut self,
        node: NodeId,
    ) -> pgweir_pool::LocalPool<pgweir_backend::ServerConnection> {
        let known = self
            .pools
            .get(usize::from(node.node))
            .and_then(Option::as_ref);
        if let Some(pool) = known {
            return pool.clone();
        }
        let pool = self
            .worker()
            .pool(&self.identity.pool_key(node), self.identity.pool_sizes);
        if let Some(place) = place_for(&mut self.pools, usize::from(node.node)) {
            *place = Some(pool.clone());
        }
        pool
    }

    /// Takes a server connection as the session's own.
    pub(crate) fn hold(
        &mut self,
        place: Place,
        lease: pgweir_pool::Lease<pgweir_backend::ServerConnection>,
    ) {
        self.count_load(place.node, Loads::started);
        self.primary_until = None;
        // Only now: until it has a connection it may have to be decided again.
        self.replay.due = None;
        self.last_route = Some((place.role, place.reason));
        self.account.database.note_assignment();
        let mut held = Held {
            lease,
            node: place.node,
            role: place.role,
            traces: Traces::default(),
            pins: PinSet::default(),
            reason: place.reason,
            gate: None,
            stage: Stage::Fresh,
            since: self.worker().coarse_now(),
            sent_at: None,
            limit: StatementLimit::None,
        };
        self.trace_server(&mut held);
        self.held = Some(held);
    }
}

/// Returns the place of a decision; a session without a server connection gets a node.
fn place_of(route: Route, topology: &Topology, is_replay: bool) -> Option<Place> {
    let Target::Node(index) = route.target else {
        return None;
    };
    let role = match topology.primary == Some(index) {
        true => Role::Primary,
        false => Role::Replica,
    };
    let reason = match is_replay {
        true => Reason::Rerouted,
        false => route.reason,
    };
    topology.nodes.get(index).map(|node| Place {
        node: node.id,
        role,
        reason,
    })
}

/// The facts of a batch as the router wants them.
pub(crate) fn route_facts(facts: &Facts) -> RouteFacts<'_> {
    if facts.marks.has(Marks::FUNCTION_CALL) {
        return RouteFacts::new(Reason::FunctionCall);
    }
    let Some(plan) = &facts.deciding else {
        // A statement that does not exist, or one too large to be read.
        return RouteFacts::new(if facts.marks.has(Marks::UNREAD) {
            Reason::Oversize
        } else {
            Reason::Unparsed
        });
    };
    let mut route = route_facts_of(plan);
    if let Some(verdict) = facts.verdict {
        route.reason = verdict.reason;
    }
    // The hint may stand in another statement of the batch.
    if let Some(hinted) = &facts.hinted {
        route = route.hinted(hinted.classified.hint.as_ref());
    }
    let is_more = facts.marks.has(Marks::UNREAD) || facts.marks.has(Marks::UNKNOWN_STATEMENT);
    if is_more && route.is_read() {
        route.reason = Reason::Unparsed;
    }
    route
}

/// The facts of one text.
pub(crate) fn route_facts_of(plan: &Plan) -> RouteFacts<'_> {
    RouteFacts::of(&plan.classified, plan.is_learned_primary())
}
