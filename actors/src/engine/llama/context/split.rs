//! A split context: each sequence that has KV has a buffer of its own, and those that decode together lie side by side.

use crate::engine::batch::Row;
use crate::engine::model::{BUSY_BYTES, DecodeError};
use crate::engine::protocol::SequenceId;

use super::states::Moved;
use super::{Context, len, log};

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

    /// Moves the last of the sequences into the first gap between them, as long as `Streams::next_move` says so: each gap is a
    /// run of its own, which reads the weights again at every step, and a move copies some bytes once.
    pub(super) fn close_gap(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        let mut moved = 0;
        loop {
            let sequences = rows.iter().map(|row| row.sequence);
            let Some(streams) = self.streams.as_mut() else { return Ok(()) };
            let Some((last, gap)) = streams.next_move(sequences, moved < BUSY_BYTES) else { return Ok(()) };
            let Some(bytes) = self.swap(last, gap)? else { return Ok(()) };
            moved += bytes;
            // A move has no nodes to count.
            if let Some(counters) = &self.counters {
                counters.advance();
            }
        }
    }

    /// See `Model::rest`.
    pub(in super::super) fn rest(&mut self, sequence: SequenceId) {
        if let Some(streams) = self.streams.as_mut() {
            streams.rest(sequence);
        }
    }

    /// How many bytes changed places. `None`: that cannot be done, and nothing was changed.
    fn swap(&mut self, one: i32, other: i32) -> Result<Option<usize>, DecodeError> {
        let mut moved = std::mem::take(&mut self.moved);
        let swapped = self.swap_states(one, other, &mut moved);
        let bytes = moved.bytes();
        moved.trim();
        self.moved = moved;
        if !swapped? {
            return Ok(None);
        }
        if let Some(streams) = self.streams.as_mut() {
            streams.swap(one, other);
        }
        Ok(Some(bytes))
    }

    fn swap_states(&mut self, one: i32, other: i32, moved: &mut Moved) -> Result<bool, DecodeError> {
        log::forget_errors();
        let states = [(one, &mut moved.one), (other, &mut moved.other)];
        for (id, state) in states {
            let bytes = if len(self.ctx, id) == 0 { Some(0) } else { self.state_len(id) };
            let Some(bytes) = bytes else { return Ok(false) };
            Moved::fit(state, bytes);
            if bytes > 0 && !self.write_state(id, state) {
                return Ok(false);
            }
        }
        self.empty(one);
        self.empty(other);
        for (id, state) in [(other, &moved.one), (one, &moved.other)] {
            if !state.is_empty() && !self.read_state(id, state) {
                return Err(self.failed("a sequence could not be moved".to_owned()));
            }
        }
        Ok(true)
    }
}
