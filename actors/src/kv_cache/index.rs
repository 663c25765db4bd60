//! Which token prefix lies in which sequence, and which sequence the next request gets. Pure.
//!
//! What a request leaves behind is worth what it would cost to compute again. Every cell of a unified buffer slows every
//! step, so short prefixes that nobody came back to are kept only for a few requests; long ones, and those that were
//! continued or copied, stay as long as the budget allows. Least recently used goes first.

use std::sync::Arc;

use crate::engine::protocol::{Placement, SequenceId, Token};

/// A match shorter than this is not worth a copy.
const MIN_SHARED: usize = 8;

/// A prefix of so many tokens is costly to compute again, and so is one that shared so many with a later request.
const COSTLY_TOKENS: usize = 512;
const COSTLY_SHARED: usize = 64;

/// So many prefixes that are cheap to compute again are retained.
const CHEAP_ENTRIES: usize = 8;

/// How many tokens may stay behind in sequences without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most retained sequences.
    pub entries: usize,
    /// Most tokens in them.
    pub tokens: usize,
}

/// The index.
#[derive(Debug)]
pub struct PrefixIndex {
    sequences: Vec<Sequence>,
    budget: Budget,
    clock: u64,
}

/// A sequence for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The sequence, busy until released or abandoned.
    pub sequence: SequenceId,
    /// Where a prefix of the request's tokens lies.
    pub placement: Placement,
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
    tokens: Tokens,
    user: User,
    used_at: u64,
    demand: Demand,
}

/// Whether anybody came back to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    None,
    Proven,
}

/// Tokens of a retained sequence are its own; those of a busy one are the request's.
#[derive(Debug, Clone)]
enum Tokens {
    Known(Vec<Token>),
    /// The request's tokens; `before` is what lies in the sequence until the engine starts it.
    Request {
        wanted: Arc<[Token]>,
        before: Vec<Token>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    Nobody,
    Request,
}

impl Sequence {
    fn empty() -> Self {
        Self { tokens: Tokens::Known(Vec::new()), user: User::Nobody, used_at: 0, demand: Demand::None }
    }

    fn tokens(&self) -> &[Token] {
        match &self.tokens {
            Tokens::Known(tokens) => tokens,
            Tokens::Request { wanted, .. } => wanted,
        }
    }

    fn is_retained(&self) -> bool {
        self.user == User::Nobody && !self.tokens().is_empty()
    }

    fn is_cheap(&self) -> bool {
        self.demand == Demand::None && self.tokens().len() < COSTLY_TOKENS
    }
}

impl PrefixIndex {
    /// All sequences empty.
    pub fn new(n_seq_max: u32, budget: Budget) -> Self {
        Self { sequences: vec![Sequence::empty(); n_seq_max as usize], budget, clock: 0 }
    }

    /// Starts over from what the engine holds; nothing runs.
    pub fn refill(&mut self, inventory: Vec<(SequenceId, Vec<Token>)>) -> Vec<SequenceId> {
        self.sequences.fill(Sequence::empty());
        for (sequence, tokens) in inventory {
            if let Some(entry) = self.sequences.get_mut(sequence as usize) {
                entry.tokens = Tokens::Known(tokens);
            }
        }
        self.evict_over_budget()
    }

    /// Gives a request its sequence: the longest matching prefix in place if it continues all of it, else a copy
    /// into a spare sequence. `None`: every sequence is busy.
    pub fn reserve(&mut self, wanted: &Arc<[Token]>, reuse: Reuse) -> Option<Reservation> {
        let best = if reuse == Reuse::Allowed { self.longest_match(wanted) } else { None };
        let in_place = best.filter(|(at, shared)| {
            let entry = &self.sequences[*at];
            entry.user == User::Nobody && *shared == entry.tokens().len()
        });
        if let Some((at, _)) = in_place {
            self.sequences[at].demand = Demand::Proven;
            return Some(self.occupy(at, wanted, Placement::InPlace));
        }
        let source = best.map(|(at, _)| at);
        match (self.spare(source), best) {
            (Some(at), Some((from, shared))) => {
                self.touch(from);
                if shared >= COSTLY_SHARED {
                    self.sequences[from].demand = Demand::Proven;
                }
                let placement = Placement::Copy { from: from as SequenceId, tokens: shared as u32 };
                Some(self.occupy(at, wanted, placement))
            }
            (Some(at), None) => Some(self.occupy(at, wanted, Placement::Fresh)),
            (None, Some((at, _))) if self.sequences[at].user == User::Nobody => {
                Some(self.occupy(at, wanted, Placement::InPlace))
            }
            (None, _) => None,
        }
    }

