//! Several batches under way at once.

use std::time::{Duration, Instant};

use pgweir_session::client::{Portion, ScanMode};
use pgweir_session::{Limits, Scan};

use crate::notation::client_bytes;
use crate::rig::{LIMITS, Rig};

#[test]
fn batches_are_given_out_one_by_one() {
    let mut rig = Rig::new();
    let first = client_bytes("Parse(,x) | Bind(,) | Execute | Sync");
    let mut input = first.clone();
    input.extend(client_bytes("Query(y) | Terminate"));
    let scan = rig.client.scan(&input, ScanMode::Whole, &mut rig.tables);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Batch,
            len: first.len()
        })
    );
}

#[test]
fn a_scan_goes_on_where_it_stopped() {
    let input = client_bytes("Parse(,x) | Bind(,) | Execute | Sync");
    let mut rig = Rig::new();
    for len in 0..input.len() {
        let scan = rig
            .client
            .scan(&input[..len], ScanMode::Whole, &mut rig.tables);
        assert_eq!(scan, Ok(Scan::Incomplete), "{len} bytes");
    }
    let scan = rig.client.scan(&input, ScanMode::Whole, &mut rig.tables);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Batch,
            len: input.len()
        })
    );
    assert_eq!(rig.client.facts().statements, 1, "nothing is counted twice");
}

#[test]
fn a_flush_ends_a_portion() {
    let mut rig = Rig::new();
    let input = client_bytes("Parse(,x) | Flush | Sync");
    let flushed = client_bytes("Parse(,x) | Flush").len();
    let scan = rig.client.scan(&input, ScanMode::Whole, &mut rig.tables);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Flushed,
            len: flushed
        })
    );
}

#[test]
fn terminate_stands_alone() {
    let mut rig = Rig::new();
    let scan = rig.scan("Terminate", ScanMode::Whole);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Terminate,
            len: 5
        })
    );
    // Behind the beginning of a batch it waits for its turn, which comes once that has been passed on.
    let mut rig = Rig::new();
    let begun = client_bytes("Parse(,x)").len();
    let scan = rig.scan("Parse(,x) | Terminate", ScanMode::Stream);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Piece,
            len: begun
        })
    );
}

#[test]
fn a_pipeline_is_full_at_its_limit_and_not_before() {
    let mut rig = Rig::with(
        Limits {
            pipeline: 3,
            ..LIMITS
        },
        10,
    );
    rig.send("Query(x)");
    rig.send("Query(y)");
    assert!(!rig.client.is_pipeline_full());
    rig.send("Query(z)");
    assert!(rig.client.is_pipeline_full());
    rig.reply("Complete(X) | Ready(I)");
    assert!(!rig.client.is_pipeline_full());
}

#[test]
fn replies_to_pipelined_batches_go_to_each_in_turn() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.send("Bind(,a) | Execute | Sync");
    rig.send("Parse(b,select 1) | Sync");
    rig.send("Close(S zz) | Query(x)");
    assert_eq!(
        rig.reply("BindComplete | Row(1) | Complete(SELECT 1) | Ready(I) | Ready(I) | Complete(X) | Ready(I)"),
        "BindComplete | Row(1) | Complete(SELECT 1) | Ready(I) | ParseComplete | Ready(I) | CloseComplete | \
         Complete(X) | Ready(I)"
    );
    assert!(rig.client.is_settled() && !rig.client.is_in_mid_batch());
}

#[test]
fn whole_batches_are_told_from_those_whose_end_is_still_to_come() {
    let mut rig = Rig::new();
    rig.stream("Parse(a,x) | Bind(,a)");
    assert!(rig.client.are_whole_batches_answered() && !rig.client.is_settled());
    rig.stream("Sync");
    assert!(!rig.client.are_whole_batches_answered());
    rig.passes("ParseComplete | BindComplete | Ready(I)");
    assert!(rig.client.are_whole_batches_answered());
}

#[test]
fn the_cost_of_a_request_does_not_grow_with_the_requests_before_it() {
    const REQUESTS: usize = 100_000;
    let limits = Limits {
        max_message: 1 << 24,
        route_buffer: 1 << 24,
        pipeline: 1 << 20,
    };
    let mut rig = Rig::with(limits, 500);
    // A batch that is still to be answered, so that the next one must ask whether it depends on this one.
    rig.send("Parse(first,select 0) | Sync");
    let mut input = client_bytes("Parse(a,select 1)");
    for _ in 0..REQUESTS {
        input.extend(client_bytes("Bind(,a)"));
    }
    input.extend(client_bytes("Sync"));
    let begin = Instant::now();
    let (taken, _) = rig.send_bytes(&input, ScanMode::Whole);
    let elapsed = begin.elapsed();
    assert_eq!(taken, input.len());
    // Linear it takes a tenth of a second without optimisation; a walk over what is due for each request takes minutes.
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

#[test]
fn the_cost_of_a_statement_does_not_grow_with_the_statements_before_it() {
    const STATEMENTS: usize = 30_000;
    let limits = Limits {
        max_message: 1 << 24,
        route_buffer: 1 << 24,
        pipeline: 1 << 20,
    };
    let mut rig = Rig::with(limits, 500);
    let mut input = Vec::new();
    for n in 0..STATEMENTS {
        input.extend(client_bytes(&format!(
            "Parse(s{n},select {n}) | Bind(,s{n})"
        )));
    }
    input.extend(client_bytes("Sync"));
    let begin = Instant::now();
    let (taken, _) = rig.send_bytes(&input, ScanMode::Whole);
    let elapsed = begin.elapsed();
    assert_eq!(taken, input.len());
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}
