//! The decision order as a table of cases, and what holds of every decision.

use std::time::Duration;

use pgweir_consistency::Token;
use pgweir_model::{Consistency, Lsn, PinReason, Sqlstate};
use proptest::prelude::*;

use super::*;
use crate::rules::Ruling;
use crate::session_view::RouteSetting;
use crate::testing::{cluster, session};

const SECOND: Duration = Duration::from_secs(1);

/// What a case changes of: a plain read, a fresh session, a healthy cluster of a primary and two replicas.
struct Case<'a> {
    now: Instant,
    facts: Facts<'a>,
    session: SessionView<'a>,
    topology: Topology,
}

impl<'a> Case<'a> {
    fn of(reason: Reason, setting: &'a RouteSetting) -> Self {
        let now = Instant::now();
        let topology = cluster(&[1, 1], now);
        Case {
            now,
            facts: Facts::new(reason),
            session: session(setting),
            topology,
        }
    }

    fn route(&self) -> Result<Route, RouteError> {
        let view = View {
            topology: &self.topology,
            loads: &Loads::new(),
            now: self.now,
        };
        decide(&self.facts, &self.session, &view, &mut Balancer::new(1))
    }

    /// Returns `primary`, `replica`, `same` or `local`, and the reason.
    #[track_caller]
    fn place(&self) -> (&'static str, Reason) {
        let route = self.route().unwrap();
        let place = match route.target {
            Target::Same => "same",
            Target::Local => "local",
            Target::Node(index) if self.topology.primary == Some(index) => "primary",
            Target::Node(_) => "replica",
        };
        (place, route.reason)
    }

    fn each_replica(&mut self, change: impl FnMut(&mut Node)) {
        self.topology.nodes.iter_mut().skip(1).for_each(change);
    }
}

#[test]
fn reads_go_to_replicas_and_everything_else_to_the_primary() {
    for reason in Reason::ALL {
        let place = Case::of(*reason, &RouteSetting::Auto).place();
        let expected = match reason {
            Reason::Read | Reason::ReadByTokens | Reason::ReadOnlyTransaction => "replica",
            Reason::Local => "local",
            _ => "primary",
        };
        assert_eq!(place, (expected, *reason));
    }
}

#[test]
fn a_session_that_has_a_server_stays_on_it_whatever_it_asks() {
    let held = [
        (Held::Pinned(PinReason::TempTable), Reason::Pinned),
        (Held::Transaction, Reason::InTransaction),
        (Held::Session, Reason::SessionPooling),
    ];
    for (held, expected) in held {
        for setting in [
            RouteSetting::Auto,
            RouteSetting::Primary,
            RouteSetting::Replica,
        ] {
            for reason in [Reason::Read, Reason::Write, Reason::Unparsed] {
                let mut case = Case::of(reason, &setting);
                case.session.held = held;
                case.facts.route = Some(Instruction::Replica);
                case.topology.primary = None;
                assert_eq!(case.place(), ("same", expected));
            }
        }
    }
}

#[test]
fn a_hint_stands_above_the_setting_and_auto_undoes_it() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Primary);
    assert_eq!(case.place(), ("primary", Reason::SessionSetting));
    case.facts.route = Some(Instruction::Replica);
    assert_eq!(case.place(), ("replica", Reason::Hint));
    case.facts.route = Some(Instruction::Auto);
    assert_eq!(case.place(), ("replica", Reason::Read));
}

#[test]
fn an_instruction_overrules_a_guess_and_never_a_known_write() {
    for reason in [
        Reason::VolatileFunction,
        Reason::Unparsed,
        Reason::PrimaryOnly,
        Reason::Transaction,
    ] {
        let case = Case::of(reason, &RouteSetting::Replica);
        assert_eq!(case.place(), ("replica", Reason::SessionSetting));
    }
    for reason in [Reason::Write, Reason::RowLock] {
        let mut case = Case::of(reason, &RouteSetting::Replica);
        assert_eq!(
            case.route(),
            Err(RouteError::ReplicaWrite {
                instruction: "pgweir.route"
            })
        );
        case.facts.route = Some(Instruction::Backend("pg2"));
        assert_eq!(
            case.route(),
            Err(RouteError::ReplicaWrite {
                instruction: "the hint"
            })
        );
        case.facts.route = Some(Instruction::Backend("pg1"));
        assert_eq!(case.place(), ("primary", Reason::Hint));
    }
}

