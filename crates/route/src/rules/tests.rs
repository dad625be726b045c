//! Which rule speaks of which statement of which client, as tables of cases.

use pgweir_sql::PlanTable;

use super::*;

fn table(written: &str) -> Name {
    let (schema, name) = match written.split_once('.') {
        Some((schema, name)) => (Some(schema.into()), name),
        None => (None, written),
    };
    Name {
        schema,
        name: name.into(),
    }
}

fn rule(name: &str, statement: StatementMatch) -> Rule {
    Rule {
        name: name.into(),
        statement,
        ..Rule::default()
    }
}

fn on_tables(names: &[&str]) -> StatementMatch {
    StatementMatch {
        tables: names.iter().map(|name| table(name)).collect(),
        ..StatementMatch::default()
    }
}

fn on_regex(regex: &str) -> StatementMatch {
    StatementMatch {
        regex: Some(Regex::new(regex).unwrap()),
        ..StatementMatch::default()
    }
}

/// Returns the name of the rule that speaks of a batch of these texts, and `-` for none.
fn speaks(rules: &[Rule], login: Login<'_>, texts: &[&str]) -> String {
    let set = RuleSet::new(7, rules.to_vec());
    let mut plans = PlanTable::new(100);
    let plans: Vec<_> = texts
        .iter()
        .map(|text| plans.get(text.as_bytes()))
        .collect();
    let applicable = set.for_login(login);
    // Twice: the second time from what was kept with the plans.
    let first = set.ruling(plans.iter(), &applicable);
    assert_eq!(first, set.ruling(plans.iter(), &applicable));
    first.map_or_else(|| "-".to_owned(), |ruling| ruling.name.to_owned())
}

#[test]
fn a_statement_is_known_by_its_tables() {
    let cases = [
        ("orders", "SELECT * FROM orders", true),
        ("orders", "SELECT * FROM app.orders o JOIN b ON true", true),
        ("orders", "SELECT * FROM ORDERS", true),
        ("orders", "SELECT * FROM \"Orders\"", false),
        ("orders", "SELECT orders FROM t", false),
        ("orders", "SELECT 'orders'", false),
        ("orders", "DELETE FROM orders WHERE id = 1", true),
        ("orders", "UPDATE t SET a = 1 FROM orders", true),
        ("orders", "INSERT INTO orders VALUES (1)", true),
        (
            "orders",
            "WITH x AS (SELECT * FROM orders) SELECT * FROM x",
            true,
        ),
        ("orders", "SELECT 1; SELECT * FROM orders", true),
        ("orders", "DECLARE c CURSOR FOR SELECT * FROM orders", true),
        ("orders", "EXPLAIN SELECT * FROM orders", true),
        ("orders", "COPY orders TO STDOUT", true),
        ("app.orders", "SELECT * FROM app.orders", true),
        ("app.orders", "SELECT * FROM other.orders", false),
        ("app.orders", "SELECT * FROM orders", true),
    ];
    for (wanted, sql, expected) in cases {
        let spoken = speaks(&[rule("r", on_tables(&[wanted]))], Login::default(), &[sql]);
        assert_eq!(spoken == "r", expected, "{wanted}: {sql}");
    }
    let two = [rule("r", on_tables(&["a", "b"]))];
    assert_eq!(speaks(&two, Login::default(), &["TABLE b"]), "r");
}

#[test]
fn a_pattern_is_looked_for_in_the_shape() {
    let long = format!("SELECT {}, Needle", "a, ".repeat(4000) + "b");
    let cases = [
        (
            "^select .* from orders where id = 0$",
            "SELECT  a\nFROM orders WHERE id = 17",
            true,
        ),
        ("17", "SELECT 17", false),
        ("secret", "SELECT 'secret' -- secret", false),
        ("pgweir: route", "/* pgweir: route=auto */ SELECT 1", true),
        ("Orders", "SELECT * FROM Orders", false),
        ("\"Orders\"", "SELECT * FROM \"Orders\"", true),
        ("needle$", long.as_str(), true),
    ];
    for (regex, sql, expected) in cases {
        let spoken = speaks(&[rule("r", on_regex(regex))], Login::default(), &[sql]);
        assert_eq!(spoken == "r", expected, "{regex}: {sql}");
    }
}

#[test]
fn a_fingerprint_is_that_of_any_text_of_the_shape() {
    let wanted = StatementMatch {
        fingerprint: Some(Fingerprint::of(b"SELECT a FROM t WHERE b = 1")),
        ..StatementMatch::default()
    };
    let rules = [rule("r", wanted)];
    let of = |sql| speaks(&rules, Login::default(), &[sql]);
    assert_eq!(of("select a from t where b = 2"), "r");
    assert_eq!(
        of("/* pgweir: max_lag=1s */ select a from t where b = 2"),
        "r"
    );
    assert_eq!(of("select a from t where c = 2"), "-");
}

#[test]
fn a_kind_is_that_of_any_statement_of_the_text() {
    let wanted = StatementMatch {
        kinds: &[StatementKind::Delete, StatementKind::CopyFrom],
        ..StatementMatch::default()
    };
    let rules = [rule("r", wanted)];
    let of = |sql| speaks(&rules, Login::default(), &[sql]);
    assert_eq!(of("DELETE FROM t"), "r");
    assert_eq!(of("SELECT 1; DELETE FROM t"), "r");
    assert_eq!(of("COPY t FROM STDIN"), "r");
    assert_eq!(of("COPY t TO STDOUT"), "-");
    assert_eq!(of("SELECT 1"), "-");
    assert_eq!(of(""), "-");
}

