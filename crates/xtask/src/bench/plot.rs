//! The results as a picture: CPU per transaction, a group of bars per scenario.

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, ChartBuilder, DrawingArea, EmptyElement, IntoDrawingArea as _, RGBColor, Rectangle,
    SVGBackend, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, TextStyle};

use super::results::{Results, Run};
use super::scenario::Scenario;
use super::target::Kind;

const HEIGHT: u32 = 520;
/// Of a bar, in pixels, and so of the picture.
const BAR_WIDTH: u32 = 44;

/// One bar.
struct Bar {
    left: f64,
    cpu_us: f64,
    target: Kind,
}

/// Returns the picture as SVG; `None` if no CPU was read.
pub(super) fn svg(results: &Results) -> Result<Option<String>, String> {
    let (bars, groups) = layout(results);
    let Some(most) = bars.iter().map(|bar| bar.cpu_us).reduce(f64::max) else {
        return Ok(None);
    };
    let width = bars.last().map_or(0.0, |bar| bar.left + 2.0);
    let slots = u32::try_from(bars.len().saturating_add(groups.len())).unwrap_or(u32::MAX);
    let pixels = slots.saturating_mul(BAR_WIDTH).clamp(640, 4000);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (pixels, HEIGHT)).into_drawing_area();
        draw(&area, (&bars, &groups), (width, most))
            .and_then(|()| area.present())
            .map_err(|error| format!("the plot: {error}"))?;
    }
    Ok(Some(text))
}

/// Places the bars side by side, one width each, with a gap after each group; a group is its title and its middle.
fn layout(results: &Results) -> (Vec<Bar>, Vec<(Scenario, f64)>) {
    let mut bars = Vec::new();
    let mut groups = Vec::new();
    let mut left = 0.5;
    for &scenario in &results.scenarios {
        let start = left;
        for &target in &results.targets {
            if let Some(cpu_us) = results.median(scenario, target, Run::cpu_us) {
                bars.push(Bar {
                    left,
                    cpu_us,
                    target,
                });
                left += 1.0;
            }
        }
        if left > start {
            groups.push((scenario, f64::midpoint(start, left)));
            left += 1.0;
        }
    }
    (bars, groups)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawError = plotters::drawing::DrawingAreaErrorKind<std::io::Error>;

fn draw(
    area: &Area<'_>,
    (bars, groups): (&[Bar], &[(Scenario, f64)]),
    (width, most): (f64, f64),
) -> Result<(), DrawError> {
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(
            "CPU of the proxy, µs per transaction (less is better)",
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(24)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..width, 0.0..most * 1.3)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_labels(8)
        .draw()?;
    let centred = |size: u32, vertical: VPos| {
        TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(HPos::Center, vertical))
    };
    let mut named: Vec<Kind> = Vec::new();
    for bar in bars {
        let colour = colour(bar.target);
        let rectangle = Rectangle::new(
            [(bar.left + 0.08, 0.0), (bar.left + 0.92, bar.cpu_us)],
            colour.filled(),
        );
        if named.contains(&bar.target) {
            chart.draw_series([rectangle])?;
        } else {
            named.push(bar.target);
            chart
                .draw_series([rectangle])?
                .label(bar.target.name())
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled())
                });
        }
    }
    let labels = bars.iter().map(|bar| {
        let label = Text::new(
            format!("{:.1}", bar.cpu_us),
            (0, -3),
            centred(12, VPos::Bottom),
        );
        EmptyElement::at((bar.left + 0.5, bar.cpu_us)) + label
    });
    chart.draw_series(labels)?;
    let titles = groups.iter().map(|(scenario, middle)| {
        EmptyElement::at((*middle, 0.0))
            + Text::new(scenario.name(), (0, 6), centred(13, VPos::Top))
    });
    chart.draw_series(titles)?;
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

fn colour(target: Kind) -> RGBColor {
    match target {
        Kind::Direct => RGBColor(120, 120, 120),
        Kind::Relay => RGBColor(160, 160, 160),
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
        for expected in [
            "<svg",
            "PgBouncer".to_lowercase().as_str(),
            "select simple 16",
            "30.0",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        assert_eq!(svg(&Results::default()), Ok(None));
    }
}
