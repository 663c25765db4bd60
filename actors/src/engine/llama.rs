//! The llama.cpp engine: `Model` and `Vocabulary` over a GGUF file.
//!
//! Owns model, context, batch and compute threads through `llama-cpp-sys-2`; `llama-cpp-2` sets the backend up. Everything
//! that would make llama.cpp abort the process or throw through Rust is checked or caught in here. The engine loop is elsewhere.

#![expect(unsafe_code, reason = "llama.cpp is a C library; every call of it is in this module")]

mod apart;
mod backend;
mod context;
mod error;
mod gguf;
mod hardware;
mod info;
mod log;
mod partition;
mod plan;
mod rows;
mod shim;
mod streams;
mod threads;
mod vocabulary;
mod weights;

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use crate::engine::batch::{Batch, Row};
use crate::engine::model::{DecodeError, Model, Vocabulary};
use crate::engine::progress::{PerThread, Progress};
use crate::engine::protocol::{ModelInfo, SequenceId};
use crate::engine::spec::LlamaSpec;

pub use error::LoadError;
pub use gguf::GgufError;

use context::Context;
use gguf::Header;
use info::Loaded;
use plan::{KvSide, Needs, Plan};
use vocabulary::LlamaVocabulary;
use weights::Weights;

/// A loaded model with its context. Lives on the thread that loaded it.
pub struct LlamaEngine {
    info: ModelInfo,
    fingerprint: String,
    vocabulary: Arc<LlamaVocabulary>,
    context: Context,
}

/// Tokens that may be parked in cells on the CPU: a system prompt, say. 250 parked tokens cost 1 to 2 % of a step of
/// ten sequences.
const PARKED_ON_CPU: u32 = 256;

/// Loads a model and creates its context. Blocks for as long as reading the file takes.
///
/// `progress` is told the share of the weights that is read, 0 to 1, and cancels the load by returning false.
///
/// # Errors
/// One line for the operator: a file that is missing, cut short or no GGUF, parameters out of range, or
/// llama.cpp's own reason.
///
/// # Panics
/// When `progress` does.
pub fn load(spec: &LlamaSpec, progress: impl FnMut(f32) -> bool) -> Result<LlamaEngine, LoadError> {
    load_watched(spec, &PerThread::default(), progress)
}

/// The same, with what is computed meanwhile and what is tokenized later counted in `work`.
pub(crate) fn load_watched(
    spec: &LlamaSpec,
    work: &PerThread<Progress>,
    mut progress: impl FnMut(f32) -> bool,
) -> Result<LlamaEngine, LoadError> {
    plan::check(spec)?;
    backend::init();
    let header = inspect(spec)?;
    let spec = &as_computed(spec);
    // Asked before the weights are read: afterwards, pages of the file count as free although they are needed.
    let free = hardware::available_memory();
    let weights = Arc::new(Weights::load(spec, &mut progress)?);
    check_supported(spec, &weights)?;

    let available = memory_for_kv(spec, free, &weights);
    let needs = Needs { splits: context::splits(&weights), ..needs(spec, &header) };
    let plan = plan::plan(spec, needs, available);
    plan::check_memory(&plan, available)?;
    report(spec, &plan, needs, &weights);
    let n_threads = if spec.n_threads == 0 { hardware::usable_cores() } else { spec.n_threads };
    let mut context = Context::new(spec, &plan, n_threads, Arc::clone(&weights))?;
    if !context.is_causal() {
        return Err(unsupported(spec, "its attention is not causal, it does not generate text"));
    }
    context.watch(work.engine.counters());
    warm_up(&mut context, &plan)?;

    let vocabulary = LlamaVocabulary::new(Arc::clone(&weights), work.vocabulary.clone())
        .map_err(|reason| LoadError::Model { path: spec.path.clone(), reason })?;
    let (path, vocabulary) = (spec.path.as_path(), Arc::new(vocabulary));
    let loaded = Loaded { path, plan: &plan, weights: &weights, context: &context, vocabulary: &vocabulary };
    let parked_limit = match (plan.streams, spec.n_gpu_layers) {
        // In buffers of their own they are in nobody's way.
        (Some(_), _) => plan.n_ctx,
        (None, 0) => spec.parked_limit.unwrap_or(PARKED_ON_CPU),
        (None, _) => spec.parked_limit.unwrap_or(u32::MAX),
    };
    let half = u64::from(plan.n_ctx).saturating_mul(plan.kv_bytes_per_token) / 2;
    let parked_bytes = spec.parked_bytes.unwrap_or(half);
    let on_gpu = spec.n_gpu_layers != 0;
    let info = ModelInfo { parked_limit, parked_bytes, on_gpu, ..info::info(&loaded) };
    Ok(LlamaEngine { info, fingerprint: fingerprint(spec, &plan, &header), vocabulary, context })
}

