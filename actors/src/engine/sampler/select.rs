//! Finds the likeliest tokens of a row without sorting or copying it.
//!
//! One pass takes the maximum of each block of the row. The k-th greatest of these maxima bounds the k-th greatest
//! logit from below, so that only the few blocks that reach it need a second look.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use super::softmax::LANES;
use crate::engine::protocol::Token;

/// Logits per block.
pub(super) const BLOCK: usize = 128;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// The token.
    pub(crate) id: Token,
    /// Its logit: a number over negative infinity.
    pub(crate) logit: f32,
    /// Its share, up to a common factor.
    pub(super) weight: f32,
}

/// Order of likelihood, the likeliest first; of equal ones the lower id.
pub(crate) fn by_likelihood(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Reused memory of the search.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// The maximum of each block.
    maxima: Vec<f32>,
    /// The same, in another order.
    ranked: Vec<f32>,
    /// What was found, in no particular order.
    pub(crate) found: Vec<Candidate>,
}

impl Selection {
    /// Room for rows of `n_vocab` logits.
    pub(super) fn with_capacity(n_vocab: usize) -> Self {
        let blocks = n_vocab.div_ceil(BLOCK);
        Self {
            maxima: Vec::with_capacity(blocks),
            ranked: Vec::with_capacity(blocks),
            found: Vec::with_capacity(n_vocab),
        }
    }

    /// Takes the maxima of a row; the other methods want the same row. Returns its greatest logit, negative infinity if
    /// there is none: NaN counts as that.
    pub(crate) fn scan(&mut self, row: &[f32]) -> f32 {
        self.maxima.clear();
        self.maxima.extend(row.chunks(BLOCK).map(maximum));
        maximum(&self.maxima)
    }

    /// The first token that has the logit `peak`, which is the row's greatest; `None` if that is negative infinity.
    pub(super) fn first_at(&self, row: &[f32], peak: f32) -> Option<Token> {
        let block = self.maxima.iter().position(|&maximum| maximum == peak && maximum > f32::NEG_INFINITY)?;
        let start = block * BLOCK;
        let within = row[start..].iter().position(|&logit| logit == peak)?;
        Some((start + within) as Token)
    }

    /// Finds the tokens whose logits are at least `floor` and over negative infinity.
    pub(super) fn at_least(&mut self, row: &[f32], floor: f32) {
        let floor = floor.max(f32::MIN);
        self.found.clear();
        for (block, _) in self.maxima.iter().enumerate().filter(|&(_, &maximum)| maximum >= floor) {
            let start = block * BLOCK;
            for (id, &logit) in (start..).zip(row[start..].iter().take(BLOCK)) {
                if logit >= floor {
                    self.found.push(Candidate { id: id as Token, logit, weight: 0.0 });
                }
            }
        }
    }

    /// Finds the `k` likeliest tokens, fewer if the others have no probability. `k` is over 0.
    pub(crate) fn top(&mut self, row: &[f32], k: usize) {
        let floor = self.floor_of_top(k);
        self.at_least(row, floor);
        if self.found.len() > k {
            self.found.select_nth_unstable_by(k - 1, by_likelihood);
            self.found.truncate(k);
        }
    }

    fn floor_of_top(&mut self, k: usize) -> f32 {
        if k > self.maxima.len() {
            return f32::MIN;
        }
        self.ranked.clear();
        self.ranked.extend_from_slice(&self.maxima);
        *self.ranked.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    }
}

/// The greatest number of a slice; NaN is passed over, as it compares as not greater.
fn maximum(values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut parts = values.chunks_exact(LANES);
    for part in &mut parts {
        for (lane, &value) in lanes.iter_mut().zip(part) {
            *lane = greater(*lane, value);
        }
    }
    lanes.iter().chain(parts.remainder()).copied().fold(f32::NEG_INFINITY, greater)
}
