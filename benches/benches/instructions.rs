//! Instructions that the classification of a statement takes, its names looked up in a catalog, counted by valgrind: the
//! same number on every machine and in every run, where the times of `classify` move with the load.
//!
//! `cargo bench --bench instructions`. The program runs itself under callgrind, with collection on only inside of
//! [`measured`]; without valgrind it says how to get it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is its result"
)]

use std::{env, hint::black_box, process::Command, sync::Arc};

use pgweir_model::catalog::{Catalog, Persistence, Policy, RelationKind};
use pgweir_sql::catalog::{RelationRow, Source};
use pgweir_sql::{Lens, PlanTable, SearchPath, classify};

/// 60 bytes, as `pgbench -S` sends them.
const SHORT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 123456789;";

/// Calls that are averaged: few, as valgrind is slow, and enough for what happens on the first ones only.
const CALLS: u32 = 1000;

/// The one function whose instructions are collected.
#[inline(never)]
fn measured(mut act: impl FnMut()) {
    for _ in 0..CALLS {
        act();
    }
}

fn run(what: &str) {
    let lens = lens();
    let mut table = PlanTable::new(1024);
    table.get(SHORT).verdict(&lens);
    match what {
        "known shape, 60 bytes" => measured(|| {
            black_box(table.get(black_box(SHORT)).verdict(black_box(&lens)).reason);
        }),
        "new shape, 60 bytes" => measured(|| {
            black_box(classify(black_box(SHORT)).verdict(black_box(&lens)).reason);
        }),
        // What the loop itself takes.
        _ => measured(|| {
            black_box(SHORT);
        }),
    }
}

/// Object ID of the schema in the catalog.
const SCHEMA: u32 = 2200;

/// Returns what the names of the benchmarks' statements mean to a session: a catalog of a thousand tables, theirs among them.
fn lens() -> Lens {
    let mut source = Source::default();
    source.schemas.insert(SCHEMA, "public".into());
    let others = (0..1000).map(|number| format!("table_{number}"));
    let names = ["pgbench_accounts", "orders", "users"].map(str::to_owned);
    source.relations = (16_384..)
        .zip(others.chain(names))
        .map(|(oid, name)| RelationRow {
            oid,
            schema: SCHEMA,
            name: name.into(),
            kind: RelationKind::Table,
            persistence: Persistence::Permanent,
            row_type: 0,
        })
        .collect();
    let catalog = Catalog {
        version: 1,
        stale: false,
        objects: Arc::new(source.build(Arc::new(Policy::default()))),
    };
    let path = SearchPath::from_list(["public"], "app");
    Lens::new(Some(Arc::new(catalog)), Some(Arc::new(path)))
}

/// Runs this program under callgrind and returns the instructions that it collected.
fn count(what: &str) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            "--toggle-collect=*instructions*measured*",
        ])
        .arg(program)
        .env("PGWEIR_MEASURED", what)
        .output()
        .map_err(|error| format!("valgrind: {error} (Debian: apt-get install valgrind)"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| format!("valgrind says no count:\n{text}"))
}

fn main() {
    if let Ok(what) = env::var("PGWEIR_MEASURED") {
        return run(&what);
    }
    for what in ["nothing", "known shape, 60 bytes", "new shape, 60 bytes"] {
        match count(what) {
            Ok(instructions) => println!(
                "{what:<24} {:>8} instructions per call",
                instructions / u64::from(CALLS)
            ),
            Err(error) => return eprintln!("{error}"),
        }
    }
}
