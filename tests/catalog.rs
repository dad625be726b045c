//! What the names of a session mean, on a real cluster: functions that may write are found wherever they hide, and what was
//! made or replaced a moment ago is never trusted for what it was before.

use std::time::Duration;

use pgweir_testkit::{Client, eventually, patience};

use crate::{
    cases::{direct_to, login_to, new_database},
    support::{Proxy, cluster, config, prepare, run_named, value},
};

/// A database with the schema of the cases, a proxy in front of it, and a session that knows the replicas to be up.
struct Stage {
    database: &'static str,
    proxy: Proxy,
    client: Client,
}

impl Stage {
    fn new(database: &'static str) -> Self {
        new_database(database);
        let config = config(cluster()).replace("user = ", "catalog_refresh = \"1s\"\nuser = ");
        let proxy = Proxy::start_ready(&config);
        let client = Client::open(proxy.addr(), &login_to(database)).expect("a login");
        let mut stage = Self {
            database,
            proxy,
            client,
        };
        // With the catalog and the replicas there, a function that does not write is a read.
        stage.goes_to_a_replica("SELECT f_stable(1)");
        stage
    }

    fn another(&self) -> Client {
        Client::open(self.proxy.addr(), &login_to(self.database)).expect("a login")
    }

    fn direct(&self) -> Client {
        direct_to(cluster(), &login_to(self.database))
    }

    #[track_caller]
    fn value(&mut self, sql: &str) -> String {
        value(&mut self.client, sql)
    }

    fn last_route(&mut self) -> String {
        self.value("SHOW pgweir.last_route")
    }

    /// Runs it once, and at once: it must run on the primary, and not by way of a replica's refusal.
    #[track_caller]
    fn goes_to_the_primary(&mut self, sql: &str, reason: &str) -> String {
        let value = self.value(sql);
        assert_eq!(self.last_route(), format!("primary ({reason})"), "{sql}");
        value
    }

    /// Waits until it runs on a replica: the catalog may be about to be loaded, the replicas may have to replay.
    #[track_caller]
    fn goes_to_a_replica(&mut self, sql: &str) {
        let mut routes = Vec::new();
        let is_there = patience::wait_until(patience::PATIENCE, || {
            self.value(sql);
            let route = self.last_route();
            if routes.last() != Some(&route) {
                routes.push(route.clone());
            }
            route.starts_with("replica (")
        });
        let explained = format!("EXPLAIN ROUTE {sql}");
        assert!(
            is_there,
            "{sql} does not run on a replica, but on {routes:?}: {:?}",
            self.client.query(&explained).map(|answer| answer.rows())
        );
    }

    fn log_rows(&mut self) -> usize {
        let count = self.value("SELECT count(*) FROM log /* pgweir: route=primary */");
        count.parse().expect("a count")
    }
}

#[test]
fn a_function_that_may_write_is_found_wherever_it_hides() {
    let mut stage = Stage::new("catalog_hidden");
    let mut direct = stage.direct();
    for (sql, reason) in [
        ("SELECT f_write(1)", "volatile_function"),
        ("SELECT app.f_write(1)", "volatile_function"),
        // A view, a view of a view, and one that uses an operator.
        (
            "SELECT a FROM audited_users ORDER BY id LIMIT 1",
            "volatile_function",
        ),
        (
            "SELECT count(*) FROM (SELECT * FROM audited_users2 OFFSET 0) v",
            "volatile_function",
        ),
        ("SELECT * FROM v_operator", "volatile_function"),
        ("SELECT 1 === 1", "volatile_function"),
        ("SELECT 1 OPERATOR(app.===) 1", "volatile_function"),
        ("SELECT 1::cw", "volatile_function"),
        ("SELECT 1::dw", "volatile_function"),
        ("SELECT sumw(id) FROM t", "volatile_function"),
        ("SELECT id FROM rls ORDER BY id", "volatile_function"),
        // Only one of two functions of this name writes.
        ("SELECT over('text')", "volatile_function"),
        ("SELECT nextval('ticket_seq')", "primary_only"),
        ("SELECT n FROM v_nextval", "primary_only"),
        ("SELECT pid FROM v_stat LIMIT 1", "primary_only"),
        ("SELECT last_value FROM ticket_seq", "primary_only"),
        ("SELECT last_value FROM v_sequence", "primary_only"),
        ("SELECT count(*) FROM scratch", "unlogged_table"),
        ("SELECT count(*) FROM v_scratch", "unlogged_table"),
    ] {
        let before = stage.log_rows();
        value(&mut direct, sql);
        let between = stage.log_rows();
        stage.goes_to_the_primary(sql, reason);
        let written = stage.log_rows() - between;
        assert_eq!(written, between - before, "it ran once: {sql}");
    }
    for sql in [
        "SELECT f_stable(1)",
        "SELECT add_tax(10), user_total(1)",
        "SELECT id FROM v_stable",
        "SELECT 1 =~= 1",
        "SELECT 1::cs",
        "SELECT 1::ds",
        "SELECT sums(id) FROM t",
        "SELECT id FROM rls_quiet",
        "SELECT user_id FROM totals",
    ] {
        stage.goes_to_a_replica(sql);
    }
}

