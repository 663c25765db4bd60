//! Chooses the next token of one sequence from its logits.
//!
//! Order, as in llama.cpp's default chain: logit bias, penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature,
//! draw. Nothing is allocated per token once the [`Scratch`] has its size; a window of all tokens grows now and then.

mod breakers;
mod draw;
mod dry;
mod history;
pub(crate) mod select;
mod softmax;
#[cfg(test)]
pub(crate) mod tests;
mod truncate;

use std::sync::Arc;

use crate::engine::model::Vocabulary;
use crate::engine::protocol::Token;
use crate::sampling::SamplingParams;

use draw::Stream;
use dry::{Dry, DryScratch};
use history::Penalties;
use select::{Candidate, Selection};

/// XTC thresholds over this turn it off: no two tokens can reach them.
const XTC_OFF: f32 = 0.5;

/// How far below the greatest logit top-p looks first; what is further down is mostly not needed.
const FIRST_DEPTH: f32 = 4.0;

/// The sampler of one sequence. Knows its last tokens, as far as the parameters look back.
///
/// The draw of a token depends on the seed and the number of tokens since the end of the prompt alone, so a sampler
/// built from prompt and emitted tokens goes on exactly as the one that emitted them would have.
pub struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
    seed: u64,
    /// Tokens emitted since the end of the prompt.
    index: u64,
    bias: Arc<[(Token, f32)]>,
    /// Tokens that must not be drawn, by id: the end tokens, if they are ignored.
    banned: Vec<Token>,
    penalties: Option<Penalties>,
    dry: Option<Dry>,
}

/// Memory that samplers of one thread share.
#[derive(Debug, Default)]
pub struct Scratch {
    row: Vec<f32>,
    dry: DryScratch,
    work: Work,
}

/// What the choice needs besides the row.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) selection: Selection,
    sums: Vec<f32>,
}

impl Scratch {
    /// Room for rows of `n_vocab` logits: 16 bytes each, touched only as far as the parameters in use ask for.
    pub fn new(n_vocab: usize) -> Self {
        let blocks = n_vocab.div_ceil(select::BLOCK);
        let work = Work { selection: Selection::with_capacity(n_vocab), sums: Vec::with_capacity(blocks) };
        Self { row: Vec::with_capacity(n_vocab), dry: DryScratch::default(), work }
    }

    /// The greatest logit (finite, or negative infinity) and the logarithm of the sum of `e^(logit - greatest)`.
    /// Leaves the row scanned in the returned selection.
    pub(crate) fn normaliser(&mut self, row: &[f32]) -> (f32, f64, &mut Selection) {
        let peak = self.work.selection.scan(row).min(f32::MAX);
        let mass = softmax::block_sums(row, peak, 1.0, &mut self.work.sums);
        (peak, mass.ln(), &mut self.work.selection)
    }
}

impl Sampler {
    /// A sampler that goes on after `tokens`, of which the first `prompt_len` are the prompt.
    ///
    /// `params` must be valid. Asks the vocabulary about every token if end tokens are ignored, about the tokens in
    /// reach if DRY is on, and keeps it only in this case.
    pub fn new(params: &SamplingParams, tokens: &[Token], prompt_len: usize, vocabulary: &Arc<dyn Vocabulary>) -> Self {
        Self {
            temperature: params.temperature,
            top_k: params.top_k as usize,
            top_p: params.top_p,
            min_p: params.min_p,
            typical_p: params.typical_p,
            xtc_probability: params.xtc_probability,
            xtc_threshold: params.xtc_threshold,
            seed: params.seed.unwrap_or(0),
            index: tokens.len().saturating_sub(prompt_len) as u64,
            bias: params.logit_bias.clone(),
            banned: if params.ignore_eos { end_tokens(vocabulary.as_ref()) } else { Vec::new() },
            penalties: Penalties::new(params, tokens),
            dry: Dry::new(&params.dry, tokens, vocabulary),
        }
    }

    /// Chooses the next token and takes note of it: call it once for each token.
    ///
    /// `logits` has a value for each token of the vocabulary and is not empty. NaN counts as negative infinity, which is
    /// never drawn while there is anything else. If there is nothing else, the bans of `logit_bias` give way and the
    /// greatest of the given logits wins, the lowest id if that does not exist either; end tokens that are ignored stay
    /// excluded unless the vocabulary has no others. The result is always an index of `logits`.
    ///
    /// At temperature 0 the greatest logit after bias and penalties wins, of equals the lowest id.
    pub fn sample(&mut self, logits: &[f32], scratch: &mut Scratch) -> Token {
        let Scratch { row, dry, work } = scratch;
        let row = if self.is_plain() {
            logits
        } else {
            self.adjust(logits, row, dry);
            row.as_slice()
        };
        let token = self.choose(row, work).unwrap_or_else(|| least_bad(logits, &self.banned));
        self.accept(token);
        token
    }

