//! The log on stderr: lines for people, coloured on a terminal only, or one JSON object per line for machines.
//!
//! It is started once the configuration has been read, since that says what the lines are like. Whatever is wrong with the
//! configuration is a failure of the command, and printed as such.

use std::io::IsTerminal as _;

use pgweir_config::{Log, LogFormat};
use tracing::Subscriber;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The log of this process: what is written can be changed while it runs, how cannot.
pub(crate) struct Logging(SetFilter);

impl Logging {
    /// Starts logging for this process.
    pub(crate) fn start(log: &Log) -> Self {
        let (subscriber, set_filter) = subscriber(log.format, filter(&log.level), std::io::stderr);
        // It fails only if a log has been started before, which then stays.
        let _started_before = subscriber.try_init();
        Logging(set_filter)
    }

    /// Takes the level of a new configuration over.
    pub(crate) fn follow(&self, log: &Log) {
        let Logging(set_filter) = self;
        set_filter(filter(&log.level));
    }
}

/// Starts logging for a process without a configuration.
pub(crate) fn start(level: &str) {
    let (subscriber, _) = subscriber(LogFormat::Text, filter(level), std::io::stderr);
    let _started_before = subscriber.try_init();
}

/// Returns the filter for what [`pgweir_config::log_level`] has accepted.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(level)
}

/// Replaces the filter of a log that runs.
type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Returns what writes the log, and what changes its filter.
fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
) -> (Box<dyn Subscriber + Send + Sync>, SetFilter)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    let set_filter = move |filter| {
        // It fails only where the log has ended, with the process.
        let _ended = handle.reload(filter);
    };
    let subscriber = Registry::default().with(filter).with(lines);
    (Box::new(subscriber), Box::new(set_filter))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_the_configuration_takes_for_a_level_the_filter_takes_as_it_is() {
        for (text, expected) in [
            ("info", "info"),
            ("WARN", "warn"),
            ("off", "off"),
            ("warn,pgweir_cluster=debug", "pgweir_cluster=debug,warn"),
            (" info , pgweir_proxy = trace", "pgweir_proxy=trace,info"),
            ("pgweir_proxy::pools=trace", "pgweir_proxy::pools=trace"),
        ] {
            let level = pgweir_config::log_level(text).unwrap();
            let filter = EnvFilter::builder().parse(&level).unwrap();
            assert_eq!(filter.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for bad in [
            "inof",
            "",
            "warn,",
            "pgweir_proxy=loud",
            "=info",
            "a[b]=info",
        ] {
            assert!(pgweir_config::log_level(bad).is_err(), "{bad:?}");
        }
    }

    /// What was written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if let Ok(mut written) = self.0.lock() {
                written.extend_from_slice(bytes);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn json_is_one_flat_object_per_line() {
        let written = Written::default();
        let writer = written.clone();
        let filter = filter("info");
        let (subscriber, _) = subscriber(LogFormat::Json, filter, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(node = "pg2", lag_ms = 17, "a \"quoted\"\nmessage");
        });
        let line = written.take();
        assert_eq!(line.lines().count(), 1, "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["message"], "a \"quoted\"\nmessage");
        assert_eq!(
            (&object["node"], &object["lag_ms"]),
            (&"pg2".into(), &17.into())
        );
        let at = object["timestamp"].as_str().unwrap();
        assert!(at.ends_with('Z') && at.get(10..11) == Some("T"), "{at}");
    }

    #[test]
    fn the_filter_is_changed_while_the_log_runs() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let written = Written::default();
            let writer = written.clone();
            let filter = filter("warn");
            let (subscriber, set_filter) = subscriber(format, filter, move || writer.clone());
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("unheard");
                set_filter(super::filter("info"));
                tracing::info!("heard");
                set_filter(super::filter("off"));
                tracing::error!("unheard");
            });
            let text = written.take();
            assert!(
                text.contains("heard") && !text.contains("unheard"),
                "{text}"
            );
        }
    }
}
