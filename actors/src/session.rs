//! The session actor: owns one generation request from its arrival to its end.
//!
//! Spawned by the system handle under the supervisor `sessions`, one for each sequence, never restarted. It holds the
//! prompt, every token received, the caller's stream, the stop texts, the deadlines and the admission permit;
//! everything else in the system is soft state. When scheduler, kv-cache or backend were restarted, or the request was
//! preempted, it submits `prompt + emitted` again and takes token `i` only if it has `i` tokens. What it computes, equal
//! requests may follow, and it may follow one of them; that is in [`shared`]. When it dies its one
//! request ends: a guard cancels it at the scheduler, and the stream ends with an error. It stops itself after its last
//! event is delivered.

pub mod answer;
mod layout;
mod lease;
pub mod outbox;
pub mod protocol;
pub mod shared;
mod shown;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use ractor::ActorProcessingErr;
use tokio::sync::mpsc;

use self::answer::Answer;
use self::layout::Layout;
use self::lease::Lease;
use self::outbox::Outbox;
use self::protocol::Shared;
pub use self::protocol::{Deadline, SessionArgs, SessionMsg, SessionRef};
use self::shared::Sharing;
use self::shown::Shown;
use self::watch::Watch;
use crate::admission::Permit;
use crate::backend::{BackendMsg, TokensTo, VocabularyError};
use crate::engine::protocol::{AddSpecial, EndReason, Epoch, RequestId, SequenceOutput, TextPart, Token};
use crate::engine::vocabulary_thread::plain_text;
use crate::error::GenerateError;
use crate::request::{Delta, FinishReason, Finished, GenerateRequest, GenerationEvent, Prompt};
use crate::response_cache::key::LaidOut;
use crate::sampling::SamplingParams;
use crate::scheduler::{CancelCause, SchedulerMsg, Submission};
use crate::supervision::mailbox;
use crate::wiring::{LoadedModel, Wiring};

/// State of a session.
#[derive(Debug)]
pub struct SessionState {
    request_id: RequestId,
    request: GenerateRequest,
    sampling: Arc<SamplingParams>,
    wiring: Arc<Wiring>,
    arrived_at: Instant,
    arrived_us: u64,
    max_iterations: Option<u32>,
    model: Option<Arc<LoadedModel>>,
    phase: Phase,
    /// The last scheduler that took the submission.
    known_to: Option<Epoch>,
    /// Under way while the permit is not here.
    layout: Option<Layout>,
    prompt: Vec<Token>,
    max_tokens: u32,
    answer: Answer,
    outbox: Outbox,
    /// Who else asks for the same, and what it says.
    sharing: Sharing,
    shown: Shown,
    /// Cancels at the scheduler when the state is dropped, however that comes about.
    lease: Lease,
    _watch: Watch,
    /// Given back just before the caller learns that it is over, unless events still wait for room. Lent to a layout.
    permit: Option<Permit>,
    /// Permits in all.
    permits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The response cache has not answered yet.
    Asking,
    Tokenizing,
    /// Queued or running under the scheduler of this epoch; `None`: nobody took the submission yet.
    Submitted(Option<Epoch>),
    /// Nothing is computed for it: the answer is another request's.
    Following,
    /// The last event waits for room in the caller's channel.
    Over,
}

/// The actor.
#[derive(Debug, Default)]
pub struct Session;

#[ractor::actor(message = SessionMsg, state = SessionState, arguments = SessionArgs)]
impl Session {
    async fn pre_start(&self, myself: SessionRef, args: SessionArgs) -> Result<SessionState, ActorProcessingErr> {
        myself.cast(SessionMsg::Begin)?;
        Ok(SessionState::new(myself, args))
    }

    async fn handle(
        &self,
        myself: SessionRef,
        message: SessionMsg,
        state: &mut SessionState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        if let Err(error) = state.on_message(&myself, message) {
            state.fail(error);
        }
        if state.phase == Phase::Over && state.outbox.is_done() {
            myself.stop(None);
        }
        Ok(())
    }

