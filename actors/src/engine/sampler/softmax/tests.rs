//! The softmax against a plain one in double precision.

use super::{block_sums, exp, weight};

#[test]
fn exp_agrees_with_the_library_to_a_few_units_in_the_last_place() {
    for i in -86_999..=80_000 {
        let x = i as f32 / 1000.0;
        let (ours, theirs) = (f64::from(exp(x)), f64::from(x).exp());
        assert!((ours / theirs - 1.0).abs() < 4e-7, "{x}: {ours} {theirs}");
    }
}

#[test]
fn what_has_no_probability_has_no_weight() {
    for logit in [f32::NEG_INFINITY, f32::NAN, f32::MIN, -1000.0] {
        assert_eq!(weight(logit, 3.0, 1.0), 0.0);
    }
}

#[test]
fn an_infinite_logit_weighs_as_much_as_the_peak() {
    assert_eq!(weight(f32::INFINITY, f32::MAX, 1.0), 1.0);
    assert_eq!(weight(1.0, f32::MAX, 1.0), 0.0);
}

#[test]
fn block_sums_add_up_to_the_sum_of_the_row() {
    let row: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 / 10.0).collect();
    let mut sums = Vec::new();
    let total = block_sums(&row, 10.0, 0.5, &mut sums);
    let expected: f64 = row.iter().map(|&logit| (f64::from(logit - 10.0) * 0.5).exp()).sum();
    assert!((total / expected - 1.0).abs() < 1e-6);
    assert_eq!(sums.len(), 8);
}
