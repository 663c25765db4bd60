//! KV files beside the loop: which sequences are worth one, when they are written, and how one serves a request.

use super::EngineLoop;
use super::slot::{Slot, common_prefix};
use crate::engine::model::Model;
use crate::engine::protocol::{Admit, EngineEvent, FileId, MemoryKind, SequenceId, StoredPrefix};

/// A prefix of so many tokens is worth a file even if nobody has come back to it.
const COSTLY_TOKENS: usize = 512;

/// So many of its tokens, and a quarter of them, must be in no file yet.
const NEW_TOKENS: usize = 64;

/// Beside running sequences no more than this is copied, so that no step comes late.
const BUSY_BYTES: u64 = 16 << 20;

impl<M: Model, E: FnMut(EngineEvent)> EngineLoop<M, E> {
    /// The files that may serve requests.
    pub(super) fn stored(&self) -> Vec<StoredPrefix> {
        self.store.as_ref().map_or_else(Vec::new, |store| store.prefixes())
    }

    /// Before a sequence is evicted: writes a file if it is worth one and nobody is kept waiting by it.
    pub(super) fn store_evicted(&mut self, sequence: SequenceId) {
        let Some(slot) = self.slots.get(sequence as usize) else { return };
        let bytes = self.model.info().kv_bytes_per_token.saturating_mul(slot.n_cached as u64);
        if self.is_worth_a_file(slot) && (bytes <= BUSY_BYTES || !self.has_work()) {
            let (tenant, tokens) = (slot.tenant, slot.cached().to_vec());
            if let (Some(state), Some(store)) = (self.model.save(sequence), self.store.as_mut()) {
                store.store(tenant, tokens, state);
            }
        }
    }

    /// At the end: writes files of all sequences that are worth one, and waits for them.
    pub(super) fn store_all(&mut self) {
        self.slots.iter_mut().for_each(Slot::stop);
        let mut longest_first: Vec<usize> = (0..self.slots.len()).collect();
        longest_first.sort_by_key(|sequence| std::cmp::Reverse(self.slots[*sequence].n_cached));
        for sequence in longest_first {
            let slot = &self.slots[sequence];
            let (tenant, tokens) = (slot.tenant, slot.cached().to_vec());
            if self.is_worth_a_file(&self.slots[sequence])
                && let (Some(state), Some(store)) = (self.model.save(sequence as SequenceId), self.store.as_mut())
            {
                store.store_at_last(tenant, tokens, state);
            }
        }
        if let Some(store) = self.store.take() {
            store.finish();
        }
    }

    /// Long or wanted again, and enough of it is in no file yet.
    fn is_worth_a_file(&self, slot: &Slot) -> bool {
        let wanted = slot.n_cached >= COSTLY_TOKENS || slot.proven;
        let Some(store) = self.store.as_ref().filter(|_| wanted) else { return false };
        let new = slot.n_cached - store.known_of(slot.tenant, slot.cached());
        new >= NEW_TOKENS && new >= slot.n_cached / 4
    }

    /// Tells what has become of the folder since.
    pub(super) fn tell_files(&mut self) {
        let Some(store) = self.store.as_mut() else { return };
        let changes = store.changes();
        if !(changes.stored.is_empty() && changes.gone.is_empty()) {
            let epoch = self.epoch;
            (self.emit)(EngineEvent::Files { epoch, stored: changes.stored, gone: changes.gone });
        }
    }

    /// Fills an empty sequence from a file; returns how many of the request's tokens it holds then.
    pub(super) fn restore(&mut self, admit: &Admit, file: FileId, most: usize) -> usize {
        self.empty(admit.sequence);
        let read = self.store.as_mut().and_then(|store| store.read(file, admit.tenant));
        let Some((tokens, state)) = read else {
            let (epoch, gone) = (self.epoch, vec![file]);
            (self.emit)(EngineEvent::Files { epoch, stored: Vec::new(), gone });
            return 0;
        };
        let kept = common_prefix(&tokens, &admit.tokens).min(most);
        let whole = kept == tokens.len();
        if kept == 0 || !(whole || self.model.info().memory == MemoryKind::Attention) {
            return 0;
        }
        // Fails for want of cells, and then it is computed as soon as there are some.
        let restored = self.model.restore(admit.sequence, &state, tokens.len() as u32)
            && (whole || self.model.truncate(admit.sequence, kept as u32));
        if restored { kept } else { 0 }
    }
}
