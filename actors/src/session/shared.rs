//! What a session shares with others that ask for the same: it asks the response cache first, gives a kept answer again,
//! follows another session's answer or hands its own on.
//!
//! Leader and followers know each other by two guards: the leader holds a `Ticket` of each follower, each follower a
//! `Seat` at its leader, and whoever goes, in whatever way, tells the other by dropping it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::protocol::Shared;
use super::{Phase, SessionMsg, SessionRef, SessionState};
use crate::engine::protocol::{OutputToken, RequestId, Token, TokenLogprob};
use crate::error::GenerateError;
use crate::request::{CacheMode, CacheOutcome, Delta, FinishReason, GenerateRequest, GenerationEvent};
use crate::response_cache::key::{Key, LaidOut, is_determined};
use crate::response_cache::recording::{KeptAnswer, Recording};
use crate::response_cache::{Lead, Question, ResponseCacheMsg, Verdict};
use crate::wiring::LoadedModel;

/// Longest wait for the response cache: only one that is stuck says nothing for so long.
const CACHE_DEADLINE: Duration = Duration::from_millis(500);

/// How often a session asks: once more when its leader is gone before it said anything.
const MOST_QUESTIONS: u32 = 2;

/// A follower at its leader. Whatever way it goes, the follower is told that the leader has nothing more for it.
#[derive(Debug)]
pub struct Ticket {
    follower: SessionRef,
    request: RequestId,
    leader: RequestId,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A follower that is gone needs no telling.
        let _ = self.follower.cast(SessionMsg::Shared(Shared::LeaderGone { leader: self.leader }));
    }
}

/// A place among a leader's followers, given back on drop.
#[derive(Debug)]
struct Seat {
    leader: SessionRef,
    request: RequestId,
    leader_request: RequestId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A leader that is gone misses nobody.
        let _ = self.leader.cast(SessionMsg::FollowerGone { request: self.request });
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Timer(AbortHandle);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the answer of a session that computes nothing comes from.
#[derive(Debug)]
enum Source {
    Kept(Arc<KeptAnswer>),
    /// What it said is in the session's own recording.
    Leader {
        seat: Seat,
        end: Option<FinishReason>,
    },
}

/// The part of a session's state that has to do with others.
#[derive(Debug)]
pub(super) struct Sharing {
    mode: CacheMode,
    outcome: Option<CacheOutcome>,
    key: Option<Key>,
    questions: u32,
    /// While the cache is asked.
    prompt: Option<LaidOut>,
    timer: Option<Timer>,
    /// Everything the engine said, from the first token on; `None`: nobody will want it.
    recording: Option<Recording>,
    lead: Option<Lead>,
    followers: Vec<Ticket>,
    source: Option<Source>,
    /// Tokens of the source that the caller has been given.
    given: usize,
}

impl Sharing {
    pub(super) fn new(request: &GenerateRequest) -> Self {
        let mode = if is_determined(&request.sampling) { request.cache } else { CacheMode::Bypass };
        Self {
            mode,
            outcome: None,
            key: None,
            questions: 0,
            prompt: None,
            timer: None,
            recording: (mode != CacheMode::Bypass).then(Recording::default),
            lead: None,
            followers: Vec::new(),
            source: None,
            given: 0,
        }
    }

    /// How the cache was used; `None`: not at all.
    pub(super) fn outcome(&self) -> Option<CacheOutcome> {
        self.outcome
    }

    /// Whether all that its caller is yet to be given is here.
    pub(super) fn has_whole_answer(&self) -> bool {
        matches!(self.source, Some(Source::Kept(_) | Source::Leader { end: Some(_), .. }))
    }

