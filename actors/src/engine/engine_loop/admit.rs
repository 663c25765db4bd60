//! Admission: checks a request and finds how much of its prefix really lies where the scheduler says.

use std::time::Instant;

use super::EngineLoop;
use super::slot::{Kv, Run, Slot, common_prefix};
use crate::engine::model::Model;
use crate::engine::protocol::{Admit, EndReason, Ended, EngineEvent, MemoryKind, Placement, SequenceId, Token};
use crate::engine::sampler::Sampler;

/// A prefix that served so many tokens of another request is one that somebody came back to.
const PROVEN_TOKENS: usize = 64;

impl<M: Model, E: FnMut(EngineEvent)> EngineLoop<M, E> {
    /// Starts a sequence, or ends it at once as refused.
    pub(super) fn admit(&mut self, admit: Admit) {
        if admit.epoch != self.epoch {
            return;
        }
        if let Err(cause) = self.check(&admit) {
            return self.refuse(&admit, cause);
        }
        self.start_or_wait(admit);
    }

    /// Starts a checked request on what its sequence can have of its tokens.
    pub(super) fn start(&mut self, admit: Admit) {
        let reused = self.place(&admit);
        self.occupy(admit, reused);
    }

    /// A request takes its sequence, which holds so many of its tokens. At least one is left to decode.
    pub(super) fn occupy(&mut self, admit: Admit, reused: usize) {
        (self.emit)(EngineEvent::Started { epoch: self.epoch, request: admit.request, reused: reused as u32 });
        let sequence = admit.sequence as usize;
        self.slots[sequence] = self.occupied_slot(admit, reused);
    }

    fn check(&self, admit: &Admit) -> Result<(), String> {
        let info = self.model.info();
        let slot = self.slots.get(admit.sequence as usize).ok_or("sequence out of range")?;
        if slot.run.is_some() || self.is_awaited(admit.sequence) {
            return Err("sequence is busy".to_owned());
        }
        if admit.tokens.is_empty() || admit.prompt_len as usize > admit.tokens.len() {
            return Err("no tokens, or a prompt longer than the tokens".to_owned());
        }
        if admit.tokens.len() > info.n_ctx_seq as usize {
            return Err(format!("{} tokens exceed the context of {}", admit.tokens.len(), info.n_ctx_seq));
        }
        match admit.tokens.iter().find(|token| !(0..info.n_vocab as Token).contains(*token)) {
            Some(token) => Err(format!("token {token} is outside the vocabulary of {}", info.n_vocab)),
            None => Ok(()),
        }
    }

    fn refuse(&mut self, admit: &Admit, cause: String) {
        let kv_tokens = self.slots.get(admit.sequence as usize).map_or(0, |slot| slot.n_cached as u32);
        (self.emit)(EngineEvent::Ended(Box::new(Ended {
            epoch: self.epoch,
            request: admit.request,
            sequence: admit.sequence,
            reason: EndReason::Refused(cause),
            emitted: 0,
            kv_tokens,
        })));
    }

    fn occupied_slot(&self, admit: Admit, reused: usize) -> Slot {
        let prompt_len = admit.prompt_len as usize;
        let proven = reused >= PROVEN_TOKENS;
        let room = self.model.info().n_ctx_seq as usize - admit.tokens.len();
        let resumed = admit.tokens.len() > prompt_len;
        let sampler = Sampler::new(&admit.sampling, &admit.tokens, prompt_len, &self.vocabulary);
        let max_new_tokens = admit.max_new_tokens.min(room as u32);
        let mut tokens = admit.tokens;
        // Once here, so that decoding never grows it.
        tokens.reserve_exact(max_new_tokens as usize);
        Slot {
            tokens,
            n_cached: reused,
            kv: Kv::Cells,
            used_at: self.step,
            tenant: admit.tenant,
            proven,
            run: Some(Run {
                request: admit.request,
                prompt_len,
                reused,
                admitted_at: Instant::now(),
                sampler,
                resumed,
                emitted: 0,
                max_new_tokens,
                logprobs: admit.logprobs,
                prompt_logprobs: admit.prompt_logprobs,
                rank: admit.rank,
                held: false,
                finished: None,
            }),
        }
    }

    /// Prepares the sequence's KV and returns how many of the request's tokens it holds.
    fn place(&mut self, admit: &Admit) -> usize {
        let most = most_reused(admit);
        let kept = match admit.placement {
            Placement::Fresh => 0,
            Placement::InPlace => self.keep_in_place(admit, most),
            Placement::Copy { from, tokens } => self.copy_from(admit, from, most.min(tokens as usize)),
            Placement::Restore { file, .. } => self.restore(admit, file),
        };
        if kept == 0 {
            self.overwrite(admit.sequence);
        }
        kept
    }

    fn keep_in_place(&mut self, admit: &Admit, most: usize) -> usize {
        let slot = &self.slots[admit.sequence as usize];
        let kept = self.usable(slot, admit, most);
        if kept == 0 || !self.load(admit.sequence) {
            return 0;
        }
        let slot = &self.slots[admit.sequence as usize];
        if kept == slot.n_cached || self.model.truncate(admit.sequence, kept as u32) {
            return kept;
        }
        // Nothing sensible is left, and nothing that is worth a file.
        self.empty(admit.sequence);
        0
    }

    fn copy_from(&mut self, admit: &Admit, from: SequenceId, most: usize) -> usize {
        let Some(source) = self.slots.get(from as usize) else { return 0 };
        if from == admit.sequence {
            return 0;
        }
        let kept = self.usable(source, admit, most);
        self.overwrite(admit.sequence);
        let copied = kept > 0 && self.copy_kv(from, admit.sequence, kept as u32);
        self.slots[from as usize].proven |= copied && kept >= PROVEN_TOKENS;
        if copied { kept } else { 0 }
    }

    /// How much of a slot's KV may serve a request: under the rules of the model's memory, and none of another tenant's.
    fn usable(&self, slot: &Slot, admit: &Admit, most: usize) -> usize {
        let cached = slot.cached();
        let kept = if slot.tenant == admit.tenant { common_prefix(cached, &admit.tokens).min(most) } else { 0 };
        match self.model.info().memory {
            MemoryKind::Attention => kept,
            // A state is one point in time: all of it or nothing.
            MemoryKind::Recurrent if kept == cached.len() => kept,
            MemoryKind::Recurrent | MemoryKind::None => 0,
        }
    }

    /// Empties an idle sequence for a request that takes it; what it held may be worth a file.
    pub(super) fn overwrite(&mut self, sequence: SequenceId) {
        self.store_evicted(sequence);
        self.empty(sequence);
    }

    pub(super) fn empty(&mut self, sequence: SequenceId) {
        self.model.truncate(sequence, 0);
        self.slots[sequence as usize].forget();
        self.cells_freed();
    }
}

/// How many of its tokens a request may find computed. The last one is always decoded, for its logits; prompt logprobs
/// need all of them.
pub(super) fn most_reused(admit: &Admit) -> usize {
    if admit.prompt_logprobs.is_some() { 0 } else { admit.tokens.len() - 1 }
}