#[test]
fn an_instruction_for_a_replica_is_followed_without_splitting_and_after_learning() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Replica);
    case.session.splitting = false;
    case.facts.learned = true;
    assert_eq!(case.place(), ("replica", Reason::SessionSetting));
}

#[test]
fn an_instruction_for_a_replica_keeps_to_what_the_session_must_see() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Replica);
    case.session.token.used_primary(case.now);
    assert_eq!(case.place(), ("primary", Reason::NotReplayed));
}

#[test]
fn a_backend_is_taken_by_name_and_a_slip_gets_the_nearest() {
    let setting = RouteSetting::parse("pg3");
    let mut case = Case::of(Reason::Read, &setting);
    assert_eq!(case.route().unwrap().target, Target::Node(2));
    case.topology.nodes[2].health = Health::Down;
    assert_eq!(
        case.route(),
        Err(RouteError::BackendDown { name: "pg3".into() })
    );
    case.facts.route = Some(Instruction::Backend("pg22"));
    let nearest = Some(Arc::from("pg2"));
    assert_eq!(
        case.route(),
        Err(RouteError::UnknownBackend {
            name: "pg22".into(),
            nearest
        })
    );
    case.facts.route = Some(Instruction::Backend("elsewhere"));
    assert_eq!(
        case.route(),
        Err(RouteError::UnknownBackend {
            name: "elsewhere".into(),
            nearest: None
        })
    );
}

#[test]
fn splitting_off_keeps_reads_on_the_primary_and_their_reason_for_the_rest() {
    for (reason, expected) in [
        (Reason::Read, Reason::SplittingOff),
        (Reason::Write, Reason::Write),
    ] {
        let mut case = Case::of(reason, &RouteSetting::Auto);
        case.session.splitting = false;
        assert_eq!(case.place(), ("primary", expected));
    }
}

#[test]
fn session_pooling_starts_on_the_primary_unless_the_session_asks_for_a_replica() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.session_pooling = true;
    case.facts.route = Some(Instruction::Replica);
    assert_eq!(case.place(), ("primary", Reason::SessionPooling));
    case.session.route = &RouteSetting::Replica;
    assert_eq!(case.place(), ("replica", Reason::SessionSetting));
}

#[test]
fn a_shape_that_failed_on_a_replica_goes_to_the_primary() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.facts.learned = true;
    assert_eq!(case.place(), ("primary", Reason::Learned));
}

#[test]
fn a_read_without_a_replica_says_what_the_best_one_lacks() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.token.used_primary(case.now);
    assert_eq!(case.place(), ("primary", Reason::NotReplayed));
    case.each_replica(|node| node.within_max_lag = false);
    assert_eq!(case.place(), ("primary", Reason::ReplicaLag));
    case.each_replica(|node| node.health = Health::Down);
    assert_eq!(case.place(), ("primary", Reason::ReplicaDown));
    case.each_replica(|node| node.role = None);
    assert_eq!(case.place(), ("primary", Reason::ReplicaDown));
    case.each_replica(|node| node.weight = 0);
    assert_eq!(case.place(), ("primary", Reason::NoReplica));
    case.topology.nodes.truncate(1);
    assert_eq!(case.place(), ("primary", Reason::NoReplica));
}

#[test]
fn the_one_replica_that_has_replayed_takes_the_read() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.token.used_primary(case.now);
    case.topology.nodes[2].replayed_through = Some(case.now + Duration::from_nanos(1));
    assert_eq!(case.route().unwrap().target, Target::Node(2));
}

#[test]
fn a_strong_read_goes_where_a_later_sample_was_replayed_whatever_the_session_did() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.consistency = Consistency::Strong;
    case.session.arrived_at = Some(case.now);
    assert_eq!(case.place(), ("primary", Reason::NotReplayed));
    case.topology.nodes[1].replayed_through = Some(case.now + Duration::from_nanos(1));
    assert_eq!(case.route().unwrap().target, Target::Node(1));
}

