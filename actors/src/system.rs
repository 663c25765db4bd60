//! The public handle of a running system.
//!
//! ```no_run
//! use cllm_actors::{GenerateRequest, System};
//! use futures_util::StreamExt;
//!
//! # async fn example() -> Result<(), cllm_actors::GenerateError> {
//! let system = System::builder().model("model.gguf").start().await?;
//! system.ready().await?;
//! let mut generation = system.generate(GenerateRequest::text("Once upon a time")).await?;
//! while let Some(event) = generation.next().await {
//!     println!("{event:?}");
//! }
//! system.stop().await;
//! # Ok(())
//! # }
//! ```

mod args;
mod generation;
mod inspection;
mod status;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorRef, ActorStatus, RpcReplyPort};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

pub use self::args::{Restarts, SystemArgs, SystemBuilder};
pub use self::generation::Generation;
pub use self::inspection::{ActorAction, ActorActionError, ActorFeed, ActorFeedStream};
pub use self::status::Status;
pub(crate) use self::status::left_until;
use crate::admission::{Admission, AdmissionLimits, Claim, Permit, Refusal};
use crate::backend::{BackendMsg, TokensTo, VocabularyError};
use crate::boards;
use crate::boards::scheduler as board;
use crate::engine::protocol::{AddSpecial, ModelInfo, RequestId, TextPart, Token};
use crate::error::GenerateError;
use crate::inspector::InspectorArgs;
use crate::inspector::log::EventLog;
use crate::ledger::Ledger;
use crate::names;
use crate::prompt::ChatPrompt;
use crate::request::{CacheMode, GenerateRequest, GenerationEvent, TenantId};
use crate::session::outbox::{CHANNEL_EVENTS, Receiver};
use crate::session::{Session, SessionArgs, answer};
use crate::supervision::supervisor::SupervisorMsg;
use crate::supervision::{Addr, ChildSpec, DynamicSupervisorMsg, EpochSource, SupervisionEventRecord, Supervisor};
use crate::wiring::{LoadedModel, Wiring};

/// Longest wait for the vocabulary thread.
const VOCABULARY_DEADLINE: Duration = Duration::from_secs(30);

/// Longest wait for a restarted supervisor of sessions.
const SESSIONS_RESTART_DEADLINE: Duration = Duration::from_secs(2);

/// Longest wait for the engine's threads to end when everything stops.
const ENGINE_END_DEADLINE: Duration = Duration::from_secs(10);

/// Records that a slow reader of the supervision feed may be behind.
const EVENT_CAPACITY: usize = 1024;

/// A running system of actors; cheap to clone. A system started by itself stops with its last handle; one that is
/// linked to a supervisor belongs to that.
#[derive(Debug, Clone)]
pub struct System {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    args: SystemArgs,
    wiring: Arc<Wiring>,
    admission: Admission,
    sessions: Addr<DynamicSupervisorMsg>,
    events: broadcast::Sender<SupervisionEventRecord>,
    log: EventLog,
    root: ActorRef<SupervisorMsg>,
    owner: Owner,
    started_at: Instant,
    next_request: AtomicU64,
    status_task: JoinHandle<()>,
}

/// Who ends the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Handle,
    Supervisor,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.status_task.abort();
        if self.owner == Owner::Handle {
            self.root.stop(None);
        }
    }
}

impl System {
    /// Describes a system step by step.
    pub fn builder() -> SystemBuilder {
        SystemBuilder::default()
    }

    /// Starts the actors and returns as soon as the supervisors run; the model loads meanwhile, see [`System::ready`].
    ///
    /// # Errors
    /// `Internal` if another system of this process has the same instance name.
    pub async fn start(args: SystemArgs) -> Result<Self, GenerateError> {
        Self::spawn(args, None).await
    }

