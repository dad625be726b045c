//! Pipelines that once went wrong, or nearly did, each as small as it can be.

use pgweir_testkit::Client;
use pgweir_wire::{backend::tag, frontend};

use super::talk::{Heard, Talk, Want, hear};
use crate::support::{Proxy, cluster, config};

/// A proxy with one worker and one server connection per node: what one client leaves behind, the next one finds.
fn narrow(server: &str) -> Proxy {
    narrow_with(server, 1)
}

fn narrow_with(server: &str, pool_size: usize) -> Proxy {
    let config = config(cluster()).replace(
        "cluster = \"main\"\n",
        &format!("cluster = \"main\"\npool_size = {pool_size}\nsplitting = \"off\"\n"),
    );
    Proxy::start_ready(&format!("[server]\nworkers = 1\n{server}\n{config}"))
}

#[track_caller]
fn say(client: &mut Client, talk: &Talk) {
    client.send(&talk.bytes).expect("the proxy listens");
    match hear(client, &talk.wants, None) {
        Heard::All => {}
        other => panic!("{other:?}"),
    }
}

const FAILS: &str = "SELECT 1 / (n - 1) FROM generate_series(1, 2) n WHERE $1::text <> ''";

/// An extended batch that fails when it is run.
fn failing() -> Talk {
    Talk::new()
        .parse("", FAILS)
        .bind("", "", &["a"])
        .execute("", 0)
        .want([Want::Error("22012")])
}

#[test]
fn an_unnamed_parse_that_was_skipped_is_not_taken_for_done_by_the_next_batch_of_the_pipeline() {
    let proxy = narrow("");
    let (mut other, mut client) = (proxy.client(), proxy.client());
    say(
        &mut other,
        &Talk::new()
            .parse("", "SELECT 'of the other client' WHERE $1::text <> ''")
            .bind("", "", &["x"])
            .execute_one("of the other client")
            .sync(),
    );
    let mine = "SELECT 'mine' WHERE $1::text <> ''";
    let talk = Talk::new()
        .query("SELECT 1/0")
        .want([Want::Error("22012")])
        .ready()
        .then(failing())
        .parse_unheard("", mine)
        .sync()
        .parse("", mine)
        .bind("", "", &["y"])
        .execute_one("mine")
        .sync();
    say(&mut client, &talk);
}

#[test]
fn a_skipped_unnamed_parse_does_not_let_the_next_batch_run_the_statement_of_another_client() {
    let proxy = narrow("");
    let (mut other, mut client) = (proxy.client(), proxy.client());
    say(
        &mut other,
        &Talk::new()
            .parse("", "SELECT 'of the other client', $1::text")
            .sync(),
    );
    let talk = Talk::new()
        .parse("s", FAILS)
        .bind("", "s", &["a"])
        .execute("", 0)
        .want([Want::Error("22012")])
        .parse_unheard("", "SELECT 'mine', $1::text")
        .sync()
        .bind_unheard("", "", &["y"])
        .execute("", 0)
        .sync_unheard();
    client.send(&talk.bytes).expect("the proxy listens");
    assert!(matches!(hear(&mut client, &talk.wants, None), Heard::All));
    let answer = client.until_ready().expect("an answer to the last batch");
    assert!(
        !format!("{answer:?}").contains("other"),
        "the other client's statement ran: {answer:?}"
    );
}

#[test]
fn a_named_parse_that_was_skipped_is_not_taken_for_done_by_the_next_batch_of_the_pipeline() {
    let proxy = narrow("");
    let mut client = proxy.client();
    let mine = "SELECT 'named ' || $1::text";
    let talk = failing()
        .parse_unheard("s1", mine)
        .sync()
        .parse("s2", mine)
        .bind("", "s2", &["y"])
        .execute_one("named y")
        .sync();
    say(&mut client, &talk);
    say(
        &mut client,
        &Talk::new()
            .bind("", "s2", &["z"])
            .execute_one("named z")
            .sync(),
    );
}

