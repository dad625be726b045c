//! Many sessions on few servers, in random order and with bytes that arrive in random pieces. The oracle is a server of
//! one's own: each client must be given exactly the bytes that it would have got there.
//!
//! A failure names its seed; `SEED=… cargo test -p pgweir-session --test it simulation` plays it again, `TRACE=1` with
//! what each server gets and says. `SECONDS_TO_PLAY=…` goes on for longer, `FIRST_SEED=…`
//! begins elsewhere.

use std::time::{Duration, Instant};

use pgweir_session::{ClientSession, Limits, Tables};
use pgweir_wire::Frames;
use pgweir_wire::backend::tag;

use crate::model::Model;
use crate::notation::{client_bytes, show_client, show_server};
use crate::relay::{Backend, Session};
use crate::rig::{parameters, tables};
use crate::scripts::{Random, Step, Writer};

/// How long it goes on when no seed is given.
const PATIENCE: Duration = Duration::from_millis(2000);

/// Rounds without progress after which a simulation counts as stuck. Not smaller, since each round tries one thing only.
const IDLE_ROUNDS_LIMIT: usize = 20_000;

/// A client, its script and what it must be given.
struct Actor {
    session: Session,
    steps: Vec<Step>,
    /// How far the script has been sent: steps, and bytes of the next.
    sent_steps: usize,
    sent_bytes: usize,
    expected: Vec<u8>,
    /// How many of the expected bytes are due behind each step.
    ends: Vec<usize>,
    /// It has prepared something in a transaction that it did not know yet to have failed. The session that knows the statement
    /// says ParseComplete there, PostgreSQL an error, and what its names mean from then on differs: only whether each of its
    /// batches is answered is looked at any more.
    is_excused: bool,
}

struct Simulation {
    random: Random,
    actors: Vec<Actor>,
    servers: Vec<Backend>,
    tables: Tables,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random(seed);
        let limits = Limits {
            max_message: 1 << 20,
            route_buffer: [1024, 20_000, 64 * 1024][random.below(3)],
            pipeline: [2, 10, 100][random.below(3)],
        };
        let statement_limit = [1, 2, 4, 100][random.below(4)];
        let has_replicas = random.one_in(2);
        let mut servers = vec![Backend::new(statement_limit, false)];
        for _ in 0..random.below(3) {
            let is_replica = has_replicas && random.one_in(2);
            servers.push(Backend::new(statement_limit, is_replica));
        }
        let actors = (0..1 + random.below(4))
            .map(|_| actor(&mut random, limits))
            .collect();
        Simulation {
            random,
            actors,
            servers,
            tables: tables(),
        }
    }

    fn run(&mut self) {
        let mut idle_rounds = 0;
        while self.actors.iter().any(|actor| !actor.is_done()) {
            idle_rounds = if self.round() { 0 } else { idle_rounds + 1 };
            if idle_rounds > IDLE_ROUNDS_LIMIT {
                self.complain_of_standstill();
            }
        }
        for actor in &mut self.actors {
            assert!(actor.session.client.is_settled() && !actor.session.client.is_in_mid_batch());
            assert!(actor.session.input.is_empty(), "input was left over");
            assert_eq!(actor.session.server(), None);
        }
        for server in &mut self.servers {
            assert!(server.to.is_empty() && server.from.is_empty());
            server.check();
        }
    }

    /// Does one thing; returns whether that moved anything.
    fn round(&mut self) -> bool {
        let which = self.random.below(self.actors.len());
        let count = match self.random.below(4) {
            0 => 1 + self.random.below(8),
            1 => 1 + self.random.below(300),
            2 => 1 + self.random.below(20_000),
            _ => usize::MAX,
        };
        let choice = self.random.below(self.servers.len());
        let actor = &mut self.actors[which];
        let moved = match (self.random.below(4), actor.session.server()) {
            (0, _) => actor.send(count),
            (1, Some(server)) => {
                let before = self.servers[server].to.len();
                self.servers[server].serve(count);
                before > 0
            }
            (2, Some(server)) => {
                let before = self.servers[server].from.len();
                if let Err(violation) = actor.session.receive(&mut self.servers, count) {
                    actor.show_steps(actor.step_after(actor.session.got.len()));
                    let got = &actor.session.got;
                    eprintln!(
                        "expected next: {}",
                        show_server(&actor.expected[got.len()..])
                    );
                    panic!("{violation}");
                }
                before > 0
            }
            _ => {
                let before = actor.session.input.len();
                actor
                    .session
                    .process(&mut self.servers, &mut self.tables, choice);
                before != actor.session.input.len()
            }
        };
        actor.check();
        if actor.is_done() {
            actor.session.let_go(&mut self.servers);
        }
        // Somebody changed the schema.
        if self.random.one_in(1000) {
            self.tables.epoch += 1;
        }
        moved
    }

    fn complain_of_standstill(&self) {
        for (number, actor) in self.actors.iter().enumerate() {
            let missing = actor
                .expected
                .get(actor.session.got.len()..)
                .unwrap_or_default();
            eprintln!("client {number}: {}", actor.session.describe(&self.servers));
            eprintln!("missing: {}", show_server(missing));
            actor.show_steps(actor.sent_steps);
        }
        panic!("nothing moves any more");
    }
}