#[test]
fn an_imported_position_keeps_reads_off_replicas_before_it() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.min_lsn = Some(Lsn(2000));
    assert_eq!(case.place(), ("primary", Reason::NotReplayed));
    case.topology.nodes[2].position = Lsn(2000);
    assert_eq!(case.route().unwrap().target, Target::Node(2));
}

#[test]
fn waiting_is_worth_it_only_for_a_replica_that_is_close() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    let within = Duration::from_millis(10);
    let may = |case: &Case<'_>| {
        let view = View {
            topology: &case.topology,
            loads: &Loads::new(),
            now: case.now,
        };
        may_catch_up(&case.facts, &case.session, &view, within)
    };
    assert!(!may(&case), "there is nothing to wait for");
    case.session.token.used_primary(case.now);
    assert!(may(&case));
    case.each_replica(|node| node.lag = Some(2 * within));
    assert!(!may(&case));
    case.topology.nodes[1].lag = Some(within);
    assert!(may(&case));
    case.topology.nodes[1].health = Health::Down;
    assert!(!may(&case));
}

#[test]
fn an_open_breaker_keeps_reads_off_and_a_half_open_one_lets_a_few_through() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.topology.nodes[1].breaker = Breaker::Open;
    assert_eq!(case.route().unwrap().target, Target::Node(2));
    case.topology.nodes[2].breaker = Breaker::Open;
    assert_eq!(case.place(), ("primary", Reason::ReplicaDown));
    case.topology.nodes[2].breaker = Breaker::HalfOpen { trials: 1 };
    // One that waits for a connection tries it as well.
    for begin in [Loads::started, Loads::waits] {
        let mut loads = Loads::new();
        for expected in [2, 0] {
            let view = View {
                topology: &case.topology,
                loads: &loads,
                now: case.now,
            };
            let route = decide(&case.facts, &case.session, &view, &mut Balancer::new(1));
            assert_eq!(route.unwrap().target, Target::Node(expected));
            begin(&mut loads, 2);
        }
        let ends = [Loads::finished, Loads::waited];
        ends.iter()
            .for_each(|end| (0..2).for_each(|_| end(&mut loads, 2)));
        assert_eq!(loads.meant_for(2), 0);
    }
}

#[test]
fn eventual_consistency_does_not_wait_for_its_own_writes() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.token.used_primary(case.now);
    case.session.consistency = Consistency::Eventual;
    case.each_replica(|node| node.replayed_through = None);
    assert_eq!(case.place(), ("replica", Reason::Read));
}

#[test]
fn of_two_primaries_on_one_timeline_none_takes_writes_and_the_error_says_so() {
    let mut case = Case::of(Reason::Write, &RouteSetting::Auto);
    (case.topology.primary, case.topology.is_split) = (None, true);
    let error = case.route().unwrap_err();
    assert_eq!(error, RouteError::Split);
    assert_eq!(error.sqlstate().as_str(), "57P03");
    assert!(error.to_string().contains("same timeline") && error.hint().is_some());
}

#[test]
fn a_primary_that_was_left_behind_is_not_to_be_had_by_its_name() {
    let setting = RouteSetting::parse("pg1");
    let mut case = Case::of(Reason::VolatileFunction, &setting);
    assert_eq!(case.route().unwrap().target, Target::Node(0));
    case.topology.nodes[1].role = Some(Role::Primary);
    for primary in [None, Some(1)] {
        case.topology.primary = primary;
        assert!(matches!(case.route(), Err(RouteError::BackendDown { .. })));
    }
}

#[test]
fn a_replica_of_an_old_timeline_takes_no_reads_while_the_new_primary_is_away() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.topology.primary = None;
    case.each_replica(|node| {
        (node.lag, node.lag_bytes, node.within_max_lag) = (None, None, false);
    });
    assert_eq!(case.route(), Err(RouteError::NoPrimary));
}

