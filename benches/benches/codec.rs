//! What the codec costs: scanning frames (goal: below 5 ns each), decoding what sessions look into, encoding an error.
//!
//! `cargo bench -p pgweir-benches --bench codec`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgweir_wire::{
    Frames, Header, List, ListBuf,
    backend::{DataRow, ErrorBuilder, Severity},
    frontend::{Bind, BindHead, Parse, bind_head},
    list::{Oid, Value},
};

/// What one read of a busy connection returns.
const RUN_BYTES: usize = 64 * 1024;

/// A run of DataRows of two short columns (21 bytes each), and how many they are.
fn small_rows() -> (Vec<u8>, u64) {
    let columns =
        ListBuf::<Value>::collect([Some(&b"12345"[..]), Some(b"x")]).expect("two columns");
    let mut run = Vec::with_capacity(RUN_BYTES);
    let mut frames = 0;
    while run.len() + 32 < RUN_BYTES {
        DataRow {
            columns: columns.as_list(),
        }
        .encode(&mut run);
        frames += 1;
    }
    (run, frames)
}

fn scanning(criterion: &mut Criterion) {
    let (run, frames) = small_rows();
    let mut group = criterion.benchmark_group("scan a 64 KiB run of small DataRows");
    group.throughput(Throughput::Elements(frames));
    group.bench_function("Frames", |bencher| {
        bencher.iter(|| {
            let mut frames = Frames::new(black_box(&run));
            let mut rows = 0_u64;
            while let Ok(Some(frame)) = frames.next() {
                rows += u64::from(frame.tag == b'D');
            }
            (rows, frames.consumed())
        });
    });
    group.bench_function("Header::peek", |bencher| {
        bencher.iter(|| {
            let run = black_box(&run[..]);
            let (mut rest, mut rows) = (run, 0_u64);
            while let Ok(Some(header)) = Header::peek(rest) {
                rows += u64::from(header.tag == b'D');
                match rest.get(header.frame_len()..) {
                    Some(after) => rest = after,
                    None => break,
                }
            }
            rows
        });
    });
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let types = ListBuf::<Oid>::collect([23, 25]).expect("two types");
    let mut parse = Vec::new();
    Parse {
        name: b"S_12",
        sql: b"select abalance from pgbench_accounts where aid = $1 and filler = $2",
        parameter_types: types.as_list(),
    }
    .encode(&mut parse);
    let parameters =
        ListBuf::<Value>::collect([Some(&b"12345"[..]), Some(b"text")]).expect("two parameters");
    let mut bind = Vec::new();
    Bind {
        portal: b"",
        statement: b"S_12",
        parameter_formats: List::EMPTY,
        parameters: parameters.as_list(),
        result_formats: List::EMPTY,
    }
    .encode(&mut bind);
    let (_header, parse) = parse.split_at(5);
    let (_header, bind) = bind.split_at(5);
    criterion.bench_function("decode Parse", |bencher| {
        bencher.iter(|| Parse::decode(black_box(parse)))
    });
    criterion.bench_function("decode Bind", |bencher| {
        bencher.iter(|| Bind::decode(black_box(bind)))
    });
    let mut out = Vec::with_capacity(64);
    criterion.bench_function("rewrite the head of a Bind", |bencher| {
        bencher.iter(|| {
            out.clear();
            if let Ok(Some(head)) = BindHead::decode(black_box(bind)) {
                bind_head(
                    &mut out,
                    head.portal,
                    b"P_000007",
                    bind.len() - head.rest_offset,
                );
            }
            out.len()
        });
    });
}

fn encoding(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(256);
    criterion.bench_function("encode ErrorResponse", |bencher| {
        bencher.iter(|| {
            out.clear();
            ErrorBuilder::new(
                Severity::Error,
                *b"25006",
                black_box("cannot execute INSERT in a read-only transaction"),
            )
            .hint("Send it to the primary.")
            .encode(&mut out);
            out.len()
        });
    });
}

criterion_group!(benches, scanning, decoding, encoding);
criterion_main!(benches);