impl Model for LlamaEngine {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn watch(&mut self, progress: &Progress) {
        self.context.watch(progress.counters());
    }

    fn vocabulary(&self) -> Arc<dyn Vocabulary> {
        Arc::clone(&self.vocabulary) as Arc<dyn Vocabulary>
    }

    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        self.context.decode(batch)
    }

    fn rest(&mut self, sequence: SequenceId) {
        self.context.rest(sequence);
    }

    fn logits(&self, row: usize) -> &[f32] {
        self.context.logits(row)
    }

    fn truncate(&mut self, sequence: SequenceId, from: u32) -> bool {
        self.context.truncate(sequence, from)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn save(&mut self, sequence: SequenceId) -> Option<Vec<u8>> {
        self.context.save(sequence)
    }

    fn restore(&mut self, sequence: SequenceId, state: &[u8], tokens: u32) -> bool {
        self.context.restore(sequence, state, tokens)
    }

    fn copy(&mut self, from: SequenceId, to: SequenceId, tokens: u32) -> bool {
        self.context.copy(from, to, tokens)
    }
}

/// Bytes at the beginning of a model file that tell it from others of the same size and age.
const HEAD_BYTES: u64 = 64 << 10;

/// What computes KV; another build may compute other KV.
const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " llama-cpp-sys-2 0.1.161");

/// What the KV of this model in this context depends on. llama.cpp does not check the weights when a state is loaded.
fn fingerprint(spec: &LlamaSpec, plan: &Plan, header: &Header) -> String {
    let mut head = Vec::new();
    let looked_at = std::fs::File::open(&spec.path).and_then(|file| {
        std::io::Read::read_to_end(&mut std::io::Read::take(&file, HEAD_BYTES), &mut head)?;
        length_and_age(&spec.path)
    });
    let head = crate::engine::store::file::hash(&head);
    let further: Vec<_> =
        gguf::further_parts(&spec.path, header.split_count()).iter().map(|part| length_and_age(part)).collect();
    let LlamaSpec { type_k, type_v, flash_attn, .. } = spec;
    let streams = plan.streams;
    let long = is_beyond_original(plan, header);
    format!(
        "{looked_at:?} {head:016x} {further:?} {type_k:?} {type_v:?} {flash_attn:?} streams {streams:?} long {long:?} {BUILD}"
    )
}

/// Whether a sequence may be longer than the model was made for at first: some have other rotations of their keys then, for
/// short sequences too. `None`: it has no such length.
fn is_beyond_original(plan: &Plan, header: &Header) -> Option<bool> {
    let cells = plan.n_ctx / plan.streams.unwrap_or(1);
    header.largest("rope.scaling.original_context_length").map(|original| u64::from(cells) > original)
}

fn length_and_age(path: &std::path::Path) -> std::io::Result<(u64, std::time::SystemTime)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.len(), metadata.modified()?))
}

/// Reads the header and checks that the file, and every further file of a split model, is whole.
fn inspect(spec: &LlamaSpec) -> Result<Header, LoadError> {
    let look = |path: &std::path::Path| {
        gguf::inspect(path, backend::tensor_type).map_err(|source| LoadError::File { path: path.to_owned(), source })
    };
    let mut header = look(&spec.path)?;
    for part in gguf::further_parts(&spec.path, header.split_count()) {
        header.learned_positions |= look(&part)?.learned_positions;
    }
    Ok(header)
}

