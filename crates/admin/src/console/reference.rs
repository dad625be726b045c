//! The documentation of the console, made from its tables: they cannot disagree.

use std::fmt::Write;

use super::command::SYNTAX;
use crate::tables::{Changes, OWN};

/// What people have to be told before the tables.
const FRAME: &str = include_str!("reference/frame.md");

/// Returns the page of the console: how it is used, and the reference of every command, table and column, as Markdown.
pub fn markdown() -> String {
    let mut page = format!(
        "# The console\n\n\
         Generated from `crates/admin/src/console/reference.rs` and what stands beside it; do not edit by hand.\n\n\
         {FRAME}\
         ## Commands\n\n\
         | Command | Viewers | Meaning |\n|---|---|---|\n"
    );
    for one in SYNTAX {
        let viewers = if one.changes { "no" } else { "yes" };
        let text = one.text.replace('|', "\\|");
        let _ = writeln!(page, "| `{text}` | {viewers} | {} |", one.about);
    }
    page.push_str("\n## Tables\n");
    for table in OWN {
        let changes = match table.changes {
            Changes::None => "",
            Changes::Update => " Takes `UPDATE`.",
            Changes::All => " Takes `INSERT`, `UPDATE` and `DELETE`.",
        };
        let _ = write!(
            page,
            "\n### `{}`\n\n{}{changes}\n\n",
            table.name, table.about
        );
        page.push_str("| Column | Type | Changeable | Meaning |\n|---|---|---|---|\n");
        for column in table.columns {
            let changeable = if column.changeable { "yes" } else { "" };
            let (name, ty) = (column.name, column.ty.sql_name());
            let _ = writeln!(
                page,
                "| `{name}` | {ty} | {changeable} | {} |",
                column.about
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;

    #[test]
    fn the_page_of_the_console_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/console.md");
        if env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, markdown()).unwrap();
        }
        let page = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            page == markdown(),
            "docs/console.md is not what the console's tables say: run with UPDATE_EXPECT=1"
        );
    }

    #[test]
    fn everything_is_described_in_sentences() {
        let page = markdown();
        for table in OWN {
            assert!(page.contains(&format!("\n### `{}`\n", table.name)));
            assert!(table.about.ends_with('.'), "{}", table.name);
            for column in table.columns {
                assert!(
                    column.about.ends_with('.'),
                    "{}.{}",
                    table.name,
                    column.name
                );
            }
        }
        for one in SYNTAX {
            assert!(one.about.ends_with('.'), "{}", one.text);
        }
    }
}
