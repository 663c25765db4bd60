//! What an answer cost: `usage` as OpenAI has it, `timings` as llama.cpp has them, summed over its sequences.

use std::time::Duration;

use cllm_actors::ledger::Ledger;
use cllm_actors::request::{Finished, Timings, Usage};
use serde::Serialize;

#[cfg(test)]
mod tests;

/// Token counts of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct UsageObject {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

/// Times of an answer. Of several sequences, counts are sums and times those of the slowest, since they run at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct TimingsObject {
    cache_n: u32,
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
    queue_ms: f64,
    /// How often a sequence went on after a restart; has a place of its own in answers.
    #[serde(skip)]
    resumed: u32,
}

impl TimingsObject {
    /// How often the answer went on after a restart; `None`, and left out of answers, if nothing was restarted.
    pub(crate) fn resumed(&self) -> Option<u32> {
        Some(self.resumed).filter(|resumed| *resumed > 0)
    }
}

/// The ends of an answer's sequences, prompt by prompt, choice by choice.
#[derive(Debug)]
pub(crate) struct Bill<'a> {
    sequences: Vec<&'a Finished>,
    choices: usize,
}

impl<'a> Bill<'a> {
    /// The bill of these sequences, `choices` (at least 1) for each prompt.
    pub(crate) fn new(sequences: impl IntoIterator<Item = &'a Finished>, choices: u32) -> Self {
        Self { sequences: sequences.into_iter().collect(), choices: choices.max(1) as usize }
    }

    /// Counts in all. A prompt counts once, however many choices it has; what its first reader found cached is cached.
    pub(crate) fn usage(&self) -> Usage {
        let usages: Vec<Usage> = self.sequences.iter().map(|end| end.usage).collect();
        total(&usages, self.choices)
    }

    /// The slowest sequence's times, one by one.
    pub(crate) fn slowest(&self) -> Timings {
        slowest(self.sequences.iter().map(|end| end.timings))
    }

    /// The object for `usage`.
    pub(crate) fn usage_object(&self) -> UsageObject {
        let usage = self.usage();
        UsageObject {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
        }
    }

    /// The object for `timings`. The decode rate leaves each sequence's first token out: its time is prefill.
    pub(crate) fn timings_object(&self) -> TimingsObject {
        let count = |of: fn(&Usage) -> u32| self.sequences.iter().map(|end| of(&end.usage)).sum::<u32>();
        let prefilled = count(|usage| usage.prompt_tokens.saturating_sub(usage.cached_tokens));
        let timed = count(|usage| usage.completion_tokens.saturating_sub(1));
        let times = self.slowest();
        TimingsObject {
            cache_n: count(|usage| usage.cached_tokens),
            prompt_n: prefilled,
            prompt_ms: milliseconds(times.prefill),
            prompt_per_token_ms: ratio(milliseconds(times.prefill), f64::from(prefilled)),
            prompt_per_second: ratio(f64::from(prefilled), times.prefill.as_secs_f64()),
            predicted_n: count(|usage| usage.completion_tokens),
            predicted_ms: milliseconds(times.decode),
            predicted_per_token_ms: ratio(milliseconds(times.decode), f64::from(timed)),
            predicted_per_second: ratio(f64::from(timed), times.decode.as_secs_f64()),
            queue_ms: milliseconds(times.queue),
            resumed: self.sequences.iter().map(|end| end.resumed).sum(),
        }
    }
}

/// The running total of sequences that may never send a bill, `choices` (at least 1) for each prompt.
pub(crate) fn so_far(sequences: &[Ledger], choices: u32) -> (Usage, Timings) {
    let usages: Vec<Usage> = sequences.iter().map(Ledger::usage).collect();
    (total(&usages, choices.max(1) as usize), slowest(sequences.iter().map(Ledger::timings)))
}

/// The one rule for several sequences: see [`Bill::usage`].
fn total(usages: &[Usage], choices: usize) -> Usage {
    let mut total = Usage::default();
    for choices in usages.chunks(choices) {
        total.prompt_tokens += choices.iter().map(|usage| usage.prompt_tokens).max().unwrap_or(0);
        total.cached_tokens += choices.iter().map(|usage| usage.cached_tokens).min().unwrap_or(0);
        total.completion_tokens += choices.iter().map(|usage| usage.completion_tokens).sum::<u32>();
    }
    total
}

fn slowest(timings: impl Iterator<Item = Timings>) -> Timings {
    timings.fold(Timings::default(), |slowest, timings| Timings {
        queue: slowest.queue.max(timings.queue),
        prefill: slowest.prefill.max(timings.prefill),
        decode: slowest.decode.max(timings.decode),
    })
}

/// Milliseconds, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// 0 where nothing was counted: JSON has no infinity.
fn ratio(of: f64, by: f64) -> f64 {
    if by > 0.0 { of / by } else { 0.0 }
}
