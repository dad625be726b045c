//! Files that are wrong: every problem is named, at its place, with its neighbour.

use pgweir_config::parse;
use proptest::prelude::*;

/// What a file needs besides what a case is about.
const CLUSTER: &str = "[clusters.main]\nbackends = [{ host = 'pg1' }]\n";
const TRUST: &str = "auth.method = 'trust'\n";

/// Returns what is said of a text, one line each.
fn problems(text: &str) -> Vec<String> {
    match parse(text, "f") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(problems(text), expected, "{text}");
}

#[test]
fn unknown_keys_are_named_with_their_neighbour() {
    let with = |text: &str| format!("{TRUST}{CLUSTER}{text}");
    check(
        &with("[databases.app]\npol_size = 5"),
        &["f:5: [databases.app] pol_size: unknown key; did you mean pool_size?"],
    );
    check(
        &with("[server]\nqwerty = 5"),
        &["f:5: [server] qwerty: unknown key"],
    );
    check(
        &with("[databases.'a b']\nx = 5"),
        &["f:5: [databases.\"a b\"] x: unknown key"],
    );
    check(
        &with("[sever]"),
        &["f:4: sever: unknown key; did you mean server?"],
    );
    check(
        &with("[[users]]\nname='a'\npasword='b'"),
        &["f:6: [[users]] pasword: unknown key; did you mean password?"],
    );
    check(
        "auth.method='trust'\n[clusters.main]\nbackends = [\n  { host = 'a' },\n  { host = 'b', wieght = 1 },\n]",
        &["f:5: [clusters.main] backends[1] wieght: unknown key; did you mean weight?"],
    );
}

#[test]
fn what_is_not_built_is_told_apart_from_what_is_unknown() {
    let text = format!(
        "{CLUSTER}dns_ttl = '30s'\n[http]\nlisten = 'x'\n[cache]\n[databases.app]\nconsistency = 'strict'\n\
         transaction_reads = 'until_commit'\nsplitting = 'maybe'\nshards = ['a']\n[server.tls]\nmode = 'allow'\n\
         [auth]\nmethod = 'cert'\nquery = 'x'"
    );
    check(
        &text,
        &[
            "f:3: [clusters.main] dns_ttl: is not built in this version",
            "f:5: [http] listen: \"x\" is not host:port or off",
            "f:6: cache: is not built in this version",
            "f:8: [databases.app] consistency: \"strict\" is none of session, eventual, strong",
            "f:9: [databases.app] transaction_reads: \"until_commit\" is none of primary, until_write",
            "f:10: [databases.app] splitting: \"maybe\" is none of off, observe, on",
            "f:11: [databases.app] shards: is not built in this version",
            "f:12: [server] tls: is not built in this version",
            "f:15: [auth] method: \"cert\" is not built in this version; use trust, password, md5, scram-sha-256",
            "f:16: [auth] query: is not built in this version",
            "f: no [[users]]: with method scram-sha-256 nobody can log in",
        ],
    );
}

#[test]
fn nearest_needs_to_know_where_the_proxy_is() {
    let text = format!("{TRUST}{CLUSTER}balance = 'nearest'\n");
    check(
        &text,
        &["f:4: [clusters.main] balance: \"nearest\" needs zone in [server]: near to what?"],
    );
    check(&format!("{text}[server]\nzone = 'a'"), &[]);
}

