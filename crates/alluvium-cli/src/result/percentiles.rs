//! Percentiles of a few values, exactly.

use super::Percentiles;

/// Below this many samples a 99.9th percentile is only another name for the maximum.
pub(crate) const ENOUGH_FOR_P999: u64 = 1000;

/// Percentiles of few values, exactly (nearest rank). None where there are none.
pub(crate) fn percentiles_of(values: impl IntoIterator<Item = f64>) -> Option<Percentiles> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let max = *values.last()?;
    let at = |quantile: f64| {
        let rank = (quantile * values.len() as f64).ceil() as usize;
        values[rank.clamp(1, values.len()) - 1]
    };
    let n = values.len() as u64;
    Some(Percentiles {
        n,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: (n >= ENOUGH_FOR_P999).then(|| at(0.999)),
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_values_are_exact() {
        let p = percentiles_of((1..=200).map(f64::from)).unwrap();
        assert_eq!((p.n, p.p50, p.p90, p.p99, p.p999, p.max), (200, 100.0, 180.0, 198.0, None, 200.0));
        assert_eq!(percentiles_of([]), None);
        assert_eq!(percentiles_of([7.0]).unwrap().p50, 7.0);
    }
}
