//! Shares over many draws, idle, loaded, and with simulated latencies.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::testing::cluster;
use pgweir_model::Role;

const DRAWS: usize = 10_000;

fn is_replica(node: &Node) -> bool {
    node.role == Some(Role::Replica)
}

/// Returns the share of each replica, in percent of the draws.
fn shares(counts: &[usize]) -> Vec<f64> {
    let total: usize = counts.iter().sum();
    counts
        .iter()
        .skip(1)
        .map(|count| *count as f64 * 100.0 / total as f64)
        .collect()
}

fn assert_shares(counts: &[usize], weights: &[u32]) {
    let total: u32 = weights.iter().sum();
    for (share, weight) in shares(counts).iter().zip(weights) {
        let expected = f64::from(*weight) * 100.0 / f64::from(total);
        assert!(
            (share - expected).abs() < 2.0,
            "{share}% where {expected}% is due, of {weights:?}: {counts:?}"
        );
    }
}

/// Closed loop: `clients` each have one request in flight, served in `latency(replica)` ticks. Returns the counts.
fn simulate(
    weights: &[u32],
    clients: usize,
    latency: impl Fn(usize, usize) -> usize,
) -> Vec<usize> {
    let topology = cluster(weights, Instant::now());
    let (mut balancer, mut loads) = (Balancer::new(7), Loads::new());
    let mut counts = vec![0; topology.nodes.len()];
    let mut ends: Vec<(usize, usize)> = vec![(0, usize::MAX); clients];
    let mut tick = 0;
    while counts.iter().sum::<usize>() < DRAWS {
        for (end, node) in &mut ends {
            if *end > tick {
                continue;
            }
            if *node != usize::MAX {
                loads.finished(*node);
            }
            *node = balancer.pick(&topology, &loads, is_replica).unwrap();
            loads.started(*node);
            counts[*node] += 1;
            *end = tick + latency(*node, tick);
        }
        tick += 1;
    }
    counts
}

const WEIGHTS: &[&[u32]] = &[
    &[1],
    &[1, 1],
    &[3, 1],
    &[75, 25],
    &[1, 2, 3],
    &[1, 99],
    &[100, 100, 100, 100],
    &[5, 0, 5],
    &[7, 1, 1, 1, 1],
];

#[test]
fn requests_that_complete_at_once_are_split_by_weight() {
    for weights in WEIGHTS {
        for seed in 0..8 {
            let topology = cluster(weights, Instant::now());
            let (mut balancer, loads) = (Balancer::new(seed), Loads::new());
            let mut counts = vec![0; topology.nodes.len()];
            for _ in 0..DRAWS {
                counts[balancer.pick(&topology, &loads, is_replica).unwrap()] += 1;
            }
            assert_shares(&counts, weights);
        }
    }
}

#[test]
fn requests_that_stay_in_flight_are_split_by_weight() {
    for weights in WEIGHTS {
        let topology = cluster(weights, Instant::now());
        let (mut balancer, mut loads) = (Balancer::new(3), Loads::new());
        let mut counts = vec![0; topology.nodes.len()];
        for _ in 0..DRAWS {
            let index = balancer.pick(&topology, &loads, is_replica).unwrap();
            loads.started(index);
            counts[index] += 1;
        }
        assert_shares(&counts, weights);
    }
}

#[test]
fn every_prefix_of_the_draws_is_near_its_share() {
    let topology = cluster(&[3, 1], Instant::now());
    let (mut balancer, loads) = (Balancer::new(1), Loads::new());
    let mut heavy: f64 = 0.0;
    for drawn in 1..=1000_u32 {
        heavy += if balancer.pick(&topology, &loads, is_replica) == Some(1) {
            1.0
        } else {
            0.0
        };
        assert!(
            (heavy - f64::from(drawn) * 0.75).abs() < 5.0,
            "{heavy} of {drawn}"
        );
    }
}

#[test]
fn equal_latencies_keep_the_weights_at_any_concurrency() {
    for clients in [1, 2, 16, 64, 500] {
        for weights in WEIGHTS {
            // Jitter that has nothing to do with the server.
            assert_shares(
                &simulate(weights, clients, |node, tick| {
                    8 + (tick * 31 + node * 17) % 5
                }),
                weights,
            );
        }
    }
}

#[test]
fn short_stalls_of_one_replica_are_made_up_for() {
    let stalling = |node: usize, tick: usize| if node == 1 && tick % 200 < 6 { 12 } else { 2 };
    assert_shares(&simulate(&[1, 1], 16, stalling), &[1, 1]);
    assert_shares(&simulate(&[75, 25], 16, stalling), &[75, 25]);
}

