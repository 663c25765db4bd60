//! Which token prefix lies in which sequence, and which sequence the next request gets. Pure.
//!
//! Knows what running requests have computed as well as what ended ones left behind; a running one's tokens can be
//! copied as far as they have KV. What is kept and what goes is decided in `retention.rs`.

use std::sync::Arc;

use super::radix::{Holding, Match, RadixTree};
use super::retention::{Demand, Retention, Worth};
use crate::engine::protocol::{FileId, Held, MemoryKind, Placement, SequenceId, StoredPrefix, Token};
use crate::request::TenantId;

pub use super::retention::Budget;

/// A match shorter than this is not worth a copy.
const MIN_SHARED: usize = 8;

/// A prefix that shared so many tokens with a later request is one that somebody came back to.
const COSTLY_SHARED: usize = 64;

/// A file is read if it saves so many tokens more than what lies in the context.
const WORTH_READING: usize = 64;

/// The index.
#[derive(Debug)]
pub struct PrefixIndex {
    memory: MemoryKind,
    tree: RadixTree,
    /// KV files, by their numbers.
    files: RadixTree,
    sequences: Vec<Sequence>,
    retention: Retention,
}

/// A sequence for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The sequence, busy until released or abandoned.
    pub sequence: SequenceId,
    /// Where a prefix of the request's tokens lies.
    pub placement: Placement,
    /// How many of its tokens that are.
    pub cached: u32,
}

/// What a request wants a sequence for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose request it is: nobody else's prefixes serve it.
    pub tenant: TenantId,
    /// Its tokens.
    pub tokens: Arc<[Token]>,
    /// Whether it may use what others left.
    pub reuse: Reuse,
}

/// Whether a request may use what others left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The usual case.
    Allowed,
    /// Every token must be computed (prompt logprobs).
    Forbidden,
}

#[derive(Debug, Clone)]
struct Sequence {
    user: User,
    worth: Worth,
}

#[derive(Debug, Clone)]
enum User {
    Nobody,
    Request {
        wanted: Wanted,
        /// What lies in the sequence until the engine starts it.
        before: Option<(TenantId, Vec<Token>)>,
    },
}

impl Sequence {
    const EMPTY: Self = Self { user: User::Nobody, worth: Worth::NEW };

    fn is_idle(&self) -> bool {
        matches!(self.user, User::Nobody)
    }
}

impl PrefixIndex {
    /// All sequences empty.
    pub fn new(n_seq_max: u32, budget: Budget, memory: MemoryKind) -> Self {
        let sequences = vec![Sequence::EMPTY; n_seq_max as usize];
        Self {
            memory,
            tree: RadixTree::default(),
            files: RadixTree::default(),
            sequences,
            retention: Retention::new(budget),
        }
    }

    /// Starts over from what the engine holds; nothing runs. The budget waits for the next release: until then those
    /// that were running come back for their prefixes.
    pub fn refill(&mut self, inventory: Vec<Held>, files: Vec<StoredPrefix>) {
        self.tree = RadixTree::default();
        self.files = RadixTree::default();
        self.files_changed(files, &[]);
        self.sequences.fill(Sequence::EMPTY);
        for Held { sequence, tenant, tokens } in inventory {
            if (sequence as usize) < self.sequences.len() {
                self.tree.insert(sequence, tenant, &tokens, Holding::Retained);
            }
        }
    }

    /// KV files have come or gone.
    pub fn files_changed(&mut self, stored: Vec<StoredPrefix>, gone: &[FileId]) {
        for StoredPrefix { file, tenant, tokens } in stored {
            self.files.insert(file, tenant, &tokens, Holding::Retained);
        }
        gone.iter().for_each(|file| self.files.remove(*file));
    }

    /// Gives a request its sequence: the longest matching prefix in place if it continues all of it, else a copy
    /// into a spare sequence. `None`: every sequence is busy.
    pub fn reserve(&mut self, wanted: Wanted) -> Option<Reservation> {
        let best = if wanted.reuse == Reuse::Allowed { self.best_match(&wanted) } else { None };
        if let Some(reservation) = self.restored(&wanted, best.map_or(0, |best| best.shared)) {
            return Some(reservation);
        }
        let Some(Match { holder, shared }) = best else {
            let spare = self.spare(None)?;
            return Some(self.occupy(spare, wanted, Placement::Fresh, 0));
        };
        let idle = self.sequences[holder as usize].is_idle();
        if idle && shared == self.tree.len(holder) {
            self.retention.wanted_again(&mut self.sequences[holder as usize].worth, Demand::Proven);
            return Some(self.occupy(holder, wanted, Placement::InPlace, shared));
        }
        match self.spare(Some(holder)) {
            Some(spare) => {
                let demand = if shared >= COSTLY_SHARED { Demand::Proven } else { Demand::None };
                self.retention.wanted_again(&mut self.sequences[holder as usize].worth, demand);
                let placement = Placement::Copy { from: holder, tokens: shared as u32 };
                Some(self.occupy(spare, wanted, placement, shared))
            }
            None if idle => Some(self.occupy(holder, wanted, Placement::InPlace, shared)),
            None => None,
        }
    }

