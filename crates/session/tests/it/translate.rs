//! Process IDs that are other ones on the server.

use pgweir_session::client::ScanMode;
use pgweir_sql::signals::Signal;

use crate::notation::client_bytes;
use crate::rig::Rig;

/// The client's ID for a process, and the server's.
const ID: (u32, u32) = (4_194_305, 77);

/// Sends a batch with the process ID translated; returns what the server gets.
fn send(rig: &mut Rig, batch: &str) -> String {
    rig.scan(batch, ScanMode::Whole)
        .expect("a batch that can be scanned");
    let bytes = client_bytes(batch);
    assert_eq!(
        rig.client.signalled(&bytes),
        [(Signal::Cancel, ID.0)],
        "{batch}"
    );
    rig.client.translate(vec![ID], &bytes, &mut rig.tables);
    rig.send(batch)
}

#[test]
fn a_literal_is_replaced_in_the_text_of_a_query() {
    let mut rig = Rig::new();
    let sql = "Query(select pg_cancel_backend(4194305))";
    assert_eq!(send(&mut rig, sql), "Query(select pg_cancel_backend(77))");
    rig.reply("Row(t) | Complete(SELECT 1) | Ready(I)");
    // Once.
    assert_eq!(rig.send(sql), sql);
}

#[test]
fn a_prepared_statement_keeps_its_text_and_another_is_bound_in_its_place() {
    let mut rig = Rig::new();
    rig.prepare("a", "select pg_cancel_backend(4194305)");
    for _ in 0..2 {
        let sent = send(&mut rig, "Bind(,a) | Execute | Sync");
        assert!(
            sent.starts_with("Parse($") && sent.contains("pg_cancel_backend(77)"),
            "{sent}"
        );
        rig.reply("ParseComplete | BindComplete | Row(t) | Complete(SELECT 1) | Ready(I)");
    }
    assert_eq!(
        rig.send("Bind(,a) | Execute | Sync"),
        "Bind(,$0) | Execute | Sync"
    );
}
