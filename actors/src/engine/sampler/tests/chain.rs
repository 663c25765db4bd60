//! The chain of truncations and the draw against a slow and obvious one, in double precision with full sorts.

use proptest::prelude::*;

use super::{neutral, row, sampler};
use crate::engine::protocol::Token;
use crate::engine::sampler::{Scratch, truncate};
use crate::sampling::SamplingParams;

type Chances = Vec<(Token, f64)>;

fn normalised(chances: Chances) -> Chances {
    let sum: f64 = chances.iter().map(|&(_, p)| p).sum();
    chances.into_iter().map(|(token, p)| (token, p / sum)).collect()
}

/// Softmax of the row without what has no probability, the likeliest first.
fn softmax(row: &[f32]) -> Chances {
    let peak = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut possible: Vec<(Token, f32)> = (0..).zip(row.iter().copied()).filter(|l| l.1 > f32::NEG_INFINITY).collect();
    possible.sort_by(|a, b| b.1.total_cmp(&(a.1 + 0.0)).then(a.0.cmp(&b.0)));
    normalised(possible.iter().map(|&(token, logit)| (token, f64::from(logit - peak).exp())).collect())
}

fn keep_share(chances: Chances, share: f64) -> Chances {
    let mut sum = 0.0;
    let reached = chances.iter().position(|&(_, p)| {
        sum += p;
        sum >= share
    });
    let kept = reached.map_or(chances.len(), |last| last + 1);
    normalised(chances[..kept].to_vec())
}

fn typical(mut chances: Chances, share: f64) -> Chances {
    let entropy: f64 = chances.iter().map(|&(_, p)| -p * p.ln()).sum();
    chances.sort_by(|a, b| (-a.1.ln() - entropy).abs().total_cmp(&(-b.1.ln() - entropy).abs()));
    let mut kept = keep_share(chances, share);
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    kept
}

/// What the truncations leave, with probabilities at temperature 1. `shift` moves every threshold a little.
fn reference(params: &SamplingParams, row: &[f32], shift: f64) -> Chances {
    let mut chances = softmax(row);
    if params.top_k > 0 {
        chances.truncate(params.top_k as usize);
        chances = normalised(chances);
    }
    if params.typical_p < 1.0 {
        chances = typical(chances, f64::from(params.typical_p) * shift);
    }
    if params.top_p < 1.0 {
        chances = keep_share(chances, f64::from(params.top_p) * shift);
    }
    if params.min_p > 0.0 {
        let floor = chances[0].1 * f64::from(params.min_p) * shift;
        chances.retain(|&(_, p)| p >= floor);
    }
    normalised(chances)
}

fn tokens(chances: &[(Token, f64)]) -> Vec<Token> {
    let mut tokens: Vec<Token> = chances.iter().map(|&(token, _)| token).collect();
    tokens.sort_unstable();
    tokens
}

fn survivors(params: &SamplingParams, row: &[f32]) -> Vec<Token> {
    let (sampler, mut scratch) = (sampler(params), Scratch::new(row.len()));
    let peak = scratch.work.selection.scan(row);
    let mass = sampler.gather(row, peak, &mut scratch.work);
    let mut candidates = scratch.work.selection.found;
    sampler.narrow(&mut candidates, peak, mass);
    let mut tokens: Vec<Token> = candidates.iter().map(|candidate| candidate.id).collect();
    tokens.sort_unstable();
    tokens
}

/// Compares, unless a threshold is so near to a token that rounding decides.
fn agrees(params: &SamplingParams, row: &[f32]) -> Result<(), TestCaseError> {
    prop_assume!(row.iter().any(|&logit| logit > f32::NEG_INFINITY));
    let expected = tokens(&reference(params, row, 1.0));
    prop_assume!([1.0 - 2e-6, 1.0 + 2e-6].iter().all(|&shift| tokens(&reference(params, row, shift)) == expected));
    prop_assert_eq!(survivors(params, row), expected);
    Ok(())
}

proptest! {
    #[test]
    fn top_p_of_all_tokens_keeps_what_a_full_sort_keeps(row in row(1..600), top_p in 0.001_f32..1.0) {
        agrees(&SamplingParams { top_p, ..neutral() }, &row)?;
    }

    #[test]
    fn min_p_of_all_tokens_keeps_what_a_full_sort_keeps(row in row(1..600), min_p in 0.0_f32..1.0) {
        agrees(&SamplingParams { min_p, ..neutral() }, &row)?;
    }

    #[test]
    fn typical_keeps_what_a_full_sort_keeps(row in row(1..600), typical_p in 0.001_f32..1.0) {
        agrees(&SamplingParams { typical_p, ..neutral() }, &row)?;
    }

    #[test]
    fn the_chain_keeps_what_full_sorts_keep(
        row in row(1..600),
        top_k in 0_u32..300,
        top_p in 0.001_f32..1.1,
        min_p in -0.1_f32..0.5,
        typical_p in 0.001_f32..1.1,
    ) {
        let (top_p, min_p, typical_p) = (top_p.min(1.0), min_p.max(0.0), typical_p.min(1.0));
        agrees(&SamplingParams { top_k, top_p, min_p, typical_p, ..neutral() }, &row)?;
    }
}

