//! Tests of the pool from outside: single calls, a seeded simulation on one thread, and real threads.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says by which seed"
)]

mod basics;
mod cap;
mod simulation;
mod threads;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pgweir_pool::{Connection, Reserve, Settings};

/// What the servers see: how many connections exist.
#[derive(Debug, Default)]
struct World {
    live: AtomicUsize,
    most: AtomicUsize,
    opened: AtomicUsize,
    /// Every so many connections break when they change threads; 0 for none.
    breaks: AtomicUsize,
    transits: AtomicUsize,
}

/// One connection as the servers see it.
#[derive(Debug)]
struct Wire {
    number: usize,
    world: Arc<World>,
    dead: AtomicBool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.world.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection on a thread; not `Send`, as those on a reactor are.
#[derive(Debug)]
struct Link {
    wire: Arc<Wire>,
    _thread: PhantomData<*const ()>,
}

fn open(world: &Arc<World>) -> Link {
    let live = world.live.fetch_add(1, Ordering::SeqCst) + 1;
    world.most.fetch_max(live, Ordering::SeqCst);
    let number = world.opened.fetch_add(1, Ordering::SeqCst);
    let wire = Wire {
        number,
        world: Arc::clone(world),
        dead: AtomicBool::new(false),
    };
    Link {
        wire: Arc::new(wire),
        _thread: PhantomData,
    }
}

fn is_broken_by_transit(wire: &Wire) -> bool {
    let transits = wire.world.transits.fetch_add(1, Ordering::SeqCst) + 1;
    match wire.world.breaks.load(Ordering::SeqCst) {
        0 => false,
        every => transits.is_multiple_of(every),
    }
}

impl Connection for Link {
    type Transit = Arc<Wire>;

    fn into_transit(self) -> Option<Arc<Wire>> {
        (!is_broken_by_transit(&self.wire)).then_some(self.wire)
    }

    fn from_transit(wire: Arc<Wire>) -> Option<Link> {
        (!is_broken_by_transit(&wire)).then_some(Link {
            wire,
            _thread: PhantomData,
        })
    }

    fn is_usable(&mut self) -> bool {
        !self.wire.dead.load(Ordering::SeqCst)
    }
}

fn settings(threads: usize, limit: usize) -> Settings {
    Settings {
        threads,
        limit,
        queue_limit: usize::MAX,
        overtaking: Some(0),
        lifetime: None,
        reserve: Reserve::default(),
    }
}

/// A small random generator (xorshift64*), so that a failing seed replays.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % end
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
