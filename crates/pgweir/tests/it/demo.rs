//! The demo: it works as its screen says, and leaves nothing.

use std::fs;
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
