//! A picture of a proxy that does not run, as data: three servers, two databases, some load that grows with each step.
//!
//! The tests of what is served over HTTP look at it, and `examples/page.rs` shows it in a browser.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use pgweir_admin::{
    ClusterFacts, Control, Event, EventKind, Facts, NodeFacts, Operator, Order, Pending, Phase,
    PoolFacts, Refusal, TraceLine, Wanted,
};
use pgweir_config::{Change, Config, Edit};
use pgweir_metrics::{Counts, Destination, Histogram, Statement, StatementKey};
use pgweir_model::{Breaker, Health, Lsn, Node, NodeId, PoolKey, Reason, Role, Topology};
use pgweir_testkit::Rng;

/// What the configuration of the sample says.
pub(crate) const CONFIG: &str = r#"
[clusters.main]
backends = [
  { name = "pg1", host = "10.0.0.11" },
  { name = "pg2", host = "10.0.0.12" },
  { name = "pg3", host = "10.0.0.13", weight = 50 },
]
[databases.app]
[databases.reports]
[[users]]
name = "app"
password = "secret"
[[users]]
name = "report"
password = "secret"
"#;

/// The proxy's past: everything that only rises.
#[derive(Debug)]
pub(crate) struct Sample {
    /// What a question for facts gets.
    pub(crate) facts: Facts,
    rng: Rng,
    statements: Vec<(StatementKey, Statement)>,
    events: Vec<Event>,
    seconds: f64,
}

/// The server that is stopped now and then.
const FRAIL: usize = 2;

const SHAPES: [(&str, &str, bool); 6] = [
    (
        "app",
        "select o.id, o.state, o.total from orders o join customers c on c.id = o.customer_id where c.email = '' order by o.created_at desc limit 0",
        true,
    ),
    (
        "app",
        "update carts set items = '', updated_at = now() where id = 0",
        false,
    ),
    ("app", "select * from products where sku = any('')", true),
    (
        "app",
        "insert into audit_log (actor, action, payload) values ('', '', '')",
        false,
    ),
    (
        "reports",
        "select date_trunc('', created_at) d, count(*), sum(total) from orders group by d order by d",
        true,
    ),
    ("app", "select nextval('')", false),
];

impl Sample {
    /// Returns a proxy that has just been started.
    pub(crate) fn new(seed: u64) -> Self {
        let config = Arc::new(pgweir_config::parse(CONFIG, "sample.toml").unwrap());
        let nodes = config.clusters[0].backends.iter().enumerate();
        let nodes: Vec<Node> = nodes
            .map(|(index, backend)| {
                let id = node_id(index);
                let (name, host) = (backend.name.clone(), backend.host.clone());
                let mut node = Node::unseen(id, name, host, backend.port, backend.weight);
                node.role = Some(if index == 0 {
                    Role::Primary
                } else {
                    Role::Replica
                });
                node.health = Health::Up;
                node.timeline = 3;
                node.within_max_lag = true;
                (node.lag, node.lag_bytes) = (Some(Duration::ZERO), Some(0));
                node
            })
            .collect();
        let since = Some(SystemTime::now());
        let facts = Facts {
            version: "0.1.0",
            started_at: SystemTime::now(),
            taken_at: SystemTime::now(),
            now: Instant::now(),
            phase: Phase::Serving,
            clusters: vec![ClusterFacts {
                name: config.clusters[0].name.clone(),
                nodes: vec![
                    NodeFacts {
                        since,
                        ..NodeFacts::default()
                    };
                    nodes.len()
                ],
                topology: Arc::new(Topology {
                    nodes,
                    primary: Some(0),
                    timeline: 3,
                    ..Topology::default()
                }),
            }],
            config,
            pools: Vec::new(),
            held_databases: Vec::new(),
            client_count: 0,
            client_states: Vec::new(),
            counts: Counts::default(),
            clients: Vec::new(),
            servers: Vec::new(),
            prepared: Vec::new(),
            statements: Vec::new(),
            learned: Vec::new(),
            settings: Vec::new(),
            events: Vec::new(),
        };
        let mut sample = Sample {
            facts,
            rng: Rng::new(seed),
            statements: Vec::new(),
            events: Vec::new(),
            seconds: 0.0,
        };
        sample.say(EventKind::Process, "", "pgweir 0.1.0 is serving");
        sample
    }

    /// Adds an event.
    pub(crate) fn say(&mut self, kind: EventKind, subject: &str, message: &str) {
        self.events.push(Event {
            id: self.events.len() as u64 + 1,
            at: SystemTime::now(),
            kind,
            subject: subject.into(),
            message: message.into(),
        });
    }

