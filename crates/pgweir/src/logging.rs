//! The log: plain lines on stderr, coloured on a terminal only.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging for this process. `level` is a filter that [`filter`] has accepted.
pub(crate) fn start(level: &str) {
    let filter = EnvFilter::builder().parse_lossy(level);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // It fails only if a log has been started before, which then stays.
    let _started_before = subscriber.try_init();
}

/// Accepts a level, or a list of `target=level`.
///
/// # Errors
/// What is wrong with it, for the usage message. A lone word must be a level: taken as a target, a misspelt level would log
/// everything of nothing.
pub(crate) fn filter(text: &str) -> Result<String, String> {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    for part in text.split(',').map(str::trim) {
        if !part.contains('=') && !is_level(part) {
            return Err(format!(
                "{part:?} is no level; it is one of {}",
                levels.join(", ")
            ));
        }
    }
    match EnvFilter::builder().parse(text) {
        Ok(_valid) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn takes_levels_and_targets() {
        for good in [
            "info",
            "WARN",
            "off",
            "warn,pgweir_cluster=debug",
            "pgweir_proxy=trace",
        ] {
            assert_eq!(filter(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn refuses_a_misspelt_level() {
        for bad in ["inof", "", "warn,", "pgweir_proxy=loud"] {
            assert!(filter(bad).is_err(), "{bad:?}");
        }
    }
}
