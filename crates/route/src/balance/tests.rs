//! Shares over many draws, in every way of choosing, idle, loaded, and with simulated latencies.

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

const BALANCES: [Balance; 4] = [
    Balance::LeastLoaded,
    Balance::RoundRobin,
    Balance::Random,
    Balance::Nearest,
];

/// Returns how often each node was picked.
fn draw(topology: &Topology, loads: &Loads, seed: u64) -> Vec<usize> {
    let mut balancer = Balancer::new(seed);
    let mut counts = vec![0; topology.nodes.len()];
    for _ in 0..DRAWS {
        counts[balancer.pick(topology, loads, is_replica).unwrap()] += 1;
    }
    counts
}

#[test]
fn requests_that_complete_at_once_are_split_by_weight() {
    for balance in BALANCES {
        for weights in WEIGHTS {
            for seed in 0..16 {
                let mut topology = cluster(weights, Instant::now());
                topology.selection.balance = balance;
                assert_shares(&draw(&topology, &Loads::new(), seed), weights);
            }
        }
    }
}

/// As many sets of weights as seeds: up to six replicas, some of them out of the choice.
#[test]
fn any_weights_are_kept_to_in_every_way_of_choosing() {
    for seed in 0..100 {
        let mut noise = Noise::new(seed);
        let mut below = |bound| u32::try_from(noise.below(bound)).unwrap();
        let mut weights: Vec<_> = (0..=below(5)).map(|_| below(200)).collect();
        weights[0] += 1;
        for balance in BALANCES {
            let mut topology = cluster(&weights, Instant::now());
            topology.selection.balance = balance;
            assert_shares(&draw(&topology, &Loads::new(), seed), &weights);
        }
    }
}

#[test]
fn round_robin_takes_turns_as_evenly_as_the_weights_allow() {
    let mut topology = cluster(&[5, 1, 1], Instant::now());
    topology.selection.balance = Balance::RoundRobin;
    let (mut balancer, mut loads) = (Balancer::new(1), Loads::new());
    // It does not look at the load.
    (0..100).for_each(|_| loads.started(1));
    let mut turns = || balancer.pick(&topology, &loads, is_replica).unwrap();
    let turns: Vec<_> = (0..14).map(|_| turns()).collect();
    assert_eq!(turns, [1, 1, 2, 1, 3, 1, 1, 1, 1, 2, 1, 3, 1, 1]);
}

#[test]
fn by_lot_nothing_is_in_order_and_no_load_counts() {
    let mut topology = cluster(&[1, 1], Instant::now());
    topology.selection.balance = Balance::Random;
    let mut loads = Loads::new();
    (0..100).for_each(|_| loads.started(1));
    assert_shares(&draw(&topology, &loads, 3), &[1, 1]);
    let mut balancer = Balancer::new(4);
    let mut again = 0;
    let mut last = None;
    for _ in 0..DRAWS {
        let taken = balancer.pick(&topology, &loads, is_replica);
        again += usize::from(taken == last);
        last = taken;
    }
    assert!((4800..5200).contains(&again), "{again} times the same");
}

/// Two replicas in the own zone, of weights 3 and 1, and two elsewhere, of weights 1 and 1.
fn zones() -> Topology {
    let mut topology = cluster(&[3, 1, 1, 1], Instant::now());
    topology.selection.balance = Balance::Nearest;
    topology.nodes[1].is_near = true;
    topology.nodes[2].is_near = true;
    topology
}

