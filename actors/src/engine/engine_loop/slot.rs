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
    /// Where that KV is.
    pub(crate) kv: Kv,
    /// The step at which it was last run on or copied from.
    pub(crate) used_at: u64,
    /// Whose tokens they are.
    pub(crate) tenant: TenantId,
    /// Somebody has come back to them.
    pub(crate) proven: bool,
    /// The request, if one runs.
    pub(crate) run: Option<Run>,
}

/// Where the KV of a sequence is. With a run always in cells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Kv {
    /// In the context.
    #[default]
    Cells,
    /// In the context, and the model cannot give its bytes.
    Pinned,
    /// As bytes.
    Memory(Vec<u8>),
    /// In the context, and as bytes that are still right.
    Both(Vec<u8>),
}

impl Kv {
    /// Whether none of it is in the context.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Whether it is in ordinary memory, too or alone.
    pub(crate) fn has_bytes(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::Both(_))
    }
}

/// A running request.
pub(crate) struct Run {
    pub(crate) request: RequestId,
    pub(crate) prompt_len: usize,
    /// Tokens that had KV when it began.
    pub(crate) reused: usize,
    pub(crate) admitted_at: Instant,
    pub(crate) sampler: Sampler,
    /// It came with tokens that had been emitted before: it was cut off, or preempted.
    pub(crate) resumed: bool,
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

    /// Whether its KV is in the context.
    pub(crate) fn in_cells(&self) -> bool {
        !self.kv.is_away()
    }

    /// Empties it; the model's KV is somebody else's to free.
    pub(crate) fn forget(&mut self) {
        self.tokens.clear();
        self.n_cached = 0;
        self.kv = Kv::Cells;
        self.proven = false;
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
