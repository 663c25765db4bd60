//! The response cache actor: finished answers by what was asked, and who is computing an answer right now.
//!
//! Supervised by the root. A session whose answer is determined asks it first, and is told to give a kept answer again,
//! to follow the session that computes the same already, or to lead: to compute, hand on to followers, and give the
//! answer back here. When it dies it starts empty: leaders and followers go on without it, what was asked and not yet
//! answered counts as not found, and answers that are finished later are kept by the next incarnation. It has nothing to
//! finish when it stops.

mod flights;
pub mod key;
pub mod recording;
pub mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use self::flights::{Flights, Joined};
use self::key::Key;
use self::recording::KeptAnswer;
use self::store::{Limits, Store};
use crate::boards::response_cache as board;
use crate::engine::protocol::RequestId;
use crate::session::{SessionMsg, SessionRef};
use crate::supervision::mailbox;
use crate::wiring::Wiring;

/// Reference to a response cache.
pub type ResponseCacheRef = ActorRef<ResponseCacheMsg>;

/// What the response cache is told.
#[derive(Debug)]
pub enum ResponseCacheMsg {
    /// From a session: is there an answer? Answered through the question itself, also when it is lost.
    Ask(Question),
    /// From a session: the complete answer to this. Ends its lead.
    Keep {
        /// What was asked.
        key: Key,
        /// Who computed it.
        request: RequestId,
        /// The answer.
        answer: Arc<KeptAnswer>,
    },
    /// From a leader's guard: it computes this no longer. A no-op for everybody else.
    Release {
        /// What was asked.
        key: Key,
        /// Who computed it.
        request: RequestId,
    },
    /// From its own timer: forget what is too old or too much.
    Sweep,
}

crate::impl_message!(ResponseCacheMsg);

/// A session's question. It answers itself with [`Verdict::Unknown`] when it is dropped unanswered.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub key: Key,
    /// Who asks.
    pub request: RequestId,
    /// Its class; lower runs first.
    pub priority: i32,
    /// A leader that was followed and is gone.
    pub gone: Option<RequestId>,
    /// Who asks; `None` once answered.
    session: Option<SessionRef>,
}

/// What a session is told.
#[derive(Debug)]
pub enum Verdict {
    /// This is the answer.
    Kept(Arc<KeptAnswer>),
    /// Nobody else computes it. The guard ends the lead when it is dropped.
    Lead(Lead),
    /// This session computes it.
    Follow {
        /// The leader.
        leader: SessionRef,
        /// Its request.
        request: RequestId,
    },
    /// The cache cannot say.
    Unknown,
}

/// The right and duty to compute an answer that others may follow.
#[derive(Debug)]
pub struct Lead {
    key: Key,
    request: RequestId,
    wiring: Arc<Wiring>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        // Undeliverable: a cache that is not there knows of no leaders.
        let _ = self.wiring.response_cache.cast(ResponseCacheMsg::Release { key: self.key, request: self.request });
    }
}

impl Question {
    /// A question of this session.
    pub fn new(key: Key, request: RequestId, priority: i32, gone: Option<RequestId>, session: SessionRef) -> Self {
        Self { key, request, priority, gone, session: Some(session) }
    }

    fn answer(mut self, verdict: Verdict) {
        if let Some(session) = self.session.take() {
            // A session that is gone is a client that left; a lead that it does not take ends by itself.
            let _ = session.cast(SessionMsg::CacheAnswered(verdict));
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.cast(SessionMsg::CacheAnswered(Verdict::Unknown));
        }
    }
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheOptions {
    /// Most answers; 0: none is kept, but equal requests in flight are still computed once. Default 1000.
    pub max_entries: usize,
    /// Most bytes of memory for them; `None`: no bound. Default 256 MiB.
    pub max_bytes: Option<usize>,
    /// Share of both down to which room is made, 0 to 1. Default 0.9.
    pub eviction_threshold: f64,
    /// Time between two sweeps. Default 1 s.
    pub cleanup_interval: Duration,
    /// Age at which an answer is forgotten; `None`: never. Default one hour.
    pub ttl: Option<Duration>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_entries: 1000,
            max_bytes: Some(256 << 20),
            eviction_threshold: 0.9,
            cleanup_interval: Duration::from_secs(1),
            ttl: Some(Duration::from_secs(3600)),
        }
    }
}

