//! Draws the board: a line of state, the rates as small charts, tabs, one table.
//!
//! Colour only stresses what stands there in words, so that it reads the same on a terminal without it.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table, Tabs};

use super::board::{Board, View, glance, number};
use super::source;

/// A terminal lower than this has no room for the charts.
const CHARTS_FROM_HEIGHT: u16 = 16;

/// Rows of a table in the plain output.
const PLAIN_ROWS: usize = 20;

const KEYS: &str = "1-6 view  ←→ sort  r reverse  / filter  ↑↓ scroll  Space pause  ? help  q quit";

/// The least width of the text that ends some tables: enough to tell most statements apart.
const TEXT_WIDTH: usize = 24;

/// The most of any other column.
const CELL_WIDTH: usize = 40;

const HELP: [&str; 11] = [
    "1 to 6, Tab     another view",
    "← →  or < >     sort by the column before or behind",
    "                and bring it on the screen, where not all fit",
    "r               the other way around",
    "/               show only rows with this text; Esc ends that",
    "↑ ↓ PgUp PgDn   scroll",
    "Space           keep this picture, go on",
    "q, Ctrl-C       quit",
    "",
    "per_s is the rate since the picture before.",
    "Every view is a table of the console: SELECT * FROM backends.",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, board: &mut Board) {
    let charts = match frame.area().height >= CHARTS_FROM_HEIGHT {
        true => 4,
        false => 0,
    };
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(charts),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas::<5>(frame.area());
    let [head, chart, tabs, body, foot] = areas;
    let shown = glanced(board.shown());
    let columns = columns(board, &shown, usize::from(body.width));
    let hidden = shown.columns.len() - columns.len();
    frame.render_widget(headline(board, hidden), head);
    if charts > 0 {
        draw_charts(frame, board, chart);
    }
    let titles = View::ALL
        .iter()
        .enumerate()
        .map(|(index, view)| format!("{} {}", index + 1, view.title()));
    let selected = View::ALL.iter().position(|view| *view == board.view());
    let strong = Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD);
    let tabs_line = Tabs::new(titles).select(selected).highlight_style(strong);
    frame.render_widget(tabs_line, tabs);
    draw_table(frame, board, (&shown, &columns), body);
    let line = match board.is_filtering() || !board.filter().is_empty() {
        true => format!("/{}", board.filter()),
        false => KEYS.to_owned(),
    };
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Paragraph::new(line).style(dim), foot);
    if board.is_helping() {
        draw_help(frame);
    }
}

fn headline(board: &Board, hidden: usize) -> Paragraph<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![
        Span::styled("pgweir top", bold),
        Span::raw(format!("  {}  every {:?}", board.place, board.interval)),
    ];
    if hidden > 0 {
        spans.push(Span::raw(format!("  columns hidden: {hidden}")));
    }
    if board.is_paused {
        spans.push(Span::styled("  PAUSED", bold.fg(Color::Yellow)));
    }
    if let Some(trouble) = &board.trouble {
        spans.push(Span::styled(
            format!("  NOT CONNECTED: {trouble}"),
            bold.fg(Color::Red),
        ));
    }
    Paragraph::new(Line::from(spans))
}

fn draw_charts(frame: &mut Frame<'_>, board: &Board, area: Rect) {
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas::<2>(area);
    let both = [
        ("replicas", &board.rates.replica, Color::Green),
        ("primary", &board.rates.primary, Color::Blue),
    ];
    for (area, (name, rates, colour)) in halves.into_iter().zip(both) {
        let now = rates.back().copied().unwrap_or(0);
        let title = format!(" {name}: {now} batches/s ");
        let inner = usize::from(area.width.saturating_sub(2));
        let newest: Vec<u64> = (rates.iter().rev().take(inner).rev()).copied().collect();
        let chart = Sparkline::default()
            .block(Block::new().borders(Borders::ALL).title(title))
            .style(Style::new().fg(colour))
            .data(newest);
        frame.render_widget(chart, area);
    }
}

fn draw_table(
    frame: &mut Frame<'_>,
    board: &mut Board,
    (shown, columns): (&source::Table, &[Column]),
    area: Rect,
) {
    let (sorted_by, largest_first) = board.order();
    let heads = columns.iter().map(|column| {
        let arrow = match largest_first {
            true => "↓",
            false => "↑",
        };
        let name = shown.columns.get(column.place).map_or("", String::as_str);
        let text = match *name == sorted_by {
            true => format!("{name}{arrow}"),
            false => name.to_owned(),
        };
        Cell::from(column.filled(&text))
    });
    let head = Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD));
    let room = usize::from(area.height.saturating_sub(1));
    // What was scrolled past the end is taken back.
    board.scrolled = board.scrolled.min(shown.rows.len().saturating_sub(room));
    let rows = shown.rows.iter().skip(board.scrolled).take(room);
    let rows = rows.map(|row| {
        let cell = |column: &Column| row.get(column.place).map_or("", String::as_str);
        let cells = columns
            .iter()
            .map(|column| Cell::from(column.filled(cell(column))));
        Row::new(cells).style(style_of(row))
    });
    let constraints = columns
        .iter()
        .map(|column| Constraint::Length(u16::try_from(column.width).unwrap_or(u16::MAX)));
    let table = Table::new(rows, constraints).header(head).column_spacing(1);
    frame.render_widget(table, area);
}

