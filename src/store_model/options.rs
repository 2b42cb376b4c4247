//! What a modelled store is like.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// The standard normal distribution's 99th percentile.
const Z99: f64 = 2.326_347_874_040_841;

/// How long a request takes beside the time of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Log-normal with this median and 99th percentile.
    LogNormal {
        /// Half of all requests take longer.
        p50: Duration,
        /// One request in a hundred takes longer.
        p99: Duration,
    },
}

impl Latency {
    /// Half of all requests take longer.
    pub fn median(self) -> Duration {
        match self {
            Self::Fixed(latency) => latency,
            Self::LogNormal { p50, .. } => p50,
        }
    }

    /// The latency that belongs to two random numbers of 0..1.
    pub(super) fn draw(self, uniform: [f64; 2]) -> Duration {
        match self {
            Self::Fixed(latency) => latency,
            Self::LogNormal { p50, p99 } => {
                let sigma = (p99.as_secs_f64() / p50.as_secs_f64()).ln() / Z99;
                // Box and Muller's transform; 1 − u is above 0.
                let [radius, angle] = uniform;
                let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
                Duration::try_from_secs_f64(p50.as_secs_f64() * (sigma * normal).exp()).unwrap_or(p99)
            }
        }
    }
}

/// Latency, bandwidth and failures of a [`StoreModel`](super::StoreModel). Bandwidths are in bytes
/// per second; None is without limit.
///
/// Written `30ms,50MB/s,100MB/s`: latency, bandwidth of one stream, bandwidth of all streams of one
/// direction. `30ms..200ms` is a log-normal latency with a median of 30 ms and a 99th percentile of
/// 200 ms; `unlimited` is no limit. 1 MB = 10^6 bytes.
///
/// ```
/// use alluvium::test_util::StoreModelOptions;
///
/// let model: StoreModelOptions = "30ms,50MB/s,100MB/s".parse()?;
/// assert_eq!(model.shared_bytes_per_second.map(Into::into), Some(100_000_000_u64));
/// assert_eq!(model.to_string(), "30ms,50MB/s,100MB/s");
/// # Ok::<(), alluvium::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct StoreModelOptions {
    /// Of every request. Default 0.
    pub latency: Latency,
    /// Of one upload, one part of an upload, or one download. Default None.
    pub stream_bytes_per_second: Option<NonZeroU64>,
    /// Of all uploads together, and once more of all downloads together. Default None.
    pub shared_bytes_per_second: Option<NonZeroU64>,
    /// Share of the requests that fail, 0 to 1; half of the writes among them have been applied,
    /// and only the answer is lost. Default 0.
    pub error_rate: f64,
    /// What latencies and errors are drawn from. Default 0.
    pub seed: u64,
}

impl Default for StoreModelOptions {
    fn default() -> Self {
        Self {
            latency: Latency::Fixed(Duration::ZERO),
            stream_bytes_per_second: None,
            shared_bytes_per_second: None,
            error_rate: 0.0,
            seed: 0,
        }
    }
}

impl StoreModelOptions {
    /// Sets the share of requests that fail, 0 to 1.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for any other number.
    pub fn error_rate(mut self, share: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::invalid(format!("the share of requests that fail is 0 to 1, not {share}")));
        }
        self.error_rate = share;
        Ok(self)
    }

    /// Sets what latencies and errors are drawn from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether bytes take time.
    pub(super) fn paces(&self) -> bool {
        self.stream_bytes_per_second.is_some() || self.shared_bytes_per_second.is_some()
    }
}

impl FromStr for StoreModelOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let [latency, stream, shared] = parts.as_slice() else { return Err(wrong(text)) };
        let latency = match latency.split_once("..") {
            None => Latency::Fixed(duration(latency).ok_or_else(|| wrong(text))?),
            Some((p50, p99)) => {
                let (p50, p99) = duration(p50).zip(duration(p99)).ok_or_else(|| wrong(text))?;
                if p50.is_zero() || p99 < p50 {
                    return Err(Error::invalid(
                        "a latency's median is above 0 and at most its 99th percentile",
                    )
                    .object(text));
                }
                Latency::LogNormal { p50, p99 }
            }
        };
        Ok(Self {
            latency,
            stream_bytes_per_second: bandwidth(stream).ok_or_else(|| wrong(text))?,
            shared_bytes_per_second: bandwidth(shared).ok_or_else(|| wrong(text))?,
            ..Self::default()
        })
    }
}

