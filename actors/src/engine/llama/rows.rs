//! The arrays behind a `llama_batch`, allocated once, and which rows of the last batch have logits.

use std::ops::Range;

use llama_cpp_sys_2 as sys;

use crate::engine::batch::{Batch, Row};
use crate::engine::protocol::SequenceId;

/// Where the rows of a batch go.
pub(super) struct Layout<'a> {
    /// Where a sequence lies, as llama.cpp numbers it; `None`: there is no such one.
    pub(super) stream: &'a dyn Fn(SequenceId) -> Option<i32>,
    /// Tokens that lie there.
    pub(super) len: &'a dyn Fn(i32) -> u32,
    /// So many rows stay before all others.
    pub(super) leading: usize,
    /// Whether those of lower streams come first.
    pub(super) sorted: bool,
}

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
    /// The batch's row at each place of the arrays, and the place of each row.
    order: Vec<usize>,
    places: Vec<usize>,
    /// Where each sequence goes on, for those that the batch has touched.
    next_positions: Vec<Option<u32>>,
    /// Rows of the last batch; 0 if it failed.
    len: usize,
    /// The places that llama.cpp has computed last.
    computed: Range<usize>,
}

impl Rows {
    /// Room for `capacity` tokens of `n_seq_max` sequences.
    pub(super) fn new(capacity: u32, n_seq_max: u32) -> Self {
        let capacity = capacity as usize;
        Self {
            tokens: vec![0; capacity],
            positions: vec![0; capacity],
            sequences: vec![0; capacity],
            sequence_ptrs: vec![std::ptr::null_mut(); capacity],
            sequence_counts: vec![1; capacity],
            outputs: vec![0; capacity],
            order: Vec::with_capacity(capacity),
            places: vec![0; capacity],
            next_positions: vec![None; n_seq_max as usize],
            len: 0,
            computed: 0..0,
        }
    }

    /// Most tokens.
    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    /// No row has logits any more.
    pub(super) fn forget(&mut self) {
        self.len = 0;
        self.computed = 0..0;
    }

    /// The row as llama.cpp numbers it, if it is an output of what was computed last.
    pub(super) fn output_index(&self, row: usize) -> Option<i32> {
        let place = *self.places.get(row).filter(|_| row < self.len)?;
        let is_output = self.computed.contains(&place) && self.outputs[place] != 0;
        is_output.then(|| i32::try_from(place - self.computed.start).ok()).flatten()
    }

    /// The outputs of what was computed last, as rows of the batch.
    pub(super) fn outputs(&self) -> impl Iterator<Item = usize> {
        self.computed.clone().filter(|place| self.outputs[*place] != 0).map(|place| self.order[place])
    }

    /// Takes the rows of a batch over.
    ///
    /// # Errors
    /// Says which row llama.cpp would not survive, or would compute without the context before it.
    pub(super) fn fill(&mut self, batch: &Batch, n_vocab: u32, layout: &Layout<'_>) -> Result<(), String> {
        self.forget();
        self.next_positions.fill(None);
        if batch.len() > self.tokens.len() {
            return Err(format!("a batch of {} tokens, n_batch is {}", batch.len(), self.tokens.len()));
        }
        self.arrange(batch.rows(), layout);
        for (i, row) in batch.rows().iter().enumerate() {
            let position = i32::try_from(row.position).map_err(|_| format!("position {} of row {i}", row.position))?;
            if u32::try_from(row.token).map_or(true, |token| token >= n_vocab) {
                return Err(format!("token {} of row {i} is not in the vocabulary", row.token));
            }
            let n_seq_max = self.next_positions.len();
            let next = self.next_positions.get_mut(row.sequence as usize);
            let (Some(next), Some(stream)) = (next, (layout.stream)(row.sequence)) else {
                return Err(format!("sequence {} of row {i}, of {n_seq_max}, is none or has no buffer", row.sequence));
            };
            let expected = next.unwrap_or_else(|| (layout.len)(stream));
            if row.position != expected {
                return Err(format!("position {position} of row {i}, its sequence goes on at {expected}"));
            }
            *next = Some(expected + 1);
            let place = self.places[i];
            self.tokens[place] = row.token;
            self.positions[place] = position;
            self.sequences[place] = stream;
            self.outputs[place] = i8::from(row.output);
        }
        self.len = batch.len();
        Ok(())
    }

    fn arrange(&mut self, rows: &[Row], layout: &Layout<'_>) {
        self.order.clear();
        self.order.extend(0..rows.len());
        if layout.sorted {
            let leading = layout.leading.min(rows.len());
            // By row as well: nothing is allocated for a sort that need not be stable.
            let key = |row: &usize| ((layout.stream)(rows[*row].sequence), *row);
            self.order[..leading].sort_unstable_by_key(key);
            self.order[leading..].sort_unstable_by_key(key);
        }
        for (place, row) in self.order.iter().enumerate() {
            self.places[*row] = place;
        }
    }