    /// A stop from above, with the request still open.
    async fn post_stop(&self, _myself: SessionRef, state: &mut SessionState) -> Result<(), ActorProcessingErr> {
        if state.phase != Phase::Over {
            state.end(GenerationEvent::Failed(GenerateError::ShuttingDown));
        }
        Ok(())
    }
}

impl SessionState {
    fn new(myself: SessionRef, args: SessionArgs) -> Self {
        let watch = Watch::start(&myself, &args);
        let mut sampling = args.request.sampling.clone();
        sampling.seed.get_or_insert_with(|| fastrand::u64(..));
        Self {
            request_id: args.request_id,
            sampling: Arc::new(sampling),
            arrived_at: args.arrived_at,
            arrived_us: args.arrived_us,
            max_iterations: args.max_iterations,
            model: None,
            phase: Phase::Tokenizing,
            known_to: None,
            layout: None,
            prompt: Vec::new(),
            max_tokens: 0,
            answer: Answer::new(&args.request),
            sharing: Sharing::new(&args.request),
            shown: Shown::new(args.row, args.ledger, args.wiring.clone(), myself.get_cell()),
            outbox: Outbox::new(args.receiver, myself),
            lease: Lease { request: args.request_id, wiring: args.wiring.clone() },
            wiring: args.wiring,
            _watch: watch,
            permits: args.permit.limit(),
            permit: Some(args.permit),
            request: args.request,
        }
    }

    fn on_message(&mut self, myself: &SessionRef, message: SessionMsg) -> Result<(), GenerateError> {
        match message {
            SessionMsg::RoomInChannel(room) => self.on_room(room),
            _ if self.phase == Phase::Over => Ok(()),
            SessionMsg::Begin => self.tokenize(myself),
            SessionMsg::CacheAnswered(verdict) => self.on_cache_answered(myself, verdict),
            SessionMsg::Follow(ticket) => self.on_follow(ticket),
            SessionMsg::FollowerGone { request } => self.on_follower_gone(request),
            SessionMsg::Shared(shared) => self.on_shared(myself, shared),
            SessionMsg::LaidOut { result, permit } => self.on_laid_out(myself, result, permit),
            SessionMsg::Tokenized { result } => self.on_tokenized(myself, result),
            SessionMsg::Queued { position } => {
                self.on_queued(position);
                Ok(())
            }
            SessionMsg::Started { epoch, reused } => self.on_started(epoch, reused),
            SessionMsg::Output { epoch, output } => self.on_output(epoch, output),
            SessionMsg::Ended { epoch, reason } => self.on_ended(epoch, reason),
            SessionMsg::Preempted { epoch } => self.on_preempted(myself, epoch),
            SessionMsg::SchedulerRestarted { epoch } => self.on_scheduler_restarted(myself, epoch),
            SessionMsg::EngineDown(_) if self.sharing.has_whole_answer() => Ok(()),
            SessionMsg::EngineDown(error) => Err(error),
            SessionMsg::ReceiverGone => Err(GenerateError::ClientGone),
            SessionMsg::DeadlinePassed(deadline) => self.on_deadline(deadline),
            SessionMsg::AskPosition => self.on_ask_position(),
        }
    }

    /// Lays the prompt out and goes on with it, unless the response cache is asked first. Called again after a restart if
    /// the tokens never came.
    fn tokenize(&mut self, myself: &SessionRef) -> Result<(), GenerateError> {
        let model = self.wiring.loaded().ok_or(GenerateError::ModelLoading)?;
        self.check_still(&model)?;
        answer::check(&self.request, &model.info)?;
        self.model = Some(model.clone());
        let prompt = match &self.request.prompt {
            Prompt::Tokens(tokens) => {
                // Before they are copied: there may be more of them than any context holds.
                answer::room_for(tokens, &self.request, &model.info)?;
                LaidOut::Tokens(tokens.to_vec())
            }
            Prompt::Text(text) => LaidOut::Parts(plain_text(&**text)),
            Prompt::Chat(chat) => match model.template.render_briefly(chat) {
                Some(parts) => LaidOut::Parts(parts.map_err(|error| answer::template_error(&error))?),
                None => {
                    let chat = chat.clone();
                    self.lay_out(myself, model, chat);
                    return Ok(());
                }
            },
        };
        self.share(myself, prompt, &model)
    }

