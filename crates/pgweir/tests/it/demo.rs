//! The demo: it works as its screen says, and leaves nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use pgweir_testkit::{Client, Login};
use tempfile::TempDir;

use crate::program::{PATIENCE, Program, outcome, pgweir};

/// Returns a folder that the servers' user can reach.
fn folder() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("pgweir-it-")
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Says whether the folder is empty and no process works in it.
fn nothing_left(dir: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let working = processes
        .filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok())
        .any(|cwd| cwd.starts_with(dir));
    !working && fs::read_dir(dir).unwrap().next().is_none()
}

/// Returns the address in the line that the screen tells to paste.
fn address(line: &str) -> String {
    let (_, rest) = line.split_once("postgres://app:app@").unwrap();
    rest.split_once("/app").unwrap().0.to_owned()
}

#[test]
fn ctrl_c_leaves_no_process_and_no_folder() {
    let dir = folder();
    let arguments = [
        "demo",
        "--replicas",
        "1",
        "--load",
        "--dir",
        dir.path().to_str().unwrap(),
    ];
    let mut demo = Program::start(pgweir(arguments));
    let address = address(&demo.line_with("postgres://app:app@"));
    let mut client = Client::open(&address, &Login::new("app", "app").password("app")).unwrap();
    let counted = client
        .query("SELECT count(*) >= 10000 FROM orders")
        .unwrap();
    assert_eq!(counted.rows(), [[Some("t".to_owned())]]);
    demo.line_with("writes/s");
    demo.line_with(" s ");
    demo.signal(Signal::SIGINT);
    demo.line_with("stopped");
    assert_eq!(demo.end().code(), Some(0));
    assert!(nothing_left(dir.path()));
}

#[test]
fn what_the_screen_tells_to_look_at_is_there_and_an_operator_may_end_it() {
    let dir = folder();
    let path = dir.path().to_str().unwrap();
    let mut demo = Program::start(pgweir(["demo", "--replicas", "1", "--dir", path]));
    let console = demo.line_with("postgres://admin:admin@");
    let (_, rest) = console.split_once('@').unwrap();
    let (address, _) = rest.split_once("/pgweir").unwrap();
    let login = Login::new("admin", "pgweir").password("admin");
    let mut operator = Client::open(address, &login).unwrap();
    let roles = operator.query("SELECT role FROM backends ORDER BY role");
    let expected = [[Some("primary".to_owned())], [Some("replica".to_owned())]];
    assert_eq!(roles.unwrap().rows(), expected);

    let top = demo.line_with(" top ");
    let url = top.trim().split('"').nth(1).unwrap();
    let (code, stdout, stderr) = outcome(pgweir(["top", "--once", "--interval", "0.1", url]));
    assert_eq!((code, &*stderr), (0, ""));
    assert!(stdout.contains("replica1"), "{stdout}");

    let page = demo.line_with("http://");
    let authority = page
        .trim()
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let ready = http_get(authority, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(http_get(authority, "/").contains("<title>"), "no page");

    operator.send_query("SHUTDOWN").unwrap();
    demo.line_with("stopped");
    assert_eq!(demo.end().code(), Some(0));
    assert!(nothing_left(dir.path()));
}

/// Returns the whole answer, as it comes over the wire.
fn http_get(authority: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_signal_during_the_start_leaves_nothing_either() {
    let dir = folder();
    let mut demo = Program::start(pgweir(["demo", "--dir", dir.path().to_str().unwrap()]));
    // The folder is there once the start is under way.
    pgweir_testkit::eventually!(PATIENCE, fs::read_dir(dir.path()).unwrap().next().is_some());
    demo.signal(Signal::SIGTERM);
    demo.line_with("stopped");
    assert_eq!(demo.end().code(), Some(0));
    assert!(nothing_left(dir.path()));
}

#[test]
fn without_postgresql_it_says_so_and_exits_with_1() {
    let mut command = pgweir(["demo"]);
    command.env("PGWEIR_PG_BIN", "/nonexistent");
    let (code, stdout, stderr) = outcome(command);
    assert_eq!((code, &*stdout), (1, ""));
    assert!(
        stderr.starts_with("pgweir: /nonexistent holds no usable PostgreSQL server"),
        "{stderr}"
    );
}
