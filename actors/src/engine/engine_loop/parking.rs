//! Where the KV of idle sequences is: in cells, or as bytes in ordinary memory.
//!
//! In one pool of cells, attention on the CPU walks over those of every sequence, masked ones included, so prefixes parked
//! there slow each step of those that run. In a split context they slow nobody, but there are only as many buffers as
//! requests run. Bytes in ordinary memory cost nothing, and bringing them back is a copy. What is moved is decided here
//! alone: for the actors an idle sequence has its tokens, wherever their KV is.

use super::EngineLoop;
use super::slot::{Kv, Slot};
use crate::engine::model::Model;
use crate::engine::protocol::{EngineEvent, MemoryKind, SequenceId};

/// To copy the bytes of so many tokens costs as much as to compute one, roughly: 23 kB against 3 ms for SmolLM2-135M makes
/// 300, and larger models compute longer for each byte.
const COPIED_FOR_ONE: u32 = 100;

/// What became of bytes on their way into cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restored {
    /// They are there.
    Whole,
    /// There were too few free cells.
    NoRoom,
    /// They are refused whatever is free.
    Never,
    /// The sequence is longer than any may be.
    TooLong,
}

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

    /// Frees the cells of one idle sequence without losing its KV. False: there is none, its model cannot do that, or
    /// ordinary memory holds as much as it may.
    pub(super) fn unload_oldest(&mut self) -> bool {
        // Nothing else takes cells that others walk over, and a state of another kind is not as long as its tokens.
        if self.model.info().memory != MemoryKind::Attention {
            return false;
        }
        while let Some(oldest) = self.oldest_movable() {
            if self.unload(oldest) {
                return true;
            }
        }
        false
    }

    fn oldest_movable(&self) -> Option<usize> {
        let left = self.room_in_memory();
        let per_token = self.model.info().kv_bytes_per_token;
        let movable = |slot: &Slot| match slot.kv {
            Kv::Both(_) => true,
            // What it shares with others is in each one's bytes, although it is in the cells once.
            Kv::Cells => per_token.saturating_mul(slot.n_cached as u64) <= left,
            Kv::Pinned | Kv::Memory(_) => false,
        };
        let parked = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_parked() && movable(slot));
        parked.min_by_key(|(_, slot)| slot.used_at).map(|(at, _)| at)
    }

    /// How many more bytes of KV may be outside of the cells.
    fn room_in_memory(&self) -> u64 {
        let bytes = self.slots.iter().map(|slot| match &slot.kv {
            Kv::Memory(bytes) | Kv::Both(bytes) => bytes.len() as u64,
            Kv::Cells | Kv::Pinned => 0,
        });
        self.model.info().parked_bytes.saturating_sub(bytes.sum::<u64>() + self.bytes_on_the_way)
    }

    /// False: its bytes cannot be had; it is not asked again.
    fn unload(&mut self, at: usize) -> bool {
        let sequence = at as SequenceId;
        let state = self.take_state(sequence);
        let slot = &mut self.slots[at];
        let Some(bytes) = state else {
            slot.kv = Kv::Pinned;
            return false;
        };
        slot.kv = Kv::Memory(bytes);
        self.model.truncate(sequence, 0);
        self.cells_freed();
        true
    }

    /// Brings an idle sequence's KV back into cells. False: no room, and it stays in memory; or never, and it is gone.
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
        self.bytes_on_the_way = bytes.len() as u64;
        let restored = self.restore_bytes(sequence, &bytes, tokens);
        self.bytes_on_the_way = 0;
        let slot = &mut self.slots[sequence as usize];
        match restored {
            Restored::Whole => slot.kv = Kv::Both(bytes),
            Restored::NoRoom => slot.kv = Kv::Memory(bytes),
            Restored::Never | Restored::TooLong => slot.forget(),
        }
        restored == Restored::Whole
    }

    /// Puts bytes into an empty sequence, in the place of parked ones if need be.
    pub(super) fn restore_bytes(&mut self, sequence: SequenceId, bytes: &[u8], tokens: u32) -> Restored {
        let info = self.model.info();
        let most = if info.streams.is_some() { info.n_ctx_seq } else { info.n_ctx };
        if tokens > most {
            return Restored::TooLong;
        }
        loop {
            if self.model.restore(sequence, bytes, tokens) {
                return Restored::Whole;
            }
            if self.has_cells_for(tokens) {
                return Restored::Never;
            }
            if !self.unload_oldest() {
                return Restored::NoRoom;
            }
        }
    }

    /// Whether so many cells are free for sure: shared ones are counted for each that has them. In a split context, whether
    /// a buffer is.
    fn has_cells_for(&self, tokens: u32) -> bool {
        let info = self.model.info();
        let in_cells = self.slots.iter().filter(|slot| slot.in_cells() && slot.n_cached > 0);
        match info.streams {
            Some(streams) => in_cells.count() < streams as usize,
            None => in_cells.map(|slot| slot.n_cached).sum::<usize>() + tokens as usize <= info.n_ctx as usize,
        }
    }

    /// Fills the empty sequence `to` with the first `kept` tokens of `from`. False: not possible, or not worth it, and `to`
    /// is empty.
    pub(super) fn copy_kv(&mut self, from: SequenceId, to: SequenceId, kept: u32) -> bool {
        if self.model.info().streams.is_none() {
            return self.load(from) && self.model.copy(from, to, kept);
        }
        let slot = &mut self.slots[from as usize];
        let (tokens, idle) = (slot.n_cached as u32, slot.run.is_none());
        if kept < tokens / COPIED_FOR_ONE {
            return false;
        }
        slot.used_at = self.step;
        let (mut away, counted) = (slot.kv.is_away(), slot.kv.has_bytes());
        let state = self.take_state(from);
        // Where it is stays so for the moment: it is not to be unloaded to make room for its own copy.
        self.slots[from as usize].kv = if away { Kv::Memory(Vec::new()) } else { Kv::Pinned };
        let Some(bytes) = state else { return false };
        self.bytes_on_the_way = if counted { bytes.len() as u64 } else { 0 };
        let mut restored = self.restore_bytes(to, &bytes, tokens);
        let fits = counted || bytes.len() as u64 <= self.room_in_memory();
        if restored == Restored::NoRoom && idle && !away && fits {
            // Its own buffer is the one.
            self.model.truncate(from, 0);
            away = true;
            restored = self.restore_bytes(to, &bytes, tokens);
        }
        self.bytes_on_the_way = 0;
        self.slots[from as usize].kv = match (away, counted) {
            (true, _) => Kv::Memory(bytes),
            (false, true) => Kv::Both(bytes),
            (false, false) => Kv::Cells,
        };
        restored == Restored::Whole && (kept == tokens || self.model.truncate(to, kept))
    }

    /// The KV of a sequence as bytes; what the slot says of it is to be set, or forgotten, afterwards.
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
