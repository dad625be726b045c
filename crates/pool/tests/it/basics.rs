//! One rule at a time, on one thread: two or more parts of a pool live side by side, and nothing happens in between.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pgweir_pool::{
    Checkout, CheckoutError, Granted, Lease, LocalPool, Permit, Reserve, Settings, Shared, Waiting,
};

use super::{Link, World, open, settings};

struct Bench {
    world: Arc<World>,
    shared: Arc<Shared<Link>>,
    pools: Vec<LocalPool<Link>>,
    asked: Arc<Mutex<Vec<usize>>>,
    now: RefCell<Instant>,
}

impl Bench {
    fn new(settings: Settings) -> Bench {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        let shared = Shared::new(
            settings,
            Box::new(move |thread| notes.lock().unwrap().push(thread)),
        );
        let pools = (0..settings.threads)
            .map(|thread| LocalPool::new(Arc::clone(&shared), thread))
            .collect();
        Bench {
            world: Arc::default(),
            shared,
            pools,
            asked,
            now: RefCell::new(Instant::now()),
        }
    }

    fn now(&self) -> Instant {
        *self.now.borrow()
    }

    fn pass(&self, time: Duration) {
        *self.now.borrow_mut() += time;
    }

    fn checkout(&self, thread: usize) -> Checkout<Link> {
        self.pools[thread].try_checkout(self.now()).unwrap()
    }

    fn fulfil(&self, permit: Permit<Link>) -> Lease<Link> {
        permit.fulfil(open(&self.world), self.now())
    }

    fn lease(&self, thread: usize) -> Lease<Link> {
        match self.checkout(thread) {
            Checkout::Ready(lease) => lease,
            Checkout::Open(permit) => self.fulfil(permit),
            Checkout::Wait(_) => panic!("it has to wait"),
        }
    }

    fn wait(&self, thread: usize) -> Waiting<Link> {
        match self.checkout(thread) {
            Checkout::Wait(waiting) => waiting,
            other => panic!("it need not wait: {other:?}"),
        }
    }

    fn serve_those_asked(&self) -> Vec<usize> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.iter().for_each(|&thread| self.pools[thread].serve());
        asked
    }

    fn live(&self) -> usize {
        self.world.live.load(std::sync::atomic::Ordering::SeqCst)
    }
}

fn poll(waiting: &mut Waiting<Link>) -> Option<Granted<Link>> {
    match pin!(waiting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(granted) => Some(granted),
        Poll::Pending => None,
    }
}

fn granted_lease(waiting: &mut Waiting<Link>) -> Lease<Link> {
    match poll(waiting) {
        Some(Granted::Lease(lease)) => lease,
        other => panic!("no lease: {other:?}"),
    }
}

#[test]
fn the_connection_used_last_is_reused_first() {
    let bench = Bench::new(settings(1, 3));
    let (first, second) = (bench.lease(0), bench.lease(0));
    let (early, late) = (first.wire.number, second.wire.number);
    first.checkin(bench.now());
    second.checkin(bench.now());
    let third = bench.lease(0);
    assert_eq!((third.wire.number, early), (late, 0));
    assert_eq!(bench.pools[0].stats().hits, 1);
}

#[test]
fn a_dropped_lease_is_closed_and_its_place_goes_to_the_first_waiter() {
    let bench = Bench::new(settings(2, 1));
    let lease = bench.lease(0);
    let (mut first, mut second) = (bench.wait(1), bench.wait(0));
    drop(lease);
    assert_eq!(bench.live(), 0);
    assert!(matches!(poll(&mut first), Some(Granted::Open(_))));
    assert!(
        matches!(poll(&mut second), Some(Granted::Open(_))),
        "an unused permit is passed on"
    );
}

#[test]
fn a_checkin_hands_the_connection_to_a_waiter_of_the_same_thread() {
    let bench = Bench::new(settings(1, 1));
    let lease = bench.lease(0);
    let mut waiting = bench.wait(0);
    assert!(poll(&mut waiting).is_none());
    lease.checkin(bench.now());
    let lease = granted_lease(&mut waiting);
    assert_eq!(lease.wire.number, 0);
    assert_eq!(
        bench
            .world
            .transits
            .load(std::sync::atomic::Ordering::SeqCst),
        0,
        "it did not leave its thread"
    );
}