/// Draws `count` tokens and compares their numbers with the chances at the temperature; chi-square by its degrees of
/// freedom: mean 1, and with these sizes below 1.6 in all but one of ten thousand runs. The seed is fixed.
fn assert_distribution(params: &SamplingParams, row: &[f32], chances: &[(Token, f64)]) {
    let powered = chances.iter().map(|&(token, p)| (token, p.powf(1.0 / f64::from(params.temperature)))).collect();
    let (count, mut sampler, mut scratch) = (50_000, sampler(params), Scratch::new(row.len()));
    let mut counts = vec![0_u32; row.len()];
    for _ in 0..count {
        counts[sampler.sample(row, &mut scratch) as usize] += 1;
    }
    let mut chi_square = 0.0;
    for (token, chance) in normalised(powered) {
        let expected = chance * f64::from(count);
        chi_square += (f64::from(counts[token as usize]) - expected).powi(2) / expected;
        counts[token as usize] = 0;
    }
    assert!(counts.iter().all(|&count| count == 0), "drew what must not be drawn");
    assert!(chi_square / (chances.len() - 1) as f64 <= 1.6, "{}", chi_square / (chances.len() - 1) as f64);
}

fn wavy(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7).sin() * 2.0).collect()
}

#[test]
fn tokens_are_drawn_as_often_as_their_probability_says() {
    let row = wavy(300);
    for temperature in [0.5, 1.0, 1.7] {
        let params = SamplingParams { temperature, ..neutral() };
        assert_distribution(&params, &row, &softmax(&row));
    }
}

#[test]
fn truncated_draws_follow_the_remaining_probabilities() {
    let row = wavy(300);
    let params = SamplingParams { top_p: 0.9, temperature: 0.8, ..neutral() };
    assert_distribution(&params, &row, &reference(&params, &row, 1.0));
    let params = SamplingParams { top_k: 100, ..neutral() };
    assert_distribution(&params, &row, &reference(&params, &row, 1.0));
}

/// Logits of tokens with the given probabilities.
fn with_chances(chances: &[f32]) -> Vec<f32> {
    chances.iter().map(|p| p.ln()).collect()
}

/// The tokens that are drawn at all.
fn drawn(params: &SamplingParams, row: &[f32]) -> Vec<Token> {
    let (mut sampler, mut scratch) = (sampler(params), Scratch::default());
    let mut seen: Vec<Token> = (0..2000).map(|_| sampler.sample(row, &mut scratch)).collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

#[test]
fn xtc_leaves_the_least_likely_of_the_top_choices() {
    let row = with_chances(&[0.4, 0.3, 0.15, 0.1, 0.05]);
    let params = |xtc_threshold| SamplingParams { xtc_probability: 1.0, xtc_threshold, ..neutral() };
    assert_eq!(drawn(&params(0.2), &row), [1, 2, 3, 4]);
    assert_eq!(drawn(&params(0.12), &row), [2, 3, 4]);
    assert_eq!(drawn(&params(0.0), &row), [4]);
}

#[test]
fn xtc_needs_two_top_choices_and_a_threshold_up_to_a_half() {
    let row = with_chances(&[0.45, 0.3, 0.25]);
    let params = |xtc_threshold| SamplingParams { xtc_probability: 1.0, xtc_threshold, ..neutral() };
    assert_eq!(drawn(&params(0.4), &row), [0, 1, 2]);
    assert_eq!(drawn(&params(0.51), &row), [0, 1, 2]);
}

#[test]
fn xtc_judges_by_the_probabilities_that_the_truncations_leave() {
    // Alone token 1 has 0.3; after top-k it has 3/7.
    let row = with_chances(&[0.4, 0.3, 0.15, 0.1, 0.05]);
    let params = SamplingParams { top_k: 2, xtc_probability: 1.0, xtc_threshold: 0.4, ..neutral() };
    assert_eq!(drawn(&params, &row), [1]);
    assert_eq!(drawn(&SamplingParams { xtc_threshold: 0.45, ..params }, &row), [0, 1]);
}

#[test]
fn xtc_acts_with_its_probability_and_not_with_the_same_numbers_as_the_draw() {
    let row = with_chances(&[0.5, 0.5]);
    let params = SamplingParams { xtc_probability: 0.3, xtc_threshold: 0.1, ..neutral() };
    // Token 0 survives in 70 % of the draws and then has a half.
    let (mut sampler, mut scratch) = (sampler(&params), Scratch::default());
    let zeros = (0..100_000).filter(|_| sampler.sample(&row, &mut scratch) == 0).count();
    assert!((34_300..35_700).contains(&zeros), "{zeros}");
}

#[test]
fn xtc_off_changes_nothing() {
    let row = wavy(50);
    let off = SamplingParams { xtc_probability: 0.0, ..neutral() };
    let other = SamplingParams { xtc_probability: 0.0, xtc_threshold: 0.0, ..neutral() };
    let (mut a, mut b, mut scratch) = (sampler(&off), sampler(&other), Scratch::default());
    for _ in 0..100 {
        assert_eq!(a.sample(&row, &mut scratch), b.sample(&row, &mut scratch));
    }
}

#[test]
fn min_p_keeps_a_token_exactly_at_the_share() {
    assert_eq!(truncate::min_p_floor(3.0, 1.0), 3.0);
    assert_eq!(drawn(&SamplingParams { min_p: 1.0, ..neutral() }, &[3.0, 3.0, 2.9]), [0, 1]);
}
