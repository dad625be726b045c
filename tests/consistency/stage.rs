//! What a run plays on: a primary and two replicas with synchronous commit, a relay to each, and the proxy in front.

use pgweir_devcluster::{Cluster, Relay};
use pgweir_testkit::{Client, history::Action, patience::PATIENCE};

use crate::support::{DATABASE, Proxy, USER, config, login, new_cluster, wait_for_replicas};

/// Registers; lists are made by their first append.
pub(super) const REGISTERS: u32 = 4;

/// `current_setting` under another name: the proxy knows that one, and would send whatever calls it to the primary.
const PLACE: &str = "CREATE FUNCTION place(text) RETURNS text LANGUAGE internal STABLE STRICT AS 'show_config_by_name'";

/// `pg_is_in_recovery` under another name, for the same reason.
const STANDBY: &str =
    "CREATE FUNCTION standby() RETURNS boolean LANGUAGE internal STABLE AS 'pg_is_in_recovery'";

/// The servers, the ways to them, and the proxy.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    /// One per node, in the cluster's order.
    pub(super) relays: Vec<Relay>,
    pub(super) proxy: Proxy,
}

impl Stage {
    pub(super) fn new() -> Self {
        let cluster = new_cluster(2);
        let sql = format!(
            "CREATE TABLE lists (key int PRIMARY KEY, elements int[] NOT NULL); \
             CREATE TABLE registers (key int PRIMARY KEY, version bigint NOT NULL, value int NOT NULL); \
             INSERT INTO registers SELECT key, 0, 0 FROM generate_series(0, {}) AS key; \
             {PLACE}; {STANDBY}; \
             ALTER TABLE lists OWNER TO {USER}; ALTER TABLE registers OWNER TO {USER}",
            REGISTERS - 1
        );
        cluster.sql(DATABASE, &sql).expect("tables");
        cluster
            .commit_synchronously(PATIENCE)
            .expect("synchronous commit");
        cluster
            .wait_caught_up(PATIENCE)
            .expect("the tables are there");
        let relays: Vec<Relay> = (cluster.nodes().iter())
            .map(|node| Relay::start(node.port()).expect("a relay"))
            .collect();
        let mut config = config(&cluster);
        for (node, relay) in cluster.nodes().iter().zip(&relays) {
            let port = |port: u16| format!("port = {port} }}");
            config = config.replace(&port(node.port()), &port(relay.port()));
        }
        let proxy = Proxy::start_ready(&config);
        wait_for_replicas(&mut proxy.client());
        Self {
            cluster,
            relays,
            proxy,
        }
    }

    /// Returns the name of the node that has said its port and whether it is a standby, and whether it was the primary.
    pub(super) fn place(&self, said: &str) -> (String, bool) {
        let (port, is_standby) = said.split_once(' ').unwrap_or((said, "true"));
        let nodes = self.cluster.nodes();
        let node = nodes.iter().find(|node| node.port().to_string() == port);
        let name = node.map_or("an unknown server", |node| node.name());
        (name.to_owned(), is_standby == "false")
    }

    /// Returns whether the proxy takes a write, and would take a read to each of the replicas.
    pub(super) fn is_available(&self) -> bool {
        let Ok(mut client) = Client::open(self.proxy.addr(), &login()) else {
            return false;
        };
        let written = client.query("UPDATE registers SET value = value WHERE key = -1");
        let explained = client.query("EXPLAIN ROUTE SELECT 1");
        let (Ok(written), Ok(explained)) = (written, explained) else {
            return false;
        };
        let rows = explained.rows();
        let eligible = rows.iter().filter(|row| {
            let mut columns = row.iter().flatten();
            columns.next().is_some_and(|step| step == "replica")
                && columns
                    .next()
                    .is_some_and(|decision| decision == "eligible")
        });
        written.error().is_none() && eligible.count() + 1 == self.cluster.nodes().len()
    }

    /// Returns whether nobody runs anything on any server: what a client has given up may still be on its way.
    pub(super) fn is_idle(&self) -> bool {
        let busy = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}' AND state <> 'idle'"
        );
        let mut nodes = self.cluster.nodes().iter();
        nodes.all(|node| node.sql(DATABASE, &busy).is_ok_and(|count| count == "0"))
    }

    /// Returns every object as a node shows it.
    pub(super) fn state(&self, node: usize) -> Vec<Action> {
        let node = self.cluster.node(node);
        let lists = node.sql(DATABASE, "SELECT key, elements FROM lists ORDER BY key");
        let registers = node.sql(
            DATABASE,
            "SELECT key, version, value FROM registers ORDER BY key",
        );
        let lists = lists.expect("the lists");
        let registers = registers.expect("the registers");
        let lists = lists.lines().map(|line| {
            let (key, values) = line.split_once('|').expect("two columns");
            Action::List {
                key: number(key),
                values: numbers(values),
            }
        });
        let registers = registers.lines().map(|line| {
            let mut columns = line.split('|').map(|column| column.parse::<u64>());
            let mut next = || columns.next().expect("three columns").expect("a number");
            let (key, version, value) = (next(), next(), next());
            Action::Register {
                key: u32::try_from(key).expect("a key"),
                version,
                value: u32::try_from(value).expect("a value"),
            }
        });
        lists.chain(registers).collect()
    }
}

/// Reads an array as PostgreSQL writes it.
pub(super) fn numbers(text: &str) -> Vec<u32> {
    let inner = text.trim_start_matches('{').trim_end_matches('}');
    let numbers = inner.split(',').filter(|text| !text.is_empty());
    numbers.map(number).collect()
}

fn number(text: &str) -> u32 {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}
