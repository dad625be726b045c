//! A start from URLs, with no file.

use pgweir_config::{AuthMethod, Config, ListenAddress, from_upstreams};
use proptest::prelude::*;

fn from(urls: &[&str]) -> Result<Config, String> {
    let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
    from_upstreams(&urls, None).map_err(|errors| errors.to_string())
}

fn backends(config: &Config) -> Vec<(&str, &str, u16)> {
    let all = config.clusters.iter().flat_map(|cluster| &cluster.backends);
    all.map(|backend| (&*backend.name, &*backend.host, backend.port))
        .collect()
}

#[test]
fn one_url_names_servers_user_and_database() {
    let config = from(&["postgres://app:s%40cret@pg1:5432,pg2:5433,pg3/shop"]).unwrap();
    let cluster = &config.clusters[0];
    assert_eq!(
        backends(&config),
        [
            ("pg1:5432", "pg1", 5432),
            ("pg2:5433", "pg2", 5433),
            ("pg3:5432", "pg3", 5432)
        ]
    );
    assert_eq!(
        (&*cluster.name, &*cluster.user, &*cluster.database),
        ("main", "app", "shop")
    );
    assert_eq!(cluster.password.as_ref().unwrap().expose(), "s@cret");
    assert_eq!(
        config
            .user("app")
            .unwrap()
            .password
            .as_ref()
            .unwrap()
            .expose(),
        "s@cret"
    );
    assert_eq!(config.auth.method, AuthMethod::ScramSha256);
    assert_eq!(config.database("any").unwrap().server_name("any"), "any");
}

#[test]
fn several_urls_are_more_servers() {
    let config = from(&[
        "postgres://app:x@pg1/shop",
        "postgresql://app:x@[::1]:5433/shop",
        "postgres://pg3",
    ])
    .unwrap();
    assert_eq!(
        backends(&config),
        [
            ("pg1:5432", "pg1", 5432),
            ("[::1]:5433", "::1", 5433),
            ("pg3:5432", "pg3", 5432)
        ]
    );
}

#[test]
fn without_a_password_everyone_is_trusted() {
    let config = from(&["postgres://localhost"]).unwrap();
    assert_eq!(config.auth.method, AuthMethod::Trust);
    assert_eq!(
        (&*config.clusters[0].user, &*config.clusters[0].database),
        ("postgres", "postgres")
    );
}

#[test]
fn sockets_and_libpqs_parameters_are_read() {
    let config = from(&["postgres://app@%2Frun%2Fpostgresql:5433/shop?sslmode=disable"]).unwrap();
    assert_eq!(
        backends(&config),
        [("/run/postgresql:5433", "/run/postgresql", 5433)]
    );
    let config =
        from(&["postgres:///shop?host=/run/postgresql,pg2&port=5433,5434&user=me&password=p%26q"])
            .unwrap();
    assert_eq!(
        backends(&config),
        [
            ("/run/postgresql:5433", "/run/postgresql", 5433),
            ("pg2:5434", "pg2", 5434)
        ]
    );
    assert_eq!(&*config.clusters[0].user, "me");
    assert_eq!(config.users[0].password.as_ref().unwrap().expose(), "p&q");
}

#[test]
fn the_listening_address_is_read_as_in_the_file() {
    let urls = ["postgres://localhost".to_owned()];
    let config = from_upstreams(&urls, Some("0.0.0.0:7000")).unwrap();
    assert_eq!(
        config.server.listen,
        [ListenAddress::Tcp("0.0.0.0".to_owned(), 7000)]
    );
    let errors = from_upstreams(&urls, Some("0.0.0.0:x"))
        .unwrap_err()
        .to_string();
    assert_eq!(errors, "--listen: \"0.0.0.0:x\": \"x\" is not a port");
}

#[test]
fn what_is_wrong_is_told_without_the_password() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "--upstream: no URL"),
        (
            &["mysql://x"],
            "--upstream: URL 1: expected postgres://user:password@host:port/database",
        ),
        (
            &["postgres://app:hunter2@/shop"],
            "--upstream: URL 1: no host",
        ),
        (
            &["postgres://app:hunter2%@pg1"],
            "--upstream: URL 1: % needs two hexadecimal digits, and all together be UTF-8 without a zero byte",
        ),
        (
            &["postgres://app:hunter2%00@pg1"],
            "--upstream: URL 1: % needs two hexadecimal digits, and all together be UTF-8 without a zero byte",
        ),
        (
            &["postgres://app:hunter2@pg1:x"],
            "--upstream: URL 1: \"pg1:x\": \"x\" is not a port",
        ),
        (
            &["postgres://app:hunter2@pg1:0"],
            "--upstream: URL 1: 0 is not a port",
        ),
        (
            &["postgres://app:hunter2@pg1,pg1"],
            "--upstream: pg1:5432 is there twice",
        ),
        (
            &["postgres://app:hunter2@pg1?sslmode=require"],
            "--upstream: URL 1: sslmode=require is not built in this version",
        ),
        (
            &["postgres://app:hunter2@pg1", "postgres://b@pg2"],
            "--upstream: URL 2: user, password or database differ from those of URL 1",
        ),
        (
            &["postgres://::1/x"],
            "--upstream: URL 1: \"::1\": an IPv6 address stands in brackets, as in [::1]:5432",
        ),
    ];
    for (urls, expected) in cases {
        let error = from(urls).unwrap_err();
        assert_eq!(error, *expected);
        assert!(!error.contains("hunter2"));
    }
}

proptest! {
    #[test]
    fn no_url_makes_it_panic(url in "\\PC{0,80}", rest in "[a-z0-9:@/?&=%,\\[\\]]{0,60}") {
        let _ = from(&[&url, &format!("postgres://{rest}")]);
    }
}
