//! Zipf-distributed ranks by rejection-inversion (Hörmann and Derflinger: Rejection-inversion to
//! generate variates from monotone discrete distributions, 1996), each a pure function of a seed.

use crate::harness::random::splitmix64;

/// Ranks 1..=n, where rank k has a probability proportional to k^-exponent.
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    ranks: f64,
    exponent: f64,
    /// The hat's integral at both ends of the range that is drawn from.
    low: f64,
    high: f64,
    /// Within this distance right of a rank it is accepted without a look at the hat.
    squeeze: f64,
}

impl Zipf {
    /// `ranks` and `exponent` must be above 0.
    pub(crate) fn new(ranks: u64, exponent: f64) -> Self {
        let mut zipf = Self { ranks: ranks as f64, exponent, low: 0.0, high: 0.0, squeeze: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.ranks + 0.5);
        zipf.squeeze = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    /// The rank that belongs to `seed`.
    pub(crate) fn draw(&self, seed: u64) -> u64 {
        let mut state = seed;
        loop {
            state = splitmix64(state);
            // 53 random bits: every one counts in an f64 of 0..1.
            let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
            let area = self.high + uniform * (self.low - self.high);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.ranks);
            if rank - x <= self.squeeze || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of the density from 1 to x.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let t = (1.0 - self.exponent) * log;
        // (e^t − 1)/t, which near an exponent of 1 must come from its series.
        let factor = if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 };
        factor * log
    }

    fn inverse(&self, area: f64) -> f64 {
        // Below −1 only by rounding.
        let t = (area * (1.0 - self.exponent)).max(-1.0);
        let factor = if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 };
        (factor * area).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_as_frequent_as_the_law_says() {
        const DRAWS: u64 = 400_000;
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let zipf = Zipf::new(1000, exponent);
            let mut hits = vec![0_u64; 1001];
            for seed in 0..DRAWS {
                hits[zipf.draw(splitmix64(seed)) as usize] += 1;
            }
            assert_eq!(hits[0], 0);
            let norm: f64 = (1..=1000).map(|k| f64::from(k).powf(-exponent)).sum();
            for rank in [1, 2, 3, 10, 100] {
                let expected = f64::from(rank).powf(-exponent) / norm * DRAWS as f64;
                let seen = hits[rank as usize] as f64;
                // Five standard deviations of a Poisson count.
                assert!(
                    (seen - expected).abs() < 5.0 * expected.sqrt(),
                    "{exponent} {rank}: {seen} {expected}"
                );
            }
        }
    }

    #[test]
    fn one_rank_is_always_drawn() {
        assert!((0..100).all(|seed| Zipf::new(1, 0.99).draw(seed) == 1));
    }
}