    fn accept(&mut self, token: Token) {
        self.index += 1;
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token);
        }
        if let Some(dry) = &mut self.dry {
            dry.accept(token);
        }
    }

    /// Whether the logits are used as they are.
    fn is_plain(&self) -> bool {
        self.bias.is_empty() && self.banned.is_empty() && self.penalties.is_none() && self.dry.is_none()
    }

    /// Copies the logits and changes those of the tokens concerned.
    fn adjust(&self, logits: &[f32], row: &mut Vec<f32>, scratch: &mut DryScratch) {
        row.clear();
        row.extend_from_slice(logits);
        for &(token, bias) in &*self.bias {
            if let Some(logit) = row.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if let Some(penalties) = &self.penalties {
            penalties.apply(row);
        }
        if let Some(dry) = &self.dry {
            dry.apply(row, scratch);
        }
        for &token in &self.banned {
            if let Some(logit) = row.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// `None` if no token has a probability.
    fn choose(&self, row: &[f32], work: &mut Work) -> Option<Token> {
        let greatest = work.selection.scan(row);
        if greatest == f32::NEG_INFINITY {
            return None;
        }
        if self.temperature <= 0.0 {
            return work.selection.first_at(row, greatest);
        }
        let (peak, number) = (greatest.min(f32::MAX), draw::uniform(self.seed, self.index, Stream::Token));
        let xtc = self.xtc_acts();
        if !xtc && self.keeps_all(row.len()) {
            return draw::from_row(row, peak, self.temperature, number, &mut work.sums);
        }
        let mass = self.gather(row, peak, work);
        let candidates = &mut work.selection.found;
        self.narrow(candidates, peak, mass);
        if xtc {
            truncate::xtc(candidates, self.xtc_threshold);
        }
        draw::from_candidates(candidates, self.temperature, number)
    }

    fn xtc_acts(&self) -> bool {
        self.xtc_threshold <= XTC_OFF
            && draw::uniform(self.seed, self.index, Stream::Xtc) < f64::from(self.xtc_probability)
    }

    fn limits_top(&self, n_vocab: usize) -> bool {
        (1..n_vocab).contains(&self.top_k)
    }

    fn keeps_all(&self, n_vocab: usize) -> bool {
        !self.limits_top(n_vocab) && self.typical_p >= 1.0 && self.top_p >= 1.0 && self.min_p <= 0.0
    }

    /// Finds the candidates and weighs them; returns the weight of all tokens that top-k leaves, of which those that
    /// top-p and min-p are sure to drop are no candidates.
    fn gather(&self, row: &[f32], peak: f32, work: &mut Work) -> f64 {
        let Work { selection, sums } = work;
        if self.limits_top(row.len()) {
            selection.top(row, self.top_k);
        } else if self.typical_p < 1.0 {
            selection.at_least(row, f32::MIN);
        } else if self.top_p < 1.0 {
            let mass = softmax::block_sums(row, peak, 1.0, sums);
            self.gather_share(row, peak, mass, selection);
            return mass;
        } else {
            selection.at_least(row, truncate::min_p_floor(peak, self.min_p));
        }
        truncate::weigh(&mut selection.found, peak, 1.0)
    }

    /// Finds and weighs candidates that include all that top-p and min-p keep, by looking deeper until they suffice.
    fn gather_share(&self, row: &[f32], peak: f32, mass: f64, selection: &mut Selection) {
        let least = truncate::min_p_floor(peak, self.min_p).max(self.top_p_floor(row.len(), peak, mass));
        let (enough, mut depth) = (f64::from(self.top_p) * mass, FIRST_DEPTH);
        loop {
            let floor = (peak - depth).max(least);
            selection.at_least(row, floor);
            if truncate::weigh(&mut selection.found, peak, 1.0) >= enough || floor <= least {
                return;
            }
            depth *= 2.0;
        }
    }

    /// A logit below which top-p keeps nothing: all tokens that are less likely than `(1 - p) / n_vocab` together make
    /// up less than `1 - p`. Half of that, to be on the safe side of rounding.
    fn top_p_floor(&self, n_vocab: usize, peak: f32, mass: f64) -> f32 {
        let share = (1.0 - f64::from(self.top_p)) / (2.0 * n_vocab as f64);
        (f64::from(peak) + (share * mass).ln()) as f32
    }

    fn narrow(&self, candidates: &mut Vec<Candidate>, peak: f32, mut mass: f64) {
        if self.typical_p < 1.0 {
            truncate::typical(candidates, self.typical_p, peak, mass);
            let peak = truncate::peak(candidates);
            mass = truncate::weigh(candidates, peak, 1.0);
        }
        if self.top_p < 1.0 {
            truncate::top_p(candidates, self.top_p, mass);
        }
        if self.min_p > 0.0 {
            truncate::min_p(candidates, self.min_p);
        }
    }
}

fn end_tokens(vocabulary: &dyn Vocabulary) -> Vec<Token> {
    (0..vocabulary.n_tokens() as Token).filter(|&token| vocabulary.is_end(token)).collect()
}

/// What is drawn when nothing can be.
#[cold]
fn least_bad(logits: &[f32], banned: &[Token]) -> Token {
    let mut best = None;
    for (token, &logit) in (0..).zip(logits) {
        let logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        if banned.binary_search(&token).is_err() && best.is_none_or(|(_, greatest)| logit > greatest) {
            best = Some((token, logit));
        }
    }
    best.map_or(0, |(token, _)| token)
}
