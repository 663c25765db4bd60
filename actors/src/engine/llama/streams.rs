//! Which sequence has which of the buffers of a split context. Pure.
//!
//! llama.cpp computes the rows of buffers that follow each other in one run, and needs another run for each gap. So those
//! that decode together should lie side by side: [`Streams::gap`] says who is to move where.

use crate::engine::protocol::SequenceId;

/// The buffers, each of which holds one sequence.
#[derive(Debug)]
pub(super) struct Streams {
    owners: Vec<Option<SequenceId>>,
    /// Whether nobody computes what lies there.
    at_rest: Vec<bool>,
    /// By sequence.
    streams: Vec<Option<usize>>,
    /// The first gap at the last look: who would move where.
    last_gap: Option<(i32, i32)>,
}

impl Streams {
    /// Free buffers for so many of the sequences.
    pub(super) fn new(streams: u32, sequences: u32) -> Self {
        let n = streams as usize;
        Self { owners: vec![None; n], at_rest: vec![true; n], streams: vec![None; sequences as usize], last_gap: None }
    }

    /// The buffer of a sequence, as llama.cpp numbers it.
    pub(super) fn of(&self, sequence: SequenceId) -> Option<i32> {
        self.streams.get(sequence as usize).copied().flatten().and_then(|stream| i32::try_from(stream).ok())
    }

    /// The same, and a free one if it has none: behind all others, so that no gap is among them while its prompt is read, or
    /// where there is one. `None`: there is none, or no such sequence. From now on it is computed.
    pub(super) fn claim(&mut self, sequence: SequenceId) -> Option<i32> {
        if self.of(sequence).is_none() && (sequence as usize) < self.streams.len() {
            let behind = self.owners.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            let free = || self.owners.iter().position(Option::is_none);
            let stream = if behind < self.owners.len() { behind } else { free()? };
            self.owners[stream] = Some(sequence);
            self.streams[sequence as usize] = Some(stream);
        }
        self.set_rest(sequence, false);
        self.of(sequence)
    }

    /// Its buffer is free.
    pub(super) fn release(&mut self, sequence: SequenceId) {
        self.set_rest(sequence, true);
        if let Some(stream) = self.streams.get_mut(sequence as usize).and_then(Option::take) {
            self.owners[stream] = None;
        }
    }

    /// Nobody computes it, until it is claimed again.
    pub(super) fn rest(&mut self, sequence: SequenceId) {
        self.set_rest(sequence, true);
    }

    /// Whether a buffer is free, or nobody computes what lies there.
    fn is_at_rest(&self, stream: i32) -> bool {
        usize::try_from(stream).is_ok_and(|stream| self.at_rest.get(stream).copied().unwrap_or(false))
    }

    fn set_rest(&mut self, sequence: SequenceId, at_rest: bool) {
        if let Some(stream) = self.streams.get(sequence as usize).copied().flatten() {
            self.at_rest[stream] = at_rest;
        }
    }

    /// The move to make now, in a step of these sequences, as `gap` has it. Where somebody lies there who is computed, not at
    /// the first look at that gap: who is left out of one step is back in the next. Where nobody is, at once if `at_once`.
    pub(super) fn next_move(
        &mut self,
        sequences: impl Iterator<Item = SequenceId> + Clone,
        at_once: bool,
    ) -> Option<(i32, i32)> {
        let gap = self.gap(sequences);
        let stays = std::mem::replace(&mut self.last_gap, gap) == gap;
        gap.filter(|(_, gap)| stays || at_once && self.is_at_rest(*gap))
    }

    /// Where the last of the sequences would close the first gap between them: its buffer and the other one, which may be
    /// somebody else's.
    fn gap(&self, sequences: impl Iterator<Item = SequenceId> + Clone) -> Option<(i32, i32)> {
        let streams = || sequences.clone().filter_map(|sequence| self.of(sequence));
        let (first, last) = (streams().min()?, streams().max()?);
        let gap = (first..last).find(|stream| streams().all(|taken| taken != *stream))?;
        Some((last, gap))
    }

