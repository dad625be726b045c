//! What torture clients say: one of everything that the protocol has, with random sizes, each statement with its token.

use std::collections::HashMap;

use pgweir_testkit::Rng;
use pgweir_wire::backend::tag;

use super::talk::{Talk, Want};

/// The table that all of them write to; `token` is indexed.
pub(super) const TABLE: &str = "torture";

/// A statement's text that all clients prepare under the same names; `{}` is the variant.
const VARIANTS: usize = 9;

/// Talks that follow one another: the next is sent when the last has been answered.
pub(super) struct Scenario {
    pub(super) talks: Vec<Talk>,
    /// The session keeps its server connection afterwards, so it must end.
    pub(super) pins: bool,
}

impl From<Talk> for Scenario {
    fn from(talk: Talk) -> Self {
        vec![talk].into()
    }
}

impl From<Vec<Talk>> for Scenario {
    fn from(talks: Vec<Talk>) -> Self {
        Self { talks, pins: false }
    }
}

/// One life of a client: its tokens and the statements that it has prepared.
pub(super) struct Speaker {
    client: usize,
    spoken: usize,
    /// By name, the variant that it stands for.
    prepared: HashMap<String, usize>,
    /// The application name that it logged in with.
    pub(super) application: String,
}

impl Speaker {
    /// `life` is a number that no other life has.
    pub(super) fn new(life: usize, rng: &mut Rng) -> Self {
        Self {
            client: life,
            spoken: 0,
            prepared: HashMap::new(),
            application: format!("torture-{}", rng.below(3)),
        }
    }

    fn token(&mut self) -> String {
        self.spoken += 1;
        format!("t{}-{}", self.client, self.spoken)
    }

    /// Draws what the client does next.
    pub(super) fn speak(&mut self, rng: &mut Rng) -> Scenario {
        match rng.below(100) {
            0..12 => self.read().into(),
            12..18 => self.several().into(),
            18..24 => self.fails_in_the_middle().into(),
            24..32 => self.write().into(),
            32..38 => self.write_and_read_again().into(),
            38..46 => self.transaction(rng).into(),
            46..52 => self.unnamed(rng).into(),
            52..64 => self.named(rng).into(),
            64..73 => self.pipeline(rng).into(),
            73..75 => self.pipeline_in_transaction(rng).into(),
            75 => self.large_parameter(rng).into(),
            76..80 => self.large_result(rng).into(),
            80..84 => self.copy_out(rng).into(),
            84..88 => self.copy_in(rng).into(),
            88..91 => self.suspended(rng).into(),
            91..94 => self.slow(rng).into(),
            94..97 => self.probe().into(),
            97..99 => self.leaves_state(rng),
            _ => self.changes_schema(rng).into(),
        }
    }

    fn read(&mut self) -> Talk {
        let token = self.token();
        Talk::new()
            .query(&format!("SELECT '{token}'"))
            .result(&[&token])
            .ready()
    }

    fn several(&mut self) -> Talk {
        let (a, b) = (self.token(), self.token());
        Talk::new()
            .query(&format!(
                "SELECT '{a}'; SELECT '{b}', 2; SELECT '{a}' || '{b}'"
            ))
            .result(&[&a])
            .result(&[&b, "2"])
            .result(&[&format!("{a}{b}")])
            .ready()
    }

    fn fails_in_the_middle(&mut self) -> Talk {
        let token = self.token();
        Talk::new()
            .query(&format!(
                "SELECT '{token}'; SELECT 1 / (n - 1) FROM generate_series(1, 2) n; SELECT '{token} not reached'"
            ))
            .result(&[&token])
            .want([Want::Tag(tag::ROW_DESCRIPTION), Want::Error("22012")])
            .ready()
    }

    fn write(&mut self) -> Talk {
        let token = self.token();
        Talk::new()
            .query(&format!(
                "INSERT INTO {TABLE} VALUES ('{token}') RETURNING token"
            ))
            .want([Want::Tag(tag::ROW_DESCRIPTION), Want::Row(vec![token])])
            .complete("INSERT 0 1")
            .ready()
    }

    fn write_and_read_again(&mut self) -> Vec<Talk> {
        let token = self.token();
        let sql = format!("SELECT token FROM {TABLE} WHERE token = '{token}'");
        vec![
            Talk::new()
                .query(&format!("INSERT INTO {TABLE} VALUES ('{token}')"))
                .complete("INSERT 0 1")
                .ready(),
            Talk::new().query(&sql).result(&[&token]).ready(),
        ]
    }

