//! Who runs next. Pure: an event goes in, actions come out, no runtime.
//!
//! Whose turn it is says the [`Queue`]. That request is admitted when a place is free and its tokens fit beside those of
//! the running ones; nobody overtakes it meanwhile, so that large ones get their turn. If nothing is free, running ones
//! of worse classes make room and come back later with all they have. How many run at once says [`Places`]. Two states of one request never coexist: it is
//! queued, reserving or running.

mod events;
mod prefill;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use self::events::{Action, Company, Event, Leave};
use self::prefill::Prefill;
pub use self::prefill::Prefixes;
use super::places::Places;
use super::queue::{Queue, Queued, Served, Standing};
use super::sharing::Sharing;
use crate::engine::protocol::{MemoryKind, Placement, RequestId, SequenceId, Token};
use crate::supervision::Gate;

/// Tokens kept free for each running sequence when another is admitted, so that it can go on for a while.
const HEADROOM_TOKENS: usize = 32;

/// Queue and running set.
#[derive(Debug)]
pub struct Policy {
    limits: PolicyLimits,
    cache: Cache,
    gate: Gate,
    queue: Queue,
    sharing: Sharing,
    /// Of those queued or running.
    prefixes: HashMap<RequestId, Prefixes>,
    /// Those that run alone, queued or running.
    loners: HashSet<RequestId>,
    active: HashMap<RequestId, Active>,
    places: Places,
    waiting_told: usize,
}

/// Bounds of the running set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Most sequences at once, as long as deadlines are met.
    pub running: usize,
    /// Cells of the context.
    pub n_ctx: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    Unknown,
    Ready,
    /// Every sequence is busy, until one ends.
    Full,
}

#[derive(Debug)]
struct Active {
    tokens: Vec<Token>,
    standing: Standing,
    /// The best rank of those that wait for what it computes, if that is better than its own.
    lead: Option<(i32, u64)>,
    /// Its sequence, as soon as it runs.
    sequence: Option<SequenceId>,
    prefill: Prefill,
    /// Tokens that its tenant was charged for when it was taken.
    charge: u64,
    phase: Phase,
    stop: Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reserving,
    Running,
}

/// What becomes of a request when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    No,
    Cancelled,
    /// Its session submits again.
    Preempted(Kv),
    /// Submitted again while it ran.
    Replaced(Arc<[Token]>, Served),
}

/// What becomes of the KV of a preempted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kv {
    /// Only its place is needed; the prefix stays as long as there is room for it.
    Kept,
    /// Its cells are needed.
    Freed,
}

impl Policy {
    /// Nothing queued, nothing running.
    pub fn new(limits: PolicyLimits, memory: MemoryKind) -> Self {
        Self {
            limits,
            cache: Cache::Unknown,
            gate: Gate::Open,
            queue: Queue::default(),
            sharing: Sharing::new(memory),
            prefixes: HashMap::new(),
            loners: HashSet::new(),
            active: HashMap::new(),
            places: Places::new(limits.running),
            waiting_told: 0,
        }
    }

