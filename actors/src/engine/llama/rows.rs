//! The arrays behind a `llama_batch`, allocated once, and which rows of the last batch have logits.

use llama_cpp_sys_2 as sys;

use crate::engine::batch::Batch;

/// Room for the tokens of one step.
#[derive(Debug)]
pub(super) struct Rows {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    /// One pointer per row into `sequences`.
    sequence_ptrs: Vec<*mut sys::llama_seq_id>,
    sequence_counts: Vec<i32>,
    outputs: Vec<i8>,
    /// Rows of the last batch that was computed; 0 if it failed.
    len: usize,
}

impl Rows {
    /// Room for `capacity` tokens.
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self {
            tokens: vec![0; capacity],
            positions: vec![0; capacity],
            sequences: vec![0; capacity],
            sequence_ptrs: vec![std::ptr::null_mut(); capacity],
            sequence_counts: vec![1; capacity],
            outputs: vec![0; capacity],
            len: 0,
        }
    }

    /// Most tokens.
    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    /// No row has logits any more.
    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    /// The row as llama.cpp numbers it, if it is an output of the last batch.
    pub(super) fn output_index(&self, row: usize) -> Option<i32> {
        let is_output = row < self.len && self.outputs[row] != 0;
        is_output.then(|| i32::try_from(row).ok()).flatten()
    }

    /// Takes the rows of a batch over. What is returned points into `self` and is good until the next call.
    ///
    /// # Errors
    /// Says which row llama.cpp would not survive.
    pub(super) fn fill(&mut self, batch: &Batch, n_vocab: u32, n_seq_max: u32) -> Result<sys::llama_batch, String> {
        self.len = 0;
        if batch.len() > self.tokens.len() {
            return Err(format!("a batch of {} tokens, n_batch is {}", batch.len(), self.tokens.len()));
        }
        for (i, row) in batch.rows().iter().enumerate() {
            let position = i32::try_from(row.position).map_err(|_| format!("position {} of row {i}", row.position))?;
            if u32::try_from(row.token).map_or(true, |token| token >= n_vocab) {
                return Err(format!("token {} of row {i} is not in the vocabulary", row.token));
            }
            if row.sequence >= n_seq_max {
                return Err(format!("sequence {} of row {i}, n_seq_max is {n_seq_max}", row.sequence));
            }
            self.tokens[i] = row.token;
            self.positions[i] = position;
            self.sequences[i] = i32::try_from(row.sequence).map_err(|_| format!("sequence of row {i}"))?;
            self.outputs[i] = i8::from(row.output);
        }
        self.len = batch.len();
        Ok(self.as_batch())
    }

    fn as_batch(&mut self) -> sys::llama_batch {
        // Taken anew each time: writing through `sequences`, as `fill` does, ends the validity of older pointers.
        for (ptr, sequence) in self.sequence_ptrs.iter_mut().zip(&mut self.sequences).take(self.len) {
            *ptr = sequence;
        }
        sys::llama_batch {
            n_tokens: i32::try_from(self.len).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_ptrs.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::Row;

    fn batch(rows: &[Row]) -> Batch {
        let mut batch = Batch::with_capacity(rows.len());
        for row in rows {
            batch.push(*row);
        }
        batch
    }

    const ROW: Row = Row { token: 5, position: 0, sequence: 1, output: true };

    #[test]
    fn rows_that_llama_would_not_survive_are_refused() {
        let mut rows = Rows::new(2);
        let bad = [
            batch(&[ROW, ROW, ROW]),
            batch(&[Row { token: -1, ..ROW }]),
            batch(&[Row { token: 10, ..ROW }]),
            batch(&[Row { sequence: 4, ..ROW }]),
            batch(&[Row { position: u32::MAX, ..ROW }]),
        ];
        for batch in &bad {
            assert!(rows.fill(batch, 10, 4).is_err(), "{batch:?}");
            assert_eq!(rows.output_index(0), None);
        }
    }

    #[test]
    fn only_output_rows_of_the_last_batch_have_logits() {
        let mut rows = Rows::new(4);
        rows.fill(&batch(&[ROW, Row { output: false, ..ROW }, ROW]), 10, 4).expect("good rows");
        let indices: Vec<_> = (0..4).map(|row| rows.output_index(row)).collect();
        assert_eq!(indices, [Some(0), None, Some(2), None]);
        rows.fill(&batch(&[ROW]), 10, 4).expect("good rows");
        assert_eq!(rows.output_index(2), None);
        rows.forget();
        assert_eq!(rows.output_index(0), None);
    }
}
