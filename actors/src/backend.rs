//! The backend actor: the only owner of an engine, its model and its device.
//!
//! Supervised by `engine-0`, first of its three. The scheduler sends it commands, sessions and the system handle send
//! text to tokenize, the engine's threads send events. It carries them: tokens to the sessions, then the summary to the
//! scheduler. It never restarts its engine: when the engine says that it has failed, or its host says so for it, `handle`
//! returns `Err` and the supervisor does the rest; kv-cache and scheduler start again after it and the sessions submit again. Stopping it ends the engine at
//! its next step.

mod questions;
mod start;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, ActorStatus, RpcReplyPort};
use smallvec::SmallVec;

use self::questions::{Question, Questions};
use crate::boards::backend as board;
use crate::engine::host::{EngineFault, EngineHost, HostError, HostKind};
use crate::engine::protocol::{
    AddSpecial, Admit, Ended, EngineCommand, EngineEvent, EngineThread, Epoch, Held, Limits, RequestId, SequenceId,
    StepOutput, StoredPrefix, TextPart, Token,
};
use crate::engine::spec::EngineSpec;
use crate::engine::vocabulary_thread::{text_bytes, token_bytes};
use crate::kv_cache::KvCacheMsg;
use crate::quarantine::Suspects;
use crate::scheduler::tuner::MeasuredStep;
use crate::scheduler::{SchedulerMsg, SchedulerRef, StepSummary};
use crate::session::SessionMsg;
use crate::supervision::mailbox;
use crate::wiring::Wiring;

/// How long an engine that takes no commands any more may take to say why: longer than the keeper of one that writes KV
/// files, and then is killed.
const LAST_EVENT_DEADLINE: Duration = Duration::from_secs(12);

/// Reference to a backend.
pub type BackendRef = ActorRef<BackendMsg>;

/// What the backend is told.
#[derive(Debug)]
pub enum BackendMsg {
    /// From a starting scheduler: forget the sequences of older epochs. The inventory goes to the kv-cache.
    Reset {
        /// The scheduler's epoch.
        epoch: Epoch,
        /// The scheduler itself, which is not published under its address yet.
        scheduler: SchedulerRef,
    },
    /// From the scheduler: start a sequence; its tokens go to the session.
    Admit {
        /// The sequence.
        admit: Box<Admit>,
        /// Who gets the tokens.
        session: ActorRef<SessionMsg>,
    },
    /// From the scheduler: end a sequence.
    Cancel {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The request.
        request: RequestId,
    },
    /// From the scheduler: another rank for a running request.
    SetRank {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The request.
        request: RequestId,
        /// Its new rank.
        rank: u64,
    },
    /// From the scheduler: free the KV of an idle sequence.
    Evict {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The sequence.
        sequence: SequenceId,
    },
    /// From the scheduler: limits of the following steps.
    SetLimits(Limits),
    /// Text to tokens. Answered as soon as the vocabulary thread is through.
    Tokenize {
        /// The text.
        parts: Vec<TextPart>,
        /// Whether the model's own tokens are added.
        special: AddSpecial,
        /// Who gets the tokens.
        reply_to: TokensTo,
    },
    /// Tokens to bytes of text.
    Detokenize {
        /// Tokens, unchecked.
        tokens: Vec<Token>,
        /// Who gets the bytes.
        reply_to: RpcReplyPort<Result<Vec<u8>, VocabularyError>>,
    },
    /// From the chaos actor: hurt the engine's process, if it has one.
    Disturb(EngineFault),
    /// From the engine's threads.
    Engine(EngineEvent),
    /// To itself: the engine is gone, and why was never said.
    NoLastEvent,
}

crate::impl_message!(BackendMsg);

/// Who gets the tokens of a text.
#[derive(Debug)]
pub enum TokensTo {
    /// A caller that waits.
    Caller(RpcReplyPort<Result<Vec<Token>, VocabularyError>>),
    /// A session, as `SessionMsg::Tokenized`.
    Session {
        /// The session.
        session: ActorRef<SessionMsg>,
        /// Its request.
        request: RequestId,
    },
}

/// Why text was not turned into tokens, or tokens into text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// The caller's mistake.
    #[error("{0}")]
    Refused(String),
    /// Too many wait already.
    #[error("the tokenizer is at its limit")]
    Busy,
}

/// What a backend starts with.
#[derive(Debug, Clone)]
pub struct BackendArgs {
    /// The engine.
    pub engine: EngineSpec,
    /// Where it runs.
    pub host: HostKind,
    /// The others.
    pub wiring: Arc<Wiring>,
}

