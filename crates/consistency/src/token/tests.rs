//! What a session may read where, after what it has done.

use std::time::Duration;

use pgweir_model::NodeId;
use proptest::prelude::*;

use super::*;

/// A primary and two replicas at moments of one clock.
struct Scene {
    base: Instant,
    topology: Topology,
    token: Token,
}

impl Scene {
    fn new() -> Self {
        let base = Instant::now();
        let node = |node: u16| {
            let id = NodeId { cluster: 0, node };
            let mut seen = Node::unseen(id, "n".into(), "h".into(), 1, 100);
            seen.role = Some(if node == 0 {
                Role::Primary
            } else {
                Role::Replica
            });
            seen.timeline = 1;
            seen.connected_at = Some(base);
            seen
        };
        let topology = Topology {
            nodes: (0..3).map(node).collect(),
            primary: Some(0),
            timeline: 1,
            published_at: Some(base),
            ..Topology::default()
        };
        Scene {
            base,
            topology,
            token: Token::default(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.base + Duration::from_millis(ms)
    }

    /// A replica was asked at `ms` and stood at `lsn`; it has replayed the sample of `through_ms`.
    fn answers(&mut self, node: usize, ms: u64, lsn: u64, through_ms: u64) {
        let (asked_at, through) = (self.at(ms), self.at(through_ms));
        let node = &mut self.topology.nodes[node];
        node.asked_at = Some(asked_at);
        node.position = Lsn(lsn);
        node.replayed_through = Some(through);
        self.topology.published_at = Some(asked_at);
    }

    /// Returns the replicas that a read of this level, arrived at `ms`, may go to.
    fn eligible(&mut self, level: Consistency, ms: u64) -> Vec<usize> {
        self.token.settle(&self.topology);
        let demand = Demand {
            level,
            token: self.token,
            min_lsn: None,
            arrived_at: Some(self.at(ms)),
        };
        (1..3)
            .filter(|index| demand.is_met_by(&self.topology.nodes[*index]))
            .collect()
    }

    fn reads(&mut self, ms: u64) -> Vec<usize> {
        self.eligible(Consistency::Session, ms)
    }
}

#[test]
fn a_session_that_has_done_nothing_reads_anywhere() {
    let mut scene = Scene::new();
    assert_eq!(scene.reads(0), [1, 2]);
}

#[test]
fn a_write_is_shown_by_those_who_have_replayed_a_sample_sent_after_it() {
    let mut scene = Scene::new();
    scene.answers(1, 10, 100, 9);
    scene.answers(2, 10, 100, 9);
    scene.token.used_primary(scene.at(20));
    assert_eq!(scene.reads(21), []);
    scene.answers(1, 30, 200, 20);
    assert_eq!(
        scene.reads(31),
        [],
        "a sample of that very moment may be older"
    );
    scene.answers(1, 40, 200, 30);
    assert_eq!(scene.reads(41), [1]);
    assert_eq!(scene.eligible(Consistency::Eventual, 41), [1, 2]);
}

#[test]
fn a_session_stays_with_its_replica_until_its_position_is_known() {
    let mut scene = Scene::new();
    scene.answers(1, 10, 100, 9);
    scene.answers(2, 10, 100, 9);
    scene.token.used_replica(1, scene.at(20));
    assert_eq!(scene.reads(21), [1]);
    // The other one is asked: where the first stood at 20 ms is still open.
    scene.answers(2, 30, 300, 19);
    assert_eq!(scene.reads(31), [1]);
    scene.answers(1, 32, 301, 19);
    assert_eq!(scene.reads(33), [1]);
    scene.answers(2, 40, 301, 19);
    assert_eq!(scene.reads(41), [1, 2]);
}

#[test]
fn another_replica_that_shows_a_later_moment_of_the_primary_will_do() {
    let mut scene = Scene::new();
    scene.token.used_replica(1, scene.at(20));
    scene.answers(2, 30, 500, 21);
    assert_eq!(scene.reads(31), [1, 2]);
}

#[test]
fn a_restarted_replica_binds_nobody_and_proves_nothing() {
    let mut scene = Scene::new();
    scene.token.used_replica(1, scene.at(20));
    scene.topology.nodes[1].connected_at = Some(scene.at(25));
    scene.answers(1, 30, 50, 10);
    scene.answers(2, 30, 400, 10);
    assert_eq!(scene.reads(31), []);
    scene.answers(2, 40, 500, 21);
    assert_eq!(scene.reads(41), [2]);
}

#[test]
fn a_replica_that_was_left_early_is_outdone_by_its_moment() {
    let mut scene = Scene::new();
    // At level eventual the session goes back and forth.
    scene.token.used_replica(1, scene.at(20));
    scene.token.used_replica(2, scene.at(22));
    scene.answers(2, 30, 100, 19);
    assert_eq!(
        scene.reads(31),
        [],
        "it may have seen more on the first one"
    );
    scene.answers(2, 40, 100, 21);
    assert_eq!(scene.reads(41), [2]);
}

#[test]
fn a_session_is_freed_from_its_replica_by_whoever_shows_the_moment_of_its_last_read() {
    let mut scene = Scene::new();
    scene.answers(1, 10, 100, 9);
    scene.token.used_replica(1, scene.at(20));
    scene.token.unbind();
    assert!(!scene.token.is_visiting());
    assert_eq!(scene.reads(21), []);
    scene.answers(1, 30, 100, 29);
    scene.answers(2, 30, 100, 29);
    assert_eq!(scene.reads(31), [1, 2]);
}

#[test]
fn a_read_on_the_primary_counts_as_a_write_does() {
    let mut scene = Scene::new();
    scene.answers(1, 10, 100, 9);
    scene.token.used_replica(1, scene.at(20));
    scene.token.used_primary(scene.at(30));
    assert_eq!(scene.reads(31), []);
    assert_eq!(scene.token.newest_at(), Some(scene.at(30)));
}

#[test]
fn a_promotion_makes_a_moment_of_what_was_seen() {
    let mut scene = Scene::new();
    scene.token.used_replica(1, scene.at(20));
    scene.answers(1, 30, 900, 19);
    scene.answers(2, 30, 900, 19);
    assert_eq!(scene.reads(31), [1, 2]);
    scene.topology.timeline = 2;
    scene.topology.nodes[2].timeline = 2;
    // The switch was below the floor: positions start again there.
    scene.answers(2, 40, 800, 39);
    assert_eq!(scene.reads(41), []);
    scene.answers(2, 50, 810, 45);
    assert_eq!(scene.reads(51), [2]);
}

#[test]
fn strong_asks_for_a_sample_sent_after_the_read_arrived() {
    let mut scene = Scene::new();
    scene.answers(1, 10, 100, 10);
    scene.answers(2, 10, 100, 9);
    assert_eq!(scene.eligible(Consistency::Strong, 10), []);
    assert_eq!(scene.eligible(Consistency::Strong, 9), [1]);
}

#[test]
fn an_imported_position_counts_at_every_level() {
    let mut scene = Scene::new();
    scene.answers(1, 10, 100, 9);
    scene.answers(2, 10, 200, 9);
    let demand = Demand {
        level: Consistency::Eventual,
        token: Token::default(),
        min_lsn: Some(Lsn(150)),
        arrived_at: None,
    };
    assert!(!demand.is_met_by(&scene.topology.nodes[1]));
    assert!(demand.is_met_by(&scene.topology.nodes[2]));
    // A position behind a page header, where no replica stands when nothing is written.
    let page = Demand {
        min_lsn: Some(Lsn(0x0400_2018)),
        ..demand
    };
    scene.topology.nodes[1].position = Lsn(0x0400_2000);
    assert!(page.is_met_by(&scene.topology.nodes[1]));
}

/// What happens in a random run.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The primary writes.
    Write,
    /// A replica replays some of what it lacks.
    Replay { node: usize, share: u64 },
    /// The monitor asks the primary.
    Sample,
    /// The monitor asks a replica.
    Ask { node: usize },
    /// The session does something on the primary.
    Primary,
    /// The session reads at its level from the first of the eligible replicas, or the last.
    Read { last: bool },
    /// The session reads wherever it likes.
    Anywhere { node: usize },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Write),
        3 => (1..3_usize, 0..=4_u64).prop_map(|(node, share)| Event::Replay { node, share }),
        2 => Just(Event::Sample),
        2 => (1..3_usize).prop_map(|node| Event::Ask { node }),
        1 => Just(Event::Primary),
        4 => any::<bool>().prop_map(|last| Event::Read { last }),
        1 => (1..3_usize).prop_map(|node| Event::Anywhere { node }),
    ]
}