#[test]
fn without_a_primary_reads_go_on_and_writes_are_refused() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.topology.primary = None;
    case.topology.nodes[0].health = Health::Down;
    assert_eq!(case.place(), ("replica", Reason::Read));
    // None has been seen since the start.
    case.topology.timeline = 0;
    case.each_replica(|node| {
        (node.lag, node.lag_bytes, node.within_max_lag) = (None, None, false);
    });
    assert_eq!(case.place(), ("replica", Reason::Read));
    case.session.token.used_primary(case.now);
    assert_eq!(case.route(), Err(RouteError::NoPrimary));
    case.session.token = Token::default();
    case.each_replica(|node| node.lag = Some(9 * SECOND));
    assert_eq!(case.route(), Err(RouteError::NoPrimary));
    case.facts = Facts::new(Reason::Write);
    assert_eq!(case.route(), Err(RouteError::NoPrimary));
}

#[test]
fn a_primary_that_lost_to_another_takes_neither_reads_nor_writes() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.topology.primary = Some(1);
    case.topology.nodes[1].role = Some(Role::Primary);
    for _ in 0..10 {
        assert_eq!(case.route().unwrap().target, Target::Node(2));
    }
}

#[test]
fn a_snapshot_past_its_time_vouches_for_no_replica() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.topology.expires_at = Some(case.now);
    assert_eq!(case.place(), ("replica", Reason::Read));
    case.now += Duration::from_nanos(1);
    assert_eq!(case.place(), ("primary", Reason::ReplicaLag));
}

#[test]
fn max_lag_of_a_hint_stands_in_place_of_the_configured_one_and_counts_the_age_of_the_snapshot() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.each_replica(|node| {
        (node.lag, node.lag_bytes, node.within_max_lag) = (Some(2 * SECOND), Some(4096), false);
    });
    assert_eq!(case.place(), ("primary", Reason::ReplicaLag));
    case.facts.asks.max_lag = Some(MaxLag::Time(3 * SECOND));
    assert_eq!(case.place(), ("replica", Reason::Read));
    case.now += SECOND + Duration::from_millis(1);
    assert_eq!(case.place(), ("primary", Reason::ReplicaLag));
    case.facts.asks.max_lag = Some(MaxLag::Bytes(4096));
    assert_eq!(case.place(), ("replica", Reason::Read));
    case.facts.asks.max_lag = Some(MaxLag::Bytes(4095));
    assert_eq!(case.place(), ("primary", Reason::ReplicaLag));
}

#[test]
fn errors_have_their_codes_and_hints() {
    assert_eq!(RouteError::NoPrimary.sqlstate().as_str(), "57P03");
    assert_eq!(
        RouteError::ReplicaWrite {
            instruction: "the hint"
        }
        .sqlstate()
        .as_str(),
        "25006"
    );
    assert!(
        RouteError::ReplicaWrite {
            instruction: "the hint"
        }
        .hint()
        .is_some()
    );
    let unknown = RouteError::UnknownBackend {
        name: "pg9".into(),
        nearest: Some("pg1".into()),
    };
    assert_eq!(unknown.hint().unwrap(), "Perhaps you meant \"pg1\".");
}

fn any_node() -> impl Strategy<Value = Node> {
    let role = prop_oneof![
        Just(None),
        Just(Some(Role::Primary)),
        Just(Some(Role::Replica))
    ];
    let health = prop_oneof![Just(Health::Unknown), Just(Health::Up), Just(Health::Down)];
    (role, health, 0..3_u32, any::<[bool; 3]>()).prop_map(
        |(role, health, weight, [within, replayed, lag])| {
            let mut node = cluster(&[], Instant::now()).nodes.remove(0);
            (node.role, node.health, node.weight, node.within_max_lag) =
                (role, health, weight, within);
            node.replayed_through = node.replayed_through.filter(|_| replayed);
            node.lag = node.lag.filter(|_| lag);
            node
        },
    )
}

fn any_setting() -> impl Strategy<Value = RouteSetting> {
    proptest::sample::select(vec![
        RouteSetting::Auto,
        RouteSetting::Primary,
        RouteSetting::Replica,
        RouteSetting::parse("pg1"),
        RouteSetting::parse("no such"),
    ])
}

fn any_held() -> impl Strategy<Value = Held> {
    let pinned = Held::Pinned(PinReason::Setting);
    proptest::sample::select(vec![
        Held::Nothing,
        Held::Nothing,
        pinned,
        Held::Transaction,
        Held::Session,
    ])
}