#[test]
fn a_checkin_hands_the_connection_to_a_waiter_of_another_thread() {
    let bench = Bench::new(settings(2, 1));
    let lease = bench.lease(0);
    let mut waiting = bench.wait(1);
    lease.checkin(bench.now());
    assert_eq!(granted_lease(&mut waiting).wire.number, 0);
    assert_eq!(bench.pools[0].stats().owned, 0);
    assert_eq!(bench.pools[1].stats().taken_over, 1);
}

#[test]
fn a_thread_fills_its_share_before_it_takes_over_and_opens_more_only_when_nothing_is_idle() {
    let bench = Bench::new(settings(2, 4));
    bench.lease(1).checkin(bench.now());
    let held = [bench.lease(0), bench.lease(0)];
    assert_eq!(bench.live(), 3, "its share is two of four");
    let mut waiting = bench.wait(0);
    assert!(poll(&mut waiting).is_none());
    assert_eq!(bench.serve_those_asked(), [1]);
    let third = granted_lease(&mut waiting);
    assert_eq!(bench.live(), 3);
    let fourth = bench.lease(0);
    assert_eq!(
        bench.live(),
        4,
        "nothing is idle elsewhere, so it exceeds its share"
    );
    drop((held, third, fourth));
    assert_eq!(bench.shared.stats().open, 0);
}

#[test]
fn a_thread_asked_in_vain_lets_the_waiter_open_one() {
    let bench = Bench::new(settings(2, 3));
    bench.lease(1).checkin(bench.now());
    let _held = [bench.lease(0), bench.lease(0)];
    let mut waiting = bench.wait(0);
    bench.pools[1].close_idle();
    assert!(matches!(poll(&mut waiting), Some(Granted::Open(_))));
}

#[test]
fn nobody_overtakes_the_queue() {
    let bench = Bench::new(settings(2, 1));
    let lease = bench.lease(0);
    let mut first = bench.wait(1);
    let mut second = bench.wait(0);
    lease.checkin(bench.now());
    assert!(poll(&mut second).is_none());
    granted_lease(&mut first).checkin(bench.now());
    granted_lease(&mut second);
}

#[test]
fn the_own_thread_may_overtake_as_many_as_allowed_and_no_more() {
    let bench = Bench::new(Settings {
        overtaking: Some(2),
        ..settings(2, 1)
    });
    let lease = bench.lease(0);
    let mut far = bench.wait(1);
    let mut near = [bench.wait(0), bench.wait(0), bench.wait(0)];
    lease.checkin(bench.now());
    granted_lease(&mut near[0]).checkin(bench.now());
    granted_lease(&mut near[1]).checkin(bench.now());
    assert!(poll(&mut near[2]).is_none());
    granted_lease(&mut far).checkin(bench.now());
    granted_lease(&mut near[2]);
}

#[test]
fn the_queue_is_bounded() {
    let bench = Bench::new(Settings {
        queue_limit: 2,
        ..settings(1, 1)
    });
    let lease = bench.lease(0);
    let (first, _second) = (bench.wait(0), bench.wait(0));
    let refused = bench.pools[0].try_checkout(bench.now());
    assert!(matches!(
        refused,
        Err(CheckoutError::QueueFull { limit: 2 })
    ));
    drop(first);
    let _third = bench.wait(0);
    drop(lease);
}

#[test]
fn a_waiter_that_leaves_passes_on_what_it_was_given() {
    let bench = Bench::new(settings(2, 1));
    for thread in [0, 1] {
        let lease = bench.lease(thread);
        let here = bench.wait(thread);
        let there = bench.wait(1 - thread);
        let mut last = bench.wait(thread);
        lease.checkin(bench.now());
        drop(here);
        drop(there);
        assert_eq!(bench.live(), 1);
        granted_lease(&mut last).checkin(bench.now());
        bench.pools[thread].close_idle();
    }
    assert_eq!(bench.shared.stats().open, 0);
}

