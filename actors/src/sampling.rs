//! What a client may ask of the sampler, with every default and range in one place.

use serde::{Deserialize, Serialize};

use crate::engine::protocol::Token;

#[cfg(test)]
mod tests;

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
    /// How many of the last tokens, prompt included, the three penalties look at; 0 is off, -1 is all. Default 64.
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
    /// Seed of the draws; the draw of token `i` depends on `(seed, i)` alone. `None`: the session picks one.
    pub seed: Option<u64>,
    /// Added to the logit of a token before anything else; `f32::NEG_INFINITY` bans it. -100 to 100.
    pub logit_bias: Vec<(Token, f32)>,
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
    /// How many of the last tokens are scanned; 0 is off, -1 is all. Default 64.
    pub penalty_last_n: i32,
    /// A repetition never reaches across these texts. Default newline, colon, quote and asterisk.
    pub sequence_breakers: Vec<String>,
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
            logit_bias: Vec::new(),
            ignore_eos: false,
        }
    }
}
