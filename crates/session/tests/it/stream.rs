//! Messages and batches that are too large to be held: they pass through in pieces.

use pgweir_model::PinReason;
use pgweir_session::client::{Marks, Portion, ScanMode};
use pgweir_session::{Limits, Scan, Violation};
use pgweir_wire::frontend::tag;
use pgweir_wire::{Frames, frontend};

use crate::notation::{bind, client_bytes, show_client};
use crate::rig::{LIMITS, Rig, bytes_of};

const SMALL: Limits = Limits {
    max_message: 1 << 20,
    route_buffer: 2000,
    pipeline: 100,
};

/// A Bind of statement `name` with a value of `size` bytes, an Execute and a Sync.
fn large_bind(name: &str, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bind(b"", name.as_bytes(), Some(&vec![b'v'; size]), &mut bytes);
    bytes.extend(client_bytes("Execute | Sync"));
    bytes
}

/// Hands in `input` in pieces of `size` bytes as they arrive; returns what the server gets.
fn in_pieces(rig: &mut Rig, input: &[u8], size: usize, mode: ScanMode) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut sent = Vec::new();
    for piece in input.chunks(size) {
        kept.extend_from_slice(piece);
        let (taken, more) = rig.send_bytes(&kept, mode);
        kept.drain(..taken);
        sent.extend(more);
    }
    assert!(kept.is_empty());
    sent
}

#[test]
fn a_large_bind_goes_on_once_its_head_is_there() {
    let input = large_bind("a", 100_000);
    for size in [20, 1000, 33_000, 99_999, 200_000] {
        let mut rig = Rig::new();
        rig.prepare("a", "select $1");
        let sent = in_pieces(&mut rig, &input, size, ScanMode::Stream);
        assert_eq!(
            show_client(&sent),
            "Bind(,$0,vvvvvvvvvvvvvvvvvvvv..100000) | Execute | Sync",
            "pieces of {size}"
        );
        rig.passes("BindComplete | Complete(SELECT 0) | Ready(I)");
        assert!(rig.client.is_settled() && !rig.client.is_in_mid_batch());
    }
}

#[test]
fn a_large_bind_of_a_statement_that_the_server_lacks_follows_its_parse() {
    let mut rig = Rig::new();
    rig.prepare("a", "select $1");
    rig.server = pgweir_session::ServerSession::new(Vec::new(), 10);
    let sent = in_pieces(&mut rig, &large_bind("a", 50_000), 10_000, ScanMode::Stream);
    assert_eq!(
        show_client(&sent),
        "Parse($0,select $1) | Bind(,$0,vvvvvvvvvvvvvvvvvvvv..50000) | Execute | Sync"
    );
}

#[test]
fn a_large_bind_of_a_missing_statement_is_dropped_to_its_end() {
    let mut rig = Rig::new();
    let sent = in_pieces(
        &mut rig,
        &large_bind("nope", 100_000),
        10_000,
        ScanMode::Stream,
    );
    assert_eq!(show_client(&sent), "Describe(S pgweir_missing) | Sync");
    assert_eq!(
        rig.reply("Error(26000 no) | Ready(I)"),
        "Error(26000 prepared statement \"nope\" does not exist) | Ready(I)"
    );
}

#[test]
fn the_dropped_rest_of_a_message_is_ignored() {
    let mut rig = Rig::new();
    let input = large_bind("nope", 100_000);
    rig.send_bytes(&input[..50_000], ScanMode::Stream);
    let scan = rig
        .client
        .scan(&input[50_000..60_000], ScanMode::Stream, &mut rig.tables);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Ignored,
            len: 10_000
        })
    );
}

#[test]
fn a_bind_above_the_buffer_goes_on_however_small_the_buffer() {
    let mut rig = Rig::with(SMALL, 10);
    rig.prepare("a", "select $1");
    let sent = in_pieces(&mut rig, &large_bind("a", 5000), 500, ScanMode::Stream);
    assert_eq!(
        show_client(&sent),
        "Bind(,$0,vvvvvvvvvvvvvvvvvvvv..5000) | Execute | Sync"
    );
}

#[test]
fn a_small_message_is_never_cut() {
    let input = client_bytes("Parse(a,select 1) | Bind(,a) | Execute | Sync");
    for len in 0..input.len() {
        let mut rig = Rig::new();
        let (taken, sent) = rig.send_bytes(&input[..len], ScanMode::Stream);
        let mut frames = Frames::new(&input[..len]);
        while let Ok(Some(_)) = frames.next() {}
        assert_eq!(taken, frames.consumed());
        let mut frames = Frames::new(&sent);
        while let Ok(Some(_)) = frames.next() {}
        assert!(frames.rest().is_empty());
    }
}

#[test]
fn a_batch_above_the_buffer_is_oversize_and_one_at_it_is_not() {
    let head = client_bytes("Query()").len();
    for (size, expected) in [
        (SMALL.route_buffer, Scan::Incomplete),
        (SMALL.route_buffer + 1, Scan::Oversize),
    ] {
        let mut rig = Rig::with(SMALL, 10);
        let input = client_bytes(&format!("Query({})", "x".repeat(size - head)));
        assert_eq!(input.len(), size);
        let scan = rig
            .client
            .scan(&input[..size - 1], ScanMode::Whole, &mut rig.tables);
        assert_eq!(scan, Ok(expected), "{size}");
    }
}

#[test]
fn many_small_messages_can_be_oversize_as_well() {
    let mut rig = Rig::with(SMALL, 10);
    let messages = vec!["Parse(,select 1)"; 200].join(" | ");
    assert_eq!(rig.scan(&messages, ScanMode::Whole), Ok(Scan::Oversize));
    rig.client.drop_batch();
    let sent = rig.stream(&messages);
    // The first is sent, the others are the same statement again.
    assert_eq!(sent, "Parse($0,select 1)");
    assert_eq!(
        rig.reply("ParseComplete"),
        vec!["ParseComplete"; 200].join(" | ")
    );
}