#[test]
fn a_connection_that_arrived_for_nobody_is_idle_on_its_new_thread() {
    let bench = Bench::new(settings(2, 1));
    let lease = bench.lease(0);
    let waiting = bench.wait(1);
    lease.checkin(bench.now());
    drop(waiting);
    assert_eq!(
        (bench.pools[0].stats().idle, bench.pools[1].stats().idle),
        (0, 1)
    );
    assert_eq!(bench.lease(1).wire.number, 0);
}

#[test]
fn a_connection_that_breaks_on_its_way_leaves_its_place_to_the_waiter() {
    for every in [1, 2] {
        let bench = Bench::new(settings(2, 1));
        bench
            .world
            .breaks
            .store(every, std::sync::atomic::Ordering::SeqCst);
        let lease = bench.lease(0);
        let mut waiting = bench.wait(1);
        lease.checkin(bench.now());
        assert!(matches!(poll(&mut waiting), Some(Granted::Open(_))));
        assert_eq!(bench.live(), 0);
        drop(waiting);
        assert_eq!(bench.shared.stats().open, 0);
    }
}

#[test]
fn a_look_at_the_idle_connections_shows_each_and_takes_none() {
    let bench = Bench::new(settings(2, 4));
    let (first, second) = (bench.lease(0), bench.lease(0));
    let opened_at = bench.now();
    bench.pass(Duration::from_secs(3));
    first.checkin(bench.now());
    let look = || {
        let mut seen = Vec::new();
        bench.pools[0].each_idle(|_, opened, idle| seen.push((opened, idle)));
        seen
    };
    assert_eq!(look(), [(opened_at, bench.now())]);
    second.checkin(bench.now());
    assert_eq!(look().len(), 2);
    assert_eq!(bench.pools[0].stats().idle, 2);
    bench.pools[1].each_idle(|_, _, _| panic!("it has none"));
}

#[test]
fn a_dead_idle_connection_is_closed_and_replaced() {
    let bench = Bench::new(settings(1, 1));
    let lease = bench.lease(0);
    let wire = Arc::downgrade(&lease.wire);
    lease.checkin(bench.now());
    wire.upgrade()
        .unwrap()
        .dead
        .store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bench.lease(0).wire.number, 1);
    assert!(wire.upgrade().is_none());
}

#[test]
fn retired_connections_are_not_reused() {
    let bench = Bench::new(settings(2, 4));
    let (idle, leased) = (bench.lease(0), bench.lease(0));
    let Checkout::Open(opening) = bench.checkout(1) else {
        panic!("there is room")
    };
    idle.checkin(bench.now());
    bench.shared.retire_all();
    assert_eq!(bench.serve_those_asked(), [0, 1]);
    assert_eq!(bench.pools[0].stats().idle, 0);
    leased.checkin(bench.now());
    bench.fulfil(opening).checkin(bench.now());
    assert_eq!((bench.live(), bench.shared.stats().open), (0, 0));
    bench.lease(0).checkin(bench.now());
    assert_eq!(bench.pools[0].stats().idle, 1);
}

#[test]
fn those_that_were_retired_are_counted_until_the_last_is_closed() {
    let bench = Bench::new(settings(2, 8));
    let (idle, leased) = (bench.lease(0), bench.lease(0));
    let Checkout::Open(opening) = bench.checkout(1) else {
        panic!("there is room")
    };
    idle.checkin(bench.now());
    assert_eq!(bench.shared.retired(), 0);
    bench.shared.retire_all();
    assert_eq!(bench.shared.retired(), 2);
    bench.serve_those_asked();
    assert_eq!(bench.shared.retired(), 1);
    // A new one is none of them.
    let new = bench.lease(0);
    assert_eq!(bench.shared.retired(), 1);
    leased.checkin(bench.now());
    assert_eq!(bench.shared.retired(), 0);
    // It was begun before: once it is open it is one of them.
    let opened = bench.fulfil(opening);
    assert_eq!(bench.shared.retired(), 1);
    opened.checkin(bench.now());
    assert_eq!(bench.shared.retired(), 0);
    bench.shared.retire_all();
    bench.shared.retire_all();
    assert_eq!(bench.shared.retired(), 1);
    drop(new);
    assert_eq!(bench.shared.retired(), 0);
}