    /// Two buffers change hands.
    pub(super) fn swap(&mut self, one: i32, other: i32) {
        let (Ok(one), Ok(other)) = (usize::try_from(one), usize::try_from(other)) else { return };
        self.owners.swap(one, other);
        self.at_rest.swap(one, other);
        for stream in [one, other] {
            if let Some(sequence) = self.owners[stream] {
                self.streams[sequence as usize] = Some(stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(streams: &Streams, sequences: &[SequenceId]) -> Vec<Option<i32>> {
        sequences.iter().map(|sequence| streams.of(*sequence)).collect()
    }

    #[test]
    fn a_new_one_lies_behind_the_others_while_there_is_room() {
        let mut streams = Streams::new(3, 6);
        assert_eq!([5, 0, 5].map(|sequence| streams.claim(sequence)), [Some(0), Some(1), Some(0)]);
        streams.release(5);
        assert_eq!(streams.claim(2), Some(2));
        assert_eq!(streams.claim(3), Some(0));
        assert_eq!(streams.claim(4), None);
        assert_eq!(streams.claim(9), None);
        assert_eq!(of(&streams, &[0, 2, 3, 4, 9]), [Some(1), Some(2), Some(0), None, None]);
    }

    #[test]
    fn the_last_closes_the_first_gap() {
        let mut streams = Streams::new(6, 6);
        for sequence in 0..6 {
            streams.claim(sequence);
        }
        assert_eq!(streams.gap([1, 2, 3].into_iter()), None);
        assert_eq!(streams.gap([1].into_iter()), None);
        assert_eq!(streams.gap([].into_iter()), None);
        assert_eq!(streams.gap([5, 1, 2].into_iter()), Some((5, 3)));
        streams.swap(5, 3);
        assert_eq!(of(&streams, &[5, 3]), [Some(3), Some(5)]);
        assert_eq!(streams.gap([5, 1, 2].into_iter()), None);
    }

    #[test]
    fn a_buffer_is_at_rest_until_its_sequence_is_claimed_again_wherever_that_lies() {
        let mut streams = Streams::new(3, 4);
        let at_rest = |streams: &Streams| [0, 1, 2].map(|stream| streams.is_at_rest(stream));
        assert_eq!(at_rest(&streams), [true; 3], "free ones");
        assert_eq!([3, 1, 2].map(|sequence| streams.claim(sequence)), [Some(0), Some(1), Some(2)]);
        assert_eq!(at_rest(&streams), [false; 3]);
        streams.rest(1);
        streams.swap(1, 2);
        assert_eq!(at_rest(&streams), [false, false, true]);
        streams.claim(1);
        streams.release(3);
        assert_eq!(at_rest(&streams), [true, false, false]);
        assert!(!streams.is_at_rest(3) && !streams.is_at_rest(-1), "no such buffers");
    }

    #[test]
    fn a_gap_at_rest_closes_at_the_first_look_and_another_one_at_the_second() {
        let mut streams = Streams::new(6, 6);
        for sequence in 0..6 {
            streams.claim(sequence);
        }
        streams.rest(1);
        let next = |streams: &mut Streams, at_once| streams.next_move([0, 3, 4].into_iter(), at_once);
        assert_eq!(next(&mut streams, true), Some((4, 1)));
        streams.swap(4, 1);
        assert_eq!(next(&mut streams, true), None, "2 is only left out of this step");
        assert_eq!(next(&mut streams, true), Some((3, 2)));
        streams.rest(2);
        let mut streams = Streams { last_gap: None, ..streams };
        assert_eq!(next(&mut streams, false), None, "enough was moved in this step");
        assert_eq!(next(&mut streams, true), Some((3, 2)));
        streams.swap(3, 2);
        assert_eq!(next(&mut streams, true), None);
    }

    fn taken(streams: &Streams) -> Vec<SequenceId> {
        (0..8).filter(|sequence| streams.of(*sequence).is_some()).collect()
    }

    proptest! {
        #[test]
        fn no_buffer_has_two_owners_and_gaps_close(steps in prop::collection::vec((0u32..9, 0u8..4), 0..60)) {
            let mut streams = Streams::new(5, 8);
            for (sequence, step) in steps {
                match step {
                    0 => streams.release(sequence),
                    1 => {
                        while let Some((last, gap)) = streams.gap(taken(&streams).into_iter()) {
                            prop_assert!(gap < last);
                            streams.swap(last, gap);
                        }
                    }
                    _ => {
                        streams.claim(sequence);
                    }
                }
                let sequences = taken(&streams);
                let buffers: BTreeSet<_> = sequences.iter().map(|sequence| streams.of(*sequence)).collect();
                prop_assert_eq!(buffers.len(), sequences.len());
                prop_assert!(sequences.len() <= 5);
            }
        }
    }
}
