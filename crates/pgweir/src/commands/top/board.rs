//! What `pgweir top` shows, without the terminal: views, order, filter, rates.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::source::{Picture, Table};

/// How many seconds of history the small charts have.
const HISTORY: usize = 240;

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// The servers.
    Backends,
    /// The pools.
    Pools,
    /// Where batches go and why.
    Routes,
    /// Statements by shape.
    Statements,
    /// The clients.
    Clients,
    /// What has happened.
    Events,
}

impl View {
    /// Every view, in the order of the tabs.
    pub(super) const ALL: [View; 6] = [
        View::Backends,
        View::Pools,
        View::Routes,
        View::Statements,
        View::Clients,
        View::Events,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            View::Backends => "backends",
            View::Pools => "pools",
            View::Routes => "routes",
            View::Statements => "statements",
            View::Clients => "clients",
            View::Events => "events",
        }
    }

    /// Returns what the console is asked.
    pub(super) fn sql(self) -> &'static str {
        match self {
            View::Backends => {
                "SELECT name, role, state, weight, lag_ms, connections AS conns, in_flight AS busy, latency_p50_ms AS p50_ms, \
                 latency_p99_ms AS p99_ms, errors, breaker, effective_weight AS eff, lag_bytes, queries, cluster, last_error \
                 FROM backends"
            }
            View::Pools => {
                "SELECT backend, database, user, size, open, active, idle, waiting, oldest_wait_ms, cluster FROM pools"
            }
            View::Routes => "SELECT decision, reason, count, database FROM routes",
            View::Statements => {
                "SELECT calls, total_ms, mean_ms, p99_ms, rows, errors, primary_calls AS primary, replica_calls AS replica, \
                 last_reason, database, fingerprint, statement FROM statements ORDER BY total_ms DESC LIMIT 200"
            }
            View::Clients => {
                "SELECT id, user, state, backend, wait_ms, pinned, database, application, address, query FROM clients LIMIT 1000"
            }
            View::Events => {
                "SELECT substr(at::text, 1, 19) AS at_utc, kind, \
                 CASE kind WHEN 'console' THEN message ELSE trim(subject || ' ' || message) END AS event \
                 FROM events ORDER BY id DESC LIMIT 200"
            }
        }
    }

    /// Returns whether its last column is a text of any length, which takes the room that is left.
    pub(super) fn ends_in_text(self) -> bool {
        match self {
            View::Statements | View::Clients | View::Events => true,
            View::Backends | View::Pools | View::Routes => false,
        }
    }

    /// Returns the column that it is sorted by at first, and whether the largest comes first.
    fn usual_order(self) -> (&'static str, bool) {
        match self {
            View::Backends => ("name", false),
            View::Pools => ("waiting", true),
            View::Routes => (RATE, true),
            View::Statements => ("total_ms", true),
            View::Clients => ("wait_ms", true),
            View::Events => ("at_utc", true),
        }
    }

    /// Returns the counter whose rate is shown beside it, if it has one.
    fn counter(self) -> Option<&'static Counter> {
        match self {
            View::Routes => Some(&Counter {
                column: "count",
                key: &["decision", "reason", "database"],
                is_whole: true,
            }),
            View::Statements => Some(&Counter {
                column: "calls",
                key: &["fingerprint", "database"],
                is_whole: false,
            }),
            View::Backends | View::Pools | View::Clients | View::Events => None,
        }
    }
}

/// What a rate is made from.
struct Counter {
    column: &'static str,
    /// The columns that tell one row from all others.
    key: &'static [&'static str],
    /// Whether every row is there, so that one that was not has counted since.
    is_whole: bool,
}

/// The column of the rates.
pub(super) const RATE: &str = "per_s";

/// The state of what is shown.
pub(super) struct Board {
    /// Where it comes from, without the password.
    pub(super) place: String,
    pub(super) interval: Duration,
    /// What was last asked for, with rates.
    tables: Vec<Table>,
    before: Option<Picture>,
    /// Batches per second by destination, newest last.
    pub(super) rates: Rates,
    /// Why there is no newer picture.
    pub(super) trouble: Option<String>,
    view: View,
    order: HashMap<&'static str, (String, bool)>,
    filter: String,
    mode: Mode,
    pub(super) is_paused: bool,
    pub(super) scrolled: usize,
}

/// What the keyboard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Looking,
    Filtering,
    Helping,
}

/// Batches per second over time.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) primary: VecDeque<u64>,
    pub(super) replica: VecDeque<u64>,
}

impl Board {
    pub(super) fn new(place: String, interval: Duration) -> Self {
        Board {
            place,
            interval,
            tables: Vec::new(),
            before: None,
            rates: Rates::default(),
            trouble: None,
            view: View::Backends,
            order: HashMap::new(),
            filter: String::new(),
            mode: Mode::Looking,
            is_paused: false,
            scrolled: 0,
        }
    }