#[test]
fn a_smaller_limit_closes_the_surplus_and_no_more() {
    let bench = Bench::new(settings(2, 8));
    let mut leases: Vec<_> = (0..8).map(|number| bench.lease(number / 4)).collect();
    let leased = [leases.pop(), leases.pop()];
    leases
        .into_iter()
        .for_each(|lease| lease.checkin(bench.now()));
    bench.shared.set_limit(5);
    bench.serve_those_asked();
    assert_eq!(bench.live(), 5);
    bench.shared.set_limit(1);
    bench.serve_those_asked();
    assert_eq!(bench.live(), 2, "the leased ones stay until their checkin");
    leased
        .into_iter()
        .flatten()
        .for_each(|lease| lease.checkin(bench.now()));
    assert_eq!((bench.live(), bench.shared.stats().open), (1, 1));
}

#[test]
fn a_larger_limit_serves_waiters_at_once() {
    let bench = Bench::new(settings(1, 1));
    let _lease = bench.lease(0);
    let mut waiting = [bench.wait(0), bench.wait(0)];
    bench.shared.set_limit(2);
    assert!(matches!(poll(&mut waiting[0]), Some(Granted::Open(_))));
    bench.shared.set_limit(0);
}

#[test]
fn reaping_spares_the_minimum_and_the_recently_used() {
    let bench = Bench::new(settings(1, 4));
    let leases: Vec<_> = (0..4).map(|_| bench.lease(0)).collect();
    let minute = Duration::from_secs(60);
    for lease in leases {
        lease.checkin(bench.now());
        bench.pass(minute);
    }
    assert_eq!(bench.pools[0].reap(bench.now(), None, 0), 0);
    assert_eq!(bench.pools[0].reap(bench.now(), Some(3 * minute), 0), 2);
    assert_eq!(bench.pools[0].reap(bench.now(), Some(minute), 1), 1);
    assert_eq!(bench.lease(0).wire.number, 3, "the one used last is left");
}

#[test]
fn a_connection_past_its_lifetime_is_closed_at_checkin_and_by_the_reaper() {
    let hour = Duration::from_secs(3600);
    let bench = Bench::new(Settings {
        lifetime: Some(hour),
        ..settings(1, 4)
    });
    let (leased, idle) = (bench.lease(0), bench.lease(0));
    bench.pass(hour / 2);
    idle.checkin(bench.now());
    bench.pass(hour / 2);
    leased.checkin(bench.now());
    assert_eq!(bench.live(), 1);
    assert_eq!(bench.pools[0].reap(bench.now(), None, 4), 1);
    assert_eq!(bench.shared.stats().open, 0);
}

#[test]
fn a_detached_connection_keeps_its_place_as_long_as_its_permit() {
    let bench = Bench::new(settings(1, 1));
    let (connection, permit) = bench.lease(0).detach();
    let mut waiting = bench.wait(0);
    assert!(poll(&mut waiting).is_none());
    drop(permit);
    assert!(matches!(poll(&mut waiting), Some(Granted::Open(_))));
    drop(connection);
}

#[test]
fn a_closed_part_refuses_checkouts_and_keeps_nothing() {
    let bench = Bench::new(settings(2, 4));
    let (idle, leased) = (bench.lease(0), bench.lease(0));
    idle.checkin(bench.now());
    bench.pools[0].close();
    assert!(matches!(
        bench.pools[0].try_checkout(bench.now()),
        Err(CheckoutError::Draining)
    ));
    leased.checkin(bench.now());
    assert_eq!(bench.live(), 0);
    bench.lease(1).checkin(bench.now());
}

#[test]
fn a_thread_that_ends_gives_its_places_to_the_others() {
    let mut bench = Bench::new(settings(2, 1));
    bench.lease(1).checkin(bench.now());
    let Checkout::Wait(mut waiting) = bench.checkout(0) else {
        panic!("the place is taken")
    };
    bench.pools.truncate(1);
    assert!(matches!(poll(&mut waiting), Some(Granted::Open(_))));
}