    /// Lets the last replica be down, or be up again.
    pub(crate) fn stop_replica(&mut self, is_down: bool) {
        let node = &mut Arc::make_mut(&mut self.facts.clusters[0].topology).nodes[FRAIL];
        let health = if is_down { Health::Down } else { Health::Up };
        if node.health == health {
            return;
        }
        node.health = health;
        node.breaker = if is_down {
            Breaker::Open
        } else {
            Breaker::Closed
        };
        node.within_max_lag = !is_down;
        node.effective_weight = if is_down {
            0
        } else {
            node.weight * Node::WEIGHT_SCALE
        };
        let known = &mut self.facts.clusters[0].nodes[FRAIL];
        known.since = Some(SystemTime::now());
        known.errors += u64::from(is_down);
        known.last_error =
            is_down.then(|| "connecting to 10.0.0.13:5432: connection refused".into());
        let message = if is_down {
            "replica is down"
        } else {
            "replica is up"
        };
        self.say(EventKind::Server, "pg3", message);
    }

    /// Lets some time pass with clients at work.
    pub(crate) fn step(&mut self, seconds: f64) {
        self.seconds += seconds;
        let wave = 1.0 + 0.35 * (self.seconds / 17.0).sin();
        for (database, scale) in [("app", 1.0), ("reports", 0.08)] {
            let reads = self.about(900.0 * wave * scale * seconds);
            let writes = self.about(240.0 * wave * scale * seconds);
            self.work(database, reads, writes);
        }
        self.servers(wave);
        let now = SystemTime::now();
        (self.facts.taken_at, self.facts.now) = (now, Instant::now());
        self.facts.counts.logins += 1;
    }

    /// A number near this one.
    fn about(&mut self, number: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small and positive"
        )]
        let near = (number * (0.9 + 0.2 * self.part())) as u64;
        near
    }

    /// A number from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a number for a made-up picture")]
    fn part(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A duration: most near the middle, a few far beyond.
    fn duration(&mut self, middle_us: f64) -> Duration {
        let spread = (self.part() + self.part() + self.part() - 1.5) * 2.2;
        Duration::from_secs_f64(middle_us * spread.exp() / 1e6)
    }

    fn work(&mut self, database: &str, reads: u64, writes: u64) {
        let primary: Vec<Duration> = (0..writes).map(|_| self.duration(1_400.0)).collect();
        let replica: Vec<Duration> = (0..reads).map(|_| self.duration(420.0)).collect();
        let waits: Vec<Duration> = (0..writes / 20).map(|_| self.duration(900.0)).collect();
        let databases = &mut self.facts.counts.databases;
        let counts = databases.entry(database.into()).or_default();
        counts.transactions += reads + writes;
        counts.queries += reads + writes;
        counts.received_bytes += (reads + writes) * 180;
        counts.sent_bytes += (reads + writes) * 900;
        for (destination, durations) in [
            (Destination::Primary, primary),
            (Destination::Replica, replica),
        ] {
            let histogram = counts.query.entry(destination).or_default();
            durations.iter().for_each(|took| histogram.record(*took));
        }
        waits.iter().for_each(|waited| counts.wait.record(*waited));
        let routes = [
            (Destination::Replica, Reason::Read, reads * 9 / 10),
            (
                Destination::Replica,
                Reason::ReadOnlyTransaction,
                reads / 10,
            ),
            (Destination::Primary, Reason::Write, writes * 7 / 10),
            (Destination::Primary, Reason::NotReplayed, writes / 10),
            (Destination::Primary, Reason::InTransaction, writes / 5),
            (Destination::Local, Reason::Local, writes / 12),
        ];
        for (destination, reason, count) in routes {
            *counts.routes.entry((destination, reason)).or_insert(0) += count;
        }
        *counts.server_errors.entry(*b"23").or_insert(0) += writes / 150;
        *counts.own_errors.entry(*b"57014").or_insert(0) += u64::from(writes > 300);
        self.shapes(database, reads, writes);
    }

    fn shapes(&mut self, database: &str, reads: u64, writes: u64) {
        for (number, (of, shape, is_read)) in (1_u64..).zip(SHAPES) {
            if of != database {
                continue;
            }
            let key = StatementKey {
                database: of.into(),
                fingerprint: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            let calls = if is_read { reads } else { writes } / (number + 1);
            let durations: Vec<Duration> = (0..calls)
                .map(|_| self.duration(500.0 * (number + 1) as f64))
                .collect();
            let (destination, reason) = if is_read {
                (Destination::Replica, Reason::Read)
            } else {
                (Destination::Primary, Reason::Write)
            };
            let place = self.statements.iter().position(|(there, _)| *there == key);
            let place = place.unwrap_or_else(|| {
                let statement = Statement {
                    shape: shape.into(),
                    ..Statement::default()
                };
                self.statements.push((key, statement));
                self.statements.len() - 1
            });
            for took in durations {
                self.statements[place]
                    .1
                    .record(destination, reason, took, 3);
            }
        }
    }

    fn servers(&mut self, wave: f64) {
        let lag = Duration::from_secs_f64(0.004 + 0.02 * self.part());
        let slow = Duration::from_secs_f64((1.2 + (self.seconds / 9.0).sin()).max(0.0));
        let ClusterFacts {
            topology, nodes, ..
        } = &mut self.facts.clusters[0];
        let topology = Arc::make_mut(topology);
        topology.published_at = Some(Instant::now());
        let mut busy = BTreeMap::new();
        for (index, node) in topology.nodes.iter_mut().enumerate() {
            if node.health == Health::Up {
                node.position = Lsn(node.position.0 + 100_000);
                let lags = [Duration::ZERO, lag, slow];
                node.lag = Some(lags[index]);
                node.lag_bytes = Some(u64::try_from(lags[index].as_micros()).unwrap() * 4);
                busy.insert(node.id, wave);
            }
            let known = &mut nodes[index];
            known.in_flight = if busy.contains_key(&node.id) {
                3 + index
            } else {
                0
            };
            let counts = self.facts.counts.nodes.entry(node.id).or_default();
            counts.queries += if busy.contains_key(&node.id) { 400 } else { 0 };
            counts.query.record(Duration::from_micros(700));
        }
        self.pools(wave);
    }

    fn pools(&mut self, wave: f64) {
        self.facts.pools.clear();
        for (database, user, limit) in [("app", "app", 20_usize), ("reports", "report", 5)] {
            for index in 0..3 {
                let is_down = self.facts.clusters[0].topology.nodes[index].health != Health::Up;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "small and positive"
                )]
                let in_use = (limit as f64 * 0.6 * wave * (1.0 - 0.2 * index as f64)) as usize;
                let in_use = if is_down { 0 } else { in_use.min(limit) };
                let idle = if is_down { 0 } else { (limit - in_use) / 2 };
                let waiting = if index == 0 && wave > 1.25 { 4 } else { 0 };
                self.facts.pools.push(PoolFacts {
                    key: PoolKey {
                        node: node_id(index),
                        database: database.into(),
                        user: user.into(),
                    },
                    database: database.into(),
                    limit,
                    open: in_use + idle,
                    idle,
                    waiting,
                    oldest_wait: (waiting > 0).then_some(Duration::from_millis(180)),
                });
            }
        }
        let active = self.facts.pools.iter().map(PoolFacts::in_use).sum();
        self.facts.client_states = vec![
            ("app".into(), [active, 4, 61]),
            ("reports".into(), [2, 0, 7]),
        ];
        self.facts.client_count = active + 4 + 61 + 9;
    }
}

