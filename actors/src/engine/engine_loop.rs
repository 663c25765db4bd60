//! Continuous batching: applies commands, builds a batch, decodes, samples, emits one output per step.
//!
//! Owns the model and, for each sequence, the tokens whose KV it holds. It decides nothing about who runs; it
//! verifies what the scheduler advises and keeps every rule of the model whatever it is told.

mod admit;
mod files;
mod inventory;
mod parking;
pub(crate) mod plan;
mod reading;
pub(crate) mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, select};

use self::plan::{Plan, Planned};
use self::slot::Slot;
use crate::engine::batch::Batch;
use crate::engine::model::{BUSY_BYTES, DecodeError, Model, Vocabulary};
use crate::engine::progress::Progress;
use crate::engine::protocol::{
    Admit, EndReason, Ended, EngineCommand, EngineEvent, Epoch, Limits, RequestId, SequenceId, StepOutput, Waiting,
};
use crate::engine::sample_rows::RowSampler;
use crate::engine::store::Store;

/// How long a step that freed a place waits for the request that takes it: longer than the actors need on a busy machine,
/// and nothing against a step that it would wait for otherwise.
const PLACE_WAIT: Duration = Duration::from_millis(3);

/// How long a loop that is given work looks out for more: those that arrive together are read together, and not beside the
/// first one.
const PAUSE: Duration = Duration::from_millis(1);

/// The same once a second request has come.
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// The longest that a burst is gathered, copying its prefixes included: ten requests of a client in Python come within 10 ms,
/// and the copies take as long.
const GATHER: Duration = Duration::from_millis(40);

/// How often one that is held for want of cells tries again while nothing else runs.
const HELD_WAIT: Duration = Duration::from_secs(1);

/// How often an idle loop looks whether a KV file is written.
const WRITER_WAIT: Duration = Duration::from_millis(20);

/// Limits until the scheduler sends its own.
const DEFAULT_LIMITS: Limits =
    Limits { step_tokens: 256, mixed_prefill_tokens: u32::MAX, prefill_wait_ms: 0, waiting: Waiting::Nobody };

/// The loop's state.
pub(crate) struct EngineLoop<M, E> {
    model: M,
    vocabulary: Arc<dyn Vocabulary>,
    emit: E,
    epoch: Epoch,
    limits: Limits,
    slots: Vec<Slot>,
    batch: Batch,
    plan: Plan,
    sampler: RowSampler,
    step: u64,
    /// Until when those that the end of another engine cut off come first.
    cut_off_until: Instant,
    /// When somebody was last held for want of cells.
    held_at: Instant,
    progress: Progress,
    /// The requests that `StepStarted` named last.
    announced: Vec<RequestId>,
    cells: Cells,
    place_freed: bool,
    /// Of KV that is being copied from ordinary memory into cells.
    bytes_on_the_way: u64,
    store: Option<Store>,
    /// Checked requests that wait for a KV file, or for one that does, in the order in which they came.
    waiting: Vec<Admit>,
    /// Most bytes that the loop itself copies out of cells beside running sequences, or reads from a file.
    busy_bytes: u64,
}

/// Whether the context has room, as far as the last decode showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cells {
    /// No decode failed since cells were freed.
    Enough,
    /// A decode failed; said so to the scheduler.
    Short,
}

/// Why the loop ended.
pub(crate) enum Exit {
    /// Told to, or nobody is left to give commands.
    Stopped,
    /// The model is unusable.
    Failed(String),
}

/// What a command asks of the loop itself.
enum Flow {
    Continue,
    Stop,
}

impl<M: Model, E: FnMut(EngineEvent)> EngineLoop<M, E> {
    /// A loop around a loaded model; events go to `emit`.
    pub(crate) fn new(mut model: M, progress: Progress, emit: E) -> Self {
        model.watch(&progress);
        let info = model.info();
        let (n_seq_max, n_batch, n_vocab) = (info.n_seq_max as usize, info.n_batch as usize, info.n_vocab as usize);
        Self {
            vocabulary: model.vocabulary(),
            epoch: 0,
            limits: DEFAULT_LIMITS,
            slots: (0..n_seq_max).map(|_| Slot::default()).collect(),
            batch: Batch::with_capacity(n_batch),
            plan: Plan::with_capacity(n_seq_max),
            sampler: RowSampler::new(n_vocab),
            step: 0,
            cut_off_until: Instant::now(),
            held_at: Instant::now(),
            progress,
            announced: Vec::with_capacity(n_seq_max),
            cells: Cells::Enough,
            place_freed: false,
            bytes_on_the_way: 0,
            store: None,
            waiting: Vec::new(),
            busy_bytes: BUSY_BYTES as u64,
            model,
            emit,
        }
    }

