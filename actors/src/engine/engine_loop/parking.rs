//! Where the KV of idle sequences is: in cells, or as bytes in ordinary memory.
//!
//! Attention on the CPU walks over the cells of every sequence, masked ones included, so prefixes parked in the buffer
//! slow each step of those that run. Bytes outside of it cost nothing, and bringing them back is a copy. What is moved
//! is decided here alone: for the actors an idle sequence has its tokens, wherever their KV is.

use super::EngineLoop;
use super::slot::{Kv, Slot};
use crate::engine::model::Model;
use crate::engine::protocol::{EngineEvent, MemoryKind, SequenceId};

impl<M: Model, E: FnMut(EngineEvent)> EngineLoop<M, E> {
    /// Moves the idle sequence that was used longest ago out of the cells, if more is parked there than may be.
    /// At most one a step: what is copied must not delay the next token.
    pub(super) fn park_one(&mut self) {
        if self.parked_tokens() > self.model.info().parked_limit as usize {
            self.unload_oldest();
        }
    }

    /// Tokens of idle sequences that take cells.
    pub(super) fn parked_tokens(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_parked()).map(|slot| slot.n_cached).sum()
    }

    /// Frees the cells of one idle sequence without losing its KV. False: there is none, or its model cannot do that.
    pub(super) fn unload_oldest(&mut self) -> bool {
        // Nothing else takes cells that others walk over, and a state of another kind is not as long as its tokens.
        if self.model.info().memory != MemoryKind::Attention {
            return false;
        }
        let parked = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_parked() && slot.kv != Kv::Pinned);
        let Some(oldest) = parked.min_by_key(|(_, slot)| slot.used_at).map(|(at, _)| at) else { return false };
        let sequence = oldest as SequenceId;
        let slot = &mut self.slots[oldest];
        let bytes = match std::mem::take(&mut slot.kv) {
            Kv::Both(bytes) => Some(bytes),
            _ => self.model.save(sequence),
        };
        let Some(bytes) = bytes else {
            slot.kv = Kv::Pinned;
            return false;
        };
        slot.kv = Kv::Memory(bytes);
        self.model.truncate(sequence, 0);
        self.cells_freed();
        true
    }

    /// Brings an idle sequence's KV back into cells. False: no room; it stays in memory.
    pub(super) fn load(&mut self, sequence: SequenceId) -> bool {
        let slot = &mut self.slots[sequence as usize];
        slot.used_at = self.step;
        let tokens = slot.n_cached as u32;
        let bytes = match std::mem::take(&mut slot.kv) {
            Kv::Memory(bytes) => bytes,
            in_cells => {
                slot.kv = in_cells;
                return true;
            }
        };
        // Out of cells' reach for the moment, so that it is not unloaded to make room for itself.
        self.slots[sequence as usize].kv = Kv::Memory(Vec::new());
        let loaded = self.restore_bytes(sequence, &bytes, tokens);
        self.slots[sequence as usize].kv = if loaded { Kv::Both(bytes) } else { Kv::Memory(bytes) };
        loaded
    }

    /// Puts bytes into an empty sequence, in the place of parked ones if need be.
    pub(super) fn restore_bytes(&mut self, sequence: SequenceId, bytes: &[u8], tokens: u32) -> bool {
        loop {
            if self.model.restore(sequence, bytes, tokens) {
                return true;
            }
            if !self.unload_oldest() {
                return false;
            }
        }
    }

    /// The KV of a sequence as bytes, which is to be forgotten afterwards.
    pub(super) fn take_state(&mut self, sequence: SequenceId) -> Option<Vec<u8>> {
        match std::mem::take(&mut self.slots[sequence as usize].kv) {
            Kv::Memory(bytes) | Kv::Both(bytes) => Some(bytes),
            Kv::Cells | Kv::Pinned => self.model.save(sequence),
        }
    }
}

impl Slot {
    /// Whether it is idle and takes cells.
    fn is_parked(&self) -> bool {
        self.run.is_none() && self.n_cached > 0 && self.in_cells()
    }
}
