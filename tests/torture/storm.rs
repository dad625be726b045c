//! No desync: clients, servers and connections die at random points, and nobody hears a byte that is not theirs.
//!
//! `PGWEIR_TORTURE_KILLS` sets the number of kills, `SEED` the seed. The order of events between threads is the machine's, so
//! a seed repeats what is said and where it is cut, not every race.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pgweir_devcluster::{Cluster, Node};
use pgweir_testkit::{Client, ClientError, Login, Rng, eventually, patience};
use pgweir_wire::frontend;

use super::{
    scenario::{Speaker, TABLE, probe_sql, probe_values},
    talk::{Heard, Talk, hear},
};
use crate::support::{DATABASE, Proxy, USER, config, login, new_cluster};

/// Kills of a usual test run; it is done in well under a minute.
const KILLS: usize = 1500;

/// Memory that the proxy may have gained over the storm, in bytes: tables fill up to their limits meanwhile.
pub(super) const GROWTH_LIMIT: u64 = 48 << 20;

/// Longer than any storm.
const LONGEST: Duration = Duration::from_secs(3600);

/// A storm of at least so many kills has the primary crash too, which stops everything for seconds.
const CRASH_PRIMARY_FROM: usize = 5000;

/// Stands for the SQLSTATE of a connection that broke while the client was talking.
pub(super) const CUT: &str = "cut";

/// Counts lives over all storms, so that no token comes twice.
static LIVES: AtomicUsize = AtomicUsize::new(0);

/// What the clients of a storm share.
pub(super) struct Storm<'a> {
    proxy: &'a Proxy,
    target: usize,
    /// One life in so many ends by a client's death in the middle of a talk; `None` if none does.
    doom: Option<(usize, usize)>,
    kills: Kills,
    failures: Mutex<Vec<String>>,
    codes: Mutex<BTreeMap<String, usize>>,
    is_over: AtomicBool,
}

/// What died, and what was heard of it.
#[derive(Default)]
struct Kills {
    clients: AtomicUsize,
    servers: AtomicUsize,
    disrupted: AtomicUsize,
    refused: AtomicUsize,
    talks: AtomicUsize,
}