/// State of a backend.
#[derive(Debug)]
pub struct BackendState {
    myself: BackendRef,
    wiring: Arc<Wiring>,
    /// The one that reset the engine last.
    scheduler: Option<SchedulerRef>,
    host: EngineHost,
    sessions: HashMap<RequestId, ActorRef<SessionMsg>>,
    suspects: Suspects,
    /// Of the last reset.
    epoch: Epoch,
    /// For the first reset: how long those that the last engine's end cut off come first.
    cut_off_first: Duration,
    /// The engine is ended on purpose, for which nobody is charged.
    doomed: bool,
    /// It takes no commands any more. Why, and over whom it died, is in events that are yet to come.
    gone: bool,
    questions: Questions,
}

/// The actor.
#[derive(Debug, Default)]
pub struct Backend;

#[ractor::actor(message = BackendMsg, state = BackendState, arguments = BackendArgs)]
impl Backend {
    /// Ends when the model is loaded: minutes, for a large one.
    async fn pre_start(&self, myself: BackendRef, args: BackendArgs) -> Result<BackendState, ActorProcessingErr> {
        let (host, info) = start::start_engine(myself.clone(), &args).await?;
        let shown = &args.wiring.boards.backend;
        shown.set(board::ENGINE, start::shown_engine(&args));
        if let Some(pid) = host.pid() {
            shown.set(board::PID, pid.into());
        }
        shown.set(board::N_CTX, info.n_ctx.into());
        let cut_off_first = start::cut_off_first(args.wiring.pulse.next_engine());
        start::publish_model(&args, *info)?;
        Ok(BackendState { cut_off_first, ..BackendState::new(myself, args.wiring, host) })
    }

    /// An `Err` is a crash on purpose: the engine is gone or does not keep up, and a new one must be started.
    async fn handle(
        &self,
        _myself: BackendRef,
        message: BackendMsg,
        state: &mut BackendState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            BackendMsg::Reset { epoch, scheduler } => state.on_reset(epoch, scheduler),
            BackendMsg::Admit { admit, session } => state.on_admit(admit, session),
            BackendMsg::Cancel { epoch, request } => state.command(EngineCommand::Cancel { epoch, request }),
            BackendMsg::SetRank { epoch, request, rank } => {
                state.advise(EngineCommand::SetRank { epoch, request, rank })
            }
            BackendMsg::Evict { epoch, sequence } => state.command(EngineCommand::Evict { epoch, sequence }),
            BackendMsg::SetLimits(limits) => state.advise(EngineCommand::SetLimits(limits)),
            BackendMsg::Tokenize { parts, special, reply_to } => {
                let bytes = text_bytes(&parts);
                state.ask(Question::Tokens(reply_to), bytes, |id| EngineCommand::Tokenize { id, parts, special })
            }
            BackendMsg::Detokenize { tokens, reply_to } => {
                let bytes = token_bytes(&tokens);
                state.ask(Question::Text(reply_to), bytes, |id| EngineCommand::Detokenize { id, tokens })
            }
            BackendMsg::Disturb(fault) => state.on_disturb(fault),
            BackendMsg::Engine(event) => state.on_engine(event),
            BackendMsg::NoLastEvent => Err(HostError::Gone.into()),
        }
    }
}

impl BackendState {
    fn new(myself: BackendRef, wiring: Arc<Wiring>, host: EngineHost) -> Self {
        Self {
            myself,
            wiring,
            scheduler: None,
            host,
            sessions: HashMap::new(),
            suspects: Suspects::default(),
            epoch: 0,
            cut_off_first: Duration::ZERO,
            doomed: false,
            gone: false,
            questions: Questions::default(),
        }
    }

    fn command(&mut self, command: EngineCommand) -> Result<(), ActorProcessingErr> {
        match self.host.send(command) {
            Ok(()) => {}
            Err(HostError::Gone) => self.on_gone(),
            Err(error @ HostError::Full) => return Err(error.into()),
        }
        Ok(())
    }

    /// The command is lost, as those before it are. Whoever is to be charged shows in the events that are still to be
    /// read, the last of which says why the engine died.
    fn on_gone(&mut self) {
        if !std::mem::replace(&mut self.gone, true) {
            self.myself.send_after(LAST_EVENT_DEADLINE, || BackendMsg::NoLastEvent);
        }
    }