/// Lines of `[server]`, and what is said of them.
const VALUES: &[(&str, &str)] = &[
    (
        "workers = '4'",
        "workers: expected an integer, found a text",
    ),
    ("workers = -1", "workers: -1 is not from 0 to 1024"),
    ("workers = 1025", "workers: 1025 is not from 0 to 1024"),
    (
        "max_clients = 0",
        "max_clients: 0 is not from 1 to 10000000",
    ),
    (
        "max_clients = 99999999999999999999",
        "max_clients: 99999999999999999999 is not from 1 to 10000000",
    ),
    (
        "connect_timeout = 5",
        "connect_timeout: 5 has no unit: expected a duration with its unit (us, ms, s, min, h, d), as in \"30s\"",
    ),
    (
        "connect_timeout = '5 parsecs'",
        "connect_timeout: \"5 parsecs\" is not a duration with its unit (us, ms, s, min, h, d), as in \"30s\"",
    ),
    (
        "connect_timeout = '0'",
        "connect_timeout: must be above 0: every wait has a limit",
    ),
    (
        "max_message = '1KB'",
        "max_message: 1KB is not from 64KiB to 2147483647B",
    ),
    (
        "max_message = '16'",
        "max_message: \"16\" is not a size with its unit, as in \"16MB\"",
    ),
    (
        "max_message = 1e9",
        "max_message: expected a size with its unit, as in \"16MB\", found a number",
    ),
    (
        "listen = []",
        "listen: expected a list of addresses, found an empty list",
    ),
    (
        "listen = [6432]",
        "listen: expected a text, found an integer",
    ),
    (
        "listen = '::1:6432'",
        "listen: \"::1:6432\": an IPv6 address stands in brackets, as in [::1]:5432",
    ),
    (
        "listen = 'localhost:http'",
        "listen: \"localhost:http\": \"http\" is not a port",
    ),
    (
        "listen = 'localhost:65536'",
        "listen: \"localhost:65536\": \"65536\" is not a port",
    ),
    (
        "listen = ':6432'",
        "listen: \":6432\" is not host:port or unix:/folder",
    ),
    (
        "listen = 'unix:run'",
        "listen: \"unix:run\": a socket's folder begins with /",
    ),
];

#[test]
fn values_are_checked_against_their_kind_and_range() {
    for (line, expected) in VALUES {
        check(
            &format!("{TRUST}{CLUSTER}[server]\n{line}"),
            &[&format!("f:5: [server] {expected}")],
        );
    }
    for zero in ["0", "'0'", "'0s'"] {
        check(
            &format!("{TRUST}{CLUSTER}[server]\nserver_lifetime = {zero}"),
            &[],
        );
    }
}

/// Lines of `[clusters.main]`, and what is said of them.
const CLUSTERS: &[(&str, &str)] = &[
    (
        "",
        "f:2: [clusters.main] backends: missing: a cluster needs at least one server",
    ),
    (
        "backends = []",
        "f:3: [clusters.main] backends: expected a list of servers, found an empty list",
    ),
    (
        "backends = [5]",
        "f:3: [clusters.main] backends[0]: expected a table, found an integer",
    ),
    (
        "backends = [{ port = 1 }]",
        "f:3: [clusters.main] backends[0] host: missing",
    ),
    (
        "backends = [{ host = '' }]",
        "f:3: [clusters.main] backends[0] host: is empty",
    ),
    (
        "backends = [{ host = 'pg1:5432' }]",
        "f:3: [clusters.main] backends[0] host: \"pg1:5432\" is not a host; the port has its own key",
    ),
    (
        "backends = [{ host = 'a b' }]",
        "f:3: [clusters.main] backends[0] host: \"a b\" is not a host",
    ),
    (
        "backends = [{ host = 'a', port = 0 }]",
        "f:3: [clusters.main] backends[0] port: 0 is not from 1 to 65535",
    ),
    (
        "backends = [{ host = 'a', role = 'replcia' }]",
        "f:3: [clusters.main] backends[0] role: \"replcia\" is none of auto, primary, replica; did you mean replica?",
    ),
    (
        "backends = [{ name = 'x', host = 'a' }, { name = 'x', host = 'b' }]",
        "f:3: [clusters.main] backends[1] name: x is there twice",
    ),
    (
        "backends = [{ name = 'x', host = 'a' }, { host = 'a' }]",
        "f:3: [clusters.main] backends[1] host: the same server as x",
    ),
    (
        "backends = [{ host = 'a' }]\nmax_lag = '0'",
        "f:4: [clusters.main] max_lag: must be above 0: no replica is ever level with a busy primary",
    ),
    (
        "backends = [{ host = 'a' }]\nmax_lag = 'much'",
        "f:4: [clusters.main] max_lag: \"much\" is not a duration or a size, as in \"5s\" or \"16MB\"",
    ),
    (
        "backends = [{ host = 'a' }]\nuser = ''",
        "f:4: [clusters.main] user: is empty",
    ),
];