    /// The same under a supervisor of the host's, which gets the root's supervision events and ends it.
    ///
    /// # Errors
    /// As [`System::start`].
    pub async fn spawn_linked(args: SystemArgs, supervisor: ActorCell) -> Result<Self, GenerateError> {
        Self::spawn(args, Some(supervisor)).await
    }

    async fn spawn(args: SystemArgs, supervisor: Option<ActorCell>) -> Result<Self, GenerateError> {
        let wiring = Arc::new(Wiring::new());
        let sessions = Addr::new();
        let (events, feed) = broadcast::channel(EVENT_CAPACITY);
        let epochs = EpochSource::default();
        let status_task = tokio::spawn(status::follow(feed, wiring.clone(), args.instance.clone()));
        let log = EventLog::begun_at(SystemTime::now());
        let inspector = InspectorArgs { feed: Arc::new(events.subscribe().into()), log: log.clone() };
        let root =
            tree::root(&args, tree::Shared { wiring: &wiring, epochs: &epochs, events: &events }, &sessions, inspector);
        let name = Some(args.instance.clone());
        let owner = if supervisor.is_some() { Owner::Supervisor } else { Owner::Handle };
        let spawned = match supervisor {
            Some(supervisor) => Supervisor::spawn_linked(name, Supervisor, root, supervisor).await,
            None => Supervisor::spawn(name, Supervisor, root).await,
        };
        let (root, _) = spawned.map_err(|error| GenerateError::Internal(error.to_string()))?;
        wiring.actors.root(&args.instance, root.get_cell());
        Ok(Self {
            inner: Arc::new(Inner {
                admission: Admission::new(AdmissionLimits {
                    max_queue: args.max_queue,
                    per_tenant: args.tenant_quota,
                    running: args.running(),
                }),
                args,
                wiring,
                sessions,
                events,
                log,
                root,
                owner,
                started_at: Instant::now(),
                next_request: AtomicU64::new(1),
                status_task,
            }),
        })
    }

    /// Waits until requests are served for the first time.
    ///
    /// # Errors
    /// `EngineDown` if the first start failed.
    pub async fn ready(&self) -> Result<(), GenerateError> {
        let mut status = self.status();
        let settled = status.wait_for(|status| !matches!(status, Status::Loading { .. })).await;
        match settled.as_deref() {
            Ok(Status::Failed { cause }) => Err(failed(cause)),
            Ok(_) => Ok(()),
            Err(_) => Err(GenerateError::ShuttingDown),
        }
    }

    /// Takes the permits of a claim, or none.
    ///
    /// # Errors
    /// `Overloaded`, `QueueTooLong`, `OverQuota`, `ModelLoading`, `EngineDown` or `ShuttingDown`; `InvalidRequest` for more than are ever
    /// given.
    pub fn admit(&self, claim: Claim) -> Result<Vec<Permit>, GenerateError> {
        self.check_serving()?;
        self.take_permits(claim)
    }

    /// What [`System::admit`] would say of this claim now; takes nothing. A storm is refused by it before anything is
    /// read.
    ///
    /// # Errors
    /// As [`System::admit`].
    pub fn could_admit(&self, claim: Claim) -> Result<(), GenerateError> {
        self.check_serving()?;
        self.admission().check(claim).map_err(|refusal| refused(refusal, claim))
    }

    fn take_permits(&self, claim: Claim) -> Result<Vec<Permit>, GenerateError> {
        self.admission().try_acquire(claim).map_err(|refusal| refused(refusal, claim))
    }

    /// The permits, by as many places as the scheduler has open now.
    fn admission(&self) -> &Admission {
        let open = self.inner.wiring.boards.scheduler.get(board::PLACES).filter(|open| *open > 0);
        let open = open.and_then(|open| u32::try_from(open).ok());
        self.inner.admission.set_places(open.unwrap_or(u32::MAX));
        &self.inner.admission
    }