fn actor(random: &mut Random, limits: Limits) -> Actor {
    let number = random.below(3);
    let name = format!("client {number}");
    let settings = [("application_name", &*name)];
    let settings = &settings[..usize::from(number > 0)];
    let parameters = parameters(settings);
    let place = 1 + u64::try_from(number).unwrap();
    let mut own = Model::new(settings);
    let mut writer = Writer {
        random,
        steps: Vec::new(),
        discards: number == 0,
    };
    for _ in 0..12 {
        writer.write();
    }
    // Whatever is open ends.
    let mut steps = writer.steps;
    steps.push(Step {
        bytes: client_bytes("CopyDone | Sync | Query(rollback)"),
        waits: true,
    });
    let mut expected = Vec::new();
    let mut ends = Vec::new();
    for step in &steps {
        expected.extend(own.feed(&step.bytes));
        ends.push(expected.len());
    }
    Actor {
        session: Session::new(ClientSession::new(limits, parameters, place)),
        steps,
        sent_steps: 0,
        sent_bytes: 0,
        expected,
        ends,
        is_excused: false,
    }
}

impl Actor {
    fn is_done(&self) -> bool {
        self.sent_steps == self.steps.len()
            && self.has_got(self.expected.len())
            && self.session.input.is_empty()
    }

    /// Returns whether what is due in the first `count` bytes of what is expected has come.
    fn has_got(&self, count: usize) -> bool {
        let due = &self.expected[..count];
        match self.is_excused {
            true => batches(&self.session.got).0 >= batches(due).0,
            false => self.session.got.len() >= count,
        }
    }

    /// Sends up to `count` bytes of the script, if nothing has to be waited for.
    fn send(&mut self, count: usize) -> bool {
        if self.sent_bytes == 0
            && let Some(last) = self.sent_steps.checked_sub(1)
            && self.steps[last].waits
            && !self.has_got(self.ends[last])
        {
            return false;
        }
        let Some(step) = self.steps.get(self.sent_steps) else {
            return false;
        };
        let end = step.bytes.len().min(self.sent_bytes.saturating_add(count));
        self.session
            .input
            .extend_from_slice(&step.bytes[self.sent_bytes..end]);
        self.sent_bytes = end;
        if end == step.bytes.len() {
            self.sent_steps += 1;
            self.sent_bytes = 0;
        }
        true
    }

    /// Returns the step that the reply behind `count` bytes belongs to.
    fn step_after(&self, count: usize) -> usize {
        self.ends
            .iter()
            .position(|end| *end > count)
            .unwrap_or(self.ends.len() - 1)
    }

    /// Shows what it has sent, with a mark at step `marked`.
    fn show_steps(&self, marked: usize) {
        for (number, step) in self.steps.iter().enumerate().take(self.sent_steps + 1) {
            let mark = if number == marked { "=>" } else { "  " };
            eprintln!(
                "{mark} {} {}",
                show_client(&step.bytes),
                if step.waits { "(waits)" } else { "" }
            );
        }
    }

    /// What it has been given so far must be the beginning of what it is to be given.
    fn check(&mut self) {
        let got = &self.session.got;
        if self.is_excused || self.expected.starts_with(got) {
            return;
        }
        let common = got
            .iter()
            .zip(&self.expected)
            .take_while(|(got, expected)| got == expected)
            .count();
        if batches(&self.expected[..common]).1 {
            self.is_excused = true;
            return;
        }
        let first = self.step_after(common);
        self.show_steps(first);
        let begin = first.checked_sub(1).map_or(0, |before| self.ends[before]);
        eprintln!("expected: {}", show_server(&self.expected[begin..]));
        eprintln!("     got: {}", show_server(&got[begin.min(got.len())..]));
        panic!("the replies differ from byte {common} on");
    }
}

/// Returns how many batches have been answered, and whether the last left a failed transaction.
fn batches(replies: &[u8]) -> (usize, bool) {
    let (mut count, mut has_failed) = (0, false);
    let mut frames = Frames::new(replies);
    while let Ok(Some(frame)) = frames.next() {
        if frame.tag == tag::READY_FOR_QUERY {
            count += 1;
            has_failed = frame.body() == b"E";
        }
    }
    (count, has_failed)
}

/// Names the seed when the simulation panics.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={}", self.0);
        }
    }
}

fn play(seed: u64) {
    let guard = Guard(seed);
    Simulation::new(seed).run();
    drop(guard);
}

#[test]
fn each_client_gets_what_a_server_of_its_own_would_have_sent() {
    if let Ok(seed) = std::env::var("SEED") {
        play(seed.parse().expect("a number"));
        return;
    }
    let seconds = std::env::var("SECONDS_TO_PLAY")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let patience = seconds.map_or(PATIENCE, Duration::from_secs);
    let first = std::env::var("FIRST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or(0);
    let begin = Instant::now();
    let mut seed = first;
    while begin.elapsed() < patience {
        play(seed);
        seed += 1;
    }
    assert!(seed > first + 20, "too few simulations in {patience:?}");
}