    /// Asks for the prompt's tokens, if they are not there.
    fn prepare(&mut self, myself: &SessionRef, prompt: LaidOut) -> Result<(), GenerateError> {
        match prompt {
            LaidOut::Tokens(tokens) => self.begin_with(myself, tokens),
            LaidOut::Parts(parts) => {
                let model = self.model.as_ref().ok_or(GenerateError::ModelLoading)?;
                answer::check_size(&parts, &model.info)?;
                self.ask_for_tokens(myself, parts);
                Ok(())
            }
        }
    }

    fn ask_for_tokens(&self, myself: &SessionRef, parts: Vec<TextPart>) {
        let reply_to = TokensTo::Session { session: myself.clone(), request: self.request_id };
        // Undeliverable: the backend is down; the scheduler that restarts after it makes us ask again.
        let _ = self.wiring.backend.cast(BackendMsg::Tokenize { parts, special: AddSpecial::Model, reply_to });
    }

    fn on_tokenized(
        &mut self,
        myself: &SessionRef,
        result: Result<Vec<Token>, VocabularyError>,
    ) -> Result<(), GenerateError> {
        if self.phase != Phase::Tokenizing {
            return Ok(());
        }
        let tokens = result.map_err(|error| {
            answer::vocabulary_error(&error, answer::prompt_param(&self.request.prompt), self.permits)
        })?;
        self.begin_with(myself, tokens)
    }

    fn begin_with(&mut self, myself: &SessionRef, tokens: Vec<Token>) -> Result<(), GenerateError> {
        self.take_prompt(tokens)?;
        self.brief_followers();
        self.submit(myself)
    }

    /// The prompt is known, whoever computes what follows.
    fn take_prompt(&mut self, tokens: Vec<Token>) -> Result<(), GenerateError> {
        let model = self.model.clone().ok_or(GenerateError::ModelLoading)?;
        let room = answer::room_for(&tokens, &self.request, &model.info)?;
        self.max_tokens = self.request.max_tokens.unwrap_or(room).min(room).min(self.max_iterations.unwrap_or(room));
        self.answer.prompt_len = tokens.len() as u32;
        self.shown.prompt(self.answer.prompt_len);
        self.prompt = tokens;
        // What they were made of may be many times as large, and the session may wait for long.
        self.request.prompt = Prompt::Tokens(Arc::default());
        let cache = self.sharing.outcome();
        self.outbox.send(GenerationEvent::Started { prompt_tokens: self.answer.prompt_len, cache });
        Ok(())
    }

    /// Hands the request to the scheduler, with everything received so far. Finishes instead if nothing is missing but
    /// the news that it is over.
    fn submit(&mut self, myself: &SessionRef) -> Result<(), GenerateError> {
        if let Some(reason) = self.finished_already() {
            self.finish(reason);
            return Ok(());
        }
        let mut tokens = Vec::with_capacity(self.prompt.len() + self.answer.emitted.len());
        tokens.extend_from_slice(&self.prompt);
        tokens.extend_from_slice(&self.answer.emitted);
        let submission = Submission {
            request: self.request_id,
            tenant: self.request.tenant,
            tokens: tokens.into(),
            prompt_len: self.prompt.len() as u32,
            priority: self.request.priority,
            arrived_us: self.arrived_us,
            served: self.answer.served(),
            known_to: self.known_to,
            max_new_tokens: self.max_tokens - self.answer.emitted.len() as u32,
            sampling: self.sampling.clone(),
            logprobs: self.request.logprobs,
            prompt_logprobs: self.answer.missing_prompt_logprobs(&self.request),
            session: myself.clone(),
        };
        let reached = self.wiring.scheduler.cast(SchedulerMsg::Submit(Box::new(submission))).ok();
        // Only now: a scheduler that is new was started after the model that is loaded now.
        self.wiring.loaded().map_or(Ok(()), |model| self.check_still(&model))?;
        self.phase = Phase::Submitted(reached);
        self.known_to = reached.or(self.known_to);
        self.shown.submitted();
        Ok(())
    }