    /// Whether requests are taken at all.
    fn check_serving(&self) -> Result<(), GenerateError> {
        match &*self.inner.wiring.status.borrow() {
            Status::Loading { .. } => Err(GenerateError::ModelLoading),
            Status::Held { cause, retry_at } => {
                Err(GenerateError::EngineDown { cause: cause.clone(), retry_after: left_until(*retry_at) })
            }
            Status::Failed { cause } => Err(failed(cause)),
            Status::Draining => Err(GenerateError::ShuttingDown),
            Status::Ready | Status::Restarting { .. } => Ok(()),
        }
    }

    fn admit_one(&self, request: &GenerateRequest) -> Result<Permit, GenerateError> {
        let permit = self.admit(Claim::of(request))?.pop();
        permit.ok_or_else(|| GenerateError::Internal("no permit".to_owned()))
    }

    /// Starts a generation; every later failure is the stream's `Failed` event.
    ///
    /// # Errors
    /// As [`System::admit`].
    pub async fn generate(&self, request: GenerateRequest) -> Result<Generation, GenerateError> {
        let permit = self.admit_one(&request)?;
        self.generate_with(permit, request).await
    }

    /// Starts a generation under a permit that was taken before.
    ///
    /// # Errors
    /// `ShuttingDown` when no session can be started any more.
    pub async fn generate_with(&self, permit: Permit, request: GenerateRequest) -> Result<Generation, GenerateError> {
        let (sender, events) = mpsc::channel(CHANNEL_EVENTS);
        let ledger = self.spawn_session(permit, request, Receiver::Channel(sender)).await?;
        Ok(Generation::new(events, ledger))
    }

    /// Starts a generation whose events become messages of an actor. The request is cancelled when the actor ends.
    /// The actor's mailbox is not bounded: it must keep up.
    ///
    /// # Errors
    /// As [`System::admit`].
    pub async fn generate_to<M>(&self, receiver: ActorRef<M>, request: GenerateRequest) -> Result<(), GenerateError>
    where
        M: ractor::Message + From<GenerationEvent>,
    {
        let permit = self.admit_one(&request)?;
        self.spawn_session(permit, request, Receiver::actor(receiver)).await.map(drop)
    }

    async fn spawn_session(
        &self,
        permit: Permit,
        mut request: GenerateRequest,
        receiver: Receiver,
    ) -> Result<Ledger, GenerateError> {
        let inner = &self.inner;
        if inner.args.response_cache.is_none() {
            request.cache = CacheMode::Bypass;
        }
        let request_id: RequestId = inner.next_request.fetch_add(1, Ordering::Relaxed);
        let (arrived_at, trace_id) = (request.arrived_at, Arc::clone(&request.trace_id));
        let ledger = Ledger::new(arrived_at);
        let supervisor = self.sessions_supervisor().await?;
        let name = format!("{}/{}/{request_id}", inner.args.instance, names::SESSIONS);
        let args = SessionArgs {
            row: inner.wiring.actors.session(name.clone(), Arc::new(boards::session::board())),
            ledger: ledger.clone(),
            request_id,
            request,
            permit,
            receiver,
            wiring: inner.wiring.clone(),
            arrived_at,
            arrived_us: arrived_at.saturating_duration_since(inner.started_at).as_micros() as u64,
            max_iterations: inner.args.max_iterations,
        };
        let spawned = Session::spawn_linked(Some(name), Session, args, supervisor.get_cell()).await;
        spawned.map(|_| ledger).map_err(|error| {
            tracing::warn!(request = request_id, %trace_id, %error, "session not started");
            GenerateError::ShuttingDown
        })
    }