#[test]
fn clusters_and_their_servers_are_checked() {
    let with = |cluster: &str| format!("{TRUST}[clusters.main]\n{cluster}");
    for (cluster, expected) in CLUSTERS {
        check(&with(cluster), &[expected]);
    }
    check(TRUST, &["f: no [clusters.X]: there is no server to go to"]);
    check(
        &format!("{TRUST}[clusters]"),
        &["f:2: clusters: expected at least one table [clusters.X], found an empty table"],
    );
    check(
        &format!("{TRUST}clusters = 5"),
        &["f:2: clusters: expected at least one table [clusters.X], found an integer"],
    );
}

#[test]
fn databases_are_checked_against_the_clusters() {
    let two = format!("{TRUST}{CLUSTER}[clusters.other]\nbackends = [{{ host = 'pg2' }}]\n");
    check(
        &two,
        &["f: no [databases.X]: with several clusters, name the databases and where they are"],
    );
    check(
        &format!("{two}[databases.app]"),
        &["f:6: [databases.app] cluster: missing: there are several clusters"],
    );
    check(
        &format!("{two}[databases.app]\ncluster = 'mian'"),
        &["f:7: [databases.app] cluster: there is no [clusters.mian]; did you mean main?"],
    );
    check(
        &format!("{TRUST}{CLUSTER}[databases.app]\npool_size = 5\npool_min = 6"),
        &["f:4: [databases.app] pool_min: 6 is above pool_size, which is 5"],
    );
}

#[test]
fn users_and_passwords_are_checked() {
    let cases = [
        (
            "",
            "f: no [[users]]: with method scram-sha-256 nobody can log in",
        ),
        (
            "users = 5",
            "f:3: [clusters.main] users: unknown key; did you mean user?",
        ),
        (
            "[users]\nname = 'a'",
            "f:3: users: expected [[users]], found a table",
        ),
        ("[[users]]\npassword = 'x'", "f:3: [[users]] name: missing"),
        (
            "[[users]]\nname = 'a'",
            "f:3: [[users]] password: missing: method scram-sha-256 needs one",
        ),
        (
            "[[users]]\nname = 'a'\npassword = ''",
            "f:5: [[users]] password: is empty: PostgreSQL accepts no empty password",
        ),
        (
            "[[users]]\nname = 'a'\npassword = 5",
            "f:5: [[users]] password: expected a text or { env = \"NAME\" }, found an integer",
        ),
        (
            "[[users]]\nname = 'a'\npassword = { env = 'PGWEIR_TEST_NOT_SET' }",
            "f:5: [[users]] password: environment variable PGWEIR_TEST_NOT_SET is not set",
        ),
        (
            "[[users]]\nname = 'a'\npassword = { file = 'x' }",
            "f:5: [[users]] password: expected a text or { env = \"NAME\" }",
        ),
        (
            "[[users]]\nname = 'a'\npassword = 'x'\n[[users]]\nname = 'a'\npassword = 'y'",
            "f:6: [[users]] name: a is there twice",
        ),
    ];
    for (users, expected) in cases {
        let found = problems(&format!("{CLUSTER}{users}"));
        assert_eq!(
            found.first().map(String::as_str),
            Some(expected),
            "{found:?}"
        );
    }
    let both = problems(&format!(
        "{CLUSTER}[[users]]\nname='a'\npassword='x'\npassword_file='/nonexistent/x'"
    ));
    assert_eq!(
        both[0],
        "f:5: [[users]] password: given together with password_file; keep one"
    );
    assert!(
        both[1].starts_with("f:6: [[users]] password_file: /nonexistent/x: "),
        "{both:?}"
    );
}