#[test]
fn the_search_path_of_the_session_says_which_function_is_meant() {
    let mut stage = Stage::new("catalog_path");
    stage.goes_to_a_replica("SELECT add_tax(10)");
    stage.value("SET search_path = other, app");
    stage.goes_to_the_primary("SELECT add_tax(10)", "volatile_function");
    stage.value("SET search_path = app, other");
    // Overloads of both schemas can be meant, so that one which may write is enough.
    let route = {
        stage.value("SELECT add_tax(10)");
        stage.last_route()
    };
    assert_ne!(route, "primary (rerouted)");
    stage.value("SET search_path = app");
    stage.goes_to_a_replica("SELECT add_tax(10)");
    stage.goes_to_the_primary("SELECT other.add_tax(10)", "volatile_function");
    // Within a transaction, and back after it.
    stage.value("BEGIN");
    stage.value("SET LOCAL search_path = other");
    stage.value("SELECT add_tax(10)");
    assert!(stage.last_route().starts_with("primary ("));
    stage.value("ROLLBACK");
    stage.goes_to_a_replica("SELECT add_tax(10)");
    // Another session of the same pool has its own path.
    let mut another = stage.another();
    value(&mut another, "SET search_path = other");
    stage.goes_to_a_replica("SELECT add_tax(10)");
    value(&mut another, "SELECT add_tax(10)");
    assert_eq!(
        value(&mut another, "SHOW pgweir.last_route"),
        "primary (volatile_function)"
    );
}

