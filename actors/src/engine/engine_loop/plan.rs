//! What one step decodes: a token of each decoding sequence first, then prompt chunks by rank. Who is of a worse class than a
//! prompt that has just come is left out of one step.

use std::time::{Duration, Instant};

use super::slot::Slot;
use crate::engine::batch::{Batch, Row};
use crate::engine::protocol::{Limits, MIN_PREFILL_TOKENS, MOST_PREFILL_SHARES, SequenceId};
use crate::priority::class_of;

/// The least room for prompt tokens.
const MIN_PREFILL: usize = MIN_PREFILL_TOKENS as usize;

/// Most prompt tokens in a step from which worse classes are left out.
const AHEAD_TOKENS: usize = 64;

/// Most output rows of prompt logprobs in a step; each costs a row of logits in memory.
const MAX_PROMPT_ROWS: usize = 64;

/// The plan of a step; its memory is reused.
#[derive(Debug)]
pub(crate) struct Plan {
    entries: Vec<Planned>,
    order: Vec<usize>,
    /// Whether somebody was left out of the last step.
    left_out: bool,
}

/// A sequence's share of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The sequence.
    pub(crate) sequence: usize,
    /// How many of its pending tokens are decoded.
    pub(crate) count: usize,
    /// The row of the first one, once written.
    pub(crate) first_row: usize,
    /// What the tokens are.
    pub(crate) kind: Kind,
}

/// Whether a sequence is through with its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One token, the last one.
    Decode,
    /// A chunk of the prompt.
    Prefill,
}

impl Plan {
    /// An empty plan for so many sequences.
    pub(crate) fn with_capacity(sequences: usize) -> Self {
        Self { entries: Vec::with_capacity(sequences), order: Vec::with_capacity(sequences), left_out: false }
    }

    /// Plans the next step. With `cut_off_first` nobody of their class or a worse one decodes before those that another engine's
    /// end cut off are read again: each of them has waited for the load already, and beside others they would take several
    /// times as long.
    pub(crate) fn fill(&mut self, slots: &[Slot], limits: Limits, n_batch: usize, cut_off_first: bool) {
        self.entries.clear();
        self.order.clear();
        for (sequence, slot) in slots.iter().enumerate() {
            match &slot.run {
                Some(run) if !run.held && slot.pending() == 1 => self.push(sequence, 1, Kind::Decode),
                Some(run) if !run.held && slot.pending() > 1 => self.order.push(sequence),
                _ => {}
            }
        }
        if cut_off_first {
            self.leave_out_beside_those_cut_off(slots);
        }
        self.left_out = !self.left_out && self.leave_worse_classes_out(slots);
        let decoding = self.entries.len();
        let step_tokens = limits.step_tokens as usize;
        let mut budget = step_tokens.max(decoding + MIN_PREFILL).min(n_batch).saturating_sub(decoding);
        let share = (limits.mixed_prefill_tokens as usize).max(MIN_PREFILL);
        if self.left_out {
            budget = budget.min(AHEAD_TOKENS);
        }
        if decoding > 0 {
            // Without those left out there is time for more.
            let most = if self.left_out { most_of(share) } else { self.stretched(share, slots) };
            budget = budget.min(most);
        }
        let left_out = self.left_out;
        let (now, patience) = (Instant::now(), Duration::from_millis(u64::from(limits.prefill_wait_ms)));
        self.order.sort_unstable_by_key(|sequence| {
            let slot = &slots[*sequence];
            let rank = rank(slot);
            // Patience ends inside a class only.
            let after_those_unread = left_out && !is_unread(slot);
            (class_of(rank), after_those_unread, patience.is_zero() || !has_waited(slot, now, patience), rank)
        });
        let mut rows_left = MAX_PROMPT_ROWS;
        for at in 0..self.order.len() {
            let sequence = self.order[at];
            let wants_rows = wants_prompt_rows(&slots[sequence]);
            let limit = if wants_rows { rows_left } else { usize::MAX };
            let count = slots[sequence].pending().min(budget).min(limit);
            if count > 0 {
                self.push(sequence, count, Kind::Prefill);
                budget -= count;
                rows_left -= if wants_rows { count } else { 0 };
            }
        }
    }

    /// Nobody decodes beside one that was cut off and is of its class or a better one.
    fn leave_out_beside_those_cut_off(&mut self, slots: &[Slot]) {
        let cut_off = self.order.iter().map(|sequence| &slots[*sequence]).filter(|slot| is_cut_off(slot));
        if let Some(best) = cut_off.map(class).min() {
            self.entries.retain(|entry| class(&slots[entry.sequence]) < best);
        }
    }

    /// A prompt of which nothing is computed yet goes ahead of whoever is of a worse class, for one step: a short one has its
    /// first token then, and the others one gap. A long one goes on beside them. Not if a still better one is being read.
    fn leave_worse_classes_out(&mut self, slots: &[Slot]) -> bool {
        let class = |sequence: usize| class(&slots[sequence]);
        let unread = self.order.iter().copied().filter(|sequence| is_unread(&slots[*sequence]));
        let Some(best) = unread.map(class).min() else { return false };
        if self.order.iter().any(|sequence| class(*sequence) < best) {
            return false;
        }
        let decoding = self.entries.len();
        self.entries.retain(|entry| class(entry.sequence) <= best);
        let left_out = self.entries.len() < decoding;
        if left_out {
            self.order.retain(|sequence| class(*sequence) <= best);
        }
        left_out
    }

