//! Two clients with different settings and roles on one server connection, for as many statements as an hour of an
//! application has: neither ever sees what the other one set.
//!
//! A model of PostgreSQL's rules (a transaction undoes, `SET LOCAL` ends with it, savepoints) says what each statement must
//! see. Every choice is drawn from a seed; `SEED=` replays a run. `PGWEIR_SESSION_STATEMENTS` asks for a longer one.

use std::collections::VecDeque;

use pgweir_testkit::{
    Answer, Client, Login, Rng, append_parse, append_undescribed, eventually, patience,
};
use pgweir_wire::{TransactionStatus, frontend};

use crate::support::{PASSWORD, Proxy, USER, cluster, config};

/// What a client may change, and the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    TimeZone,
    SearchPath,
    Role,
    Tag,
}

const PARAMETERS: [Parameter; 4] = [
    Parameter::TimeZone,
    Parameter::SearchPath,
    Parameter::Role,
    Parameter::Tag,
];

/// Time zones, and how each shows the same moment.
const ZONES: [(&str, &str); 5] = [
    ("UTC", "2020-01-01 00:00:00+00"),
    ("Asia/Tokyo", "2020-01-01 09:00:00+09"),
    ("Europe/Paris", "2020-01-01 01:00:00+01"),
    ("America/New_York", "2019-12-31 19:00:00-05"),
    ("Australia/Sydney", "2020-01-01 11:00:00+11"),
];
const MOMENT: &str = "'2020-01-01 00:00:00+00'::timestamptz::text";

/// Search paths; the first schema's table is the one that is found.
const PATHS: [&str; 4] = ["red", "blue", "blue, red", "red, public, blue"];
const ROLES: [&str; 3] = ["none", "tester_a", "tester_b"];

/// A value of each parameter, in the order of [`PARAMETERS`].
type Values = [String; 4];

/// What PostgreSQL's rules say about the settings of a session.
struct Model {
    /// What `RESET` goes back to: what the client logged in with.
    defaults: Values,
    /// Outside of a transaction.
    session: Values,
    /// Inside of one: what holds now, and what will hold if it commits.
    transaction: Option<(Values, Values)>,
    /// The same, as of each open savepoint.
    savepoints: Vec<(Values, Values)>,
}

impl Model {
    fn new(defaults: Values) -> Self {
        Self {
            session: defaults.clone(),
            defaults,
            transaction: None,
            savepoints: Vec::new(),
        }
    }

    fn now(&self) -> &Values {
        self.transaction
            .as_ref()
            .map_or(&self.session, |(now, _)| now)
    }

    fn set(&mut self, parameter: Parameter, value: &str, local: bool) {
        let at = parameter as usize;
        match &mut self.transaction {
            Some((now, kept)) => {
                value.clone_into(&mut now[at]);
                if !local {
                    value.clone_into(&mut kept[at]);
                }
            }
            // `SET LOCAL` outside of a transaction does nothing.
            None if local => {}
            None => value.clone_into(&mut self.session[at]),
        }
    }

    fn end(&mut self, commit: bool) {
        self.savepoints.clear();
        if let Some((_, kept)) = self.transaction.take()
            && commit
        {
            self.session = kept;
        }
    }
}

/// A client, what it must see, and its own random choices.
struct Player {
    name: &'static str,
    client: Client,
    model: Model,
    count: usize,
    /// Whether it has the prepared statement of [`Self::run_prepared`].
    has_prepared: bool,
    /// What it sent lately, for the message of a failure.
    history: VecDeque<String>,
}

impl Player {
    fn new(proxy: &Proxy, database: &str, name: &'static str, zone: &str, path: &str) -> Self {
        let login = Login::new(USER, database)
            .password(PASSWORD)
            .parameter("TimeZone", zone)
            .parameter("options", &format!("-c search_path={path}"));
        let defaults = [zone, path, "none", ""].map(str::to_owned);
        let mut player = Self {
            name,
            client: Client::open(proxy.addr(), &login).expect("a login"),
            model: Model::new(defaults),
            count: 0,
            has_prepared: false,
            history: VecDeque::new(),
        };
        // SHOW knows a parameter with a prefix only once it is set.
        player.set(Parameter::Tag, "first", false);
        player
    }