/// Returns a table with its cells as they are shown.
fn glanced(mut table: source::Table) -> source::Table {
    for cell in table.rows.iter_mut().flatten() {
        *cell = glance(cell);
    }
    table
}

/// A column on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Column {
    /// Its place in the table.
    place: usize,
    width: usize,
    is_number: bool,
}

impl Column {
    /// Returns a text in its width. What is cut off is seen to be.
    fn filled(self, text: &str) -> String {
        let width = self.width;
        if text.chars().count() > width {
            let kept: String = text.chars().take(width.saturating_sub(1)).collect();
            return format!("{kept}…");
        }
        match self.is_number {
            true => format!("{text:>width$}"),
            false => format!("{text:<width$}"),
        }
    }
}

/// Returns the columns that have room, each as wide as it needs: the first, from somewhere on those behind it up to the one
/// that the table is sorted by or further, and the text that it ends in. Half a number would be a wrong one.
fn columns(board: &Board, table: &source::Table, room: usize) -> Vec<Column> {
    let (sorted_by, _) = board.order();
    let mut middle = widths(table, &sorted_by);
    let text = match board.view().ends_in_text() {
        true => middle.pop(),
        false => None,
    };
    let Some(first) = (!middle.is_empty()).then(|| middle.remove(0)) else {
        return text.into_iter().collect();
    };
    let for_text = text.map_or(0, |text| text.width.min(TEXT_WIDTH) + 1);
    let for_middle = room.saturating_sub(first.width + for_text);
    let is_sorted =
        |column: &Column| (table.columns.get(column.place)).is_some_and(|name| *name == sorted_by);
    let sorted = middle.iter().position(is_sorted).unwrap_or(0);
    let fitting = |from: usize| {
        let mut left = for_middle;
        let fits = |column: &&Column| match left.checked_sub(column.width + 1) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        middle.iter().skip(from).take_while(fits).count()
    };
    let from = (0..=sorted)
        .find(|from| from + fitting(*from) > sorted)
        .unwrap_or(sorted);
    let seen = middle.iter().skip(from).take(fitting(from));
    let mut columns: Vec<Column> = std::iter::once(&first).chain(seen).copied().collect();
    if let Some(mut text) = text {
        let before: usize = columns.iter().map(|column| column.width + 1).sum();
        text.width = room.saturating_sub(before);
        columns.push(text);
    }
    columns
}

/// Returns how a row is stressed: by the words that stand in it.
fn style_of(row: &[String]) -> Style {
    let says = |words: &[&str]| row.iter().any(|cell| words.contains(&cell.as_str()));
    match () {
        () if says(&["down", "open", "split"]) => Style::new().fg(Color::Red),
        () if says(&["half_open", "waiting", "drained", "unknown", "lagging"]) => {
            Style::new().fg(Color::Yellow)
        }
        () => Style::new(),
    }
}

/// Returns every column with the width that it needs.
fn widths(table: &source::Table, sorted_by: &str) -> Vec<Column> {
    let one = |(place, name): (usize, &String)| {
        let cells = || table.rows.iter().filter_map(|row| row.get(place));
        let widest = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let given = || cells().filter(|cell| !cell.is_empty());
        let is_number = given().next().is_some() && given().all(|cell| number(cell).is_some());
        // With the arrow of the order.
        let head = name.chars().count() + usize::from(name == sorted_by);
        Column {
            place,
            width: widest.max(head).min(CELL_WIDTH),
            is_number,
        }
    };
    table.columns.iter().enumerate().map(one).collect()
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let width = 66.min(area.width);
    let height = u16::try_from(HELP.len() + 2)
        .unwrap_or(area.height)
        .min(area.height);
    let place = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    let text: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Clear, place);
    let block = Block::new().borders(Borders::ALL).title(" keys ");
    frame.render_widget(Paragraph::new(text).block(block), place);
}

