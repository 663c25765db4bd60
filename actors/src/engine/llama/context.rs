//! A context of llama.cpp: decoding, logits and the KV of its sequences. All that could abort the process is checked here.

mod split;
mod states;

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use crate::engine::batch::{Batch, Row};
use crate::engine::model::DecodeError;
use crate::engine::progress::Counters;
use crate::engine::protocol::{MemoryKind, SequenceId};
use crate::engine::spec::{FlashAttention, KvType, LlamaSpec};

use super::apart::{Apart, Shape};
use super::error::LoadError;
use super::log;
use super::plan::Plan;
use super::rows::{Layout, Rows};
use super::shim;
use super::streams::Streams;
use super::threads::Threads;
use super::weights::{Weights, reason};

use self::states::Moved;

/// The one context of a model. Not `Send`: it stays on the thread that made it.
#[derive(Debug)]
pub(super) struct Context {
    ctx: NonNull<sys::llama_context>,
    rows: Rows,
    /// Of a split context: which sequence has which buffer.
    streams: Option<Streams>,
    moved: Moved,
    apart: Option<Apart>,
    kept: Kept,
    memory: MemoryKind,
    /// Tokens of a sequence that llama.cpp gives the state of; of longer ones only the end comes back.
    longest_state: u32,
    n_vocab: u32,
    n_seq_max: u32,
    // After the context, which uses both: fields are dropped in order, and `drop` frees the context before all of them.
    counters: Option<Arc<Counters>>,
    _threads: Threads,
    _weights: Arc<Weights>,
}

/// Logits of a run that another one has followed in the same step.
#[derive(Debug, Default)]
struct Kept {
    rows: Vec<usize>,
    logits: Vec<f32>,
}

impl Kept {
    fn clear(&mut self) {
        self.rows.clear();
        self.logits.clear();
    }

    /// False: they are not `n_vocab`.
    fn push(&mut self, row: usize, logits: &[f32], n_vocab: u32) -> bool {
        self.rows.push(row);
        self.logits.extend_from_slice(logits);
        logits.len() == n_vocab as usize
    }

    fn of(&self, row: usize, n_vocab: u32) -> Option<&[f32]> {
        let at = self.rows.iter().position(|kept| *kept == row)?;
        self.logits.chunks_exact(n_vocab as usize).nth(at)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by llama.cpp, owned alone, used by no other thread.
        unsafe {
            sys::llama_detach_threadpool(self.ctx.as_ptr());
            sys::llama_free(self.ctx.as_ptr());
        }
    }
}

impl Context {
    /// Creates the context.
    ///
    /// # Errors
    /// `Context` with llama.cpp's reason.
    pub(super) fn new(spec: &LlamaSpec, plan: &Plan, n_threads: u32, weights: Arc<Weights>) -> Result<Self, LoadError> {
        log::forget_errors();
        let params = params(spec, plan, n_threads);
        // SAFETY: the model is alive and, at this time, used by no other thread; exceptions are caught inside.
        let ctx = unsafe { sys::llama_init_from_model(weights.as_ptr(), params) };
        let Some(ctx) = NonNull::new(ctx) else {
            return Err(LoadError::Context { n_ctx: plan.n_ctx, n_seq_max: plan.n_seq_max, reason: reason() });
        };
        // SAFETY: both are alive.
        let (n_vocab, n_batch) =
            unsafe { (sys::llama_vocab_n_tokens(weights.vocab()), sys::llama_n_batch(ctx.as_ptr())) };
        let threads = Threads::attach(ctx, n_threads);
        let memory = memory_kind(ctx, &weights);
        let longest_state = longest_state(memory, &weights);
        let rows = Rows::new(n_batch, plan.n_seq_max);
        let n_vocab = n_vocab.unsigned_abs();
        Ok(Self {
            ctx,
            rows,
            streams: plan.streams.map(|streams| Streams::new(streams, plan.n_seq_max)),
            moved: Moved::default(),
            apart: Apart::new(spec, plan, memory, shape(&weights), n_threads),
            kept: Kept::default(),
            memory,
            longest_state,
            n_vocab,
            n_seq_max: plan.n_seq_max,
            counters: None,
            _threads: threads,
            _weights: weights,
        })
    }

    /// Counts the nodes of every graph that is computed, where the device asks (the CPU does, CUDA does not).
    pub(super) fn watch(&mut self, counters: Arc<Counters>) {
        let data = Arc::as_ptr(&counters).cast_mut().cast::<c_void>();
        // SAFETY: the context is alive; `counters` is kept in `self` until after the context is freed.
        unsafe { sys::llama_set_abort_callback(self.ctx.as_ptr(), Some(count_node), data) };
        self.counters = Some(counters);
    }

