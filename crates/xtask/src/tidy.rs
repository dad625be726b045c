//! `cargo xtask tidy`: rules of the house that no lint checks, by reading the source as text.
//!
//! ## Limits
//! Text is not syntax: a rule is kept simple enough that a false alarm is rare and easily reworded. This file is not read, since
//! it names what it forbids.

use std::fs;
use std::path::{Path, PathBuf};

/// Above this many lines a file is mentioned (not an error: sizes are signs, not rules).
const LONG_FILE_LINES: usize = 700;

/// Where sources are, and where tests live among them.
const PLACES: [&str; 3] = ["crates", "tests", "benches"];

/// Crates that move frames about and must leave the meaning of tags to `wire` and `session`.
const TAGLESS: [&str; 7] = [
    "net", "pool", "route", "backend", "cluster", "admin", "proxy",
];

/// Crates that may hold `unsafe` code with its reason (`net`, `pool`), or have no library to forbid it in.
const MAY_BE_UNSAFE: [&str; 2] = ["net", "pool"];

/// Marks of an unfinished or switched-off thing, with what to do instead.
const UNWANTED: [(&str, &str); 5] = [
    ("#[ignore", "a test runs or does not exist"),
    ("#[should_panic", "assert the error instead"),
    (
        "static mut ",
        "shared state hangs off a value that is passed",
    ),
    ("FIXME", "file an issue and write TODO(#issue)"),
    ("XXX", "file an issue and write TODO(#issue)"),
];

/// Words that the glossary replaces by PostgreSQL's own.
const REPLACED_WORDS: [(&str, &str); 2] = [("master", "primary"), ("slave", "replica")];

/// Checks the sources in `root`.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut files = Vec::new();
    for place in PLACES {
        collect(&root.join(place), &mut files);
    }
    files.sort();
    let mut problems = Vec::new();
    for path in &files {
        let shown = path.strip_prefix(root).unwrap_or(path);
        if shown.ends_with("xtask/src/tidy.rs") {
            continue;
        }
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", shown.display()))?;
        let lines = text.lines().count();
        if lines > LONG_FILE_LINES {
            println!(
                "note: {} has {lines} lines; look whether it is two things",
                shown.display()
            );
        }
        problems.extend(problems_of(shown, &text));
    }
    if problems.is_empty() {
        println!("{} files are tidy.", files.len());
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != "node_modules" {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The crate a file belongs to, if it is production code.
fn production_crate(path: &Path) -> Option<&str> {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    let (place, krate, kind) = (parts.next()?, parts.next()?, parts.next()?);
    (place == "crates" && kind == "src").then_some(krate)
}

fn problems_of(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut add = |line: usize, what: String| {
        problems.push(format!("{}:{line}: {what}", path.display()));
    };
    if !text.starts_with("//!") {
        add(1, "a file begins with //! and what it is".to_owned());
    }
    let krate = production_crate(path);
    let is_library = krate.is_some() && path.ends_with("src/lib.rs");
    let may_be_unsafe = krate.is_some_and(|krate| MAY_BE_UNSAFE.contains(&krate));
    if is_library && !may_be_unsafe && !text.contains("#![forbid(unsafe_code)]") {
        add(
            1,
            "a library forbids unsafe code: #![forbid(unsafe_code)]".to_owned(),
        );
    }
    // What follows the inline tests' mark is not production code.
    let mut in_tests = krate.is_none();
    for (index, line) in text.lines().enumerate() {
        let number = index.saturating_add(1);
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        if let Some(what) = anywhere(line) {
            add(number, what);
        }
        if let Some(krate) = krate.filter(|_| !in_tests)
            && let Some(what) = in_production(krate, line)
        {
            add(number, what);
        }
    }
    problems
}

/// Rules for every line.
fn anywhere(line: &str) -> Option<String> {
    if let Some((mark, instead)) = UNWANTED.iter().find(|(mark, _)| line.contains(mark)) {
        return Some(format!("{}: {instead}", mark.trim()));
    }
    if line.contains("TODO") && !line.contains("TODO(#") {
        return Some("a TODO names its issue: TODO(#issue)".to_owned());
    }
    if ["/root/", "/Users/"]
        .iter()
        .any(|folder| line.contains(folder))
    {
        return Some("a path of somebody's machine".to_owned());
    }
    let is_word = |word: &str| {
        line.split(|c: char| !c.is_alphanumeric())
            .any(|found| found.eq_ignore_ascii_case(word))
    };
    REPLACED_WORDS
        .iter()
        .find(|(word, _)| is_word(word))
        .map(|(word, instead)| format!("write {instead}, not {word}"))
}

/// Rules for production code.
fn in_production(krate: &str, line: &str) -> Option<String> {
    let code = line.split("//").next().unwrap_or(line).trim();
    let is_static = ["static ", "pub static ", "pub(crate) static "]
        .iter()
        .any(|start| code.starts_with(start));
    let changes = [
        "Mutex<",
        "RwLock<",
        "Atomic",
        "Cell<",
        "OnceLock<",
        "LazyLock<",
    ]
    .iter()
    .any(|kind| code.contains(kind));
    if is_static && changes {
        return Some("a static that changes; hang it off a value that is passed".to_owned());
    }
    // A match arm on a byte literal: what a frame means is for wire and session to say.
    let is_arm = code.contains("=>") && code.starts_with("b'");
    (is_arm && TAGLESS.contains(&krate))
        .then(|| "tags are matched in wire and session only".to_owned())
}

#[cfg(test)]
mod tests {
    use super::problems_of;
    use std::path::Path;

    fn found(path: &str, text: &str) -> Vec<String> {
        problems_of(Path::new(path), text)
    }

    #[test]
    fn a_tidy_file_has_no_problems() {
        let text = "//! What it is.\n// TODO(#12): later, with the postmaster.\nstatic NAME: &str = \"x\";\n";
        assert!(found("crates/sql/src/lexer.rs", text).is_empty());
    }

    #[test]
    fn each_rule_finds_its_line() {
        for line in [
            "// TODO: later",
            "// FIXME",
            "#[ignore]",
            "static COUNT: AtomicUsize = AtomicUsize::new(0);",
            "b'Q' | b'P' => 1,",
            "// the master writes",
        ] {
            let text = format!("//! What it is.\n{line}\n");
            let problems = found("crates/proxy/src/relay.rs", &text);
            assert_eq!(problems.len(), 1, "{line}: {problems:?}");
            assert!(problems[0].starts_with("crates/proxy/src/relay.rs:2: "));
        }
    }

    #[test]
    fn tags_are_free_in_wire_and_statics_are_free_in_tests() {
        assert!(found("crates/wire/src/frame.rs", "//! x\nb'Q' => 1,\n").is_empty());
        let tests = "//! x\n#[cfg(test)]\nmod tests {\nstatic N: AtomicU8 = AtomicU8::new(0);\n}\n";
        assert!(found("crates/proxy/src/relay.rs", tests).is_empty());
        assert!(
            found(
                "tests/support.rs",
                "//! x\nstatic C: OnceLock<Cluster> = OnceLock::new();\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn a_file_says_what_it_is_and_a_library_forbids_unsafe_code() {
        assert_eq!(found("crates/sql/src/lib.rs", "mod a;\n").len(), 2);
        assert_eq!(found("crates/net/src/lib.rs", "mod a;\n").len(), 1);
    }
}
