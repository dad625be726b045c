//! Where the settings stand in the text of a file, and the text with one of them changed.
//!
//! ## Why
//! A change touches the lines that it is about and leaves every other byte as it is: comments, order, blanks, line ends.
//! So the tree of the parser is only asked where things are, and the text itself is cut and joined.
//!
//! ## Limits
//! Whether what comes out says what was meant, the reader decides, which reads it as it reads any file. Comments within a
//! list that is given another value go with the old one, and so do those directly above an entry that is taken out.

use std::ops::Range;

use toml_edit::{Item, Key, Table, TableLike, Value};

/// One step into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'s> {
    /// The table of this name.
    Key(&'s str),
    /// An entry of the list of this name, by its index.
    Entry(&'s str, usize),
}

/// A table of the file.
#[derive(Clone)]
struct Place<'d> {
    table: &'d dyn TableLike,
    frame: Frame<'d>,
    /// What stands in front of its keys in the frame: it is written with dots.
    prefix: Vec<&'d str>,
}

/// What the settings of a table stand in.
#[derive(Clone)]
enum Frame<'d> {
    /// Lines of their own, under a header or at the top.
    Lines(&'d Table),
    /// A pair of braces.
    Braces(&'d dyn TableLike, Range<usize>),
}

/// A text and where its parts are.
pub(super) struct Layout<'t> {
    text: &'t str,
    tree: toml_edit::Document<&'t str>,
}

impl<'t> Layout<'t> {
    /// Parses a text; `None` where it is no TOML.
    pub(super) fn of(text: &'t str) -> Option<Self> {
        let tree = toml_edit::Document::parse(text).ok()?;
        Some(Layout { text, tree })
    }

