//! What a retained prefix is worth, and which goes first. Pure.
//!
//! What a request leaves behind is worth what it would cost to compute again. Where retained prefixes stay in a pool
//! of cells they slow every step, and short ones that nobody came back to are kept only for a few requests. The others go by GreedyDual (Young,
//! 1994): each use sets a prefix's worth to the worth of the last one evicted plus its weight, so that a prefix which was
//! wanted again outlives several generations of those that were not, and one that nobody wants any more goes in the end.

/// A prefix of so many tokens is costly to compute again.
const COSTLY_TOKENS: usize = 512;

/// So many prefixes that are cheap to compute again are retained where they slow every step.
pub(crate) const CHEAP_ENTRIES: usize = 8;

/// Weight of a prefix that somebody came back to; others weigh 1.
const PROVEN_WEIGHT: u64 = 4;

/// How many tokens may stay behind in sequences without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most retained sequences.
    pub entries: usize,
    /// Most tokens in them.
    pub tokens: usize,
    /// Whether a prefix that several hold counts once: in one pool of cells it takes its room once.
    pub shared_once: bool,
    /// Most of them that are cheap to compute again: short, and nobody came back to them.
    pub cheap: usize,
}

/// What a prefix is worth: the smallest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worth {
    value: u64,
    used_at: u64,
    demand: Demand,
}

/// Whether anybody came back to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    None,
    Proven,
}

/// Bounds, clock and age.
#[derive(Debug)]
pub(crate) struct Retention {
    budget: Budget,
    clock: u64,
    /// Worth of the last one evicted.
    age: u64,
}

impl Worth {
    /// Of a sequence that was never used.
    pub(crate) const NEW: Self = Self { value: 0, used_at: 0, demand: Demand::None };

    /// Of one that somebody came back to.
    pub(crate) const WANTED: Self = Self { demand: Demand::Proven, ..Self::NEW };

    /// Whether so many tokens are cheap to compute again and nobody came back to them.
    pub(crate) fn is_cheap(&self, tokens: usize) -> bool {
        self.demand == Demand::None && tokens < COSTLY_TOKENS
    }

    /// The same, wanted at least as much as the other.
    pub(crate) fn with_demand_of(self, other: Self) -> Self {
        Self { demand: self.demand.max(other.demand), ..self }
    }
}

impl Retention {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, clock: 0, age: 0 }
    }

    /// Whether a prefix that several hold counts once.
    pub(crate) fn shared_once(&self) -> bool {
        self.budget.shared_once
    }

    /// Somebody used a prefix now.
    pub(crate) fn used(&mut self, worth: &mut Worth) {
        self.clock += 1;
        worth.used_at = self.clock;
        let weight = if worth.demand == Demand::Proven { PROVEN_WEIGHT } else { 1 };
        worth.value = self.age + weight;
    }

    /// A request came for a prefix; `demand` says whether that proves anything.
    pub(crate) fn wanted_again(&mut self, worth: &mut Worth, demand: Demand) {
        worth.demand = worth.demand.max(demand);
        self.used(worth);
    }

    /// A prefix was given up.
    pub(crate) fn evicted(&mut self, worth: Worth) {
        self.age = self.age.max(worth.value);
    }

    pub(crate) fn over_budget(&self, entries: usize, tokens: usize) -> bool {
        entries > self.budget.entries || tokens > self.budget.tokens
    }

    pub(crate) fn too_many_cheap(&self, entries: usize) -> bool {
        entries > self.budget.cheap
    }
}
