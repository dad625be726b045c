//! Twin sessions: each client of a script has a session on the primary and one through the proxy, says the same to both, and
//! must hear the same from both.
//!
//! Both live on the same cluster, in two databases, so that all texts are equal.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pgweir_testkit::{Client, ClientError, Login, patience};

use super::{
    heard::{Heard, differing_parameters, is_idle},
    step::Step,
};
use crate::support::{PASSWORD, Proxy, USER, cluster, config};

/// Clients from this number on are superusers, with a pool of their own.
pub(super) const FIRST_SUPERUSER: usize = 6;
/// Server connections of a pool: fewer than clients, so that they take turns on the same ones.
const POOL_SIZE: usize = 2;

const SCHEMA: &str = include_str!("schema.sql");
/// Types of `t.k`, by client.
const TYPES: [&str; 3] = ["int", "text", "bigint"];

/// Two databases and a proxy for one of them.
#[derive(Debug)]
pub(super) struct Twins {
    proxy: Proxy,
    direct: String,
    databases: [String; 2],
    step_patience: Duration,
}

/// How the two answers to a step of the client differ.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) client: usize,
    pub(super) text: String,
}

impl Failure {
    fn of(client: usize, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { client, text }
    }
}

/// Where a script ended in which nothing differed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reached {
    End,
    /// At a client that would wait for a server that only other clients can free: no script to play.
    Stuck,
}

impl Twins {
    /// Makes the two databases, named after the test, and starts the proxy.
    pub(super) fn start(test: &str) -> Self {
        let databases = [format!("{test}_direct"), format!("{test}_proxied")];
        make_roles();
        for database in &databases {
            let run = |database: &str, sql: &str| cluster().sql(database, sql).expect("it is made");
            run(
                "postgres",
                &format!("CREATE DATABASE {database} OWNER {USER}"),
            );
            // What all could write to would make clients depend on each other.
            run(database, "DROP SCHEMA public");
        }
        cluster()
            .wait_caught_up(patience::PATIENCE)
            .expect("the replicas have them");
        let primary = cluster().primary();
        Self {
            proxy: Proxy::start_ready(&proxy_config()),
            direct: format!("{}:{}", primary.host(), primary.port()),
            databases,
            step_patience: patience::PATIENCE,
        }
    }

    /// Sets how long an answer is waited for.
    pub(super) fn set_step_patience(&mut self, patience: Duration) {
        self.step_patience = patience;
    }

    /// Opens fresh sessions of these clients, on fresh schemas.
    pub(super) fn stage(
        &self,
        clients: impl IntoIterator<Item = usize>,
    ) -> Result<Stage<'_>, Failure> {
        let mut stage = Stage {
            twins: self,
            pairs: BTreeMap::new(),
        };
        let clients: Vec<usize> = clients.into_iter().collect();
        for client in &clients {
            self.make_schema(*client)?;
        }
        let caught_up = cluster().wait_caught_up(patience::PATIENCE);
        assert!(caught_up.is_ok(), "the replicas lack the schemas");
        for client in clients {
            let pair = self.open(client, &[])?;
            pair.settings_are_equal(client)?;
            stage.pairs.insert(client, pair);
        }
        stage.pairs.values_mut().for_each(Pair::wait_for_replicas);
        Ok(stage)
    }

    /// Makes the client's schema, by sessions of its own: through the proxy, too, which learns of it so.
    fn make_schema(&self, client: usize) -> Result<(), Failure> {
        let pair = self.open(client, &[])?;
        let sql = SCHEMA
            .replace("{me}", &schema_of(client))
            .replace("{type}", TYPES[client % TYPES.len()])
            .replace("{user}", user_of(client));
        for mut session in [pair.direct, pair.proxy] {
            let failed = |error: ClientError| Failure::of(client, format!("the schema: {error}"));
            let answer = session.query(&sql).map_err(failed)?;
            if let Some(error) = answer.error() {
                let text = format!("the schema: {}", error.comparable());
                return Err(Failure::of(client, text));
            }
            session.terminate().map_err(failed)?;
        }
        Ok(())
    }

    fn open(&self, client: usize, parameters: &[(&str, &str)]) -> Result<Pair, Failure> {
        let session = |address: &str, database: &str| {
            let password = if client < FIRST_SUPERUSER {
                PASSWORD
            } else {
                cluster().password()
            };
            let mut login = Login::new(user_of(client), database).password(password);
            if !parameters
                .iter()
                .any(|(name, value)| *name == "search_path" || value.contains("search_path"))
            {
                login = login.parameter("search_path", &schema_of(client));
            }
            for (name, value) in parameters {
                login = login.parameter(name, value);
            }
            let mut session = Client::connect(address)?.patience(self.step_patience);
            session.login(&login)?;
            Ok(session)
        };
        let failed = |error: ClientError| Failure::of(client, format!("login: {error}"));
        let [direct, proxied] = &self.databases;
        Ok(Pair {
            direct: session(&self.direct, direct).map_err(failed)?,
            proxy: session(self.proxy.addr(), proxied).map_err(failed)?,
            holds: None,
        })
    }

    /// Returns how many transactions the replicas have run for the proxy so far.
    pub(super) fn replica_transactions(&self) -> u64 {
        let [_, proxied] = &self.databases;
        let sql = format!(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{proxied}'"
        );
        let count = |n| -> u64 {
            let text = cluster()
                .replica(n)
                .sql("postgres", &sql)
                .expect("statistics");
            text.parse().expect("a number")
        };
        count(0) + count(1)
    }
}