#[test]
fn a_statement_whose_eviction_was_skipped_can_be_prepared_again() {
    let proxy = narrow("prepared_statements_per_server = 2");
    let text = |n: usize| format!("SELECT 'evicted {n} ' || $1::text");
    let prepare_and_run = |n: usize| {
        Talk::new()
            .parse("s", &text(n))
            .bind("", "s", &["x"])
            .execute_one(&format!("evicted {n} x"))
            .sync()
    };
    for n in 0..2 {
        say(&mut proxy.client(), &prepare_and_run(n));
    }
    // Room for this one is made behind the error: neither is the old one closed nor the new one prepared.
    let mut client = proxy.client();
    say(
        &mut client,
        &Talk::new()
            .parse("", FAILS)
            .bind("", "", &["a"])
            .execute("", 0)
            .want([Want::Error("22012")])
            .parse_unheard("new", &text(2))
            .parse_unheard("newer", &text(3))
            .sync(),
    );
    for n in (0..4).chain(0..4) {
        say(&mut proxy.client(), &prepare_and_run(n));
    }
}

#[test]
fn a_change_of_the_schema_by_one_client_does_not_take_the_statements_of_another() {
    let proxy = narrow("");
    let (mut other, mut client) = (proxy.client(), proxy.client());
    say(
        &mut client,
        &Talk::new()
            .parse("kept", "SELECT 'kept ' || $1::text")
            .sync(),
    );
    let run = Talk::new()
        .bind("", "kept", &["x"])
        .execute_one("kept x")
        .sync();
    say(&mut client, &run);
    for sql in [
        "CREATE TABLE regression_ddl ()",
        "DROP TABLE regression_ddl",
    ] {
        say(
            &mut other,
            &Talk::new().query(sql).want([Want::AnyUntilReady]),
        );
        say(&mut client, &run);
        say(&mut client, &run);
    }
}

#[test]
fn statements_prepared_behind_a_deallocate_all_of_the_same_pipeline_are_known_to_be_there() {
    let proxy = narrow("");
    let mut client = proxy.client();
    let text = "SELECT 'behind ' || $1::text";
    say(
        &mut client,
        &Talk::new()
            .query("DEALLOCATE ALL")
            .complete("DEALLOCATE ALL")
            .ready()
            .parse("s", text)
            .bind("", "s", &["x"])
            .execute_one("behind x")
            .sync(),
    );
    say(&mut client, &Talk::new().close_statement("s").sync());
    say(
        &mut client,
        &Talk::new()
            .parse("s", text)
            .bind("", "s", &["y"])
            .execute_one("behind y")
            .sync(),
    );
}

#[test]
fn the_rollback_for_a_client_that_left_in_a_transaction_takes_the_unnamed_statement_with_it() {
    let proxy = narrow("");
    let mut client = proxy.client();
    say(
        &mut client,
        &Talk::new()
            .query("BEGIN")
            .complete("BEGIN")
            .want([Want::Ready(b'T')]),
    );
    let text = "SELECT 'unnamed ' || $1::text";
    let run = |value: &str| {
        Talk::new()
            .parse("", text)
            .bind("", "", &[value])
            .execute_one(&format!("unnamed {value}"))
            .sync_unheard()
    };
    say(&mut client, &run("a").want([Want::Ready(b'T')]));
    client.reset();
    say(&mut proxy.client(), &run("b").ready());
}

/// libpq sends the Sync of a COPY FROM before it knows that it is one. Where the server fails between its CopyInResponse
/// and its first look at the data, it answers that Sync.
#[test]
fn a_copy_that_fails_before_its_data_is_read_leaves_no_reply_to_the_next_client() {
    let proxy = narrow("");
    let mut client = proxy.client();
    for sql in [
        "CREATE TABLE IF NOT EXISTS guarded (token text)",
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'P0001'; END$$",
        "DROP TRIGGER IF EXISTS guard ON guarded",
        "CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
    ] {
        say(
            &mut client,
            &Talk::new().query(sql).want([Want::AnyUntilReady]),
        );
    }
    client.terminate().expect("a goodbye");
    for n in 0..50 {
        let mut client = proxy.client();
        let copy = Talk::new()
            .parse("", "COPY guarded FROM STDIN")
            .bind("", "", &[])
            .execute("", 0)
            .sync_unheard()
            .want([Want::Tag(tag::COPY_IN_RESPONSE)]);
        say(&mut client, &copy);
        let data = Talk::new().copy_data(b"a\n").copy_done().sync_unheard();
        client.send(&data.bytes).expect("the proxy listens");
        let heard = hear(
            &mut client,
            &[Want::Error("P0001"), Want::Ready(b'I')],
            None,
        );
        assert!(matches!(heard, Heard::All), "{heard:?}");
        let mut next = proxy.client();
        let token = format!("next {n}");
        say(
            &mut next,
            &Talk::new()
                .query(&format!("SELECT '{token}'"))
                .result(&[&token])
                .ready(),
        );
        say(
            &mut next,
            &Talk::new()
                .query(&format!("SELECT '{token}!'"))
                .result(&[&format!("{token}!")])
                .ready(),
        );
    }
}

