//! Who runs next. Pure: an event goes in, actions come out, no runtime.
//!
//! First come, first served by arrival, so a resubmitted request keeps its place. A request is admitted when a place
//! is free and its tokens fit beside those of the running ones. Two states of one request never coexist: it is
//! queued, reserving or running.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::engine::protocol::{Placement, RequestId, SequenceId, Token};
use crate::supervision::Gate;

/// Tokens kept free for each running sequence when another is admitted, so that it can go on for a while.
const HEADROOM_TOKENS: usize = 32;

/// What the scheduler is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session wants its request run, for the first time or again. Replaces an older submission of it.
    Submit {
        /// The request.
        request: RequestId,
        /// Prompt and tokens emitted so far.
        tokens: Arc<[Token]>,
        /// Arrival of the request; lower goes first.
        rank: u64,
        /// Who may run beside it.
        company: Company,
    },
    /// The session does not want it any more.
    Cancel(RequestId),
    /// The engine's inventory is in the index: reservations may begin.
    CacheReady,
    /// Answer to `Reserve`.
    Reserved {
        /// The request.
        request: RequestId,
        /// Its sequence.
        sequence: SequenceId,
        /// Where its prefix lies.
        placement: Placement,
    },
    /// Answer to `Reserve`: every sequence is busy.
    NoSequence(RequestId),
    /// The engine ended a sequence.
    Ended {
        /// The request.
        request: RequestId,
        /// The sequence it ran on.
        sequence: SequenceId,
        /// Tokens with KV.
        kv_tokens: usize,
    },
    /// The engine is out of cells and nothing retained is left to evict.
    NoRoom,
    /// Admit nobody, or go on.
    SetGate(Gate),
}

/// Who may run beside a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Whoever fits.
    Any,
    /// Nobody: it may have killed the engine.
    Nobody,
}

/// What the scheduler does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask the kv-cache for a sequence.
    Reserve {
        /// The request.
        request: RequestId,
        /// Its tokens.
        tokens: Arc<[Token]>,
    },
    /// Start it in the engine.
    Admit {
        /// The request.
        request: RequestId,
        /// On this sequence.
        sequence: SequenceId,
        /// With this advice.
        placement: Placement,
        /// With this rank.
        rank: u64,
    },
    /// Stop it in the engine.
    CancelInEngine(RequestId),
    /// Give a reservation back unused.
    Abandon(SequenceId),
    /// Tell the kv-cache what lies in a sequence that is free now.
    Release {
        /// The request that ran on it.
        request: RequestId,
        /// The sequence.
        sequence: SequenceId,
        /// The tokens with KV.
        tokens: Vec<Token>,
    },
    /// Have a sequence's KV freed.
    Evict(SequenceId),
    /// The session has to submit again; nothing it has is lost.
    Preempted(RequestId),
    /// The request is over for the scheduler.
    Forget(RequestId),
    /// Whether anybody waits has changed.
    WaitingChanged(usize),
}

/// Queue and running set.
#[derive(Debug)]
pub struct Policy {
    limits: PolicyLimits,
    cache: Cache,
    gate: Gate,
    queue: BTreeMap<(u64, RequestId), Arc<[Token]>>,
    ranks: HashMap<RequestId, u64>,
    /// Those that run alone, queued or running.
    loners: HashSet<RequestId>,
    active: HashMap<RequestId, Active>,
    waiting_told: usize,
}

/// Bounds of the running set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Most sequences at once.
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
    rank: u64,
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
    /// For its cells; its session submits again.
    Preempted,
    /// Submitted again while it ran.
    Replaced(Arc<[Token]>),
}

impl Policy {
    /// Nothing queued, nothing running.
    pub fn new(limits: PolicyLimits) -> Self {
        Self {
            limits,
            cache: Cache::Unknown,
            gate: Gate::Open,
            queue: BTreeMap::new(),
            ranks: HashMap::new(),
            loners: HashSet::new(),
            active: HashMap::new(),
            waiting_told: 0,
        }
    }

