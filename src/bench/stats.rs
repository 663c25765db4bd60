//! What many numbers come to: percentiles, and the spread over rounds. Pure.

use serde::Serialize;

/// Many samples of one thing. Unit and meaning are those of the place where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Samples.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Summary {
    /// `None` without samples. Samples that are not finite are left out.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let sorted = sorted(samples);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self {
            count: sorted.len(),
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            min,
            p50: percentile(&sorted, 50.0),
            p90: percentile(&sorted, 90.0),
            p99: percentile(&sorted, 99.0),
            max,
        })
    }
}

/// One figure for each round, and how far they lie apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Median of the rounds.
    pub median: f64,
    /// Smallest round.
    pub min: f64,
    /// First quartile.
    pub q1: f64,
    /// Third quartile.
    pub q3: f64,
    /// Largest round.
    pub max: f64,
    /// The rounds, in order.
    pub rounds: Vec<f64>,
}

impl Spread {
    /// `None` without a round. Rounds that are not finite (a division by nothing) are left out.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let rounds: Vec<f64> = rounds.into_iter().filter(|round| round.is_finite()).collect();
        let sorted = sorted(rounds.iter().copied());
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let at = |percent| percentile(&sorted, percent);
        Some(Self { median: at(50.0), min, q1: at(25.0), q3: at(75.0), max, rounds })
    }

    /// `ours / theirs`, round by round: what changes from one round to the next hits both.
    pub fn ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        Self::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

fn sorted(samples: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.into_iter().filter(|sample| sample.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// With linear interpolation between the two nearest ranks. `sorted` is not empty, `percent` is 0 to 100.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = percent / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * rank.fract()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_lie_between_the_nearest_ranks() {
        let summary = Summary::of((1..=100).rev().map(f64::from)).unwrap();
        assert_eq!((summary.min, summary.p50, summary.max, summary.mean), (1.0, 50.5, 100.0, 50.5));
        assert!((summary.p90 - 90.1).abs() < 1e-9 && (summary.p99 - 99.01).abs() < 1e-9, "{summary:?}");
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([3.0]).map(|one| (one.p50, one.p99, one.count)), Some((3.0, 3.0, 1)));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratios = Spread::ratios(&[10.0, 30.0, 20.0], &[5.0, 10.0, 20.0]).unwrap();
        assert_eq!(ratios.rounds, [2.0, 3.0, 1.0]);
        assert_eq!((ratios.median, ratios.min, ratios.max), (2.0, 1.0, 3.0));
        assert_eq!((ratios.q1, ratios.q3), (1.5, 2.5));
        let halved = Spread::ratios(&[1.0, 1.0], &[2.0, 0.0]).unwrap();
        assert_eq!(halved.rounds, [0.5], "a round without a figure is no round");
    }

    proptest! {
        #[test]
        fn a_summary_is_in_order(samples in prop::collection::vec(-1e6..1e6f64, 1..200)) {
            let summary = Summary::of(samples.iter().copied()).unwrap();
            prop_assert!(summary.min <= summary.p50 && summary.p50 <= summary.p90);
            prop_assert!(summary.p90 <= summary.p99 && summary.p99 <= summary.max);
            let below = samples.iter().filter(|sample| **sample <= summary.p50).count();
            prop_assert!(2 * below >= samples.len());
            let spread = Spread::of(samples).unwrap();
            prop_assert!(spread.min <= spread.q1 && spread.q1 <= spread.median);
            prop_assert!(spread.median <= spread.q3 && spread.q3 <= spread.max);
        }
    }
}