    /// So many of the tokens of the request on a busy sequence have KV now, and can be copied.
    pub fn computed(&mut self, sequence: SequenceId, tokens: u32) {
        if let Some(Sequence { user: User::Request { wanted, .. }, .. }) = self.sequences.get(sequence as usize) {
            let known = wanted.tokens.len().min(tokens as usize);
            if self.tree.len(sequence) == 0 {
                self.tree.insert(sequence, wanted.tenant, &wanted.tokens[..known], Holding::Live);
            } else {
                self.tree.grow(sequence, &wanted.tokens[..known]);
            }
        }
    }

    /// A request ended; these tokens have KV in its sequence. Returns the sequences to evict for the budget.
    pub fn release(&mut self, held: Held) -> Vec<SequenceId> {
        let Held { sequence, tenant, tokens } = held;
        if let Some(entry) = self.sequences.get_mut(sequence as usize) {
            entry.user = User::Nobody;
            self.retention.used(&mut entry.worth);
            self.tree.insert(sequence, tenant, &tokens, Holding::Retained);
        }
        self.evict_over_budget()
    }

    /// A reservation was not used; the sequence is as it was.
    pub fn abandon(&mut self, sequence: SequenceId) {
        let Some(entry) = self.sequences.get_mut(sequence as usize) else { return };
        if let User::Request { before, .. } = std::mem::replace(&mut entry.user, User::Nobody) {
            let (tenant, tokens) = before.unwrap_or_default();
            self.tree.insert(sequence, tenant, &tokens, Holding::Retained);
        }
    }

    /// Gives up retained prefixes, those worth least first, until `cells` tokens are freed or none is left.
    pub fn make_room(&mut self, cells: usize) -> Vec<SequenceId> {
        let mut freed = 0;
        let mut evicted = Vec::new();
        while freed < cells {
            let Some(sequence) = self.least_worth(|_| true) else { break };
            freed +=
                if self.retention.shared_once() { self.tree.own_tokens(sequence) } else { self.tree.len(sequence) };
            evicted.push(self.evict(sequence));
        }
        evicted
    }

    /// Retained sequences and the tokens in them, a prefix that several share counted as the budget says.
    pub fn retained(&self) -> (usize, usize) {
        let whole = || self.retained_sequences().map(|sequence| self.tree.len(sequence)).sum();
        let tokens = if self.retention.shared_once() { self.tree.retained_tokens() } else { whole() };
        (self.retained_sequences().count(), tokens)
    }

    /// A sequence that is filled from a file, if one has much more of the request's tokens than the context.
    fn restored(&mut self, wanted: &Wanted, in_context: usize) -> Option<Reservation> {
        if wanted.reuse == Reuse::Forbidden {
            return None;
        }
        let found = match self.memory {
            MemoryKind::Attention => self.files.longest(wanted.tenant, &wanted.tokens, |_| true),
            MemoryKind::Recurrent => {
                let most = wanted.tokens.len().saturating_sub(1);
                self.files.longest_whole(wanted.tenant, &wanted.tokens[..most], |_| true)
            }
            MemoryKind::None => None,
        };
        let Match { holder: file, shared } = found.filter(|found| found.shared >= in_context + WORTH_READING)?;
        let spare = self.spare(None)?;
        let placement = Placement::Restore { file, tokens: shared as u32 };
        let reservation = self.occupy(spare, wanted.clone(), placement, shared);
        self.sequences[spare as usize].worth = Worth::NEW.with_demand_of(Worth::WANTED);
        Some(reservation)
    }

