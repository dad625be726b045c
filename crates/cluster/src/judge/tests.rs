//! Answers and failures in, snapshots and events out.

use std::time::Duration;

use pgweir_consistency::MaxLag;
use pgweir_model::{PrimaryReads, Selection};

use super::*;
use crate::breaker::BreakerSettings;

/// A judge of three nodes, and a clock.
struct Fixture {
    judge: Judge,
    base: Instant,
}

const BREAKER: BreakerSettings = BreakerSettings {
    failures: 3,
    open_for: Duration::from_secs(5),
    half_open_trials: 1,
};

const REFUSED: fn() -> ProbeError = || ProbeError::Connection {
    what: "connection refused".to_owned(),
    definite: true,
};
const SILENT: ProbeError = ProbeError::Timeout {
    limit: Duration::from_secs(1),
};

impl Fixture {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let node = |index: u16| NodeSettings {
            name: format!("pg{}", index + 1).into(),
            host: "localhost".into(),
            port: 5432 + index,
            expected: None,
            weight: 2,
            is_drained: false,
            is_near: index == 2,
        };
        let mut settings = Settings {
            name: "main".into(),
            index: 4,
            nodes: (0..3).map(node).collect(),
            user: "postgres".into(),
            password: None,
            database: "postgres".into(),
            lag_poll: Duration::from_millis(100),
            max_lag: MaxLag::Time(Duration::from_secs(1)),
            connect_timeout: Duration::from_secs(2),
            slow_start: Duration::from_secs(5),
            catalog_refresh: Duration::from_secs(60),
            breaker: BREAKER,
            selection: Selection::default(),
        };
        change(&mut settings);
        Fixture {
            judge: Judge::new(Arc::new(settings)),
            base: Instant::now(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.base + Duration::from_millis(ms)
    }

    fn answer(&mut self, ms: u64, node: usize, role: Role, lsn: u64, timeline: u32) {
        let answer = Observation {
            asked_at: self.at(ms),
            role,
            position: Lsn(lsn),
            flushed: Lsn(lsn),
            timeline: Some(timeline),
            checkpoint_timeline: 1,
            connected_at: self.base,
            system_identifier: 77,
        };
        self.judge.on_answer(node, answer);
    }

    fn healthy() -> Self {
        let mut fixture = Fixture::new(|_| {});
        fixture.answer(0, 0, Role::Primary, 1000, 1);
        fixture.answer(1, 1, Role::Replica, 1000, 1);
        fixture.answer(1, 2, Role::Replica, 1000, 1);
        fixture.judge.take_events();
        fixture
    }

    fn snapshot(&mut self, ms: u64) -> Topology {
        let now = self.at(ms);
        self.judge.snapshot(now)
    }
}

#[test]
fn the_first_answers_make_a_cluster() {
    let mut fixture = Fixture::new(|_| {});
    let unseen = fixture.snapshot(0);
    assert!(
        unseen
            .nodes
            .iter()
            .all(|node| node.health == Health::Unknown && node.role.is_none())
    );
    fixture.answer(0, 1, Role::Replica, 900, 1);
    assert_eq!(fixture.snapshot(0).primary, None);
    fixture.answer(5, 0, Role::Primary, 1000, 1);
    fixture.answer(6, 1, Role::Replica, 1000, 1);
    let topology = fixture.snapshot(7);
    assert_eq!(topology.primary, Some(0));
    let replica = &topology.nodes[1];
    assert_eq!(
        (replica.lag, replica.lag_bytes),
        (Some(Duration::ZERO), Some(0))
    );
    assert_eq!(replica.replayed_through, Some(fixture.at(5)));
    assert_eq!(
        (replica.within_max_lag, replica.effective_weight),
        (true, 2000)
    );
    assert_eq!(
        replica.id,
        NodeId {
            cluster: 4,
            node: 1
        }
    );
    assert_eq!(
        fixture.judge.take_events(),
        [
            Event::Up {
                node: 1,
                role: Role::Replica
            },
            Event::Up {
                node: 0,
                role: Role::Primary
            },
            Event::Primary {
                node: Some(0),
                timeline: 1
            },
        ]
    );
}

#[test]
fn versions_grow_and_snapshots_expire() {
    let mut fixture = Fixture::healthy();
    let (one, two) = (fixture.snapshot(10), fixture.snapshot(20));
    assert_eq!(one.version + 1, two.version);
    assert_eq!(two.expires_at, Some(fixture.at(1020)));
}

#[test]
fn one_lost_answer_changes_nothing_and_two_do() {
    let mut fixture = Fixture::healthy();
    fixture.judge.on_failure(1, SILENT, Instant::now());
    assert_eq!(fixture.snapshot(10).nodes[1].health, Health::Up);
    fixture.judge.on_failure(1, SILENT, Instant::now());
    fixture.judge.on_failure(1, SILENT, Instant::now());
    assert_eq!(fixture.snapshot(10).nodes[1].health, Health::Down);
    assert_eq!(
        fixture.judge.take_events(),
        [Event::Down {
            node: 1,
            error: SILENT
        }]
    );
}

#[test]
fn a_refused_connection_is_down_at_once() {
    let mut fixture = Fixture::healthy();
    fixture.judge.on_failure(0, REFUSED(), Instant::now());
    let topology = fixture.snapshot(10);
    assert_eq!(
        (topology.nodes[0].health, topology.primary),
        (Health::Down, None)
    );
    assert_eq!(topology.nodes[0].role, Some(Role::Primary));
    assert_eq!(
        fixture.judge.take_events(),
        [
            Event::Down {
                node: 0,
                error: REFUSED()
            },
            Event::Primary {
                node: None,
                timeline: 1
            }
        ]
    );
}

#[test]
fn a_promotion_moves_the_primary_and_lag_starts_afresh() {
    let mut fixture = Fixture::healthy();
    fixture.judge.on_failure(0, REFUSED(), Instant::now());
    fixture.answer(100, 1, Role::Primary, 900, 2);
    let topology = fixture.snapshot(101);
    assert_eq!(topology.primary, Some(1));
    // On the old timeline its position, though higher, means something else.
    assert_eq!(
        (topology.nodes[2].lag, topology.nodes[2].within_max_lag),
        (None, false)
    );
    fixture.answer(110, 2, Role::Replica, 900, 2);
    assert!(fixture.snapshot(111).nodes[2].within_max_lag);
    let events = fixture.judge.take_events();
    assert!(
        events.contains(&Event::Role {
            node: 1,
            role: Role::Primary
        }),
        "{events:?}"
    );
    assert!(
        events.contains(&Event::Primary {
            node: Some(1),
            timeline: 2
        }),
        "{events:?}"
    );
}

#[test]
fn an_old_primary_that_returns_is_refused_even_while_the_new_one_is_away() {
    let mut fixture = Fixture::healthy();
    fixture.judge.on_failure(0, REFUSED(), Instant::now());
    fixture.answer(100, 1, Role::Primary, 900, 2);
    fixture.judge.take_events();
    fixture.answer(200, 0, Role::Primary, 2000, 1);
    let topology = fixture.snapshot(201);
    assert_eq!(topology.primary, Some(1));
    assert!(!topology.nodes[0].within_max_lag);
    let left_behind = Event::LeftBehind {
        node: 0,
        timeline: 1,
        newest: 2,
    };
    assert_eq!(
        fixture.judge.take_events(),
        [
            Event::Up {
                node: 0,
                role: Role::Primary
            },
            left_behind
        ]
    );
    fixture.judge.on_failure(1, REFUSED(), Instant::now());
    fixture.answer(300, 0, Role::Primary, 2000, 1);
    assert_eq!(fixture.snapshot(301).primary, None);
}

#[test]
fn two_primaries_on_one_timeline_leave_none_until_one_gives_way() {
    let mut fixture = Fixture::healthy();
    fixture.answer(100, 1, Role::Primary, 1100, 1);
    assert_eq!(fixture.snapshot(101).primary, None);
    assert!(
        fixture
            .judge
            .take_events()
            .contains(&Event::Split { timeline: 1 })
    );
    fixture.answer(200, 0, Role::Primary, 1200, 1);
    assert!(fixture.judge.take_events().is_empty());
    fixture.judge.on_failure(1, REFUSED(), Instant::now());
    assert_eq!(fixture.snapshot(300).primary, Some(0));
}

#[test]
fn a_server_of_another_cluster_is_down_whatever_it_says() {
    let mut fixture = Fixture::healthy();
    let foreign = Observation {
        asked_at: fixture.at(50),
        connected_at: fixture.at(50),
        role: Role::Primary,
        position: Lsn(9),
        flushed: Lsn(9),
        timeline: Some(9),
        checkpoint_timeline: 9,
        system_identifier: 78,
    };
    fixture.judge.on_answer(2, foreign);
    let topology = fixture.snapshot(60);
    assert_eq!(
        (topology.primary, topology.nodes[2].health),
        (Some(0), Health::Down)
    );
}

#[test]
fn a_role_that_is_not_the_configured_one_is_told_once_and_believed() {
    let mut fixture = Fixture::new(|settings| settings.nodes[0].expected = Some(Role::Replica));
    fixture.answer(0, 0, Role::Primary, 1000, 1);
    fixture.answer(100, 0, Role::Primary, 1000, 1);
    assert_eq!(fixture.snapshot(101).primary, Some(0));
    let told = Event::Unexpected {
        node: 0,
        seen: Role::Primary,
        expected: Role::Replica,
    };
    assert_eq!(
        fixture
            .judge
            .take_events()
            .iter()
            .filter(|event| **event == told)
            .count(),
        1
    );
}

#[test]
fn a_replica_that_receives_nothing_keeps_the_timeline_that_it_was_on() {
    let mut fixture = Fixture::healthy();
    fixture.answer(10, 1, Role::Replica, 1000, 3);
    let silent = Observation {
        asked_at: fixture.at(20),
        connected_at: fixture.at(20),
        role: Role::Replica,
        position: Lsn(1000),
        flushed: Lsn(1000),
        timeline: None,
        checkpoint_timeline: 1,
        system_identifier: 77,
    };
    fixture.judge.on_answer(1, silent);
    assert_eq!(fixture.snapshot(21).nodes[1].timeline, 3);
    fixture.judge.on_answer(2, silent);
    assert_eq!(fixture.snapshot(21).nodes[2].timeline, 1);
}

#[test]
fn lag_grows_while_wal_is_outstanding_and_takes_the_weight_with_it() {
    let mut fixture = Fixture::healthy();
    for tick in 1..=6 {
        fixture.answer(tick * 100, 0, Role::Primary, 1000 + tick, 1);
        fixture.answer(tick * 100 + 1, 1, Role::Replica, 1000, 1);
        fixture.answer(tick * 100 + 1, 2, Role::Replica, 1000 + tick, 1);
    }
    let topology = fixture.snapshot(602);
    assert_eq!(topology.nodes[1].lag, Some(Duration::from_millis(601)));
    assert_eq!(
        (
            topology.nodes[1].effective_weight,
            topology.nodes[2].effective_weight
        ),
        (2 * 399, 2000)
    );
    fixture.answer(1100, 0, Role::Primary, 2000, 1);
    fixture.answer(1101, 1, Role::Replica, 1000, 1);
    let stale = &fixture.snapshot(1102).nodes[1];
    assert!(
        !stale.within_max_lag && stale.effective_weight == 0,
        "{stale:?}"
    );
}

#[test]
fn a_replica_whose_answers_stop_ages_before_it_is_down() {
    let mut fixture = Fixture::healthy();
    assert!(fixture.snapshot(900).nodes[1].within_max_lag);
    let silent = &fixture.snapshot(1500).nodes[1];
    assert_eq!((silent.health, silent.within_max_lag), (Health::Up, false));
}

#[test]
fn a_recovered_replica_comes_back_slowly_and_a_new_one_at_once() {
    let mut fixture = Fixture::healthy();
    assert_eq!(fixture.snapshot(2).nodes[1].effective_weight, 2000);
    fixture.judge.on_failure(1, REFUSED(), Instant::now());
    let weight_after = |fixture: &mut Fixture, ms: u64| {
        fixture.answer(ms, 0, Role::Primary, 1000, 1);
        fixture.answer(ms, 1, Role::Replica, 1000, 1);
        fixture.snapshot(ms).nodes[1].effective_weight
    };
    let weights = [1000, 2000, 3500, 6000, 7000].map(|ms| weight_after(&mut fixture, ms));
    assert_eq!(weights, [1, 400, 1000, 2000, 2000]);
}

#[test]
fn reconfigured_weights_and_limits_show_in_the_next_snapshot() {
    let mut fixture = Fixture::healthy();
    let mut settings = Settings::clone(&fixture.judge.settings);
    settings.nodes[1].weight = 7;
    settings.max_lag = MaxLag::Bytes(0);
    fixture.judge.reconfigure(Arc::new(settings));
    let node = &fixture.snapshot(10).nodes[1];
    assert_eq!(
        (node.weight, node.effective_weight, node.within_max_lag),
        (7, 7000, true)
    );
}

#[test]
fn a_breaker_keeps_reads_off_a_replica_that_answers_the_monitor() {
    let mut fixture = Fixture::healthy();
    let at = |fixture: &Fixture, ms| fixture.at(ms);
    let now = at(&fixture, 10);
    fixture.judge.on_signals(1, 3, false, now);
    assert!(fixture.judge.is_suspect(1));
    let states = |topology: &Topology| -> Vec<Breaker> {
        topology.nodes.iter().map(|node| node.breaker).collect()
    };
    let closed = Breaker::Closed;
    assert_eq!(
        states(&fixture.snapshot(11)),
        [closed, Breaker::Open, closed]
    );
    let half_open = Breaker::HalfOpen { trials: 1 };
    assert_eq!(states(&fixture.snapshot(5011)), [closed, half_open, closed]);
    let now = at(&fixture, 5020);
    fixture.judge.on_signals(1, 0, true, now);
    assert_eq!(states(&fixture.snapshot(5021)), [closed; 3]);
    let moves: Vec<_> = fixture.judge.take_events();
    assert_eq!(
        moves,
        [Breaker::Open, half_open, closed].map(|state| Event::Breaker { node: 1, state })
    );
}

#[test]
fn the_last_replica_and_the_primary_stay_in_use_whatever_they_fail() {
    let mut fixture = Fixture::healthy();
    let now = fixture.at(10);
    for node in 0..3 {
        fixture.judge.on_signals(node, 9, false, now);
    }
    let topology = fixture.snapshot(11);
    assert!(
        topology
            .nodes
            .iter()
            .all(|node| node.breaker == Breaker::Closed)
    );
}

#[test]
fn the_last_replica_stays_in_use_also_where_no_primary_has_been_seen() {
    let mut fixture = Fixture::new(|_| {});
    fixture.answer(0, 1, Role::Replica, 1000, 1);
    let now = fixture.at(10);
    fixture.judge.on_signals(1, 9, false, now);
    let topology = fixture.snapshot(11);
    assert!(topology.takes_reads(&topology.nodes[1], fixture.at(11)));
    assert_eq!(topology.nodes[1].breaker, Breaker::Closed);
}

#[test]
fn a_server_that_was_down_begins_with_a_closed_breaker() {
    let mut fixture = Fixture::healthy();
    let now = fixture.at(10);
    fixture.judge.on_signals(1, 3, false, now);
    fixture.judge.on_failure(1, REFUSED(), Instant::now());
    fixture.answer(20, 1, Role::Replica, 1000, 1);
    assert_eq!(fixture.snapshot(21).nodes[1].breaker, Breaker::Closed);
}

#[test]
fn a_promotion_says_what_may_be_lost() {
    let mut fixture = Fixture::healthy();
    fixture.answer(100, 0, Role::Primary, 5000, 1);
    fixture.judge.on_failure(0, REFUSED(), Instant::now());
    fixture.judge.take_events();
    fixture.answer(200, 1, Role::Primary, 4000, 2);
    let promoted = Event::Promoted {
        from: 1,
        to: 2,
        left_at: Lsn(5000),
        seen_at: Lsn(4000),
    };
    assert!(fixture.judge.take_events().contains(&promoted));
    assert_eq!(fixture.snapshot(201).timeline, 2);
}

#[test]
fn what_the_operator_chose_is_in_every_snapshot() {
    let mut fixture =
        Fixture::new(|settings| settings.selection.primary_reads = PrimaryReads::Share);
    // Also of a server that has not been seen.
    fixture.answer(0, 0, Role::Primary, 100, 1);
    let topology = fixture.snapshot(10);
    assert_eq!(topology.selection.primary_reads, PrimaryReads::Share);
    let near: Vec<_> = topology.nodes.iter().map(|node| node.is_near).collect();
    assert_eq!(near, [false, false, true]);
}

#[test]
fn a_promotion_that_was_undone_leaves_the_old_primary_its_samples() {
    let mut fixture = Fixture::healthy();
    fixture.judge.on_failure(0, REFUSED(), Instant::now());
    fixture.answer(100, 1, Role::Primary, 1100, 2);
    fixture.answer(200, 1, Role::Replica, 1000, 1);
    fixture.answer(300, 0, Role::Primary, 1200, 1);
    fixture.answer(301, 1, Role::Replica, 1200, 1);
    let topology = fixture.snapshot(302);
    assert_eq!((topology.primary, topology.timeline), (Some(0), 1));
    assert_eq!(topology.nodes[1].lag_bytes, Some(0));
}

#[test]
fn a_split_ends_when_one_is_gone_for_certain_and_not_when_it_is_only_silent() {
    let mut fixture = Fixture::healthy();
    fixture.answer(100, 1, Role::Primary, 1000, 1);
    assert!(fixture.snapshot(101).is_split);
    for _ in 0..3 {
        fixture.judge.on_failure(1, SILENT, Instant::now());
    }
    assert_eq!(fixture.snapshot(102).primary, None);
    fixture.judge.on_failure(1, REFUSED(), Instant::now());
    let topology = fixture.snapshot(103);
    assert_eq!((topology.primary, topology.is_split), (Some(0), false));
}

#[test]
fn a_server_of_another_cluster_on_a_higher_timeline_does_not_leave_the_primary_behind() {
    let mut fixture = Fixture::new(|_| {});
    let foreign = Observation {
        asked_at: fixture.base,
        connected_at: fixture.base,
        role: Role::Replica,
        position: Lsn(9000),
        flushed: Lsn(9000),
        timeline: Some(7),
        checkpoint_timeline: 7,
        system_identifier: 99,
    };
    fixture.judge.on_answer(2, foreign);
    fixture.answer(10, 0, Role::Primary, 1000, 1);
    assert_eq!(fixture.snapshot(11).primary, Some(0));
}

#[test]
fn a_drained_server_is_out_of_the_choice_and_those_who_wait_for_it_look_again() {
    let mut fixture = Fixture::healthy();
    let before = fixture.snapshot(2);
    let mut settings = Settings::clone(&fixture.judge.settings);
    settings.nodes[1].is_drained = true;
    fixture.judge.reconfigure(Arc::new(settings.clone()));
    let topology = fixture.snapshot(3);
    let node = &topology.nodes[1];
    assert!(node.is_drained && !node.is_in_choice());
    assert_eq!((node.weight, node.effective_weight), (2, 0));
    assert_eq!(topology.nodes[2].effective_weight, 2000);
    assert_eq!(topology.roles_version, before.roles_version + 1);
    // What else is changed concerns nobody who waits.
    settings.nodes[2].weight = 7;
    fixture.judge.reconfigure(Arc::new(settings.clone()));
    assert_eq!(fixture.snapshot(4).roles_version, topology.roles_version);
    settings.nodes[2].weight = 0;
    fixture.judge.reconfigure(Arc::new(settings));
    let weightless = fixture.snapshot(5);
    assert!(!weightless.nodes[2].is_in_choice());
    assert_eq!(weightless.roles_version, topology.roles_version + 1);
}

#[test]
fn every_event_is_told_in_words_with_its_server_or_cluster() {
    let fixture = Fixture::healthy();
    let settings = &fixture.judge.settings;
    let (node, role, timeline) = (1, Role::Replica, 3);
    for (event, subject, is_succession, message) in [
        (Event::Up { node, role }, "pg2", false, "is up as replica"),
        (
            Event::Down {
                node,
                error: REFUSED(),
            },
            "pg2",
            false,
            "is down: connection refused",
        ),
        (Event::Role { node, role }, "pg2", false, "is now replica"),
        (
            Event::Breaker {
                node: 9,
                state: Breaker::Open,
            },
            "?",
            false,
            "breaker: open",
        ),
        (
            Event::Primary {
                node: Some(node),
                timeline,
            },
            "pg2",
            true,
            "takes the writes, on timeline 3",
        ),
        (
            Event::Primary {
                node: None,
                timeline,
            },
            "main",
            true,
            "no primary: writes wait",
        ),
    ] {
        let told = event.told(settings);
        assert_eq!(
            (&*told.subject, told.is_succession),
            (subject, is_succession)
        );
        assert!(told.message.contains(message), "{}", told.message);
    }
}