    /// Whether this is the model that the request began with.
    fn check_still(&self, now: &LoadedModel) -> Result<(), GenerateError> {
        self.model.as_ref().map_or(Ok(()), |begun| begun.goes_on_as(now))
    }

    fn finished_already(&self) -> Option<FinishReason> {
        if self.answer.emitted.last().is_some_and(|token| self.is_end(*token)) {
            return Some(FinishReason::EndToken);
        }
        let complete = self.answer.emitted.len() as u32 >= self.max_tokens;
        (complete && self.answer.missing_prompt_logprobs(&self.request).is_none()).then_some(FinishReason::Length)
    }

    fn is_end(&self, token: Token) -> bool {
        self.model.as_ref().is_some_and(|model| model.info.end_tokens.contains(&token))
    }

    fn on_queued(&mut self, position: u32) {
        if self.answer.started_at.is_none() {
            self.sharing.tell(|| Shared::Queued { position });
            self.outbox.send(GenerationEvent::Queued { position });
        }
    }

    fn on_started(&mut self, epoch: Epoch, reused: u32) -> Result<(), GenerateError> {
        if self.phase == Phase::Submitted(Some(epoch)) {
            self.answer.on_started(reused);
            self.sharing.tell(|| Shared::Running);
            self.shown.running(&self.answer);
        }
        Ok(())
    }

    fn on_output(&mut self, epoch: Epoch, output: SequenceOutput) -> Result<(), GenerateError> {
        if self.phase != Phase::Submitted(Some(epoch)) {
            return Ok(());
        }
        if let Some(prompt) = self.answer.take_prompt_logprobs(output.prompt_logprobs) {
            self.sharing.pass_on_prompt(&prompt);
            self.outbox.send(GenerationEvent::Prompt(prompt));
        }
        let before = self.answer.last_token_at;
        let mut delta = Delta::default();
        let mut stopped = None;
        for (index, mut token) in (output.index..).zip(output.tokens) {
            if self.is_end(token.id) {
                // It is no part of the text, so it has no place among the text's log-probabilities.
                token.logprobs = None;
            }
            if index as usize == self.answer.emitted.len() && stopped.is_none() {
                self.sharing.pass_on(&token);
                stopped = self.answer.take_token(token, &mut delta);
            }
        }
        self.shown.took(delta.tokens.len(), &self.answer, before, self.arrived_at);
        if !delta.is_empty() {
            self.outbox.send(GenerationEvent::Delta(delta));
        }
        if let Some(stop) = stopped {
            self.finish(FinishReason::StopText(stop));
        }
        Ok(())
    }

    fn on_ended(&mut self, epoch: Epoch, reason: EndReason) -> Result<(), GenerateError> {
        if self.phase != Phase::Submitted(Some(epoch)) {
            return Ok(());
        }
        match reason {
            EndReason::EndToken => self.finish(FinishReason::EndToken),
            EndReason::Length => self.finish(FinishReason::Length),
            EndReason::Refused(cause) => return Err(GenerateError::Internal(cause)),
            // Somebody else's decision: a preemption, which the scheduler announces itself.
            EndReason::Cancelled => {}
        }
        Ok(())
    }

    fn on_preempted(&mut self, myself: &SessionRef, epoch: Epoch) -> Result<(), GenerateError> {
        if self.phase != Phase::Submitted(Some(epoch)) {
            return Ok(());
        }
        self.submit(myself)
    }

