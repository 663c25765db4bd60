//! The scheduler actor: decides who runs next and is the only one that sends the engine commands.
//!
//! Supervised by `engine-0`, last of its three. Sessions submit and cancel, the kv-cache answers reservations, the
//! backend reports steps and ends. Every incarnation has a larger epoch and begins with a `Reset` of the engine; when it
//! dies, running sequences end silently, their KV stays, and the sessions submit again as soon as they see the new
//! epoch. The decisions are in [`policy`]. Nothing needs doing when it stops.

mod notice;
pub mod places;
pub mod policy;
mod positions;
pub mod queue;
pub mod sharing;
pub mod tuner;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ractor::{ActorProcessingErr, ActorRef};
use smallvec::SmallVec;

use self::notice::{News, Notice};
use self::policy::{Action, Company, Event, Leave, Policy, PolicyLimits, Prefixes};
use self::positions::Positions;
use self::queue::{Served, Standing};
use self::sharing::Woken;
use self::tuner::{MeasuredStep, StepSizes, Tuner, TunerArgs, TunerMode};
use crate::backend::BackendMsg;
use crate::boards::scheduler as board;
use crate::engine::protocol::{Admit, Ended, Epoch, Held, Limits, RequestId, SequenceId, Token, Waiting};
use crate::kv_cache::KvCacheMsg;
use crate::kv_cache::index::{Reservation, Reuse, Wanted};
use crate::quarantine::Verdict;
use crate::request::TenantId;
use crate::sampling::SamplingParams;
use crate::session::SessionMsg;
use crate::supervision::{Gate, mailbox};
use crate::system::Status;
use crate::wiring::Wiring;

/// Reference to a scheduler.
pub type SchedulerRef = ActorRef<SchedulerMsg>;

/// What the scheduler is told.
#[derive(Debug)]
pub enum SchedulerMsg {
    /// From a session: run this. Idempotent; replaces an earlier submission of the request.
    Submit(Box<Submission>),
    /// From a session or its guard: the request is not wanted any more. A no-op if unknown.
    Cancel {
        /// The request.
        request: RequestId,
        /// Why not.
        cause: CancelCause,
    },
    /// From a session: how many wait before it? Answered by `SessionMsg::Queued` while it is queued.
    AskPosition {
        /// The request.
        request: RequestId,
    },
    /// From an operator: admit nobody, or go on; what runs goes on in any case. Ends with the incarnation.
    SetGate(Gate),
    /// From the kv-cache: its index is filled.
    CacheReady {
        /// Epoch of the reset.
        epoch: Epoch,
    },
    /// From the kv-cache: answer to `Reserve`; `None`: every sequence is busy.
    Reserved {
        /// Epoch of the question.
        epoch: Epoch,
        /// The request.
        request: RequestId,
        /// Its sequence.
        reservation: Option<Reservation>,
    },
    /// From the kv-cache: these retained sequences are over the budget.
    OverBudget {
        /// Epoch of the release.
        epoch: Epoch,
        /// To be evicted.
        evict: Vec<SequenceId>,
    },
    /// From the kv-cache: answer to `MakeRoom`; empty: nothing is retained any more.
    RoomMade {
        /// Epoch of the question.
        epoch: Epoch,
        /// To be evicted.
        evict: Vec<SequenceId>,
    },
    /// From the backend: the engine began with a request.
    Started {
        /// Epoch of the engine's state.
        epoch: Epoch,
        /// The request.
        request: RequestId,
        /// Tokens that need no prefill.
        reused: u32,
    },
    /// From the backend: a step is done; the sessions have their tokens.
    Stepped(StepSummary),
    /// From the backend: a sequence is over; its session knows.
    Ended(Box<Ended>),
    /// From the backend: the engine lacks cells.
    CellsShort {
        /// Epoch of the engine's state.
        epoch: Epoch,
        /// Cells that the next step lacks.
        needed: u32,
        /// Cells of idle sequences.
        parked: u32,
    },
}

