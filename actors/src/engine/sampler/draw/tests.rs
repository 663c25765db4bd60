//! The draws: uniform, independent, and a function of seed and index alone.

use std::collections::HashSet;

use super::{Stream, from_row, uniform};

/// Chi-square of the counts against equal expectations.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

fn histogram(numbers: impl Iterator<Item = f64>) -> [u32; 100] {
    let mut counts = [0; 100];
    for number in numbers {
        counts[(number * 100.0) as usize] += 1;
    }
    counts
}

// Mean 99, standard deviation 14: 150 is three and a half of them away. The seeds are fixed, so it cannot flake.
#[test]
fn numbers_are_uniform_along_indices_and_along_seeds() {
    for fixed in [0, 1, 42, u64::MAX] {
        assert!(chi_square(&histogram((0..100_000).map(|i| uniform(fixed, i, Stream::Token)))) < 150.0);
        assert!(chi_square(&histogram((0..100_000).map(|i| uniform(i, fixed, Stream::Xtc)))) < 150.0);
    }
}

#[test]
fn streams_seeds_and_indices_do_not_share_numbers() {
    let mut seen = HashSet::new();
    for seed in 0..50 {
        for index in 0..50 {
            assert!(seen.insert(uniform(seed, index, Stream::Token).to_bits()));
            assert!(seen.insert(uniform(seed, index, Stream::Xtc).to_bits()));
        }
    }
}

#[test]
fn each_end_of_the_unit_interval_draws_a_token_with_probability() {
    let mut row = vec![f32::NEG_INFINITY; 600];
    (row[130], row[400]) = (1.0, 2.0);
    assert_eq!(from_row(&row, 2.0, 1.0, 0.0, &mut Vec::new()), Some(130));
    assert_eq!(from_row(&row, 2.0, 1.0, 1.0_f64.next_down(), &mut Vec::new()), Some(400));
    assert_eq!(from_row(&row, 2.0, 1.0, 1.0, &mut Vec::new()), Some(400));
}

#[test]
fn the_least_temperature_draws_the_greatest() {
    let row = [0.0, 1.0, 1.0_f32.next_down()];
    for number in [0.0, 0.5, 0.999] {
        assert_eq!(from_row(&row, 1.0, f32::from_bits(1), number, &mut Vec::new()), Some(1));
    }
}
