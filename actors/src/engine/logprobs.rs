//! Log-probabilities of tokens, from the logits as the model gave them: temperature 1, before any sampler.

#[cfg(test)]
mod tests;

use crate::engine::model::{ControlTokens, Vocabulary};
use crate::engine::protocol::{Token, TokenBytes, TokenLogprob};
use crate::engine::sampler::Scratch;
use crate::engine::sampler::select::by_likelihood;

/// Stands for the logarithm of a probability of 0, as in the OpenAI API; JSON has no infinity.
pub const LEAST_LOGPROB: f32 = -9999.0;

/// Log-probability of `token` and of the `top_n` likeliest tokens of a row of logits.
///
/// There are fewer than `top_n` if the others have no probability. `token` must be in range of row and vocabulary. No
/// value is below [`LEAST_LOGPROB`] or over 0; a NaN in the row counts as negative infinity.
pub fn token_logprob(
    logits: &[f32],
    token: Token,
    top_n: usize,
    vocabulary: &dyn Vocabulary,
    scratch: &mut Scratch,
) -> TokenLogprob {
    let mut piece = Vec::new();
    let mut bytes = |token: Token| {
        piece.clear();
        vocabulary.piece(token, ControlTokens::Show, &mut piece);
        TokenBytes::from_slice(&piece)
    };
    let (peak, ln_mass, selection) = scratch.normaliser(logits);
    let logprob = |logit: f32| logprob(logit, peak, ln_mass);
    let mut top = Vec::new();
    if top_n > 0 {
        selection.top(logits, top_n);
        selection.found.sort_unstable_by(by_likelihood);
        top.extend(selection.found.iter().map(|found| (found.id, bytes(found.id), logprob(found.logit))));
    }
    TokenLogprob { id: token, bytes: bytes(token), logprob: Some(logprob(logits[token as usize])), top }
}

fn logprob(logit: f32, peak: f32, ln_mass: f64) -> f32 {
    let logprob = (f64::from(logit.min(f32::MAX)) - f64::from(peak) - ln_mass) as f32;
    if logit.is_nan() || logprob.is_nan() { LEAST_LOGPROB } else { logprob.clamp(LEAST_LOGPROB, 0.0) }
}