    /// Whether anybody follows.
    pub(super) fn has_followers(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Takes down a token that the engine said and hands it on.
    pub(super) fn pass_on(&mut self, token: &OutputToken) {
        if let Some(recording) = &mut self.recording {
            recording.push(token);
        }
        self.tell(|| Shared::Token(token.clone()));
    }

    /// The same with the prompt's log-probabilities.
    pub(super) fn pass_on_prompt(&mut self, logprobs: &[TokenLogprob]) {
        if let Some(recording) = &mut self.recording {
            recording.prompt_logprobs = logprobs.to_vec();
        }
        self.tell(|| Shared::PromptLogprobs(logprobs.to_vec()));
    }

    /// Tells every follower.
    pub(super) fn tell(&self, what: impl Fn() -> Shared) {
        for ticket in &self.followers {
            // One that is gone gives its seat back.
            let _ = ticket.follower.cast(SessionMsg::Shared(what()));
        }
    }
}

impl SessionState {
    /// The prompt is laid out: asks the response cache about it first, if that is of any use.
    pub(super) fn share(
        &mut self,
        myself: &SessionRef,
        prompt: LaidOut,
        model: &LoadedModel,
    ) -> Result<(), GenerateError> {
        let sharing = &mut self.sharing;
        if sharing.mode == CacheMode::Bypass || sharing.questions > 0 {
            return self.prepare(myself, prompt);
        }
        sharing.key = Some(Key::of(&self.request, &prompt, &model.identity));
        sharing.outcome = Some(CacheOutcome::Miss);
        sharing.questions = 1;
        if sharing.mode == CacheMode::Refresh {
            return self.prepare(myself, prompt);
        }
        sharing.prompt = Some(prompt);
        self.ask_cache(myself, None);
        Ok(())
    }

    fn ask_cache(&mut self, myself: &SessionRef, gone: Option<RequestId>) {
        let Some(key) = self.sharing.key else { return };
        self.phase = Phase::Asking;
        let timer = myself.send_after(CACHE_DEADLINE, || SessionMsg::CacheAnswered(Verdict::Unknown));
        self.sharing.timer = Some(Timer(timer.abort_handle()));
        let question = Question::new(key, self.request_id, self.request.priority, gone, myself.clone());
        // A question that reaches nobody answers itself.
        let _ = self.wiring.response_cache.cast(ResponseCacheMsg::Ask(question));
    }

    pub(super) fn on_cache_answered(&mut self, myself: &SessionRef, verdict: Verdict) -> Result<(), GenerateError> {
        if self.phase != Phase::Asking {
            // The cache was slow. What is computed from the first token on can still be followed.
            if let Verdict::Lead(lead) = verdict
                && self.sharing.recording.is_some()
                && self.sharing.source.is_none()
            {
                self.sharing.lead = Some(lead);
            }
            return Ok(());
        }
        self.sharing.timer = None;
        match verdict {
            Verdict::Kept(answer) => {
                self.give_again(answer);
                Ok(())
            }
            Verdict::Follow { leader, request } => self.follow(myself, leader, request),
            Verdict::Lead(lead) => {
                self.sharing.lead = Some(lead);
                self.compute(myself)
            }
            Verdict::Unknown => self.compute(myself),
        }
    }

    /// Goes on as if there were no cache.
    fn compute(&mut self, myself: &SessionRef) -> Result<(), GenerateError> {
        self.phase = Phase::Tokenizing;
        self.sharing.outcome = Some(CacheOutcome::Miss);
        match self.sharing.prompt.take() {
            Some(prompt) => self.prepare(myself, prompt),
            None => self.tokenize(myself),
        }
    }

    fn give_again(&mut self, answer: Arc<KeptAnswer>) {
        self.phase = Phase::Following;
        self.set_wants_place(false);
        self.sharing.prompt = None;
        self.sharing.outcome = Some(CacheOutcome::Hit);
        self.sharing.recording = None;
        self.shown.prompt(answer.prompt_tokens);
        self.answer.prompt_len = answer.prompt_tokens;
        self.started_elsewhere();
        let cache = self.sharing.outcome;
        self.outbox.send(GenerationEvent::Started { prompt_tokens: answer.prompt_tokens, cache });
        self.sharing.source = Some(Source::Kept(answer));
        self.give();
    }

    /// An engine computes this, or has, for somebody else: nothing of the prompt is computed here.
    fn started_elsewhere(&mut self) {
        self.answer.on_started(self.answer.prompt_len);
        self.shown.following(&self.answer);
    }