    /// Takes an event in; the actions are to be carried out in order.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Submit { request, tokens, rank, company } => {
                if company == Company::Nobody {
                    self.loners.insert(request);
                }
                self.submit(request, tokens, rank, actions);
            }
            Event::Cancel(request) => self.cancel(request, actions),
            Event::CacheReady => self.cache = Cache::Ready,
            Event::Reserved { request, sequence, placement } => self.reserved(request, sequence, placement, actions),
            Event::NoSequence(request) => self.no_sequence(request),
            Event::Ended { request, sequence, kv_tokens } => {
                self.ended(request, sequence, kv_tokens, actions);
            }
            Event::NoRoom => self.preempt_for_cells(actions),
            Event::SetGate(gate) => self.gate = gate,
        }
        self.fill_places(actions);
        self.tell_waiting(actions);
    }

    /// How many requests go before this one; `None` if it is not queued.
    pub fn position(&self, request: RequestId) -> Option<usize> {
        let rank = *self.ranks.get(&request)?;
        Some(self.queue.range(..(rank, request)).count())
    }

    /// Requests queued.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Requests with a place, reserving ones included.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    fn submit(&mut self, request: RequestId, tokens: Arc<[Token]>, rank: u64, actions: &mut Vec<Action>) {
        match self.active.get_mut(&request) {
            Some(active) => {
                if active.phase == Phase::Running && !matches!(active.stop, Stop::Replaced(_)) {
                    actions.push(Action::CancelInEngine(request));
                }
                active.stop = Stop::Replaced(tokens);
            }
            None => self.enqueue(request, tokens, rank),
        }
    }

    fn enqueue(&mut self, request: RequestId, tokens: Arc<[Token]>, rank: u64) {
        if let Some(older) = self.ranks.insert(request, rank) {
            self.queue.remove(&(older, request));
        }
        self.queue.insert((rank, request), tokens);
    }

    fn dequeue(&mut self, request: RequestId) -> bool {
        self.ranks.remove(&request).is_some_and(|rank| self.queue.remove(&(rank, request)).is_some())
    }

    fn cancel(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        if self.dequeue(request) {
            self.loners.remove(&request);
            return actions.push(Action::Forget(request));
        }
        let Some(active) = self.active.get_mut(&request) else { return };
        if active.phase == Phase::Running && active.stop == Stop::No {
            actions.push(Action::CancelInEngine(request));
        }
        active.stop = Stop::Cancelled;
    }

    fn reserved(&mut self, request: RequestId, sequence: SequenceId, placement: Placement, actions: &mut Vec<Action>) {
        let wanted = self.active.get_mut(&request).filter(|active| active.phase == Phase::Reserving);
        let Some(active) = wanted else { return actions.push(Action::Abandon(sequence)) };
        if active.stop == Stop::No {
            active.phase = Phase::Running;
            let rank = active.rank;
            return actions.push(Action::Admit { request, sequence, placement, rank });
        }
        actions.push(Action::Abandon(sequence));
        self.finish(request, actions);
    }

    /// Cannot happen while the running limit is below the number of sequences; the request waits for the next end.
    fn no_sequence(&mut self, request: RequestId) {
        self.cache = Cache::Full;
        if let Some(active) = self.active.remove(&request) {
            match active.stop {
                Stop::Cancelled => {}
                Stop::Replaced(tokens) => self.enqueue(request, tokens, active.rank),
                Stop::No | Stop::Preempted => self.enqueue(request, active.tokens.into(), active.rank),
            }
        }
    }

    /// Notes new tokens; on the hot path, and never a reason to act.
    pub fn emitted(&mut self, request: RequestId, tokens: &[Token]) {
        if let Some(active) = self.active.get_mut(&request) {
            active.tokens.extend_from_slice(tokens);
        }
    }

    fn ended(&mut self, request: RequestId, sequence: SequenceId, kv_tokens: usize, actions: &mut Vec<Action>) {
        if self.cache == Cache::Full {
            self.cache = Cache::Ready;
        }
        let Some(active) = self.active.get_mut(&request) else { return };
        let mut tokens = std::mem::take(&mut active.tokens);
        tokens.truncate(kv_tokens);
        if active.stop == Stop::Preempted {
            actions.push(Action::Evict(sequence));
            tokens.clear();
        }
        actions.push(Action::Release { request, sequence, tokens });
        self.finish(request, actions);
    }

    /// A request has left the running set.
    fn finish(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        let Some(active) = self.active.remove(&request) else { return };
        match active.stop {
            Stop::No | Stop::Cancelled => actions.push(Action::Forget(request)),
            Stop::Preempted => actions.push(Action::Preempted(request)),
            Stop::Replaced(tokens) => return self.enqueue(request, tokens, active.rank),
        }
        // A preempted one says again who may run beside it.
        self.loners.remove(&request);
    }

    /// The youngest makes room. A single request always fits: its length is bounded by the context.
    fn preempt_for_cells(&mut self, actions: &mut Vec<Action>) {
        let running = self.active.iter().filter(|(_, active)| active.phase == Phase::Running);
        if running.clone().any(|(_, active)| active.stop != Stop::No) || running.clone().count() < 2 {
            return;
        }
        let youngest = running.max_by_key(|(request, active)| (active.rank, **request)).map(|(request, _)| *request);
        if let Some(active) = youngest.and_then(|request| self.active.get_mut(&request)) {
            active.stop = Stop::Preempted;
        }
        actions.extend(youngest.map(Action::CancelInEngine));
    }

    fn fill_places(&mut self, actions: &mut Vec<Action>) {
        while self.cache == Cache::Ready && self.gate == Gate::Open && self.active.len() < self.limits.running {
            let Some(((rank, request), tokens)) = self.queue.first_key_value() else { return };
            let (rank, request, tokens) = (*rank, *request, tokens.clone());
            if !self.fits(tokens.len()) || !self.accepts_company(request) {
                return;
            }
            self.dequeue(request);
            let active = Active { tokens: tokens.to_vec(), rank, phase: Phase::Reserving, stop: Stop::No };
            self.active.insert(request, active);
            actions.push(Action::Reserve { request, tokens });
        }
    }

    /// A loner waits until nobody runs, and nobody joins it.
    fn accepts_company(&self, request: RequestId) -> bool {
        self.active.is_empty()
            || (!self.loners.contains(&request) && !self.active.keys().any(|active| self.loners.contains(active)))
    }

    /// Whether a request's tokens fit beside the running ones, with headroom. Alone it always does.
    fn fits(&self, tokens: usize) -> bool {
        let used: usize = self.active.values().map(|active| active.tokens.len() + HEADROOM_TOKENS).sum();
        self.active.is_empty() || used + tokens + HEADROOM_TOKENS <= self.limits.n_ctx
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
