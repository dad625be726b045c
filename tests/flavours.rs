//! The ways in which a client may run a statement, for tests that hold for each.

use pgweir_testkit::{Answer, Client, append_bound, append_execute};
use pgweir_wire::frontend;

use crate::support::{Proxy, ok, prepare};

/// How a client may run a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Simple,
    Extended,
    /// Prepared under a name before.
    Named,
}

pub(crate) const FLAVOURS: [Flavour; 3] = [Flavour::Simple, Flavour::Extended, Flavour::Named];

/// Gets ready to send a statement many times.
pub(crate) fn make_ready(client: &mut Client, flavour: Flavour, sql: &str) {
    if flavour == Flavour::Named {
        prepare(client, "named", sql);
    }
}

pub(crate) fn send(client: &mut Client, flavour: Flavour, sql: &str) {
    let mut out = Vec::new();
    match flavour {
        Flavour::Simple => frontend::Query {
            sql: sql.as_bytes(),
        }
        .encode(&mut out),
        Flavour::Extended => {
            append_execute(&mut out, sql, &[]);
            frontend::Sync.encode(&mut out);
        }
        Flavour::Named => {
            append_bound(&mut out, "named", &[]);
            frontend::Sync.encode(&mut out);
        }
    }
    client.send(&out).expect("sent");
}

pub(crate) fn run(client: &mut Client, flavour: Flavour, sql: &str) -> Answer {
    send(client, flavour, sql);
    client
        .until_ready()
        .unwrap_or_else(|error| panic!("{flavour:?} {sql}: {error:?}"))
}

/// A session whose reads go to replicas whatever it has written.
pub(crate) fn reader(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    ok(&mut client, "SET pgweir.consistency = eventual");
    client
}
