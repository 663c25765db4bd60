//! KV files beside the loop: which sequences are worth one, when they are written, and how one serves a request.

use super::EngineLoop;
use super::admit::most_reused;
use super::parking::Restored;
use super::slot::{Kv, Slot, common_prefix};
use crate::engine::model::Model;
use crate::engine::protocol::{Admit, EngineEvent, FileId, MemoryKind, Placement, SequenceId, StoredPrefix, Token};
use crate::engine::store::{ReadFile, Store};

/// A prefix of so many tokens is worth a file even if nobody has come back to it.
const COSTLY_TOKENS: usize = 512;

/// So many of its tokens, and a quarter of them, must be in no file yet.
const NEW_TOKENS: usize = 64;

impl<M: Model, E: FnMut(EngineEvent)> EngineLoop<M, E> {
    /// The files that may serve requests.
    pub(super) fn stored(&self) -> Vec<StoredPrefix> {
        self.store.as_ref().map_or_else(Vec::new, |store| store.prefixes())
    }

    /// Before a sequence is evicted or given to another request: writes a file if it is worth one and nobody is kept
    /// waiting by it.
    pub(super) fn store_evicted(&mut self, sequence: SequenceId) {
        let Some(slot) = self.slots.get(sequence as usize) else { return };
        let copied = match slot.kv {
            Kv::Memory(_) | Kv::Both(_) => 0,
            Kv::Cells | Kv::Pinned => self.model.info().kv_bytes_per_token.saturating_mul(slot.n_cached as u64),
        };
        let has_room = self.store.as_ref().is_some_and(Store::has_room);
        if has_room && self.is_worth_a_file(slot) && (copied <= self.busy_bytes || !self.has_work()) {
            let (tenant, tokens) = (slot.tenant, slot.cached().to_vec());
            if let (Some(state), Some(store)) = (self.take_state(sequence), self.store.as_mut()) {
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
                && let (Some(state), Some(store)) = (self.take_state(sequence as SequenceId), self.store.as_mut())
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
        let bytes = self.model.info().kv_bytes_per_token.saturating_mul(slot.n_cached as u64);
        let Some(store) = self.store.as_ref().filter(|store| wanted && bytes <= store.max_bytes()) else {
            return false;
        };
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

    /// Fills a sequence from a file; returns how many of the request's tokens it holds then.
    pub(super) fn restore(&mut self, admit: &Admit, file: FileId) -> usize {
        // First of all: a prefix that is overwritten may be written to a file, for which this one may have to make room.
        let read = self.store.as_mut().and_then(|store| store.read(file, admit.tenant));
        self.overwrite(admit.sequence);
        self.fill(admit, file, read)
    }

    /// As [`Self::restore`], from a file that has been read beside the loop.
    pub(super) fn place_read(&mut self, admit: &Admit, read: ReadFile) -> usize {
        let file = read.file;
        let read = self.store.as_mut().and_then(|store| store.take(read, admit.tenant));
        self.fill(admit, file, read)
    }

    fn fill(&mut self, admit: &Admit, file: FileId, read: Option<(Vec<Token>, Vec<u8>)>) -> usize {
        let Some((tokens, state)) = read else {
            self.tell_gone(file);
            return 0;
        };
        let Placement::Restore { tokens: advised, .. } = admit.placement else { return 0 };
        let most = most_reused(admit).min(advised as usize);
        let kept = common_prefix(&tokens, &admit.tokens).min(most);
        let whole = kept == tokens.len();
        if kept == 0 || !(whole || self.model.info().memory == MemoryKind::Attention) {
            return 0;
        }
        match self.restore_bytes(admit.sequence, &state, tokens.len() as u32) {
            Restored::Whole if whole || self.model.truncate(admit.sequence, kept as u32) => kept,
            // It is computed as soon as there are cells.
            Restored::Whole | Restored::NoRoom => 0,
            // Of a time with longer contexts, which may come again.
            Restored::TooLong => {
                self.tell_gone(file);
                0
            }
            Restored::Never => {
                tracing::warn!(file, tokens = tokens.len(), "kv file removed: its state is refused");
                if let Some(store) = self.store.as_mut() {
                    store.remove(file);
                }
                self.tell_gone(file);
                0
            }
        }
    }

    fn tell_gone(&mut self, file: FileId) {
        let (epoch, gone) = (self.epoch, vec![file]);
        (self.emit)(EngineEvent::Files { epoch, stored: Vec::new(), gone });
    }
}