    /// With KV files.
    pub(crate) fn with_store(mut self, store: Option<Store>) -> Self {
        self.store = store;
        self
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self, commands: &Receiver<EngineCommand>) -> Exit {
        loop {
            if let Flow::Stop = self.take_commands(commands) {
                self.store_all();
                return Exit::Stopped;
            }
            let _work = self.progress.work();
            self.tell_files();
            self.take_read();
            if let Err(cause) = self.step() {
                return Exit::Failed(cause);
            }
        }
    }

    /// Applies every command that is there; waits for one when there is nothing to decode, and for a little while if a place
    /// was freed that somebody waits for.
    fn take_commands(&mut self, commands: &Receiver<EngineCommand>) -> Flow {
        if !self.has_work() {
            match self.idle(commands) {
                Flow::Continue if self.has_work() => {
                    self.place_freed = false;
                    return self.gather(commands, GATHER);
                }
                Flow::Continue => {}
                Flow::Stop => return Flow::Stop,
            }
        }
        loop {
            match commands.try_recv() {
                Ok(command) => {
                    if let Flow::Stop = self.apply(command) {
                        return Flow::Stop;
                    }
                }
                Err(TryRecvError::Empty) => return self.fill_place(commands),
                Err(TryRecvError::Disconnected) => return Flow::Stop,
            }
        }
    }

