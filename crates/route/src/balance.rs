//! Which of the eligible replicas: exact weights while they are equally loaded, away from one that is overloaded; or in one
//! of the other ways that an operator may choose.
//!
//! ## Why
//! Power of two choices alone does not keep to the weights: of two idle servers it always takes the heavier. Weighted
//! random keeps to them only roughly, and smooth weighted round robin exactly, but in a fixed order: an application that
//! alternates a cheap and a dear statement would send all the dear ones to one server. So the choice is round robin by
//! *credit* (each pick, every eligible server earns its weight and the one that is taken pays the sum), with noise on the
//! credit that shuffles the order and that the credit evens out: after any number of picks a server is within a few of
//! its share.
//!
//! Over that stands load: when the choice has clearly more in flight for its weight than another, the least loaded one
//! takes its turn, and pays for it. A short stall is thus made up for later; the debt is bounded, so that a server that
//! is slow for long is not flooded when it recovers. Of two that are equally loaded the one that has answered faster is
//! the least loaded.
//!
//! `round_robin` is the same credit without noise and without a look at the load, `random` the weights alone, and `nearest`
//! is `least_loaded` among the replicas of the proxy's own zone. Those elsewhere take a request when none there is
//! eligible, or when each of them is overloaded beside the least loaded one elsewhere.
//!
//! ## Limits
//! Each worker thread has its own balancer and knows only its own requests in flight and its own latencies. No lock, no
//! atomic, no allocation per pick; the first pick of a larger topology allocates once.

use std::time::Duration;

use pgweir_model::{Balance, Node, Topology};
use smallvec::SmallVec;

/// Requests in flight per node and how long they take, of one worker thread.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    nodes: Vec<Load>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    in_flight: u32,
    /// Those that wait for a connection.
    waiting: u32,
    /// Smoothed, in 1/[`LATENCY_PARTS`] of a microsecond, so that what is shorter than a step is not lost.
    latency: Option<u64>,
}

/// One of how many parts of the smoothed latency the newest one makes up. Chosen: some twenty answers forget what was
/// before, so that a server that has recovered is soon known as fast, and one slow statement does not decide.
const LATENCY_PARTS: u64 = 8;

impl Loads {
    /// Returns no load on any node.
    pub fn new() -> Self {
        Loads::default()
    }

    /// Counts a request that was sent to the node at `index` of the topology.
    pub fn started(&mut self, index: usize) {
        if let Some(load) = self.load(index) {
            load.in_flight = load.in_flight.saturating_add(1);
        }
    }

    /// Counts a request that waits for a connection to the node at `index`.
    pub fn waits(&mut self, index: usize) {
        if let Some(load) = self.load(index) {
            load.waiting = load.waiting.saturating_add(1);
        }
    }

    /// Counts a request to the node at `index` as waiting no more.
    pub fn waited(&mut self, index: usize) {
        if let Some(load) = self.nodes.get_mut(index) {
            load.waiting = load.waiting.saturating_sub(1);
        }
    }

    fn load(&mut self, index: usize) -> Option<&mut Load> {
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Load::default());
        }
        self.nodes.get_mut(index)
    }

    /// Counts a request to the node at `index` as answered, or given up.
    pub fn finished(&mut self, index: usize) {
        if let Some(load) = self.nodes.get_mut(index) {
            load.in_flight = load.in_flight.saturating_sub(1);
        }
    }

    /// Takes into account how long the node at `index` has taken to answer.
    ///
    /// A coarse clock is good enough: what it rounds down once it rounds up another time, and the smoothing takes the mean.
    pub fn answered(&mut self, index: usize, after: Duration) {
        let newest = u64::try_from(after.as_micros()).unwrap_or(u64::MAX / LATENCY_PARTS);
        if let Some(load) = self.load(index) {
            load.latency = Some(match load.latency {
                None => newest.saturating_mul(LATENCY_PARTS),
                Some(latency) => (latency - latency / LATENCY_PARTS).saturating_add(newest),
            });
        }
    }

    /// Returns the smoothed latency of the node at `index`; `None` before its first answer.
    pub fn latency(&self, index: usize) -> Option<Duration> {
        let latency = self.nodes.get(index)?.latency?;
        Some(Duration::from_micros(latency / LATENCY_PARTS))
    }

    /// Returns how many requests to the node at `index` are unanswered.
    pub fn in_flight(&self, index: usize) -> u32 {
        self.nodes.get(index).map_or(0, |load| load.in_flight)
    }

    /// Returns how many requests were meant for the node at `index` and are not answered: those in flight, and those that wait
    /// for a connection.
    pub fn meant_for(&self, index: usize) -> u32 {
        (self.nodes.get(index)).map_or(0, |load| load.in_flight.saturating_add(load.waiting))
    }
}

/// What a server is picked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// One read: the order is shuffled.
    Read,
    /// A session that may stay there: few picks make the shares, so that each takes its turn exactly.
    Session,
}

