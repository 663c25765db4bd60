//! When requests of an open loop arrive: a Poisson process, which does not wait for answers. Pure.

use std::time::Duration;

use fastrand::Rng;

/// Arrival times of `count` requests from the start on, at `rate` requests per second (over 0) in the mean.
pub(super) fn poisson(rng: &mut Rng, rate: f64, count: usize) -> Vec<Duration> {
    let mut at = 0.0;
    let mut next = || {
        // 1 - u is in (0, 1]: its logarithm is finite.
        at += -(1.0 - rng.f64()).ln() / rate;
        Duration::from_secs_f64(at)
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_in_order_at_the_rate_and_as_irregular_as_poissons() {
        let times = poisson(&mut Rng::with_seed(7), 20.0, 20_000);
        assert_eq!(times.len(), 20_000);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.05).abs() < 0.002, "{mean}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "exponential gaps deviate by their mean");
        let long = gaps.iter().filter(|gap| **gap > 3.0 * mean).count() as f64 / gaps.len() as f64;
        assert!((long - (-3.0_f64).exp()).abs() < 0.01, "{long}");
    }
}