    /// A request ended; these tokens have KV in its sequence. Returns the sequences to evict for the budget.
    pub fn release(&mut self, sequence: SequenceId, tokens: Vec<Token>) -> Vec<SequenceId> {
        self.clock += 1;
        if let Some(entry) = self.sequences.get_mut(sequence as usize) {
            let demand = entry.demand;
            *entry = Sequence { tokens: Tokens::Known(tokens), user: User::Nobody, used_at: self.clock, demand };
        }
        self.evict_over_budget()
    }

    /// A reservation was not used; the sequence is as it was.
    pub fn abandon(&mut self, sequence: SequenceId) {
        if let Some(entry) = self.sequences.get_mut(sequence as usize) {
            if let Tokens::Request { before, .. } = &mut entry.tokens {
                entry.tokens = Tokens::Known(std::mem::take(before));
            }
            entry.user = User::Nobody;
        }
    }

    /// Gives up retained prefixes, least recently used first, until `cells` tokens are freed or none is left.
    pub fn make_room(&mut self, cells: usize) -> Vec<SequenceId> {
        let mut freed = 0;
        let mut evicted = Vec::new();
        while freed < cells {
            let Some(at) = self.least_recently_used(|_, _| true) else { break };
            freed += self.sequences[at].tokens().len();
            evicted.push(self.evict(at));
        }
        evicted
    }

    /// Retained sequences and the tokens in them.
    pub fn retained(&self) -> (usize, usize) {
        let retained = self.sequences.iter().filter(|entry| entry.is_retained());
        retained.fold((0, 0), |(entries, tokens), entry| (entries + 1, tokens + entry.tokens().len()))
    }

    fn longest_match(&self, wanted: &[Token]) -> Option<(usize, usize)> {
        let shared = |entry: &Sequence| entry.tokens().iter().zip(wanted).take_while(|(a, b)| a == b).count();
        self.sequences
            .iter()
            .enumerate()
            .map(|(at, entry)| (at, shared(entry)))
            .filter(|(_, shared)| *shared >= MIN_SHARED)
            // Among equals one that nobody uses, which may serve in place; and of those the one with least beyond.
            .max_by_key(|(at, shared)| {
                let entry = &self.sequences[*at];
                (*shared, entry.user == User::Nobody, std::cmp::Reverse(entry.tokens().len()))
            })
    }

    fn spare(&self, source: Option<usize>) -> Option<usize> {
        let empty = |entry: &Sequence| entry.user == User::Nobody && entry.tokens().is_empty();
        let other = |at: usize, _: &Sequence| Some(at) != source;
        self.sequences.iter().position(empty).or_else(|| self.least_recently_used(other))
    }

    fn least_recently_used(&self, among: impl Fn(usize, &Sequence) -> bool) -> Option<usize> {
        let retained = self.sequences.iter().enumerate();
        let retained = retained.filter(|(at, entry)| entry.is_retained() && among(*at, entry));
        retained.min_by_key(|(_, entry)| entry.used_at).map(|(at, _)| at)
    }

    fn occupy(&mut self, at: usize, wanted: &Arc<[Token]>, placement: Placement) -> Reservation {
        self.touch(at);
        let entry = &mut self.sequences[at];
        let before = match &mut entry.tokens {
            Tokens::Known(tokens) => std::mem::take(tokens),
            Tokens::Request { before, .. } => std::mem::take(before),
        };
        entry.tokens = Tokens::Request { wanted: wanted.clone(), before };
        entry.user = User::Request;
        if placement != Placement::InPlace {
            entry.demand = Demand::None;
        }
        Reservation { sequence: at as SequenceId, placement }
    }

    fn touch(&mut self, at: usize) {
        self.clock += 1;
        self.sequences[at].used_at = self.clock;
    }

    fn evict(&mut self, at: usize) -> SequenceId {
        self.sequences[at] = Sequence::empty();
        at as SequenceId
    }

    fn evict_over_budget(&mut self) -> Vec<SequenceId> {
        let mut evicted = Vec::new();
        while let Some(at) = self.over_budget() {
            evicted.push(self.evict(at));
        }
        evicted
    }

    /// The prefix to give up next, if any.
    fn over_budget(&self) -> Option<usize> {
        let cheap = |_: usize, entry: &Sequence| entry.is_cheap();
        let cheap_entries = self.sequences.iter().filter(|entry| entry.is_retained() && entry.is_cheap()).count();
        let (entries, tokens) = self.retained();
        if cheap_entries > CHEAP_ENTRIES {
            self.least_recently_used(cheap)
        } else if entries > self.budget.entries || tokens > self.budget.tokens {
            self.least_recently_used(cheap).or_else(|| self.least_recently_used(|_, _| true))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
