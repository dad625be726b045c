//! Where a batch goes, and the server connection that it gets there.

use pgweir_config::PoolMode;
use pgweir_model::{NodeId, Reason, Role};
use pgweir_pool::{Checkout, CheckoutError};
use pgweir_route::{
    Facts as RouteFacts, Held as HeldView, RouteSetting, SessionView, Target, View, decide,
};
use pgweir_session::client::{Facts, Marks, Portion};
use pgweir_sql::PinSet;
use pgweir_sql::plan::Plan;

use crate::block::FirstOfBlock;
use crate::client_task::{Client, Held, Next, Place, Stage, Traces, place_for};
use crate::dispatch::Act;
use crate::fault::Fault;
use crate::retry::Due;

impl Client {
    /// Gets the server connection that the batch at hand needs.
    pub(crate) fn acquire(&mut self, portion: Portion) -> Result<(), Act> {
        let facts = self.session.facts();
        if self.identity.pool_mode == PoolMode::Statement
            && facts.marks.has(Marks::OPENS_TRANSACTION)
        {
            return Err(Act::Fail(Fault::no_transactions()));
        }
        let is_replay = self.replay.due == Some(Due::Primary);
        let place = match self.first_of_block(facts, portion) {
            // A text that cannot be read may be anything, whatever the session asks for itself.
            _ if !self.identity.reads_text => self.decide_primary(Reason::Unparsed)?,
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
        self.replay.due = None;
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
        let session = SessionView {
            held: HeldView::Nothing,
            route: if is_replay {
                &RouteSetting::Primary
            } else {
                &self.choices.route
            },
            wrote_at: self.wrote_at,
            asks: self.choices.asks,
            consistency: self.identity.consistency,
            splitting: self.identity.splitting,
            session_pooling: self.identity.pool_mode == PoolMode::Session,
        };
        let view = View {
            topology,
            loads: &cluster.loads,
            now: worker.coarse_now(),
        };
        match decide(facts, &session, &view, &mut cluster.balancer) {
            Ok(route) => match route.target {
                Target::Node(index) => topology
                    .nodes
                    .get(index)
                    .map(|node| Place {
                        node: node.id,
                        role: if topology.primary == Some(index) {
                            Role::Primary
                        } else {
                            Role::Replica
                        },
                        reason: if is_replay {
                            Reason::Rerouted
                        } else {
                            route.reason
                        },
                    })
                    .ok_or(Act::Fail(Fault::no_primary())),
                Target::Same | Target::Local => Err(Act::Fail(Fault::no_primary())),
            },
            Err(pgweir_route::RouteError::NoPrimary) => {
                Err(Act::Stop(Box::new(Next::AwaitPrimary)))
            }
            Err(error) => Err(Act::Fail(Fault::from_route(&error))),
        }
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
            .pool(&self.identity.pool_key(node), self.identity.pool_size);
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
        self.count_load(place.node, true);
        self.last_route = Some((place.role, place.reason));
        self.held = Some(Held {
            lease,
            node: place.node,
            role: place.role,
            traces: Traces::default(),
            pins: PinSet::default(),
            reason: place.reason,
            gate: None,
            stage: Stage::Fresh,
        });
    }
}

/// The facts of a batch as the router wants them.
fn route_facts(facts: &Facts) -> RouteFacts<'_> {
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