    fn on_scheduler_restarted(&mut self, myself: &SessionRef, epoch: Epoch) -> Result<(), GenerateError> {
        match self.phase {
            Phase::Tokenizing => self.lease.unless_guilty(self.phase).and_then(|()| self.tokenize(myself)),
            Phase::Submitted(Some(reached)) if reached >= epoch => Ok(()),
            Phase::Submitted(_) => {
                self.lease.unless_guilty(self.phase)?;
                self.answer.on_resumed();
                self.sharing.tell(|| Shared::Resumed);
                self.submit(myself)
            }
            Phase::Asking | Phase::Following | Phase::Over => Ok(()),
        }
    }

    fn on_deadline(&self, deadline: Deadline) -> Result<(), GenerateError> {
        let deadlines = &self.request.deadlines;
        let (applies, limit, which) = match deadline {
            Deadline::Queue => (self.answer.started_at.is_none(), deadlines.queue, "queue"),
            Deadline::FirstToken => (self.answer.first_token_at.is_none(), deadlines.first_token, "first_token"),
            Deadline::Total => (true, Some(deadlines.total), "total"),
        };
        match limit {
            Some(limit) if applies => Err(GenerateError::DeadlineExceeded { which, limit }),
            _ => Ok(()),
        }
    }

    fn on_ask_position(&self) -> Result<(), GenerateError> {
        let anybody_listens = self.request.reports_position || self.sharing.has_followers();
        if anybody_listens && matches!(self.phase, Phase::Submitted(_)) && self.answer.started_at.is_none() {
            let _ = self.wiring.scheduler.cast(SchedulerMsg::AskPosition { request: self.request_id });
        }
        Ok(())
    }

    fn on_room(&mut self, room: Option<mpsc::OwnedPermit<GenerationEvent>>) -> Result<(), GenerateError> {
        match room {
            Some(room) => {
                self.outbox.flush(room);
                self.give();
                Ok(())
            }
            None => {
                // The caller has not read for too long; nothing more can be told to it.
                self.outbox.give_up();
                Err(GenerateError::ClientGone)
            }
        }
    }

    /// Nothing may come between here and the end: followers have the answer by then, and the cache.
    fn finish(&mut self, reason: FinishReason) {
        let mut rest = Delta::default();
        if !matches!(reason, FinishReason::StopText(_)) {
            self.answer.release_held_back(&mut rest);
        }
        if !rest.is_empty() {
            self.outbox.send(GenerationEvent::Delta(rest));
        }
        self.share_end(&reason);
        let (usage, timings) = self.shown.bill();
        self.end(GenerationEvent::Finished(Finished { reason, usage, timings, resumed: self.answer.resumed }));
    }

    /// The one way out: cancels at the scheduler, which is a no-op if it is over there, and sends the last event.
    fn end(&mut self, event: GenerationEvent) {
        self.phase = Phase::Over;
        self.shown.over();
        let cause = match &event {
            GenerationEvent::Finished(_) => CancelCause::Answered,
            GenerationEvent::Failed(GenerateError::DeadlineExceeded { .. }) => CancelCause::DeadlineExceeded,
            _ => CancelCause::Unwanted,
        };
        let _ = self.wiring.scheduler.cast(SchedulerMsg::Cancel { request: self.request_id, cause });
        if let GenerationEvent::Failed(error) = &event {
            tracing::debug!(request = self.request_id, trace_id = %self.request.trace_id, %error, "generation failed");
            self.sharing.tell(|| Shared::Failed(error.clone()));
        }
        self.part();
        if let Some(permit) = &mut self.permit
            && self.answer.is_given(&event)
        {
            permit.answered();
        }
        if self.outbox.is_clear() {
            self.permit = None;
        }
        self.outbox.end(event);
    }
}

#[cfg(test)]
mod tests;
