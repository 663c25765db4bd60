//! The public handle of a running system.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use ractor::ActorCell;
use tokio::sync::{mpsc, watch};

use crate::admission::Permit;
use crate::engine::protocol::{AddSpecial, ModelInfo, TextPart, Token};
use crate::engine::spec::EngineSpec;
use crate::error::GenerateError;
use crate::prompt::ChatPrompt;
use crate::request::{GenerateRequest, GenerationEvent};

/// A running system of actors; cheap to clone.
#[derive(Debug, Clone)]
pub struct System {}

/// Everything a system is started with.
#[derive(Debug, Clone)]
pub struct SystemArgs {
    /// Prefix of the actors' registered names; unique in the process. Default `cllm`.
    pub instance: String,
    /// The engine.
    pub engine: EngineSpec,
    /// Most requests in the system, running and queued. Default 1024.
    pub max_queue: u32,
    /// Most prompt tokens prefilled per step, beside one token for each running stream. Default 256.
    pub step_tokens: u32,
    /// Most tokens generated for one request, whatever it asks for. Default: no limit but the context.
    pub max_iterations: Option<u32>,
}

/// What the system can do right now.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// The model loads for the first time.
    Loading {
        /// 0 to 1.
        progress: f32,
    },
    /// Requests are served.
    Ready,
    /// The engine is being restarted; requests wait.
    Restarting {
        /// Why it went down.
        cause: String,
    },
    /// The engine failed too often and is left down for a while.
    Held {
        /// Why it went down.
        cause: String,
        /// When it is tried again.
        retry_after: Duration,
    },
    /// New requests are refused, running ones finish.
    Draining,
}

/// A running generation. Dropping it cancels the request.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<GenerationEvent>,
}

impl Stream for Generation {
    type Item = GenerationEvent;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<GenerationEvent>> {
        self.events.poll_recv(context)
    }
}

impl System {
    /// Starts the actors and returns as soon as the supervisors run; the model loads meanwhile (see [`System::status`]).
    pub async fn start(_args: SystemArgs) -> Result<Self, GenerateError> {
        Err(stub())
    }

    /// Takes `count` permits, or none.
    ///
    /// # Errors
    /// `Overloaded`, `ModelLoading`, `EngineDown` or `ShuttingDown`.
    pub fn admit(&self, _count: u32) -> Result<Vec<Permit>, GenerateError> {
        Err(stub())
    }

    /// Starts a generation under a permit. Returns at once; every later failure is the stream's `Failed` event.
    pub async fn generate_with(
        &self,
        _permit: Permit,
        _request: GenerateRequest,
    ) -> Result<Generation, GenerateError> {
        Err(stub())
    }

    /// Text to tokens, by the engine's vocabulary.
    pub async fn tokenize(
        &self,
        _parts: Vec<TextPart>,
        _special: AddSpecial,
    ) -> Result<Vec<Token>, GenerateError> {
        Err(stub())
    }

    /// Tokens to bytes of text.
    pub async fn detokenize(&self, _tokens: Vec<Token>) -> Result<Vec<u8>, GenerateError> {
        Err(stub())
    }

    /// Lays a conversation out by the chat template.
    pub fn render(&self, _chat: &ChatPrompt) -> Result<Vec<TextPart>, GenerateError> {
        Err(stub())
    }

    /// Facts about the model; `None` until it is loaded for the first time.
    pub fn model(&self) -> Option<Arc<ModelInfo>> {
        None
    }

    /// Follows what the system can do.
    pub fn status(&self) -> watch::Receiver<Status> {
        watch::channel(Status::Ready).1
    }

    /// The root supervisor, to link further actors to.
    pub fn root(&self) -> Option<ActorCell> {
        None
    }

    /// Refuses new requests from now on.
    pub fn drain(&self) {}

    /// Requests that are in the system.
    pub fn in_flight(&self) -> u32 {
        0
    }

    /// Stops everything, children first; open requests end with `ShuttingDown`.
    pub async fn stop(&self) {}
}

fn stub() -> GenerateError {
    GenerateError::Internal("not built yet".to_owned())
}
