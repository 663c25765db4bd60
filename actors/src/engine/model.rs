//! The two traits an engine implements: `Model` on the loop thread, `Vocabulary` on any thread.

use std::sync::Arc;

use crate::engine::batch::Batch;
use crate::engine::progress::Progress;
use crate::engine::protocol::{AddSpecial, ModelInfo, SequenceId, TextPart, Token};

/// What may be copied beside running sequences, or read from a file, before a step, so that none comes late: bytes.
pub(crate) const BUSY_BYTES: usize = 16 << 20;

/// A loaded model with its context. Blocking; lives on one thread.
pub trait Model {
    /// Facts about it; constant.
    fn info(&self) -> &ModelInfo;

    /// Counts what it gets done inside a `decode`, so that a long one is not taken for a hung one.
    fn watch(&mut self, _progress: &Progress) {}

    /// Its vocabulary; may be used from any thread as long as it is held.
    fn vocabulary(&self) -> Arc<dyn Vocabulary>;

    /// Computes the batch. Positions of each sequence must continue where its KV ends.
    ///
    /// # Errors
    /// `NoCells` leaves everything as it was; after `Failed` the engine must be thrown away.
    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError>;

    /// Nobody computes a sequence any more, until it is in a batch again: others may have its place.
    fn rest(&mut self, sequence: SequenceId);

    /// Logits of an output row of the last `decode`, by the row's place among the batch's tokens; `n_vocab` values.
    fn logits(&self, row: usize) -> &[f32];

    /// Removes the KV of a sequence from position `from` on. 0 always works; otherwise false means: cannot be
    /// trimmed there, nothing sensible is left, empty it.
    fn truncate(&mut self, sequence: SequenceId, from: u32) -> bool;

    /// What the KV of a sequence depends on beside its tokens: weights, parameters of the context, build.
    fn fingerprint(&self) -> String;

    /// The state of a sequence in bytes; `None` if it cannot be had.
    fn save(&mut self, sequence: SequenceId) -> Option<Vec<u8>>;

    /// Fills an empty sequence with a state of so many tokens. False: not possible, it is empty.
    fn restore(&mut self, sequence: SequenceId, state: &[u8], tokens: u32) -> bool;

    /// Copies the KV of the first `tokens` tokens of `from` into the empty sequence `to`. False: not possible, as always in
    /// a split context, and `to` is empty.
    fn copy(&mut self, from: SequenceId, to: SequenceId, tokens: u32) -> bool;
}

/// Why a batch was not computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No free cells for the batch; nothing was changed.
    #[error("no free cells for the batch")]
    NoCells,
    /// Anything else; the context is not to be trusted any more.
    #[error("decode failed: {0}")]
    Failed(String),
}

/// Text to tokens and back.
pub trait Vocabulary: Send + Sync {
    /// Number of tokens; ids are `0..len`.
    fn n_tokens(&self) -> u32;

    /// Tokenizes the parts one after the other.
    ///
    /// # Errors
    /// A message for the client.
    fn tokenize(&self, parts: &[TextPart], special: AddSpecial) -> Result<Vec<Token>, String>;

    /// Appends the bytes of a token. `token` must be in range. Control tokens give nothing unless asked for.
    fn piece(&self, token: Token, control: ControlTokens, out: &mut Vec<u8>);

    /// Whether drawing the token ends the generation. `token` must be in range.
    fn is_end(&self, token: Token) -> bool;
}

/// What becomes of control tokens in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlTokens {
    /// They are invisible.
    Hide,
    /// They show their text.
    Show,
}
