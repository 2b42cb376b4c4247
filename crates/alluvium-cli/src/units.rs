//! Sizes, times and rates as people write and read them. 1 MB = 10^6 bytes, 1 MiB = 2^20.

use std::time::Duration;

fn split(text: &str) -> Option<(f64, &str)> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.replace('_', "").parse().ok()?;
    number.is_finite().then(|| (number, unit.trim()))
}

fn scale(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = split(text.trim())?;
    units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| number * factor)
}

/// `512MB`, `64KiB`, `1000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 9] = [
        ("", 1.0),
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
    ];
    scale(text, &UNITS)
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "write a size with its unit, as in 512MB or 64KiB".to_owned())
}

/// `10s`, `500ms`, `2m`, `1h`, `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 5] = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    scale(text, &UNITS)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "write a time with its unit, as in 10s, 500ms or 2m".to_owned())
}

/// As [`parse_duration`], or `none`.
pub(crate) fn parse_interval(text: &str) -> Result<Interval, String> {
    if text == "none" {
        return Ok(Interval(None));
    }
    match parse_duration(text)? {
        Duration::ZERO => Err("write none for no interval at all".to_owned()),
        interval => Ok(Interval(Some(interval))),
    }
}

/// A time between two events, or never. A type of its own, because clap gives `Option` a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Option<Duration>);

/// `1000000`, `1_000_000`, `1M`, `10k`.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    scale(text, &[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)])
        .filter(|count| *count < 1e18)
        .map(|count| count as u64)
        .ok_or_else(|| "write a whole number, as in 1000000, 10k or 2M".to_owned())
}

/// `1.23 MB`.
pub(crate) fn bytes(bytes: f64) -> String {
    let (factor, unit) = match bytes {
        b if b >= 1e9 => (1e9, "GB"),
        b if b >= 1e6 => (1e6, "MB"),
        b if b >= 1e3 => (1e3, "kB"),
        _ => return format!("{bytes:.0} B"),
    };
    format!("{} {unit}", three_digits(bytes / factor))
}

/// `12.3 ms`, `4.56 s`, from milliseconds.
pub(crate) fn millis(millis: f64) -> String {
    match millis {
        m if m >= 1000.0 => format!("{} s", three_digits(m / 1e3)),
        m if m >= 1.0 || m == 0.0 => format!("{} ms", three_digits(m)),
        m => format!("{} µs", three_digits(m * 1e3)),
    }
}

/// `1,234,567`.
pub(crate) fn count(count: f64) -> String {
    let digits = format!("{:.0}", count.abs());
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, as far as a whole number has them.
pub(crate) fn three_digits(number: f64) -> String {
    match number.abs() {
        n if n >= 99.95 || n == 0.0 => format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// `2024-02-29 23:59:58` from milliseconds since 1970, by Howard Hinnant's days-to-civil algorithm.
pub(crate) fn utc(unix_millis: u64) -> String {
    let seconds = unix_millis / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years; March is the first month of the year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_counts_are_read() {
        assert_eq!(parse_bytes("512MB"), Ok(512_000_000));
        assert_eq!(parse_bytes("64 KiB"), Ok(65_536));
        assert_eq!(parse_bytes("1_000"), Ok(1000));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_interval("none"), Ok(Interval(None)));
        assert_eq!(parse_count("10k"), Ok(10_000));
        for wrong in ["", "MB", "5 apples", "-1s", "1e3"] {
            assert!(parse_bytes(wrong).is_err() && parse_duration(wrong).is_err(), "{wrong}");
        }
        assert!(parse_duration("10").is_err(), "a time needs its unit");
        assert!(parse_interval("0").is_err());
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(millis(1_234.0), "1.23 s");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(1_234_567.0), "1.23 MB");
        assert_eq!(millis(0.25), "250 µs");
        assert_eq!(millis(0.0), "0 ms");
        assert_eq!(millis(12.34), "12.3 ms");
        assert_eq!(millis(12_340.0), "12.3 s");
        assert_eq!(count(1_234_567.0), "1,234,567");
        assert_eq!(count(12.0), "12");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_709_251_198_500), "2024-02-29 23:59:58");
        assert_eq!(utc(1_735_689_599_000), "2024-12-31 23:59:59");
    }
}
