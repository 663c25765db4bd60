//! What a client may ask of the sampler, with every default and range in one place.

mod range;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::protocol::Token;

pub use range::{Low, Range};

/// How the next token is drawn. Field names follow llama.cpp and the OpenAI API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy. 0 to 2, default 0.8.
    pub temperature: f32,
    /// Keeps the `k` likeliest tokens; 0 keeps all. Default 40.
    pub top_k: u32,
    /// Keeps the likeliest tokens whose probabilities sum to this. Over 0 up to 1, default 0.95.
    pub top_p: f32,
    /// Drops tokens less likely than this share of the likeliest. 0 to 1, default 0.05.
    pub min_p: f32,
    /// Locally typical sampling; 1 is off. Over 0 up to 1, default 1. Meister et al., 2022.
    pub typical_p: f32,
    /// Divides (or multiplies, when negative) the logits of recent tokens; 1 is off. Over 0 up to 2, default 1.
    pub repeat_penalty: f32,
    /// How many of the last tokens, prompt included, the three penalties look at; 0 is off, -1 is all. -1 or more, default 64.
    pub repeat_last_n: i32,
    /// Subtracted once per earlier occurrence. -2 to 2, default 0.
    pub frequency_penalty: f32,
    /// Subtracted if the token occurred. -2 to 2, default 0.
    pub presence_penalty: f32,
    /// DRY repetition penalty.
    pub dry: DryParams,
    /// Chance that XTC removes the likeliest tokens above the threshold. 0 to 1, default 0.
    pub xtc_probability: f32,
    /// A token must be at least this likely to be removed by XTC; over 0.5 is off. 0 to 1, default 0.1.
    pub xtc_threshold: f32,
    /// Seed of the draws; the draw of token `i` depends on `(seed, i)` alone. `None`: the session picks one; a sampler
    /// that is given none takes 0.
    pub seed: Option<u64>,
    /// Added to the logit of a token before anything else; `f32::NEG_INFINITY` bans it, -100 does so in practice.
    /// -100 to 100, at most 1024 entries. Several entries of one token add up.
    pub logit_bias: Arc<[(Token, f32)]>,
    /// End tokens cannot be drawn. Default false.
    pub ignore_eos: bool,
}

/// DRY ("don't repeat yourself") parameters, as in llama.cpp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DryParams {
    /// 0 is off. 0 to 100, default 0.
    pub multiplier: f32,
    /// Base of the exponential growth. 1 to 10, default 1.75.
    pub base: f32,
    /// Repetitions up to this length go unpunished. Default 2.
    pub allowed_length: u32,
    /// How many of the last tokens are scanned; 0 is off, -1 is all. -1 or more, default 64.
    pub penalty_last_n: i32,
    /// A repetition never reaches across these texts. At most 64 texts of 1 to 40 bytes; default newline, colon, quote
    /// and asterisk.
    pub sequence_breakers: Vec<String>,
}

