//! `[[rules]]`: what is read of them, what is wrong with them, and how a reload shows them.

use std::time::Duration;

use pgweir_config::{Config, Consistency, MaxLag, RuleKind, RuleRoute, diff, parse, take_over};

const BASE: &str = "[clusters.main]\nbackends = [{ name = 'pg1', host = 'a' }, { name = 'pg2', host = 'b' }]\n\
    [databases.app]\n[[users]]\nname = 'report'\npassword = 'x'\n";

fn with(rules: &str) -> Result<Config, Vec<String>> {
    parse(&format!("{BASE}{rules}"), "f")
        .map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

#[track_caller]
fn check(rules: &str, expected: &[&str]) {
    assert_eq!(with(rules).expect_err("refused"), expected, "{rules}");
}

#[test]
fn all_that_a_rule_can_say_is_read() {
    let config = with(
        r#"[[rules]]
        name = "reports"
        match = { user = "report", database = "app", application = "nightly", tables = ["Orders", 'app."Mixed Case"', 'a.b'],
                  regex = "^select .* from orders", fingerprint = "28146A707030cb58", kind = "select" }
        action = { route = "pg2", max_lag = "30s", consistency = "eventual", timeout = "10s" }
        [[rules]]
        match = {}
        action.block = "not today"
        "#,
    )
    .unwrap();
    let [reports, block] = config.rules.as_slice() else {
        panic!("{:?}", config.rules)
    };
    assert_eq!((&*reports.name, &*block.name), ("reports", "2"));
    let matches = &reports.matches;
    assert_eq!(matches.user.as_deref(), Some("report"));
    assert_eq!(matches.database.as_deref(), Some("app"));
    assert_eq!(matches.application.as_deref(), Some("nightly"));
    let tables: Vec<_> = matches.tables.iter().map(ToString::to_string).collect();
    assert_eq!(tables, ["orders", "app.\"Mixed Case\"", "a.b"]);
    let regex = matches.regex.as_ref().unwrap().regex();
    assert!(regex.is_match(b"select a from orders"));
    assert_eq!(matches.fingerprint, Some(0x2814_6a70_7030_cb58));
    assert_eq!(matches.kind, Some(RuleKind::Select));
    let action = &reports.action;
    assert_eq!(action.route, Some(RuleRoute::Backend("pg2".into())));
    assert_eq!(action.max_lag, Some(MaxLag::Time(Duration::from_secs(30))));
    assert_eq!(action.consistency, Some(Consistency::Eventual));
    assert_eq!(action.timeout, Some(Duration::from_secs(10)));
    assert_eq!(block.matches, Default::default());
    assert_eq!(block.action.block.as_deref(), Some("not today"));
}

#[test]
fn each_route_has_its_word() {
    for (word, expected) in [
        ("auto", RuleRoute::Auto),
        ("primary", RuleRoute::Primary),
        ("replica", RuleRoute::Replica),
    ] {
        let config = with(&format!("[[rules]]\nmatch = {{}}\naction.route = '{word}'")).unwrap();
        assert_eq!(config.rules[0].action.route, Some(expected));
    }
}

#[test]
fn without_rules_there_are_none() {
    assert!(with("").unwrap().rules.is_empty());
}

/// What stands in a rule, and what is said of it. The rule begins in line 7.
const WRONG: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "f:7: [[rules]] action: missing",
            "f:7: [[rules]] match: missing",
        ],
    ),
    (
        "match = {}\naction = {}",
        &[
            "f:9: [[rules]] action: says nothing; known are route, max_lag, consistency, timeout, block",
        ],
    ),
    (
        "match = 5\naction.route = 'auto'",
        &["f:8: [[rules]] match: expected a table, found an integer"],
    ),
    (
        "mach = {}\nmatch = {}\naction.route = 'auto'",
        &["f:8: [[rules]] mach: unknown key; did you mean match?"],
    ),
    (
        "match = { usr = 'a' }\naction.route = 'auto'",
        &["f:8: [[rules]] match usr: unknown key; did you mean user?"],
    ),
    (
        "match = { user = 'reprot', database = 'ap' }\naction.route = 'auto'",
        &[
            "f:8: [[rules]] match user: there is no user reprot; did you mean report?",
            "f:8: [[rules]] match database: there is no [databases.ap]; did you mean app?",
        ],
    ),
    (
        "match = { regex = 'a(b' }\naction.route = 'auto'",
        &["f:8: [[rules]] match regex: is no regular expression: unclosed group"],
    ),
    (
        "match = { fingerprint = '12' }\naction.route = 'auto'",
        &[
            "f:8: [[rules]] match fingerprint: \"12\" is not 16 hexadecimal digits, as pgweir route prints them",
        ],
    ),
    (
        "match = { tables = 'orders' }\naction.route = 'auto'",
        &[
            "f:8: [[rules]] match tables: expected a list of tables, as in [\"orders\", \"app.users\"], found a text",
        ],
    ),
    (
        "match = { tables = [] }\naction.route = 'auto'",
        &[
            "f:8: [[rules]] match tables: expected a list of tables, as in [\"orders\", \"app.users\"], found an empty list",
        ],
    ),
    (
        "match = { tables = ['a b'] }\naction.route = 'auto'",
        &["f:8: [[rules]] match tables: \"a b\" is no table: expected name or schema.name"],
    ),
    (
        "match = { kind = 'delet' }\naction.route = 'auto'",
        &[
            "f:8: [[rules]] match kind: \"delet\" is none of select, insert, update, delete, merge, copy, call, do, ddl; \
         did you mean delete?",
        ],
    ),
    (
        "match = {}\naction.route = 'pg3'",
        &[
            "f:9: [[rules]] action route: \"pg3\" is none of auto, primary, replica, and no backend; did you mean pg1?",
        ],
    ),
    (
        "match = {}\naction = { block = 'no', route = 'primary' }",
        &["f:9: [[rules]] action block: stands alone: what is refused goes nowhere"],
    ),
    (
        "match = {}\naction = { block = '' }",
        &["f:9: [[rules]] action block: is empty"],
    ),
    (
        "match = {}\naction = { consistency = 'strict' }",
        &["f:9: [[rules]] action consistency: \"strict\" is none of session, eventual, strong"],
    ),
    (
        "match = {}\naction = { route = 'auto', cache = '1s', mirror = 'x' }",
        &[
            "f:9: [[rules]] action cache: is not built in this version",
            "f:9: [[rules]] action mirror: is not built in this version",
        ],
    ),
    (
        "name = 'a'\nmatch = {}\naction.route = 'auto'\n[[rules]]\nname = 'a'\nmatch = {}\naction.route = 'auto'",
        &["f:11: [[rules]] name: a is there twice"],
    ),
];