#[test]
fn the_nearest_take_all_while_they_can() {
    // In flight on each replica; who takes the requests, by weight.
    let cases: [(&str, [u32; 4], [u32; 4]); 6] = [
        ("idle", [0, 0, 0, 0], [3, 1, 0, 0]),
        ("as busy as those elsewhere", [9, 3, 9, 9], [3, 1, 0, 0]),
        ("a little busier", [3, 3, 0, 0], [3, 1, 0, 0]),
        // The one that is not overloaded takes what the other cannot.
        ("one is overloaded", [90, 0, 0, 0], [0, 1, 0, 0]),
        ("both are overloaded", [90, 90, 0, 0], [0, 0, 1, 1]),
        ("those elsewhere are, too", [90, 30, 90, 90], [3, 1, 0, 0]),
    ];
    for (case, in_flight, expected) in cases {
        let mut loads = Loads::new();
        for (index, count) in in_flight.into_iter().enumerate() {
            (0..count).for_each(|_| loads.started(index + 1));
        }
        let counts = draw(&zones(), &loads, 5);
        let shares = shares(&counts);
        let total: u32 = expected.iter().sum();
        for (share, weight) in shares.iter().zip(expected) {
            let due = f64::from(weight) * 100.0 / f64::from(total);
            assert!((share - due).abs() < 2.0, "{case}: {counts:?}");
        }
    }
}

#[test]
fn others_take_what_no_replica_of_the_own_zone_may() {
    let mut topology = zones();
    topology.nodes[1].weight = 0;
    topology.nodes[2].effective_weight = 0;
    assert_shares(&draw(&topology, &Loads::new(), 1), &[0, 0, 1, 1]);
    // Lag has taken everybody's weight: nearness counts again.
    topology.nodes[3].effective_weight = 0;
    topology.nodes[4].effective_weight = 0;
    assert_shares(&draw(&topology, &Loads::new(), 1), &[0, 1, 0, 0]);
}

#[test]
fn of_two_that_are_equally_loaded_the_faster_one_is_the_idlest() {
    let topology = cluster(&[1, 1, 1], Instant::now());
    let mut loads = Loads::new();
    (0..100).for_each(|_| loads.started(1));
    let ms = Duration::from_millis;
    for (second, third, idlest) in [(9, 5, 3), (5, 9, 2)] {
        for _ in 0..100 {
            loads.answered(2, ms(second));
            loads.answered(3, ms(third));
        }
        let mut balancer = Balancer::new(0);
        // Its own turns, and those of the one that is overloaded.
        let counts: Vec<_> = (0..9)
            .map(|_| balancer.pick(&topology, &loads, is_replica).unwrap())
            .collect();
        let of = |index| counts.iter().filter(|taken| **taken == index).count();
        assert!(of(idlest) > of(5 - idlest) && of(1) == 0, "{counts:?}");
    }
}

#[test]
fn latency_is_smoothed_and_follows_a_change() {
    let mut loads = Loads::new();
    assert_eq!(loads.latency(2), None);
    loads.answered(2, Duration::from_millis(8));
    assert_eq!(loads.latency(2), Some(Duration::from_millis(8)));
    loads.answered(2, Duration::ZERO);
    assert_eq!(loads.latency(2), Some(Duration::from_millis(7)));
    // A clock of steps of 50 ms shows 0 nine times of ten where it takes 5 ms.
    for round in 0..1000 {
        loads.answered(
            2,
            Duration::from_millis(if round % 10 == 0 { 50 } else { 0 }),
        );
    }
    let mean = loads.latency(2).unwrap().as_micros();
    assert!((2_000..9_000).contains(&mean), "{mean} us");
    loads.answered(2, Duration::MAX);
    assert!(loads.latency(2).is_some());
    assert_eq!(loads.latency(1), None);
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
        balance in prop::sample::select(BALANCES.to_vec()),
        near in any::<u8>(),
    ) {
        let mut topology = cluster(&weights, Instant::now());
        topology.selection.balance = balance;
        for node in &mut topology.nodes {
            node.is_near = near >> node.id.node & 1 == 1;
        }
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

#[test]
fn sessions_take_turns_exactly_by_weight() {
    let topology = cluster(&[300, 100], Instant::now());
    for seed in 0..50 {
        let mut balancer = Balancer::new(seed);
        let mut counts = [0; 3];
        for _ in 0..8 {
            let picked = balancer.pick_for(Pick::Session, &topology, &Loads::new(), is_replica);
            counts[picked.unwrap()] += 1;
        }
        assert_eq!(counts, [0, 6, 2], "seed {seed}");
    }
}