/// The name of the second batch's statement depends on how the first one ends, and a part of the second is with the server
/// already, which keeps its reply until the Sync.
#[test]
fn a_batch_that_waits_for_an_earlier_one_goes_on_when_that_is_answered_though_part_of_it_is_out() {
    let proxy = narrow("");
    let mut client = proxy.client();
    // A session that owns its server connection has its messages passed on as they come.
    say(
        &mut client,
        &Talk::new()
            .query("SET work_mem = '3MB'")
            .complete("SET")
            .ready(),
    );
    let first = Talk::new().query("SELECT 'soon'").result(&["soon"]).ready();
    let second = Talk::new()
        .parse("slow", "SELECT 'late ' || $1::text || pg_sleep(0.5)")
        .bind("", "slow", &["x"])
        .execute_one("late x")
        .parse("s1", "SELECT 's1 ' || $1::text")
        .sync()
        .parse("other", "SELECT 'other ' || $1::text");
    let rest = Talk::new()
        .bind("", "s1", &["y"])
        .execute_one("s1 y")
        .sync();
    client
        .send(&[&first.bytes[..], &second.bytes].concat())
        .expect("the proxy listens");
    assert!(matches!(hear(&mut client, &first.wants, None), Heard::All));
    // All of the first write has been passed on by now, and the server sleeps.
    say(
        &mut client,
        &Talk {
            bytes: rest.bytes,
            wants: [second.wants, rest.wants].concat(),
        },
    );
}

#[test]
fn a_known_statement_prepared_behind_a_deallocate_all_of_the_same_pipeline_is_prepared_anew() {
    let proxy = narrow("");
    let mut client = proxy.client();
    let prepare_and_run = |value: &str| {
        Talk::new()
            .parse("s", "SELECT 'anew ' || $1::text")
            .bind("", "s", &[value])
            .execute_one(&format!("anew {value}"))
            .sync()
    };
    say(&mut client, &prepare_and_run("x"));
    let talk = Talk::new()
        .query("DEALLOCATE ALL")
        .complete("DEALLOCATE ALL")
        .ready()
        .then(prepare_and_run("y"));
    say(&mut client, &talk);
}

/// PostgreSQL runs what stands before a Terminate. But a COPY that waits for data would wait for ever.
#[test]
fn a_terminate_in_the_middle_of_a_copy_frees_the_server_connection() {
    let proxy = narrow("");
    let mut client = proxy.client();
    let sql = "CREATE TABLE IF NOT EXISTS cut_short (token text)";
    say(
        &mut client,
        &Talk::new().query(sql).want([Want::AnyUntilReady]),
    );
    for early in [false, true] {
        let mut client = proxy.client();
        let copy = Talk::new()
            .query("COPY cut_short FROM STDIN")
            .want([Want::Tag(tag::COPY_IN_RESPONSE)]);
        client.send(&copy.bytes).expect("the proxy listens");
        if early {
            client
                .send(&frontend::Terminate::BYTES)
                .expect("the proxy listens");
        }
        let heard = hear(&mut client, &copy.wants, None);
        if !early {
            assert!(matches!(heard, Heard::All), "{heard:?}");
            client
                .send(&frontend::Terminate::BYTES)
                .expect("the proxy listens");
        }
        let next = Talk::new().query("SELECT 'next'").result(&["next"]).ready();
        say(&mut proxy.client(), &next);
    }
}

/// One batch, all of it skipped, that takes a statement from the server to make room and then prepares the same one anew.
#[test]
fn a_statement_that_a_skipped_batch_evicts_and_prepares_anew_can_be_prepared_again() {
    let proxy = narrow("prepared_statements_per_server = 2");
    let text = |n: usize| format!("SELECT 'to and fro {n} ' || $1::text");
    let prepare_and_run = |n: usize| {
        Talk::new()
            .parse("s", &text(n))
            .bind("", "s", &["x"])
            .execute_one(&format!("to and fro {n} x"))
            .sync()
    };
    for n in 0..2 {
        say(&mut proxy.client(), &prepare_and_run(n));
    }
    let skipped = failing()
        .parse_unheard("new", &text(2))
        .parse_unheard("old", &text(0))
        .sync();
    say(&mut proxy.client(), &skipped);
    for n in (0..3).chain(0..3) {
        say(&mut proxy.client(), &prepare_and_run(n));
    }
}