crate::impl_message!(SchedulerMsg);

/// Why a session does not want its request any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelCause {
    /// It has its answer.
    Answered,
    /// Its deadline has passed.
    DeadlineExceeded,
    /// Its caller is gone, or it failed.
    Unwanted,
}

/// A request to run.
#[derive(Debug)]
pub struct Submission {
    /// The request.
    pub request: RequestId,
    /// On whose behalf.
    pub tenant: TenantId,
    /// Prompt and the tokens emitted so far.
    pub tokens: Arc<[Token]>,
    /// How many of them are prompt.
    pub prompt_len: u32,
    /// Its class; lower goes first.
    pub priority: i32,
    /// Arrival of the request in µs since the system started; lower goes first.
    pub arrived_us: u64,
    /// Tokens it was served up to now: those of the prompt that had to be computed, and those emitted.
    pub served: u64,
    /// The last scheduler that had it, if any did.
    pub known_to: Option<Epoch>,
    /// Most tokens to emit from here on.
    pub max_new_tokens: u32,
    /// How to draw; `seed` is set.
    pub sampling: Arc<SamplingParams>,
    /// Log-probabilities of emitted tokens.
    pub logprobs: Option<u32>,
    /// Log-probabilities of the prompt.
    pub prompt_logprobs: Option<u32>,
    /// Who gets the tokens.
    pub session: ActorRef<SessionMsg>,
}

/// What a step means for the scheduler.
#[derive(Debug)]
pub struct StepSummary {
    /// Epoch of the engine's state.
    pub epoch: Epoch,
    /// What it carried and how long it took.
    pub measured: MeasuredStep,
    /// New tokens by request.
    pub tokens: Vec<(RequestId, SmallVec<[Token; 1]>)>,
    /// Tokens that have no KV yet, of requests without new tokens.
    pub prefilling: Vec<(RequestId, u32)>,
}

/// What a scheduler starts with.
#[derive(Debug, Clone)]
pub struct SchedulerArgs {
    /// This incarnation.
    pub epoch: Epoch,
    /// The others.
    pub wiring: Arc<Wiring>,
    /// Most sequences at once.
    pub running: u32,
    /// How large a step is.
    pub tuner: TunerArgs,
    /// After so long without its first prefill chunk an admitted request goes before older ones, ms; 0: never.
    pub prefill_wait_ms: u32,
    /// Whether prefixes of one tenant serve the others.
    pub share_across_tenants: bool,
}

/// State of a scheduler.
#[derive(Debug)]
pub struct SchedulerState {
    args: SchedulerArgs,
    policy: Policy,
    tuner: Tuner,
    notice: Notice,
    positions: Positions,
    submissions: HashMap<RequestId, Box<Submission>>,
    actions: Vec<Action>,
}

/// The actor.
#[derive(Debug, Default)]
pub struct Scheduler;

