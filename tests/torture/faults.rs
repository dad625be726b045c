//! Each server in turn is killed, frozen, stopped and restarted, while clients say one of everything that the protocol has.
//!
//! Every error that a client hears must be one of those below, nobody hangs, and afterwards every place of every pool can be
//! had and the proxy's memory is what it was.

use std::{collections::BTreeMap, thread};

use pgweir_devcluster::{Cluster, Node, StopMode};
use pgweir_testkit::{Rng, eventually, patience};

use super::storm::{CUT, GROWTH_LIMIT, Storm, check_pools, make_table, report, small_pool};
use crate::support::{Proxy, new_cluster};

const CLIENTS: usize = 24;
const POOL_SIZE: usize = 6;

/// Talks that must be had after each fault, and while a replica is away.
const PROGRESS: usize = 150;

/// What a client may be told, and why nothing better can be done for it.
const JUSTIFIED: [(&str, &str); 6] = [
    (
        "57P01",
        "the server's own word: it shut down in the middle of a transaction, or of something that is not run twice",
    ),
    (
        "57P02",
        "the server's own word: another of its processes crashed in the middle of the same",
    ),
    (
        "57P03",
        "no primary came back within failover_wait, or the server still started when a transaction needed it",
    ),
    (
        "08006",
        "the server was lost in the middle of a transaction, a write, or a result that was half sent",
    ),
    (
        "40001",
        "a transaction on a replica stood in the way of replay",
    ),
    (
        CUT,
        "the connection ended while the client was still sending; what the proxy said to that was not read",
    ),
];

/// What happens to a server; afterwards it is back.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    Stop,
    Restart,
}

impl Fault {
    const ALL: [Fault; 4] = [Fault::Kill, Fault::Freeze, Fault::Stop, Fault::Restart];

    fn befall(self, node: &Node, storm: &Storm<'_>, proxy: &Proxy, is_primary: bool) {
        let others_go_on = || {
            if !is_primary {
                progress(storm, self, node);
            }
        };
        match self {
            Fault::Kill => {
                node.kill().expect("killed");
                others_go_on();
                node.start().expect("started");
            }
            Fault::Freeze => {
                let told = |log: &str| log.matches("server is down").count();
                let before = told(&proxy.log());
                node.freeze().expect("frozen");
                eventually!(told(&proxy.log()) > before);
                others_go_on();
                node.thaw().expect("thawed");
            }
            Fault::Stop => {
                node.stop(StopMode::Fast).expect("stopped");
                others_go_on();
                node.start().expect("started");
            }
            Fault::Restart => node.restart(StopMode::Immediate).expect("restarted"),
        }
    }
}

/// Waits until the clients have got on.
fn progress(storm: &Storm<'_>, fault: Fault, node: &Node) {
    let aim = storm.talks() + PROGRESS;
    eventually!(
        patience::PATIENCE * 4,
        storm.is_over() || storm.talks() >= aim,
        "nobody gets on after {fault:?} of {}",
        node.name()
    );
}

/// Lets every fault befall every server; returns what the clients were told.
fn round(proxy: &Proxy, cluster: &Cluster, rng: &mut Rng) -> BTreeMap<String, usize> {
    let storm = Storm::of_the_living(proxy);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (storm, rng) = (&storm, rng.fork());
            scope.spawn(move || storm.client(rng));
        }
        let _over = EndOnDrop(&storm);
        for fault in Fault::ALL {
            for node in cluster.nodes() {
                let is_primary = node.name() == cluster.primary().name();
                fault.befall(node, &storm, proxy, is_primary);
                progress(&storm, fault, node);
            }
        }
    });
    let failures = storm.failures();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    storm.codes()
}

/// Ends the clients when the test fails, too.
struct EndOnDrop<'a>(&'a Storm<'a>);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[test]
fn each_server_in_turn_may_die_freeze_or_restart_and_nothing_is_left_of_it() {
    let mut rng = Rng::from_env();
    let cluster = new_cluster(2);
    make_table(&cluster);
    let server = "query_wait_timeout = \"60s\"";
    let proxy = Proxy::start_ready(&small_pool(&cluster, POOL_SIZE, server));
    let mut codes = round(&proxy, &cluster, &mut rng);
    check_pools(&proxy, &cluster, POOL_SIZE);
    let before = proxy.resident_bytes();
    for (code, count) in round(&proxy, &cluster, &mut rng) {
        *codes.entry(code).or_default() += count;
    }
    check_pools(&proxy, &cluster, POOL_SIZE);
    let after = proxy.resident_bytes();
    let why = |code: &str| JUSTIFIED.iter().find(|(known, _)| *known == code);
    let told = |(code, count): (&String, &usize)| {
        let why = why(code).map_or("NOT JUSTIFIED", |(_, why)| why);
        format!("{count:>5} x {code}: {why}")
    };
    let lines: Vec<String> = codes.iter().map(told).collect();
    report(&format!(
        "{}\nresident: {} KiB, then {} KiB",
        lines.join("\n"),
        before >> 10,
        after >> 10
    ));
    assert!(codes.keys().all(|code| why(code).is_some()), "{codes:?}");
    assert!(
        after < before + GROWTH_LIMIT,
        "resident memory grew from {before} to {after} bytes"
    );
}