    /// The supervisor of sessions; while it is being restarted, the next one.
    async fn sessions_supervisor(&self) -> Result<ActorRef<DynamicSupervisorMsg>, GenerateError> {
        let mut epochs = self.inner.sessions.epochs();
        loop {
            epochs.borrow_and_update();
            // One that has failed keeps its address until its own supervisor has noticed.
            let lives = |it: &ActorRef<_>| !matches!(it.get_status(), ActorStatus::Stopping | ActorStatus::Stopped);
            if let Some(supervisor) = self.inner.sessions.current().filter(lives) {
                return Ok(supervisor);
            }
            if *self.inner.wiring.status.borrow() == Status::Draining {
                return Err(GenerateError::ShuttingDown);
            }
            let restarted = tokio::time::timeout(SESSIONS_RESTART_DEADLINE, epochs.changed()).await;
            restarted.ok().and_then(Result::ok).ok_or(GenerateError::ShuttingDown)?;
        }
    }

    /// Text to tokens, by the engine's vocabulary.
    ///
    /// # Errors
    /// `InvalidRequest` for text that the tokenizer refuses, else as [`System::admit`].
    pub async fn tokenize(&self, parts: Vec<TextPart>, special: AddSpecial) -> Result<Vec<Token>, GenerateError> {
        let message = |port| BackendMsg::Tokenize { parts: parts.clone(), special, reply_to: TokensTo::Caller(port) };
        self.ask(message, "content").await
    }

    /// Tokens to bytes of text; control tokens show their text.
    ///
    /// # Errors
    /// `InvalidRequest` for tokens outside the vocabulary, else as [`System::admit`].
    pub async fn detokenize(&self, tokens: Vec<Token>) -> Result<Vec<u8>, GenerateError> {
        self.ask(|reply_to| BackendMsg::Detokenize { tokens: tokens.clone(), reply_to }, "tokens").await
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: impl Fn(RpcReplyPort<Result<T, VocabularyError>>) -> BackendMsg,
        param: &str,
    ) -> Result<T, GenerateError> {
        let asked = tokio::time::timeout(VOCABULARY_DEADLINE, self.ask_until_answered(message)).await;
        match asked {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(answer::vocabulary_error(&error, param, self.inner.admission.limit())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(GenerateError::DeadlineExceeded { which: "vocabulary", limit: VOCABULARY_DEADLINE }),
        }
    }

    /// Asks once more when the engine ended over the question or beside it. Twice is no chance: nobody is charged with
    /// what kills an engine here, and each death costs everybody a reload.
    async fn ask_until_answered<T: Send + 'static>(
        &self,
        message: impl Fn(RpcReplyPort<Result<T, VocabularyError>>) -> BackendMsg,
    ) -> Result<Result<T, VocabularyError>, GenerateError> {
        let mut epochs = self.inner.wiring.backend.epochs();
        let mut chances = 2;
        loop {
            self.check_serving()?;
            epochs.borrow_and_update();
            if let Some(backend) = self.inner.wiring.backend.current() {
                match backend.call(&message, Some(VOCABULARY_DEADLINE)).await {
                    Ok(CallResult::Success(answer)) => return Ok(answer),
                    Ok(_) => chances -= 1,
                    // It is not there to be asked.
                    Err(_) => {}
                }
            }
            if chances == 0 {
                return Err(GenerateError::EngineCrashed);
            }
            epochs.changed().await.map_err(|_| GenerateError::ShuttingDown)?;
        }
    }

    /// Lays a conversation out by the model's chat template; a long one beside the actors and under a permit.
    ///
    /// # Errors
    /// `InvalidRequest` if the template rejects it, `ModelLoading`, `Overloaded`.
    pub async fn render(&self, chat: ChatPrompt) -> Result<Vec<TextPart>, GenerateError> {
        let model = self.loaded().ok_or(GenerateError::ModelLoading)?;
        let rendered = match model.template.render_briefly(&chat) {
            Some(rendered) => rendered,
            None => {
                let permit = self.take_permits(Claim::unhurried(TenantId::NOBODY, 0, 1))?;
                self.inner.wiring.layouts.lay_out(model, Arc::new(chat), permit).await.0
            }
        };
        rendered.map_err(|error| answer::template_error(&error))
    }