    /// Takes a new picture.
    pub(super) fn take(&mut self, picture: Picture) {
        self.trouble = None;
        if self.is_paused {
            return;
        }
        let mut tables = picture.tables.clone();
        for (index, view) in View::ALL.into_iter().enumerate() {
            let old = self.before.as_ref().and_then(|before| {
                let elapsed = picture.asked_at.saturating_duration_since(before.asked_at);
                Some((before.tables.get(index)?, elapsed))
            });
            if let (Some(table), Some(counter)) = (tables.get_mut(index), view.counter()) {
                add_rates(table, counter, old);
            }
        }
        if let Some(routes) = View::ALL.iter().position(|view| *view == View::Routes)
            && let Some(table) = tables.get(routes)
        {
            self.rates.note(table);
        }
        self.tables = tables;
        self.before = Some(picture);
    }

    /// Notes that there is no picture.
    pub(super) fn lose(&mut self, error: String) {
        self.trouble = Some(error);
    }

    pub(super) fn view(&self) -> View {
        self.view
    }

    pub(super) fn look_at(&mut self, view: View) {
        self.view = view;
        self.scrolled = 0;
    }

    /// Looks at the view so many tabs further.
    pub(super) fn turn(&mut self, by: isize) {
        let at = View::ALL.iter().position(|view| *view == self.view);
        let next = moved(at.unwrap_or(0), by, View::ALL.len());
        if let Some(view) = View::ALL.get(next) {
            self.look_at(*view);
        }
    }

    pub(super) fn scroll(&mut self, by: isize) {
        self.scrolled = self.scrolled.saturating_add_signed(by);
    }

    pub(super) fn toggle_pause(&mut self) {
        self.is_paused = !self.is_paused;
    }

    pub(super) fn toggle_help(&mut self) {
        self.mode = match self.mode {
            Mode::Helping => Mode::Looking,
            Mode::Looking | Mode::Filtering => Mode::Helping,
        };
    }

    pub(super) fn is_helping(&self) -> bool {
        self.mode == Mode::Helping
    }

    pub(super) fn is_filtering(&self) -> bool {
        self.mode == Mode::Filtering
    }

    pub(super) fn begin_filter(&mut self) {
        self.mode = Mode::Filtering;
    }

    pub(super) fn end_filter(&mut self) {
        self.mode = Mode::Looking;
    }

    pub(super) fn clear_filter(&mut self) {
        self.filter.clear();
        self.mode = Mode::Looking;
    }

    pub(super) fn lengthen_filter(&mut self, letter: char) {
        self.filter.push(letter);
        self.scrolled = 0;
    }