#[test]
fn all_that_is_asked_must_hold() {
    let rules = [Rule {
        client: ClientMatch {
            user: Some("u".into()),
            database: Some("d".into()),
            application: Some("a".into()),
        },
        ..rule(
            "r",
            StatementMatch {
                regex: Some(Regex::new("^select").unwrap()),
                ..on_tables(&["t"])
            },
        )
    }];
    let login = |user, database, application| Login {
        user,
        database,
        application,
    };
    for (client, sql, expected) in [
        (login("u", "d", "a"), "SELECT * FROM t", "r"),
        (login("x", "d", "a"), "SELECT * FROM t", "-"),
        (login("u", "x", "a"), "SELECT * FROM t", "-"),
        (login("u", "d", ""), "SELECT * FROM t", "-"),
        (login("u", "d", "a"), "SELECT * FROM s", "-"),
        (login("u", "d", "a"), "TABLE t", "-"),
    ] {
        assert_eq!(speaks(&rules, client, &[sql]), expected, "{client:?} {sql}");
    }
}

#[test]
fn the_first_rule_speaks_for_the_whole_batch_and_one_that_blocks_before_it() {
    let wall = Rule {
        action: Action {
            block: Some("no".into()),
            ..Action::default()
        },
        ..rule("wall", on_tables(&["secrets"]))
    };
    let rules = [
        rule("a", on_tables(&["a"])),
        rule("b", on_tables(&["b"])),
        wall,
        rule("all", StatementMatch::default()),
    ];
    let of = |texts: &[&str]| speaks(&rules, Login::default(), texts);
    assert_eq!(of(&["TABLE a"]), "a");
    assert_eq!(of(&["TABLE b", "TABLE a"]), "a");
    assert_eq!(of(&["SELECT * FROM a, b"]), "a");
    assert_eq!(of(&["TABLE a", "TABLE secrets"]), "wall");
    // Within one statement the order of the file decides, as everywhere.
    assert_eq!(of(&["SELECT * FROM a, secrets"]), "a");
    assert_eq!(of(&["TABLE c"]), "all");
    assert_eq!(of(&[]), "-");
}

#[test]
fn no_rules_have_generation_0_and_say_nothing() {
    let none = RuleSet::new(7, Vec::new());
    assert_eq!(none.generation(), 0);
    let plan = PlanTable::new(1).get(b"select 1");
    let applicable = none.for_login(Login::default());
    assert_eq!(none.ruling(std::iter::once(&plan), &applicable), None);
}

#[test]
fn a_new_set_is_asked_anew() {
    let mut plans = PlanTable::new(10);
    let plan = plans.get(b"TABLE a");
    let name = |set: &RuleSet| {
        let applicable = set.for_login(Login::default());
        let ruling = set.ruling(std::iter::once(&plan), &applicable);
        ruling.map(|ruling| ruling.name.to_owned())
    };
    let old = RuleSet::new(1, vec![rule("old", on_tables(&["a"]))]);
    let new = RuleSet::new(
        2,
        vec![rule("x", on_tables(&["b"])), rule("new", on_tables(&["a"]))],
    );
    assert_eq!(name(&old).as_deref(), Some("old"));
    assert_eq!(name(&new).as_deref(), Some("new"));
}

/// The places of one set mean other rules in another.
#[test]
fn whom_another_set_applies_to_says_nothing() {
    let mut plans = PlanTable::new(10);
    let plan = plans.get(b"TABLE a");
    let for_all = RuleSet::new(1, vec![rule("all", StatementMatch::default())]);
    let mut of_one = rule("one", StatementMatch::default());
    of_one.client.user = Some("one".into());
    let for_one = RuleSet::new(2, vec![of_one]);
    let login = Login {
        user: "other",
        ..Login::default()
    };
    let applicable = for_all.for_login(login);
    let ruling = |set: &RuleSet| {
        let ruling = set.ruling(std::iter::once(&plan), &applicable);
        ruling.map(|ruling| ruling.name.to_owned())
    };
    assert_eq!(ruling(&for_all).as_deref(), Some("all"));
    assert_eq!(ruling(&for_one), None);
}

#[test]
fn a_timeout_is_said_by_the_rule_that_speaks_and_known_of_the_set() {
    let mut timed = rule("timed", on_tables(&["orders"]));
    timed.action.timeout = Some(Duration::from_secs(10));
    let plain = rule("plain", StatementMatch::default());
    let mut plans = PlanTable::new(10);
    let mut timeout = |set: &RuleSet, text: &str| {
        let plan = plans.get(text.as_bytes());
        let applicable = set.for_login(Login::default());
        let ruling = set.ruling(std::iter::once(&plan), &applicable);
        ruling.and_then(|ruling| ruling.timeout)
    };
    let set = RuleSet::new(1, vec![timed.clone(), plain.clone()]);
    assert!(set.has_timeouts());
    assert_eq!(
        timeout(&set, "SELECT a FROM orders"),
        Some(Duration::from_secs(10))
    );
    assert_eq!(timeout(&set, "SELECT a FROM users"), None);
    // The first that matches wins, whatever it says.
    let set = RuleSet::new(2, vec![plain, timed]);
    assert_eq!(timeout(&set, "SELECT a FROM orders"), None);
    assert!(!RuleSet::new(3, Vec::new()).has_timeouts());
}
