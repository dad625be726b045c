//! The results as Markdown, for people.

use std::fmt::Write as _;

use super::extra::{Transfer, Way};
use super::results::{Results, Run, median};
use super::scenario::Scenario;
use super::target::Kind;

/// Columns of a scenario's table.
const COLUMNS: [&str; 13] = [
    "target",
    "tps",
    "of direct",
    "of PgBouncer",
    "latency ms",
    "p50 / p99 ms",
    "CPU µs/tx",
    "least–most",
    "user + system",
    "sleeps/tx",
    "CPU : PgBouncer",
    "CPU : relay",
    "on primary",
];

/// Returns the report.
pub(super) fn markdown(results: &Results) -> String {
    let mut text = "# pgweir bench\n\n".to_owned();
    for (name, value) in &results.header {
        line(&mut text, &format!("- {name}: {value}"));
    }
    line(
        &mut text,
        "\nFigures are medians over the rounds; ratios are taken within a round, then their median.\n\
         CPU is that of the proxy's process (user and system), divided by the transactions that pgbench counted.\n\
         Its sum is exact to 10 ms a run; how it falls into user and system is a sample.\n\
         Only ratios mean something on another machine.\n",
    );
    for kind in &results.targets {
        line(
            &mut text,
            &format!("- **{}**: {}", kind.name(), kind.meaning()),
        );
    }
    for &scenario in &results.scenarios {
        section(&mut text, results, scenario);
    }
    transfers(&mut text, &results.transfers);
    idle(&mut text, results);
    if !results.notes.is_empty() {
        line(&mut text, "\n## Notes\n");
        for note in &results.notes {
            line(&mut text, &format!("- {note}"));
        }
    }
    text
}

fn section(text: &mut String, results: &Results, scenario: Scenario) {
    let rows: Vec<Vec<String>> = results
        .targets
        .iter()
        .filter(|&&target| results.of(scenario, target).next().is_some())
        .map(|&target| row(results, scenario, target))
        .collect();
    if !rows.is_empty() {
        line(text, &format!("\n## {}\n", scenario.title()));
        table(text, &COLUMNS, &rows);
    }
}

fn row(results: &Results, scenario: Scenario, target: Kind) -> Vec<String> {
    let median = |figure: &dyn Fn(&Run) -> Option<f64>| results.median(scenario, target, figure);
    let ratio = |other: Kind, figure: &dyn Fn(&Run) -> Option<f64>| {
        let ratio = results.ratio(scenario, (target, other), figure);
        shown(ratio, |ratio| format!("{ratio:.2}×"))
    };
    let tps = |run: &Run| Some(run.figures.tps);
    let costs = || results.of(scenario, target).filter_map(Run::cpu_us);
    let range = costs().reduce(f64::min).zip(costs().reduce(f64::max));
    let parts = median(&Run::user_us).zip(median(&Run::system_us));
    let quantiles = median(&|run| run.figures.p50_ms).zip(median(&|run| run.figures.p99_ms));
    vec![
        target.name().to_owned(),
        shown(median(&tps), |tps| format!("{tps:.0}")),
        ratio(Kind::Direct, &tps),
        ratio(Kind::PgBouncer, &tps),
        shown(median(&|run| Some(run.figures.latency_ms)), |ms| {
            format!("{ms:.3}")
        }),
        shown(quantiles, |(p50, p99)| format!("{p50:.3} / {p99:.3}")),
        shown(median(&Run::cpu_us), |us| format!("{us:.1}")),
        shown(range, |(least, most)| format!("{least:.1}–{most:.1}")),
        shown(parts, |(user, system)| format!("{user:.1} + {system:.1}")),
        shown(median(&Run::switches), |sleeps| format!("{sleeps:.2}")),
        ratio(Kind::PgBouncer, &Run::cpu_us),
        ratio(Kind::Relay, &Run::cpu_us),
        shown(median(&|run| run.primary_share), |share| {
            format!("{:.1} %", share * 100.0)
        }),
    ]
}

fn transfers(text: &mut String, transfers: &[Transfer]) {
    for way in Way::ALL {
        let of_way: Vec<&Transfer> = transfers.iter().filter(|one| one.way == way).collect();
        let mut targets: Vec<&str> = Vec::new();
        for transfer in &of_way {
            if !targets.contains(&transfer.target) {
                targets.push(transfer.target);
            }
        }
        let Some(first) = of_way.first() else {
            continue;
        };
        line(text, &format!("\n## {} of {} MiB\n", way.name(), first.mib));
        let rows: Vec<Vec<String>> = targets
            .iter()
            .map(|target| transfer_row(&of_way, target))
            .collect();
        table(
            text,
            &[
                "target",
                "MiB/s",
                "of direct",
                "CPU µs/MiB",
                "CPU : PgBouncer",
                "CPU : relay",
            ],
            &rows,
        );
    }
}

