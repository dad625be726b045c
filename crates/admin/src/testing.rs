//! A picture of a proxy for the tests, with something in every part, and a control that hands it out and writes down what it
//! is asked to do.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use pgweir_config::{Change, Config, Edit, Section, SettingRow, SettingSource};
use pgweir_metrics::{Counts, DatabaseCounts, Destination, NodeCounts, Statement, StatementKey};
use pgweir_model::{Health, Lsn, Node, NodeId, PinReason, PoolKey, Reason, Role, Topology};
use tokio::sync::mpsc;

use crate::control::{Control, Operator, Order, Pending, Phase, Refusal, TraceLine};
use crate::facts::{
    ClientFacts, ClientState, ClusterFacts, Event, EventKind, Facts, LearnedRoute, NodeFacts,
    PoolFacts, PreparedStatement, ServerFacts, ServerState, Wanted,
};

const CONFIG: &str = r#"
[admin]
users = ["admin"]
viewers = ["viewer"]
statement_timeout = "2s"
[clusters.main]
backends = [{ name = "pg1", host = "127.0.0.1", port = 5501 }, { name = "pg2", host = "127.0.0.1", port = 5502, weight = 50, zone = "a" }]
[databases.app]
pool_size = 7
[[users]]
name = "app"
password = "secret"
[[users]]
name = "admin"
password = "secret"
[[users]]
name = "viewer"
password = "secret"
[[rules]]
name = "reports"
match = { user = "app", tables = ["orders", "public.items"], regex = "a.*b" }
action = { route = "replica", max_lag = "30s" }
[[rules]]
match = { kind = "ddl" }
action = { block = "no changes of the schema" }
"#;

pub(crate) fn config() -> Config {
    pgweir_config::parse(CONFIG, "test").expect("a valid file")
}

fn node(index: u16, name: &str, role: Role, now: Instant) -> Node {
    let id = NodeId {
        cluster: 0,
        node: index,
    };
    let mut node = Node::unseen(id, name.into(), "127.0.0.1".into(), 5501 + index, 100);
    node.role = Some(role);
    node.health = Health::Up;
    node.timeline = 1;
    node.position = Lsn(0x0300_0000 - u64::from(index) * 16);
    node.asked_at = Some(now);
    node.lag_bytes = Some(u64::from(index) * 16);
    node.lag = Some(Duration::from_millis(u64::from(index) * 5));
    node.within_max_lag = true;
    node
}

fn pool(index: u16, waiting: usize) -> PoolFacts {
    PoolFacts {
        key: PoolKey {
            node: NodeId {
                cluster: 0,
                node: index,
            },
            database: "app".into(),
            user: "app".into(),
        },
        database: "app".into(),
        limit: 7,
        open: 3,
        idle: 1,
        waiting,
        oldest_wait: (waiting > 0).then_some(Duration::from_micros(1_500_250)),
    }
}

fn client(id: u32, state: ClientState) -> ClientFacts {
    let at = UNIX_EPOCH + Duration::from_micros(1_796_009_171_000_125);
    ClientFacts {
        id,
        user: "app".into(),
        database: "app".into(),
        application: "test".into(),
        address: "10.0.0.1:40000".into(),
        local_address: "127.0.0.1:6432".into(),
        is_tls: false,
        state,
        in_transaction: state == ClientState::Active,
        pins: match state {
            ClientState::Active => vec![PinReason::Listen, PinReason::TempTable],
            _ => Vec::new(),
        },
        node: Some(NodeId {
            cluster: 0,
            node: 1,
        }),
        role: Some(Role::Replica),
        server_process_id: Some(4711),
        last_route: Some((Role::Replica, Reason::Read)),
        wait: Duration::from_micros(1_500_250),
        query: Some("select ''".into()),
        connected_at: at,
        moved_at: at,
        transaction_since: (state == ClientState::Active).then_some(at),
        received_bytes: 100,
        sent_bytes: 200,
        prepared_statements: 2,
    }
}

fn counts() -> Counts {
    let mut app = DatabaseCounts {
        transactions: 500,
        queries: 1_000,
        received_bytes: 10_000,
        sent_bytes: 20_000,
        ..DatabaseCounts::default()
    };
    let query = app.query.entry(Destination::Replica).or_default();
    query.record(Duration::from_millis(3));
    app.routes.insert((Destination::Replica, Reason::Read), 900);
    app.routes
        .insert((Destination::Primary, Reason::Write), 100);
    let mut node = NodeCounts {
        queries: 900,
        connect_failures: 1,
        last_error: Some("refused".into()),
        ..NodeCounts::default()
    };
    node.query.record(Duration::from_millis(3));
    let mut counts = Counts::default();
    counts.databases.insert("app".into(), app);
    counts.nodes.insert(
        NodeId {
            cluster: 0,
            node: 1,
        },
        node,
    );
    counts
}

fn setting(section: Section, path: &str, name: &'static str, value: &str) -> SettingRow {
    SettingRow {
        section,
        path: path.to_owned(),
        name,
        value: Some(value.to_owned()),
        running: None,
        unit: "",
        takes: "text".to_owned(),
        default: Some("5s"),
        source: SettingSource::File,
        is_changeable: true,
        needs_restart: false,
        about: "About it.",
    }
}

