//! A split context: each sequence that has KV has a buffer of its own, and those that decode together lie side by side.

use crate::engine::batch::Row;
use crate::engine::model::DecodeError;

use super::{Context, len};

impl Context {
    /// A buffer for each sequence that has none. Without enough of them nothing is changed.
    pub(super) fn give_streams(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        let n_seq_max = self.n_seq_max;
        let Some(streams) = self.streams.as_mut() else { return Ok(()) };
        // One out of range is `fill`'s to refuse.
        let mut sequences = rows.iter().map(|row| row.sequence).filter(|sequence| *sequence < n_seq_max);
        if sequences.all(|sequence| streams.claim(sequence).is_some()) {
            return Ok(());
        }
        self.give_back(rows);
        Err(DecodeError::NoCells)
    }

    /// What was given and is still empty is free again.
    pub(super) fn give_back(&mut self, rows: &[Row]) {
        let ctx = self.ctx;
        let Some(streams) = self.streams.as_mut() else { return };
        for row in rows {
            if streams.of(row.sequence).is_some_and(|id| len(ctx, id) == 0) {
                streams.release(row.sequence);
            }
        }
    }

    /// Moves the last of the sequences into the first gap between them, if there is one: each gap is a run of its own, which
    /// reads the weights again at every step, and a move copies some bytes once. Not at the first step with that gap: who is
    /// left out of one step is back in the next.
    pub(super) fn close_gap(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        let sequences = rows.iter().map(|row| row.sequence);
        let gap = self.streams.as_ref().and_then(|streams| streams.gap(sequences));
        match std::mem::replace(&mut self.gap, gap).filter(|before| Some(*before) == gap) {
            Some((last, gap)) => self.swap(last, gap),
            None => Ok(()),
        }
    }

    fn swap(&mut self, one: i32, other: i32) -> Result<(), DecodeError> {
        let state = |id| if len(self.ctx, id) == 0 { Some(Vec::new()) } else { self.state(id) };
        let (Some(of_one), Some(of_other)) = (state(one), state(other)) else { return Ok(()) };
        self.empty(one);
        self.empty(other);
        for (id, state) in [(other, of_one), (one, of_other)] {
            if !state.is_empty() && !self.read_state(id, &state) {
                return Err(self.failed("a sequence could not be moved".to_owned()));
            }
        }
        if let Some(streams) = self.streams.as_mut() {
            streams.swap(one, other);
        }
        Ok(())
    }
}