    fn note(&mut self, sql: &str) {
        self.count += 1;
        self.history.truncate(14);
        self.history.push_front(sql.to_owned());
    }

    #[track_caller]
    fn run(&mut self, sql: &str) -> Answer {
        self.note(sql);
        let answer = if self.count.is_multiple_of(3) && !sql.contains(';') {
            self.client.execute(sql, &[])
        } else {
            self.client.query(sql)
        };
        answer.unwrap_or_else(|error| panic!("{}: {sql}: {error}", self.name))
    }

    #[track_caller]
    fn ok(&mut self, sql: &str) -> Answer {
        let answer = self.run(sql);
        assert_eq!(answer.error(), None, "{}: {:#?}", self.name, self.history);
        answer
    }

    #[track_caller]
    fn fails(&mut self, sql: &str, sqlstate: &str) {
        let answer = self.run(sql);
        let got = answer.sqlstate();
        assert_eq!(
            got.as_deref(),
            Some(sqlstate),
            "{}: {:#?}",
            self.name,
            self.history
        );
    }

    #[track_caller]
    fn set(&mut self, parameter: Parameter, value: &str, local: bool) {
        let scope = if local { "LOCAL " } else { "" };
        let sql = match parameter {
            Parameter::TimeZone if value.len().is_multiple_of(2) => {
                format!("SET {scope}TIME ZONE '{value}'")
            }
            Parameter::TimeZone => format!("SET {scope}TimeZone TO '{value}'"),
            Parameter::SearchPath => format!("SET {scope}search_path = {value}"),
            Parameter::Role => format!("SET {scope}ROLE {value}"),
            Parameter::Tag => format!("SET {scope}my.tag = '{value}'"),
        };
        self.ok(&sql);
        self.model.set(parameter, value, local);
    }

    #[track_caller]
    fn reset(&mut self, parameter: Parameter) {
        self.ok(match parameter {
            Parameter::TimeZone => "RESET TimeZone",
            Parameter::SearchPath => "SET search_path TO DEFAULT",
            Parameter::Role => "RESET ROLE",
            Parameter::Tag => "RESET my.tag",
        });
        let value = self.model.defaults[parameter as usize].clone();
        self.model.set(parameter, &value, false);
    }

    /// What the statements of [`Self::look`] must return: user, moment, what the table says.
    fn seen(&self) -> [String; 3] {
        let [zone, path, role, _] = self.model.now();
        let user = if role == "none" { USER } else { role };
        let moment = ZONES.iter().find(|(name, _)| name == zone);
        let first = path.split(',').next().expect("a schema");
        [user, moment.expect("a known zone").1, first].map(str::to_owned)
    }

    /// Reads the settings back, in one of several ways, and checks what the server reported.
    #[track_caller]
    fn look(&mut self, rng: &mut Rng) {
        if rng.chance(1, 5) {
            return self.run_prepared();
        }
        let [user, moment, whoami] = self.seen();
        let [zone, path, role, tag] = self.model.now().clone();
        let (sql, expected) = match rng.below(8) {
            0 => (
                "SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('role'), \
                 current_setting('my.tag')",
                vec![zone, path, role, tag],
            ),
            1 => ("SHOW TimeZone", vec![zone]),
            2 => ("SHOW search_path", vec![path]),
            3 => ("SHOW my.tag", vec![tag]),
            4 => ("SHOW role", vec![role]),
            5 => (
                "INSERT INTO public.seen VALUES (current_user, '2020-01-01 00:00:00+00'::timestamptz::text) RETURNING *",
                vec![user, moment],
            ),
            _ => (
                "SELECT current_user, '2020-01-01 00:00:00+00'::timestamptz::text, v FROM whoami",
                vec![user, moment, whoami],
            ),
        };
        let rows = self.ok(sql).rows();
        let expected: Vec<Option<String>> = expected.into_iter().map(Some).collect();
        assert_eq!(rows, [expected], "{}: {:#?}", self.name, self.history);
    }

