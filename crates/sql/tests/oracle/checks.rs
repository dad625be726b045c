//! Where the statements come from, and what is asserted of all of them together.

use std::path::Path;

use crate::generate::{Grammar, Rng, tamper};
use crate::names::Catalog;
use crate::tally::Tally;

/// The statements of all case files. A line is `fields | SQL`; the number of fields is that of the file's format.
fn cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let fields = if path.ends_with("state.txt") { 2 } else { 3 };
        let file = std::fs::read_to_string(&path).unwrap();
        let lines = file.lines().filter(|line| !line.starts_with('#'));
        cases.extend(
            lines
                .filter_map(|line| line.splitn(fields, " | ").nth(fields - 1))
                .map(|sql| sql.replace("\\n", "\n")),
        );
    }
    // The order of a folder is not fixed, and the tampering draws by place.
    cases.sort();
    cases
}

/// The commands of the reference, each with its statements.
fn commands() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in include_str!("../corpus/commands.txt").lines().skip(2) {
        match (line.strip_prefix("# "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, Vec::new())),
            (None, Some((_, statements))) => statements.push(line),
            (None, None) => panic!("before the first command: {line}"),
        }
    }
    commands
}

fn statements_of_commands() -> Vec<String> {
    let statements = commands().into_iter().flat_map(|command| command.1);
    statements.map(str::to_owned).collect()
}

fn judged(texts: impl IntoIterator<Item = String>) -> Tally {
    let catalog = Catalog::load();
    let mut tally = Tally::default();
    for text in texts {
        tally.take(&catalog, &text);
    }
    tally.assert_agreement()
}

fn count(default: usize) -> usize {
    std::env::var("COUNT").map_or(default, |count| count.parse().unwrap())
}

#[test]
fn the_case_files_are_read_as_postgresql_reads_them() {
    let tally = judged(cases());
    assert!(tally.texts >= 500, "{} cases", tally.texts);
    assert!(
        tally.vouched * 4 >= tally.texts,
        "{} vouched",
        tally.vouched
    );
}

#[test]
fn every_command_of_the_reference_is_read_as_postgresql_reads_it() {
    let commands = commands();
    assert!(commands.len() >= 180, "{} commands", commands.len());
    for (command, statements) in &commands {
        assert!(statements.len() >= 2, "{command}");
        for statement in statements {
            assert!(stands_in(command, statement), "no {command}: {statement}");
            assert!(
                crate::tree::parse(statement).is_ok(),
                "refused: {statement}"
            );
        }
    }
    judged(statements_of_commands());
}

/// Whether the words of a command stand in a statement in their order.
fn stands_in(command: &str, statement: &str) -> bool {
    let mut words = statement
        .split(|c: char| !c.is_ascii_alphabetic())
        .map(str::to_ascii_uppercase);
    command
        .split(' ')
        .all(|wanted| words.any(|word| word == wanted))
}

#[test]
fn generated_statements_are_read_as_postgresql_reads_them() {
    let grammar = Grammar::load();
    let mut rng = Rng::from_env(1);
    let tally = judged((0..count(12_000)).map(|_| grammar.statement(&mut rng)));
    // A generator that makes nonsense, or nothing that is vouched for, would prove nothing.
    assert!(
        tally.refused * 50 <= tally.texts,
        "{} refused",
        tally.refused
    );
    assert!(
        tally.vouched * 3 >= tally.texts,
        "{} vouched",
        tally.vouched
    );
    for (kind, percent) in REJECTED_AT_MOST {
        let counts = tally.kinds.get(*kind).copied().unwrap_or_default();
        assert!(counts.seen > 0, "no {kind}");
        assert!(
            counts.rejected * 100 <= counts.seen * percent,
            "sqlparser rejects {counts:?} of {kind}"
        );
    }
}

/// How many in a hundred generated statements of a kind sqlparser may reject. The grammar aims at what is rare, so these are
/// far above what applications send. Measured with sqlparser 0.63, with some room.
const REJECTED_AT_MOST: &[(&str, usize)] = &[
    ("SelectStmt", 65),
    ("InsertStmt", 85),
    ("UpdateStmt", 95),
    ("DeleteStmt", 75),
    ("MergeStmt", 90),
    ("CopyStmt", 75),
    ("ExplainStmt", 75),
    ("DeclareCursorStmt", 90),
];

#[test]
fn tampered_statements_are_read_as_postgresql_reads_them() {
    let grammar = Grammar::load();
    let mut rng = Rng::from_env(1);
    let mut texts = cases();
    texts.extend(statements_of_commands());
    texts.extend((0..1_000).map(|_| grammar.statement(&mut rng)));
    let tampered = |_| tamper(&texts[rng.below(texts.len())], &texts, &mut rng);
    let tally = judged((0..count(12_000)).map(tampered));
    let read = tally.texts - tally.refused;
    assert!(read * 10 >= tally.texts, "only {read} are still SQL");
}
