//! Arrays, which are texts here: `{a,b}`.

use rusqlite::functions::{Aggregate, Context};

use super::{failed, text};
use crate::console::types::Cell;

/// Writes an array as PostgreSQL does.
pub(super) fn array(items: &[Option<String>]) -> String {
    let item = |item: &Option<String>| match item {
        None => "NULL".to_owned(),
        Some(text) if text.is_empty() || text.contains(['{', '}', ',', '"', '\\', ' ']) => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Some(text) => text.clone(),
    };
    let items: Vec<_> = items.iter().map(item).collect();
    format!("{{{}}}", items.join(","))
}

/// Reads an array of one dimension; what is none is one element.
pub(super) fn elements(array: &str) -> Vec<Option<String>> {
    let Some(inner) = array
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    else {
        return vec![Some(array.to_owned())];
    };
    let mut items = Vec::new();
    let (mut item, mut was_quoted, mut in_quotes) = (String::new(), false, false);
    let mut letters = inner.chars();
    while let Some(c) = letters.next() {
        match c {
            '"' => {
                in_quotes = !in_quotes;
                was_quoted = true;
            }
            '\\' => item.extend(letters.next()),
            ',' if !in_quotes => {
                items.push(element(std::mem::take(&mut item), was_quoted));
                was_quoted = false;
            }
            c => item.push(c),
        }
    }
    if !inner.is_empty() {
        items.push(element(item, was_quoted));
    }
    items
}

fn element(text: String, was_quoted: bool) -> Option<String> {
    let is_null = !was_quoted && text.eq_ignore_ascii_case("null");
    (!is_null).then_some(text)
}

/// The most bytes of an array that is collected: as many as a value may have, an element counted with what keeps it.
const COLLECTED_LIMIT: usize = 1 << 20;

/// Collects rows into an array.
pub(super) struct Collect;

/// An array that grows.
#[derive(Default)]
pub(super) struct Collected {
    items: Vec<Option<String>>,
    size: usize,
}

impl Aggregate<Collected, String> for Collect {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Collected> {
        Ok(Collected::default())
    }

    fn step(&self, context: &mut Context<'_>, all: &mut Collected) -> rusqlite::Result<()> {
        let item = text(&[context.get_raw(0).into()], 0);
        // SQLite does not see this memory.
        all.size += size_of::<Option<String>>() + item.as_ref().map_or(0, String::len);
        if all.size > COLLECTED_LIMIT {
            return Err(failed("54000 the array is too large".to_owned()));
        }
        all.items.push(item);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, all: Option<Collected>) -> rusqlite::Result<String> {
        Ok(array(&all.unwrap_or_default().items))
    }
}

/// The number of elements; NULL for none, as in PostgreSQL.
pub(super) fn length(cells: &[Cell]) -> Result<Cell, String> {
    let count = text(cells, 0).map(|array| elements(&array).len());
    Ok(count.filter(|count| *count > 0).into())
}

impl Cell {
    /// What is there begins with 1.
    pub(super) fn min_one(self) -> Cell {
        match self {
            Cell::Null => Cell::Null,
            _ => Cell::Int(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_reads_back() {
        let items = vec![
            Some("a".to_owned()),
            None,
            Some("b, \"c\"\\".to_owned()),
            Some(String::new()),
        ];
        assert_eq!(elements(&array(&items)), items);
        assert_eq!(elements("{}"), Vec::new());
        assert_eq!(elements("x"), vec![Some("x".to_owned())]);
    }
}
