//! One KV sequence: the tokens it holds and the request that runs on it.

use std::time::Instant;

use crate::engine::protocol::{EndReason, RequestId, Token};
use crate::engine::sampler::Sampler;
use crate::request::TenantId;

/// A sequence of the context.
#[derive(Default)]
pub(crate) struct Slot {
    /// Prompt and emitted tokens of the run; without a run, the tokens with KV.
    pub(crate) tokens: Vec<Token>,
    /// The first so many of `tokens` have KV.
    pub(crate) n_cached: usize,
    /// Whose tokens they are.
    pub(crate) tenant: TenantId,
    /// Somebody has come back to them.
    pub(crate) proven: bool,
    /// The request, if one runs.
    pub(crate) run: Option<Run>,
}

/// A running request.
pub(crate) struct Run {
    pub(crate) request: RequestId,
    pub(crate) prompt_len: usize,
    /// Tokens that had KV when it began.
    pub(crate) reused: usize,
    pub(crate) admitted_at: Instant,
    pub(crate) sampler: Sampler,
    /// Tokens emitted for this `Admit`.
    pub(crate) emitted: u32,
    pub(crate) max_new_tokens: u32,
    pub(crate) logprobs: Option<u32>,
    pub(crate) prompt_logprobs: Option<u32>,
    pub(crate) rank: u64,
    /// Waits for cells.
    pub(crate) held: bool,
    /// Set by sampling, acted on at the end of the step.
    pub(crate) finished: Option<EndReason>,
}

impl Slot {
    /// The tokens with KV.
    pub(crate) fn cached(&self) -> &[Token] {
        &self.tokens[..self.n_cached]
    }

    /// Tokens without KV.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.n_cached
    }

    /// Ends the run, if any; what has KV stays.
    pub(crate) fn stop(&mut self) {
        self.run = None;
        self.tokens.truncate(self.n_cached);
    }
}

/// Length of the common prefix.
pub(crate) fn common_prefix(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
