//! Decision cases on a real cluster: each statement of `crates/sql/tests/cases/{documentation,orms,peers}.txt` is explained
//! and run through the proxy, and each read is compared with what the primary answers itself.
//!
//! ## Format
//!
//! `decision marks | reason | SQL`, a line per statement, `\n` in the SQL for a line end, `#` for comments.
//!
//! - The decision is `replica` (a replica may and must be used), `primary`, or `either`.
//! - The marks: `E` and an SQLSTATE, the error that it ends with wherever it runs; `~`, its result is another one each time
//!   or on each server by nature, and is not compared; `!`, it is explained but not run.
//! - The reason is that of `EXPLAIN ROUTE`, `-` for any; behind an ` @` stands what text alone says where that is something
//!   else, for the crate's own test of the same files.
//!
//! The statements of a file really run, in its order and on a database of its own, so that what they create and write is there
//! for those that follow.

use std::{collections::BTreeSet, fs, time::Duration};

use pgweir_devcluster::Cluster;
use pgweir_sql::classify;
use pgweir_testkit::{Answer, Client, Login, patience};
use pgweir_wire::backend::tag;

use crate::support::{PASSWORD, Proxy, USER, cluster, config, root};

/// Cases that are not decided as they should be, each with the reason. A case that passes must leave this list.
const KNOWN_WRONG: &[(&str, &str)] = &[];

/// Time for a decision to become the expected one: until the replicas have replayed and the catalog is loaded.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// Why a read is the primary's for the moment.
const LATE: [&str; 4] = ["not_replayed", "replica_lag", "replica_down", "no_replica"];

struct Case<'a> {
    decision: &'a str,
    marks: Vec<&'a str>,
    reason: &'a str,
    sql: String,
}

impl<'a> Case<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') || line.is_empty() {
            return None;
        }
        let mut fields = line.splitn(3, " | ");
        let mut words = fields.next()?.split(' ');
        let reason = fields.next()?;
        Some(Self {
            decision: words.next()?,
            marks: words.collect(),
            reason: reason.split_once(" @").map_or(reason, |(first, _)| first),
            sql: fields.next()?.replace("\\n", "\n"),
        })
    }

    fn is_marked(&self, mark: &str) -> bool {
        self.marks.contains(&mark)
    }

    fn sqlstate(&self) -> Option<&'a str> {
        self.marks.iter().find_map(|mark| mark.strip_prefix('E'))
    }

    fn allows(&self, decision: &str, reason: &str) -> bool {
        self.decision == decision && (self.reason == "-" || self.reason == reason)
    }
}

/// A database of the shared cluster with both schemas, a proxy, and a session through it and one beside it.
struct Stage {
    database: String,
    proxy: Proxy,
    client: Client,
    direct: Client,
}

/// Creates a database of the shared cluster with both schemas and some rows, and waits until the replicas have it.
pub(crate) fn new_database(database: &str) {
    let cluster = cluster();
    let create = format!("CREATE DATABASE {database} OWNER {USER}");
    cluster.sql("postgres", &create).expect("a database");
    let mut direct = direct_to(cluster, &login_to(database));
    let rows = "INSERT INTO users (email, name) VALUES ('a', 'A'), ('b', 'B'); \
                INSERT INTO orders (user_id, total) VALUES (1, 10), (1, 20), (2, 30); \
                REFRESH MATERIALIZED VIEW totals";
    let [schema, more] =
        ["schema.sql", "schema2.sql"].map(|file| data(&format!("tests/cases/{file}")));
    for sql in [&schema, &more, rows] {
        let answer = direct.query(sql).expect("an answer");
        assert_eq!(answer.error(), None, "{answer:?}");
    }
    cluster
        .wait_caught_up(patience::PATIENCE)
        .expect("replayed");
}