#[test]
fn a_built_in_name_that_the_path_shadows_is_the_users_function() {
    let mut stage = Stage::new("catalog_shadow");
    stage.value("CREATE SCHEMA shadow");
    stage.value(
        "CREATE FUNCTION shadow.lower(text) RETURNS text LANGUAGE plpgsql VOLATILE AS \
         $$ BEGIN INSERT INTO app.log (msg) VALUES ('shadow'); RETURN $1; END $$",
    );
    // Once the catalog knows this one, it knows the other.
    stage.value("CREATE FUNCTION shadow.quiet() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
    stage.goes_to_a_replica("SELECT shadow.quiet()");
    stage.goes_to_a_replica("SELECT lower('A')");
    stage.value("SET search_path = shadow, pg_catalog, app");
    let before = stage.log_rows();
    stage.goes_to_the_primary("SELECT lower('A')", "volatile_function");
    assert_eq!(stage.log_rows(), before + 1);
    stage.goes_to_a_replica("SELECT pg_catalog.lower('A')");
}

#[test]
fn a_function_made_a_moment_ago_goes_to_the_primary() {
    let mut stage = Stage::new("catalog_made");
    for number in 0..10 {
        let create = format!(
            "CREATE FUNCTION made_{number}() RETURNS int LANGUAGE plpgsql VOLATILE AS \
             $$ BEGIN INSERT INTO app.log (msg) VALUES ('made'); RETURN {number}; END $$"
        );
        let before = stage.log_rows();
        // Through the proxy, by this session or another, and outside of it.
        match number % 3 {
            0 => drop(stage.value(&create)),
            1 => drop(value(&mut stage.another(), &create)),
            _ => drop(value(&mut stage.direct(), &create)),
        }
        let sql = format!("SELECT made_{number}()");
        let made = stage.goes_to_the_primary(&sql, "volatile_function");
        assert_eq!(made, number.to_string());
        assert_eq!(stage.log_rows(), before + 1);
    }
    // One that does not write becomes a read once the catalog knows it.
    stage.value("CREATE FUNCTION quiet() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
    stage.goes_to_a_replica("SELECT quiet()");
}

const QUIET: &str = "CREATE OR REPLACE FUNCTION turns() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN 1; END $$";
const WRITES: &str = "CREATE OR REPLACE FUNCTION turns() RETURNS int LANGUAGE plpgsql VOLATILE AS \
                      $$ BEGIN INSERT INTO app.log (msg) VALUES ('turned'); RETURN 2; END $$";

#[test]
fn a_function_replaced_through_the_proxy_is_not_trusted_any_more() {
    let mut stage = Stage::new("catalog_replaced");
    for round in 0..6 {
        stage.value(QUIET);
        stage.goes_to_a_replica("SELECT turns()");
        let before = stage.log_rows();
        if round % 2 == 0 {
            stage.value(WRITES);
        } else {
            value(&mut stage.another(), WRITES);
        }
        assert_eq!(
            stage.goes_to_the_primary("SELECT turns()", "volatile_function"),
            "2"
        );
        assert_eq!(stage.log_rows(), before + 1);
    }
    // ALTER says the same in other words, in a transaction and with what is around it.
    stage.value(QUIET);
    stage.goes_to_a_replica("SELECT turns()");
    stage.value("BEGIN; ALTER FUNCTION turns() VOLATILE; COMMIT");
    stage.goes_to_the_primary("SELECT turns()", "volatile_function");
}

#[test]
fn a_function_replaced_outside_of_the_proxy_is_known_within_the_refresh_and_never_wrong() {
    let mut stage = Stage::new("catalog_outside");
    let mut direct = stage.direct();
    value(&mut direct, QUIET);
    stage.goes_to_a_replica("SELECT turns()");
    value(&mut direct, WRITES);
    cluster()
        .wait_caught_up(patience::PATIENCE)
        .expect("replayed");
    // What a replica refuses until then runs on the primary, once.
    let before = stage.log_rows();
    let mut calls = 0;
    eventually!(Duration::from_secs(10), {
        calls += 1;
        assert_eq!(stage.value("SELECT turns()"), "2");
        stage.last_route() == "primary (volatile_function)"
    });
    assert_eq!(stage.log_rows(), before + calls);
}

#[test]
fn a_view_replaced_a_moment_ago_is_not_trusted_any_more() {
    let mut stage = Stage::new("catalog_view");
    for _ in 0..3 {
        stage.value("CREATE OR REPLACE VIEW turning AS SELECT 1::bigint AS n");
        stage.value("CREATE OR REPLACE VIEW above AS SELECT * FROM turning");
        stage.goes_to_a_replica("SELECT n FROM above");
        let before = stage.log_rows();
        stage.value("CREATE OR REPLACE VIEW turning AS SELECT app.f_write(2) AS n");
        assert_eq!(
            stage.goes_to_the_primary("SELECT n FROM above", "volatile_function"),
            "2"
        );
        assert_eq!(stage.log_rows(), before + 1);
    }
}

#[test]
fn a_table_that_becomes_unlogged_is_read_on_the_primary_and_comes_back() {
    let mut stage = Stage::new("catalog_unlogged");
    stage.value("CREATE TABLE wandering AS SELECT 7 AS a");
    stage.goes_to_a_replica("SELECT a FROM wandering");
    stage.value("ALTER TABLE wandering SET UNLOGGED");
    assert_eq!(stage.value("SELECT a FROM wandering"), "7");
    assert!(stage.last_route().starts_with("primary ("));
    eventually!({
        stage.value("SELECT a FROM wandering");
        stage.last_route() == "primary (unlogged_table)"
    });
    stage.value("ALTER TABLE wandering SET LOGGED");
    stage.goes_to_a_replica("SELECT a FROM wandering");
    stage.value("CREATE UNLOGGED TABLE never_logged (a int)");
    let route = {
        stage.value("SELECT count(*) FROM never_logged");
        stage.last_route()
    };
    assert!(
        route.starts_with("primary (") && route != "primary (rerouted)",
        "{route}"
    );
}

#[test]
fn a_prepared_statement_follows_what_its_function_becomes() {
    let mut stage = Stage::new("catalog_prepared");
    stage.value(QUIET);
    prepare(&mut stage.client, "calls", "SELECT turns()");
    let run = |stage: &mut Stage| {
        let answer = run_named(&mut stage.client, "calls");
        assert_eq!(answer.error(), None);
        answer.value().unwrap_or_default()
    };
    eventually!({
        assert_eq!(run(&mut stage), "1");
        stage.last_route().starts_with("replica (")
    });
    stage.value(WRITES);
    let before = stage.log_rows();
    assert_eq!(run(&mut stage), "2");
    assert_eq!(stage.last_route(), "primary (volatile_function)");
    assert_eq!(stage.log_rows(), before + 1);
}

#[test]
fn each_database_has_its_own_catalog() {
    let mut one = Stage::new("catalog_one");
    new_database("catalog_two");
    let mut two = Client::open(one.proxy.addr(), &login_to("catalog_two")).expect("a login");
    one.value(QUIET);
    value(&mut direct_to(cluster(), &login_to("catalog_two")), WRITES);
    one.goes_to_a_replica("SELECT turns()");
    assert_eq!(value(&mut two, "SELECT turns()"), "2");
    assert_eq!(
        value(&mut two, "SHOW pgweir.last_route"),
        "primary (volatile_function)"
    );
    one.goes_to_a_replica("SELECT turns()");
    let answer = two.execute("SELECT turns()", &[]).expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("2"));
}

#[test]
fn a_parameter_that_a_function_sets_stays_with_the_session_and_a_local_one_pins_nobody() {
    let mut stage = Stage::new("catalog_setting");
    for (name, is_local) in [("tenant", "false"), ("tenant_here", "true")] {
        stage.value(&format!(
            "CREATE FUNCTION {name}(t text) RETURNS text LANGUAGE plpgsql AS \
             $$ BEGIN RETURN set_config('app.tenant', t, {is_local}); END $$"
        ));
    }
    // Until it is read what they do, they are asked about like anything else.
    stage.value(QUIET);
    stage.goes_to_a_replica("SELECT turns()");
    assert_eq!(stage.value("SELECT tenant_here('six')"), "six");
    assert_eq!(stage.value("SHOW pgweir.pinned"), "");
    assert_eq!(stage.value("SELECT tenant('seven')"), "seven");
    assert_eq!(stage.value("SHOW pgweir.pinned"), "setting");
    for _ in 0..3 {
        assert_eq!(stage.value("SHOW app.tenant"), "seven");
    }
}

#[test]
fn what_a_do_block_or_a_procedure_does_to_the_schema_is_noticed() {
    let mut stage = Stage::new("catalog_inside");
    stage.value(QUIET);
    stage.goes_to_a_replica("SELECT turns()");
    stage.value(&format!("DO $do$ BEGIN {WRITES}; END $do$"));
    assert_eq!(
        stage.goes_to_the_primary("SELECT turns()", "volatile_function"),
        "2"
    );
    stage.value(&format!(
        "CREATE PROCEDURE quieten() LANGUAGE plpgsql AS $do$ BEGIN {QUIET}; END $do$"
    ));
    // The catalog knows what the procedure does before it is called.
    stage.value("CREATE VIEW seen AS SELECT 1 AS n");
    stage.goes_to_a_replica("SELECT n FROM seen");
    stage.value("CALL quieten()");
    stage.goes_to_a_replica("SELECT turns()");
}
