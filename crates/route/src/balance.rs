//! Which of the eligible replicas: exact weights while they are equally loaded, away from one that is overloaded.
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
//! is slow for long is not flooded when it recovers.
//!
//! ## Limits
//! Each worker thread has its own balancer and knows only its own requests in flight. No lock, no atomic, no allocation
//! per pick; the first pick of a larger topology allocates once.

use pgweir_model::{Node, Topology};

/// Requests in flight per node, of one worker thread.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    in_flight: Vec<u32>,
}

impl Loads {
    /// Returns no load on any node.
    pub fn new() -> Self {
        Loads::default()
    }

    /// Counts a request that was sent to the node at `index` of the topology.
    pub fn started(&mut self, index: usize) {
        if index >= self.in_flight.len() {
            self.in_flight.resize(index + 1, 0);
        }
        if let Some(count) = self.in_flight.get_mut(index) {
            *count = count.saturating_add(1);
        }
    }

    /// Counts a request to the node at `index` as answered, or given up.
    pub fn finished(&mut self, index: usize) {
        if let Some(count) = self.in_flight.get_mut(index) {
            *count = count.saturating_sub(1);
        }
    }

    /// Returns how many requests to the node at `index` are unanswered.
    pub fn in_flight(&self, index: usize) -> u32 {
        self.in_flight.get(index).copied().unwrap_or(0)
    }
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
    /// Credit with noise.
    claim: i64,
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
        let nodes = &topology.nodes;
        if self.credit.len() < nodes.len() {
            self.credit.resize(nodes.len(), 0);
        }
        let in_choice = |node: &Node| node.weight > 0 && eligible(node);
        let spent = !nodes
            .iter()
            .any(|node| node.effective_weight > 0 && in_choice(node));
        let weight = |node: &Node| match (in_choice(node), spent) {
            (false, _) => 0,
            (true, false) => node.effective_weight,
            (true, true) => node.weight.saturating_mul(Node::WEIGHT_SCALE),
        };
        let total: i64 = nodes.iter().map(|node| i64::from(weight(node))).sum();
        let mut turn: Option<Candidate> = None;
        let mut idlest: Option<Candidate> = None;
        for (index, (node, credit)) in nodes.iter().zip(&mut self.credit).enumerate() {
            let weight = weight(node);
            if weight == 0 {
                continue;
            }
            *credit = (*credit + i64::from(weight)).min(total.saturating_mul(Balancer::DEBT_PICKS));
            let claim = *credit
                + self
                    .noise
                    .below(total.saturating_mul(Balancer::NOISE_PICKS));
            let candidate = Candidate {
                index,
                weight,
                in_flight: loads.in_flight(index),
                claim,
            };
            if turn.is_none_or(|turn| candidate.claim > turn.claim) {
                turn = Some(candidate);
            }
            if idlest.is_none_or(|idlest| {
                candidate.load_against(&idlest) < idlest.load_against(&candidate)
            }) {
                idlest = Some(candidate);
            }
        }
        let (turn, idlest) = (turn?, idlest?);
        let taken = if turn.is_overloaded_beside(&idlest) {
            idlest
        } else {
            turn
        };
        if let Some(credit) = self.credit.get_mut(taken.index) {
            *credit = (*credit - total).max(-total.saturating_mul(Balancer::DEBT_PICKS));
        }
        Some(taken.index)
    }
}

impl Candidate {
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