impl<'a> Storm<'a> {
    /// A storm that ends with so many kills.
    fn new(proxy: &'a Proxy, target: usize) -> Self {
        Storm {
            proxy,
            target,
            doom: Some((2, 5)),
            kills: Kills::default(),
            failures: Mutex::default(),
            codes: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Clients that kill nobody, and do not die: what befalls them comes from elsewhere. It lasts until it is ended.
    pub(super) fn of_the_living(proxy: &'a Proxy) -> Self {
        Storm {
            doom: None,
            ..Storm::new(proxy, usize::MAX)
        }
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Returns how many talks were had in full or in part.
    pub(super) fn talks(&self) -> usize {
        self.kills.talks.load(Ordering::Relaxed)
    }

    /// Returns what went wrong.
    pub(super) fn failures(&self) -> Vec<String> {
        let failures = self.failures.lock();
        failures.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how often clients were told of a death, by SQLSTATE.
    pub(super) fn codes(&self) -> BTreeMap<String, usize> {
        let codes = self.codes.lock();
        codes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn disrupted(&self, code: String) {
        count(&self.kills.disrupted);
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        *codes.entry(code).or_default() += 1;
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.kills_so_far() >= self.target
    }

    fn fail(&self, failure: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push(failure);
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Lives on, life after life, until the storm is over.
    pub(super) fn client(&self, mut rng: Rng) {
        while !self.is_over() {
            let life = LIVES.fetch_add(1, Ordering::Relaxed);
            let mut speaker = Speaker::new(life, &mut rng);
            let login = login().parameter("application_name", &speaker.application);
            match Client::open(self.proxy.addr(), &login) {
                Ok(client) => self.life(client, &mut speaker, &mut rng),
                // A server died under the login, or as the proxy asked it for the session's parameters.
                Err(error) if is_disruption(&error) => count(&self.kills.refused),
                Err(error) => self.fail(format!("life {life}: login: {error}")),
            }
        }
    }

    fn life(&self, mut client: Client, speaker: &mut Speaker, rng: &mut Rng) {
        loop {
            let scenario = speaker.speak(rng);
            let is_doomed = self.doom.is_some_and(|(of, all)| rng.chance(of, all));
            let doomed = is_doomed.then(|| rng.below(scenario.talks.len()));
            for (n, talk) in scenario.talks.iter().enumerate() {
                let heard = if doomed == Some(n) {
                    self.die_in(client, talk, rng);
                    return;
                } else {
                    count(&self.kills.talks);
                    say(&mut client, talk, rng)
                };
                match heard {
                    Heard::All | Heard::Enough => {}
                    Heard::Disrupted(code) => return self.disrupted(code),
                    Heard::Wrong(what) | Heard::Cut(what) => {
                        let said = String::from_utf8_lossy(&talk.bytes).into_owned();
                        return self.fail(format!("{what}\nafter {said:.3000}"));
                    }
                }
            }
            if scenario.pins || self.is_over() {
                return end(client, rng);
            }
        }
    }

    /// Says a part of a talk, hears a part of the answer, and is gone.
    fn die_in(&self, mut client: Client, talk: &Talk, rng: &mut Rng) {
        let cut = match rng.below(3) {
            0 => rng.below(talk.bytes.len()),
            _ => talk.bytes.len(),
        };
        let bytes = talk.bytes.get(..cut).unwrap_or_default();
        let sent = if rng.chance(1, 4) && bytes.len() < 2000 {
            client.send_torn(bytes, rng)
        } else {
            client.send(bytes)
        };
        if sent.is_ok() && cut == talk.bytes.len() && rng.chance(2, 3) {
            let most = if rng.chance(1, 2) { 4 } else { 2000 };
            let wants = talk.wants.len().min(most);
            // A part of the wanted rows is enough; what is heard must still be right.
            if let Heard::Wrong(what) | Heard::Cut(what) = hear(
                &mut client,
                &talk.wants,
                Some(rng.below(wants.max(1) + most)),
            ) {
                let said = String::from_utf8_lossy(bytes).into_owned();
                self.fail(format!("{what}\nafter {said:.3000}"));
            }
        }
        count(&self.kills.clients);
        end(client, rng);
    }

    /// Crashes whole servers, as a power failure would, spread over the storm: the replicas, in a long storm the primary too.
    fn crashes(&self, cluster: &Cluster) {
        let replicas = cluster
            .nodes()
            .iter()
            .filter(|node| node.name() != cluster.primary().name());
        let primary = (self.target >= CRASH_PRIMARY_FROM).then(|| cluster.primary());
        let victims: Vec<&Node> = replicas.chain(primary).collect();
        for (n, victim) in victims.iter().enumerate() {
            let at = self.target * (n + 1) / (victims.len() + 1);
            patience::wait_until(LONGEST, || self.is_over() || self.kills_so_far() >= at);
            if self.is_over() {
                return;
            }
            victim.kill().expect("the server is killed");
            victim.start().expect("the server recovers");
            count(&self.kills.servers);
        }
    }

    fn kills_so_far(&self) -> usize {
        self.kills.clients.load(Ordering::Relaxed) + self.kills.servers.load(Ordering::Relaxed)
    }

    /// Terminates random server processes of the proxy's, on all nodes, until the storm is over.
    fn reaper(&self, cluster: &Cluster, mut rng: Rng) {
        let mut connections: HashMap<usize, Client> = HashMap::new();
        while !self.is_over() {
            let n = rng.below(cluster.nodes().len());
            let Some(node) = cluster.nodes().get(n) else {
                return;
            };
            let connection = match connections.remove(&n) {
                Some(connection) => Ok(connection),
                None => superuser(cluster, node),
            };
            let Ok(mut connection) = connection else {
                continue;
            };
            // The pause is the server's, so that the pace is the same whatever the rest does.
            let sql = format!(
                "SELECT pg_sleep({}.0 / 1000); \
                 SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE usename = '{USER}' \
                 ORDER BY state = 'active' DESC, random() LIMIT 1) AS victim",
                1 + rng.below(20)
            );
            if let Ok(answer) = connection.query(&sql) {
                if answer.rows().len() == 2 {
                    count(&self.kills.servers);
                }
                connections.insert(n, connection);
            }
        }
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn superuser(cluster: &Cluster, node: &Node) -> Result<Client, ClientError> {
    let login = Login::new(cluster.superuser(), DATABASE).password(cluster.password());
    Client::open(&format!("{}:{}", node.host(), node.port()), &login)
}

fn is_disruption(error: &ClientError) -> bool {
    let codes = ["57P01", "57P02", "57P03", "08006"];
    error
        .sqlstate()
        .is_some_and(|code| codes.contains(&code.as_str()))
}

fn say(client: &mut Client, talk: &Talk, rng: &mut Rng) -> Heard {
    let is_torn = talk.bytes.len() < 2000 && rng.chance(1, 6);
    let sent = if is_torn {
        client.send_torn(&talk.bytes, rng)
    } else {
        client.send(&talk.bytes)
    };
    match sent {
        Ok(()) => hear(client, &talk.wants, None),
        // The server died while the client was still talking; the reason may be there to be read.
        Err(_) => match hear(client, &talk.wants, None) {
            Heard::Cut(_) => Heard::Disrupted(CUT.to_owned()),
            heard => heard,
        },
    }
}

/// The ways to go: a reset, an end without a word, a goodbye.
fn end(mut client: Client, rng: &mut Rng) {
    match rng.below(5) {
        0 | 1 => client.reset(),
        2 | 3 => drop(client),
        _ => {
            // Whether it arrives is no matter: the client is gone.
            let _sent = client.send(&frontend::Terminate::BYTES);
        }
    }
}

pub(super) fn small_pool(cluster: &Cluster, pool_size: usize, server: &str) -> String {
    let config = config(cluster).replace(
        "cluster = \"main\"\n",
        &format!("cluster = \"main\"\npool_size = {pool_size}\n"),
    );
    // Clients need not prove who they are: the storm is about sessions, and SCRAM would take most of its time.
    format!("auth.method = \"trust\"\n[server]\nworkers = 2\n{server}\n{config}")
}

fn kills_wanted() -> usize {
    match std::env::var("PGWEIR_TORTURE_KILLS") {
        Ok(text) => text.parse().expect("PGWEIR_TORTURE_KILLS is a number"),
        Err(_) => KILLS,
    }
}

#[test]
fn no_client_hears_a_byte_of_another_whoever_dies_and_when() {
    let mut rng = Rng::from_env();
    let cluster = new_cluster(2);
    make_table(&cluster);
    let pool_size = 4 + rng.below(5);
    let clients = 50 + rng.below(51);
    let server = "query_wait_timeout = \"60s\"\nprepared_statements_per_server = 8";
    let proxy = Proxy::start_ready(&small_pool(&cluster, pool_size, server));
    let kills = kills_wanted();
    let first = storm(&proxy, &cluster, clients, kills.div_ceil(5), &mut rng);
    check_pools(&proxy, &cluster, pool_size);
    let before = proxy.resident_bytes();
    let second = storm(
        &proxy,
        &cluster,
        clients,
        kills - kills.div_ceil(5),
        &mut rng,
    );
    check_pools(&proxy, &cluster, pool_size);
    if kills < CRASH_PRIMARY_FROM {
        check_no_temporary_table(&cluster);
    }
    let after = proxy.resident_bytes();
    report(&format!(
        "pool_size {pool_size}, {clients} clients\n{first}\n{second}\nresident: {} KiB, then {} KiB",
        before >> 10,
        after >> 10
    ));
    assert!(
        after < before + GROWTH_LIMIT,
        "resident memory grew from {before} to {after} bytes"
    );
}

/// Makes the table that the clients write to.
pub(super) fn make_table(cluster: &Cluster) {
    let sql = format!(
        "CREATE TABLE {TABLE} (token text); CREATE INDEX ON {TABLE} (token); ALTER TABLE {TABLE} OWNER TO {USER}; \
         GRANT CREATE ON SCHEMA public TO {USER}"
    );
    cluster.sql(DATABASE, &sql).expect("the table is made");
    cluster
        .wait_caught_up(patience::PATIENCE)
        .expect("the replicas have it");
}

/// Lets it storm until there have been so many kills; returns what happened, for the report.
fn storm(proxy: &Proxy, cluster: &Cluster, clients: usize, kills: usize, rng: &mut Rng) -> String {
    let storm = Storm::new(proxy, kills);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            let rng = rng.fork();
            let storm = &storm;
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, move || storm.client(rng))
                .expect("a thread");
        }
        let rng = rng.fork();
        let storm = &storm;
        scope.spawn(move || storm.reaper(cluster, rng));
        scope.spawn(move || storm.crashes(cluster));
    });
    let took = started.elapsed();
    let failures = storm.failures();
    let Kills {
        clients,
        servers,
        disrupted,
        refused,
        talks,
    } = storm.kills;
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    format!(
        "{clients:?} clients and {servers:?} servers killed in {took:.1?}, {talks:?} talks in full; \
         {disrupted:?} were told of a server's death, {refused:?} at login"
    )
}

#[expect(
    clippy::print_stderr,
    reason = "what a run with PGWEIR_TORTURE_KILLS did is to be known"
)]
pub(super) fn report(text: &str) {
    eprintln!("{text}");
}

/// After the storm: every place of every pool can be had at once, whoever waits gets one, and every server connection is as
/// if nobody had ever used it.
pub(super) fn check_pools(proxy: &Proxy, cluster: &Cluster, pool_size: usize) {
    cluster
        .wait_streaming(patience::PATIENCE)
        .expect("the replicas stream");
    for node in cluster.nodes() {
        let busy = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}' AND state <> 'idle'"
        );
        eventually!(
            patience::PATIENCE,
            node.sql(DATABASE, &busy).is_ok_and(|count| count == "0"),
            "statements of dead clients still run on {}: {:?}",
            node.name(),
            node.sql(
                DATABASE,
                "SELECT pid, state, wait_event, query FROM pg_stat_activity WHERE state <> 'idle'"
            )
        );
    }
    let application = "after the storm";
    let open = || {
        let login = login().parameter("application_name", application);
        Client::open(proxy.addr(), &login).expect("a login")
    };
    for node in cluster.nodes() {
        let begin = format!("SET pgweir.route = '{}'", node.name());
        wait_until_taken(&mut open(), node, &begin);
        let mut holders: Vec<Client> = (0..pool_size).map(|_| open()).collect();
        for (n, client) in holders.iter_mut().enumerate() {
            let token = format!("{} {n}", node.name());
            answer(client, &begin);
            answer(client, "BEGIN READ ONLY");
            let talk = Talk::new()
                .query(&probe_sql(&token))
                .result(&probe_values(&token, application));
            client.send(&talk.bytes).expect("the proxy listens");
            let heard = hear(client, &talk.wants, None);
            assert!(matches!(heard, Heard::All), "{token}: {heard:?}");
            client.until_ready().expect("the end of the answer");
        }
        let open_count = format!(
            "SELECT count(*), count(*) FILTER (WHERE xact_start IS NOT NULL) FROM pg_stat_activity WHERE usename = '{USER}'"
        );
        let counted = node.sql(DATABASE, &open_count).expect("a count");
        assert_eq!(
            counted,
            format!("{pool_size}|{pool_size}"),
            "on {}",
            node.name()
        );
        holders
            .iter_mut()
            .for_each(|client| answer(client, "COMMIT"));
    }
    // Twice as many as there are places: each place serves two.
    thread::scope(|scope| {
        for n in 0..2 * pool_size {
            scope.spawn(move || {
                let token = format!("sleeper {n}");
                let sql = format!("BEGIN; SELECT '{token}' || pg_sleep(0.2); COMMIT");
                let found = open().query(&sql).expect("an answer").value();
                assert_eq!(found, Some(token));
            });
        }
    });
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(cluster.sql(DATABASE, locks).expect("a count"), "0");
}

/// Waits until a session that asks for a server is served by it: one that streams again may still stand behind an open breaker.
fn wait_until_taken(visitor: &mut Client, node: &Node, begin: &str) {
    answer(visitor, begin);
    eventually!(
        patience::PATIENCE,
        visitor
            .query("SELECT 1")
            .expect("an answer")
            .error()
            .is_none(),
        "{} does not come back into use",
        node.name()
    );
}

/// No session has left a temporary table. After a crash of the primary PostgreSQL itself leaves those of the crashed sessions.
fn check_no_temporary_table(cluster: &Cluster) {
    let tables = "SELECT count(*) FROM pg_class WHERE relpersistence = 't'";
    assert_eq!(cluster.sql(DATABASE, tables).expect("a count"), "0");
}

fn answer(client: &mut Client, sql: &str) {
    let answer = client.query(sql).expect("an answer");
    assert!(answer.error().is_none(), "{sql}: {answer:?}");
}
