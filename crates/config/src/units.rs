//! Durations and sizes as people write them, `100ms`, `5s`, `16MB`, and back.
//!
//! A number always has a unit, but for `0`: a bare `30` has been seconds in one program and milliseconds in the next.
//! Sizes count in 1024s whichever way they are spelt, as PostgreSQL's memory settings do.
//! See <https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-NAMES-VALUES>.

use std::time::Duration;

/// Chosen: ten years, beyond which nobody means it and arithmetic on instants could overflow.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Units of time, with their nanoseconds, from the largest.
const TIME: [(&str, u128); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// Units of size, with their bytes, from the largest; of each size the first is the one that is written.
const SIZE: [(&str, u128); 12] = [
    ("TiB", 1 << 40),
    ("TB", 1 << 40),
    ("GiB", 1 << 30),
    ("GB", 1 << 30),
    ("MiB", 1 << 20),
    ("MB", 1 << 20),
    ("KiB", 1 << 10),
    ("KB", 1 << 10),
    ("kiB", 1 << 10),
    ("kB", 1 << 10),
    ("B", 1),
    ("bytes", 1),
];

/// Reads a duration: a number, with decimals if need be, and one of `us ms s min h d`; or `0`. At most ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let nanos = parse(text, &TIME)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let duration = Duration::new(seconds, u32::try_from(nanos % 1_000_000_000).ok()?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// Reads a size in bytes: a number, with decimals if need be, and one of `B kB MB GB TB` or `KiB MiB GiB TiB`; or `0`.
pub fn parse_size(text: &str) -> Option<u64> {
    u64::try_from(parse(text, &SIZE)?).ok()
}

/// Returns a duration in the largest unit that divides it.
pub fn format_duration(duration: Duration) -> String {
    format(duration.as_nanos(), &TIME)
}

/// Returns a size in the largest unit that divides it.
pub fn format_size(bytes: u64) -> String {
    format(bytes.into(), &SIZE)
}

fn parse(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let text = text.trim();
    if text == "0" {
        return Some(0);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    // What a fraction of a nanosecond or of a byte would be is dropped.
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u128>().ok()?
    };
    let whole = whole.parse::<u128>().ok()?.checked_mul(*factor)?;
    whole.checked_add(fraction.checked_mul(*factor)? / scale)
}

fn format(value: u128, units: &[(&str, u128)]) -> String {
    let divides = |(_, factor): &&(&str, u128)| value != 0 && value.is_multiple_of(*factor);
    match units.iter().find(divides) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("100ms", 100),
            ("5s", 5_000),
            (" 5 s ", 5_000),
            ("1.5s", 1_500),
            ("10min", 600_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "5m",
            "5 seconds",
            "-5s",
            "+5s",
            "1.s",
            ".5s",
            "1.2.3s",
            "s",
            "4000000d",
            "1e3s",
            "５s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1B", 1),
            ("16MB", 16 << 20),
            ("16MiB", 16 << 20),
            ("1.5kB", 1536),
            ("2 GB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "16", "16M", "16mb", "-1B", "99999999999TB", "1MBs"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn writes_the_largest_unit_that_divides() {
        let written = [0, 100, 1_500, 60_000, 3_600_000, 5_400_000, 86_400_000]
            .map(|ms| format_duration(Duration::from_millis(ms)));
        assert_eq!(
            written,
            ["0", "100ms", "1500ms", "1min", "1h", "90min", "1d"]
        );
        assert_eq!(
            [0, 1, 1024, 1 << 30, 1536].map(format_size),
            ["0", "1B", "1KiB", "1GiB", "1536B"]
        );
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(micros in 0..300_000_000_000_000_u64, bytes: u64) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}", number in "[0-9.]{0,60}(s|kB)") {
            let _ = (parse_duration(&text), parse_size(&text), parse_duration(&number), parse_size(&number));
        }
    }
}
