//! The tokens of one step. Its vectors are reused from step to step.

use crate::engine::protocol::{SequenceId, Token};

/// Tokens to decode together; rows are numbered by their place.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
}

/// One token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The token; in range of the vocabulary.
    pub token: Token,
    /// Its position in the sequence.
    pub position: u32,
    /// Its sequence.
    pub sequence: SequenceId,
    /// Whether its logits are wanted.
    pub output: bool,
}

impl Batch {
    /// An empty batch with room for `capacity` tokens.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            rows: Vec::with_capacity(capacity),
        }
    }

    /// Forgets all rows, keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// Adds a token and returns its row number.
    pub fn push(&mut self, row: Row) -> usize {
        self.rows.push(row);
        self.rows.len() - 1
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is nothing to decode.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tokens, by row.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}
