//! Metrics as text: Prometheus' format 0.0.4, and OpenMetrics 1.0 for those who ask for it.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>.

use std::fmt::Write as _;

use crate::catalog::Kind;
use crate::family::{Family, Number, Sample};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns what an `Accept` header asks for: OpenMetrics where it is named and not liked less than plain text.
    pub fn negotiate(accept: &str) -> Format {
        let (mut open, mut text) = (0.0, 0.0);
        for entry in accept.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().unwrap_or("").to_ascii_lowercase();
            let (mut quality, mut is_ours) = (1.0_f32, true);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.trim().parse().unwrap_or(0.0),
                    Some(("version", value)) if name == OPEN_METRICS => {
                        is_ours = ["1.0.0", "0.0.1"].contains(&value.trim_matches('"'));
                    }
                    _ => {}
                }
            }
            match name.as_str() {
                OPEN_METRICS if is_ours => open = quality.max(open),
                "text/plain" | "text/*" | "*/*" => text = quality.max(text),
                _ => {}
            }
        }
        if open > 0.0 && open >= text {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    /// Returns the `Content-Type` of it.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Returns the text of all families; those without a series are left out.
pub fn write(families: &[Family], format: Format) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.is_empty()) {
        head(family, format, &mut text);
        for sample in family.samples() {
            line(&sample, &mut text);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn head(family: &Family, format: Format, text: &mut String) {
    let metric = family.metric();
    let (name, kind) = match (format, metric.kind) {
        (Format::Text, Kind::Info) => (metric.name, Kind::Gauge),
        (Format::Text, kind) => (metric.name, kind),
        (Format::OpenMetrics, kind) => (metric.base_name(), kind),
    };
    let _ = writeln!(text, "# TYPE {name} {}", kind.name());
    if format == Format::OpenMetrics && !metric.unit().is_empty() {
        let _ = writeln!(text, "# UNIT {name} {}", metric.unit());
    }
    let _ = write!(text, "# HELP {name} ");
    for character in metric.help.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if format == Format::OpenMetrics => text.push_str("\\\""),
            other => text.push(other),
        }
    }
    text.push('\n');
}

fn line(sample: &Sample, text: &mut String) {
    text.push_str(&sample.name);
    let labels = labels(sample);
    if !labels.is_empty() {
        let _ = write!(text, "{{{labels}}}");
    }
    text.push(' ');
    match sample.value {
        Number::Whole(whole) => {
            let _ = write!(text, "{whole}");
        }
        Number::Real(real) if real.is_infinite() => {
            text.push_str(if real > 0.0 { "+Inf" } else { "-Inf" });
        }
        // Without an exponent, and `NaN` as it is written there.
        Number::Real(real) => {
            let _ = write!(text, "{real}");
        }
    }
    text.push('\n');
}

/// Returns the labels of a sample as they stand between the braces: `database="app",route="primary"`.
pub fn labels(sample: &Sample) -> String {
    let mut text = String::new();
    for (name, value) in &sample.labels {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '"' => text.push_str("\\\""),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Histogram;
    use crate::catalog;
    use crate::family::Value;

    #[test]
    fn a_counter_is_written_in_both_formats() {
        let mut family = Family::new(catalog::RECEIVED);
        family.add(&["a\\b\"c\nd"], Value::Count(3));
        let families = [family, Family::new(catalog::SENT)];
        assert_eq!(
            write(&families, Format::Text),
            "# TYPE pgweir_client_received_bytes_total counter\n\
             # HELP pgweir_client_received_bytes_total Bytes from clients.\n\
             pgweir_client_received_bytes_total{database=\"a\\\\b\\\"c\\nd\"} 3\n"
        );
        assert_eq!(
            write(&families, Format::OpenMetrics),
            "# TYPE pgweir_client_received_bytes counter\n\
             # UNIT pgweir_client_received_bytes bytes\n\
             # HELP pgweir_client_received_bytes Bytes from clients.\n\
             pgweir_client_received_bytes_total{database=\"a\\\\b\\\"c\\nd\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_all() {
        let mut histogram = Histogram::default();
        for us in [60, 60, 2_000_000, 90_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let mut family = Family::new(catalog::WAIT_DURATION);
        family.add(&["app"], Value::Histogram(Box::new(histogram)));
        let text = write(&[family], Format::Text);
        for line in [
            "pgweir_wait_duration_seconds_bucket{database=\"app\",le=\"0.00005\"} 0\n",
            "pgweir_wait_duration_seconds_bucket{database=\"app\",le=\"0.0001\"} 2\n",
            "pgweir_wait_duration_seconds_bucket{database=\"app\",le=\"2.0\"} 3\n",
            "pgweir_wait_duration_seconds_bucket{database=\"app\",le=\"50.0\"} 3\n",
            "pgweir_wait_duration_seconds_bucket{database=\"app\",le=\"+Inf\"} 4\n",
            "pgweir_wait_duration_seconds_sum{database=\"app\"} 92.00012\n",
            "pgweir_wait_duration_seconds_count{database=\"app\"} 4\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_scraper_gets_what_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=2.0.0", Format::Text),
            (
                "text/plain, application/openmetrics-text;q=0.1",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
            ("text/html,*/*", Format::Text),
            ("", Format::Text),
            (";;;=,q=", Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }
}