/// A value that the sampler does not take: a client's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParamError {
    /// The field, by the name clients know.
    pub param: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl SamplingParams {
    /// Range of `temperature`.
    pub const TEMPERATURE: Range = Range::from("temperature", 0.0, 2.0);
    /// Range of `top_p`.
    pub const TOP_P: Range = Range::over("top_p", 0.0, 1.0);
    /// Range of `min_p`.
    pub const MIN_P: Range = Range::from("min_p", 0.0, 1.0);
    /// Range of `typical_p`.
    pub const TYPICAL_P: Range = Range::over("typical_p", 0.0, 1.0);
    /// Range of `repeat_penalty`.
    pub const REPEAT_PENALTY: Range = Range::over("repeat_penalty", 0.0, 2.0);
    /// Range of `frequency_penalty`.
    pub const FREQUENCY_PENALTY: Range = Range::from("frequency_penalty", -2.0, 2.0);
    /// Range of `presence_penalty`.
    pub const PRESENCE_PENALTY: Range = Range::from("presence_penalty", -2.0, 2.0);
    /// Range of `xtc_probability`.
    pub const XTC_PROBABILITY: Range = Range::from("xtc_probability", 0.0, 1.0);
    /// Range of `xtc_threshold`.
    pub const XTC_THRESHOLD: Range = Range::from("xtc_threshold", 0.0, 1.0);
    /// Range of `dry.multiplier`.
    pub const DRY_MULTIPLIER: Range = Range::from("dry_multiplier", 0.0, 100.0);
    /// Range of `dry.base`.
    pub const DRY_BASE: Range = Range::from("dry_base", 1.0, 10.0);
    /// Range of the values of `logit_bias`.
    pub const LOGIT_BIAS: Range = Range::from("logit_bias", -100.0, 100.0);
    /// Most entries of `logit_bias`: they are applied to every token that is drawn, in the time of all who run.
    pub const LOGIT_BIASES: usize = 1024;
    /// Least `repeat_last_n` and `dry.penalty_last_n`: all tokens.
    pub const LAST_N_ALL: i32 = -1;
    /// Most texts in `dry.sequence_breakers`.
    pub const DRY_BREAKERS: usize = 64;
    /// Most bytes of one of them.
    pub const DRY_BREAKER_BYTES: usize = 40;

    /// Checks every field against its range, and the tokens of `logit_bias` against the vocabulary if that is known.
    ///
    /// # Errors
    /// The first field that is not a number or out of its range.
    pub fn validate(&self, n_vocab: Option<u32>) -> Result<(), ParamError> {
        for (range, value) in self.ranged() {
            range.check(value)?;
        }
        check_last_n("repeat_last_n", self.repeat_last_n)?;
        check_last_n("dry_penalty_last_n", self.dry.penalty_last_n)?;
        self.dry.check_breakers()?;
        self.check_bias(n_vocab)
    }

    /// Every number with a range, and its value here.
    pub fn ranged(&self) -> [(Range, f32); 11] {
        [
            (Self::TEMPERATURE, self.temperature),
            (Self::TOP_P, self.top_p),
            (Self::MIN_P, self.min_p),
            (Self::TYPICAL_P, self.typical_p),
            (Self::REPEAT_PENALTY, self.repeat_penalty),
            (Self::FREQUENCY_PENALTY, self.frequency_penalty),
            (Self::PRESENCE_PENALTY, self.presence_penalty),
            (Self::XTC_PROBABILITY, self.xtc_probability),
            (Self::XTC_THRESHOLD, self.xtc_threshold),
            (Self::DRY_MULTIPLIER, self.dry.multiplier),
            (Self::DRY_BASE, self.dry.base),
        ]
    }

    fn check_bias(&self, n_vocab: Option<u32>) -> Result<(), ParamError> {
        let (count, most) = (self.logit_bias.len(), Self::LOGIT_BIASES);
        if count > most {
            let message = format!("logit_bias takes at most {most} tokens, got {count}");
            return Err(ParamError { param: Self::LOGIT_BIAS.param, message });
        }
        let end = n_vocab.map_or(i64::from(Token::MAX) + 1, i64::from);
        for &(token, bias) in &*self.logit_bias {
            if !(0..end).contains(&i64::from(token)) {
                let message = format!("logit_bias names token {token}, but tokens are 0 to {}", end - 1);
                return Err(ParamError { param: Self::LOGIT_BIAS.param, message });
            }
            if bias != f32::NEG_INFINITY {
                Self::LOGIT_BIAS.check(bias)?;
            }
        }
        Ok(())
    }
}

impl DryParams {
    fn check_breakers(&self) -> Result<(), ParamError> {
        let (most, bytes) = (SamplingParams::DRY_BREAKERS, SamplingParams::DRY_BREAKER_BYTES);
        let fits = |text: &String| (1..=bytes).contains(&text.len());
        if self.sequence_breakers.len() <= most && self.sequence_breakers.iter().all(fits) {
            return Ok(());
        }
        let message = format!("dry_sequence_breakers must be at most {most} texts of 1 to {bytes} bytes");
        Err(ParamError { param: "dry_sequence_breakers", message })
    }
}

fn check_last_n(param: &'static str, value: i32) -> Result<(), ParamError> {
    if value >= SamplingParams::LAST_N_ALL {
        return Ok(());
    }
    let message = format!("{param} must be {} or more, not {value}", SamplingParams::LAST_N_ALL);
    Err(ParamError { param, message })
}

impl Default for DryParams {
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            penalty_last_n: 64,
            sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        }
    }
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry: DryParams::default(),
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            seed: None,
            logit_bias: Arc::default(),
            ignore_eos: false,
        }
    }
}