    /// Takes an event in; the actions are to be carried out in order.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Submit { request, tokens, standing, served, company, prefixes } => {
                self.prefixes.insert(request, prefixes);
                match company {
                    Company::Nobody => self.loners.insert(request),
                    Company::Any => self.loners.remove(&request),
                };
                self.submit(request, tokens, standing, served, actions);
            }
            Event::Cancel { request, leave } => self.cancel(request, leave, actions),
            Event::CacheReady => self.cache = Cache::Ready,
            Event::Reserved { request, sequence, placement, cached } => {
                self.reserved(request, sequence, placement, actions);
                self.placed(request, cached);
            }
            Event::NoSequence(request) => self.no_sequence(request, actions),
            Event::Started { request, reused } => self.started(request, reused),
            Event::Ended { request, sequence, kv_tokens } => {
                self.ended(request, sequence, kv_tokens, actions);
            }
            Event::NoRoom => self.preempt_for_cells(actions),
            // The queue is looked at in any case.
            Event::Woken => {}
            Event::SetGate(gate) => self.gate = gate,
        }
        self.fill_places(actions);
        self.step_back(actions);
        self.make_way(actions);
        self.tell_waiting(actions);
    }

    /// With so many places open as the policy before this one had; `None`: there was none.
    #[must_use]
    pub fn starting_at(self, places: Option<usize>) -> Self {
        Self { places: self.places.starting_at(places), ..self }
    }

    /// How many requests go before each that is queued.
    pub fn positions(&self) -> HashMap<RequestId, u32> {
        self.queue.positions()
    }

    /// Whether a request waits for a place.
    pub fn is_queued(&self, request: RequestId) -> bool {
        self.queue.standing(request).is_some()
    }

    /// Requests queued.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Most requests with a place, at present.
    pub fn places(&self) -> usize {
        self.places.open()
    }

    /// Requests with a place, reserving ones included.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    fn submit(
        &mut self,
        request: RequestId,
        tokens: Arc<[Token]>,
        standing: Standing,
        served: Served,
        actions: &mut Vec<Action>,
    ) {
        match self.active.get_mut(&request) {
            Some(active) => {
                if active.phase == Phase::Running && !matches!(active.stop, Stop::Replaced(..)) {
                    actions.push(Action::CancelInEngine(request));
                }
                active.stop = Stop::Replaced(tokens, served);
            }
            None => {
                self.sharing.forget(request);
                self.queue.push(request, standing, tokens, served);
            }
        }
    }

    fn cancel(&mut self, request: RequestId, leave: Leave, actions: &mut Vec<Action>) {
        if self.queue.remove(request).is_some() {
            self.sharing.forget(request);
            self.prefixes.remove(&request);
            self.loners.remove(&request);
            return actions.push(Action::Forget(request));
        }
        let running = self.active.len();
        let Some(active) = self.active.get_mut(&request) else { return };
        if active.phase == Phase::Running && active.stop == Stop::No {
            actions.push(Action::CancelInEngine(request));
        }
        let last = std::mem::replace(&mut active.stop, Stop::Cancelled);
        match leave {
            _ if last == Stop::Cancelled => {}
            Leave::Answered => self.places.answered(active.emitted()),
            Leave::Missed { most } => self.places.missed(active.progress(), most, running),
            Leave::Unwanted => {}
        }
    }

    fn reserved(&mut self, request: RequestId, sequence: SequenceId, placement: Placement, actions: &mut Vec<Action>) {
        let wanted = self.active.get_mut(&request).filter(|active| active.phase == Phase::Reserving);
        let Some(active) = wanted else { return actions.push(Action::Abandon(sequence)) };
        if active.stop == Stop::No {
            active.phase = Phase::Running;
            active.sequence = Some(sequence);
            let rank = active.rank();
            return actions.push(Action::Admit { request, sequence, placement, rank });
        }
        actions.push(Action::Abandon(sequence));
        self.finish(request, actions);
    }

    /// Cannot happen while the running limit is below the number of sequences; the request waits for the next end.
    fn no_sequence(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        self.cache = Cache::Full;
        let Some(Active { tokens, standing, charge, stop, .. }) = self.active.remove(&request) else { return };
        let _ = self.sharing.ends(request);
        self.queue.refund(standing, charge);
        let served = if charge > 0 { Served::Nothing } else { Served::Here };
        match stop {
            Stop::Cancelled => {
                self.prefixes.remove(&request);
                self.loners.remove(&request);
                actions.push(Action::Forget(request));
            }
            Stop::Replaced(tokens, served) => self.queue.push(request, standing, tokens, served),
            Stop::No | Stop::Preempted(_) => self.queue.push(request, standing, tokens.into(), served),
        }
        self.queue.leave(standing);
    }

    fn ended(&mut self, request: RequestId, sequence: SequenceId, kv_tokens: usize, actions: &mut Vec<Action>) {
        if self.cache == Cache::Full {
            self.cache = Cache::Ready;
        }
        let Some(active) = self.active.get_mut(&request) else { return };
        if active.stop == Stop::No {
            self.places.answered(active.emitted());
        }
        let mut tokens = std::mem::take(&mut active.tokens);
        tokens.truncate(kv_tokens);
        if active.stop == Stop::Preempted(Kv::Freed) {
            actions.push(Action::Evict(sequence));
            tokens.clear();
        }
        actions.push(Action::Release { request, sequence, tokens });
        self.finish(request, actions);
    }

    /// A request has left the running set.
    fn finish(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        let Some(Active { standing, stop, .. }) = self.active.remove(&request) else { return };
        // Whoever is woken is looked at when this event is through.
        let _ = self.sharing.ends(request);
        match stop {
            Stop::No | Stop::Cancelled => actions.push(Action::Forget(request)),
            Stop::Preempted(_) => actions.push(Action::Preempted(request)),
            Stop::Replaced(tokens, served) => {
                self.queue.push(request, standing, tokens, served);
                return self.queue.leave(standing);
            }
        }
        self.queue.leave(standing);
        // A preempted one says again who may run beside it.
        self.loners.remove(&request);
        self.prefixes.remove(&request);
    }

    /// The last in rank makes room. A single request always fits: its length is bounded by the context.
    fn preempt_for_cells(&mut self, actions: &mut Vec<Action>) {
        let running = || self.active.values().filter(|active| active.phase == Phase::Running);
        if running().any(|active| active.stop != Stop::No) || running().count() < 2 {
            return;
        }
        if let Some(last) = self.last_running() {
            self.preempt(last, Kv::Freed, actions);
        }
    }

    /// Of those that run and are not about to end: the youngest of the worst class.
    fn last_running(&self) -> Option<RequestId> {
        let running = self.active.iter().filter(|(_, it)| it.phase == Phase::Running && it.stop == Stop::No);
        running.max_by_key(|(request, active)| (active.rank(), **request)).map(|(request, _)| *request)
    }

    fn preempt(&mut self, request: RequestId, kv: Kv, actions: &mut Vec<Action>) {
        if let Some(active) = self.active.get_mut(&request) {
            active.stop = Stop::Preempted(kv);
            actions.push(Action::CancelInEngine(request));
        }
    }

    fn fill_places(&mut self, actions: &mut Vec<Action>) {
        while self.is_admitting() && self.active.len() < self.places.open() {
            let Some(next) = self.next(actions) else { return };
            if !self.fit_beside(self.active.values(), next.tokens.len()) || !self.accepts_company(next.request) {
                return;
            }
            let Some(Queued { request, standing, tokens, charge }) = self.queue.take(next.request) else { return };
            let wanted = self.wanted(request, &tokens);
            self.sharing.begins(request, wanted);
            let prefill = Prefill::new(tokens.len());
            let active = Active {
                tokens: tokens.to_vec(),
                standing,
                lead: None,
                sequence: None,
                prefill,
                charge,
                phase: Phase::Reserving,
                stop: Stop::No,
            };
            self.active.insert(request, active);
            self.tell_computed(actions);
            actions.push(Action::Reserve { request, tokens });
        }
    }

    /// Whoever waits in a better class than somebody runs in does not wait for that one's end.
    fn make_way(&mut self, actions: &mut Vec<Action>) {
        while self.is_admitting()
            && let Some(last) = self.last_running()
            && let Some(kv) = self.is_in_the_way(last)
        {
            self.preempt(last, kv, actions);
        }
    }

    /// Whether a better class waits for what this running request has, beyond what those leave that are about to end.
    fn is_in_the_way(&self, request: RequestId) -> Option<Kv> {
        let priority = self.active.get(&request)?.priority();
        let next = self.queue.next(|request| !self.sharing.waits(request));
        let next = next.filter(|next| next.standing.priority < priority)?;
        if self.loners.contains(&next.request) || !self.fits_beside_its_betters(&next) {
            // Preempting one would not do, and it is no reason to preempt all.
            return None;
        }
        let staying = || self.active.values().filter(|active| active.stop == Stop::No);
        let free = self.places.open().saturating_sub(staying().count());
        if self.loners.contains(&request) || self.better_than(priority) > free {
            return Some(Kv::Kept);
        }
        (!self.fit_beside(staying(), next.tokens.len())).then_some(Kv::Freed)
    }

    /// Whether the next request would fit if all worse ones were gone. If not, they would make room for nothing.
    fn fits_beside_its_betters(&self, next: &Queued) -> bool {
        let stays = |active: &&Active| active.stop == Stop::No && active.priority() <= next.standing.priority;
        let betters = || self.active.values().filter(stays);
        self.fit_beside(betters(), next.tokens.len()) && betters().count() < self.places.open()
    }

    fn is_admitting(&self) -> bool {
        self.cache == Cache::Ready && self.gate == Gate::Open
    }

    /// A loner waits until nobody runs, and nobody joins it.
    fn accepts_company(&self, request: RequestId) -> bool {
        self.active.is_empty()
            || (!self.loners.contains(&request) && !self.active.keys().any(|active| self.loners.contains(active)))
    }

    /// Whether so many tokens fit beside those of the others, with headroom. Alone they always do.
    fn fit_beside<'a>(&self, others: impl Iterator<Item = &'a Active>, tokens: usize) -> bool {
        let used: usize = others.map(|active| active.tokens.len() + HEADROOM_TOKENS).sum();
        used == 0 || used + tokens + HEADROOM_TOKENS <= self.limits.n_ctx
    }

    fn tell_waiting(&mut self, actions: &mut Vec<Action>) {
        let waiting = self.queue.len();
        if (waiting > 0) != (self.waiting_told > 0) {
            actions.push(Action::WaitingChanged(waiting));
        }
        self.waiting_told = waiting;
    }
}

#[cfg(test)]
mod tests;