#[test]
fn a_replica_that_is_ten_times_slower_gets_clearly_less() {
    let counts = simulate(&[1, 1], 64, |node, _| if node == 1 { 100 } else { 10 });
    let slow = shares(&counts)[0];
    assert!((5.0..35.0).contains(&slow), "{slow}%");
}

#[test]
fn a_replica_that_hangs_never_holds_every_client() {
    let counts = simulate(&[1, 1], 64, |node, _| if node == 1 { 1_000_000 } else { 1 });
    // Twice the others' requests in flight, and a little slack, is all that it gets.
    assert!(counts[1] <= 64 * 2 / 3 + 4, "{counts:?}");
}

#[test]
fn a_replica_that_recovers_is_not_given_everything() {
    let topology = cluster(&[1, 1], Instant::now());
    let (mut balancer, mut loads) = (Balancer::new(5), Loads::new());
    for _ in 0..100 {
        loads.started(1);
    }
    for _ in 0..DRAWS {
        assert_eq!(balancer.pick(&topology, &loads, is_replica), Some(2));
    }
    for _ in 0..100 {
        loads.finished(1);
    }
    let made_up = (0..1000)
        .filter(|_| balancer.pick(&topology, &loads, is_replica) == Some(1))
        .count();
    assert!((500..=600).contains(&made_up), "{made_up} of 1000");
}

#[test]
fn an_alternating_application_does_not_lock_on_to_the_order() {
    let topology = cluster(&[1, 1], Instant::now());
    let (mut balancer, loads) = (Balancer::new(11), Loads::new());
    let odd_on_first = (0..DRAWS)
        .filter(|draw| balancer.pick(&topology, &loads, is_replica) == Some(1) && draw % 2 == 1)
        .count();
    assert!(
        (2000..3000).contains(&odd_on_first),
        "{odd_on_first} of {}",
        DRAWS / 2
    );
}

#[test]
fn the_effective_weight_decides_and_the_configured_one_when_none_is_left() {
    let mut topology = cluster(&[1, 1], Instant::now());
    topology.nodes[1].effective_weight = 250;
    topology.nodes[2].effective_weight = 750;
    let count = |topology: &Topology| {
        let (mut balancer, loads) = (Balancer::new(2), Loads::new());
        let mut counts = vec![0; 3];
        for _ in 0..DRAWS {
            counts[balancer.pick(topology, &loads, is_replica).unwrap()] += 1;
        }
        counts
    };
    assert_shares(&count(&topology), &[25, 75]);
    topology.nodes[1].effective_weight = 0;
    assert_eq!(count(&topology)[1], 0);
    topology.nodes[2].effective_weight = 0;
    assert_shares(&count(&topology), &[1, 1]);
}

#[test]
fn a_weight_of_zero_is_out_of_the_choice() {
    let topology = cluster(&[0, 0], Instant::now());
    assert_eq!(
        Balancer::new(0).pick(&topology, &Loads::new(), is_replica),
        None
    );
}

#[test]
fn load_is_counted_per_node_and_never_below_zero() {
    let mut loads = Loads::new();
    loads.finished(3);
    loads.started(3);
    loads.started(3);
    loads.finished(3);
    assert_eq!(
        (loads.in_flight(0), loads.in_flight(3), loads.in_flight(9)),
        (0, 1, 0)
    );
}

proptest! {
    #[test]
    fn only_eligible_nodes_with_weight_are_picked(
        weights in proptest::collection::vec(prop_oneof![Just(0), 1..5_u32, Just(u32::MAX)], 0..6),
        eligible in any::<u8>(),
        flights in proptest::collection::vec(0..50_u32, 8),
        seed in any::<u64>(),
    ) {
        let topology = cluster(&weights, Instant::now());
        let (mut balancer, mut loads) = (Balancer::new(seed), Loads::new());
        for (index, count) in flights.iter().enumerate() {
            (0..*count).for_each(|_| loads.started(index));
        }
        let may = |node: &Node| is_replica(node) && eligible >> node.id.node & 1 == 1;
        for _ in 0..200 {
            match balancer.pick(&topology, &loads, may) {
                Some(index) => prop_assert!(may(&topology.nodes[index]) && topology.nodes[index].weight > 0),
                None => prop_assert!(topology.nodes.iter().all(|node| !may(node) || node.weight == 0)),
            }
        }
    }
}