#[ractor::actor(message = SchedulerMsg, state = SchedulerState, arguments = SchedulerArgs)]
impl Scheduler {
    async fn pre_start(&self, myself: SchedulerRef, args: SchedulerArgs) -> Result<SchedulerState, ActorProcessingErr> {
        let model = args.wiring.loaded().ok_or("the scheduler starts after the backend has loaded a model")?;
        let running = args.running.min(model.info.streams.unwrap_or(model.info.n_seq_max)) as usize;
        // With a buffer for each, whoever has a place has the cells.
        let n_ctx = if model.info.streams.is_some() { usize::MAX } else { model.info.n_ctx as usize };
        // Of the one before this one, which is restarted in the middle of a burst.
        let before = |place| args.wiring.boards.scheduler.get(place).and_then(|size| u32::try_from(size).ok());
        let policy = Policy::new(PolicyLimits { running, n_ctx }, model.info.memory);
        let policy = policy.starting_at(before(board::PLACES).map(|places| places as usize));
        let sizes = StepSizes {
            step_tokens: before(board::STEP_TOKENS).unwrap_or(0),
            mixed_prefill_tokens: before(board::MIXED_PREFILL_TOKENS).unwrap_or(0),
        };
        let mut state = SchedulerState {
            tuner: Tuner::new(args.tuner.on(&model.info)).starting_at(sizes),
            notice: Notice::default(),
            positions: Positions::default(),
            args,
            policy,
            submissions: HashMap::new(),
            actions: Vec::new(),
        };
        state.tell_backend(BackendMsg::Reset { epoch: state.args.epoch, scheduler: myself });
        state.send_limits();
        state.show();
        state.show_tuner(MeasuredStep::default());
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: SchedulerRef,
        message: SchedulerMsg,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        let own = state.args.epoch;
        match message {
            SchedulerMsg::Submit(submission) => state.on_submit(submission),
            SchedulerMsg::Cancel { request, cause } => state.on_cancel(request, cause),
            SchedulerMsg::AskPosition { request } => state.on_ask_position(request),
            SchedulerMsg::SetGate(gate) => state.decide(Event::SetGate(gate)),
            SchedulerMsg::CacheReady { epoch } if epoch == own => state.on_cache_ready(),
            SchedulerMsg::Reserved { epoch, request, reservation } if epoch == own => {
                state.on_reserved(request, reservation);
            }
            SchedulerMsg::OverBudget { epoch, evict } if epoch == own => state.evict(&evict),
            SchedulerMsg::RoomMade { epoch, evict } if epoch == own => state.on_room_made(&evict),
            SchedulerMsg::Started { epoch, request, reused } if epoch == own => {
                state.decide(Event::Started { request, reused: reused as usize });
            }
            SchedulerMsg::Stepped(summary) if summary.epoch == own => state.on_stepped(summary),
            SchedulerMsg::Ended(ended) if ended.epoch == own => state.on_ended(*ended),
            SchedulerMsg::CellsShort { epoch, needed, parked } if epoch == own => state.on_cells_short(needed, parked),
            // From an older incarnation's time: the reset has made it void.
            _ => {}
        }
        Ok(())
    }
}

impl SchedulerState {
    fn on_submit(&mut self, submission: Box<Submission>) {
        let event = Event::Submit {
            request: submission.request,
            prefixes: self.prefixes(&submission),
            tokens: submission.tokens.clone(),
            company: match self.args.wiring.quarantine.verdict(submission.request) {
                Verdict::Trusted => Company::Any,
                Verdict::Suspect | Verdict::Guilty => Company::Nobody,
            },
            standing: Standing {
                priority: submission.priority,
                tenant: submission.tenant,
                arrived_us: submission.arrived_us,
            },
            served: match submission.known_to {
                None => Served::Nothing,
                Some(epoch) if epoch != self.args.epoch => Served::Before(submission.served),
                Some(_) if submission.served == 0 => Served::Nothing,
                Some(_) => Served::Here,
            },
        };
        self.submissions.insert(submission.request, submission);
        self.decide(event);
    }

    fn on_cancel(&mut self, request: RequestId, cause: CancelCause) {
        let most = || self.submissions.get(&request).map_or(0, |submission| submission.max_new_tokens as usize);
        let leave = match cause {
            CancelCause::Answered => Leave::Answered,
            CancelCause::DeadlineExceeded => Leave::Missed { most: most() },
            CancelCause::Unwanted => Leave::Unwanted,
        };
        self.decide(Event::Cancel { request, leave });
    }

    fn on_ask_position(&mut self, request: RequestId) {
        if !self.policy.is_queued(request) {
            return;
        }
        let position = self.positions.of(request, Instant::now(), || self.policy.positions());
        if let (Some(position), Some(submission)) = (position, self.submissions.get(&request)) {
            // A session that is gone is a client that left.
            let _ = submission.session.cast(SessionMsg::Queued { position });
        }
    }