#[test]
fn figures_tell_who_waits_longest() {
    let bench = Bench::new(settings(2, 1));
    let _lease = bench.lease(0);
    let since = bench.now();
    let first = bench.wait(1);
    bench.pass(Duration::from_secs(1));
    let second = bench.wait(0);
    let stats = bench.shared.stats();
    assert_eq!(
        (stats.limit, stats.open, stats.idle, stats.waiting),
        (1, 1, 0, 2)
    );
    assert_eq!(stats.oldest_waiting_since, Some(since));
    assert_eq!(
        (first.since(), second.since()),
        (since, since + Duration::from_secs(1))
    );
}

/// A pool of one connection, and a reserve of as many for those who have waited five seconds.
fn with_reserve(count: usize) -> Bench {
    let after = Duration::from_secs(5);
    Bench::new(Settings {
        reserve: Reserve { count, after },
        ..settings(1, 1)
    })
}

#[test]
fn who_has_waited_long_gets_a_connection_of_the_reserve() {
    let bench = with_reserve(1);
    let _leased = bench.lease(0);
    let (mut first, mut second) = (bench.wait(0), bench.wait(0));
    bench.pass(Duration::from_millis(4999));
    bench.pools[0].relieve(bench.now());
    assert!(poll(&mut first).is_none());
    bench.pass(Duration::from_millis(1));
    bench.pools[0].relieve(bench.now());
    assert!(matches!(poll(&mut first), Some(Granted::Open(_))));
    // Given up, it is the second's turn; there is no other.
    bench.pools[0].relieve(bench.now());
    let Some(Granted::Open(permit)) = poll(&mut second) else {
        panic!("no place");
    };
    let mut third = bench.wait(0);
    bench.pass(Duration::from_secs(60));
    bench.pools[0].relieve(bench.now());
    assert!(poll(&mut third).is_none());
    drop(permit);
}

#[test]
fn a_connection_of_the_reserve_is_used_while_somebody_waits_and_then_closed() {
    let bench = with_reserve(1);
    let leased = bench.lease(0);
    let mut waiting = bench.wait(0);
    bench.pass(Duration::from_secs(5));
    bench.pools[0].relieve(bench.now());
    let Some(Granted::Open(permit)) = poll(&mut waiting) else {
        panic!("no place");
    };
    let extra = bench.fulfil(permit);
    let mut next = bench.wait(0);
    extra.checkin(bench.now());
    let extra = granted_lease(&mut next);
    assert_eq!(bench.live(), 2);
    extra.checkin(bench.now());
    assert_eq!(bench.live(), 1, "nobody waits");
    leased.checkin(bench.now());
    assert_eq!(bench.live(), 1);
}

#[test]
fn a_reserve_that_is_taken_away_is_closed_though_somebody_waits() {
    let bench = with_reserve(2);
    let _leased = bench.lease(0);
    let mut waiting = bench.wait(0);
    bench.pass(Duration::from_secs(5));
    bench.pools[0].relieve(bench.now());
    let Some(Granted::Open(permit)) = poll(&mut waiting) else {
        panic!("no place");
    };
    let extra = bench.fulfil(permit);
    let mut next = bench.wait(0);
    bench.shared.set_reserve(Reserve::default());
    extra.checkin(bench.now());
    assert_eq!(bench.live(), 1);
    assert!(poll(&mut next).is_none());
}

#[test]
fn a_pool_is_filled_up_to_its_least_and_never_above_its_limit() {
    let bench = Bench::new(settings(2, 3));
    let first = bench.pools[0].try_fill(2).expect("a place");
    let second = bench.pools[1].try_fill(2).expect("a place");
    assert!(bench.pools[0].try_fill(2).is_none());
    assert!(bench.pools[1].try_fill(2).is_none());
    bench.fulfil(first).checkin(bench.now());
    drop(second);
    assert!(bench.pools[1].try_fill(2).is_some());
    // Not above the limit.
    let all: Vec<_> = (0..3).map(|_| bench.lease(0)).collect();
    assert!(bench.pools[0].try_fill(9).is_none());
    drop(all);
}