    fn on_disturb(&mut self, fault: EngineFault) -> Result<(), ActorProcessingErr> {
        self.doomed |= fault.is_lethal();
        self.host.disturb(fault);
        Ok(())
    }

    /// Limits and ranks are advice: a full queue may lose them, the next ones come with the next change.
    fn advise(&mut self, advice: EngineCommand) -> Result<(), ActorProcessingErr> {
        match self.host.send(advice) {
            Ok(()) | Err(HostError::Full) => {}
            Err(HostError::Gone) => self.on_gone(),
        }
        Ok(())
    }

    fn on_reset(&mut self, epoch: Epoch, scheduler: SchedulerRef) -> Result<(), ActorProcessingErr> {
        self.sessions.clear();
        // Those that were in a step are not under way here any more, and their accounts are their sessions'.
        self.suspects.in_step.clear();
        self.epoch = epoch;
        self.wiring.pulse.rest();
        self.scheduler = Some(scheduler);
        let reset = self.reset(epoch);
        self.command(reset)
    }

    /// Those that a later scheduler finds cut off ran on this engine.
    fn reset(&mut self, epoch: Epoch) -> EngineCommand {
        EngineCommand::Reset { epoch, cut_off_first: std::mem::take(&mut self.cut_off_first) }
    }

    fn on_admit(&mut self, admit: Box<Admit>, session: ActorRef<SessionMsg>) -> Result<(), ActorProcessingErr> {
        if self.sessions.is_empty() {
            self.wiring.pulse.begin();
        }
        self.sessions.insert(admit.request, session);
        self.command(EngineCommand::Admit(admit))
    }

    fn ask(
        &mut self,
        question: Question,
        bytes: usize,
        command: impl FnOnce(u64) -> EngineCommand,
    ) -> Result<(), ActorProcessingErr> {
        if question.is_abandoned() {
            return Ok(());
        }
        if let Err(error) = self.questions.check(question.asker(), bytes) {
            question.refuse(error);
            return Ok(());
        }
        let id = self.questions.next_id();
        match self.host.send(command(id)) {
            Ok(()) => self.questions.opened(id, question, bytes),
            Err(HostError::Full) => question.refuse(VocabularyError::Busy),
            Err(HostError::Gone) => {
                // Whoever asks learns it with all others, from the end of this actor.
                self.questions.opened(id, question, bytes);
                self.on_gone();
            }
        }
        Ok(())
    }

    fn on_engine(&mut self, event: EngineEvent) -> Result<(), ActorProcessingErr> {
        match event {
            EngineEvent::Step(output) => self.on_step(*output),
            EngineEvent::Ended(ended) => self.on_ended(ended),
            EngineEvent::Started { epoch, request, reused } => self.on_started(epoch, request, reused),
            EngineEvent::Inventory { epoch, sequences, files } => self.on_inventory(epoch, sequences, files),
            EngineEvent::Files { epoch, stored, gone } => {
                let _ = self.wiring.kv_cache.cast(KvCacheMsg::Files { epoch, stored, gone });
            }
            EngineEvent::CellsShort { epoch, needed, parked } => {
                self.tell_scheduler(SchedulerMsg::CellsShort { epoch, needed, parked });
            }
            EngineEvent::Tokenized { id, result } => self.on_tokenized(id, result),
            EngineEvent::Detokenized { id, result } => self.on_detokenized(id, result),
            EngineEvent::StepStarted { epoch, requests } => self.on_step_started(epoch, requests),
            EngineEvent::TokenizeStarted { id } => self.suspects.tokenizing = Some(id),
            EngineEvent::Failed { cause, thread } => {
                self.charge(thread);
                return Err(cause.into());
            }
            EngineEvent::LoadFailed { cause } => return Err(cause.into()),
            EngineEvent::Loading { .. } | EngineEvent::Loaded(_) => {}
        }
        Ok(())
    }

    fn on_step_started(&mut self, epoch: Epoch, requests: Vec<RequestId>) {
        if epoch == self.epoch {
            self.suspects.in_step = requests;
        }
    }

    /// The engine died: of those it worked on, whoever has gained nothing may be the reason.
    fn charge(&self, thread: Option<EngineThread>) {
        if self.doomed {
            return;
        }
        if thread != Some(EngineThread::Vocabulary) {
            self.charge_step();
        }
        if thread != Some(EngineThread::Loop) {
            self.charge_text();
        }
    }

    fn charge_step(&self) {
        let quarantine = &self.wiring.quarantine;
        quarantine.charge(&self.suspects.in_step);
        for request in &self.suspects.in_step {
            if !self.sessions.get(request).is_some_and(lives) {
                // Its session has closed its account, and nobody would close it again.
                quarantine.clear(*request);
            }
        }
    }