    fn on_cache_ready(&mut self) {
        self.args.wiring.set_status(Status::Ready);
        self.decide(Event::CacheReady);
    }

    fn on_reserved(&mut self, request: RequestId, reservation: Option<Reservation>) {
        self.decide(match reservation {
            Some(Reservation { sequence, placement, cached }) => {
                Event::Reserved { request, sequence, placement, cached: cached as usize }
            }
            None => Event::NoSequence(request),
        });
    }

    fn on_room_made(&mut self, evict: &[SequenceId]) {
        self.evict(evict);
        if evict.is_empty() {
            self.decide(Event::NoRoom);
        }
    }

    fn on_stepped(&mut self, summary: StepSummary) {
        let mut woken = Woken::Nobody;
        for (request, left) in &summary.prefilling {
            woken = woken.or(self.policy.prefilled(*request, *left as usize));
        }
        for (request, tokens) in &summary.tokens {
            woken = woken.or(self.policy.emitted(*request, tokens));
        }
        if woken == Woken::Somebody {
            self.decide(Event::Woken);
        }
        let resized = self.tuner.observe(summary.measured).is_some();
        if self.notice.on_step() == News::ToTell || resized {
            self.send_limits();
        }
        self.show_tuner(summary.measured);
    }

    fn on_ended(&mut self, ended: Ended) {
        let Ended { request, sequence, kv_tokens, .. } = ended;
        self.decide(Event::Ended { request, sequence, kv_tokens: kv_tokens as usize });
    }

    fn on_cells_short(&mut self, needed: u32, parked: u32) {
        if parked == 0 {
            return self.decide(Event::NoRoom);
        }
        self.tell_kv_cache(KvCacheMsg::MakeRoom { epoch: self.args.epoch, cells: needed });
    }

    fn decide(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.policy.handle(event, &mut actions);
        actions.drain(..).for_each(|action| self.act(action));
        self.actions = actions;
        self.show();
    }

    fn show(&self) {
        let shown = &self.args.wiring.boards.scheduler;
        shown.set(board::RUNNING, self.policy.active() as u64);
        shown.set(board::WAITING, self.policy.waiting() as u64);
        shown.set(board::PLACES, self.policy.places() as u64);
    }

    fn show_tuner(&self, last: MeasuredStep) {
        let (shown, sizes) = (&self.args.wiring.boards.scheduler, self.tuner.sizes());
        let estimates = self.tuner.estimates();
        let adaptive = self.args.tuner.mode == TunerMode::Adaptive;
        let mixed = if adaptive { sizes.mixed_prefill_tokens } else { sizes.step_tokens };
        shown.set(board::TUNER, adaptive.into());
        shown.set(board::STEP_TOKENS, sizes.step_tokens.into());
        shown.set(board::MAX_STEP_US, self.args.tuner.max_step.as_micros() as u64);
        shown.set(board::MIXED_PREFILL_TOKENS, mixed.into());
        let known = [(board::DECODE_US, estimates.decode_us), (board::PREFILL_TOKEN_NS, estimates.prefill_token_ns)];
        for (place, estimate) in known {
            if let Some(estimate) = estimate {
                shown.set(place, estimate);
            }
        }
        shown.set(board::LAST_DECODE_ROWS, last.decode_rows.into());
        shown.set(board::LAST_PREFILL_TOKENS, last.prefill_tokens.into());
        shown.set(board::LAST_STEP_US, last.step_us);
    }

