//! Moments as PostgreSQL writes them, in UTC: a text that sorts as the moments do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds from 1970 to 2000, from where PostgreSQL counts in its binary format.
pub(crate) const UNIX_TO_PG_US: i64 = 946_684_800_000_000;

const DAY_US: i64 = 86_400_000_000;

/// Returns microseconds since 1970; what does not fit is as far as there is.
pub(crate) fn unix_us(at: SystemTime) -> i64 {
    let us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => us(since),
        Err(before) => us(before.duration()).saturating_neg(),
    }
}

/// Returns a moment as a `timestamptz` is written: `2026-11-30 03:26:11.000125+00`.
pub fn format(at: SystemTime) -> String {
    format_us(unix_us(at))
}

/// Likewise, from microseconds since 1970. Always with six digits, so that texts sort as the moments do.
pub(crate) fn format_us(us: i64) -> String {
    let (year, month, day) = civil(us.div_euclid(DAY_US));
    let rest = us.rem_euclid(DAY_US);
    let (seconds, us) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{us:06}+00")
}

/// Returns a moment as PgBouncer writes it: `2026-11-30 03:26:11 UTC`.
pub(crate) fn format_seconds(at: SystemTime) -> String {
    let text = format(at);
    let whole = text.split('.').next().unwrap_or_default();
    format!("{whole} UTC")
}

/// Reads a date, or a date and a time with an offset or none, which is UTC; microseconds since 1970.
pub(crate) fn parse_us(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (date, time.trim()),
        None => (text, "00:00:00"),
    };
    let mut parts = date.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = parts.next().is_none()
        && (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day);
    if !valid {
        return None;
    }
    let at = time.find(['+', '-', 'Z', 'z', ' ']).unwrap_or(time.len());
    let (clock, zone) = time.split_at_checked(at)?;
    let clock = clock_us(clock)?;
    let zone = zone_us(zone.trim())?;
    days(year, month, day)
        .checked_mul(DAY_US)?
        .checked_add(clock)?
        .checked_sub(zone)
}

fn number(text: &str) -> Option<i64> {
    let valid = !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

fn clock_us(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next().unwrap_or(Some(0))?);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let us = match fraction {
        "" => 0,
        digits => number(&format!("{digits:0<6}").chars().take(6).collect::<String>())?,
    };
    Some((hour * 3600 + minute * 60 + second) * 1_000_000 + us)
}

fn zone_us(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first() {
        None => return Some(0),
        Some(b'+') => (1, text.get(1..)?),
        Some(b'-') => (-1, text.get(1..)?),
        Some(_) => {
            let utc = ["z", "utc", "gmt"];
            return utc
                .contains(&text.to_ascii_lowercase().as_str())
                .then_some(0);
        }
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) => (number(hours)?, number(minutes)?),
        None => (number(digits)?, 0),
    };
    (hours <= 15 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60) * 1_000_000)
}

/// Days since 1970 of a day of the Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The day of the calendar that is so many days after 1970-01-01 (`civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Reads an interval as people write it, `5 minutes`, `1 day 02:00:00`, `-30s`; in microseconds, a month having 30 days.
pub(crate) fn parse_interval_us(text: &str) -> Option<i64> {
    let spaced: String = spaced(text);
    let mut total: f64 = 0.0;
    let mut words = spaced.split_whitespace().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            let (sign, clock) = match word.strip_prefix('-') {
                Some(clock) => (-1, clock),
                None => (1, word),
            };
            #[expect(clippy::cast_precision_loss, reason = "microseconds of a day fit")]
            let us = (sign * clock_us(clock)?) as f64;
            total += us;
            continue;
        }
        let amount: f64 = word.parse().ok()?;
        total += amount * unit_us(words.next().unwrap_or("s"))?;
    }
    let is_sound = total.is_finite() && total.abs() < 9.0e15;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "its size has been looked at"
    )]
    is_sound.then_some(total as i64)
}

/// Puts a blank between a number and its unit.
fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut in_number = false;
    for c in text.trim().chars() {
        if in_number && c.is_alphabetic() {
            out.push(' ');
        }
        in_number = c.is_ascii_digit() || c == '.';
        out.push(c);
    }
    out
}

fn unit_us(unit: &str) -> Option<f64> {
    let unit = unit.to_ascii_lowercase();
    Some(match unit.as_str() {
        "us" | "microsecond" | "microseconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e6,
        "m" | "min" | "mins" | "minute" | "minutes" => 6e7,
        "h" | "hour" | "hours" => 3.6e9,
        "d" | "day" | "days" => 8.64e10,
        "w" | "week" | "weeks" => 6.048e11,
        "mon" | "mons" | "month" | "months" => 2.592e12,
        "y" | "year" | "years" => 3.1557e13,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back() {
        for us in [0, 1, 951_782_400_000_000, 1_796_009_171_000_125, -1] {
            assert_eq!(parse_us(&format_us(us)), Some(us), "{}", format_us(us));
        }
        assert_eq!(
            format_us(951_782_400_000_000),
            "2000-02-29 00:00:00.000000+00"
        );
        assert_eq!(format_us(UNIX_TO_PG_US), "2000-01-01 00:00:00.000000+00");
    }

    #[test]
    fn reads_what_people_write() {
        let day = parse_us("2026-11-30").unwrap();
        assert_eq!(parse_us("2026-11-30 00:00"), Some(day));
        assert_eq!(parse_us("2026-11-30T01:00:00+01"), Some(day));
        assert_eq!(parse_us("2026-11-30 00:00:00.5Z"), Some(day + 500_000));
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-1",
            "2026-01-01 25:00",
            "2026-01-01 1:1:1+99",
        ] {
            assert_eq!(parse_us(text), None, "{text}");
        }
    }

    #[test]
    fn reads_intervals() {
        assert_eq!(parse_interval_us("5 minutes"), Some(300_000_000));
        assert_eq!(parse_interval_us("500ms"), Some(500_000));
        assert_eq!(parse_interval_us("1 day 02:00:00"), Some(93_600_000_000));
        assert_eq!(parse_interval_us("-1h"), Some(-3_600_000_000));
        assert_eq!(parse_interval_us("soon"), None);
        assert_eq!(parse_interval_us(""), None);
    }
}