    pub(super) fn shorten_filter(&mut self) {
        self.filter.pop();
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// Returns the column that the view is sorted by, and whether the largest comes first.
    pub(super) fn order(&self) -> (String, bool) {
        let usual = || {
            let (column, largest_first) = self.view.usual_order();
            (column.to_owned(), largest_first)
        };
        self.order
            .get(self.view.title())
            .cloned()
            .unwrap_or_else(usual)
    }

    pub(super) fn reverse(&mut self) {
        let (column, largest_first) = self.order();
        (self.order).insert(self.view.title(), (column, !largest_first));
    }

    /// Sorts by the column so many places further.
    pub(super) fn sort_by_next(&mut self, by: isize) {
        let (column, _) = self.order();
        let Some(table) = self.table_of(self.view) else {
            return;
        };
        let at = table.column(&column);
        let next = moved(at.unwrap_or(0), by, table.columns.len());
        if let Some(name) = table.columns.get(next) {
            // What is large is what one looks for.
            let is_number = |row: &Vec<String>| row.get(next).is_some_and(|v| number(v).is_some());
            let order = (name.clone(), table.rows.iter().any(is_number));
            self.order.insert(self.view.title(), order);
        }
    }

    pub(super) fn table_of(&self, view: View) -> Option<&Table> {
        let index = View::ALL.iter().position(|other| *other == view)?;
        self.tables.get(index)
    }

    /// Returns what is to be seen of the view: filtered, in order.
    pub(super) fn shown(&self) -> Table {
        let Some(table) = self.table_of(self.view) else {
            return Table::default();
        };
        let wanted = self.filter.to_lowercase();
        let matches =
            |row: &&Vec<String>| row.iter().any(|cell| cell.to_lowercase().contains(&wanted));
        let mut rows: Vec<_> = table.rows.iter().filter(matches).cloned().collect();
        let (column, largest_first) = self.order();
        if let Some(at) = table.column(&column) {
            let cell = |row: &Vec<String>| row.get(at).cloned().unwrap_or_default();
            // Rows that are equal stay as the console has ordered them.
            rows.sort_by(|a, b| match largest_first {
                true => compare(&cell(b), &cell(a)),
                false => compare(&cell(a), &cell(b)),
            });
        }
        Table {
            columns: table.columns.clone(),
            rows,
        }
    }
}

impl Rates {
    fn note(&mut self, routes: &Table) {
        let (Some(decision), Some(rate)) = (routes.column("decision"), routes.column(RATE)) else {
            return;
        };
        let sum = |wanted: &str| {
            let of_it = |row: &&Vec<String>| row.get(decision).is_some_and(|d| d == wanted);
            let rates = (routes.rows.iter().filter(of_it))
                .filter_map(|row| number(row.get(rate)?))
                .sum::<f64>();
            // A rate is never negative, and no proxy does so many.
            format!("{rates:.0}").parse().unwrap_or(0)
        };
        for (history, now) in [
            (&mut self.primary, sum("primary")),
            (&mut self.replica, sum("replica")),
        ] {
            history.push_back(now);
            if history.len() > HISTORY {
                history.pop_front();
            }
        }
    }
}

/// Puts the rate of a counter in front of each row.
fn add_rates(table: &mut Table, counter: &Counter, old: Option<(&Table, Duration)>) {
    let Some(at) = table.column(counter.column) else {
        return;
    };
    let key: Vec<usize> = (counter.key.iter())
        .filter_map(|name| table.column(name))
        .collect();
    let name_of = |row: &Vec<String>| {
        let cells = key.iter().filter_map(|place| row.get(*place));
        cells.cloned().collect::<Vec<_>>()
    };
    let before: HashMap<Vec<String>, f64> = old
        .iter()
        .flat_map(|(table, _)| &table.rows)
        .filter_map(|row| Some((name_of(row), number(row.get(at)?)?)))
        .collect();
    let elapsed = old.map_or(Duration::ZERO, |(_, elapsed)| elapsed);
    for row in &mut table.rows {
        let now = row.get(at).and_then(|cell| number(cell));
        let then = before.get(&name_of(row)).copied();
        let counted = match (now, then) {
            (Some(now), Some(then)) if now >= then => Some(now - then),
            // It has begun anew.
            (Some(now), Some(_)) => Some(now),
            (Some(now), None) => Some(now).filter(|_| counter.is_whole),
            (None, _) => None,
        };
        let rate = counted.filter(|_| !elapsed.is_zero());
        let rate = rate.map(|counted| counted / elapsed.as_secs_f64());
        row.insert(0, rate.map_or(String::new(), |rate| format!("{rate:.1}")));
    }
    table.columns.insert(0, RATE.to_owned());
}

/// Returns the place so many places further, around the end.
fn moved(at: usize, by: isize, len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let back = by.unsigned_abs() % len;
    match by.is_negative() {
        true => (at + len - back) % len,
        false => (at + back) % len,
    }
}

/// Returns a cell as it is shown: a number with as many digits as one reads at a glance, a text on one line.
pub(super) fn glance(cell: &str) -> String {
    let short = match number(cell) {
        Some(value) if cell.contains('.') => match value.abs() {
            size if size < 1.0 => format!("{value:.3}"),
            size if size < 10.0 => format!("{value:.2}"),
            size if size < 1000.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        },
        // What a client is called and what it sends are its own words: none of them moves the cursor.
        _ => return cell.replace(char::is_control, " "),
    };
    if short.len() < cell.len() {
        short
    } else {
        cell.to_owned()
    }
}

/// Reads a cell as a number.
pub(super) fn number(cell: &str) -> Option<f64> {
    cell.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Compares numbers as numbers, and everything else as text; what is empty is the least.
fn compare(a: &str, b: &str) -> Ordering {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => match b.is_empty() {
            true => Ordering::Greater,
            false => Ordering::Less,
        },
        (None, Some(_)) => compare(b, a).reverse(),
        (None, None) => a.cmp(b),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use super::*;

    pub(in crate::commands::top) fn table(columns: &[&str], rows: &[&[&str]]) -> Table {
        let owned = |row: &&[&str]| row.iter().map(|&cell| cell.to_owned()).collect();
        Table {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: rows.iter().map(owned).collect(),
        }
    }

    fn routes(primary: &str, replica: &str) -> Table {
        table(
            &["decision", "reason", "count"],
            &[
                &["primary", "write", primary],
                &["replica", "read", replica],
            ],
        )
    }

    fn picture(asked_at: Instant, routes: Table) -> Picture {
        let mut tables = vec![Table::default(); View::ALL.len()];
        tables[2] = routes;
        Picture { asked_at, tables }
    }

    pub(in crate::commands::top) fn board() -> Board {
        let mut board = Board::new("db:6432/pgweir".to_owned(), Duration::from_secs(1));
        let start = Instant::now();
        board.take(picture(start, routes("10", "100")));
        board.take(picture(start + Duration::from_secs(2), routes("14", "300")));
        board.look_at(View::Routes);
        board
    }

    impl Board {
        /// Shows a table as if the console had just answered it.
        pub(in crate::commands::top) fn show_instead(&mut self, view: View, table: Table) {
            self.look_at(view);
            let place = View::ALL.iter().position(|other| *other == view).unwrap();
            self.tables[place] = table;
        }
    }

    #[test]
    fn numbers_are_short_and_texts_on_one_line() {
        let cells = [
            ("0.07002801120448179", "0.070"),
            ("6.849999", "6.85"),
            ("153.02", "153.0"),
            ("1975.023", "1975"),
            ("4194306", "4194306"),
            ("0", "0"),
            ("", ""),
            ("127.0.0.1", "127.0.0.1"),
            ("select\n1", "select 1"),
            ("\u{1b}]0;x\u{7}a\u{9b}2J", " ]0;x a 2J"),
        ];
        for (cell, shown) in cells {
            assert_eq!(glance(cell), shown);
        }
    }

    #[test]
    fn a_rate_is_the_difference_by_the_time_between() {
        let board = board();
        let shown = board.shown();
        assert_eq!(shown.columns, ["per_s", "decision", "reason", "count"]);
        assert_eq!(shown.rows[0], ["100.0", "replica", "read", "300"]);
        assert_eq!(shown.rows[1], ["2.0", "primary", "write", "14"]);
        assert_eq!(board.rates.replica, [0, 100]);
        assert_eq!(board.rates.primary, [0, 2]);
    }

    #[test]
    fn a_counter_that_begins_anew_has_counted_from_nothing() {
        let start = Instant::now();
        let mut board = Board::new("db:6432/pgweir".to_owned(), Duration::from_secs(1));
        board.take(picture(start, routes("14", "300")));
        board.take(picture(start + Duration::from_secs(2), routes("1", "3")));
        board.look_at(View::Routes);
        let shown = board.shown();
        assert_eq!(shown.rows[0], ["1.5", "replica", "read", "3"]);
        assert_eq!(shown.rows[1], ["0.5", "primary", "write", "1"]);
    }

    #[test]
    fn a_statement_is_the_same_whatever_else_is_said_of_it_and_one_that_is_new_has_no_rate() {
        let statements = |rows: &[&[&str]]| {
            let columns = ["calls", "p99_ms", "last_reason", "database", "fingerprint"];
            table(&columns, rows)
        };
        let mut now = statements(&[
            &["1020", "1.5", "not_replayed", "7", "00ab"],
            &["900", "1.5", "read", "7", "00cd"],
        ]);
        let before = statements(&[
            &["5", "", "read", "8", "00ab"],
            &["1000", "", "read", "7", "00ab"],
        ]);
        let counter = View::Statements.counter().unwrap();
        add_rates(&mut now, counter, Some((&before, Duration::from_secs(2))));
        let rates: Vec<_> = now.rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(rates, ["10.0", ""]);
    }

    #[test]
    fn the_order_goes_by_numbers_and_turns_around() {
        let mut board = board();
        board.look_at(View::Backends);
        board.tables[0] = table(
            &["name", "lag_ms"],
            &[&["pg1", "9"], &["pg2", "10"], &["pg3", ""]],
        );
        let names =
            |board: &Board| -> Vec<_> { board.shown().rows.iter().map(|r| r[0].clone()).collect() };
        assert_eq!(names(&board), ["pg1", "pg2", "pg3"]);
        board.sort_by_next(1);
        assert_eq!(names(&board), ["pg2", "pg1", "pg3"]);
        board.reverse();
        assert_eq!(names(&board), ["pg3", "pg1", "pg2"]);
        board.sort_by_next(-1);
        assert_eq!(board.order().0, "name");
    }

    #[test]
    fn a_filter_looks_at_every_cell_whatever_its_case() {
        let mut board = board();
        "REPL"
            .chars()
            .for_each(|letter| board.lengthen_filter(letter));
        assert_eq!(board.shown().rows.len(), 1);
        board.clear_filter();
        assert_eq!(board.shown().rows.len(), 2);
    }

    #[test]
    fn a_pause_keeps_what_is_seen() {
        let mut board = board();
        board.toggle_pause();
        board.take(picture(Instant::now(), routes("0", "0")));
        assert_eq!(board.shown().rows[0][3], "300");
    }

    #[test]
    fn places_go_around_the_end() {
        assert_eq!([moved(0, -1, 3), moved(2, 1, 3), moved(1, 7, 3)], [2, 0, 2]);
        assert_eq!(moved(0, 1, 0), 0);
    }
}