impl fmt::Display for StoreModelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.latency {
            Latency::Fixed(latency) => write!(f, "{latency:?}")?,
            Latency::LogNormal { p50, p99 } => write!(f, "{p50:?}..{p99:?}")?,
        }
        for rate in [self.stream_bytes_per_second, self.shared_bytes_per_second] {
            match rate.map(NonZeroU64::get) {
                None => write!(f, ",unlimited")?,
                Some(rate) => write!(f, ",{}MB/s", rate as f64 / 1e6)?,
            }
        }
        Ok(())
    }
}

fn wrong(text: &str) -> Error {
    Error::invalid("the store model cannot be read")
        .object(format!("{text:?}"))
        .advise("write LATENCY,STREAM,SHARED as in 30ms,50MB/s,100MB/s or 30ms..200ms,unlimited,1GB/s")
}

/// A number and its unit.
fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

fn duration(text: &str) -> Option<Duration> {
    let seconds = match number(text)? {
        (0.0, "") => 0.0,
        (number, "us" | "µs") => number / 1e6,
        (number, "ms") => number / 1e3,
        (number, "s") => number,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// The outer None is a mistake, the inner one no limit.
fn bandwidth(text: &str) -> Option<Option<NonZeroU64>> {
    if text == "unlimited" {
        return Some(None);
    }
    let (number, unit) = number(text)?;
    let factor = match unit {
        "kB/s" => 1e3,
        "MB/s" => 1e6,
        "GB/s" => 1e9,
        _ => return None,
    };
    NonZeroU64::new((number * factor) as u64).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::splitmix64;

    #[test]
    fn models_are_read_and_written() {
        for text in ["30ms,50MB/s,100MB/s", "30ms..200ms,unlimited,1500MB/s", "0ns,unlimited,unlimited"] {
            let read = text.replace("0ns", "0");
            assert_eq!(read.parse::<StoreModelOptions>().unwrap().to_string(), text);
        }
        let model: StoreModelOptions = "1.5s, 500kB/s, 1GB/s".parse().unwrap();
        assert_eq!(model.latency, Latency::Fixed(Duration::from_millis(1500)));
        assert_eq!(model.stream_bytes_per_second, NonZeroU64::new(500_000));
        assert_eq!(model.shared_bytes_per_second, NonZeroU64::new(1_000_000_000));
    }

    #[test]
    fn mistakes_are_refused_with_an_example() {
        for text in [
            "",
            "30ms",
            "30ms,50MB/s",
            "30,50MB/s,100MB/s",
            "30ms,50MB,100MB/s",
            "30ms,0MB/s,100MB/s",
            "30ms,50MB/s,100MB/s,1",
            "0..1ms,50MB/s,100MB/s",
            "3ms..1ms,50MB/s,100MB/s",
            "-1ms,50MB/s,100MB/s",
            "µ,1MB/s,1MB/s",
        ] {
            let error = text.parse::<StoreModelOptions>().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument, "{text}");
        }
        assert!("x".parse::<StoreModelOptions>().unwrap_err().to_string().contains("30ms,50MB/s,100MB/s"));
        assert!(StoreModelOptions::default().error_rate(1.5).is_err());
        assert!(StoreModelOptions::default().error_rate(f64::NAN).is_err());
    }

    #[test]
    fn a_log_normal_latency_has_its_percentiles() {
        let latency = Latency::LogNormal { p50: Duration::from_millis(30), p99: Duration::from_millis(200) };
        let uniform = |n: u64| (splitmix64(n) >> 11) as f64 / (1_u64 << 53) as f64;
        let mut drawn: Vec<Duration> =
            (0..100_000).map(|n| latency.draw([uniform(2 * n), uniform(2 * n + 1)])).collect();
        drawn.sort_unstable();
        let near = |drawn: Duration, wanted: f64| (drawn.as_secs_f64() / wanted - 1.0).abs() < 0.03;
        assert!(near(drawn[50_000], 0.030), "{:?}", drawn[50_000]);
        assert!(near(drawn[99_000], 0.200), "{:?}", drawn[99_000]);
        // As far below the median as above it, in the logarithm.
        assert!(near(drawn[1000], 0.030 * 0.030 / 0.200), "{:?}", drawn[1000]);
    }
}
