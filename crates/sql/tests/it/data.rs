//! Data files that say what is expected of each line: compared, or written anew where `UPDATE_EXPECT` is set.

use std::path::Path;

/// Asserts that `render` leaves each line of the file as it is. Returns the lines.
#[track_caller]
pub(crate) fn assert_lines(name: &str, render: impl Fn(&str) -> String) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(name);
    let expected = std::fs::read_to_string(&path).expect("the file is in the repository");
    let got: Vec<String> = expected.lines().map(render).collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, got.join("\n") + "\n").expect("the file can be written");
        return got;
    }
    let wrong: Vec<String> = expected
        .lines()
        .zip(&got)
        .filter(|(expected, got)| expected != got)
        .map(|(expected, got)| format!("expected {expected}\n     got {got}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    got
}
