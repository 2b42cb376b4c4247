//! Where a job's objects lie: any object store, always behind the store model, which counts what lies
//! in it and, if asked to, makes it slow or fail.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use alluvium::test_util::{Latency, StoreModel, StoreModelOptions, open_store};
use clap::Args;

use crate::failure::{Failure, Result};
use crate::location::{Location, parse_store_option};
use crate::result;
use crate::signals::waiting;
use crate::units::parse_duration;

/// The store and how it behaves.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Object store")]
pub(crate) struct StoreArgs {
    /// Option of the object store, as in aws_region=eu-central-1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_store_option, action = clap::ArgAction::Append)]
    pub(crate) store_option: Vec<(String, String)>,
    /// Make the store behave like a remote one: request latency, bandwidth of one stream, bandwidth of
    /// all uploads (and of all downloads), as in 30ms,50MB/s,100MB/s. 30ms..200ms is a log-normal latency
    /// by its median and 99th percentile; a bandwidth may be `unlimited`
    #[arg(long, value_name = "MODEL", value_parser = parse_model)]
    pub(crate) store_model: Option<StoreModelOptions>,
    /// Let this share of all requests fail, as in 0.01 or 1%; half of the writes among them are applied,
    /// and only their answer is lost
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub(crate) store_errors: Option<f64>,
}

/// A time in which the store answers no request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PlannedOutage {
    pub(crate) length: Duration,
    /// From the start of the measured stretch.
    pub(crate) start: Duration,
}

impl FromStr for PlannedOutage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write LENGTH@START, as in 30s@60s".to_owned();
        let (length, start) = text.split_once('@').ok_or_else(wrong)?;
        Ok(Self {
            length: parse_duration(length).map_err(|_| wrong())?,
            start: parse_duration(start).map_err(|_| wrong())?,
        })
    }
}

/// An opened store.
#[derive(Debug, Clone)]
pub(crate) struct RunStore {
    pub(crate) store: StoreModel,
    pub(crate) prefix: String,
    /// `file`, `memory`, `s3` …
    pub(crate) kind: String,
    /// As messages call it.
    pub(crate) name: String,
    /// Absent: the store as it is.
    model: Option<StoreModelOptions>,
}

impl StoreArgs {
    pub(crate) fn location<'a>(&'a self, url: &'a str) -> Location<'a> {
        Location::new(url, &self.store_option)
    }
}

impl RunStore {
    /// Opens the store; a directory that does not exist is created if `create` says so. `seed` is what
    /// latencies and errors are drawn from.
    pub(crate) fn open(url: &str, args: &StoreArgs, seed: u64, create: bool) -> Result<Self> {
        let (store, prefix) = open_store(url, &args.store_option, create)?;
        let mut options = args.store_model.unwrap_or_default().seed(seed);
        if let Some(share) = args.store_errors {
            options = options.error_rate(share)?;
        }
        let run_store = Self {
            store: StoreModel::new(store, options),
            prefix,
            name: args.location(url).name(),
            kind: url.split_once("://").map_or("file", |(scheme, _)| scheme).to_owned(),
            model: (args.store_model.is_some() || args.store_errors.is_some()).then_some(options),
        };
        let location = args.location(url);
        let counted = waiting(location.name(), || run_store.count_existing(location.contact_timeout()));
        counted.map_err(|failure| location.blame(failure))?;
        Ok(run_store)
    }

    fn count_existing(&self, contact: Option<Duration>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("cannot start a runtime: {error}")))?;
        Ok(runtime.block_on(self.store.count_existing(&self.prefix.as_str().into(), contact))?)
    }

    /// For the result.
    pub(crate) fn spec(&self, outages: &[PlannedOutage]) -> Option<result::StoreModelSpec> {
        let options = match (self.model, outages) {
            (None, []) => return None,
            (model, _) => model.unwrap_or_default(),
        };
        let rate = |rate: Option<std::num::NonZeroU64>| rate.map(|rate| rate.get() as f64);
        Some(result::StoreModelSpec {
            latency_ms: options.latency.median().as_secs_f64() * 1e3,
            latency_p99_ms: match options.latency {
                Latency::LogNormal { p99, .. } => Some(p99.as_secs_f64() * 1e3),
                _ => None,
            },
            stream_bytes_per_s: rate(options.stream_bytes_per_second),
            shared_bytes_per_s: rate(options.shared_bytes_per_second),
            error_rate: (options.error_rate > 0.0).then_some(options.error_rate),
            outages: outages
                .iter()
                .map(|outage| result::Outage {
                    start_s: outage.start.as_secs_f64(),
                    end_s: (outage.start + outage.length).as_secs_f64(),
                })
                .collect(),
        })
    }

    /// The store for a job.
    pub(crate) fn object_store(&self) -> Arc<StoreModel> {
        Arc::new(self.store.clone())
    }
}

fn parse_model(text: &str) -> Result<StoreModelOptions, String> {
    text.parse().map_err(|error: alluvium::Error| error.to_string())
}

/// `0.01` or `1%`.
fn parse_share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "write a share of 0 to 1, as in 0.01 or 1%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_and_shares_are_read() {
        let outage: PlannedOutage = "30s@1m".parse().unwrap();
        assert_eq!((outage.length.as_secs(), outage.start.as_secs()), (30, 60));
        for wrong in ["", "30s", "30@60", "@", "30s@"] {
            assert!(wrong.parse::<PlannedOutage>().is_err(), "{wrong}");
        }
        assert_eq!((parse_share("1%"), parse_share("0.25")), (Ok(0.01), Ok(0.25)));
        assert!(parse_share("2").is_err() && parse_share("x%").is_err() && parse_share("-1%").is_err());
    }

    #[test]
    fn the_model_is_in_the_result_only_where_there_is_one() {
        let mut args = StoreArgs { store_option: Vec::new(), store_model: None, store_errors: None };
        let run_store = RunStore::open("memory:///", &args, 0, true).unwrap();
        assert_eq!((run_store.spec(&[]), run_store.kind.as_str()), (None, "memory"));
        let outage = "30s@60s".parse().unwrap();
        assert_eq!(run_store.spec(&[outage]).unwrap().outages[0].end_s, 90.0);
        args.store_model = Some("30ms..90ms,50MB/s,unlimited".parse().unwrap());
        let spec = RunStore::open("memory:///", &args, 0, true).unwrap().spec(&[]).unwrap();
        assert_eq!((spec.latency_ms, spec.latency_p99_ms), (30.0, Some(90.0)));
        assert_eq!((spec.stream_bytes_per_s, spec.shared_bytes_per_s), (Some(50e6), None));
    }
}