    fn follow(&mut self, myself: &SessionRef, leader: SessionRef, request: RequestId) -> Result<(), GenerateError> {
        self.phase = Phase::Following;
        self.set_wants_place(false);
        self.sharing.prompt = None;
        self.sharing.outcome = Some(CacheOutcome::Coalesced);
        self.shown.following(&self.answer);
        let ticket = Ticket { follower: myself.clone(), request: self.request_id, leader: request };
        let seat = Seat { leader: leader.clone(), request: self.request_id, leader_request: request };
        self.sharing.source = Some(Source::Leader { seat, end: None });
        // A ticket that reaches nobody says so.
        let _ = leader.cast(SessionMsg::Follow(ticket));
        Ok(())
    }

    /// Gives the caller what there is, token by token, as far as it has room.
    pub(super) fn give(&mut self) {
        while self.phase == Phase::Following && self.outbox.is_clear() {
            if !self.give_next() {
                return self.end_with_source();
            }
        }
    }

    /// False: there is nothing more yet.
    fn give_next(&mut self) -> bool {
        let sharing = &mut self.sharing;
        let recording = match &sharing.source {
            Some(Source::Kept(answer)) => &answer.recording,
            Some(Source::Leader { .. }) | None => match &sharing.recording {
                Some(recording) => recording,
                None => return false,
            },
        };
        if !recording.prompt_logprobs.is_empty()
            && self.answer.missing_prompt_logprobs(&self.request).is_some()
            && let Some(prompt) = self.answer.take_prompt_logprobs(recording.prompt_logprobs.clone())
        {
            self.outbox.send(GenerationEvent::Prompt(prompt));
            return true;
        }
        let Some(token) = recording.token(sharing.given) else { return false };
        sharing.given += 1;
        let mut delta = Delta::default();
        let stopped = self.answer.take_token(token, &mut delta);
        self.shown.gave(&self.answer, self.arrived_at);
        self.outbox.send(GenerationEvent::Delta(delta));
        if let Some(stop) = stopped {
            self.finish(FinishReason::StopText(stop));
        }
        true
    }

    fn end_with_source(&mut self) {
        let end = match &self.sharing.source {
            Some(Source::Kept(answer)) => Some(answer.reason.clone()),
            Some(Source::Leader { end, .. }) => end.clone(),
            None => None,
        };
        if let Some(reason) = end {
            self.finish(reason);
        }
    }

    /// From the leader, or from what is left of it.
    pub(super) fn on_shared(&mut self, myself: &SessionRef, shared: Shared) -> Result<(), GenerateError> {
        if self.phase != Phase::Following {
            return Ok(());
        }
        match shared {
            Shared::Queued { position } => self.on_queued(position),
            Shared::Running => self.started_elsewhere(),
            Shared::Prompt { tokens, running, recording } => {
                return self.on_leaders_prompt(&tokens, running, *recording);
            }
            Shared::PromptLogprobs(logprobs) => self.sharing.pass_on_prompt(&logprobs),
            Shared::Token(token) => self.sharing.pass_on(&token),
            Shared::Resumed => self.answer.on_resumed(),
            Shared::Finished(reason) => {
                if let Some(Source::Leader { end, .. }) = &mut self.sharing.source {
                    *end = Some(reason);
                }
            }
            Shared::Failed(error) => return Err(error),
            Shared::LeaderGone { leader } => return self.on_leader_gone(myself, leader),
        }
        self.give();
        Ok(())
    }

    fn on_leaders_prompt(
        &mut self,
        tokens: &[Token],
        running: bool,
        recording: Recording,
    ) -> Result<(), GenerateError> {
        self.take_prompt(tokens.to_vec())?;
        if running {
            self.started_elsewhere();
        }
        self.sharing.recording = Some(recording);
        self.give();
        Ok(())
    }