/// Returns all views one below the other, for a pipe.
pub(super) fn plain(board: &mut Board) -> String {
    let mut text = format!("pgweir {}\n", board.place);
    for view in View::ALL {
        board.look_at(view);
        let shown = glanced(board.shown());
        let _infallible = writeln!(text, "\n{} ({})", view.title(), shown.rows.len());
        let mut columns = widths(&shown, "");
        if view.ends_in_text()
            && let Some(last) = columns.last_mut()
        {
            last.width = usize::MAX;
        }
        let rows = shown.rows.iter().take(PLAIN_ROWS);
        for row in std::iter::once(&shown.columns).chain(rows) {
            let cells =
                row.iter()
                    .zip(&columns)
                    .map(|(cell, column)| match column.width == usize::MAX {
                        true => cell.clone(),
                        false => column.filled(cell),
                    });
            let line = cells.collect::<Vec<_>>().join(" ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::board::tests::{board, table};
    use super::*;

    fn drawn(board: &mut Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        terminal.backend().to_string()
    }

    /// Returns the first line that holds these words one behind the other.
    fn line_of(screen: &str, words: &[&str]) -> usize {
        let holds = |line: &str| {
            let all: Vec<&str> = line.trim_matches('"').split_whitespace().collect();
            all.windows(words.len()).any(|some| some == words)
        };
        (screen.lines().position(holds)).unwrap_or_else(|| panic!("{words:?}:\n{screen}"))
    }

    #[test]
    fn the_table_stands_in_its_order_with_the_rates_above() {
        let mut board = board();
        let screen = drawn(&mut board, 80, 24);
        let replica = line_of(&screen, &["100.0", "replica", "read", "300"]);
        assert!(replica < line_of(&screen, &["2.0", "primary", "write", "14"]));
        for text in ["per_s↓", "replicas: 100 batches/s", "primary: 2 batches/s"] {
            assert!(screen.contains(text), "{text}:\n{screen}");
        }
        assert!(!screen.contains("secret"), "{screen}");
    }

    #[test]
    fn it_fits_the_smallest_of_terminals() {
        let mut board = board();
        for (width, height) in [(1, 1), (20, 5), (80, 10), (400, 100)] {
            board.toggle_help();
            drawn(&mut board, width, height);
        }
    }

    /// A board that looks at the servers of a busy cluster.
    fn backends() -> Board {
        let mut board = board();
        let columns = [
            "name",
            "role",
            "state",
            "weight",
            "lag_ms",
            "conns",
            "busy",
            "p50_ms",
            "p99_ms",
            "errors",
            "breaker",
            "eff",
            "lag_bytes",
            "queries",
            "cluster",
            "last_error",
        ];
        let row = [
            "replica1",
            "replica",
            "up",
            "100",
            "0.250",
            "20",
            "11",
            "0.07002801120448179",
            "153.02206896551707",
            "0",
            "closed",
            "99.3",
            "123456789",
            "4194306",
            "main",
            "",
        ];
        board.show_instead(View::Backends, table(&columns, &[&row]));
        board
    }

    #[test]
    fn a_narrow_terminal_shows_fewer_columns_and_no_half_numbers() {
        let mut board = backends();
        let screen = drawn(&mut board, 80, 24);
        line_of(
            &screen,
            &[
                "replica1", "replica", "up", "100", "0.250", "20", "11", "0.070", "153.0", "0",
                "closed",
            ],
        );
        assert!(screen.contains("columns hidden: 5"), "{screen}");
        let screen = drawn(&mut board, 160, 24);
        assert!(!screen.contains("columns hidden"), "{screen}");
        line_of(&screen, &["closed", "99.3", "123456789", "4194306", "main"]);
    }

    #[test]
    fn the_column_that_is_sorted_by_is_on_the_screen_with_the_first() {
        let mut board = backends();
        for name in ["queries", "cluster", "last_error", "name", "role"] {
            let screen = {
                while board.order().0 != name {
                    board.sort_by_next(1);
                }
                drawn(&mut board, 50, 24)
            };
            let has = |arrow| screen.contains(&format!("{name}{arrow}"));
            assert!(has('↑') || has('↓'), "{screen}");
            assert!(screen.contains("replica1"), "{screen}");
        }
    }

    #[test]
    fn a_statement_takes_the_room_that_is_left_and_is_seen_to_be_cut() {
        let mut board = board();
        let long = "select 1 ".repeat(20);
        let statements = table(
            &["calls", "total_ms", "statement"],
            &[&["1", "1975.0238", &long]],
        );
        board.show_instead(View::Statements, statements);
        let screen = drawn(&mut board, 40, 24);
        let line = line_of(&screen, &["1", "1975", "select", "1", "select"]);
        assert!(screen.lines().nth(line).unwrap().contains('…'), "{screen}");
        assert!(plain(&mut board).contains(long.trim_end()));
    }

    #[test]
    fn trouble_is_said_and_the_last_picture_stays() {
        let mut board = board();
        board.lose("connection refused".to_owned());
        let screen = drawn(&mut board, 100, 24);
        assert!(
            screen.contains("NOT CONNECTED: connection refused"),
            "{screen}"
        );
        assert!(screen.contains("300"), "{screen}");
    }

    #[test]
    fn a_pipe_gets_all_views() {
        let text = plain(&mut board());
        for view in View::ALL {
            assert!(text.contains(view.title()), "{text}");
        }
        line_of(&text, &["100.0", "replica", "read", "300"]);
    }
}