/// What a response cache starts with.
#[derive(Debug, Clone)]
pub struct ResponseCacheArgs {
    /// How much it keeps.
    pub options: CacheOptions,
    /// The others.
    pub wiring: Arc<Wiring>,
}

/// State of a response cache.
#[derive(Debug)]
pub struct ResponseCacheState {
    wiring: Arc<Wiring>,
    store: Store<Arc<KeptAnswer>>,
    flights: Flights<SessionRef>,
    begun: Instant,
    sweeps: JoinHandle<()>,
}

impl Drop for ResponseCacheState {
    fn drop(&mut self) {
        self.sweeps.abort();
    }
}

/// The actor.
#[derive(Debug, Default)]
pub struct ResponseCache;

#[ractor::actor(message = ResponseCacheMsg, state = ResponseCacheState, arguments = ResponseCacheArgs)]
impl ResponseCache {
    async fn pre_start(
        &self,
        myself: ResponseCacheRef,
        args: ResponseCacheArgs,
    ) -> Result<ResponseCacheState, ActorProcessingErr> {
        let CacheOptions { max_entries, max_bytes, eviction_threshold, cleanup_interval, ttl } = args.options;
        let limits = Limits { entries: max_entries, bytes: max_bytes, threshold: eviction_threshold, ttl };
        let state = ResponseCacheState {
            wiring: args.wiring,
            store: Store::new(limits),
            flights: Flights::default(),
            begun: Instant::now(),
            sweeps: myself.send_interval(cleanup_interval, || ResponseCacheMsg::Sweep),
        };
        for counter in [board::HITS, board::MISSES, board::COALESCED, board::EVICTIONS] {
            state.count(counter, 0);
        }
        state.show();
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ResponseCacheRef,
        message: ResponseCacheMsg,
        state: &mut ResponseCacheState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            ResponseCacheMsg::Ask(question) => state.on_ask(question),
            ResponseCacheMsg::Keep { key, request, answer } => state.on_keep(key, request, answer),
            ResponseCacheMsg::Release { key, request } => state.flights.land(&key, request),
            ResponseCacheMsg::Sweep => state.on_sweep(),
        }
        state.show();
        Ok(())
    }
}

impl ResponseCacheState {
    fn on_ask(&mut self, question: Question) {
        let Question { key, request, priority, gone, .. } = question;
        let now = self.begun.elapsed();
        if let Some(answer) = self.store.get(&key, now) {
            let answer = answer.clone();
            self.count(board::HITS, 1);
            return question.answer(Verdict::Kept(answer));
        }
        let Some(session) = question.session.clone() else { return };
        let verdict = match self.flights.join(key, (request, priority), session, gone) {
            Joined::Leads => {
                self.count(board::MISSES, 1);
                Verdict::Lead(Lead { key, request, wiring: self.wiring.clone() })
            }
            Joined::Follows { leader, request } => {
                self.count(board::COALESCED, 1);
                Verdict::Follow { leader, request }
            }
        };
        question.answer(verdict);
    }

    fn on_keep(&mut self, key: Key, request: RequestId, answer: Arc<KeptAnswer>) {
        self.flights.land(&key, request);
        let bytes = answer.heap_bytes();
        let evicted = self.store.insert(key, answer, bytes, self.begun.elapsed());
        self.count(board::EVICTIONS, evicted);
    }

    fn on_sweep(&mut self) {
        let evicted = self.store.sweep(self.begun.elapsed());
        self.count(board::EVICTIONS, evicted);
    }

    fn count(&self, place: usize, more: usize) {
        self.wiring.boards.response_cache.add(place, more as u64);
    }

    fn show(&self) {
        let shown = &self.wiring.boards.response_cache;
        shown.set(board::ENTRIES, self.store.len() as u64);
        shown.set(board::BYTES, self.store.bytes() as u64);
        shown.set(board::IN_FLIGHT, self.flights.len() as u64);
    }
}
