//! Histograms.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_quantile_is_near_the_true_one(mut all in prop::collection::vec(1_000_u64..100_000_000_000, 1..200), share in 0.0..=1.0_f64) {
        let histogram = Histogram::default();
        all.iter().for_each(|ns| histogram.record(Duration::from_nanos(*ns)));
        all.sort_unstable();
        let rank = ((all.len() as f64 * share).ceil() as usize).max(1);
        let truth = all[rank - 1] as f64;
        let found = histogram.counts().quantile(share).unwrap().as_nanos() as f64;
        prop_assert!((found - truth).abs() <= truth / 7.0 + 64.0, "{found} for {truth}");
    }

    #[test]
    fn buckets_cover_all_durations_without_gaps(ns in any::<u64>()) {
        let index = index_of(ns);
        prop_assert!(floor_of(index) <= ns);
        prop_assert!(index == BUCKETS - 1 || ns < floor_of(index + 1));
    }
}

#[test]
fn nothing_counted_has_no_quantile() {
    assert_eq!(Histogram::default().counts().quantile(0.5), None);
}

#[test]
fn sums_are_what_one_histogram_would_have() {
    let (one, two, both) = (Histogram::default(), Histogram::default(), Histogram::default());
    for ms in 1..100 {
        if ms % 3 == 0 { &one } else { &two }.record_alone(Duration::from_millis(ms));
        both.record(Duration::from_millis(ms));
    }
    let mut sum = one.counts();
    sum.add(&two.counts());
    assert_eq!(sum, both.counts());
}

#[test]
fn a_window_forgets_what_is_over() {
    let window = Window::default();
    window.record(3, Duration::from_millis(1));
    assert!(window.counts(9).quantile(0.5).is_some());
    assert_eq!(window.counts(10).quantile(0.5), None);
    window.record(10, Duration::from_secs(1));
    assert!(window.counts(10).quantile(0.0).unwrap() > Duration::from_millis(800), "the slot was emptied");
}