    fn best_match(&self, wanted: &Wanted) -> Option<Match> {
        let idle = |sequence: SequenceId| self.sequences[sequence as usize].is_idle();
        let found = match self.memory {
            MemoryKind::Attention => self.tree.longest(wanted.tenant, &wanted.tokens, idle),
            // A state serves only what continues all of it, and a running one moves on before it could be copied. The
            // last token is always decoded.
            MemoryKind::Recurrent => {
                let most = wanted.tokens.len().saturating_sub(1);
                self.tree.longest_whole(wanted.tenant, &wanted.tokens[..most], idle)
            }
            MemoryKind::None => None,
        };
        found.filter(|found| found.shared >= MIN_SHARED)
    }

    /// An idle sequence for a new request other than the one it copies from: an empty one, else the one worth least.
    fn spare(&self, source: Option<SequenceId>) -> Option<SequenceId> {
        let empty = |(at, entry): (usize, &Sequence)| entry.is_idle() && self.tree.len(at as SequenceId) == 0;
        let empty = (0..).zip(&self.sequences).position(empty).map(|at| at as SequenceId);
        empty.or_else(|| self.least_worth(|sequence| Some(sequence) != source))
    }

    fn occupy(&mut self, sequence: SequenceId, wanted: Wanted, placement: Placement, cached: usize) -> Reservation {
        let before = self.tree.tokens(sequence);
        self.tree.insert(sequence, wanted.tenant, &wanted.tokens[..cached], Holding::Live);
        let entry = &mut self.sequences[sequence as usize];
        if placement != Placement::InPlace {
            entry.worth = Worth::NEW;
        }
        entry.user = User::Request { wanted, before };
        Reservation { sequence, placement, cached: cached as u32 }
    }

    fn retained_sequences(&self) -> impl Iterator<Item = SequenceId> {
        let sequences = (0..).zip(&self.sequences).filter(|(_, entry)| entry.is_idle());
        sequences.map(|(at, _)| at).filter(|sequence| self.tree.len(*sequence) > 0)
    }

    fn least_worth(&self, among: impl Fn(SequenceId) -> bool) -> Option<SequenceId> {
        let retained = self.retained_sequences().filter(|sequence| among(*sequence));
        retained.min_by_key(|sequence| (!self.is_spare_copy(*sequence), self.worth(*sequence)))
    }

    fn evict(&mut self, sequence: SequenceId) -> SequenceId {
        let Sequence { worth, .. } = std::mem::replace(&mut self.sequences[sequence as usize], Sequence::EMPTY);
        if self.is_spare_copy(sequence) {
            self.pass_on(sequence, worth);
        } else {
            self.retention.evicted(worth);
        }
        self.tree.remove(sequence);
        sequence
    }

    /// Whoever came back to a prefix comes back to the sequence that holds it as well.
    fn pass_on(&mut self, sequence: SequenceId, worth: Worth) {
        let Some((tenant, tokens)) = self.tree.tokens(sequence) else { return };
        self.tree.remove(sequence);
        if let Some(Match { holder, .. }) = self.tree.longest(tenant, &tokens, |_| true) {
            let heir = &mut self.sequences[holder as usize].worth;
            *heir = heir.with_demand_of(worth);
        }
    }

    fn evict_over_budget(&mut self) -> Vec<SequenceId> {
        let mut evicted = Vec::new();
        while let Some(sequence) = self.over_budget() {
            evicted.push(self.evict(sequence));
        }
        evicted
    }

    /// The prefix to give up next, if any.
    fn over_budget(&self) -> Option<SequenceId> {
        let spare_copy = self.least_worth(|sequence| self.is_spare_copy(sequence));
        if spare_copy.is_some() {
            return spare_copy;
        }
        let cheap = |sequence: SequenceId| self.worth(sequence).is_cheap(self.tree.len(sequence));
        let cheap_entries = self.retained_sequences().filter(|sequence| cheap(*sequence)).count();
        let (entries, tokens) = self.retained();
        if self.retention.too_many_cheap(cheap_entries) {
            self.least_worth(cheap)
        } else if self.retention.over_budget(entries, tokens) {
            self.least_worth(cheap).or_else(|| self.least_worth(|_| true))
        } else {
            None
        }
    }

    /// Whether another sequence holds all that this one does. A memory that can't be cut needs it all the same.
    fn is_spare_copy(&self, sequence: SequenceId) -> bool {
        self.memory == MemoryKind::Attention && self.tree.own_tokens(sequence) == 0
    }

    fn worth(&self, sequence: SequenceId) -> Worth {
        self.sequences[sequence as usize].worth
    }
}

#[cfg(test)]
mod tests;
