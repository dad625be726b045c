//! Protocol transcripts (`transcripts/*.pgt`): each against PostgreSQL, which vouches for the file, and through the proxy.
//!
//! `UPDATE_EXPECT=1 cargo test -p pgweir-tests postgresql_answers` writes PostgreSQL's answers into the files.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pgweir_testkit::{Answer, Client, Rng, Transcript};

use crate::support::{Proxy, cluster, config, login, root};

/// Fewer files than this means that they were not found.
const AT_LEAST: usize = 25;

fn files() -> Vec<PathBuf> {
    let folder = root().join("tests/transcripts");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder of the transcripts")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pgt"))
        .collect();
    files.sort();
    assert!(
        files.len() >= AT_LEAST,
        "only {} transcripts in {}",
        files.len(),
        folder.display()
    );
    files
}

fn play(
    address: &str,
    transcript: &Transcript,
    torn: Option<&mut Rng>,
) -> Result<Vec<Answer>, String> {
    let mut client = Client::open(address, &login()).map_err(|error| error.to_string())?;
    transcript.play(&mut client, torn)
}

fn primary() -> String {
    let node = cluster().primary();
    format!("{}:{}", node.host(), node.port())
}

/// The tables of a transcript have fixed names, so one test at a time plays them.
fn tables() -> MutexGuard<'static, ()> {
    static TABLES: Mutex<()> = Mutex::new(());
    TABLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a check on each file, and fails with all that failed.
fn for_each_file(mut check: impl FnMut(&PathBuf, &Transcript) -> Result<(), String>) {
    let mut failures = Vec::new();
    for path in files() {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let outcome = Transcript::read(&path).and_then(|transcript| {
            check(&path, &transcript).map_err(|error| format!("{name}:{error}"))
        });
        failures.extend(outcome.err());
    }
    assert!(
        failures.is_empty(),
        "{} transcripts failed\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn postgresql_answers_as_the_transcripts_say() {
    let _one_at_a_time = tables();
    let address = primary();
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    for_each_file(|path, transcript| {
        let answers = play(&address, transcript, None)?;
        if update {
            return fs::write(path, transcript.rewritten(&answers))
                .map_err(|error| error.to_string());
        }
        transcript.check(&answers)
    });
}

#[test]
fn the_proxy_answers_as_postgresql_does() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let _one_at_a_time = tables();
    for_each_file(|_, transcript| {
        let oracle = play(&primary(), transcript, None)?;
        let answers = play(proxy.addr(), transcript, None)?;
        transcript.compare(&oracle, &answers)
    });
}

#[test]
fn torn_messages_are_answered_as_whole_ones() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let _one_at_a_time = tables();
    let mut rng = Rng::from_env();
    for_each_file(|path, transcript| {
        // Megabytes in pieces of a few bytes would take minutes and show nothing new.
        if path.ends_with("large_messages.pgt") {
            return Ok(());
        }
        let oracle = play(&primary(), transcript, None)?;
        let answers = play(proxy.addr(), transcript, Some(&mut rng))?;
        transcript.compare(&oracle, &answers)
    });
}
