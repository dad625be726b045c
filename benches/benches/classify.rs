//! What a statement costs before it is routed: a known shape, a new shape, and the parts of both.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgweir_model::Catalog;
use pgweir_sql::catalog::Source;
use pgweir_sql::{Lens, PlanTable, SearchPath, Shaper, classify};

/// 60 bytes, as `pgbench -S` sends them.
const SHORT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 123456789;";

/// What an ORM makes of a page of a list.
const LONG: &[u8] = br#"SELECT "orders"."id", "orders"."user_id", "orders"."total", "orders"."note", "users"."email" AS "user_email"
FROM "app"."orders" INNER JOIN "app"."users" ON ("orders"."user_id" = "users"."id")
WHERE ("orders"."total" > 100.50 AND "users"."name" LIKE '%smith%' AND "orders"."user_id" IN (17, 18, 19, 20, 21))
ORDER BY "orders"."created_at" DESC, "orders"."id" ASC LIMIT 25 OFFSET 50"#;

fn known_shape(c: &mut Criterion) {
    let mut group = c.benchmark_group("known shape");
    for (name, sql) in [("60 bytes", SHORT), ("430 bytes", LONG)] {
        let mut table = PlanTable::new(1024);
        table.get(sql);
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| table.get(black_box(sql)).classified.reason)
        });
    }
    group.finish();
}

fn new_shape(c: &mut Criterion) {
    let mut group = c.benchmark_group("new shape");
    for (name, sql) in [("60 bytes", SHORT), ("430 bytes", LONG)] {
        group.throughput(Throughput::Bytes(sql.len() as u64));
        group.bench_function(name, |b| b.iter(|| classify(black_box(sql)).reason));
    }
    group.finish();
}

/// The same with a catalog: what is remembered of a plan, and what is looked up where nothing is.
fn under_a_lens(c: &mut Criterion) {
    let mut group = c.benchmark_group("under a lens");
    let objects = Source::default().build(Arc::default());
    let catalog = Arc::new(Catalog {
        version: 1,
        stale: false,
        objects: Arc::new(objects),
    });
    let path = Arc::new(SearchPath::from_list(["$user", "app", "public"], "me"));
    let lens = Lens::new(Some(catalog), Some(path));
    for (name, sql) in [("60 bytes", SHORT), ("430 bytes", LONG)] {
        let mut table = PlanTable::new(1024);
        table.get(sql);
        group.bench_function(format!("known shape, {name}"), |b| {
            b.iter(|| table.get(black_box(sql)).verdict(&lens))
        });
        let classified = classify(sql);
        group.bench_function(format!("unknown lens, {name}"), |b| {
            b.iter(|| black_box(&classified).verdict(&lens))
        });
    }
    group.finish();
}

fn shape_alone(c: &mut Criterion) {
    let mut shaper = Shaper::new();
    c.bench_function("shape alone, 60 bytes", |b| {
        b.iter(|| shaper.shape(black_box(SHORT)).hash)
    });
}

criterion_group!(benches, known_shape, new_shape, under_a_lens, shape_alone);
criterion_main!(benches);
