//! `pgweir run` and its signals, in front of a server that is not there: none of this needs one.

use std::fs;
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::program::{Program, pgweir};

const CONFIG: &str = "server = { listen = ['127.0.0.1:0'], workers = 1 }\n\
    clusters.main.backends = [{ host = '127.0.0.1', port = 1 }]\n\
    users = [{ name = 'app', password = 'p' }]\n";

/// Starts it on a file; returns it with the address that it listens on.
fn start(file: &str) -> (Program, String) {
    let mut program = Program::start(pgweir(["run", "--config", file]));
    let line = program.line_with("listening on ");
    let (_, address) = line.split_once("listening on ").unwrap();
    (program, address.to_owned())
}

#[test]
fn sighup_takes_over_a_good_file_and_keeps_the_old_one_before_a_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pgweir.toml");
    fs::write(&file, CONFIG).unwrap();
    let (mut program, address) = start(file.to_str().unwrap());
    let reload = |program: &Program, text: &str| {
        fs::write(&file, text).unwrap();
        program.signal(Signal::SIGHUP);
    };
    reload(
        &program,
        &CONFIG.replace("workers = 1", "workers = 1, max_clients = 7"),
    );
    program.line_with("changed: server.max_clients: 10000 -> 7");
    reload(
        &program,
        &CONFIG.replace("workers = 1", "workers = 2, max_clients = 7"),
    );
    program.line_with("needs a restart: server.workers: 1 -> 2");
    reload(&program, &CONFIG.replace("workers", "wrokers"));
    program.line_with("did you mean workers?");
    program.line_with("nothing is changed");
    TcpStream::connect(&address).unwrap();
    program.signal(Signal::SIGTERM);
    program.line_with("draining");
    program.line_with("stopped");
    assert_eq!(program.end().code(), Some(0));
    TcpStream::connect(&address).unwrap_err();
}

#[test]
fn sigint_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pgweir.toml");
    fs::write(&file, CONFIG).unwrap();
    let (mut program, address) = start(file.to_str().unwrap());
    // A client that says nothing does not hold it up.
    let _silent = TcpStream::connect(&address).unwrap();
    program.signal(Signal::SIGINT);
    program.line_with("stopped");
    assert_eq!(program.end().code(), Some(0));
}
