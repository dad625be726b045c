//! Scripts of one session each (`cases/scripts/*.txt`, which say what a line means): where every statement runs, what pins the
//! session, and that the answers are those of a direct connection that runs the same in a twin database.

use std::{collections::BTreeMap, sync::Once};

use pgweir_testkit::{Answer, Client, append_execute, patience};
use pgweir_wire::{TransactionStatus, frontend};

use crate::{
    cases::{comparable, data, direct_to, login_to, new_database},
    support::{Proxy, USER, cluster, config},
};

/// Scripts that do not play as they should, each with the protocols and the reason. One that does must leave this list.
const KNOWN_WRONG: &[(&str, &[Flavour], &str)] = &[(
    "sequences of the session",
    &Flavour::ALL,
    "currval and lastval know what their server connection drew, and the next statement may have another one",
)];

/// The parameters that a server reports: what a client believes of them must be what a direct connection would say.
const REPORTED: [&str; 10] = [
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "application_name",
    "client_encoding",
    "default_transaction_read_only",
    "in_hot_standby",
    "session_authorization",
    "is_superuser",
    "standard_conforming_strings",
];

/// Which protocol a script is played through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    Simple,
    Extended,
    /// As pgjdbc does: a `BEGIN` is sent in one batch with the statement after it.
    Pipelined,
}

impl Flavour {
    const ALL: [Flavour; 3] = [Flavour::Simple, Flavour::Extended, Flavour::Pipelined];
}

/// One of the two sessions that play a script.
#[derive(Clone, Copy)]
enum Of {
    Direct,
    Proxy,
}

struct Step<'a> {
    route: &'a str,
    sqlstate: Option<&'a str>,
    pinned: &'a str,
    sql: String,
}

impl<'a> Step<'a> {
    fn parse(line: &'a str) -> Self {
        let mut fields = line.splitn(3, " | ");
        let (Some(place), Some(pinned), Some(sql)) = (fields.next(), fields.next(), fields.next())
        else {
            panic!("not of the form route | pinned | SQL: {line}");
        };
        let mut words = place.split(' ');
        Self {
            route: words.next().unwrap_or_default(),
            sqlstate: words.next().and_then(|mark| mark.strip_prefix('E')),
            pinned: if pinned == "-" { "" } else { pinned },
            sql: sql.replace("\\n", "\n"),
        }
    }
}

/// Returns the scripts of a file by name, in order of their names.
fn parse(text: &str) -> BTreeMap<&str, Vec<Step<'_>>> {
    let mut scripts = BTreeMap::new();
    for part in text.split("\n--- ").skip(1) {
        let (name, body) = part.split_once('\n').expect("a name on a line of its own");
        let lines = body.lines().filter(|line| !line.is_empty());
        let known = scripts.insert(name, lines.map(Step::parse).collect());
        assert!(known.is_none(), "two scripts have this name: {name}");
    }
    scripts
}

/// The two sessions that play a script, and what was wrong so far.
struct Player<'a> {
    flavour: Flavour,
    direct: Client,
    client: Client,
    /// What [`Flavour::Pipelined`] has not sent yet.
    begin: Option<String>,
    /// The ports of the primary and of the replicas.
    ports: &'a [u16],
    wrong: Vec<String>,
}

impl Player<'_> {
    fn run(&mut self, of: Of, sql: &str) -> Answer {
        let client = match of {
            Of::Direct => &mut self.direct,
            Of::Proxy => &mut self.client,
        };
        let answer = match (self.flavour, self.begin.as_deref()) {
            (Flavour::Simple, _) => client.query(sql),
            (_, None) => client.execute(sql, &[]),
            (_, Some(begin)) => {
                let mut batch = Vec::new();
                append_execute(&mut batch, begin, &[]);
                append_execute(&mut batch, sql, &[]);
                frontend::Sync.encode(&mut batch);
                client.send(&batch).and_then(|()| client.until_ready())
            }
        };
        answer.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Keeps a `BEGIN` for the batch of the next statement. Returns whether it was one.
    fn keeps(&mut self, sql: &str) -> bool {
        let is_kept = self.flavour == Flavour::Pipelined
            && self.begin.is_none()
            && self.client.status() == TransactionStatus::Idle
            && (sql.starts_with("BEGIN") || sql.starts_with("START"));
        if is_kept {
            self.begin = Some(sql.to_owned());
        }
        is_kept
    }

    fn show(&mut self, name: &str) -> String {
        let answer = self.client.query(&format!("SHOW pgweir.{name}"));
        answer.expect("an answer").value().unwrap_or_default()
    }

    /// Waits until what the session wrote is on a replica, so that where a read goes does not depend on the time.
    fn settle(&mut self) {
        if self.client.status() != TransactionStatus::Idle || !self.show("pinned").is_empty() {
            return;
        }
        patience::wait_until(patience::PATIENCE, || {
            let rows = self
                .client
                .query("EXPLAIN ROUTE SELECT 1")
                .expect("an answer")
                .rows();
            let reason = rows.last().and_then(|row| row.get(2).cloned()).flatten();
            !matches!(
                reason.as_deref(),
                Some("not_replayed" | "replica_lag" | "replica_down")
            )
        });
    }

    /// Plays a step. Returns false when the two sessions have come apart, and what follows would say nothing.
    fn play(&mut self, step: &Step<'_>) -> bool {
        self.settle();
        if self.keeps(&step.sql) {
            return true;
        }
        let expected = self.run(Of::Direct, &step.sql);
        let got = self.run(Of::Proxy, &step.sql);
        self.begin = None;
        let mut wrong = Vec::new();
        let is_place = step.sql == "SHOW port";
        if !is_place && comparable(&expected) != comparable(&got) {
            wrong.push(format!(
                "direct {:?}\n      proxy  {:?}",
                comparable(&expected),
                comparable(&got)
            ));
        }
        if expected.sqlstate().as_deref() != step.sqlstate {
            wrong.push(format!("the script is wrong: {:?}", expected.sqlstate()));
        }
        for name in REPORTED {
            let [direct, proxy] = [&self.direct, &self.client].map(|one| one.parameter(name));
            if direct != proxy {
                wrong.push(format!("{name} is reported as {proxy:?}, not {direct:?}"));
            }
        }
        let same_status = self.direct.status() == self.client.status();
        let is_together = wrong.is_empty() && same_status;
        if self.client.status() != TransactionStatus::Failed {
            self.check_place(step, &got, is_place, &mut wrong);
        }
        for what in wrong {
            self.wrong
                .push(format!("{:?}: {}\n      {what}", self.flavour, step.sql));
        }
        is_together
    }

    fn check_place(
        &mut self,
        step: &Step<'_>,
        got: &Answer,
        is_port: bool,
        wrong: &mut Vec<String>,
    ) {
        let route = self.show("last_route");
        let pinned = self.show("pinned");
        if step.route != "?" && !route.starts_with(step.route) {
            wrong.push(format!("run on {route}, not on the {}", step.route));
        }
        if step.pinned != "?" && pinned != step.pinned {
            wrong.push(format!("pinned by {pinned:?}, not {:?}", step.pinned));
        }
        if is_port && step.route != "?" {
            let port: Option<u16> = got.value().and_then(|port| port.parse().ok());
            let is_primary = port.as_ref() == self.ports.first();
            if port.is_none_or(|port| !self.ports.contains(&port))
                || is_primary != (step.route == "primary")
            {
                wrong.push(format!("port {port:?} is not a {}'s", step.route));
            }
        }
    }
}

