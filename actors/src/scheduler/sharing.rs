//! Who waits for whom: an equal new prefix of several requests is prefilled once. Pure.
//!
//! A request that has a place and prefills is a producer. A queued request that has much in common with what a producer
//! is yet to compute waits in the queue until the producer's KV covers it, then copies. It waits for nobody who waits
//! himself, so there are no cycles; and whatever becomes of the producer, its waiters are looked at again: the first of
//! them becomes the next producer and goes on from what was left.

use std::collections::HashMap;

use crate::engine::protocol::{MemoryKind, RequestId};
use crate::kv_cache::index::{Reuse, Wanted};

/// So many tokens must be saved for a request to wait.
const MIN_SAVED: usize = 64;

/// Producers, and who waits for them.
#[derive(Debug)]
pub struct Sharing {
    memory: MemoryKind,
    producers: HashMap<RequestId, Producer>,
    waits: HashMap<RequestId, Wait>,
}

/// Whether a queued request may take a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is worth waiting for.
    Now,
    /// When this request has computed what both need, or is over.
    After(RequestId),
}

/// Whether a queued request waits no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the queue is to be looked at again"]
pub enum Woken {
    /// All wait on.
    Nobody,
    /// At least one.
    Somebody,
}

impl Woken {
    /// Whether one of two events woke somebody.
    pub fn or(self, other: Self) -> Self {
        if self == Self::Somebody { self } else { other }
    }
}

#[derive(Debug)]
struct Producer {
    wanted: Wanted,
    /// Tokens with KV; `None`: the cache has not answered yet.
    covered: Option<usize>,
    /// The least that one of its waiters waits for.
    next_stop: usize,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    producer: RequestId,
    until: usize,
}

impl Sharing {
    /// Nobody prefills. Only plain attention can share what is being computed: other memories can't be cut.
    pub fn new(memory: MemoryKind) -> Self {
        Self { memory, producers: HashMap::new(), waits: HashMap::new() }
    }

    /// Whether a queued request may take a place; if not, it is woken when it may.
    pub fn turn(&mut self, request: RequestId, wanted: &Wanted) -> Turn {
        if let Some(wait) = self.waits.get(&request) {
            return Turn::After(wait.producer);
        }
        let Some(wait) = self.worth_waiting_for(request, wanted) else { return Turn::Now };
        if let Some(producer) = self.producers.get_mut(&wait.producer) {
            producer.next_stop = producer.next_stop.min(wait.until);
        }
        self.waits.insert(request, wait);
        Turn::After(wait.producer)
    }

    /// Those that wait for another.
    pub fn waiters(&self) -> impl Iterator<Item = RequestId> {
        self.waits.keys().copied()
    }

    /// Whether anybody waits for this request.
    pub fn is_awaited(&self, request: RequestId) -> bool {
        self.waits.values().any(|wait| wait.producer == request)
    }

    /// Whether a queued request waits for another.
    pub fn waits(&self, request: RequestId) -> bool {
        self.waits.contains_key(&request)
    }

    /// A request has left the queue for a place.
    pub fn begins(&mut self, request: RequestId, wanted: Wanted) {
        self.waits.remove(&request);
        // One that computes what the cache has already is nobody to wait for.
        let reuses = self.memory == MemoryKind::Attention && wanted.reuse == Reuse::Allowed;
        if reuses && wanted.tokens.len() >= MIN_SAVED {
            self.producers.insert(request, Producer { wanted, covered: None, next_stop: usize::MAX });
        }
    }

    /// A request with a place has a sequence in which so many of its tokens have KV.
    pub fn placed(&mut self, request: RequestId, cached: usize) -> Woken {
        let Some(producer) = self.producers.get_mut(&request) else { return Woken::Nobody };
        producer.covered = Some(cached);
        // Until now nobody knew whether it was worth waiting.
        self.wake(request, cached.saturating_add(MIN_SAVED - 1))
    }

    /// So many of a running request's tokens have no KV yet.
    pub fn prefilled(&mut self, request: RequestId, left: usize) -> Woken {
        let Some(producer) = self.producers.get_mut(&request) else { return Woken::Nobody };
        if left == 0 {
            return self.ends(request);
        }
        let covered = producer.wanted.tokens.len().saturating_sub(left);
        producer.covered = Some(covered);
        if covered < producer.next_stop { Woken::Nobody } else { self.wake(request, covered) }
    }

    /// A request is through with its prompt, has lost its place, or is over.
    pub fn ends(&mut self, request: RequestId) -> Woken {
        let woken = self.wake(request, usize::MAX);
        self.producers.remove(&request);
        woken
    }

    /// A request has left the queue for good.
    pub fn forget(&mut self, request: RequestId) {
        self.waits.remove(&request);
    }

    fn worth_waiting_for(&self, request: RequestId, wanted: &Wanted) -> Option<Wait> {
        if wanted.reuse == Reuse::Forbidden || wanted.tokens.len() < MIN_SAVED {
            return None;
        }
        // Its last token is decoded in any case.
        let most = wanted.tokens.len() - 1;
        let mut best: Option<Wait> = None;
        let mut covered = 0;
        for (producer, it) in self.producers.iter().filter(|(id, it)| **id != request && it.serves(wanted)) {
            let until = common_prefix(&it.wanted.tokens, &wanted.tokens).min(most);
            covered = covered.max(it.covered.unwrap_or(0).min(until));
            if best.is_none_or(|best| (until, *producer) > (best.until, best.producer)) {
                best = Some(Wait { producer: *producer, until });
            }
        }
        // What the cache had of the common part the producer was given as well: `covered` has it.
        best.filter(|wait| wait.until >= covered + MIN_SAVED)
    }

    /// Ends the waits for a producer that has come to `covered`.
    fn wake(&mut self, request: RequestId, covered: usize) -> Woken {
        let Some(producer) = self.producers.get_mut(&request) else { return Woken::Nobody };
        if producer.next_stop == usize::MAX {
            return Woken::Nobody;
        }
        let before = self.waits.len();
        self.waits.retain(|_, wait| wait.producer != request || wait.until > covered);
        let left = self.waits.values().filter(|wait| wait.producer == request).map(|wait| wait.until);
        producer.next_stop = left.min().unwrap_or(usize::MAX);
        if self.waits.len() < before { Woken::Somebody } else { Woken::Nobody }
    }
}

impl Producer {
    fn serves(&self, wanted: &Wanted) -> bool {
        self.wanted.tenant == wanted.tenant
    }
}

fn common_prefix<T: PartialEq>(one: &[T], other: &[T]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