/// Returns the schema of a client.
pub(super) fn schema_of(client: usize) -> String {
    format!("s{client}")
}

/// Returns the role that a client logs in as.
pub(super) fn user_of(client: usize) -> &'static str {
    if client < FIRST_SUPERUSER {
        USER
    } else {
        cluster().superuser()
    }
}

fn make_roles() {
    static MADE: Mutex<bool> = Mutex::new(false);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*made {
        let sql = format!(
            "CREATE ROLE diff_reader; CREATE ROLE diff_writer; GRANT diff_reader, diff_writer TO {USER}"
        );
        cluster().sql("postgres", &sql).expect("the roles are made");
        *made = true;
    }
}

/// Two threads and a pool of two: servers pass between clients, and between threads.
fn proxy_config() -> String {
    // The replicas are looked at often, so that reads soon after a write run there, too.
    let main = config(cluster())
        .replace("[clusters.main]\n", "[clusters.main]\nlag_poll = \"5ms\"\n")
        .replace(
            "cluster = \"main\"\n",
            &format!("cluster = \"main\"\npool_size = {POOL_SIZE}\n"),
        );
    let (user, password) = (cluster().superuser(), cluster().password());
    format!(
        "auth.method = \"trust\"\n[server]\nworkers = 2\n{main}\n[[users]]\nname = \"{user}\"\npassword = \"{password}\"\n"
    )
}

/// A client's two sessions.
#[derive(Debug)]
struct Pair {
    direct: Client,
    proxy: Client,
    /// Whether its session may hold a server connection of the proxy's; `None` when it is not known.
    holds: Option<bool>,
}

impl Pair {
    fn settings_are_equal(&self, client: usize) -> Result<(), Failure> {
        let text: String = differing_parameters(self.direct.parameters(), self.proxy.parameters())
            .map(|(name, left, right)| format!("{name}:\n- {left:?}\n+ {right:?}\n"))
            .collect();
        if text.is_empty() {
            Ok(())
        } else {
            Err(Failure::of(client, text))
        }
    }

    /// Waits until the session's reads may run on a replica and the proxy knows what functions do, so that a script finds the
    /// same each time that it is played.
    fn wait_for_replicas(&mut self) {
        let route = |session: &mut Client| {
            let answer = session.query("EXPLAIN ROUTE SELECT f_stable(1)").ok()?;
            answer.rows().pop()
        };
        let is_replica = |row: Vec<Option<String>>| {
            row.get(1)
                .is_some_and(|text| text.as_deref() == Some("replica"))
        };
        let may = patience::wait_until(patience::PATIENCE, || {
            route(&mut self.proxy).is_some_and(is_replica)
        });
        let why = (
            route(&mut self.proxy),
            self.proxy.query("SHOW pgweir.pinned"),
        );
        assert!(may, "no replica may serve reads: {why:?}");
    }

