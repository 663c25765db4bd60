//! What a session is told, and what it starts with.

use std::sync::Arc;
use std::time::Instant;

use ractor::ActorRef;
use tokio::sync::mpsc;

use crate::admission::Permit;
use crate::backend::VocabularyError;
use crate::engine::protocol::{EndReason, Epoch, RequestId, SequenceOutput, TextPart, Token};
use crate::error::GenerateError;
use crate::ledger::Ledger;
use crate::prompt::TemplateError;
use crate::request::{GenerateRequest, GenerationEvent};
use crate::session::outbox::Receiver;
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