/// The choice among replicas, for one worker thread and one cluster.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// Credit per node, in units of effective weight. Bounded by [`Balancer::DEBT_PICKS`] picks either way.
    credit: Vec<i64>,
    noise: Noise,
}

/// A candidate of one pick.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: usize,
    weight: u32,
    in_flight: u32,
    latency: Option<Duration>,
}

impl Balancer {
    /// How far credit is shuffled, in picks.
    ///
    /// Chosen: two idle servers of equal weight take one turn in eight twice, so that no pattern of the application can
    /// lock on to the order, and no server is ever more than a few picks from its share.
    const NOISE_PICKS: i64 = 2;

    /// How many picks a server can be owed, or owe.
    ///
    /// Chosen: more than a replica misses while the system looks elsewhere for some milliseconds, which then makes no
    /// difference to the shares; little enough that a server that was slow for long is not given everything afterwards.
    const DEBT_PICKS: i64 = 64;

    /// How many more requests in flight than another a server must have to lose its turn.
    ///
    /// Chosen: with fewer, the order of picks alone would look like load.
    const OVERLOAD_SLACK: u32 = 4;

    /// How many times more in flight for its weight than another a server must have to lose its turn.
    const OVERLOAD_FACTOR: u64 = 2;

    /// Returns a balancer whose order follows from `seed`; give each thread another one.
    pub fn new(seed: u64) -> Self {
        Balancer {
            credit: Vec::new(),
            noise: Noise::new(seed),
        }
    }

    /// Returns the index of the node that takes the next request, among those for which `eligible` holds and whose
    /// weight is above zero.
    ///
    /// When lag has taken the whole effective weight of every one of them, the configured weights decide.
    pub fn pick(
        &mut self,
        topology: &Topology,
        loads: &Loads,
        eligible: impl Fn(&Node) -> bool,
    ) -> Option<usize> {
        self.pick_for(Pick::Read, topology, loads, eligible)
    }

    /// Likewise, for more than one read: see [`Pick`].
    pub fn pick_for(
        &mut self,
        what: Pick,
        topology: &Topology,
        loads: &Loads,
        eligible: impl Fn(&Node) -> bool,
    ) -> Option<usize> {
        let nodes = &topology.nodes;
        while let Some(node) = nodes.get(self.credit.len()) {
            // Threads that begin together do not begin with the same server, unless the order is fixed.
            let head_start = match topology.selection.balance {
                Balance::RoundRobin => 0,
                Balance::LeastLoaded | Balance::Random | Balance::Nearest => {
                    self.noise.below(node.effective_weight.into())
                }
            };
            self.credit.push(head_start);
        }
        let weights = weights(nodes, eligible)?;
        match topology.selection.balance {
            Balance::LeastLoaded => self.least_loaded(what, &weights, loads),
            Balance::RoundRobin => self.round_robin(&weights),
            Balance::Random => self.random(&weights),
            Balance::Nearest => {
                let near = within(nodes, &weights, true);
                let elsewhere = within(nodes, &weights, false);
                match stays_near(&near, &elsewhere, loads) {
                    true => self.least_loaded(what, &near, loads),
                    false => self.least_loaded(what, &elsewhere, loads),
                }
            }
        }
    }

    fn least_loaded(&mut self, what: Pick, weights: &[u32], loads: &Loads) -> Option<usize> {
        let total = total(weights);
        let noise_picks = match what {
            Pick::Read => Balancer::NOISE_PICKS,
            Pick::Session => 0,
        };
        let mut turn: Option<(Candidate, i64)> = None;
        let mut idlest: Option<Candidate> = None;
        for candidate in candidates(weights, loads) {
            let noise = self.noise.below(total.saturating_mul(noise_picks));
            let claim = self.earn(&candidate, total) + noise;
            if turn.is_none_or(|(_, highest)| claim > highest) {
                turn = Some((candidate, claim));
            }
            idlest = Some(candidate.or_idler(idlest));
        }
        let ((turn, _), idlest) = (turn?, idlest?);
        let taken = if turn.is_overloaded_beside(&idlest) {
            idlest
        } else {
            turn
        };
        self.pay(taken.index, total);
        Some(taken.index)
    }

    /// Smooth weighted round robin: each turn is as far from its neighbours as the weights allow.
    fn round_robin(&mut self, weights: &[u32]) -> Option<usize> {
        let total = total(weights);
        let mut turn: Option<(usize, i64)> = None;
        for candidate in candidates(weights, &Loads::default()) {
            let credit = self.earn(&candidate, total);
            if turn.is_none_or(|(_, highest)| credit > highest) {
                turn = Some((candidate.index, credit));
            }
        }
        let (index, _) = turn?;
        self.pay(index, total);
        Some(index)
    }

    fn random(&mut self, weights: &[u32]) -> Option<usize> {
        let mut lot = self.noise.below(total(weights));
        candidates(weights, &Loads::default())
            .find(|candidate| {
                lot -= i64::from(candidate.weight);
                lot < 0
            })
            .map(|candidate| candidate.index)
    }