/// Returns a file of the repository, read when the test runs, so that a case can be tried without a build.
pub(crate) fn data(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns what logs in to such a database, with the schema's search path.
pub(crate) fn login_to(database: &str) -> Login {
    Login::new(USER, database)
        .password(PASSWORD)
        .parameter("options", "-c search_path=app")
}

/// Opens a session on the primary itself.
pub(crate) fn direct_to(cluster: &Cluster, login: &Login) -> Client {
    let address = format!("127.0.0.1:{}", cluster.primary().port());
    Client::open(&address, login).expect("a login")
}

impl Stage {
    fn new(database: &str) -> Self {
        new_database(database);
        let login = login_to(database);
        // Many a case waits until a replica is known to have replayed.
        let config = config(cluster()).replace("user = ", "lag_poll = \"20ms\"\nuser = ");
        let proxy = Proxy::start_ready(&config);
        let client = Client::open(proxy.addr(), &login).expect("a login");
        Self {
            database: database.to_owned(),
            proxy,
            client,
            direct: direct_to(cluster(), &login),
        }
    }

    /// Begins a new session, which no pin holds. What the last one wrote is waited for, as the new one does not know of it.
    fn renew(&mut self) {
        cluster()
            .wait_caught_up(patience::PATIENCE)
            .expect("replayed");
        let login = login_to(&self.database);
        self.client = Client::open(self.proxy.addr(), &login).expect("a login");
    }

    fn show(&mut self, name: &str) -> String {
        let answer = self
            .client
            .query(&format!("SHOW {name}"))
            .expect("an answer");
        answer.value().unwrap_or_default()
    }

    /// Returns the decision and reason of `EXPLAIN ROUTE`, once they are what is expected, or after a while.
    ///
    /// What must run on the primary is never said to run on a replica, not even while the catalog is loaded.
    /// Several statements in one message cannot be explained: there, a read is only waited for.
    fn explained(&mut self, case: &Case<'_>, is_one: bool) -> (String, String) {
        if (!is_one || case.sql.starts_with(';')) && case.decision == "primary" {
            return (case.decision.to_owned(), case.reason.to_owned());
        }
        let mut seen = (String::new(), String::new());
        let is_explained = is_one && !case.sql.starts_with(';');
        let sql = if is_explained { &case.sql } else { "SELECT 1" };
        let sql = format!("EXPLAIN ROUTE {sql}");
        patience::wait_until(SETTLED_WITHIN, || {
            let rows = self.client.query(&sql).expect("an answer").rows();
            let Some([step, decision, reason, _]) = rows.last().map(Vec::as_slice) else {
                seen.1 = "no rows".to_owned();
                return true;
            };
            assert_eq!(step.as_deref(), Some("route"), "{sql}");
            seen = (
                decision.clone().unwrap_or_default(),
                reason.clone().unwrap_or_default(),
            );
            let is_unsafe = case.decision == "primary" && seen.0 == "replica";
            is_unsafe || case.allows(&seen.0, &seen.1)
        });
        seen
    }

    /// Plays a case and returns what is wrong with it.
    fn play(&mut self, case: &Case<'_>) -> Vec<String> {
        let mut wrong = Vec::new();
        let is_one = classify(case.sql.as_bytes()).statements.len() == 1;
        if case.decision != "either" {
            let (decision, reason) = self.explained(case, is_one);
            if !case.allows(&decision, &reason) {
                wrong.push(format!("explained as {decision} ({reason})"));
            }
        }
        if case.is_marked("!") {
            return wrong;
        }
        let mut answer = self.client.query(&case.sql).expect("an answer");
        let mut route = self.show("pgweir.last_route");
        // Others use the cluster too, and what they do may hold its replicas up at any moment: that is not what is asked here.
        let is_late = |route: &str| LATE.iter().any(|late| route == format!("primary ({late})"));
        if case.decision == "replica" {
            patience::wait_until(SETTLED_WITHIN, || {
                let is_settled = !is_late(&route);
                if !is_settled {
                    answer = self.client.query(&case.sql).expect("an answer");
                    route = self.show("pgweir.last_route");
                }
                is_settled
            });
        }
        let is_placed = case.sqlstate().is_some_and(|_| case.decision == "replica")
            || case.decision == "either"
            || route.starts_with(case.decision);
        if !is_placed {
            wrong.push(format!("run on {route}"));
        }
        if answer.sqlstate().as_deref() != case.sqlstate() {
            wrong.push(format!(
                "ended with {:?}",
                answer.error().map(|e| e.comparable())
            ));
        }
        if case.decision == "replica" && !case.is_marked("~") {
            wrong.extend(self.compare(case, &answer, is_one));
        }
        let is_changed = !self.show("pgweir.pinned").is_empty();
        if is_changed || case.reason == "primary_only" {
            self.renew();
        }
        wrong
    }

    /// Compares a read with what the primary says, through both protocols.
    fn compare(&mut self, case: &Case<'_>, simple: &Answer, is_one: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let expected = self.direct.query(&case.sql).expect("an answer");
        if comparable(&expected) != comparable(simple) {
            wrong.push(format!("direct {expected:?}, through the proxy {simple:?}"));
        }
        if is_one {
            let expected = self.direct.execute(&case.sql, &[]).expect("an answer");
            let extended = self.client.execute(&case.sql, &[]).expect("an answer");
            if comparable(&expected) != comparable(&extended) {
                wrong.push(format!(
                    "extended: direct {expected:?}, through the proxy {extended:?}"
                ));
            }
        }
        wrong
    }
}

/// Returns what two answers are compared by: everything but the reports of parameters, which come when it suits the server.
pub(crate) fn comparable(answer: &Answer) -> Vec<String> {
    let of_statement = answer
        .0
        .iter()
        .filter(|message| message.tag != tag::PARAMETER_STATUS);
    of_statement.map(|message| message.comparable()).collect()
}

/// Plays the cases of a file; whether those of [`KNOWN_WRONG`] are still wrong is asserted as well.
fn play_all(name: &str, at_least: usize) {
    let text = cases_of(name);
    let mut stage = Stage::new(&format!("cases_{name}"));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for case in text.lines().filter_map(Case::parse) {
        seen += 1;
        let problems = stage.play(&case);
        let is_known = KNOWN_WRONG.iter().any(|(sql, _)| *sql == case.sql);
        match (problems.is_empty(), is_known) {
            (true, true) => wrong.push(format!("is right by now: {}", case.sql)),
            (false, false) => wrong.push(format!(
                "{}\n    expected: {} ({}) {}\n    {}",
                case.sql,
                case.decision,
                case.reason,
                case.marks.join(" "),
                problems.join("\n    ")
            )),
            (true, false) | (false, true) => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(seen >= at_least, "only {seen} cases");
}

fn cases_of(name: &str) -> String {
    data(&format!("crates/sql/tests/cases/{name}.txt"))
}

#[test]
fn the_examples_of_the_documentation_go_where_they_should_and_answer_as_the_primary_does() {
    play_all("documentation", 300);
}

#[test]
fn what_orms_send_goes_where_it_should_and_answers_as_the_primary_does() {
    play_all("orms", 140);
}

#[test]
fn what_other_proxies_fell_into_goes_where_it_should_and_answers_as_the_primary_does() {
    play_all("peers", 130);
}

#[test]
fn every_known_difference_is_that_of_a_case() {
    let texts = ["documentation", "orms", "peers"].map(cases_of);
    let all: BTreeSet<String> = texts
        .iter()
        .flat_map(|text| text.lines().filter_map(Case::parse))
        .map(|case| case.sql)
        .collect();
    for (sql, reason) in KNOWN_WRONG {
        assert!(all.contains(*sql), "no case: {sql}");
        assert!(!reason.is_empty(), "no reason: {sql}");
    }
}
