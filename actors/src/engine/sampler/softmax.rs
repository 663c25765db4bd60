//! Exponentials of whole rows. Written in lanes so that the compiler vectorises them.

#[cfg(test)]
mod tests;

use super::select::BLOCK;

/// Independent sums or maxima of a block; several vector registers' worth.
pub(super) const LANES: usize = 16;

/// Adding this and subtracting it again rounds a small number to an integer, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has so few digits that its small multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Below this the result would not be a normal number.
const LEAST: f32 = -87.0;

/// `e^x` for `x` up to 88, to about two units in the last place; 0 below -87 and for NaN.
///
/// Free of branches and library calls: `e^x = 2^n e^r` with `|r| <= ln 2 / 2`, `e^r` by its Taylor series.
pub(super) fn exp(x: f32) -> f32 {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * r + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let result = series * f32::from_bits(exponent << 23);
    if x > LEAST { result } else { 0.0 }
}

/// Weight of a logit against the greatest one: 1 for that, 0 for NaN and infinitely small ones.
///
/// `peak` is finite; an infinite logit counts as the greatest number.
pub(super) fn weight(logit: f32, peak: f32, scale: f32) -> f32 {
    let finite = if logit > f32::MAX { f32::MAX } else { logit };
    exp((finite - peak) * scale)
}

/// The sum of the weights of each block of the row, left in `sums`, and of them all.
pub(super) fn block_sums(row: &[f32], peak: f32, scale: f32, sums: &mut Vec<f32>) -> f64 {
    sums.clear();
    sums.extend(row.chunks(BLOCK).map(|block| sum(block, peak, scale)));
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

fn sum(block: &[f32], peak: f32, scale: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let mut parts = block.chunks_exact(LANES);
    for part in &mut parts {
        for (lane, &logit) in lanes.iter_mut().zip(part) {
            *lane += weight(logit, peak, scale);
        }
    }
    let rest: f32 = parts.remainder().iter().map(|&logit| weight(logit, peak, scale)).sum();
    lanes.iter().sum::<f32>() + rest
}