/// What is there when a script begins: in both databases, and beside the proxy.
const BEGIN: &str =
    "TRUNCATE s, s_deferred; INSERT INTO s SELECT g, 'row ' || g FROM generate_series(1, 3) g";

fn play_all(file: &str, at_least: usize) {
    let text = scripts_of(file);
    let cluster = cluster();
    create_role();
    let [ours, twin] = ["ours", "twin"].map(|kind| format!("scripts_{file}_{kind}"));
    for database in [&ours, &twin] {
        new_database(database);
    }
    // Many a step waits until a replica is known to have replayed.
    let proxy =
        Proxy::start_ready(&config(cluster).replace("user = ", "lag_poll = \"20ms\"\nuser = "));
    let ports: Vec<u16> = cluster
        .nodes()
        .iter()
        .map(pgweir_devcluster::Node::port)
        .collect();
    let mut wrong = Vec::new();
    let mut steps_seen = 0;
    for (name, steps) in parse(&text) {
        for flavour in Flavour::ALL {
            let is_for_simple_only = steps.iter().any(|step| is_several(&step.sql));
            if flavour != Flavour::Simple && is_for_simple_only {
                continue;
            }
            for database in [&ours, &twin] {
                let answer = direct_to(cluster, &login_to(database)).query(BEGIN);
                assert_eq!(answer.expect("an answer").error(), None);
            }
            cluster
                .wait_caught_up(patience::PATIENCE)
                .expect("replayed");
            let mut player = Player {
                flavour,
                direct: direct_to(cluster, &login_to(&twin)),
                client: Client::open(proxy.addr(), &login_to(&ours)).expect("a login"),
                begin: None,
                ports: &ports,
                wrong: Vec::new(),
            };
            steps_seen += steps.iter().take_while(|step| player.play(step)).count();
            match (player.wrong.is_empty(), is_known_wrong(name, flavour)) {
                (true, false) | (false, true) => {}
                (true, true) => wrong.push(format!("is right by now: {name} ({flavour:?})")),
                (false, false) => {
                    wrong.push(format!("--- {name}\n    {}", player.wrong.join("\n    ")));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(steps_seen >= at_least, "only {steps_seen} steps");
}

fn is_known_wrong(name: &str, flavour: Flavour) -> bool {
    KNOWN_WRONG
        .iter()
        .any(|(known, flavours, _)| *known == name && flavours.contains(&flavour))
}

/// Whether a message holds several statements, which only the simple protocol takes.
fn is_several(sql: &str) -> bool {
    pgweir_sql::classify(sql.as_bytes()).statements.len() > 1
}

/// Creates the role that the scripts change to. Roles belong to the cluster, which both tests share.
fn create_role() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let role = format!("CREATE ROLE s_reader; GRANT s_reader TO {USER}");
        cluster().sql("postgres", &role).expect("a role");
    });
}

fn scripts_of(file: &str) -> String {
    data(&format!("tests/cases/scripts/{file}.txt"))
}

#[test]
fn transactions_run_where_they_should_and_answer_as_a_direct_connection() {
    play_all("transactions", 500);
}

#[test]
fn session_state_follows_the_session_or_pins_it() {
    play_all("session_state", 250);
}

#[test]
fn every_known_difference_is_that_of_a_script() {
    let texts = ["transactions", "session_state"].map(scripts_of);
    for (name, _, reason) in KNOWN_WRONG {
        let is_there = texts.iter().any(|text| parse(text).contains_key(name));
        assert!(is_there, "no script: {name}");
        assert!(!reason.is_empty(), "no reason: {name}");
    }
}
