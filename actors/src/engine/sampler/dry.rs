//! DRY ("don't repeat yourself"): makes a token less likely the longer the repetition is that it would continue.
//! Semantics as in llama.cpp.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::breakers::Breakers;
use super::history::Window;
use crate::engine::model::Vocabulary;
use crate::engine::protocol::Token;
use crate::sampling::DryParams;

/// The penalty and what it must remember.
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed: usize,
    window: Window,
    breakers: Breakers,
}

/// Reused memory.
#[derive(Debug, Default)]
pub(super) struct DryScratch {
    /// Place `k`: how many tokens before the last `k` are the same as the last ones.
    lengths: Vec<usize>,
    /// Tokens that would continue a repetition, and its length.
    continuations: Vec<(Token, usize)>,
}

impl Dry {
    /// `None` if the parameters turn it off.
    pub(super) fn new(params: &DryParams, tokens: &[Token], vocabulary: &Arc<dyn Vocabulary>) -> Option<Self> {
        if params.multiplier == 0.0 || params.base < 1.0 || params.penalty_last_n == 0 {
            return None;
        }
        let window = Window::new(tokens, params.penalty_last_n);
        let breakers = Breakers::new(&params.sequence_breakers, window.tokens(), vocabulary);
        let allowed = params.allowed_length as usize;
        Some(Self { multiplier: params.multiplier, base: params.base, allowed, window, breakers })
    }

    /// Takes note of an emitted token.
    pub(super) fn accept(&mut self, token: Token) {
        self.window.push(token);
        self.breakers.learn(token);
    }

    /// Changes the logits of the tokens that would continue a repetition.
    pub(super) fn apply(&self, row: &mut [f32], scratch: &mut DryScratch) {
        let tokens = self.window.tokens();
        if tokens.len() <= self.allowed {
            return;
        }
        let limit = self.breakers.distance(tokens);
        if limit < self.allowed {
            return;
        }
        suffix_matches(tokens, &mut scratch.lengths);
        self.collect(tokens, limit, scratch);
        for run in scratch.continuations.chunk_by(|a, b| a.0 == b.0) {
            let (token, longest) = run[run.len() - 1];
            if let Some(logit) = row.get_mut(token as usize) {
                *logit -= self.penalty(longest);
            }
        }
    }

    /// Gathers the continuations, by token and length; single-token breakers are free.
    fn collect(&self, tokens: &[Token], limit: usize, scratch: &mut DryScratch) {
        scratch.continuations.clear();
        scratch.continuations.reserve(tokens.len());
        for (k, &length) in scratch.lengths.iter().enumerate().skip(1) {
            let (length, next) = (length.min(limit), tokens[tokens.len() - k]);
            if length >= self.allowed && !self.breakers.is_whole(next) {
                scratch.continuations.push((next, length));
            }
        }
        scratch.continuations.sort_unstable();
    }

    /// Finite, so that it leaves a token some chance when there is no other.
    fn penalty(&self, length: usize) -> f32 {
        let exponent = i32::try_from(length - self.allowed).unwrap_or(i32::MAX);
        (self.multiplier * self.base.powi(exponent)).min(f32::MAX)
    }
}

/// For each `k`: how many tokens before the last `k` are the same as the last ones; the Z-algorithm from the end.
fn suffix_matches(tokens: &[Token], lengths: &mut Vec<usize>) {
    let n = tokens.len();
    let back = |i: usize| tokens[n - 1 - i];
    lengths.clear();
    lengths.resize(n, 0);
    // The match that reaches furthest back so far covers `left..right`.
    let (mut left, mut right) = (0, 0);
    for k in 1..n {
        let mut length = if k < right { lengths[k - left].min(right - k) } else { 0 };
        while k + length < n && back(length) == back(k + length) {
            length += 1;
        }
        lengths[k] = length;
        if k + length > right {
            (left, right) = (k, k + length);
        }
    }
}
