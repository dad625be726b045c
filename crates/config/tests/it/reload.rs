//! What SIGHUP can take over and what needs a restart.

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
idle_in_transaction_timeout = "1min"
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
            "reload server.idle_in_transaction_timeout: 0 -> 1min",
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