#[test]
fn broken_toml_is_named_by_line_and_nothing_else_is_said() {
    let errors = problems(&format!("{CLUSTER}[server]\nworkers = \nunknown = 1"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("f:4: "), "{errors:?}");
    let twice = problems("[server]\nworkers = 1\nworkers = 2");
    assert!(twice[0].starts_with("f:3: duplicate key"), "{twice:?}");
}

#[test]
fn columns_count_characters() {
    let errors = parse(&format!("{TRUST}{CLUSTER}[databases.app]\n'ü' = 1"), "f").unwrap_err();
    assert_eq!((errors.0[0].line, errors.0[0].column), (5, 1));
    let errors = parse(
        &format!("{TRUST}clusters.main.backends = [{{ host = 'ü', port = 'x' }}]"),
        "f",
    )
    .unwrap_err();
    assert_eq!((errors.0[0].line, errors.0[0].column), (2, 48));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = parse(&text, "f");
    }

    #[test]
    fn no_file_made_of_its_words_makes_the_reader_panic(
        lines in proptest::collection::vec(
            (
                "(\\[(server|clusters\\.a|databases\\.a|auth|http)\\]|\\[\\[(users|clusters\\.a\\.backends)\\]\\]|)",
                "(listen|workers|backends|host|port|name|password|max_lag|cluster|pool_size|method|user|tls|x)",
                "('[a-z0-9:/.]{0,8}'|[0-9-]{1,12}|\\[\\]|\\{ ?\\}|\\{ env = 'X' \\}|\\[\\{ host = 'a' \\}\\]|true|1\\.5|1979-05-27|)",
            ),
            0..12,
        ),
    ) {
        let text: String = lines.iter().map(|(table, key, value)| format!("{table}\n{key} = {value}\n")).collect();
        let _ = parse(&text, "f");
    }
}

#[test]
fn functions_are_named_as_sql_names_them() {
    let with =
        |list: &str| format!("{TRUST}{CLUSTER}[databases.app]\nreplica_safe_functions = {list}");
    let config = parse(&with("['Lower', 'app.\"Odd.name\"', '\"a b\".f']"), "f").expect("valid");
    let named: Vec<_> = config.databases[0]
        .policy
        .replica_safe
        .iter()
        .map(|function| (function.schema.as_deref(), &*function.name))
        .collect();
    assert_eq!(
        named,
        [
            (None, "lower"),
            (Some("app"), "Odd.name"),
            (Some("a b"), "f")
        ]
    );
    for wrong in ["", "a.b.c", "a.", ".b", "f()", "a b", "\"a", "1f"] {
        check(
            &with(&format!("['{wrong}']")),
            &[&*format!(
                "f:5: [databases.app] replica_safe_functions: {wrong:?} is not a function: name or schema.name"
            )],
        );
    }
    check(
        &with("'lower'"),
        &[
            "f:5: [databases.app] replica_safe_functions: expected a list of functions, found a text",
        ],
    );
}

#[test]
fn an_address_of_a_collector_with_a_password_is_refused_without_showing_it() {
    for endpoint in [
        "http://user:secret@h:4318",
        "http://secret@h",
        "https://user:secret@h",
        "user:secret@h:4318/v1?x=y",
    ] {
        let text = format!("{TRUST}{CLUSTER}[telemetry]\nendpoint = '{endpoint}'");
        let said = problems(&text).join("\n");
        assert!(said.contains("a user or a password"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    check(
        &format!("{TRUST}{CLUSTER}[telemetry]\nendpoint = 'http://h:4318/a@b'"),
        &[],
    );
}