    /// Returns whether the session holds a server connection, as far as the proxy says so.
    fn holds(&mut self) -> bool {
        *self.holds.get_or_insert_with(|| {
            !is_idle(&self.proxy)
                || self
                    .proxy
                    .query("SHOW pgweir.pinned")
                    .ok()
                    .and_then(|answer| answer.value())
                    .is_none_or(|reason| !reason.is_empty())
        })
    }
}

/// Sessions that play a script.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    twins: &'a Twins,
    pairs: BTreeMap<usize, Pair>,
}

impl Stage<'_> {
    /// Returns the transaction status byte of the client.
    pub(super) fn status(&self, client: usize) -> u8 {
        self.pairs
            .get(&client)
            .map_or(b'I', |pair| pair.direct.status().as_byte())
    }

    /// Returns whether the client holds a server connection of the proxy's.
    pub(super) fn holds(&mut self, client: usize) -> bool {
        self.pairs.get_mut(&client).is_some_and(Pair::holds)
    }

    /// Returns how many server connections are free for clients of this one's pool that hold none.
    pub(super) fn free(&mut self, client: usize) -> usize {
        let is_of_pool = |other: &usize| (*other < FIRST_SUPERUSER) == (client < FIRST_SUPERUSER);
        let held = self
            .pairs
            .iter_mut()
            .filter(|(other, _)| is_of_pool(other))
            .filter_map(|(_, pair)| pair.holds().then_some(()));
        POOL_SIZE.saturating_sub(held.count())
    }

    /// Returns whether the client can go on without another one's help.
    pub(super) fn may_play(&mut self, client: usize) -> bool {
        self.holds(client) || self.free(client) > 0
    }

    /// Plays a whole script.
    pub(super) fn play_all(&mut self, steps: &[Step]) -> Result<Reached, Failure> {
        let mut rest = steps;
        while !rest.is_empty() {
            let together = rest.iter().take_while(|step| step.with_next).count() + 1;
            let (now, later) = rest.split_at(together.min(rest.len()));
            for step in now {
                if !self.may_play(step.client) {
                    return Ok(Reached::Stuck);
                }
            }
            self.play(now)?;
            rest = later;
        }
        Ok(Reached::End)
    }

    /// Sends these steps, of different clients, at once, and compares the answers to each.
    pub(super) fn play(&mut self, steps: &[Step]) -> Result<(), Failure> {
        if let [step] = steps
            && let Some(parameters) = step.connect()
        {
            return self.reconnect(step.client, &parameters);
        }
        let mut due = Vec::new();
        for step in steps {
            let client = step.client;
            let pair = self.pairs.get_mut(&client).expect("a client of the stage");
            let (bytes, ready_count) = step.encode().unwrap_or_else(|error| panic!("{error}"));
            due.push((client, ready_count, is_idle(&pair.direct)));
            pair.holds = None;
            for session in [&mut pair.direct, &mut pair.proxy] {
                session
                    .send(&bytes)
                    .map_err(|error| Failure::of(client, error.to_string()))?;
            }
        }
        due.into_iter()
            .try_for_each(|(client, ready_count, was_idle)| {
                let pair = self.pairs.get_mut(&client).expect("a client of the stage");
                let direct = Heard::hear(&mut pair.direct, ready_count);
                let proxy = Heard::hear(&mut pair.proxy, ready_count);
                if was_idle && direct.is_refusal_to_replan() && proxy.is_free_of_errors() {
                    return Ok(());
                }
                match direct.difference(&proxy) {
                    Some(text) => Err(Failure::of(client, text)),
                    None if direct.has_ended() => Err(Failure::of(client, "both sessions ended")),
                    None => Ok(()),
                }
            })
    }

    fn reconnect(&mut self, client: usize, parameters: &[(&str, &str)]) -> Result<(), Failure> {
        if let Some(pair) = self.pairs.remove(&client) {
            for session in [pair.direct, pair.proxy] {
                session
                    .terminate()
                    .map_err(|error| Failure::of(client, format!("goodbye: {error}")))?;
            }
        }
        let pair = self.twins.open(client, parameters)?;
        let settings = pair.settings_are_equal(client);
        self.pairs.insert(client, pair);
        settings?;
        // A new session may read an older state than the one before it has written: it writes itself, and reads that.
        let touch = format!(
            "begin read write; update {}.touched set n = n + 1; commit",
            schema_of(client)
        );
        self.play(&[Step::new(client, &format!("Query \"{touch}\""))])
    }
}