    /// Cells, as llama.cpp has rounded them.
    pub(super) fn n_ctx(&self) -> u32 {
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_ctx(self.ctx.as_ptr()) }
    }

    /// Most tokens of a batch.
    pub(super) fn n_batch(&self) -> u32 {
        self.rows.capacity()
    }

    /// What may be shared and trimmed.
    pub(super) fn memory(&self) -> MemoryKind {
        self.memory
    }

    /// Whether every token sees only those before it.
    pub(super) fn is_causal(&self) -> bool {
        // SAFETY: the context is alive.
        unsafe { sys::llama_get_causal_attn(self.ctx.as_ptr()) }
    }

    /// See `Model::decode`.
    pub(super) fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.kept.clear();
        let rows = batch.rows();
        let leading = self.apart.and_then(|apart| apart.leading(rows));
        self.give_streams(rows)?;
        self.close_gap(&rows[..leading.unwrap_or(rows.len())])?;
        self.fill(batch, leading.unwrap_or(0))?;
        let computed = self.compute_parts(rows, leading);
        if computed == Err(DecodeError::NoCells) {
            self.give_back(rows);
        }
        computed
    }

    fn compute_parts(&mut self, rows: &[Row], leading: Option<usize>) -> Result<(), DecodeError> {
        let Some(leading) = leading else { return self.compute(0..rows.len()) };
        // Those without an output, nearly all of them, first: llama.cpp has the logits of its last run alone.
        self.compute(leading..rows.len())?;
        self.keep_logits()?;
        match self.compute(0..leading) {
            Err(DecodeError::NoCells) => Err(self.take_back(&rows[leading..])),
            computed => computed,
        }
    }

    fn fill(&mut self, batch: &Batch, leading: usize) -> Result<(), DecodeError> {
        let (ctx, n_seq_max, streams) = (self.ctx, self.n_seq_max, self.streams.as_ref());
        let layout = Layout {
            stream: &|sequence| stream(streams, n_seq_max, sequence),
            len: &|id| len(ctx, id),
            leading,
            sorted: streams.is_some(),
        };
        self.rows.fill(batch, self.n_vocab, &layout).map_err(DecodeError::Failed)
    }

    fn compute(&mut self, rows: Range<usize>) -> Result<(), DecodeError> {
        let batch = self.rows.part(rows);
        log::forget_errors();
        // SAFETY: the context is alive and this thread's; `fill` has checked tokens, sequences and length.
        match unsafe { shim::decode(self.ctx.as_ptr(), &batch) } {
            Ok(0) => Ok(()),
            Ok(1) => {
                self.rows.forget();
                Err(DecodeError::NoCells)
            }
            Ok(code) => Err(self.failed(format!("llama_decode returned {code}"))),
            Err(exception) => Err(self.failed(exception)),
        }
    }

    /// Copies the logits that the next run takes.
    fn keep_logits(&mut self) -> Result<(), DecodeError> {
        let mut kept = std::mem::take(&mut self.kept);
        let whole = self.rows.outputs().all(|row| kept.push(row, self.logits(row), self.n_vocab));
        self.kept = kept;
        if whole { Ok(()) } else { Err(self.failed("an output row has no logits".to_owned())) }
    }

    /// Undoes the first of two runs: no cells were left for the second, and then no sequence may have changed.
    fn take_back(&mut self, rows: &[Row]) -> DecodeError {
        self.kept.clear();
        let mut before = None;
        for row in rows {
            let is_first = before.replace(row.sequence) != Some(row.sequence);
            if is_first && !self.cut(row.sequence, row.position) {
                return self.failed("a sequence could not be cut back".to_owned());
            }
        }
        DecodeError::NoCells
    }

    /// Removes the end of a sequence, from a position on, and asks nothing of what comes before it.
    fn cut(&mut self, sequence: SequenceId, from: u32) -> bool {
        let (Some(id), Some(memory), Ok(start)) = (self.id(sequence), self.handle(), i32::try_from(from)) else {
            return false;
        };
        // SAFETY: the memory belongs to the live context and the id is in range.
        let removed = unsafe { sys::llama_memory_seq_rm(memory, id, start, -1) };
        removed && len(self.ctx, id) == from
    }

    fn failed(&mut self, what: String) -> DecodeError {
        self.rows.forget();
        DecodeError::Failed(log::last_error().map_or(what.clone(), |error| format!("{what}: {error}")))
    }

    /// See `Model::logits`; empty for a row that is no output of the last batch.
    pub(super) fn logits(&self, row: usize) -> &[f32] {
        if let Some(kept) = self.kept.of(row, self.n_vocab) {
            return kept;
        }
        let Some(index) = self.rows.output_index(row) else { return &[] };
        // SAFETY: the context is alive and this thread's, and the row is an output of its last batch.
        let logits = unsafe { sys::llama_get_logits_ith(self.ctx.as_ptr(), index) };
        if logits.is_null() {
            return &[];
        }
        // SAFETY: llama.cpp gives `n_vocab` floats, which stay where they are until the next decode; that takes
        // `&mut self`. Its reordering of rows is over when the first row is returned.
        unsafe { std::slice::from_raw_parts(logits, self.n_vocab as usize) }
    }

    /// See `Model::truncate`.
    pub(super) fn truncate(&mut self, sequence: SequenceId, from: u32) -> bool {
        if from == 0 {
            self.wipe(sequence);
            return sequence < self.n_seq_max;
        }
        let sound = self.cut(sequence, from) && self.id(sequence).is_some_and(|id| self.holds(id, from));
        self.keep_if(sound, sequence)
    }

    /// See `Model::copy`. Never possible in a split context, whose buffers can only be copied whole.
    pub(super) fn copy(&mut self, from: SequenceId, to: SequenceId, tokens: u32) -> bool {
        if from == to || to >= self.n_seq_max {
            return false;
        }
        self.wipe(to);
        let Some(memory) = self.handle() else { return tokens == 0 };
        let unified = self.streams.is_none();
        let (Some(source), Some(target), true) = (self.id(from), self.id(to), unified) else { return false };
        let len = len(self.ctx, source);
        let possible = match self.memory {
            MemoryKind::Attention => tokens <= len,
            // A state is the sum of all its tokens: there is no state of fewer.
            MemoryKind::Recurrent => tokens == len,
            MemoryKind::None => false,
        };
        let (true, Ok(end)) = (possible, i32::try_from(tokens)) else { return false };
        // All of it, said so: some memories abort the process on a range, even on a whole one.
        let end = if self.memory == MemoryKind::Recurrent { -1 } else { end };
        if tokens > 0 {
            // SAFETY: the memory belongs to the live context, the ids are in range, the buffer is unified, and a memory
            // that is more than attention is copied whole.
            unsafe { sys::llama_memory_seq_cp(memory, source, target, 0, end) };
        }
        self.keep_if(self.holds(target, tokens), to)
    }

    /// Empties a sequence that is not as it should be; returns `sound`.
    fn keep_if(&mut self, sound: bool, sequence: SequenceId) -> bool {
        if !sound {
            self.wipe(sequence);
        }
        sound
    }

    /// Empties a sequence; of a split context its buffer is free.
    fn wipe(&mut self, sequence: SequenceId) {
        if let Some(id) = self.id(sequence) {
            self.empty(id);
        }
        if let Some(streams) = self.streams.as_mut() {
            streams.release(sequence);
        }
    }

    fn empty(&mut self, id: i32) {
        if let Some(memory) = self.handle() {
            // SAFETY: the memory belongs to the live context and the id is in range. Removing a whole sequence cannot fail.
            unsafe { sys::llama_memory_seq_rm(memory, id, -1, -1) };
        }
    }

    /// Whether the sequence has exactly its first `tokens` tokens.
    fn holds(&self, id: i32, tokens: u32) -> bool {
        len(self.ctx, id) == tokens
            && (tokens == 0 || self.memory == MemoryKind::Recurrent || self.first(id) == Some(0))
    }

    fn first(&self, id: i32) -> Option<i32> {
        // SAFETY: the memory belongs to the live context and the id is in range.
        self.handle().map(|memory| unsafe { sys::llama_memory_seq_pos_min(memory, id) })
    }

    /// The sequence as llama.cpp numbers it, if there is one and, in a split context, has a buffer.
    fn id(&self, sequence: SequenceId) -> Option<i32> {
        stream(self.streams.as_ref(), self.n_seq_max, sequence)
    }

    fn handle(&self) -> Option<sys::llama_memory_t> {
        handle(self.ctx)
    }
}