    /// Gives a candidate its part of a pick; returns its credit.
    fn earn(&mut self, candidate: &Candidate, total: i64) -> i64 {
        let Some(credit) = self.credit.get_mut(candidate.index) else {
            return 0;
        };
        let most = total.saturating_mul(Balancer::DEBT_PICKS);
        *credit = (*credit + i64::from(candidate.weight)).min(most);
        *credit
    }

    /// Lets the node that takes the request pay for it.
    fn pay(&mut self, index: usize, total: i64) {
        if let Some(credit) = self.credit.get_mut(index) {
            *credit = (*credit - total).max(-total.saturating_mul(Balancer::DEBT_PICKS));
        }
    }
}

/// The weight of each node in one pick; 0 for one that is not to be picked. Of usual clusters nothing is allocated.
type Weights = SmallVec<[u32; 8]>;

/// Returns the weights of the nodes that may be picked; `None` where there is none. When lag has taken the whole effective weight
/// of every one of them, they are the configured weights.
fn weights(nodes: &[Node], eligible: impl Fn(&Node) -> bool) -> Option<Weights> {
    let is_in = |node: &Node| node.is_in_choice() && eligible(node);
    let mut weights = Weights::new();
    let (mut is_any, mut highest) = (false, 0);
    for node in nodes {
        let is_in = is_in(node);
        let weight = if is_in { node.effective_weight } else { 0 };
        is_any |= is_in;
        highest = highest.max(weight);
        weights.push(weight);
    }
    if is_any && highest == 0 {
        for (weight, node) in weights
            .iter_mut()
            .zip(nodes)
            .filter(|(_, node)| is_in(node))
        {
            *weight = node.weight.saturating_mul(Node::WEIGHT_SCALE);
        }
    }
    is_any.then_some(weights)
}

/// Returns the weights of all together.
fn total(weights: &[u32]) -> i64 {
    weights.iter().map(|weight| i64::from(*weight)).sum()
}

/// Returns the nodes that have a weight.
fn candidates(weights: &[u32], loads: &Loads) -> impl Iterator<Item = Candidate> {
    let candidate = |(index, weight): (usize, &u32)| Candidate {
        index,
        weight: *weight,
        in_flight: loads.in_flight(index),
        latency: loads.latency(index),
    };
    let with_weight = |(_, weight): &(usize, &u32)| **weight > 0;
    weights
        .iter()
        .enumerate()
        .filter(with_weight)
        .map(candidate)
}

/// Returns the weights of the nodes in the own zone, or of those elsewhere.
fn within(nodes: &[Node], weights: &[u32], is_near: bool) -> Weights {
    let weight = |(node, weight): (&Node, &u32)| match node.is_near == is_near {
        true => *weight,
        false => 0,
    };
    nodes.iter().zip(weights).map(weight).collect()
}

/// Returns whether the replicas of the own zone take the next request: one of them can, and not each of them is overloaded
/// beside the least loaded one elsewhere.
fn stays_near(near: &[u32], elsewhere: &[u32], loads: &Loads) -> bool {
    let idlest = candidates(elsewhere, loads).fold(None, |idlest, candidate: Candidate| {
        Some(candidate.or_idler(idlest))
    });
    candidates(near, loads)
        .any(|near| idlest.is_none_or(|other| !near.is_overloaded_beside(&other)))
}

impl Candidate {
    /// Returns `other` if that is less loaded, or as much and not known to be slower; else this one.
    fn or_idler(self, other: Option<Candidate>) -> Candidate {
        let Some(other) = other else { return self };
        let (own, others) = (self.load_against(&other), other.load_against(&self));
        let is_idler = own < others || own == others && self.latency < other.latency;
        if is_idler { self } else { other }
    }

    /// Returns (in flight + 1) / weight, scaled so that it compares with `other`'s against this one.
    fn load_against(&self, other: &Candidate) -> u64 {
        (u64::from(self.in_flight) + 1).saturating_mul(u64::from(other.weight))
    }

    fn is_overloaded_beside(&self, other: &Candidate) -> bool {
        self.in_flight >= other.in_flight.saturating_add(Balancer::OVERLOAD_SLACK)
            && self.load_against(other)
                > other
                    .load_against(self)
                    .saturating_mul(Balancer::OVERLOAD_FACTOR)
    }
}

/// A xorshift generator: the order of turns needs no better one.
#[derive(Debug, Clone)]
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        // Seeds that differ in little shall not give sequences that do; the generator stands still at zero.
        let spread = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Noise(spread ^ (spread >> 32) | 1)
    }

    /// Returns a number from 0 to below `bound`; 0 when `bound` is not above 0.
    fn below(&mut self, bound: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bound = u64::try_from(bound).unwrap_or(0);
        // The high bits of a product are as even as the generator's, without a division.
        i64::try_from((u128::from(self.0) * u128::from(bound)) >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