proptest! {
    #[test]
    fn a_write_never_gets_a_replica_and_a_held_session_stays(
        nodes in proptest::collection::vec(any_node(), 0..5),
        primary in any::<proptest::sample::Index>(),
        reason in proptest::sample::select(Reason::ALL),
        setting in any_setting(),
        hint in proptest::option::of(any_setting()),
        held in any_held(),
        flags in any::<[bool; 4]>(),
    ) {
        let now = Instant::now();
        let [learned, splitting, session_pooling, wrote] = flags;
        // The monitor's promise: the primary is a node that was seen out of recovery.
        let primaries: Vec<usize> = (0..nodes.len()).filter(|index| nodes[*index].role == Some(Role::Primary)).collect();
        let primary = (!primaries.is_empty()).then(|| *primary.get(&primaries));
        let topology = Topology { nodes, primary, ..Topology::default() };
        let route = hint.as_ref().map(RouteSetting::instruction);
        let facts = Facts { route, learned, ..Facts::new(reason) };
        let mut token = Token::default();
        if wrote {
            token.used_primary(now);
        }
        let view_of = SessionView { held, token, splitting, session_pooling, ..session(&setting) };
        let view = View { topology: &topology, loads: &Loads::new(), now };
        let decided = decide(&facts, &view_of, &view, &mut Balancer::new(1));
        if reason == Reason::Local {
            prop_assert_eq!(decided, Ok(Route { target: Target::Local, reason }));
        } else if held != Held::Nothing {
            prop_assert_eq!(decided.unwrap().target, Target::Same);
        } else if let Ok(route) = decided {
            let Target::Node(index) = route.target else { panic!("a fresh session gets a node: {route:?}") };
            prop_assert!(index < topology.nodes.len());
            if facts.is_known_write() {
                prop_assert_eq!(Some(index), topology.primary);
            }
            let told = instruction(&facts, &view_of).is_some();
            if Some(index) != topology.primary && !told {
                prop_assert!(facts.is_read() && splitting && !learned && !session_pooling);
                prop_assert!(topology.nodes[index].health == Health::Up && topology.nodes[index].weight > 0);
            }
        }
    }
}

/// A rule that says nothing yet.
const RULE: Ruling<'static> = Ruling {
    name: "1",
    route: Instruction::Auto,
    asks: Asks {
        max_lag: None,
        consistency: None,
    },
    timeout: None,
    block: None,
    is_for_session: false,
};

#[test]
fn a_rule_stands_below_hint_and_setting() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    let rule = |route| Some(Ruling { route, ..RULE });
    case.facts.rule = rule(Instruction::Auto);
    assert_eq!(case.place(), ("replica", Reason::Read));
    case.facts.rule = rule(Instruction::Primary);
    assert_eq!(case.place(), ("primary", Reason::Rule));
    case.session.route = &RouteSetting::Replica;
    assert_eq!(case.place(), ("replica", Reason::SessionSetting));
    case.session.route = &RouteSetting::Auto;
    case.facts.route = Some(Instruction::Auto);
    assert_eq!(case.place(), ("replica", Reason::Read));
    case.facts.route = None;
    case.facts.reason = Reason::Write;
    case.facts.rule = rule(Instruction::Replica);
    assert_eq!(
        case.route(),
        Err(RouteError::ReplicaWrite {
            instruction: "a rule of the configuration"
        })
    );
}

#[test]
fn under_session_pooling_only_a_rule_about_the_client_chooses_the_server() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.session_pooling = true;
    let rule = |is_for_session| {
        Some(Ruling {
            route: Instruction::Replica,
            is_for_session,
            ..RULE
        })
    };
    case.facts.rule = rule(false);
    assert_eq!(case.place(), ("primary", Reason::SessionPooling));
    case.facts.rule = rule(true);
    assert_eq!(case.place(), ("replica", Reason::Rule));
}