    fn charge_text(&self) {
        if let Some(TokensTo::Session { session, request }) =
            self.suspects.tokenizing.and_then(|id| self.questions.tokens_to(id))
            && lives(session)
        {
            self.wiring.quarantine.charge(&[*request]);
        }
    }

    /// Tokens first, then the summary: whoever learns from the scheduler has the tokens already.
    fn on_step(&mut self, output: StepOutput) {
        self.wiring.pulse.beat();
        self.show(&output);
        let measured = MeasuredStep {
            decode_rows: output.batch_tokens.saturating_sub(output.prefill_tokens),
            prefill_tokens: output.prefill_tokens,
            step_us: output.step_us,
        };
        let tokens = Vec::with_capacity(output.outputs.len());
        let mut summary = StepSummary { epoch: output.epoch, measured, tokens, prefilling: Vec::new() };
        for sequence in output.outputs {
            let ids: SmallVec<[Token; 1]> = sequence.tokens.iter().map(|token| token.id).collect();
            if ids.is_empty() {
                summary.prefilling.push((sequence.request, sequence.prefill_left));
            } else {
                self.suspects.gained(sequence.request, &self.wiring.quarantine);
                summary.tokens.push((sequence.request, ids));
            }
            if let Some(session) = self.sessions.get(&sequence.request) {
                // A session that is gone is a client that left; its guard has told the scheduler.
                let _ = session.cast(SessionMsg::Output { epoch: output.epoch, output: sequence });
            }
        }
        self.tell_scheduler(SchedulerMsg::Stepped(summary));
    }

    fn show(&self, output: &StepOutput) {
        let shown = &self.wiring.boards.backend;
        shown.set(board::STEPS, output.step);
        shown.set(board::STEP_US, output.step_us);
        shown.set(board::SAMPLE_US, output.sample_us);
        shown.set(board::BATCH_TOKENS, output.batch_tokens.into());
        shown.set(board::CELLS_USED, output.cells_used.into());
    }

    fn on_ended(&mut self, ended: Box<Ended>) {
        if let Some(session) = self.sessions.remove(&ended.request) {
            let _ = session.cast(SessionMsg::Ended { epoch: ended.epoch, reason: ended.reason.clone() });
        }
        if self.sessions.is_empty() {
            self.wiring.pulse.rest();
        }
        self.tell_scheduler(SchedulerMsg::Ended(ended));
    }

    fn on_started(&mut self, epoch: Epoch, request: RequestId, reused: u32) {
        if let Some(session) = self.sessions.get(&request) {
            let _ = session.cast(SessionMsg::Started { epoch, reused });
        }
        self.tell_scheduler(SchedulerMsg::Started { epoch, request, reused });
    }

    fn on_tokenized(&mut self, id: u64, result: Result<Vec<Token>, String>) {
        if let Some(Question::Tokens(reply_to)) = self.questions.take(id) {
            reply_to.send(result.map_err(VocabularyError::Refused));
        }
    }

    fn on_detokenized(&mut self, id: u64, result: Result<Vec<u8>, String>) {
        if let Some(Question::Text(reply_to)) = self.questions.take(id) {
            let _ = reply_to.send(result.map_err(VocabularyError::Refused));
        }
    }

    fn on_inventory(&self, epoch: Epoch, sequences: Vec<Held>, files: Vec<StoredPrefix>) {
        if let Some(scheduler) = self.scheduler.clone() {
            // Undeliverable: the kv-cache is down, and the scheduler will be restarted after it.
            let _ = self.wiring.kv_cache.cast(KvCacheMsg::Inventory { epoch, sequences, files, scheduler });
        }
    }

    /// A scheduler that is gone is being restarted and will ask for everything anew.
    fn tell_scheduler(&self, message: SchedulerMsg) {
        if let Some(scheduler) = &self.scheduler {
            let _ = scheduler.cast(message);
        }
    }
}

fn lives(session: &ActorRef<SessionMsg>) -> bool {
    session.get_status() != ActorStatus::Stopped
}

impl TokensTo {
    fn send(self, result: Result<Vec<Token>, VocabularyError>) {
        match self {
            Self::Caller(port) => drop(port.send(result)),
            Self::Session { session, .. } => drop(session.cast(SessionMsg::Tokenized { result })),
        }
    }
}

#[cfg(test)]
mod tests;
