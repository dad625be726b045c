//! The console: looked at and used to change things by SQL, as operators and their tools do it.

mod changes;
mod monitors;
mod orders;
mod page;
mod settings;
mod tables;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use pgweir_testkit::{Answer, Client, Login, patience};

use crate::support::{CONSOLE, PASSWORD, Proxy, VIEWER, login, ok};

/// Opens a session on the console that may only look.
fn viewer(proxy: &Proxy) -> Client {
    let login = Login::new(VIEWER, CONSOLE).password(PASSWORD);
    Client::open(proxy.addr(), &login).expect("the console takes the login")
}

/// Returns the rows of a statement that must not fail, NULL as an empty text.
#[track_caller]
fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let filled =
        |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect();
    ok(client, sql).rows().into_iter().map(filled).collect()
}

/// Returns the first value as a number.
#[track_caller]
fn number(client: &mut Client, sql: &str) -> f64 {
    let value = ok(client, sql).value().unwrap_or_default();
    value.parse().unwrap_or_else(|_| panic!("{sql}: {value:?}"))
}

/// Returns the SQLSTATE and the message of a statement that must fail.
#[track_caller]
fn refused(client: &mut Client, sql: &str) -> (String, String) {
    let answer = client.query(sql).expect("an answer");
    let error = answer
        .error()
        .unwrap_or_else(|| panic!("{sql}: {answer:?}"));
    let field = |code| error.error_field(code).unwrap_or_default();
    (
        field(pgweir_wire::backend::field::CODE),
        field(pgweir_wire::backend::field::MESSAGE),
    )
}

/// Returns the tag of a statement's CommandComplete.
fn command_tag(answer: &Answer) -> String {
    let complete = (answer.0.iter()).find(|m| m.tag == pgweir_wire::backend::tag::COMMAND_COMPLETE);
    let text = complete.map(pgweir_testkit::Message::comparable);
    text.unwrap_or_default()
}

/// Clients that run one statement over and over until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    errors: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts so many clients.
    fn start(proxy: &Proxy, clients: usize, sql: &str) -> Self {
        let mut load = Load {
            stop: Arc::default(),
            answered: Arc::default(),
            errors: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..clients {
            let thread = load.client(proxy.addr().to_owned(), sql.to_owned());
            load.threads.push(thread);
        }
        load.wait_for_more(clients as u64);
        load
    }

    fn client(&self, address: String, sql: String) -> JoinHandle<()> {
        let (stop, answered) = (Arc::clone(&self.stop), Arc::clone(&self.answered));
        let errors = Arc::clone(&self.errors);
        std::thread::spawn(move || {
            let note = |error: String| errors.lock().expect("no panic").push(error);
            let mut client = match Client::open(&address, &login()) {
                Ok(client) => client,
                Err(error) => return note(error.to_string()),
            };
            while !stop.load(Ordering::Relaxed) {
                match client.query(&sql) {
                    Ok(answer) => match answer.error() {
                        Some(error) => note(error.comparable()),
                        None => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    },
                    Err(error) => return note(error.to_string()),
                }
            }
        })
    }

    /// Returns how many statements were answered so far.
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    #[track_caller]
    fn wait_for_more(&self, count: u64) {
        let before = self.answered();
        let seen = || self.answered() >= before + count || !self.errors().is_empty();
        let came = patience::wait_until(patience::PATIENCE, seen);
        assert!(came, "no answers: {:?}", self.errors());
    }

    /// Returns whether nothing is answered for a while.
    fn stands_still(&self, during: Duration) -> bool {
        let before = self.answered();
        !patience::wait_until(during, || self.answered() > before)
    }

    fn errors(&self) -> Vec<String> {
        self.errors.lock().expect("no panic").clone()
    }

    /// Stops the clients and returns the errors that they saw.
    fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no panic");
        }
        self.errors()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