    /// Waits a little for the request that takes a place which the last step freed, or a command since.
    fn fill_place(&mut self, commands: &Receiver<EngineCommand>) -> Flow {
        let waiting = std::mem::take(&mut self.place_freed) && self.limits.waiting == Waiting::Somebody;
        if !waiting || !self.has_work() {
            return Flow::Continue;
        }
        let until = Instant::now() + PLACE_WAIT;
        loop {
            match commands.recv_deadline(until) {
                Ok(command) => {
                    let is_admit = matches!(command, EngineCommand::Admit(_));
                    match self.apply(command) {
                        Flow::Continue if is_admit => return self.gather(commands, PLACE_WAIT),
                        Flow::Continue => {}
                        Flow::Stop => return Flow::Stop,
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Flow::Continue,
                Err(RecvTimeoutError::Disconnected) => return Flow::Stop,
            }
        }
    }

    /// Takes commands as long as they follow each other closely, and no longer than `most`.
    fn gather(&mut self, commands: &Receiver<EngineCommand>, most: Duration) -> Flow {
        let begun = Instant::now();
        let mut pause = PAUSE;
        loop {
            // What lies there is taken in any case.
            match commands.recv_timeout(pause.min(most.saturating_sub(begun.elapsed()))) {
                Ok(command) => {
                    if matches!(command, EngineCommand::Admit(_)) {
                        pause = BURST_PAUSE;
                    }
                    if let Flow::Stop = self.apply(command) {
                        return Flow::Stop;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Flow::Continue,
                Err(RecvTimeoutError::Disconnected) => return Flow::Stop,
            }
        }
    }

    fn idle(&mut self, commands: &Receiver<EngineCommand>) -> Flow {
        // What the writer has written is told without anybody asking.
        let writes = self.store.as_ref().is_some_and(Store::is_busy);
        // Whoever is held although nobody runs tries again now and then: what it waits for may have come to nothing.
        let held = self.slots.iter().any(|slot| slot.run.as_ref().is_some_and(|run| run.held));
        if held && self.held_at.elapsed() >= HELD_WAIT {
            self.cells_freed();
            return Flow::Continue;
        }
        let wait = if writes { Some(WRITER_WAIT) } else { held.then_some(HELD_WAIT) };
        match self.command_or_read(commands, wait) {
            Ok(None) => Flow::Continue,
            Ok(Some(command)) => self.apply(command),
            Err(RecvTimeoutError::Timeout) => Flow::Continue,
            Err(RecvTimeoutError::Disconnected) => Flow::Stop,
        }
    }

    /// Waits for a command, at most for so long, or for a file to be read: then `None`.
    fn command_or_read(
        &mut self,
        commands: &Receiver<EngineCommand>,
        wait: Option<Duration>,
    ) -> Result<Option<EngineCommand>, RecvTimeoutError> {
        let never = crossbeam_channel::never();
        let reads = self.store.as_ref().and_then(Store::reads).filter(|_| !self.waiting.is_empty()).unwrap_or(&never);
        let timeout = wait.map_or_else(crossbeam_channel::never, crossbeam_channel::after);
        let read = select! {
            recv(commands) -> command => return command.map(Some).map_err(|_| RecvTimeoutError::Disconnected),
            recv(reads) -> read => read,
            recv(timeout) -> _ => return Err(RecvTimeoutError::Timeout),
        };
        let _work = self.progress.work();
        match read {
            Ok(read) => self.on_read(read),
            // The reader has died: they compute.
            Err(_) => self.start_unread(),
        }
        Ok(None)
    }

    /// Whether the next step would decode anything. Sequences held back for want of cells do not count.
    fn has_work(&self) -> bool {
        self.slots.iter().any(|slot| slot.run.as_ref().is_some_and(|run| !run.held))
    }

    fn apply(&mut self, command: EngineCommand) -> Flow {
        // A file may be read here, or a state copied: that can hang like any step.
        let _work = self.progress.work();
        match command {
            EngineCommand::Reset { epoch, cut_off_first } => self.reset(epoch, cut_off_first),
            EngineCommand::Admit(admit) => self.admit(*admit),
            EngineCommand::Cancel { epoch, request } => self.cancel(epoch, request),
            EngineCommand::SetRank { epoch, request, rank } => self.set_rank(epoch, request, rank),
            EngineCommand::Evict { epoch, sequence } => self.evict(epoch, sequence),
            EngineCommand::SetLimits(limits) => self.limits = limits,
            // The host sends these to the vocabulary thread.
            EngineCommand::Tokenize { .. } | EngineCommand::Detokenize { .. } => {}
            EngineCommand::Shutdown => return Flow::Stop,
        }
        Flow::Continue
    }

    fn reset(&mut self, epoch: Epoch, cut_off_first: Duration) {
        if epoch <= self.epoch {
            return;
        }
        // A second scheduler takes nothing from those that its engine has not read again yet.
        self.cut_off_until = self.cut_off_until.max(Instant::now() + cut_off_first);
        self.epoch = epoch;
        for (sequence, slot) in (0..).zip(&mut self.slots).filter(|(_, slot)| slot.run.is_some()) {
            slot.stop();
            self.model.rest(sequence);
        }
        self.waiting.clear();
        // The new scheduler's backend has forgotten who was in a step.
        self.announced.clear();
        self.cells_freed();
        let (sequences, files) = inventory::of(&self.slots, self.stored(), inventory::MOST_TOKENS);
        (self.emit)(EngineEvent::Inventory { epoch, sequences, files });
    }

    fn cancel(&mut self, epoch: Epoch, request: RequestId) {
        if epoch != self.epoch {
            return;
        }
        let running = self.slots.iter().position(|slot| slot.run.as_ref().is_some_and(|run| run.request == request));
        if let Some(sequence) = running {
            self.end(sequence, EndReason::Cancelled);
        } else {
            self.cancel_waiting(request);
        }
    }

    fn set_rank(&mut self, epoch: Epoch, request: RequestId, rank: u64) {
        if epoch != self.epoch {
            return;
        }
        let mut runs = self.slots.iter_mut().filter_map(|slot| slot.run.as_mut());
        if let Some(run) = runs.find(|run| run.request == request) {
            run.rank = rank;
        } else if let Some(admit) = self.waiting.iter_mut().find(|admit| admit.request == request) {
            admit.rank = rank;
        }
    }

    fn evict(&mut self, epoch: Epoch, sequence: SequenceId) {
        let Some(slot) = self.slots.get(sequence as usize) else { return };
        if epoch != self.epoch || slot.run.is_some() || self.is_awaited(sequence) {
            return;
        }
        self.store_evicted(sequence);
        let slot = &mut self.slots[sequence as usize];
        slot.forget();
        self.model.truncate(sequence, 0);
        self.cells_freed();
    }

    /// Ends the run of a sequence and says so, once.
    fn end(&mut self, sequence: usize, reason: EndReason) {
        let slot = &mut self.slots[sequence];
        let Some(run) = slot.run.as_ref() else { return };
        let (request, emitted) = (run.request, run.emitted);
        slot.stop();
        slot.used_at = self.step;
        let kv_tokens = slot.n_cached as u32;
        self.model.rest(sequence as SequenceId);
        self.place_freed = true;
        self.cells_freed();
        (self.emit)(EngineEvent::Ended(Box::new(Ended {
            epoch: self.epoch,
            request,
            sequence: sequence as SequenceId,
            reason,
            emitted,
            kv_tokens,
        })));
    }

    fn cells_freed(&mut self) {
        self.cells = Cells::Enough;
        self.slots.iter_mut().filter_map(|slot| slot.run.as_mut()).for_each(|run| run.held = false);
    }

    fn step(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let n_batch = self.model.info().n_batch as usize;
        self.plan.fill(&self.slots, self.limits, n_batch, started < self.cut_off_until);
        if !self.decode_what_fits()? {
            return Ok(());
        }
        self.plan.sort_by_sequence();
        self.advance();
        let decoded = Instant::now();
        let outputs = self.sampler.sample(&self.model, &*self.vocabulary, &self.plan, &mut self.slots)?;
        self.step += 1;
        let output = StepOutput {
            epoch: self.epoch,
            step: self.step,
            batch_tokens: self.batch.len() as u32,
            prefill_tokens: self.plan.prefill_tokens() as u32,
            step_us: started.elapsed().as_micros() as u64,
            sample_us: decoded.elapsed().as_micros() as u64,
            cells_used: self.slots.iter().filter(|slot| slot.in_cells()).map(|slot| slot.n_cached as u32).sum(),
            outputs,
        };
        (self.emit)(EngineEvent::Step(Box::new(output)));
        self.end_finished();
        if self.has_work() {
            self.park_one();
        }
        Ok(())
    }

    /// Decodes the plan, or as much of it as the context has cells for. False: nothing was decoded.
    fn decode_what_fits(&mut self) -> Result<bool, String> {
        loop {
            self.plan.write(&self.slots, &mut self.batch);
            if self.batch.is_empty() {
                return Ok(false);
            }
            self.announce_step();
            match self.model.decode(&self.batch) {
                Ok(()) => return Ok(true),
                Err(DecodeError::NoCells) if self.unload_oldest() => {}
                Err(DecodeError::NoCells) => self.shrink_plan(),
                Err(DecodeError::Failed(cause)) => return Err(cause),
            }
        }
    }

    /// Says whose tokens are decoded, unless that was said for the step before.
    fn announce_step(&mut self) {
        let Self { plan, slots, announced, .. } = self;
        let requests =
            || plan.entries().iter().filter_map(|entry| slots[entry.sequence].run.as_ref()).map(|run| run.request);
        if requests().eq(announced.iter().copied()) {
            return;
        }
        announced.clear();
        announced.extend(requests());
        (self.emit)(EngineEvent::StepStarted { epoch: self.epoch, requests: self.announced.clone() });
    }

    /// Out of cells although nothing parked can be moved: halves the prefill, then holds back the lowest rank, and says how many cells are missing.
    fn shrink_plan(&mut self) {
        let tokens = self.batch.len() as u32;
        let is_split = self.model.info().streams.is_some();
        let without_buffer = if is_split { self.plan.drop_empty(&self.slots) } else { None };
        // It is a buffer that is missing then: one prefix less is enough.
        let needed = if without_buffer.is_some() { 1 } else { tokens };
        let held = without_buffer.map_or_else(|| self.plan.shrink(&self.slots), |sequence| vec![sequence]);
        for sequence in held {
            if let Some(run) = self.slots[sequence].run.as_mut() {
                run.held = true;
                self.held_at = Instant::now();
            }
        }
        if self.cells == Cells::Enough {
            self.cells = Cells::Short;
            let parked = self.parked_tokens() as u32;
            (self.emit)(EngineEvent::CellsShort { epoch: self.epoch, needed, parked });
        }
    }

    fn advance(&mut self) {
        for Planned { sequence, count, .. } in self.plan.entries() {
            self.slots[*sequence].n_cached += count;
        }
    }

    fn end_finished(&mut self) {
        for at in 0..self.plan.entries().len() {
            let sequence = self.plan.entries()[at].sequence;
            let reason = self.slots[sequence].run.as_ref().and_then(|run| run.finished.clone());
            if let Some(reason) = reason {
                self.end(sequence, reason);
            }
        }
    }
}
