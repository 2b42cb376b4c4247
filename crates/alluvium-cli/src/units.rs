//! Sizes, times and rates as people write and read them. 1 MB = 10^6 bytes, 1 MiB = 2^20.

use std::time::Duration;

/// A number with its unit as a whole number of the smallest one. None if it is none, or not a whole one: `1.5k` is 1500,
/// and `1.5` nothing.
fn scale(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor =
        units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).map(|(_, factor)| *factor)?;
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let fraction = fraction.trim_end_matches('0');
    let divisor = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u64 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = digits.checked_mul(factor)?;
    scaled.is_multiple_of(divisor).then(|| scaled / divisor)
}

/// `512MB`, `64KiB`, `1000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    scale(text, &UNITS)
        .ok_or_else(|| "write a size of whole bytes with its unit, as in 512MB or 64KiB".to_owned())
}

/// `10s`, `500ms`, `2m`, `1h 30m`, `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    // A month, which `M` would be, is no time that anybody waits here.
    let text = text.trim().replace('_', "").to_lowercase();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(&text)
        .map_err(|_| "write a time with its unit, as in 10s, 500ms or 2m".to_owned())
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
    scale(text, &[("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)])
        .filter(|count| *count < 1_000_000_000_000_000_000)
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

/// `2024-02-29 23:59:58` from milliseconds since 1970.
pub(crate) fn utc(unix_millis: u64) -> String {
    // Beyond the year 9999 only if the number is damaged.
    let seconds = (unix_millis / 1000).min(253_402_300_799);
    let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', "")
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
        assert_eq!(parse_duration("1h 30M"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0.5m"), Ok(Duration::from_secs(30)));
        assert_eq!((parse_count("1.5k"), parse_bytes("0.25kB")), (Ok(1500), Ok(250)));
        for part in ["1.5", "1.0005k", "1.2.3", ".", "18446744073709551616", "99999999999999G"] {
            assert!(parse_count(part).is_err() && parse_bytes(part).is_err(), "{part}");
        }
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
        assert_eq!(utc(u64::MAX), "9999-12-31 23:59:59");
    }
}