    /// Runs a named statement that both clients prepared with the same text, so that they share it on the server: its names
    /// are looked up in the path of the client that runs it.
    #[track_caller]
    fn run_prepared(&mut self) {
        let expected = self.seen().map(Some).to_vec();
        let sql = "SELECT current_user, '2020-01-01 00:00:00+00'::timestamptz::text, v FROM whoami";
        let mut batch = Vec::new();
        if !self.has_prepared {
            append_parse(&mut batch, "look", sql);
            self.has_prepared = true;
        }
        append_undescribed(&mut batch, "look");
        frontend::Sync.encode(&mut batch);
        self.note("the prepared statement");
        self.client.send(&batch).expect("sent");
        let answer = self.client.until_ready().expect("an answer");
        assert_eq!(
            answer.rows(),
            [expected],
            "{}: {:#?}",
            self.name,
            self.history
        );
    }

    /// Draws and plays a change of a setting.
    #[track_caller]
    fn change(&mut self, rng: &mut Rng) {
        let parameter = *rng.pick(&PARAMETERS).expect("one");
        if rng.chance(1, 6) {
            return self.reset(parameter);
        }
        let tag = format!("{} {}", self.name, self.count);
        let value = match parameter {
            Parameter::TimeZone => rng.pick(&ZONES).expect("one").0,
            Parameter::SearchPath => rng.pick(&PATHS).expect("one"),
            Parameter::Role => rng.pick(&ROLES).expect("one"),
            Parameter::Tag => &tag,
        };
        self.set(parameter, value, rng.chance(1, 3));
    }

    /// Plays something outside of a transaction: mostly a look, as an application does.
    #[track_caller]
    fn act(&mut self, rng: &mut Rng) {
        match rng.below(40) {
            0..3 => self.change(rng),
            3 => {
                self.fails("SET TimeZone = 'Nowhere/Land'", "22023");
            }
            4 => {
                self.fails("SET search_path = red; SELECT 1 / 0", "22012");
            }
            5 => {
                // RESET ALL leaves the role alone.
                self.ok("RESET ALL");
                let role = self.model.session[Parameter::Role as usize].clone();
                self.model.session = self.model.defaults.clone();
                self.model.session[Parameter::Role as usize] = role;
            }
            6 => {
                self.ok("DISCARD ALL");
                self.has_prepared = false;
                self.model.session = self.model.defaults.clone();
            }
            7..11 => self.transaction(rng),
            11 => {
                let answer = self.ok(&format!("SET my.tag = 'together'; SELECT {MOMENT}"));
                assert_eq!(answer.value(), Some(self.seen()[1].clone()));
                self.model.set(Parameter::Tag, "together", false);
            }
            _ => self.look(rng),
        }
        let reported = self.client.parameter("TimeZone").map(str::to_owned);
        assert_eq!(
            reported.as_ref(),
            self.model.now().first(),
            "{}: {:#?}",
            self.name,
            self.history
        );
    }

    /// Plays a whole transaction: the other client would wait for the only connection.
    #[track_caller]
    fn transaction(&mut self, rng: &mut Rng) {
        let begin = [
            "BEGIN",
            "START TRANSACTION",
            "BEGIN READ ONLY",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
        ];
        let begin = *rng.pick(&begin).expect("one");
        self.ok(begin);
        self.model.transaction = Some((self.model.session.clone(), self.model.session.clone()));
        for _ in 0..rng.below(12) {
            match rng.below(10) {
                0..3 => self.change(rng),
                3 => {
                    self.ok("SAVEPOINT a");
                    let transaction = self.model.transaction.clone().expect("in a transaction");
                    self.model.savepoints.push(transaction);
                }
                4 if !self.model.savepoints.is_empty() => {
                    self.ok("ROLLBACK TO a");
                    self.model.transaction = self.model.savepoints.last().cloned();
                }
                5 if !self.model.savepoints.is_empty() => {
                    self.ok("RELEASE a");
                    self.model.savepoints.pop();
                }
                6 if !self.model.savepoints.is_empty() => {
                    self.fails("SELECT 1 / 0", "22012");
                    self.fails("SET my.tag = 'lost'", "25P02");
                    self.ok("ROLLBACK TO SAVEPOINT a");
                    self.model.transaction = self.model.savepoints.last().cloned();
                }
                _ if begin == "BEGIN READ ONLY" => {
                    let expected = self.seen().map(Some).to_vec();
                    let sql = format!("SELECT current_user, {MOMENT}, v FROM whoami");
                    assert_eq!(self.ok(&sql).rows(), [expected], "{}", self.name);
                }
                _ => self.look(rng),
            }
        }
        match rng.below(4) {
            0 => {
                self.fails("SELECT 1 / 0", "22012");
                // A failed transaction is rolled back by COMMIT, too.
                self.ok("COMMIT");
                self.model.end(false);
            }
            1 => {
                self.ok("ROLLBACK");
                self.model.end(false);
            }
            _ => {
                self.ok("COMMIT");
                self.model.end(true);
            }
        }
        assert_eq!(self.client.status(), TransactionStatus::Idle);
    }
}