    fn transaction(&mut self, rng: &mut Rng) -> Vec<Talk> {
        let token = self.token();
        let (begin, read_only) = match rng.below(3) {
            0 => ("BEGIN READ ONLY", true),
            _ => ("BEGIN", false),
        };
        let within = |talk: Talk| talk.want([Want::Ready(b'T')]);
        let mut talks = vec![
            within(Talk::new().query(begin).complete("BEGIN")),
            within(
                Talk::new()
                    .query(&format!("SELECT '{token}'"))
                    .result(&[&token]),
            ),
        ];
        if !read_only {
            let sql = format!("INSERT INTO {TABLE} VALUES ('{token}')");
            talks.push(within(Talk::new().query(&sql).complete("INSERT 0 1")));
        }
        if rng.chance(1, 4) {
            let sql = format!("SELECT '{token}'::int");
            let failed = Talk::new().query(&sql).want([Want::Error("22P02")]);
            talks.push(failed.want([Want::Ready(b'E')]));
            talks.push(Talk::new().query("COMMIT").complete("ROLLBACK").ready());
        } else if rng.chance(1, 2) {
            talks.push(Talk::new().query("COMMIT").complete("COMMIT").ready());
        } else {
            talks.push(Talk::new().query("ROLLBACK").complete("ROLLBACK").ready());
        }
        if rng.chance(1, 3) {
            talks = vec![talks.into_iter().fold(Talk::new(), Talk::then)];
        }
        talks
    }

    /// A text that is prepared once, or one that all clients share.
    fn unnamed(&mut self, rng: &mut Rng) -> Talk {
        let token = self.token();
        if rng.chance(1, 2) {
            Talk::new()
                .parse("", &format!("SELECT '{token}' || $1::text"))
                .bind("", "", &["!"])
                .execute_one(&format!("{token}!"))
                .sync()
        } else {
            Talk::new()
                .parse("", "SELECT $1::text")
                .describe_statement("")
                .bind("", "", &[&token])
                .execute_one(&token)
                .sync()
        }
    }

    /// All clients prepare different texts under the same few names.
    fn named(&mut self, rng: &mut Rng) -> Talk {
        let name = format!("s{}", rng.below(3));
        let token = self.token();
        let mut talk = Talk::new();
        if rng.chance(1, 5) && self.prepared.remove(&name).is_some() {
            talk = talk.close_statement(&name);
        }
        let variant = match self.prepared.get(&name) {
            Some(variant) => *variant,
            None => {
                let variant = rng.below(VARIANTS);
                let sql = format!("SELECT $1::text || '/{variant}'");
                self.prepared.insert(name.clone(), variant);
                talk = talk.parse(&name, &sql);
                variant
            }
        };
        if rng.chance(1, 6) {
            talk = talk.describe_statement(&name);
        }
        talk.bind("", &name, &[&token])
            .execute_one(&format!("{token}/{variant}"))
            .sync()
    }

    /// Batches, each with its Sync, that are sent without waiting; some fail, at the start or behind a result.
    fn pipeline(&mut self, rng: &mut Rng) -> Talk {
        let mut talk = Talk::new();
        for _ in 0..2 + rng.below(8) {
            let token = self.token();
            talk = match rng.below(8) {
                0 => talk.then(self.read()),
                1 => talk.then(self.write()),
                2 | 3 => talk.then(self.named(rng)),
                4 => talk.then(self.unnamed(rng)),
                5 => talk.then(self.fails_in_the_middle()),
                6 => talk
                    .parse(
                        "",
                        &format!("INSERT INTO {TABLE} VALUES ($1) RETURNING token"),
                    )
                    .bind("", "", &[&token])
                    .execute("", 0)
                    .want([Want::Row(vec![token.clone()])])
                    .complete("INSERT 0 1")
                    .parse("", "SELECT $1::text")
                    .bind("", "", &[&token])
                    .execute_one(&token)
                    .sync(),
                // What follows the error is skipped, and its Parse has not happened.
                _ => talk
                    .parse("", "SELECT $1::text || 'x'")
                    .bind("", "", &[&token])
                    .execute_one(&format!("{token}x"))
                    .parse("", "SELECT $1::int")
                    .bind_unheard("", "", &[&token])
                    .want([Want::Error("22P02")])
                    .execute("", 0)
                    .parse_unheard(
                        "",
                        &format!("SELECT $1::text || '/{}'", rng.below(VARIANTS)),
                    )
                    .parse_unheard(
                        "never",
                        &format!("SELECT $1::text || '/{}'", rng.below(VARIANTS)),
                    )
                    .bind_unheard("", "", &[&token])
                    .execute("", 0)
                    .sync(),
            };
        }
        talk
    }

