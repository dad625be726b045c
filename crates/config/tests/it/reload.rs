//! What SIGHUP can take over and what needs a restart.

use pgweir_config::reference::{Kind, SETTINGS, Setting, Table};
use pgweir_config::{Change, Config, diff, parse, take_over};

const OLD: &str = r#"
[server]
listen = ["127.0.0.1:6432"]
max_clients = 100
[clusters.main]
backends = [{ name = "pg1", host = "a" }, { name = "pg2", host = "b" }]
password = "old monitor"
[databases.app]
pool_size = 10
[databases.gone]
[[users]]
name = "app"
password = "old secret"
"#;

const NEW: &str = r#"
[server]
listen = ["127.0.0.1:6433"]
max_clients = 200
[clusters.main]
backends = [{ name = "pg1", host = "a", weight = 1 }, { name = "pg2", host = "c" }, { name = "pg3", host = "d" }]
password = "new monitor"
max_lag = "1MB"
[clusters.second]
backends = [{ host = "e" }]
[databases.app]
cluster = "main"
pool_size = 20
pool_mode = "session"
[databases.fresh]
cluster = "main"
[databases.far]
cluster = "second"
[[users]]
name = "app"
password = "new secret"
server_user = "other"
[[users]]
name = "second"
password = "x"
"#;

fn configs() -> (Config, Config) {
    (
        parse(OLD, "old").expect("old is right"),
        parse(NEW, "new").expect("new is right"),
    )
}

fn line(change: &Change) -> String {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mark = if change.reloadable {
        "reload"
    } else {
        "restart"
    };
    format!(
        "{mark} {}: {} -> {}",
        change.key,
        side(&change.old),
        side(&change.new)
    )
}

#[test]
fn every_change_is_told_and_no_secret() {
    let (old, new) = configs();
    let lines: Vec<_> = diff(&old, &new).iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "restart clusters: main -> main, second",
            "restart server.listen: 127.0.0.1:6432 -> 127.0.0.1:6433",
            "reload server.max_clients: 100 -> 200",
            "restart clusters.main.backends: pg1, pg2 -> pg1, pg2, pg3",
            "reload clusters.main.password: *** -> ***",
            "reload clusters.main.max_lag: 5s -> 1MiB",
            "reload clusters.main.backends.pg1.weight: 100 -> 1",
            "restart clusters.main.backends.pg2.host: b -> c",
            "restart databases.app.pool_mode: transaction -> session",
            "reload databases.app.pool_size: 10 -> 20",
            "reload databases.gone: present -> -",
            "reload users.app.password: *** -> ***",
            "reload users.app.server_user: - -> other",
            "reload databases.fresh: - -> present",
            "restart databases.far: - -> present",
            "reload users.second: - -> present",
        ]
    );
}

#[test]
fn nothing_changes_between_equals() {
    let (old, new) = configs();
    assert_eq!(diff(&old, &old), []);
    assert_eq!(take_over(&old, &old), old);
    assert_eq!(take_over(&new, &new), new);
}

#[test]
fn what_is_taken_over_is_what_is_told_as_reloadable() {
    let (old, new) = configs();
    let merged = take_over(&old, &new);
    let (taken, left): (Vec<_>, Vec<_>) = diff(&old, &new)
        .into_iter()
        .partition(|change| change.reloadable);
    assert_eq!(diff(&old, &merged), taken);
    assert_eq!(diff(&merged, &new), left);
}

/// Returns a file with one setting given, as small as it can be around it.
fn with_setting(given: Option<(&Setting, &str)>) -> Config {
    let mut text = String::new();
    for (table, lines) in [
        (Table::Server, "[server]"),
        (Table::Auth, "[auth]"),
        (Table::Admin, "[admin]"),
        (Table::Http, "[http]"),
        (Table::Log, "[log]"),
        (Table::Telemetry, "[telemetry]"),
        (Table::Cluster, "[clusters.main]"),
        (
            Table::Backend,
            "[[clusters.main.backends]]\nname = 'pg1'\nhost = 'a'",
        ),
        (Table::Breaker, "[clusters.main.breaker]"),
        (Table::Database, "[databases.app]"),
        (Table::User, "[[users]]\nname = 'app'\npassword = 'x'"),
        (Table::Rule, "[[rules]]\nname = 'one'"),
        (Table::RuleMatch, "[rules.match]"),
        (Table::RuleAction, "[rules.action]\nroute = 'auto'"),
    ] {
        let (key, value) = given
            .filter(|(setting, _)| setting.table == table)
            .map_or(("", ""), |(s, value)| (s.key, value));
        let kept = lines
            .lines()
            .filter(|line| key.is_empty() || !line.starts_with(&format!("{key} =")));
        text.extend(kept.map(|line| format!("{line}\n")));
        if !key.is_empty() {
            text += &format!("{key} = {value}\n");
        }
    }
    parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// Returns a value that is nobody's default.
fn another(setting: &Setting) -> Option<String> {
    // A name is what the others are found by, and a file becomes the password itself.
    if matches!(
        (setting.table, setting.key),
        (Table::Backend | Table::User | Table::Rule, "name") | (Table::Database, "cluster")
    ) {
        return None;
    }
    match setting.kind {
        // What a rule names must be there.
        Kind::Name if setting.table == Table::RuleMatch => Some("'app'".to_owned()),
        Kind::Route => Some("'pg1'".to_owned()),
        Kind::Tables => Some("['a.b']".to_owned()),
        Kind::Pattern => Some("'a|b'".to_owned()),
        Kind::Fingerprint => Some("'0123456789abcdef'".to_owned()),
        Kind::Addresses => Some("['other:1']".to_owned()),
        Kind::Integer { .. } => Some("3".to_owned()),
        Kind::Duration { .. } | Kind::Lag => Some("'77s'".to_owned()),
        Kind::Size { .. } => Some("'77MB'".to_owned()),
        Kind::Word { now, .. } => now
            .iter()
            .find(|word| setting.default != Some(&format!("\"{word}\"")))
            .map(|word| format!("'{word}'")),
        Kind::Name | Kind::Host | Kind::Password => Some("'other'".to_owned()),
        Kind::Names => Some("['app']".to_owned()),
        Kind::HttpAddress => Some("'off'".to_owned()),
        Kind::Endpoint => Some("'http://other:4318'".to_owned()),
        Kind::LogLevel => Some("'warn'".to_owned()),
        Kind::Functions => Some("['f', 'app.\"F\"']".to_owned()),
        // `block` stands alone.
        Kind::Path | Kind::Backends | Kind::Part | Kind::Text => None,
    }
}

#[test]
fn each_setting_alone_is_taken_over_exactly_if_the_table_says_so() {
    let old = with_setting(None);
    for setting in SETTINGS {
        let Some(value) = another(setting).filter(|_| setting.key != "transaction_reads") else {
            continue;
        };
        let new = with_setting(Some((setting, &value)));
        let changes = diff(&old, &new);
        assert_eq!(changes.len(), 1, "{setting:?}: {changes:?}");
        assert_eq!(changes[0].reloadable, setting.reloadable, "{setting:?}");
        let expected = if setting.reloadable { &new } else { &old };
        assert_eq!(take_over(&old, &new), *expected, "{setting:?}");
    }
}
