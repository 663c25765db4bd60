//! What goes into the policy and what comes out.

use std::sync::Arc;

use super::super::queue::{Served, Standing};
use super::prefill::Prefixes;
use crate::engine::protocol::{Placement, RequestId, SequenceId, Token};
use crate::supervision::Gate;

/// What the scheduler is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session wants its request run, for the first time or again. Replaces an older submission of it.
    Submit {
        /// The request.
        request: RequestId,
        /// Prompt and tokens emitted so far.
        tokens: Arc<[Token]>,
        /// What its turn follows from.
        standing: Standing,
        /// What it was served before.
        served: Served,
        /// Who may run beside it.
        company: Company,
        /// Whose prefixes may serve it.
        prefixes: Prefixes,
    },
    /// The session does not want it any more.
    Cancel {
        /// The request.
        request: RequestId,
        /// Why not.
        leave: Leave,
    },
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
        /// How many tokens that is.
        cached: usize,
    },
    /// Answer to `Reserve`: every sequence is busy.
    NoSequence(RequestId),
    /// The engine began with a request.
    Started {
        /// The request.
        request: RequestId,
        /// Tokens that need no prefill.
        reused: usize,
    },
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
    /// A running request has computed what others wait for, see [`Policy::prefilled`](super::Policy::prefilled).
    Woken,
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

/// Why a session does not want its request any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It has all it wants.
    Answered,
    /// Its deadline has passed.
    Missed {
        /// Most tokens it could have emitted since it was submitted.
        most: usize,
    },
    /// Anything else.
    Unwanted,
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
    /// Tell the kv-cache how many of the tokens of the request on a sequence have KV.
    Computed {
        /// The sequence.
        sequence: SequenceId,
        /// Its first so many tokens.
        tokens: usize,
    },
    /// Give a running request another rank in the engine.
    SetRank {
        /// The request.
        request: RequestId,
        /// Its rank.
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