    /// As [`Self::pipeline`], without failures, in a transaction.
    fn pipeline_in_transaction(&mut self, rng: &mut Rng) -> Vec<Talk> {
        let mut talk = Talk::new();
        for _ in 0..2 + rng.below(6) {
            talk = match rng.below(5) {
                0 => talk.then(self.read()),
                1 => talk.then(self.write()),
                2 | 3 => talk.then(self.named(rng)),
                _ => talk.then(self.unnamed(rng)),
            };
        }
        for want in &mut talk.wants {
            if let Want::Ready(status) = want {
                *status = b'T';
            }
        }
        let begin = Talk::new()
            .query("BEGIN")
            .complete("BEGIN")
            .want([Want::Ready(b'T')]);
        let commit = Talk::new().query("COMMIT").complete("COMMIT").ready();
        if rng.chance(1, 2) {
            vec![begin, talk.then(commit)]
        } else {
            vec![begin.then(talk), commit]
        }
    }

    /// A message that is larger than any buffer.
    fn large_parameter(&mut self, rng: &mut Rng) -> Talk {
        let token = self.token();
        let value = format!("{token} {}", "y".repeat(50_000 + rng.below(300_000)));
        let sql = format!("SELECT left($1::text, {})", token.len());
        let name = if rng.chance(1, 2) { "large" } else { "" };
        self.prepared.remove("large");
        Talk::new()
            .close_statement(name)
            .parse(name, &sql)
            .bind("", name, &[&value])
            .execute_one(&token)
            .sync()
    }

    fn large_result(&mut self, rng: &mut Rng) -> Talk {
        let token = self.token();
        let count = 1 + rng.below(3000);
        let padding = rng.below(200);
        Talk::new()
            .query(&format!(
                "SELECT '{token}:' || n || ' ' || repeat('x', {padding}) FROM generate_series(1, {count}) n"
            ))
            .want([Want::Tag(tag::ROW_DESCRIPTION), Want::Rows { token, count }])
            .complete(&format!("SELECT {count}"))
            .ready()
    }

    fn copy_out(&mut self, rng: &mut Rng) -> Talk {
        let token = self.token();
        let count = 1 + rng.below(2000);
        let sql =
            format!("COPY (SELECT '{token}:' || n FROM generate_series(1, {count}) n) TO STDOUT");
        let talk = if rng.chance(1, 2) {
            Talk::new().query(&sql)
        } else {
            Talk::new()
                .parse("", &sql)
                .bind("", "", &[])
                .execute("", 0)
                .sync_unheard()
        };
        talk.want([
            Want::Tag(tag::COPY_OUT_RESPONSE),
            Want::Lines { token, count },
            Want::Tag(tag::COPY_DONE),
            Want::Complete(format!("COPY {count}")),
        ])
        .ready()
    }

    /// COPY FROM in both protocols, ended, given up, or with a line that does not fit.
    fn copy_in(&mut self, rng: &mut Rng) -> Vec<Talk> {
        let token = self.token();
        let sql = format!("COPY {TABLE} FROM STDIN");
        let is_simple = rng.chance(1, 2);
        let is_blind = rng.chance(1, 3);
        let start = if is_simple {
            Talk::new().query(&sql)
        } else {
            let talk = Talk::new().parse("", &sql).bind("", "", &[]).execute("", 0);
            // libpq sends a Sync at once, which the server ignores; others ask for the reply only.
            match rng.below(2) {
                _ if is_blind => talk,
                0 => talk.sync_unheard(),
                _ => talk.flush(),
            }
        };
        let start = start.want([Want::Tag(tag::COPY_IN_RESPONSE)]);
        let count = 1 + rng.below(400);
        let ending = rng.below(4);
        let mut data = Talk::new();
        for n in 1..=count {
            let line = match ending {
                0 if n == count => format!("{token}:{n}\ttoo many columns\n"),
                _ => format!("{token}:{n}\n"),
            };
            data = data.copy_data(line.as_bytes());
        }
        data = match ending {
            0 => data.copy_done().want([Want::Error("22P04")]),
            1 => data.copy_fail().want([Want::Error("57014")]),
            _ => data.copy_done().complete(&format!("COPY {count}")),
        };
        if !is_simple {
            data = data.sync_unheard();
        }
        // Some send the data without waiting for the server's word. Behind a Sync that would be no COPY data any more.
        if is_blind {
            vec![start.then(data.ready())]
        } else {
            vec![start, data.ready()]
        }
    }