/// What the clients look at: a table in two schemas, and roles that may read it. The database is the test's alone, as it
/// counts the connections to it.
fn prepare(database: &str) {
    static ROLES_ARE_MADE: std::sync::Once = std::sync::Once::new();
    ROLES_ARE_MADE.call_once(|| {
        let roles = format!(
            "CREATE ROLE tester_a; CREATE ROLE tester_b; GRANT tester_a, tester_b TO {USER}"
        );
        cluster().sql("postgres", &roles).expect(&roles);
    });
    let create = format!("CREATE DATABASE {database} OWNER {USER}");
    cluster().sql("postgres", &create).expect(&create);
    let schema = "CREATE SCHEMA red; CREATE SCHEMA blue; \
                  CREATE TABLE red.whoami AS SELECT 'red' AS v; CREATE TABLE blue.whoami AS SELECT 'blue' AS v; \
                  CREATE TABLE public.seen (who text, what text); \
                  GRANT USAGE ON SCHEMA red, blue TO PUBLIC; \
                  GRANT ALL ON red.whoami, blue.whoami, public.seen TO PUBLIC";
    cluster().sql(database, schema).expect("the schema");
    cluster()
        .wait_caught_up(patience::PATIENCE)
        .expect("replayed");
}

/// Returns how many statements to play: `default`, or what the environment asks for.
fn statements(default: usize) -> usize {
    match std::env::var("PGWEIR_SESSION_STATEMENTS") {
        Ok(text) => text.parse().expect("PGWEIR_SESSION_STATEMENTS is a number"),
        Err(_) => default,
    }
}

/// Plays two clients against one connection per server, and returns how many reads ran on a replica.
fn play(database: &str, config: &str, statements: usize) -> usize {
    prepare(database);
    let mut rng = Rng::from_env();
    let proxy = Proxy::start_ready(config);
    let mut players = [
        Player::new(&proxy, database, "one", "Asia/Tokyo", "red"),
        Player::new(&proxy, database, "two", "UTC", "blue"),
    ];
    let mut on_replicas = 0;
    let mut turns = 0_usize;
    while players.iter().map(|player| player.count).sum::<usize>() < statements {
        let who = rng.below(2);
        let player = &mut players[who];
        player.act(&mut rng);
        turns += 1;
        if turns.is_multiple_of(50) {
            let show = |client: &mut Client, name| {
                let answer = client.query(&format!("SHOW pgweir.{name}"));
                answer.expect("an answer").value().unwrap_or_default()
            };
            assert_eq!(show(&mut player.client, "pinned"), "", "{}", player.name);
            on_replicas +=
                usize::from(show(&mut player.client, "last_route").starts_with("replica"));
        }
    }
    let servers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}' AND datname = '{database}'"
    );
    // One that was closed is gone a moment later.
    eventually!(["0", "1"].contains(&cluster().sql(database, &servers).expect("a count").trim()));
    on_replicas
}

#[test]
fn two_clients_share_one_server_connection_and_never_see_each_others_settings() {
    let narrow = config(cluster()).replace("[databases.\"*\"]", "[databases.\"*\"]\npool_size = 1");
    let primary_only: Vec<&str> = narrow
        .lines()
        .filter(|line| !line.contains("name = \"replica"))
        .collect();
    let on_replicas = play(
        "on_one_server",
        &primary_only.join("\n"),
        statements(20_000),
    );
    assert_eq!(on_replicas, 0);
}

#[test]
fn two_clients_share_one_connection_of_every_server_and_never_see_each_others_settings() {
    let narrow = config(cluster()).replace("[databases.\"*\"]", "[databases.\"*\"]\npool_size = 1");
    let on_replicas = play("on_every_server", &narrow, statements(10_000));
    assert!(on_replicas > 0, "no read ran on a replica");
}