    /// Returns a value as it is written.
    pub(super) fn value(&self, path: &[Step<'_>], key: &str) -> Option<&'t str> {
        self.text.get(self.span(path, key)?)
    }

    /// Returns where a value stands.
    pub(super) fn span(&self, path: &[Step<'_>], key: &str) -> Option<Range<usize>> {
        let place = self.place(path)?;
        let item = place.table.get(key).filter(|item| !is_dotted(item))?;
        item.as_value()?.span()
    }

    /// Returns the text with other parts in the places of some that do not overlap.
    pub(super) fn with_all(&self, mut parts: Vec<(Range<usize>, String)>) -> String {
        parts.sort_by_key(|(place, _)| place.start);
        let (mut text, mut end) = (String::with_capacity(self.text.len()), 0);
        for (place, new) in parts {
            text += self.text.get(end..place.start).unwrap_or_default();
            text += &new;
            end = end.max(place.end);
        }
        text + self.text.get(end..).unwrap_or_default()
    }

    /// Returns a text, without its quotes.
    pub(super) fn string(&self, path: &[Step<'_>], key: &str) -> Option<String> {
        let item = self.place(path)?.table.get(key)?.as_str();
        item.map(str::to_owned)
    }

    /// Returns whether a key is there, in whatever form.
    pub(super) fn has(&self, path: &[Step<'_>], key: &str) -> bool {
        self.place(path)
            .is_some_and(|place| place.table.get(key).is_some_and(|item| !item.is_none()))
    }

    /// Returns the settings of a table and of those in it, as they are written.
    pub(super) fn values(&self, path: &[Step<'_>]) -> Option<Vec<(String, &'t str)>> {
        let mut all = Vec::new();
        self.collect(self.place(path)?.table, "", &mut all);
        Some(all)
    }

    fn collect(&self, table: &dyn TableLike, prefix: &str, all: &mut Vec<(String, &'t str)>) {
        for (key, item) in table.iter() {
            let key = format!("{prefix}{key}");
            match item.as_table_like() {
                Some(table) => self.collect(table, &format!("{key}."), all),
                None => {
                    let span = item.as_value().and_then(Value::span);
                    all.extend(span.and_then(|span| Some((key, self.text.get(span)?))));
                }
            }
        }
    }

    fn root(&self) -> Place<'_> {
        let table = self.tree.as_table();
        Place {
            table,
            frame: Frame::Lines(table),
            prefix: Vec::new(),
        }
    }

    fn place(&self, path: &[Step<'_>]) -> Option<Place<'_>> {
        path.iter()
            .try_fold(self.root(), |place, step| place.step(*step))
    }

    /// Returns the text with another value for a key, whether or not it has been given before.
    pub(super) fn set(&self, path: &[Step<'_>], key: &str, value: &str) -> Option<String> {
        let mut place = self.root();
        for (depth, step) in path.iter().enumerate() {
            match place.step(*step) {
                Some(next) => place = next,
                None => return self.set_in_new(&place, path, depth, (key, value)),
            }
        }
        match place.table.get(key).filter(|item| !is_dotted(item)) {
            Some(item) => Some(self.with(item.span()?, value)),
            None => self.insert(&place, path, key, value),
        }
    }

    /// Puts a key into a table that is not there yet.
    fn set_in_new(
        &self,
        place: &Place<'_>,
        path: &[Step<'_>],
        depth: usize,
        (key, value): (&str, &str),
    ) -> Option<String> {
        let Frame::Lines(above) = place.frame else {
            // Within braces: the tables that are missing, one in the other.
            let (first, missing) = path.get(depth..)?.split_first()?;
            let mut inner = format!("{{ {} = {value} }}", written(key));
            for step in missing.iter().rev() {
                inner = format!("{{ {} = {inner} }}", written(step.name()));
            }
            return self.insert(place, path, first.name(), &inner);
        };
        let lines = format!("{}{}", self.header(path)?, self.line(key, value));
        let has_header = place.prefix.is_empty() && !above.is_implicit() && depth > 0;
        let body = has_header.then(|| self.body_end(above)).flatten();
        Some(self.with_block(self.section_end(body), &lines))
    }

    /// Puts a key into a table that lacks it.
    fn insert(
        &self,
        place: &Place<'_>,
        path: &[Step<'_>],
        key: &str,
        value: &str,
    ) -> Option<String> {
        let mut names = place.prefix.clone();
        names.push(key);
        let full = names.iter().map(|name| written(name)).collect::<Vec<_>>();
        let (name, all) = (full.join("."), leaves(place.table));
        match &place.frame {
            Frame::Braces(table, braces) => {
                let outer = leaves(*table);
                let last = last_end(if all.is_empty() { &outer } else { &all });
                Some(match last {
                    Some(end) => self.with(end..end, &format!(", {name} = {value}")),
                    None => self.with(braces.clone(), &format!("{{ {name} = {value} }}")),
                })
            }
            Frame::Lines(table) => {
                if let Some(last) = all.iter().max_by_key(|leaf| leaf.end) {
                    let indent = self.indent(last.start);
                    let line = format!("{indent}{}", self.line(&name, value));
                    return Some(self.with_lines(self.line_end(last.end), &line));
                }
                match table.span().filter(|_| !table.is_implicit()) {
                    Some(header) => {
                        let line = self.line(&name, value);
                        Some(self.with_lines(self.line_end(header.end), &line))
                    }
                    None => {
                        let lines = format!("{}{}", self.header(path)?, self.line(&name, value));
                        Some(self.with_block(self.text.len(), &lines))
                    }
                }
            }
        }
    }

    /// Returns the text without a key; `None` where it is not there or is a table.
    pub(super) fn remove(&self, path: &[Step<'_>], key: &str) -> Option<String> {
        let place = self.place(path)?;
        let item = place.table.get(key).filter(|item| !is_dotted(item))?;
        let span = item.as_value()?.span()?;
        match &place.frame {
            Frame::Lines(_) => {
                let (key, _) = place.table.get_key_value(key)?;
                let lines = self.line_start(key.span()?.start)..self.line_end(span.end);
                Some(self.with(lines, ""))
            }
            Frame::Braces(table, braces) => {
                let mut all = leaves(*table);
                all.sort_by_key(|leaf| leaf.start);
                self.without_part(&all, &span, braces)
            }
        }
    }

    /// Returns the text without one of the parts that stand in brackets with commas in between.
    fn without_part(
        &self,
        parts: &[Range<usize>],
        part: &Range<usize>,
        brackets: &Range<usize>,
    ) -> Option<String> {
        let index = parts.iter().position(|other| other == part)?;
        if let Some(before) = index.checked_sub(1).and_then(|index| parts.get(index)) {
            return Some(self.with(before.end..part.end, ""));
        }
        let inside = brackets.start + 1..brackets.end.checked_sub(1)?;
        if parts.len() == 1 {
            return Some(self.with(inside, ""));
        }
        let blanks = |at: usize| {
            let rest = self.text.get(at..).unwrap_or_default();
            rest.len() - rest.trim_start_matches([' ', '\t']).len()
        };
        let start = inside.start + blanks(inside.start);
        let comma = self.comma_after(part.end)?;
        Some(self.with(start..comma + 1 + blanks(comma + 1), ""))
    }

    /// Returns how many entries a list of tables has; 0 where there is none.
    pub(super) fn count(&self, list: &str) -> usize {
        match self.tree.as_table().get(list) {
            Some(Item::ArrayOfTables(tables)) => tables.len(),
            Some(item) => item.as_array().map_or(0, toml_edit::Array::len),
            None => 0,
        }
    }

    /// Returns the lines that are an entry of a list of tables; `None` where the list is written in brackets.
    pub(super) fn cuts(&self, list: &str, index: usize) -> Option<Vec<Range<usize>>> {
        let tables = self.tree.as_table().get(list)?.as_array_of_tables()?;
        let blocks = self.blocks(tables.get(index)?).into_iter();
        Some(blocks.map(|cut| self.with_blank_line(cut)).collect())
    }

    /// Returns the text without an entry of a list.
    pub(super) fn delete(&self, list: &str, index: usize) -> Option<String> {
        match self.tree.as_table().get(list)? {
            Item::ArrayOfTables(_) => {
                let cuts = self.cuts(list, index)?.into_iter();
                Some(self.with_all(cuts.map(|cut| (cut, String::new())).collect()))
            }
            item => {
                let array = item.as_array()?;
                let parts: Vec<_> = array.iter().filter_map(Value::span).collect();
                let part = parts.get(index)?;
                let (start, end) = (self.line_start(part.start), self.line_end(part.end));
                let before = self.text.get(start..part.start)?;
                let after = self.text.get(part.end..end)?.trim();
                let after = after.strip_prefix(',').unwrap_or(after).trim_start();
                let alone =
                    before.trim().is_empty() && (after.is_empty() || after.starts_with('#'));
                match alone {
                    true => Some(self.with(self.attached(start)..end, "")),
                    false => self.without_part(&parts, part, &array.span()?),
                }
            }
        }
    }

    /// Returns the text with another entry in a list, in front of the one at `index` or behind all.
    pub(super) fn add(
        &self,
        list: &str,
        index: usize,
        values: &[(String, String)],
    ) -> Option<String> {
        match self.tree.as_table().get(list) {
            Some(Item::ArrayOfTables(tables)) => {
                let block = self.entry_lines(list, values);
                if let Some(next) = tables.get(index) {
                    let at = self.attached(self.line_start(next.span()?.start));
                    return Some(self.with(at..at, &format!("{block}{}", self.newline())));
                }
                let ends = tables.iter().flat_map(|table| self.blocks(table));
                let end = ends.map(|block| block.end).max();
                Some(self.with_block(self.section_end(end), &block))
            }
            Some(item) => self.add_to_array(item.as_array()?, index, values),
            None => Some(self.with_block(self.text.len(), &self.entry_lines(list, values))),
        }
    }

    fn add_to_array(
        &self,
        array: &toml_edit::Array,
        index: usize,
        values: &[(String, String)],
    ) -> Option<String> {
        let pairs = |(key, value): &(String, String)| format!("{key} = {value}");
        let inner: Vec<_> = values.iter().map(pairs).collect();
        let entry = format!("{{ {} }}", inner.join(", "));
        let parts: Vec<_> = array.iter().filter_map(Value::span).collect();
        if parts.is_empty() {
            return Some(self.with(array.span()?, &format!("[{entry}]")));
        }
        let newline = self.newline();
        let is_alone = |part: &Range<usize>| {
            let before = self.text.get(self.line_start(part.start)..part.start);
            before.is_some_and(|before| before.trim().is_empty())
        };
        if let Some(next) = parts.get(index) {
            let start = self.line_start(next.start);
            return Some(match is_alone(next) {
                true => {
                    let at = self.attached(start);
                    let line = format!("{}{entry},{newline}", self.indent(next.start));
                    self.with(at..at, &line)
                }
                false => self.with(next.start..next.start, &format!("{entry}, ")),
            });
        }
        let last = parts.last()?;
        let end = self.line_end(last.end);
        let rest = self.text.get(last.end..end)?.trim();
        let has_comma = rest.starts_with(',');
        let after = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        if !is_alone(last) || !(after.is_empty() || after.starts_with('#')) {
            return Some(self.with(last.end..last.end, &format!(", {entry}")));
        }
        let comma = if has_comma { "," } else { "" };
        let line = format!("{}{entry}{comma}{newline}", self.indent(last.start));
        let mut text = self.with(end..end, &line);
        if !has_comma {
            text.insert(last.end, ',');
        }
        Some(text)
    }

    /// Returns a new entry of a list of tables.
    fn entry_lines(&self, list: &str, values: &[(String, String)]) -> String {
        let newline = self.newline();
        let lines = values
            .iter()
            .map(|(key, value)| format!("{key} = {value}{newline}"));
        format!("[[{list}]]{newline}{}", lines.collect::<String>())
    }

    /// Returns the lines of an entry of a list, those of the tables in it included, which may stand apart.
    fn blocks(&self, table: &Table) -> Vec<Range<usize>> {
        let mut all = Vec::new();
        let is_root = std::ptr::eq(table, self.tree.as_table());
        let has_header = !(is_root || table.is_implicit() || table.is_dotted());
        if let Some(header) = table.span().filter(|_| has_header) {
            let end = self.body_end(table).unwrap_or(header.end);
            all.push(self.attached(self.line_start(header.start))..end);
        }
        for (_, item) in table.iter() {
            match item {
                Item::Table(inner) => all.extend(self.blocks(inner)),
                Item::ArrayOfTables(inner) => {
                    all.extend(inner.iter().flat_map(|table| self.blocks(table)));
                }
                Item::None | Item::Value(_) => {}
            }
        }
        all
    }

    /// Returns where the lines of a table itself end.
    fn body_end(&self, table: &Table) -> Option<usize> {
        let end = last_end(&leaves(table)).or_else(|| Some(table.span()?.end))?;
        Some(self.line_end(end))
    }

    /// Returns where something else begins behind the lines of a table: what is commented out there still belongs to it.
    fn section_end(&self, body: Option<usize>) -> usize {
        let Some(body) = body else {
            return self.text.len();
        };
        let mut blocks = self.blocks(self.tree.as_table());
        blocks.retain(|block| block.start >= body);
        let next = blocks.iter().map(|block| block.start).min();
        let end = next.unwrap_or(self.text.len());
        let between = self.text.get(body..end).unwrap_or_default();
        let kept = between.trim_end().len();
        match kept {
            0 => body,
            kept => self.line_end(body + kept),
        }
    }

    fn header(&self, path: &[Step<'_>]) -> Option<String> {
        let name = |step: &Step<'_>| match step {
            Step::Key(name) => Some(written(name)),
            // An entry is never made by giving it a setting.
            Step::Entry(..) => None,
        };
        let names: Vec<_> = path.iter().map(name).collect::<Option<_>>()?;
        Some(format!("[{}]{}", names.join("."), self.newline()))
    }

    fn line(&self, key: &str, value: &str) -> String {
        format!("{key} = {value}{}", self.newline())
    }

    /// Returns how lines end in this text.
    fn newline(&self) -> &'static str {
        match self.text.split_once('\n') {
            Some((first, _)) if first.ends_with('\r') => "\r\n",
            _ => "\n",
        }
    }

    fn line_start(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Returns where the next line begins.
    fn line_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        rest.find('\n')
            .map_or(self.text.len(), |newline| at + newline + 1)
    }

    /// Returns the blanks that the line of a place begins with.
    fn indent(&self, at: usize) -> &'t str {
        let line = self.text.get(self.line_start(at)..).unwrap_or_default();
        let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
        line.get(..blanks).unwrap_or_default()
    }

    /// Returns where the comment begins that stands directly above a line; the line itself where there is none.
    fn attached(&self, line: usize) -> usize {
        let mut start = line;
        while start > 0 {
            let above = self.line_start(start - 1);
            let text = self.text.get(above..start).unwrap_or_default();
            if !text.trim_start().starts_with('#') {
                break;
            }
            start = above;
        }
        start
    }

    /// Takes the empty line in front of lines with them, where there is one behind them too.
    fn with_blank_line(&self, lines: Range<usize>) -> Range<usize> {
        let next = self.text.get(lines.end..self.line_end(lines.end));
        let above = self.line_start(lines.start.saturating_sub(1));
        let before = self.text.get(above..lines.start).unwrap_or_default();
        let is_blank = |line: &str| line.trim().is_empty();
        match lines.start > 0 && is_blank(before) && next.is_none_or(is_blank) {
            true => above..lines.end,
            false => lines,
        }
    }

    /// Returns where the comma behind a value is. What stands in between are blanks and comments.
    fn comma_after(&self, end: usize) -> Option<usize> {
        let mut at = end;
        for line in self.text.get(end..)?.split_inclusive('\n') {
            let code = line.split('#').next().unwrap_or_default();
            if let Some(comma) = code.find(',') {
                return Some(at + comma);
            }
            at += line.len();
        }
        None
    }

    fn with(&self, range: Range<usize>, new: &str) -> String {
        let mut text = self.text.to_owned();
        text.replace_range(range, new);
        text
    }

    /// Puts lines where a line begins, or at the end of a text whose last line may not be ended.
    fn with_lines(&self, at: usize, lines: &str) -> String {
        let before = self.text.get(..at).unwrap_or_default();
        let is_open = !before.is_empty() && !before.ends_with('\n');
        let newline = if is_open { self.newline() } else { "" };
        self.with(at..at, &format!("{newline}{lines}"))
    }

    /// Likewise, with an empty line in front.
    fn with_block(&self, at: usize, lines: &str) -> String {
        let newline = self.newline();
        let before = self.text.get(..at).unwrap_or_default();
        let stands_apart =
            before.is_empty() || before.ends_with("\n\n") || before.ends_with("\n\r\n");
        match stands_apart {
            true => self.with_lines(at, lines),
            false => self.with_lines(at, &format!("{newline}{lines}")),
        }
    }
}

impl<'s> Step<'s> {
    fn name(self) -> &'s str {
        match self {
            Step::Key(name) | Step::Entry(name, _) => name,
        }
    }
}

impl<'d> Place<'d> {
    fn step(&self, step: Step<'_>) -> Option<Place<'d>> {
        let (key, item) = self.table.get_key_value(step.name())?;
        match step {
            Step::Key(_) => self.enter(key, item),
            Step::Entry(_, index) => match item {
                Item::ArrayOfTables(tables) => tables.get(index).map(Place::of),
                item => Place::in_braces(item.as_array()?.get(index)?),
            },
        }
    }

    fn enter(&self, key: &'d Key, item: &'d Item) -> Option<Place<'d>> {
        match item {
            item if is_dotted(item) => {
                let mut prefix = self.prefix.clone();
                prefix.push(key.get());
                Some(Place {
                    table: item.as_table_like()?,
                    frame: self.frame.clone(),
                    prefix,
                })
            }
            Item::Table(table) => Some(Place::of(table)),
            Item::Value(value) => Place::in_braces(value),
            Item::None | Item::ArrayOfTables(_) => None,
        }
    }

    fn of(table: &'d Table) -> Place<'d> {
        Place {
            table,
            frame: Frame::Lines(table),
            prefix: Vec::new(),
        }
    }

    fn in_braces(value: &'d Value) -> Option<Place<'d>> {
        let table = value.as_inline_table()?;
        Some(Place {
            table,
            frame: Frame::Braces(table, value.span()?),
            prefix: Vec::new(),
        })
    }
}

/// Returns whether a table is written by keys with dots.
fn is_dotted(item: &Item) -> bool {
    match item {
        Item::Table(table) => table.is_dotted(),
        Item::Value(Value::InlineTable(table)) => table.is_dotted(),
        Item::None | Item::Value(_) | Item::ArrayOfTables(_) => false,
    }
}

/// Returns where the values stand that are written in the frame of a table, in no order.
fn leaves(table: &dyn TableLike) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    for (_, item) in table.iter() {
        match item.as_table_like().filter(|_| is_dotted(item)) {
            Some(inner) => all.extend(leaves(inner)),
            None => all.extend(item.as_value().and_then(Value::span)),
        }
    }
    all
}

fn last_end(leaves: &[Range<usize>]) -> Option<usize> {
    leaves.iter().map(|leaf| leaf.end).max()
}

/// Returns a key as it is written: in quotes where it needs them.
fn written(key: &str) -> String {
    Key::new(key).to_string()
}