#[expect(clippy::too_many_lines, reason = "it is data")]
/// A picture a hundred seconds after the start.
pub(crate) fn facts() -> Facts {
    let now = Instant::now();
    let taken_at = UNIX_EPOCH + Duration::from_micros(1_796_009_172_000_125);
    let shape: Arc<str> = "select ''".into();
    let key = StatementKey {
        database: "app".into(),
        fingerprint: 0xABC,
    };
    let mut statement = Statement {
        shape: Arc::clone(&shape),
        ..Statement::default()
    };
    statement.record(
        Destination::Replica,
        Reason::Read,
        Duration::from_millis(3),
        1,
    );
    Facts {
        version: "0.1.0",
        started_at: taken_at - Duration::from_secs(100),
        taken_at,
        now,
        phase: Phase::Serving,
        config: Arc::new(config()),
        clusters: vec![ClusterFacts {
            name: "main".into(),
            topology: Arc::new(Topology {
                version: 3,
                nodes: vec![
                    node(0, "pg1", Role::Primary, now),
                    node(1, "pg2", Role::Replica, now),
                ],
                primary: Some(0),
                timeline: 1,
                ..Topology::default()
            }),
            nodes: vec![
                NodeFacts {
                    since: Some(taken_at),
                    ..NodeFacts::default()
                };
                2
            ],
        }],
        pools: vec![pool(0, 0), pool(1, 4)],
        held_databases: vec![("app".into(), false, false)],
        client_count: 4,
        client_states: vec![("app".into(), [1, 1, 1])],
        counts: counts(),
        clients: vec![
            client(1, ClientState::Active),
            client(2, ClientState::Waiting),
            client(3, ClientState::Idle),
        ],
        servers: vec![ServerFacts {
            key: pool(1, 0).key,
            process_id: 4711,
            state: ServerState::Active,
            client: Some(1),
            connected_at: taken_at,
            moved_at: taken_at,
            prepared_statements: 1,
            address: "127.0.0.1:5502".into(),
        }],
        prepared: vec![PreparedStatement {
            name: "p1".into(),
            text: "select $1".into(),
            clients: 2,
        }],
        statements: vec![(key, statement)],
        learned: vec![LearnedRoute {
            fingerprint: 0xDEF,
            shape,
        }],
        settings: vec![
            setting(
                Section::Cluster("main".to_owned()),
                "clusters.main",
                "max_lag",
                "5s",
            ),
            setting(
                Section::Database("app".to_owned()),
                "databases.app",
                "pool_size",
                "7",
            ),
            setting(Section::RuleAction(1), "rules.1.action", "max_lag", "30s"),
        ],
        events: vec![Event {
            id: 1,
            at: taken_at,
            kind: EventKind::Primary,
            subject: "main".into(),
            message: "pg1 is the primary".into(),
        }],
    }
}

/// What a control was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Facts(Wanted),
    Change(Vec<Edit>),
    Order(Order),
    Explain(String, Option<String>, Option<String>),
}

/// A control over a picture that stands still.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) asked: Mutex<Vec<Asked>>,
    /// What every change is refused with.
    pub(crate) refuses: Option<Refusal>,
}

impl Recorder {
    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }

    /// What it was asked to do, questions left out.
    pub(crate) fn done(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|one| !matches!(one, Asked::Facts(_)))
            .cloned()
            .collect()
    }
}

/// Takes out what was not asked for: a table that does not ask for what it shows is empty.
fn only(wanted: Wanted, mut facts: Facts) -> Facts {
    if !wanted.sessions {
        facts.clients.clear();
        facts.servers.clear();
    }
    if !wanted.prepared {
        facts.prepared.clear();
    }
    if !wanted.statements {
        facts.statements.clear();
    }
    if !wanted.learned {
        facts.learned.clear();
    }
    if !wanted.settings {
        facts.settings.clear();
    }
    if !wanted.events {
        facts.events.clear();
    }
    facts
}

impl Control for Recorder {
    fn facts(&self, wanted: Wanted) -> Pending<'_, Facts> {
        self.note(Asked::Facts(wanted));
        Box::pin(async move { only(wanted, facts()) })
    }

    fn change<'a>(
        &'a self,
        edits: &'a [Edit],
        _: &'a Arc<Config>,
        _: &'a Operator,
    ) -> Pending<'a, Result<Vec<Change>, Refusal>> {
        Box::pin(async move {
            if let Some(refusal) = &self.refuses {
                return Err(refusal.clone());
            }
            self.note(Asked::Change(edits.to_vec()));
            Ok(Vec::new())
        })
    }

    fn config_diff(&self) -> Result<Vec<Change>, Refusal> {
        Ok(vec![Change {
            key: "clusters.main.max_lag".to_owned(),
            old: Some("5s".to_owned()),
            new: None,
            reloadable: true,
        }])
    }

    fn order<'a>(&'a self, order: Order, _: &'a Operator) -> Pending<'a, Result<String, Refusal>> {
        let hangs = matches!(order, Order::WaitClose { .. });
        self.note(Asked::Order(order));
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok("done".to_owned())
        })
    }

    fn explain(
        &self,
        sql: &str,
        database: Option<&str>,
        user: Option<&str>,
    ) -> Result<Vec<[String; 4]>, Refusal> {
        self.note(Asked::Explain(
            sql.to_owned(),
            database.map(str::to_owned),
            user.map(str::to_owned),
        ));
        Ok(vec![["route", "replica", "read", ""].map(str::to_owned)])
    }

    fn trace(&self, client: u32) -> Pending<'_, Result<mpsc::Receiver<TraceLine>, Refusal>> {
        let (sender, receiver) = mpsc::channel(10);
        for line in ["F\t10\tQuery", "B\t5\tReadyForQuery"] {
            sender.try_send(format!("{client}\t{line}")).unwrap();
        }
        Box::pin(async move { Ok(receiver) })
    }
}