#[test]
fn what_is_wrong_is_named_at_its_place() {
    for (rule, expected) in WRONG {
        check(&format!("[[rules]]\n{rule}"), expected);
    }
    assert_eq!(
        parse(&format!("rules = 5\n{BASE}"), "f")
            .unwrap_err()
            .to_string(),
        "f:1: rules: expected [[rules]], found an integer"
    );
}

#[test]
fn a_file_has_a_limit_of_rules() {
    let rule = "[[rules]]\nmatch = {}\naction.route = 'auto'\n";
    assert_eq!(with(&rule.repeat(1000)).unwrap().rules.len(), 1000);
    check(&rule.repeat(1001), &["f:7: rules: 1001 are more than 1000"]);
}

#[test]
fn a_reload_takes_rules_over_and_shows_them() {
    let old = with("[[rules]]\nmatch.user = 'report'\naction.route = 'replica'").unwrap();
    let new = with(
        "[[rules]]\nmatch = { tables = ['a.b'], regex = 'x', kind = 'do', fingerprint = '0000000000000001' }\n\
         action = { route = 'primary', max_lag = '1s', consistency = 'eventual' }\n\
         [[rules]]\nname = 'wall'\nmatch = {}\naction.block = 'no'",
    )
    .unwrap();
    let lines: Vec<_> = diff(&old, &new)
        .into_iter()
        .map(|change| {
            assert!(change.reloadable, "{change:?}");
            let side = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!(
                "{}: {} > {}",
                change.key,
                side(change.old),
                side(change.new)
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "rules: 1 > 1, wall",
            "rules.1.match.user: report > -",
            "rules.1.match.tables: - > a.b",
            "rules.1.match.regex: - > x",
            "rules.1.match.fingerprint: - > 0000000000000001",
            "rules.1.match.kind: - > do",
            "rules.1.action.route: replica > primary",
            "rules.1.action.max_lag: - > 1s",
            "rules.1.action.consistency: - > eventual",
            "rules.wall: - > present",
        ]
    );
    assert_eq!(take_over(&old, &new).rules, new.rules);
    assert_eq!(diff(&new, &new), []);
}
