//! What a session is told, and what it starts with.

use std::sync::Arc;
use std::time::Instant;

use ractor::ActorRef;
use tokio::sync::mpsc;

use crate::admission::Permit;
use crate::backend::VocabularyError;
use crate::engine::protocol::{
    EndReason, Epoch, OutputToken, RequestId, SequenceOutput, TextPart, Token, TokenLogprob,
};
use crate::error::GenerateError;
use crate::ledger::Ledger;
use crate::prompt::TemplateError;
use crate::request::{FinishReason, GenerateRequest, GenerationEvent};
use crate::response_cache::Verdict;
use crate::response_cache::recording::Recording;
use crate::session::outbox::Receiver;
use crate::session::shared::Ticket;
use crate::supervision::SessionRow;
use crate::wiring::Wiring;

/// Reference to a session.
pub type SessionRef = ActorRef<SessionMsg>;

/// What a session is told.
#[derive(Debug)]
pub enum SessionMsg {
    /// From its own task: the chat laid out by the template.
    LaidOut {
        /// The text, or why not.
        result: Result<Vec<TextPart>, TemplateError>,
        /// The permit, back.
        permit: Option<Permit>,
    },
    /// From the backend: the prompt's tokens.
    Tokenized {
        /// The tokens, or why not.
        result: Result<Vec<Token>, VocabularyError>,
    },
    /// From the scheduler: it waits.
    Queued {
        /// Requests before it.
        position: u32,
    },
    /// From the backend: the engine took it.
    Started {
        /// Epoch of the submission.
        epoch: Epoch,
        /// Tokens that need no prefill.
        reused: u32,
    },
    /// From the backend: what a step brought.
    Output {
        /// Epoch of the submission.
        epoch: Epoch,
        /// Tokens.
        output: SequenceOutput,
    },
    /// From the backend: the engine is through with it.
    Ended {
        /// Epoch of the submission.
        epoch: Epoch,
        /// Why.
        reason: EndReason,
    },
    /// From the scheduler: submit again.
    Preempted {
        /// Epoch of the submission.
        epoch: Epoch,
    },
    /// From the response cache, or from its own timer in place of a cache that says nothing.
    CacheAnswered(Verdict),
    /// From a session that asks for the same: hand the answer on to it.
    Follow(Ticket),
    /// From a follower: it needs nothing any more.
    FollowerGone {
        /// Its request.
        request: RequestId,
    },
    /// From the session that it follows.
    Shared(Shared),
    /// From its watch: a new scheduler is there.
    SchedulerRestarted {
        /// Its epoch.
        epoch: Epoch,
    },
    /// From its watch: the engine is down and held.
    EngineDown(GenerateError),
    /// From its watch: the caller is gone.
    ReceiverGone,
    /// From its watch: a deadline has passed.
    DeadlinePassed(Deadline),
    /// From its watch: time to ask for the position in the queue.
    AskPosition,
    /// From its outbox: there is room in the caller's channel, or there was none for too long.
    RoomInChannel(Option<mpsc::OwnedPermit<GenerationEvent>>),
    /// To itself: begin.
    Begin,
}

crate::impl_message!(SessionMsg);

/// What a session hands on to those that follow it, in the order of its own events.
#[derive(Debug)]
pub enum Shared {
    /// It waits.
    Queued {
        /// Requests before it.
        position: u32,
    },
    /// The prompt, and what there was of the answer when the follower came.
    Prompt {
        /// The prompt's tokens.
        tokens: Arc<[Token]>,
        /// Whether the engine has taken it.
        running: bool,
        /// The answer so far.
        recording: Box<Recording>,
    },
    /// The engine has taken it.
    Running,
    /// Log-probabilities of the prompt, all of them.
    PromptLogprobs(Vec<TokenLogprob>),
    /// The next token.
    Token(OutputToken),
    /// Something inside was restarted, and it goes on.
    Resumed,
    /// The answer is complete.
    Finished(FinishReason),
    /// It failed.
    Failed(GenerateError),
    /// It has nothing more to say, whatever was said before.
    LeaderGone {
        /// Its request.
        leader: RequestId,
    },
}

/// The three deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Until the engine takes the request.
    Queue,
    /// Until the first token.
    FirstToken,
    /// Until the end.
    Total,
}

/// What a session starts with.
#[derive(Debug)]
pub struct SessionArgs {
    /// Unique in the system.
    pub request_id: RequestId,
    /// What is asked for.
    pub request: GenerateRequest,
    /// Held to the end.
    pub permit: Permit,
    /// The caller.
    pub receiver: Receiver,
    /// The others.
    pub wiring: Arc<Wiring>,
    /// Its place among the actors.
    pub row: SessionRow,
    /// What it comes to.
    pub ledger: Ledger,
    /// When the request arrived.
    pub arrived_at: Instant,
    /// The same in µs since the system started: its rank.
    pub arrived_us: u64,
    /// Most tokens, whatever the request says.
    pub max_iterations: Option<u32>,
}