#[test]
fn a_query_above_the_buffer_streams_unread() {
    let mut rig = Rig::with(SMALL, 10);
    let input = client_bytes(&format!("Query(select {})", "x".repeat(5000)));
    let scan = rig
        .client
        .scan(&input[..3000], ScanMode::Stream, &mut rig.tables);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Piece,
            len: 3000
        })
    );
    for mark in [Marks::UNREAD, Marks::WRITES, Marks::SUSPECT] {
        assert!(rig.client.facts().marks.has(mark));
    }
    rig.client.drop_batch();
    let sent = in_pieces(&mut rig, &input, 700, ScanMode::Stream);
    assert!(sent == input);
    rig.passes("Complete(SELECT 0) | Ready(I)");
    assert!(!rig.client.is_in_mid_batch());
}

#[test]
fn a_parse_above_the_buffer_streams_and_ties_the_session_to_its_server() {
    let mut rig = Rig::with(SMALL, 10);
    let text = format!("select {}", "x".repeat(5000));
    let input = client_bytes(&format!("Parse(a,{text}) | Bind(,a) | Execute | Sync"));
    let mut gather = pgweir_wire::Gather::new();
    let scan = rig
        .client
        .scan(&input[..3000], ScanMode::Stream, &mut rig.tables);
    assert_eq!(
        scan,
        Ok(Scan::Ready {
            portion: Portion::Piece,
            len: 3000
        })
    );
    assert_eq!(rig.client.facts().pin, Some(PinReason::Unread));
    rig.client
        .forward(&input[..3000], 3000, &mut rig.server, &mut gather)
        .unwrap();
    let mut sent = bytes_of(&gather, &input[..3000]);
    sent.extend(in_pieces(&mut rig, &input[3000..], 100, ScanMode::Stream));
    assert_eq!(
        show_client(&sent),
        "Parse($0,select xxxxxxxxxxxxx..5007) | Bind(,$0) | Execute | Sync"
    );
    rig.passes("ParseComplete | BindComplete | Complete(SELECT 0) | Ready(I)");
    // It was not kept, so nowhere else can it be run.
    rig.server = pgweir_session::ServerSession::new(Vec::new(), 10);
    assert_eq!(
        rig.send("Bind(,a) | Sync"),
        "Describe(S pgweir_missing) | Sync"
    );
}

#[test]
fn a_parse_above_the_buffer_of_a_name_that_is_taken_is_refused_and_dropped() {
    let mut rig = Rig::with(SMALL, 10);
    rig.prepare("a", "select 1");
    let input = client_bytes(&format!("Parse(a,select {}) | Sync", "x".repeat(5000)));
    let sent = in_pieces(&mut rig, &input, 700, ScanMode::Stream);
    assert_eq!(
        show_client(&sent),
        "Close(S pgweir_taken) | Parse(pgweir_taken,) | Parse(pgweir_taken,select xxxxxxxxxxxxx..5007) | Sync"
    );
    assert_eq!(
        rig.reply("CloseComplete | ParseComplete | Error(42P05 no) | Ready(I)"),
        "Error(42P05 prepared statement \"a\" already exists) | Ready(I)"
    );
}

#[test]
fn copy_data_streams_whatever_its_size() {
    let mut rig = Rig::new();
    rig.send("Query(copy t from stdin)");
    rig.passes("CopyIn");
    let input = client_bytes(&format!("CopyData({}) | CopyDone", "x".repeat(3000)));
    let sent = in_pieces(&mut rig, &input, 7, ScanMode::Stream);
    assert!(sent == input);
    rig.passes("Complete(COPY 1) | Ready(I)");
}

#[test]
fn a_large_function_call_streams() {
    let mut rig = Rig::with(SMALL, 10);
    let mut input = vec![tag::FUNCTION_CALL];
    let body = vec![0; 5000];
    input.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    input.extend(body);
    let sent = in_pieces(&mut rig, &input, 900, ScanMode::Stream);
    assert!(sent == input);
    rig.passes("Result(1) | Ready(I)");
}

#[test]
fn a_message_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let limits = Limits {
        max_message: 1000,
        ..LIMITS
    };
    let head = client_bytes("Query()").len();
    for mode in [ScanMode::Whole, ScanMode::Stream] {
        let mut rig = Rig::with(limits, 10);
        let query = |size: usize| client_bytes(&format!("Query({})", "x".repeat(size - head)));
        let scan = rig.client.scan(&query(1000), mode, &mut rig.tables);
        assert_eq!(
            scan,
            Ok(Scan::Ready {
                portion: Portion::Batch,
                len: 1000
            })
        );
        rig.client.drop_batch();
        // Its header is enough to tell.
        let scan = rig.client.scan(&query(1001)[..5], mode, &mut rig.tables);
        assert_eq!(
            scan,
            Err(Violation::TooLarge {
                length: 1001,
                limit: 1000
            })
        );
    }
}

#[test]
fn a_message_that_must_be_read_whole_and_is_above_the_buffer_is_refused() {
    let mut rig = Rig::with(SMALL, 10);
    let mut input = Vec::new();
    let name = vec![b'n'; 5000];
    frontend::Describe {
        kind: frontend::Target::Portal,
        name: &name,
    }
    .encode(&mut input);
    let scan = rig
        .client
        .scan(&input[..1000], ScanMode::Stream, &mut rig.tables);
    assert_eq!(
        scan,
        Err(Violation::TooLarge {
            length: input.len(),
            limit: SMALL.route_buffer
        })
    );
}
