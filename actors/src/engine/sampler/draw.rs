//! Draws: numbers that depend on seed and token index alone, and the choice made with one.

#[cfg(test)]
mod tests;

use super::select::{BLOCK, Candidate};
use super::softmax::{block_sums, weight};
use super::truncate::{peak, weigh};
use crate::engine::protocol::Token;

/// What a number is for; each purpose has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Which token.
    Token = 1,
    /// Whether XTC acts.
    Xtc = 2,
}

/// Number `index` of a stream: uniform, 0 to below 1. SplitMix64 (Steele et al., 2014), entered at any index.
pub(super) fn uniform(seed: u64, index: u64, stream: Stream) -> f64 {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = mix(seed.wrapping_add(GAMMA.wrapping_mul(stream as u64)));
    let bits = mix(start.wrapping_add(GAMMA.wrapping_mul(index.wrapping_add(1))));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The output function of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The factor that divides by a temperature over 0; finite, so that it leaves a 0 as it is.
pub(super) fn scale(temperature: f32) -> f32 {
    temperature.recip().min(f32::MAX)
}

/// Draws one of the candidates. `None` if there are none.
pub(super) fn from_candidates(candidates: &mut [Candidate], temperature: f32, number: f64) -> Option<Token> {
    let mass = weigh(candidates, peak(candidates), scale(temperature));
    pick(candidates.iter().map(|candidate| (candidate.id, candidate.weight)), number * mass)
}

/// Draws one of all tokens. `peak` is the greatest logit, finite; `sums` is reused memory.
pub(super) fn from_row(row: &[f32], peak: f32, temperature: f32, number: f64, sums: &mut Vec<f32>) -> Option<Token> {
    let scale = scale(temperature);
    let mut rest = number * block_sums(row, peak, scale, sums);
    let mut chosen = None;
    for (block, &sum) in sums.iter().enumerate().filter(|&(_, &sum)| sum > 0.0) {
        chosen = Some(block);
        if f64::from(sum) > rest {
            break;
        }
        rest -= f64::from(sum);
    }
    let start = chosen? * BLOCK;
    let weights = row[start..].iter().take(BLOCK).map(|&logit| weight(logit, peak, scale));
    pick((start as Token..).zip(weights), rest)
}

/// The token at which the weights have added up to more than `rest`; where rounding leaves the sum short, the last one
/// that has any weight.
fn pick(weighted: impl Iterator<Item = (Token, f32)>, mut rest: f64) -> Option<Token> {
    let mut chosen = None;
    for (token, weight) in weighted.filter(|&(_, weight)| weight > 0.0) {
        chosen = Some(token);
        rest -= f64::from(weight);
        if rest < 0.0 {
            break;
        }
    }
    chosen
}
