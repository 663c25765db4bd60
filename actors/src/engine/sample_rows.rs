//! Turns the logits of a step into tokens and their outputs, for all sequences of the step.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use smallvec::SmallVec;

use crate::engine::engine_loop::plan::{Plan, Planned};
use crate::engine::engine_loop::slot::{Run, Slot};
use crate::engine::logprobs::token_logprob;
use crate::engine::model::{ControlTokens, Model, Vocabulary};
use crate::engine::protocol::{EndReason, OutputToken, SequenceOutput, TokenBytes, TokenLogprob};
use crate::engine::sampler::Scratch;

/// Logits in a step from which on sampling is spread over threads. Below, waking them costs more than it saves, and
/// they would compete with the compute threads, which still spin.
const PARALLEL_LOGITS: usize = 2_000_000;

/// Samples the rows of a step.
pub(crate) struct RowSampler {
    n_vocab: usize,
    buffers: Vec<Mutex<Buffers>>,
}

/// What one thread needs to sample.
struct Buffers {
    scratch: Scratch,
    piece: Vec<u8>,
}

/// One sequence of the step that may get a token.
struct Job<'a> {
    slot: &'a mut Slot,
    /// `None`: nothing is drawn.
    logits: Option<&'a [f32]>,
    prompt_logprobs: Vec<TokenLogprob>,
}

impl RowSampler {
    /// For rows of `n_vocab` logits.
    pub(crate) fn new(n_vocab: usize) -> Self {
        let threads = rayon::current_num_threads().max(1);
        Self {
            n_vocab,
            buffers: (0..threads)
                .map(|_| Mutex::new(Buffers { scratch: Scratch::new(n_vocab), piece: Vec::new() }))
                .collect(),
        }
    }

    /// Draws a token for every sequence whose tokens all have KV now. The plan must be sorted by sequence.
    ///
    /// # Errors
    /// The model has no logits for a row that it was to give them for.
    pub(crate) fn sample<M: Model>(
        &self,
        model: &M,
        vocabulary: &dyn Vocabulary,
        plan: &Plan,
        slots: &mut [Slot],
    ) -> Result<Vec<SequenceOutput>, String> {
        let mut entries = plan.entries().iter().peekable();
        // Room for all at once: what is allocated in a step does not depend on how many there are.
        let mut jobs = Vec::with_capacity(entries.len());
        for (sequence, slot) in slots.iter_mut().enumerate() {
            if let Some(entry) = entries.next_if(|entry| entry.sequence == sequence) {
                jobs.push(self.job(model, vocabulary, slot, entry)?);
            }
        }
        let rows = jobs.iter().filter(|job| job.logits.is_some()).count();
        if rows > 1 && rows * self.n_vocab >= PARALLEL_LOGITS {
            Ok(jobs.into_par_iter().filter_map(|job| self.finish(job, vocabulary)).collect())
        } else {
            let mut outputs = Vec::with_capacity(jobs.len());
            outputs.extend(jobs.into_iter().filter_map(|job| self.finish(job, vocabulary)));
            Ok(outputs)
        }
    }

    fn job<'a, M: Model>(
        &self,
        model: &'a M,
        vocabulary: &dyn Vocabulary,
        slot: &'a mut Slot,
        entry: &Planned,
    ) -> Result<Job<'a>, String> {
        let prompt_logprobs = self.prompt_logprobs(model, vocabulary, slot, entry)?;
        let draws = slot.pending() == 0 && slot.run.as_ref().is_some_and(|run| run.max_new_tokens > 0);
        let logits = if draws { Some(logits(model, entry.first_row + entry.count - 1)?) } else { None };
        Ok(Job { slot, logits, prompt_logprobs })
    }

    /// Logprobs of the prompt tokens that the rows of this step predict.
    fn prompt_logprobs<M: Model>(
        &self,
        model: &M,
        vocabulary: &dyn Vocabulary,
        slot: &Slot,
        entry: &Planned,
    ) -> Result<Vec<TokenLogprob>, String> {
        let start = slot.n_cached - entry.count;
        let wanted = slot.run.as_ref().and_then(|run| Some((run.prompt_logprobs?, run.prompt_len)));
        let Some((top, prompt_len)) = wanted.filter(|(_, prompt_len)| start < *prompt_len) else {
            return Ok(Vec::new());
        };
        let mut guard = self.buffers();
        let buffers = &mut *guard;
        let mut logprobs = Vec::with_capacity(entry.count + 1);
        if start == 0 {
            let bytes = piece(vocabulary, slot.tokens[0], ControlTokens::Show, &mut buffers.piece);
            logprobs.push(TokenLogprob { id: slot.tokens[0], bytes, logprob: None, top: Vec::new() });
        }
        for offset in 0..entry.count {
            let predicted = start + offset + 1;
            if predicted < prompt_len {
                let logits = logits(model, entry.first_row + offset)?;
                let token = slot.tokens[predicted];
                logprobs.push(token_logprob(logits, token, top as usize, vocabulary, &mut buffers.scratch));
            }
        }
        Ok(logprobs)
    }

    fn finish(&self, job: Job<'_>, vocabulary: &dyn Vocabulary) -> Option<SequenceOutput> {
        let Job { slot, logits, prompt_logprobs } = job;
        let prefill_left = slot.pending() as u32;
        let run = slot.run.as_mut()?;
        let index = (slot.tokens.len() - run.prompt_len) as u32;
        let mut tokens = SmallVec::new();
        if let Some(logits) = logits {
            let mut guard = self.buffers();
            let token = draw(run, logits, vocabulary, &mut guard);
            slot.tokens.push(token.id);
            tokens.push(token);
        } else if prefill_left == 0 {
            run.finished = Some(EndReason::Length);
        }
        Some(SequenceOutput { request: run.request, index, tokens, prefill_left, prompt_logprobs })
    }

    fn buffers(&self) -> std::sync::MutexGuard<'_, Buffers> {
        // Each thread has its own; the lock is never contended.
        let thread = rayon::current_thread_index().unwrap_or(0) % self.buffers.len();
        self.buffers[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The logits of a row that must have some: without them no token can be drawn, and a request must not end as if it
/// were done.
fn logits<M: Model>(model: &M, row: usize) -> Result<&[f32], String> {
    let logits = model.logits(row);
    if logits.is_empty() { Err(format!("the model gives no logits for row {row} of the step")) } else { Ok(logits) }
}

/// Draws the next token of a run and notes whether it is the last.
fn draw(run: &mut Run, logits: &[f32], vocabulary: &dyn Vocabulary, buffers: &mut Buffers) -> OutputToken {
    let id = run.sampler.sample(logits, &mut buffers.scratch);
    let logprobs =
        run.logprobs.map(|top| Box::new(token_logprob(logits, id, top as usize, vocabulary, &mut buffers.scratch)));
    run.emitted += 1;
    run.finished = if vocabulary.is_end(id) {
        Some(EndReason::EndToken)
    } else if run.emitted >= run.max_new_tokens {
        Some(EndReason::Length)
    } else {
        None
    };
    OutputToken { id, bytes: piece(vocabulary, id, ControlTokens::Hide, &mut buffers.piece), logprobs }
}

fn piece(vocabulary: &dyn Vocabulary, token: i32, control: ControlTokens, buffer: &mut Vec<u8>) -> TokenBytes {
    buffer.clear();
    vocabulary.piece(token, control, buffer);
    TokenBytes::from_slice(buffer)
}