#[test]
fn a_blocked_batch_is_refused_whatever_else_is_said_of_it() {
    let blocked = Some(Ruling {
        block: Some("no"),
        ..RULE
    });
    for reason in [Reason::Read, Reason::Write, Reason::Unparsed] {
        for held in [Held::Nothing, Held::Transaction, Held::Session] {
            let mut case = Case::of(reason, &RouteSetting::Primary);
            case.facts.rule = blocked;
            case.facts.route = Some(Instruction::Replica);
            case.session.held = held;
            let error = case.route().unwrap_err();
            assert_eq!(error.sqlstate(), Sqlstate::INSUFFICIENT_PRIVILEGE);
            assert_eq!(error.to_string(), "no");
            assert!(
                error
                    .detail()
                    .is_some_and(|detail| detail.contains("\"1\""))
            );
        }
    }
}

#[test]
fn who_asks_nearest_to_the_statement_decides_what_it_may_see() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.session.token.used_primary(case.now);
    let asks = |consistency| Asks {
        max_lag: None,
        consistency: Some(consistency),
    };
    let (all, any) = (asks(Consistency::Session), asks(Consistency::Eventual));
    let rule = |asks| Some(Ruling { asks, ..RULE });
    let none = Asks::default();
    for (hint, session, rule, database, expected) in [
        (none, none, None, Consistency::Session, Reason::NotReplayed),
        (none, none, None, Consistency::Eventual, Reason::Read),
        (none, none, rule(any), Consistency::Session, Reason::Read),
        (
            none,
            none,
            rule(all),
            Consistency::Eventual,
            Reason::NotReplayed,
        ),
        (none, any, rule(all), Consistency::Session, Reason::Read),
        (
            none,
            all,
            rule(any),
            Consistency::Eventual,
            Reason::NotReplayed,
        ),
        (any, all, rule(all), Consistency::Session, Reason::Read),
        (
            all,
            any,
            rule(any),
            Consistency::Eventual,
            Reason::NotReplayed,
        ),
    ] {
        case.facts.asks = hint;
        case.session.asks = session;
        case.facts.rule = rule;
        case.session.consistency = database;
        assert_eq!(case.place().1, expected, "{hint:?} {session:?} {rule:?}");
    }
}

#[test]
fn the_limit_of_lag_is_that_of_the_hint_else_of_the_session_else_of_the_rule() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.each_replica(|node| {
        node.lag = Some(2 * SECOND);
        node.within_max_lag = true;
    });
    let limit = |seconds| Asks {
        max_lag: Some(MaxLag::Time(seconds * SECOND)),
        consistency: None,
    };
    let (tight, loose, none) = (limit(1), limit(9), Asks::default());
    for (hint, session, rule, expected) in [
        (none, none, none, Reason::Read),
        (none, none, tight, Reason::ReplicaLag),
        (none, loose, tight, Reason::Read),
        (none, tight, loose, Reason::ReplicaLag),
        (loose, tight, tight, Reason::Read),
        (tight, loose, loose, Reason::ReplicaLag),
    ] {
        case.facts.asks = hint;
        case.session.asks = session;
        case.facts.rule = Some(Ruling { asks: rule, ..RULE });
        assert_eq!(case.place().1, expected, "{hint:?} {session:?} {rule:?}");
    }
}