proptest! {
    /// Against servers whose true positions are known: a session never reads less than it has seen or written.
    #[test]
    fn no_read_is_older_than_what_the_session_has_seen(events in proptest::collection::vec(event(), 1..200)) {
        let mut scene = Scene::new();
        let mut log = crate::SampleLog::new();
        let (mut primary, mut replayed, mut seen) = (100, [100_u64; 3], 100);
        for (index, event) in (1..).zip(events) {
            let ms = index * 2;
            match event {
                Event::Write => primary += 8,
                Event::Replay { node, share } => {
                    let lacks = primary - replayed[node];
                    replayed[node] += lacks * share / 4;
                }
                Event::Sample => {
                    let lsn = Lsn(primary);
                    log.push(crate::Sample { sent_at: scene.at(ms), inserted: lsn, flushed: lsn, timeline: 1 });
                }
                Event::Ask { node } => {
                    let asked_at = scene.at(ms);
                    let known = &mut scene.topology.nodes[node];
                    known.asked_at = Some(asked_at);
                    known.position = Lsn(replayed[node]);
                    known.replayed_through = log.covered_until(Lsn(replayed[node]));
                }
                Event::Primary => {
                    seen = primary;
                    scene.token.used_primary(scene.at(ms + 1));
                }
                Event::Read { last } => {
                    let eligible = scene.reads(ms);
                    let taken = if last { eligible.last() } else { eligible.first() };
                    if let Some(node) = taken.copied() {
                        prop_assert!(replayed[node] >= seen, "replica {node} at {} ms", ms);
                        seen = replayed[node];
                        scene.token.used_replica(node, scene.at(ms + 1));
                    }
                }
                Event::Anywhere { node } => {
                    seen = seen.max(replayed[node]);
                    scene.token.used_replica(node, scene.at(ms + 1));
                }
            }
        }
    }
}