/// Without a GPU all layers are the CPU's, whatever is asked for, and everything is to be planned for that.
fn as_computed(spec: &LlamaSpec) -> LlamaSpec {
    let n_gpu_layers = if backend::has_gpu() { spec.n_gpu_layers } else { 0 };
    if n_gpu_layers != spec.n_gpu_layers {
        tracing::warn!(n_gpu_layers = spec.n_gpu_layers, "no gpu can be used; all layers run on the cpu");
    }
    LlamaSpec { n_gpu_layers, ..spec.clone() }
}

fn check_supported(spec: &LlamaSpec, weights: &Weights) -> Result<(), LoadError> {
    // SAFETY: the model is alive.
    let (encoder, diffusion) =
        unsafe { (sys::llama_model_has_encoder(weights.as_ptr()), sys::llama_model_is_diffusion(weights.as_ptr())) };
    if encoder {
        return Err(unsupported(spec, "it has an encoder"));
    }
    if diffusion {
        return Err(unsupported(spec, "it is a diffusion model"));
    }
    Ok(())
}

fn unsupported(spec: &LlamaSpec, reason: &'static str) -> LoadError {
    LoadError::Unsupported { path: spec.path.clone(), reason }
}

fn needs(spec: &LlamaSpec, header: &Header) -> Needs {
    Needs::of(header, |side, elements| {
        let kind = if side == KvSide::K { spec.type_k } else { spec.type_v };
        backend::tensor_type(context::ggml_type(kind)).map_or(0, |(block, bytes)| elements.div_ceil(block) * bytes)
    })
}

/// Memory that KV may take: the GPUs' when layers lie there, else what the weights leave of the machine's `free` memory.
fn memory_for_kv(spec: &LlamaSpec, free: Option<u64>, weights: &Weights) -> Option<u64> {
    let gpus: Vec<_> = backend::devices().into_iter().filter(|device| device.on_gpu).collect();
    if spec.n_gpu_layers == 0 || gpus.is_empty() {
        // SAFETY: the model is alive.
        let size = unsafe { sys::llama_model_size(weights.as_ptr()) };
        return free.map(|free| free.saturating_sub(size));
    }
    let used = |device: &&backend::Device| {
        spec.devices.is_empty() || spec.devices.iter().any(|name| device.name.eq_ignore_ascii_case(name))
    };
    Some(gpus.iter().filter(used).map(backend::Device::free_bytes).sum())
}

/// Says what an operator would not expect.
fn report(spec: &LlamaSpec, plan: &Plan, needs: Needs, weights: &Weights) {
    // SAFETY: the model is alive.
    let n_ctx_train = unsafe { sys::llama_model_n_ctx_train(weights.as_ptr()) }.unsigned_abs();
    let max_context_length = spec.max_context_length;
    let longest = max_context_length.min(needs.positions.unwrap_or(u32::MAX));
    let wanted = longest.saturating_mul(spec.running);
    if spec.n_ctx.is_none() && plan.n_ctx < wanted {
        let kv_bytes_per_token = plan.kv_bytes_per_token;
        tracing::warn!(n_ctx = plan.n_ctx, wanted, kv_bytes_per_token, "n_ctx lowered to what memory allows");
    }
    if longest < max_context_length {
        tracing::warn!(positions = longest, max_context_length, "max_context_length lowered to the model's positions");
    }
    if plan.n_ctx_seq < longest {
        tracing::warn!(n_ctx = plan.n_ctx, max_context_length, "max_context_length lowered to n_ctx");
    }
    if plan.n_ctx_seq > n_ctx_train {
        let max_context_length = plan.n_ctx_seq;
        tracing::warn!(max_context_length, n_ctx_train, "max_context_length is over what the model was trained with");
    }
}

/// Decodes one token, so that missing memory and pages not yet read show now and not at the first request.
fn warm_up(context: &mut Context, plan: &Plan) -> Result<(), LoadError> {
    let mut batch = Batch::with_capacity(1);
    let row = batch.push(Row { token: 0, position: 0, sequence: 0, output: true });
    let computed = context.decode(&batch).map_err(|error| error.to_string());
    let no_logits = || Err("the model gives no logits".to_owned());
    let computed = computed.and_then(|()| if context.logits(row).is_empty() { no_logits() } else { Ok(()) });
    context.truncate(0, 0);
    computed.map_err(|reason| LoadError::Context { n_ctx: plan.n_ctx, n_seq_max: plan.n_seq_max, reason })
}

#[cfg(test)]
mod tests;
