//! How far the running requests are with their prompts, and the queued ones that wait for that.

use std::sync::Arc;

use super::super::places::Progress;
use super::super::queue::{Queued, Standing};
use super::super::sharing::{Turn, Woken};
use super::{Action, Active, Phase, Policy, Stop};
use crate::engine::protocol::{RequestId, Token};
use crate::kv_cache::index::{Reuse, Wanted};
use crate::request::TenantId;

/// Whose prefixes may serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// Only this tenant's.
    pub tenant: TenantId,
    /// Whether any may.
    pub reuse: Reuse,
}

/// How far a request is with the tokens that it was queued with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefill {
    total: usize,
    /// Of these, those that were in the cache.
    found: usize,
    /// Those and what was computed since.
    computed: usize,
    /// Of these, the kv-cache knows.
    told: usize,
}

impl Prefill {
    /// Nothing of so many tokens is computed.
    pub(super) fn new(total: usize) -> Self {
        Self { total, found: 0, computed: 0, told: 0 }
    }

    /// Whether all of them have KV.
    pub(super) fn is_over(&self) -> bool {
        self.computed == self.total
    }
}

impl Active {
    /// Its order among those that run.
    pub(super) fn rank(&self) -> u64 {
        self.lead.map_or(self.standing.rank(), |(_, rank)| rank.min(self.standing.rank()))
    }

    /// Tokens emitted since it was submitted.
    pub(super) fn emitted(&self) -> usize {
        self.tokens.len().saturating_sub(self.prefill.total)
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let Prefill { total, found, computed, .. } = self.prefill;
        Progress { to_read: total - found, read: computed.saturating_sub(found), emitted: self.emitted() }
    }

    /// Its class.
    pub(super) fn priority(&self) -> i32 {
        self.lead.map_or(self.standing.priority, |(priority, _)| priority.min(self.standing.priority))
    }
}

impl Policy {
    /// What was found in the cache is nothing that its tenant was served.
    pub(super) fn started(&mut self, request: RequestId, reused: usize) {
        if let Some(active) = self.active.get_mut(&request) {
            let found = active.charge.min(reused as u64);
            active.charge -= found;
            self.queue.refund(active.standing, found);
        }
        self.placed(request, reused);
    }

    /// So many of a request's tokens have KV from the start, as far as is known.
    pub(super) fn placed(&mut self, request: RequestId, cached: usize) {
        if let Some(Active { prefill, .. }) = self.active.get_mut(&request) {
            let cached = cached.min(prefill.total.saturating_sub(1));
            (prefill.found, prefill.computed, prefill.told) = (cached, cached, cached);
            // Whoever is woken is looked at when this event is through.
            let _ = self.sharing.placed(request, cached);
        }
    }

    /// Notes new tokens, which also say that a request is through with its prompt, and that it kills no engine: whoever
    /// ran alone needs that no longer. On the hot path, see [`Policy::prefilled`].
    pub fn emitted(&mut self, request: RequestId, tokens: &[Token]) -> Woken {
        let Some(active) = self.active.get_mut(&request) else { return Woken::Nobody };
        active.tokens.extend_from_slice(tokens);
        self.queue.charge(active.standing, tokens.len() as u64);
        let (is_over, stays) = (active.prefill.is_over(), active.stop == Stop::No);
        let woken = if is_over { Woken::Nobody } else { self.prefilled(request, 0) };
        // Where it was submitted again meanwhile, that said who may run beside it.
        if stays && self.loners.remove(&request) { Woken::Somebody } else { woken }
    }

    /// Notes that so many of a running request's tokens have no KV yet. On the hot path: only if somebody is woken the
    /// policy has to be told [`Event::Woken`](super::Event::Woken).
    pub fn prefilled(&mut self, request: RequestId, left: usize) -> Woken {
        let Some(Active { prefill, .. }) = self.active.get_mut(&request) else { return Woken::Nobody };
        if prefill.is_over() {
            return Woken::Nobody;
        }
        prefill.computed = prefill.total.saturating_sub(left);
        self.sharing.prefilled(request, left)
    }

    /// The request that goes next, of those that wait for nobody's prefill. A loner waits for nobody: it computes all by
    /// itself.
    pub(super) fn next(&mut self, actions: &mut Vec<Action>) -> Option<Queued> {
        loop {
            let next = self.queue.next(|request| !self.sharing.waits(request))?;
            if self.loners.contains(&next.request) {
                return Some(next);
            }
            let wanted = self.wanted(next.request, &next.tokens);
            match self.sharing.turn(next.request, &wanted) {
                Turn::Now => return Some(next),
                Turn::After(producer) => self.lead(producer, next.standing, actions),
            }
        }
    }

    pub(super) fn wanted(&self, request: RequestId, tokens: &Arc<[Token]>) -> Wanted {
        let none = Prefixes { tenant: TenantId::NOBODY, reuse: Reuse::Forbidden };
        let Prefixes { tenant, reuse } = self.prefixes.get(&request).copied().unwrap_or(none);
        Wanted { tenant, tokens: tokens.clone(), reuse }
    }

    /// Somebody waits for what a request computes: it inherits his rank, if that is better.
    fn lead(&mut self, producer: RequestId, waiter: Standing, actions: &mut Vec<Action>) {
        let Some(active) = self.active.get_mut(&producer) else { return };
        let rank = waiter.rank();
        if rank < active.rank() {
            active.lead = Some((waiter.priority, rank));
            if active.phase == Phase::Running {
                actions.push(Action::SetRank { request: producer, rank });
            }
        }
    }

    /// Those for whom nobody waits any more have their own rank again.
    pub(super) fn step_back(&mut self, actions: &mut Vec<Action>) {
        for (request, active) in self.active.iter_mut().filter(|(_, active)| active.lead.is_some()) {
            if !self.sharing.is_awaited(*request) {
                active.lead = None;
                actions.push(Action::SetRank { request: *request, rank: active.rank() });
            }
        }
    }

    /// Before a reservation, so that it may use all that is there.
    pub(super) fn tell_computed(&mut self, actions: &mut Vec<Action>) {
        for Active { sequence, prefill, .. } in self.active.values_mut() {
            if let Some(sequence) = sequence.filter(|_| prefill.told < prefill.computed) {
                prefill.told = prefill.computed;
                actions.push(Action::Computed { sequence, tokens: prefill.computed });
            }
        }
    }

    /// How many wait for a place in classes better than this one.
    pub(super) fn better_than(&self, priority: i32) -> usize {
        let standings = self.sharing.waiters().filter_map(|request| self.queue.standing(request));
        let aside = standings.filter(|standing| standing.priority < priority).count();
        self.queue.better_than(priority).saturating_sub(aside)
    }
}

#[cfg(test)]
mod tests;