    fn on_leader_gone(&mut self, myself: &SessionRef, gone: RequestId) -> Result<(), GenerateError> {
        match self.sharing.source.take() {
            Some(Source::Leader { seat, end: None }) if seat.leader_request == gone => drop(seat),
            other => {
                self.sharing.source = other;
                return Ok(());
            }
        }
        self.set_wants_place(true);
        if self.prompt.is_empty() && self.sharing.questions < MOST_QUESTIONS {
            self.sharing.questions += 1;
            self.ask_cache(myself, Some(gone));
            return Ok(());
        }
        self.go_alone(myself)
    }

    fn set_wants_place(&mut self, wants: bool) {
        if let Some(permit) = &mut self.permit {
            permit.set_wants_place(wants);
        }
    }

    /// Goes on as an ordinary session, with what the leader has said.
    fn go_alone(&mut self, myself: &SessionRef) -> Result<(), GenerateError> {
        while self.give_next() {
            if self.phase == Phase::Over {
                return Ok(());
            }
        }
        self.answer.on_resumed();
        // From now on the prompt is computed for this request.
        self.answer.cached_tokens = 0;
        if self.prompt.is_empty() { self.compute(myself) } else { self.submit(myself) }
    }

    /// Somebody asks for the same.
    pub(super) fn on_follow(&mut self, ticket: Ticket) -> Result<(), GenerateError> {
        // Dropped, a ticket tells its owner to go on without us.
        if self.sharing.lead.is_some() && self.sharing.recording.is_some() {
            if !self.prompt.is_empty() {
                self.brief(&ticket);
            }
            self.sharing.followers.push(ticket);
        }
        Ok(())
    }

    /// The prompt is known: followers that came before it are told.
    pub(super) fn brief_followers(&self) {
        self.sharing.followers.iter().for_each(|ticket| self.brief(ticket));
    }

    fn brief(&self, ticket: &Ticket) {
        let prompt = Shared::Prompt {
            tokens: self.prompt.as_slice().into(),
            running: self.answer.started_at.is_some(),
            recording: Box::new(self.sharing.recording.clone().unwrap_or_default()),
        };
        let _ = ticket.follower.cast(SessionMsg::Shared(prompt));
    }

    pub(super) fn on_follower_gone(&mut self, request: RequestId) -> Result<(), GenerateError> {
        self.sharing.followers.retain(|ticket| ticket.request != request);
        // Nobody is left to compute for.
        if self.sharing.followers.is_empty() && !self.outbox.is_open() {
            return Err(GenerateError::ClientGone);
        }
        Ok(())
    }

    /// Ends with an error; but what concerns this caller alone is no reason to let followers down.
    pub(super) fn fail(&mut self, error: GenerateError) {
        if self.phase == Phase::Over {
            // The caller read too slowly for the last event: the request is in the books already.
            return;
        }
        let is_own = matches!(error, GenerateError::ClientGone | GenerateError::DeadlineExceeded { .. });
        if is_own && !self.sharing.followers.is_empty() {
            let trace_id = &self.request.trace_id;
            tracing::debug!(request = self.request_id, %trace_id, %error, "the caller is gone, followers stay");
            return self.outbox.end(GenerationEvent::Failed(error));
        }
        self.end(GenerationEvent::Failed(error));
    }

    /// The answer is complete: it is kept, and followers have it.
    pub(super) fn share_end(&mut self, reason: &FinishReason) {
        let computed = self.sharing.source.is_none();
        if let (true, Some(key), Some(recording)) = (computed, self.sharing.key, self.sharing.recording.take()) {
            let answer = KeptAnswer::new(self.answer.prompt_len, recording, reason.clone());
            let keep = ResponseCacheMsg::Keep { key, request: self.request_id, answer };
            // Undeliverable: the cache is down, and starts empty.
            let _ = self.wiring.response_cache.cast(keep);
        }
        self.sharing.tell(|| Shared::Finished(reason.clone()));
    }

    /// Lets go of leader, followers and lead.
    pub(super) fn part(&mut self) {
        let sharing = &mut self.sharing;
        sharing.followers.clear();
        (sharing.source, sharing.lead, sharing.timer, sharing.recording, sharing.prompt) = Default::default();
    }
}
