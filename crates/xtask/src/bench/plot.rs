//! The results as a picture: CPU per transaction, a panel with a scale of its own for each scenario.

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, ChartBuilder, DrawingArea, EmptyElement, IntoDrawingArea as _, RGBColor, Rectangle,
    SVGBackend, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, TextStyle};

use super::results::{Results, Run};
use super::target::Kind;

/// Panels side by side.
const COLUMNS: usize = 4;
/// Of a panel, in pixels.
const PANEL: (usize, usize) = (280, 240);
/// Of the title and the legend above the panels, in pixels.
const HEAD: usize = 64;

/// One scenario: its title and the cost of each target in it.
struct Panel {
    title: String,
    costs: Vec<(Kind, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Returns the picture as SVG; `None` if no CPU was read.
pub(super) fn svg(results: &Results) -> Result<Option<String>, String> {
    let panels = panels(results);
    if panels.is_empty() {
        return Ok(None);
    }
    let rows = panels.len().div_ceil(COLUMNS);
    // Few panels leave the rest of their row free, since the legend needs its width.
    let size = (
        pixels(PANEL.0.saturating_mul(COLUMNS)),
        pixels(PANEL.1.saturating_mul(rows).saturating_add(HEAD)),
    );
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area, results, &panels, rows)?;
        area.present().map_err(failed)?;
    }
    Ok(Some(text))
}

fn panels(results: &Results) -> Vec<Panel> {
    let panel = |&scenario| {
        let cost = |&target: &Kind| Some((target, results.median(scenario, target, Run::cpu_us)?));
        Panel {
            title: scenario.name(),
            costs: results.targets.iter().filter_map(cost).collect(),
        }
    };
    let panels = results.scenarios.iter().map(panel);
    panels.filter(|panel| !panel.costs.is_empty()).collect()
}

fn draw(area: &Area<'_>, results: &Results, panels: &[Panel], rows: usize) -> Result<(), String> {
    area.fill(&WHITE).map_err(failed)?;
    let (head, body) = area.split_vertically(pixels(HEAD));
    let title = Text::new(
        "CPU of the proxy, µs per transaction (less is better)",
        (12, 10),
        ("sans-serif", 20).into_font(),
    );
    head.draw(&title).map_err(failed)?;
    let mut left = 12;
    for &kind in results.targets.iter().filter(|&&kind| kind != Kind::Direct) {
        let swatch = Rectangle::new([(left, 42), (left + 12, 54)], colour(kind).filled());
        let name = Text::new(kind.name(), (left + 18, 42), ("sans-serif", 14).into_font());
        head.draw(&swatch).map_err(failed)?;
        head.draw(&name).map_err(failed)?;
        left += 150;
    }
    let places = body.split_evenly((rows, COLUMNS));
    for (place, panel) in places.iter().zip(panels) {
        draw_panel(place, panel)?;
    }
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Result<(), String> {
    let costs = panel.costs.iter().map(|(_, cost_us)| *cost_us);
    let most = costs.fold(0.0, f64::max);
    let count = f64::from(pixels(panel.costs.len()));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(4)
        .y_label_area_size(40)
        // Room above the bars for their numbers.
        .build_cartesian_2d(0.0..count, 0.0..most.max(0.1) * 1.15)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(5)
        .light_line_style(BLACK.mix(0.0))
        .draw()
        .map_err(failed)?;
    let above = Pos::new(HPos::Center, VPos::Bottom);
    let style = TextStyle::from(("sans-serif", 13).into_font()).pos(above);
    let mut left = 0.0;
    for &(target, cost_us) in &panel.costs {
        let corners = [(left + 0.1, 0.0), (left + 0.9, cost_us)];
        let bar = Rectangle::new(corners, colour(target).filled());
        let number = EmptyElement::at((left + 0.5, cost_us))
            + Text::new(format!("{cost_us:.1}"), (0, -2), style.clone());
        chart.draw_series([bar]).map_err(failed)?;
        chart.draw_series([number]).map_err(failed)?;
        left += 1.0;
    }
    Ok(())
}

fn pixels(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn failed(error: impl Display) -> String {
    format!("the plot: {error}")
}

fn colour(target: Kind) -> RGBColor {
    match target {
        Kind::Direct => RGBColor(120, 120, 120),
        Kind::Relay => RGBColor(170, 170, 170),
        Kind::PgBouncer => RGBColor(230, 159, 0),
        Kind::Pgweir1 => RGBColor(0, 114, 178),
        Kind::Pgweir3 => RGBColor(86, 180, 233),
        Kind::Pgweir3Cores => RGBColor(0, 158, 115),
    }
}

#[cfg(test)]
mod tests {
    use super::svg;
    use crate::bench::results::Results;
    use crate::bench::results::tests::example;

    #[test]
    fn the_picture_names_targets_and_scenarios() {
        let text = svg(&example()).unwrap().unwrap();
        for expected in ["<svg", "pgbouncer", "pgweir/3", "select simple 16", "30.0"] {
            assert!(text.contains(expected), "{expected}");
        }
        assert_eq!(svg(&Results::default()), Ok(None));
    }
}