#[test]
fn whether_the_primary_takes_reads_is_the_operators_choice() {
    use PrimaryReads::{Fallback, Never, Share};
    // What stands in the way of the replicas, and what becomes of a read then.
    type Change = fn(&mut Case<'_>);
    let lagging: Change = |case| case.each_replica(|node| node.within_max_lag = false);
    let unseen: Change = |case| case.session.token.used_primary(case.now + SECOND);
    let cases = [
        ("lag", lagging, Reason::ReplicaLag),
        ("an own write", unseen, Reason::NotReplayed),
    ];
    for (what, change, reason) in cases {
        for by in [RouteSetting::Auto, RouteSetting::Replica] {
            let route = |primary_reads| {
                let mut case = Case::of(Reason::Read, &by);
                case.topology.selection.primary_reads = primary_reads;
                change(&mut case);
                case.route()
            };
            let primary = |reason| {
                Ok(Route {
                    target: Target::Node(0),
                    reason,
                })
            };
            assert_eq!(
                route(Never),
                Err(RouteError::NoReplica { reason }),
                "{what}"
            );
            assert_eq!(route(Fallback), primary(reason), "{what}");
            // Where it shares, it is no fallback but one of those that take reads; as a replica it is none of them.
            let shared = if by == RouteSetting::Auto {
                Reason::Read
            } else {
                reason
            };
            assert_eq!(route(Share), primary(shared), "{what}");
        }
    }
}

#[test]
fn a_primary_that_never_takes_reads_takes_everything_else() {
    for reason in [Reason::Write, Reason::Unparsed, Reason::VolatileFunction] {
        let mut case = Case::of(reason, &RouteSetting::Auto);
        case.topology.selection.primary_reads = PrimaryReads::Never;
        assert_eq!(case.place(), ("primary", reason));
    }
    let mut case = Case::of(Reason::Read, &RouteSetting::Primary);
    case.topology.selection.primary_reads = PrimaryReads::Never;
    assert_eq!(case.place(), ("primary", Reason::SessionSetting));
}

#[test]
fn a_primary_that_shares_takes_its_weight_of_the_reads_and_none_that_ask_for_a_replica() {
    let counts = |setting: &RouteSetting, weight: u32| {
        let mut case = Case::of(Reason::Read, setting);
        case.topology.selection.primary_reads = PrimaryReads::Share;
        case.topology.nodes[0].weight = weight;
        case.topology.nodes[0].effective_weight = weight * Node::WEIGHT_SCALE;
        let view = View {
            topology: &case.topology,
            loads: &Loads::new(),
            now: case.now,
        };
        let mut balancer = Balancer::new(1);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let route = decide(&case.facts, &case.session, &view, &mut balancer);
            match route.unwrap().target {
                Target::Node(index) => counts[index] += 1,
                other => panic!("{other:?}"),
            }
        }
        counts
    };
    for (setting, weight, expected) in [
        (RouteSetting::Auto, 2, [5000, 2500, 2500]),
        (RouteSetting::Auto, 0, [0, 5000, 5000]),
        (RouteSetting::Replica, 2, [0, 5000, 5000]),
    ] {
        for (count, expected) in counts(&setting, weight).iter().zip(expected) {
            assert!(
                (expected - 200..=expected + 200).contains(count),
                "{setting}"
            );
        }
    }
}

#[test]
fn an_old_primary_that_is_still_up_does_not_share() {
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    case.topology.selection.primary_reads = PrimaryReads::Share;
    case.topology.nodes[1].role = Some(Role::Primary);
    case.topology.nodes[2].health = Health::Down;
    assert_eq!(case.route().unwrap().target, Target::Node(0));
    case.topology.primary = None;
    assert_eq!(case.route(), Err(RouteError::NoPrimary));
}

#[test]
fn a_drained_server_takes_nothing_but_what_only_the_primary_can() {
    let by_name = RouteSetting::Backend("pg3".into());
    let drain = |topology: &mut Topology, index: usize| topology.nodes[index].is_drained = true;
    let mut case = Case::of(Reason::Read, &RouteSetting::Auto);
    drain(&mut case.topology, 1);
    for _ in 0..10 {
        assert_eq!(case.route().unwrap().target, Target::Node(2));
    }
    // Also a session that has just read there.
    case.session.token.used_replica(1, case.now - SECOND);
    assert_eq!(case.route().unwrap().target, Target::Node(2));
    drain(&mut case.topology, 2);
    assert_eq!(case.place(), ("primary", Reason::NoReplica));
    let mut named = Case::of(Reason::Read, &by_name);
    drain(&mut named.topology, 2);
    let error = named.route().unwrap_err();
    assert_eq!(error.sqlstate(), Sqlstate::CANNOT_CONNECT_NOW);
    assert_eq!(error, RouteError::BackendDrained { name: "pg3".into() });
    // As the primary it takes the writes, and no reads by its weight.
    let mut promoted = Case::of(Reason::Write, &RouteSetting::Auto);
    drain(&mut promoted.topology, 0);
    assert_eq!(promoted.place(), ("primary", Reason::Write));
    promoted.topology.selection.primary_reads = PrimaryReads::Share;
    promoted.facts = Facts::new(Reason::Read);
    for _ in 0..10 {
        assert_eq!(promoted.place(), ("replica", Reason::Read));
    }
}