fn transfer_row(transfers: &[&Transfer], target: &str) -> Vec<String> {
    let speed = |one: &Transfer| Some(f64::from(one.mib) / one.seconds);
    let cost = |one: &Transfer| {
        let usage = one.usage?;
        let used = usage.user_us.saturating_add(usage.system_us);
        Some(used as f64 / f64::from(one.mib))
    };
    let of = |figure: &dyn Fn(&Transfer) -> Option<f64>, target: &str| {
        let ours = transfers.iter().filter(|one| one.target == target);
        median(ours.filter_map(|one| figure(one)))
    };
    let ratio = |figure: &dyn Fn(&Transfer) -> Option<f64>, other: Kind| {
        let pair = of(figure, target).zip(of(figure, other.name()));
        shown(pair, |(ours, theirs)| format!("{:.2}×", ours / theirs))
    };
    vec![
        target.to_owned(),
        shown(of(&speed, target), |speed| format!("{speed:.0}")),
        ratio(&speed, Kind::Direct),
        shown(of(&cost, target), |cost| format!("{cost:.0}")),
        ratio(&cost, Kind::PgBouncer),
        ratio(&cost, Kind::Relay),
    ]
}

fn idle(text: &mut String, results: &Results) {
    let Some(first) = results.idle.first() else {
        return;
    };
    line(text, &format!("\n## {} idle clients\n", first.clients));
    let rows: Vec<Vec<String>> = results
        .idle
        .iter()
        .map(|one| {
            let more_kib = one.after_kib.saturating_sub(one.before_kib);
            vec![
                one.target.to_owned(),
                format!("{:.1}", one.before_kib as f64 / 1024.0),
                format!("{:.1}", one.after_kib as f64 / 1024.0),
                format!("{:.2}", more_kib as f64 / f64::from(one.clients)),
            ]
        })
        .collect();
    table(
        text,
        &["target", "MiB before", "MiB with them", "KiB per client"],
        &rows,
    );
}

/// A value, or the mark of none.
fn shown<T>(value: Option<T>, format: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), format)
}

/// A Markdown table, aligned for a terminal too; columns that say nothing are left out.
fn table(text: &mut String, columns: &[&str], rows: &[Vec<String>]) {
    let mut lines = vec![String::from("|"); rows.len().saturating_add(2)];
    for (index, column) in columns.iter().enumerate() {
        let cells: Vec<&str> = rows
            .iter()
            .filter_map(|row| row.get(index).map(String::as_str))
            .collect();
        if cells.iter().all(|cell| *cell == "–") {
            continue;
        }
        let longest = cells.iter().map(|cell| cell.chars().count()).max();
        let width = column.chars().count().max(longest.unwrap_or(0));
        // The first column is a name, the others are numbers.
        let (dashes, is_name) = ("-".repeat(width.saturating_sub(1)), index == 0);
        let ruler = if is_name {
            format!("-{dashes}")
        } else {
            format!("{dashes}:")
        };
        let whole_column = [*column, &ruler].into_iter().chain(cells);
        for (line, cell) in lines.iter_mut().zip(whole_column) {
            let _infallible = match is_name {
                true => write!(line, " {cell:<width$} |"),
                false => write!(line, " {cell:>width$} |"),
            };
        }
    }
    for one in lines {
        line(text, &one);
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::{markdown, table};
    use crate::bench::results::tests::example;

    #[test]
    fn a_table_leaves_out_columns_without_values() {
        let mut text = String::new();
        let rows = [vec!["a", "–", "12"], vec!["bcd", "–", "3"]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect());
        table(&mut text, &["x", "y", "z"], &rows);
        assert_eq!(
            text,
            "| x   |  z |\n| --- | -: |\n| a   | 12 |\n| bcd |  3 |\n"
        );
    }

    #[test]
    fn the_report_shows_medians_and_ratios() {
        let text = markdown(&example());
        let row = text
            .lines()
            .find(|line| line.contains("| pgweir/3"))
            .unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells.contains(&"1000"), "{row}");
        assert!(cells.contains(&"30.0–60.0"), "{row}");
        assert!(cells.contains(&"12.0 + 18.0"), "{row}");
        assert!(cells.contains(&"1.50×"), "{row}");
        assert!(cells.contains(&"1.0 %"), "{row}");
    }
}