/// Returns the id of a server of the only cluster.
pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId {
        cluster: 0,
        node: u16::try_from(index).unwrap(),
    }
}

/// Gives out the sample, and does nothing.
#[derive(Debug)]
pub(crate) struct SampleControl {
    /// What is shown.
    pub(crate) sample: Mutex<Sample>,
    /// What was asked for so far.
    pub(crate) asked: Mutex<Vec<Wanted>>,
}

impl SampleControl {
    /// Returns one of a new sample.
    pub(crate) fn new(sample: Sample) -> Arc<Self> {
        Arc::new(SampleControl {
            sample: Mutex::new(sample),
            asked: Mutex::new(Vec::new()),
        })
    }
}

fn refusal() -> Refusal {
    Refusal {
        sqlstate: *b"0A000",
        message: "this is a sample".to_owned(),
        detail: None,
        hint: None,
    }
}

impl Control for SampleControl {
    fn facts(&self, wanted: Wanted) -> Pending<'_, Facts> {
        self.asked.lock().unwrap().push(wanted);
        let sample = self.sample.lock().unwrap();
        let mut facts = sample.facts.clone();
        if wanted.statements {
            facts.statements.clone_from(&sample.statements);
        }
        if wanted.events {
            facts.events.clone_from(&sample.events);
        }
        Box::pin(async { facts })
    }

    fn change<'a>(
        &'a self,
        _: &'a [Edit],
        _: &'a Arc<Config>,
        _: &'a Operator,
    ) -> Pending<'a, Result<Vec<Change>, Refusal>> {
        Box::pin(async { Err(refusal()) })
    }

    fn config_diff(&self) -> Result<Vec<Change>, Refusal> {
        Err(refusal())
    }

    fn order<'a>(&'a self, _: Order, _: &'a Operator) -> Pending<'a, Result<String, Refusal>> {
        Box::pin(async { Err(refusal()) })
    }

    fn explain(
        &self,
        _: &str,
        _: Option<&str>,
        _: Option<&str>,
    ) -> Result<Vec<[String; 4]>, Refusal> {
        Err(refusal())
    }

    fn trace(
        &self,
        _: u32,
    ) -> Pending<'_, Result<tokio::sync::mpsc::Receiver<TraceLine>, Refusal>> {
        Box::pin(async { Err(refusal()) })
    }
}

/// Returns a histogram of one duration.
pub(crate) fn histogram(us: u64) -> Histogram {
    let mut histogram = Histogram::default();
    histogram.record(Duration::from_micros(us));
    histogram
}
