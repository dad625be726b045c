//! Commands that end by themselves: `check`, `route`, and refusals.

use std::fs;

use crate::program::{outcome, pgweir};

#[test]
fn check_names_every_problem_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(
        &file,
        "[clusters.main]\nbackends = [{ host = 'pg1', weigth = 3 }]\n[auth]\nmethod = 'none'\n[[users]]\nname = 'app'\npassword = 'p'\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (code, stdout, stderr) = outcome(pgweir(["check", "--config", file]));
    assert_eq!((code, &*stdout), (2, ""));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].starts_with(&format!("{file}:2: ")), "{stderr}");
    assert!(lines[0].ends_with("did you mean weight?"), "{stderr}");
    assert!(lines[1].starts_with(&format!("{file}:4: ")), "{stderr}");
}

#[test]
fn check_of_a_good_file_says_ok() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("good.toml");
    fs::write(
        &file,
        "clusters.main.backends = [{ host = 'pg1' }]\nusers = [{ name = 'app', password = 'p' }]\n",
    )
    .unwrap();
    let (code, stdout, stderr) = outcome(pgweir(["check", "--config", file.to_str().unwrap()]));
    assert_eq!((code, &*stderr), (0, ""));
    assert!(
        stdout.starts_with(&format!("{}: ok\n", file.display())),
        "{stdout}"
    );
}

#[test]
fn check_of_a_missing_file_says_so() {
    let (code, _, stderr) = outcome(pgweir(["check"]));
    assert_eq!(code, 2);
    assert!(
        stderr.starts_with("pgweir.toml: cannot be read: "),
        "{stderr}"
    );
}

#[test]
fn run_without_a_configuration_says_what_to_give() {
    let (code, _, stderr) = outcome(pgweir(["run"]));
    assert_eq!(code, 2);
    assert!(
        stderr.contains("--config FILE") && stderr.contains("--upstream postgres://"),
        "{stderr}"
    );
}

#[test]
fn run_on_an_address_in_use_exits_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = [
        "run",
        "--upstream",
        "postgres://127.0.0.1:1/app",
        "--listen",
        &address,
    ];
    let (code, _, stderr) = outcome(pgweir(arguments));
    assert_eq!(code, 1);
    assert!(
        stderr.contains(&format!("pgweir: cannot listen on {address}")),
        "{stderr}"
    );
}

#[test]
fn route_prints_the_decision_as_a_table() {
    let (code, stdout, stderr) = outcome(pgweir(["route", "SELECT * FROM orders"]));
    assert_eq!((code, &*stderr), (0, ""));
    assert!(stdout.starts_with(" step "), "{stdout}");
    let cells = |line: &str| {
        line.split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let route = stdout.lines().map(cells).find(|cells| cells[0] == "route");
    assert_eq!(
        route.unwrap(),
        ["route", "replica", "read", "replica1, replica2"],
        "{stdout}"
    );
    assert!(stdout.ends_with("(as if primary were the primary, with the replicas replica1, replica2 healthy and without lag)\n"));
}

#[test]
fn route_knows_the_functions_of_a_schema() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("schema.sql");
    fs::write(
        &file,
        "\\restrict x\n\
         CREATE FUNCTION public.tax(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n * 2';\n\
         CREATE FUNCTION public.note(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT n';\n\
         CREATE VIEW public.noted AS SELECT public.note(1);\n\
         ALTER TABLE nothing OWNER TO nobody;\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for (sql, expected) in [
        ("SELECT tax(1)", ["route", "replica", "read"]),
        (
            "SELECT * FROM noted",
            ["route", "primary", "volatile_function"],
        ),
    ] {
        let (code, stdout, stderr) = outcome(pgweir(["route", sql, "--schema", file]));
        assert_eq!(code, 0, "{stderr}");
        assert!(
            stderr.contains("1 statements of") && stderr.contains("failed"),
            "{stderr}"
        );
        let cells = |line: &str| {
            line.split('|')
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let route = stdout.lines().map(cells).find(|cells| cells[0] == "route");
        assert_eq!(route.unwrap()[..3], expected, "{stdout}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let (code, _, stderr) = outcome(pgweir(["demo", "--port", "seven"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("--port <PORT>"), "{stderr}");
    let (code, _, stderr) = outcome(pgweir::<&str>([]));
    assert_eq!(code, 2);
    assert!(stderr.contains("Usage: pgweir"), "{stderr}");
}