    /// Facts about the model; `None` until it is loaded for the first time.
    pub fn model(&self) -> Option<Arc<ModelInfo>> {
        self.loaded().map(|model| model.info.clone())
    }

    /// The model and its template; `None` until it is loaded for the first time.
    pub fn loaded(&self) -> Option<Arc<LoadedModel>> {
        self.inner.wiring.loaded()
    }

    /// Follows what the system can do.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.wiring.status.subscribe()
    }

    /// How long no step has ended with requests under way, if that is longer than it should ever take (`stall_after`).
    pub fn stalled(&self) -> Option<Duration> {
        self.inner.wiring.pulse.stalled(self.inner.args.stall_after)
    }

    /// Follows what the supervisors do.
    pub fn supervision_events(&self) -> broadcast::Receiver<SupervisionEventRecord> {
        self.inner.events.subscribe()
    }

    /// The feed itself, for a supervisor that is to report to it.
    pub fn event_feed(&self) -> broadcast::Sender<SupervisionEventRecord> {
        self.inner.events.clone()
    }

    /// The root supervisor.
    pub fn root(&self) -> ActorRef<SupervisorMsg> {
        self.inner.root.clone()
    }

    /// The prefix of the actors' registered names.
    pub fn instance(&self) -> &str {
        &self.inner.args.instance
    }

    /// Addresses of the actors inside, for tests and inspection.
    pub fn wiring(&self) -> &Arc<Wiring> {
        &self.inner.wiring
    }

    /// Starts one more child of the root, last in the order and first to stop.
    ///
    /// # Errors
    /// `Internal` with what its first start said.
    pub async fn add_child(&self, spec: ChildSpec) -> Result<ActorCell, GenerateError> {
        let message = |reply_to| SupervisorMsg::AddChild { spec: Box::new(spec), reply_to };
        match self.inner.root.call(message, None).await {
            Ok(CallResult::Success(Ok(cell))) => Ok(cell),
            Ok(CallResult::Success(Err(error))) => Err(GenerateError::Internal(error.to_string())),
            _ => Err(GenerateError::ShuttingDown),
        }
    }

    /// Most tokens of an answer, whatever a request asks for; `None`: no bound but the context.
    pub fn max_iterations(&self) -> Option<u32> {
        self.inner.args.max_iterations
    }

    /// Refuses new requests from now on.
    pub fn drain(&self) {
        self.inner.wiring.status.send_replace(Status::Draining);
    }

    /// Requests in the system.
    pub fn in_flight(&self) -> u32 {
        self.inner.admission.in_use()
    }

    /// Stops everything, in reverse order of start; open requests end with `ShuttingDown`. Bounded by the stop
    /// deadlines of the children.
    pub async fn stop(&self) {
        self.drain();
        self.inner.root.stop(None);
        // Every child has a deadline and is killed after it.
        let _ = self.inner.root.wait(None).await;
        // The engine's threads end after their step; a process must not end in the middle of it.
        let freed = self.inner.wiring.occupancy.acquire();
        if tokio::time::timeout(ENGINE_END_DEADLINE, freed).await.is_err() {
            tracing::warn!("the engine does not end its step");
        }
    }
}

fn refused(refusal: Refusal, claim: Claim) -> GenerateError {
    match refusal {
        Refusal::Full { limit, retry_after } => GenerateError::Overloaded { limit, retry_after },
        Refusal::TooLong { longest_wait, retry_after } => GenerateError::QueueTooLong { longest_wait, retry_after },
        Refusal::OverQuota { limit, retry_after } => GenerateError::OverQuota { limit, retry_after },
        // "Try again later" would be a lie.
        Refusal::Never { limit } => GenerateError::InvalidRequest {
            param: "n".to_owned(),
            message: format!("{} sequences are more than the limit of {limit} here", claim.count),
        },
    }
}

fn failed(cause: &str) -> GenerateError {
    GenerateError::EngineDown { cause: cause.to_owned(), retry_after: Duration::from_secs(60) }
}