    /// Some of the places, to be computed now. What is returned points into `self` and is good until the next call of
    /// anything that changes it.
    pub(super) fn part(&mut self, rows: Range<usize>) -> sys::llama_batch {
        let rows = rows.start.min(self.len)..rows.end.min(self.len);
        // Taken anew each time: writing through `sequences`, as `fill` does, ends the validity of older pointers.
        let sequences = &mut self.sequences[rows.clone()];
        for (ptr, sequence) in self.sequence_ptrs[rows.clone()].iter_mut().zip(sequences) {
            *ptr = sequence;
        }
        self.computed = rows.clone();
        sys::llama_batch {
            n_tokens: i32::try_from(rows.len()).unwrap_or(i32::MAX),
            token: self.tokens[rows.clone()].as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions[rows.clone()].as_mut_ptr(),
            n_seq_id: self.sequence_counts[rows.clone()].as_mut_ptr(),
            seq_id: self.sequence_ptrs[rows.clone()].as_mut_ptr(),
            logits: self.outputs[rows].as_mut_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::Token;

    fn fill(rows: &mut Rows, batch: &Batch, len: u32) -> Result<(), String> {
        let stream = |sequence: SequenceId| i32::try_from(sequence).ok();
        rows.fill(batch, 10, &Layout { stream: &stream, len: &|_| len, leading: 0, sorted: false })
    }

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
        let mut rows = Rows::new(2, 4);
        let bad = [
            batch(&[ROW, ROW, ROW]),
            batch(&[Row { token: -1, ..ROW }]),
            batch(&[Row { token: 10, ..ROW }]),
            batch(&[Row { sequence: 4, ..ROW }]),
            batch(&[Row { position: u32::MAX, ..ROW }]),
        ];
        for batch in &bad {
            assert!(fill(&mut rows, batch, 0).is_err(), "{batch:?}");
            assert_eq!(rows.output_index(0), None);
        }
    }

    #[test]
    fn a_gap_or_an_overlap_in_a_sequence_is_refused() {
        let mut rows = Rows::new(4, 4);
        let (four, five) = (Row { position: 4, ..ROW }, Row { position: 5, ..ROW });
        let other = Row { sequence: 2, position: 4, ..ROW };
        assert!(fill(&mut rows, &batch(&[four, other, five]), 4).is_ok());
        assert!(fill(&mut rows, &batch(&[four, other, four]), 4).is_err());
        assert!(fill(&mut rows, &batch(&[five]), 4).is_err());
        assert!(fill(&mut rows, &batch(&[four]), 5).is_err());
    }

    #[test]
    fn only_output_rows_of_the_last_batch_have_logits() {
        let mut rows = Rows::new(4, 4);
        let silent = Row { position: 1, output: false, ..ROW };
        fill(&mut rows, &batch(&[ROW, silent, Row { position: 2, ..ROW }]), 0).expect("good rows");
        assert_eq!(rows.output_index(0), None, "not computed yet");
        let indices = |rows: &Rows| (0..4).map(|row| rows.output_index(row)).collect::<Vec<_>>();
        assert_eq!(rows.part(0..3).n_tokens, 3);
        assert_eq!(indices(&rows), [Some(0), None, Some(2), None]);
        assert_eq!(rows.part(1..9).n_tokens, 2);
        assert_eq!(indices(&rows), [None, None, Some(1), None]);
        assert_eq!(rows.outputs().collect::<Vec<_>>(), [2]);
        fill(&mut rows, &batch(&[ROW]), 0).expect("good rows");
        rows.part(0..1);
        assert_eq!(indices(&rows), [Some(0), None, None, None]);
        rows.forget();
        assert_eq!(rows.output_index(0), None);
    }

    #[test]
    fn rows_of_lower_streams_come_first_in_each_part_and_keep_their_numbers() {
        let mut rows = Rows::new(8, 4);
        let row = |sequence, position, output| Row { token: 1 + sequence as Token, position, sequence, output };
        let batch = batch(&[
            row(0, 0, true),
            row(1, 0, true),
            row(3, 0, false),
            row(3, 1, true),
            row(2, 0, false),
            row(2, 1, false),
        ]);
        let stream = |sequence: SequenceId| Some([7, 4, 2, 3][sequence as usize]);
        rows.fill(&batch, 10, &Layout { stream: &stream, len: &|_| 0, leading: 2, sorted: true }).expect("good rows");
        assert_eq!(rows.tokens[..6], [2, 1, 3, 3, 4, 4]);
        assert_eq!(rows.sequences[..6], [4, 7, 2, 2, 3, 3]);
        assert_eq!(rows.positions[..6], [0, 0, 0, 1, 0, 1]);
        rows.part(2..6);
        assert_eq!((rows.output_index(3), rows.output_index(0)), (Some(3), None));
        assert_eq!(rows.outputs().collect::<Vec<_>>(), [3]);
        rows.part(0..2);
        assert_eq!((rows.output_index(0), rows.output_index(1), rows.output_index(3)), (Some(1), Some(0), None));
    }
}
