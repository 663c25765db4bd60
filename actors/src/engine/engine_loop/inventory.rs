//! What an inventory lists: as much as one frame carries, what was used last before anything else.
//!
//! A sequence or file that is not listed is as good as empty to the kv-cache, which costs its prefix and nothing else.

use std::cmp::Reverse;

use super::slot::Slot;
use crate::engine::protocol::{Held, SequenceId, StoredPrefix};

/// Most tokens that are listed. One takes up to five bytes, a frame has 64 MiB.
pub(super) const MOST_TOKENS: usize = 8 << 20;

/// Sequences with KV, in their order, and files, in the order of `files`: those used last come first there.
pub(super) fn of(slots: &[Slot], files: Vec<StoredPrefix>, most_tokens: usize) -> (Vec<Held>, Vec<StoredPrefix>) {
    let mut room = most_tokens;
    let mut listed: Vec<(SequenceId, &Slot)> = (0..).zip(slots).filter(|(_, slot)| !slot.cached().is_empty()).collect();
    listed.sort_by_key(|(_, slot)| Reverse(slot.used_at));
    listed.retain(|(_, slot)| takes(&mut room, slot.cached().len()));
    listed.sort_by_key(|(sequence, _)| *sequence);
    let held =
        |(sequence, slot): (SequenceId, &Slot)| Held { sequence, tenant: slot.tenant, tokens: slot.cached().to_vec() };
    let sequences = listed.into_iter().map(held).collect();
    let files = files.into_iter().filter(|file| takes(&mut room, file.tokens.len())).collect();
    (sequences, files)
}

fn takes(room: &mut usize, tokens: usize) -> bool {
    let left = room.checked_sub(tokens);
    *room = left.unwrap_or(*room);
    left.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::frames::{FrameWriter, FromEngine};
    use crate::engine::protocol::{EngineEvent, Token};
    use crate::request::TenantId;

    fn slot(tokens: usize, used_at: u64) -> Slot {
        Slot { tokens: vec![7; tokens], n_cached: tokens, used_at, ..Slot::default() }
    }

    fn file(file: u32, tokens: usize) -> StoredPrefix {
        StoredPrefix { file, tenant: TenantId::NOBODY, tokens: vec![7; tokens] }
    }

    #[test]
    fn what_was_used_last_is_listed_and_the_rest_is_not() {
        let slots = [slot(40, 1), slot(0, 9), slot(50, 3), slot(30, 2)];
        let (held, files) = of(&slots, vec![file(5, 30), file(1, 20), file(2, 1)], 100);
        let sequences: Vec<_> = held.iter().map(|held| (held.sequence, held.tokens.len())).collect();
        assert_eq!(sequences, [(2, 50), (3, 30)]);
        assert_eq!(files, [file(1, 20)]);
        assert_eq!(of(&slots, vec![file(5, 30)], MOST_TOKENS).0.len(), 3);
    }

    #[test]
    fn the_longest_list_fits_in_a_frame() {
        let tokens = vec![Token::MAX; MOST_TOKENS];
        let sequences = vec![Held { sequence: 0, tenant: TenantId::NOBODY, tokens }];
        let frame = FromEngine::Event(EngineEvent::Inventory { epoch: 1, sequences, files: Vec::new() });
        assert!(FrameWriter::new(std::io::sink()).write(&frame).is_ok());
    }
}