    /// A portal that is fetched from in steps, with Flush in place of Sync.
    fn suspended(&mut self, rng: &mut Rng) -> Vec<Talk> {
        let token = self.token();
        let row = |n: i32| Want::Row(vec![format!("{token}:{n}")]);
        let step = |from: i32| {
            let rows = Talk::new()
                .execute("", 3)
                .flush()
                .want((from..from + 3).map(row));
            rows.want([Want::Tag(tag::PORTAL_SUSPENDED)])
        };
        let sql = "SELECT $1::text || ':' || n FROM generate_series(1, 10) n";
        let mut talks = vec![
            Talk::new()
                .parse("", sql)
                .bind("", "", &[&token])
                .then(step(1)),
        ];
        if rng.chance(1, 2) {
            talks.push(step(4));
            talks.push(
                Talk::new()
                    .execute("", 0)
                    .want((7..=10).map(row))
                    .complete("SELECT 4")
                    .sync(),
            );
        } else {
            talks.push(Talk::new().sync());
        }
        talks
    }

    fn slow(&mut self, rng: &mut Rng) -> Talk {
        let token = self.token();
        let seconds = rng.below(20);
        Talk::new()
            .query(&format!("SELECT '{token}' || pg_sleep(0.0{seconds:02})"))
            .result(&[&token])
            .ready()
    }

    /// Nothing that another session did to the server connection is to be seen.
    pub(super) fn probe(&mut self) -> Talk {
        let token = self.token();
        let application = self.application.clone();
        Talk::new()
            .query(&probe_sql(&token))
            .result(&probe_values(&token, &application))
            .ready()
    }

    /// Leaves something behind on the server connection.
    fn leaves_state(&mut self, rng: &mut Rng) -> Scenario {
        let token = self.token();
        let number = self.client * 1000 + self.spoken;
        let sql = match rng.below(9) {
            0 => "SET work_mem = '3MB'".to_owned(),
            1 => "SET application_name = 'left behind'".to_owned(),
            2 => format!("CREATE TEMP TABLE left_behind AS SELECT '{token}' AS token"),
            3 => format!("SELECT pg_advisory_lock({number})"),
            4 => "LISTEN torture".to_owned(),
            5 => format!("PREPARE left_behind AS SELECT '{token}'"),
            6 => format!("DECLARE left_behind CURSOR WITH HOLD FOR SELECT '{token}'"),
            7 => "SELECT set_config('statement_timeout', '77s', false)".to_owned(),
            _ => "DO $$BEGIN PERFORM set_config('work_mem', '5MB', false); END$$".to_owned(),
        };
        let state = Talk::new().query(&sql).want([Want::AnyUntilReady]);
        Scenario {
            talks: vec![state, self.read(), self.pipeline(rng), self.named(rng)],
            pins: true,
        }
    }

    fn changes_schema(&mut self, rng: &mut Rng) -> Vec<Talk> {
        let table = format!("torture_{}_{}", self.client, self.spoken);
        let sql = match rng.below(2) {
            0 => format!("BEGIN; CREATE TABLE {table} (); DROP TABLE {table}; COMMIT"),
            _ => format!("BEGIN; CREATE TABLE {table} (); ROLLBACK"),
        };
        let talk = Talk::new().query(&sql).want([Want::AnyUntilReady]);
        vec![talk, self.named(rng), self.named(rng)]
    }
}

pub(super) fn probe_sql(token: &str) -> String {
    format!(
        "SELECT '{token}', current_setting('application_name'), current_setting('work_mem'), \
         current_setting('statement_timeout'), \
         (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
         (SELECT count(*) FROM pg_cursors), \
         (SELECT count(*) FROM pg_listening_channels()), \
         (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'), \
         (SELECT count(*) FROM pg_class WHERE relname = 'left_behind' AND pg_table_is_visible(oid))"
    )
}

pub(super) fn probe_values<'a>(token: &'a str, application: &'a str) -> [&'a str; 9] {
    [token, application, "4MB", "0", "0", "0", "0", "0", "0"]
}