fn stream(streams: Option<&Streams>, n_seq_max: u32, sequence: SequenceId) -> Option<i32> {
    match streams {
        Some(streams) => streams.of(sequence),
        None => (sequence < n_seq_max).then(|| i32::try_from(sequence).ok()).flatten(),
    }
}

/// llama.cpp asks after each node whether to go on; the answer is always yes.
unsafe extern "C" fn count_node(counters: *mut c_void) -> bool {
    // SAFETY: `watch` gave the address of counters that outlive the context.
    unsafe { &*counters.cast::<Counters>() }.advance();
    false
}

/// The memory of a live context, if its model has any.
fn handle(ctx: NonNull<sys::llama_context>) -> Option<sys::llama_memory_t> {
    // SAFETY: the callers' contexts are alive.
    let memory = unsafe { sys::llama_get_memory(ctx.as_ptr()) };
    (!memory.is_null()).then_some(memory)
}

/// Tokens of a sequence whose id is in range.
fn len(ctx: NonNull<sys::llama_context>, id: i32) -> u32 {
    // SAFETY: the memory belongs to a live context and the id is in range.
    let last = handle(ctx).map_or(-1, |memory| unsafe { sys::llama_memory_seq_pos_max(memory, id) });
    u32::try_from(last + 1).unwrap_or(0)
}

