//! What a month of a run's object store costs.

use clap::Args;

use super::StoreUse;

/// Seconds of the month that cloud providers bill by: 730 hours.
const MONTH_S: f64 = 730.0 * 3600.0;

/// Bytes of the gigabyte that S3 bills by.
const GIB: f64 = 1_073_741_824.0;

/// Prices of an object store in US dollars. The defaults are Amazon S3's list prices for the class
/// Standard in us-east-1 (<https://aws.amazon.com/s3/pricing/>): first 50 TB; DELETE requests and traffic
/// within the region are free.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
#[command(next_help_heading = "Prices")]
pub(crate) struct Prices {
    /// US dollars per 1000 PUT and LIST requests [S3 Standard's list price]
    #[arg(long, value_name = "USD", default_value_t = Self::default().put_price, value_parser = price)]
    pub(crate) put_price: f64,
    /// US dollars per 1000 GET requests [S3 Standard's list price]
    #[arg(long, value_name = "USD", default_value_t = Self::default().get_price, value_parser = price)]
    pub(crate) get_price: f64,
    /// US dollars per GiB stored for a month [S3 Standard's list price]
    #[arg(long, value_name = "USD", default_value_t = Self::default().storage_price, value_parser = price)]
    pub(crate) storage_price: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { put_price: 0.005, get_price: 0.0004, storage_price: 0.023 }
    }
}

fn price(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|price: &f64| price.is_finite() && *price >= 0.0)
        .ok_or_else(|| "write a price in US dollars, as in 0.005".to_owned())
}

/// A month's price in its parts, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MonthlyCost {
    pub(crate) puts_and_lists: f64,
    pub(crate) gets: f64,
    /// None where it is not known how much the store holds.
    pub(crate) storage: Option<f64>,
}

impl MonthlyCost {
    /// None where a part is not known.
    pub(crate) fn total(&self) -> Option<f64> {
        Some(self.puts_and_lists + self.gets + self.storage?)
    }
}

impl Prices {
    /// A month that goes on like a stretch of `measured_s` seconds and stores what it held at its end.
    /// None where nothing was measured.
    pub(crate) fn month(&self, store: &StoreUse, measured_s: f64) -> Option<MonthlyCost> {
        let times = (measured_s > 0.0).then_some(MONTH_S / measured_s)?;
        Some(MonthlyCost {
            puts_and_lists: (store.puts + store.lists) as f64 * times / 1e3 * self.put_price,
            gets: store.gets as f64 * times / 1e3 * self.get_price,
            storage: store.live_bytes_end.map(|bytes| bytes as f64 / GIB * self.storage_price),
        })
    }

    /// For [`StoreUse::usd_per_month`].
    pub(crate) fn usd_per_month(&self, store: &StoreUse, measured_s: f64) -> Option<f64> {
        self.month(store, measured_s)?.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_of_known_requests_costs_what_the_price_list_says() {
        // One PUT a second: 2,628,000 in a month, 13.14 dollars.
        let store = StoreUse {
            puts: 90,
            lists: 10,
            gets: 1000,
            live_bytes_end: Some(10 << 30),
            ..StoreUse::default()
        };
        let cost = Prices::default().month(&store, 100.0).unwrap();
        assert!((cost.puts_and_lists - 13.14).abs() < 1e-9, "{cost:?}");
        assert!((cost.gets - 10.512).abs() < 1e-9, "{cost:?}");
        assert!((cost.storage.unwrap() - 0.23).abs() < 1e-12, "{cost:?}");
        assert!((cost.total().unwrap() - 23.882).abs() < 1e-9);

        let unknown = StoreUse { live_bytes_end: None, ..store.clone() };
        assert_eq!(Prices::default().usd_per_month(&unknown, 100.0), None, "a part is not known");
        assert_eq!(Prices::default().month(&store, 0.0), None);
    }

    #[test]
    fn a_price_is_a_number_that_is_not_negative() {
        assert_eq!(price("0.005"), Ok(0.005));
        for wrong in ["", "-1", "inf", "NaN", "5 cents"] {
            assert!(price(wrong).is_err(), "{wrong}");
        }
    }
}
