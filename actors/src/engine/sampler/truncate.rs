//! The samplers that drop candidates: typical, top-p, min-p, XTC. Semantics as in llama.cpp, with `min_keep` 0.

use std::cmp::Ordering;

use super::select::{Candidate, by_likelihood};
use super::softmax::weight;

/// Below this many candidates sorting is cheaper than halving.
const SORTED: usize = 64;

/// Sets the weights to `e^((logit - peak) scale)` and returns their sum.
pub(super) fn weigh(candidates: &mut [Candidate], peak: f32, scale: f32) -> f64 {
    let mut sum = 0.0;
    for candidate in candidates {
        candidate.weight = weight(candidate.logit, peak, scale);
        sum += f64::from(candidate.weight);
    }
    sum
}

/// The greatest logit, never infinite; the least number if there are no candidates.
pub(super) fn peak(candidates: &[Candidate]) -> f32 {
    candidates.iter().map(|candidate| candidate.logit).fold(f32::MIN, f32::max).min(f32::MAX)
}

/// Locally typical sampling (Meister et al., 2022): keeps the tokens whose surprise is nearest to the entropy, until
/// they make up the share `p`. `mass` is the sum of the weights, which are relative to `peak`.
pub(super) fn typical(candidates: &mut Vec<Candidate>, p: f32, peak: f32, mass: f64) {
    let ln_mass = mass.ln();
    let surprise = |candidate: &Candidate| ln_mass - f64::from(candidate.logit.min(f32::MAX) - peak);
    let share = |candidate: &Candidate| f64::from(candidate.weight) / mass;
    let possible = candidates.iter().filter(|candidate| candidate.weight > 0.0);
    let entropy: f64 = possible.map(|candidate| share(candidate) * surprise(candidate)).sum();
    let distance = |candidate: &Candidate| (surprise(candidate) - entropy).abs();
    let order = |a: &Candidate, b: &Candidate| distance(a).total_cmp(&distance(b)).then_with(|| by_likelihood(a, b));
    keep_share(candidates, f64::from(p) * mass, order);
}

/// Nucleus sampling: keeps the likeliest tokens that make up the share `p` of `mass`.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32, mass: f64) {
    keep_share(candidates, f64::from(p) * mass, by_likelihood);
}

/// Drops what is less likely than the share `p` of the likeliest.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let floor = min_p_floor(peak(candidates), p);
    candidates.retain(|candidate| candidate.logit >= floor);
}

/// The least logit that min-p keeps.
pub(super) fn min_p_floor(peak: f32, p: f32) -> f32 {
    peak + p.ln()
}

/// Exclude top choices: of the tokens that are at least `threshold` likely, only the least likely stays. The weights
/// must be set.
pub(super) fn xtc(candidates: &mut Vec<Candidate>, threshold: f32) {
    let mass: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let floor = f64::from(threshold) * mass;
    let above = |candidate: &Candidate| f64::from(candidate.weight) >= floor;
    if let Some(last) = candidates.iter().copied().filter(above).max_by(by_likelihood) {
        candidates.retain(|candidate| !above(candidate) || candidate.id == last.id);
    }
}

/// Keeps the shortest beginning, in `order`, whose weights add up to `enough`; all, if they never do.
///
/// Halves the range in which the cut lies instead of sorting it: linear in the number of candidates.
fn keep_share(candidates: &mut Vec<Candidate>, enough: f64, order: impl Fn(&Candidate, &Candidate) -> Ordering) {
    let (mut low, mut high, mut missing) = (0, candidates.len(), enough);
    while high - low > SORTED {
        let half = (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(half, &order);
        let sum: f64 = candidates[low..low + half].iter().map(|candidate| f64::from(candidate.weight)).sum();
        if sum >= missing {
            high = low + half;
        } else {
            missing -= sum;
            low += half;
        }
    }
    candidates[low..high].sort_unstable_by(&order);
    let reached = candidates[low..high].iter().position(|candidate| {
        missing -= f64::from(candidate.weight);
        missing <= 0.0
    });
    candidates.truncate(reached.map_or(high, |last| low + last + 1));
}