fn memory_kind(ctx: NonNull<sys::llama_context>, weights: &Weights) -> MemoryKind {
    if handle(ctx).is_none() {
        MemoryKind::None
    } else if has_states(weights) {
        MemoryKind::Recurrent
    } else {
        MemoryKind::Attention
    }
}

/// Whether some layers at least are recurrent.
fn has_states(weights: &Weights) -> bool {
    let model = weights.as_ptr();
    // SAFETY: the model is alive.
    unsafe { sys::llama_model_is_recurrent(model) || sys::llama_model_is_hybrid(model) }
}

/// Tokens of the sliding window that some layers at least have; 0: none has.
fn window(weights: &Weights) -> u32 {
    // SAFETY: the model is alive.
    unsafe { sys::llama_model_n_swa(weights.as_ptr()) }.max(0).unsigned_abs()
}

/// Whether its memory is plain attention, every part of which is in a state.
pub(super) fn splits(weights: &Weights) -> bool {
    !has_states(weights) && window(weights) == 0
}

/// Of layers with a sliding window only the cells in the window are written into a state. What is to be continued at its
/// end alone needs no more.
fn longest_state(memory: MemoryKind, weights: &Weights) -> u32 {
    let window = window(weights);
    if memory == MemoryKind::Attention && window > 0 { window } else { u32::MAX }
}

fn shape(weights: &Weights) -> Shape {
    let model = weights.as_ptr();
    // SAFETY: the model is alive.
    unsafe {
        Shape {
            layers: sys::llama_model_n_layer(model).unsigned_abs(),
            width: sys::llama_model_n_embd(model).unsigned_abs(),
            size_bytes: sys::llama_model_size(model),
            windowed: window(weights) > 0,
        }
    }
}

fn params(spec: &LlamaSpec, plan: &Plan, n_threads: u32) -> sys::llama_context_params {
    // SAFETY: no precondition.
    let mut params = unsafe { sys::llama_context_default_params() };
    let threads = i32::try_from(n_threads).unwrap_or(1);
    params.n_ctx = plan.n_ctx;
    params.n_batch = plan.n_batch;
    params.n_ubatch = plan.n_ubatch;
    params.n_seq_max = plan.streams.unwrap_or(plan.n_seq_max);
    params.n_threads = threads;
    // Serves every step of two tokens or more.
    params.n_threads_batch = threads;
    params.type_k = ggml_type(spec.type_k);
    params.type_v = ggml_type(spec.type_v);
    params.flash_attn_type = match spec.flash_attn {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::Enabled => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Disabled => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    params.kv_unified = plan.streams.is_none();
    // With a window's cells alone, hardly a prefix could be trimmed. Cells outside of it may be given to others all the
    // same, and `holds` notices.
    params.swa_full = true;
    params.no_perf = true;
    params
}

/// ggml's number of an element type.
pub(super) fn ggml_type(kind: KvType) -> sys::ggml_type {
    match kind {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        KvType::Q4_1 => sys::GGML_TYPE_Q4_1,
        KvType::Iq4Nl => sys::GGML_TYPE_IQ4_NL,
        KvType::Q5_0 => sys::GGML_TYPE_Q5_0,
        KvType::Q5_1 => sys::GGML_TYPE_Q5_1,
    }
}