    /// One share, and another one for each further prompt per running stream, if it is of no worse class: a longer step
    /// holds up a few and brings many on.
    fn stretched(&self, share: usize, slots: &[Slot]) -> usize {
        let class = |sequence: usize| class(&slots[sequence]);
        let best = self.entries.iter().map(|entry| class(entry.sequence)).min();
        let reading = self.order.iter().filter(|sequence| best.is_none_or(|best| class(**sequence) <= best)).count();
        let more = share.saturating_mul(reading.saturating_sub(1)) / self.entries.len().max(1);
        share.saturating_add(more).min(most_of(share))
    }

    /// Makes the plan smaller after it did not fit: half the prefill, then none, then without the lowest rank.
    /// Returns the sequences that have to wait for cells.
    pub(crate) fn shrink(&mut self, slots: &[Slot]) -> Vec<usize> {
        let prefill = self.prefill_tokens();
        if prefill > 0 {
            let target = if prefill > MIN_PREFILL { prefill / 2 } else { 0 };
            return self.cut_prefill(target);
        }
        self.take_lowest(slots, |_| true).into_iter().collect()
    }

    /// Takes the lowest rank out of those that have no KV yet, and so no buffer of a split context; says who that is.
    pub(crate) fn drop_empty(&mut self, slots: &[Slot]) -> Option<usize> {
        self.take_lowest(slots, |slot| slot.n_cached == 0)
    }

    fn take_lowest(&mut self, slots: &[Slot], among: impl Fn(&Slot) -> bool) -> Option<usize> {
        let slot = |at: usize| &slots[self.entries[at].sequence];
        let lowest = (0..self.entries.len()).filter(|at| among(slot(*at))).max_by_key(|at| rank(slot(*at)))?;
        Some(self.entries.remove(lowest).sequence)
    }

    fn cut_prefill(&mut self, target: usize) -> Vec<usize> {
        let mut left = target;
        let mut dropped = Vec::new();
        self.entries.retain_mut(|entry| {
            if entry.kind == Kind::Prefill {
                entry.count = entry.count.min(left);
                left -= entry.count;
            }
            if entry.count == 0 {
                dropped.push(entry.sequence);
            }
            entry.count > 0
        });
        // A smaller chunk next step is no progress if nothing at all fits: then they wait until cells are freed.
        if target == 0 { dropped } else { Vec::new() }
    }

    /// Writes the planned tokens into the batch.
    pub(crate) fn write(&mut self, slots: &[Slot], batch: &mut Batch) {
        batch.clear();
        for entry in &mut self.entries {
            let slot = &slots[entry.sequence];
            let (start, end) = (slot.n_cached, slot.n_cached + entry.count);
            let every_row = wants_prompt_rows(slot);
            entry.first_row = batch.len();
            for (offset, token) in slot.tokens[start..end].iter().enumerate() {
                let position = start + offset;
                batch.push(Row {
                    token: *token,
                    position: position as u32,
                    sequence: entry.sequence as SequenceId,
                    output: every_row || position + 1 == slot.tokens.len(),
                });
            }
        }
    }

    /// Orders the entries for a walk over all sequences; after the decode their order has no other meaning.
    pub(crate) fn sort_by_sequence(&mut self) {
        self.entries.sort_unstable_by_key(|entry| entry.sequence);
    }

    /// The sequences of the step.
    pub(crate) fn entries(&self) -> &[Planned] {
        &self.entries
    }

    /// Prompt tokens in the step.
    pub(crate) fn prefill_tokens(&self) -> usize {
        self.entries.iter().filter(|entry| entry.kind == Kind::Prefill).map(|entry| entry.count).sum()
    }

    fn push(&mut self, sequence: usize, count: usize, kind: Kind) {
        self.entries.push(Planned { sequence, count, first_row: 0, kind });
    }
}

const fn most_of(share: usize) -> usize {
    share.saturating_mul(MOST_PREFILL_SHARES as usize)
}

fn class(slot: &Slot) -> u64 {
    class_of(rank(slot))
}

fn rank(slot: &Slot) -> u64 {
    slot.run.as_ref().map_or(u64::MAX, |run| run.rank)
}

/// Whether a sequence has waited too long for its first chunk.
fn has_waited(slot: &Slot, now: Instant, patience: Duration) -> bool {
    is_unread(slot) && slot.run.as_ref().is_some_and(|run| now.duration_since(run.admitted_at) >= patience)
}

/// Whether nothing of its prompt has been computed for this request.
fn is_unread(slot: &Slot) -> bool {
    slot.run.as_ref().is_some_and(|run| slot.n_cached == run.reused)
}

/// Whether it was given tokens before it was admitted, and none since. One that was preempted is no different.
fn is_cut_off(slot: &Slot) -> bool {
    slot.run.as_ref().is_some_and(|run| run.resumed && run.emitted == 0)
}

/// Prompt logprobs make every prompt token an output row, until the prompt is through.
pub(crate) fn wants_prompt_rows(slot: &Slot) -> bool {
    slot.run.as_ref().is_some_and(|run| run.prompt_logprobs.is_some() && slot.n_cached < run.prompt_len)
}