    fn act(&mut self, action: Action) {
        let epoch = self.args.epoch;
        match action {
            Action::Reserve { request, tokens } => self.reserve(request, tokens),
            Action::Admit { request, sequence, placement, rank } => self.admit(request, |submission, tenant| Admit {
                epoch,
                request,
                sequence,
                placement,
                tenant,
                tokens: submission.tokens.to_vec(),
                prompt_len: submission.prompt_len,
                max_new_tokens: submission.max_new_tokens,
                sampling: (*submission.sampling).clone(),
                logprobs: submission.logprobs,
                prompt_logprobs: submission.prompt_logprobs,
                rank,
                adapter: None,
            }),
            Action::Computed { sequence, tokens } => {
                self.tell_kv_cache(KvCacheMsg::Computed { epoch, sequence, tokens: tokens as u32 });
            }
            Action::SetRank { request, rank } => self.tell_backend(BackendMsg::SetRank { epoch, request, rank }),
            Action::CancelInEngine(request) => self.tell_backend(BackendMsg::Cancel { epoch, request }),
            Action::Abandon(sequence) => self.tell_kv_cache(KvCacheMsg::Abandon { epoch, sequence }),
            Action::Release { request, sequence, tokens } => self.release(request, sequence, tokens),
            Action::Evict(sequence) => self.evict(&[sequence]),
            Action::Preempted(request) => self.preempted(request),
            Action::Forget(request) => drop(self.submissions.remove(&request)),
            Action::WaitingChanged(waiting) => {
                let waiting = if waiting == 0 { Waiting::Nobody } else { Waiting::Somebody };
                if self.notice.on_change(waiting) == News::ToTell {
                    self.send_limits();
                }
            }
        }
    }

    fn reserve(&mut self, request: RequestId, tokens: Arc<[Token]>) {
        let Some(submission) = self.submissions.get(&request) else { return };
        let Prefixes { tenant, reuse } = self.prefixes(submission);
        let wanted = Wanted { tenant, tokens, reuse };
        self.tell_kv_cache(KvCacheMsg::Reserve { epoch: self.args.epoch, request, wanted });
    }

    fn release(&mut self, request: RequestId, sequence: SequenceId, tokens: Vec<Token>) {
        let tenant = self.submissions.get(&request).map_or(TenantId::NOBODY, |it| self.prefixes(it).tenant);
        let held = Held { sequence, tenant, tokens };
        self.tell_kv_cache(KvCacheMsg::Release { epoch: self.args.epoch, held });
    }

    fn prefixes(&self, submission: &Submission) -> Prefixes {
        let tenant = if self.args.share_across_tenants { TenantId::NOBODY } else { submission.tenant };
        let reuse = if submission.prompt_logprobs.is_some() { Reuse::Forbidden } else { Reuse::Allowed };
        Prefixes { tenant, reuse }
    }

    fn admit(&mut self, request: RequestId, admit: impl FnOnce(&Submission, TenantId) -> Admit) {
        if let Some(submission) = self.submissions.get(&request) {
            let admit = Box::new(admit(submission, self.prefixes(submission).tenant));
            let message = BackendMsg::Admit { admit, session: submission.session.clone() };
            self.tell_backend(message);
        }
    }

    fn preempted(&mut self, request: RequestId) {
        if let Some(submission) = self.submissions.remove(&request) {
            let _ = submission.session.cast(SessionMsg::Preempted { epoch: self.args.epoch });
        }
    }

    fn evict(&self, sequences: &[SequenceId]) {
        for sequence in sequences {
            self.tell_backend(BackendMsg::Evict { epoch: self.args.epoch, sequence: *sequence });
        }
    }

    fn send_limits(&mut self) {
        let (sizes, waiting) = (self.tuner.sizes(), self.notice.tell());
        self.tell_backend(BackendMsg::SetLimits(Limits {
            step_tokens: sizes.step_tokens,
            mixed_prefill_tokens: sizes.mixed_prefill_tokens,
            prefill_wait_ms: self.args.prefill_wait_ms,
            waiting,
        }));
    }

    /// Undeliverable means that the backend is down; then this scheduler is about to be stopped as well.
    fn tell_backend(&self, message: BackendMsg) {
        let _ = self.args.wiring.backend.cast(message);
    }

    /// The same for the kv-cache.
    fn tell_kv_cache(&self, message: KvCacheMsg) {
        let _ = self.args.wiring.kv_cache.cast(message);
    }
}
