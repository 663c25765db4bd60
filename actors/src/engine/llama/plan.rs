//! The sizes of a context, checked and chosen before llama.cpp sees them: it aborts the process on some bad ones.

use crate::engine::spec::{FlashAttention, KvType, LlamaSpec, SplitMode};

use super::error::LoadError;
use super::gguf::Header;

/// Most sequences of a context, llama.cpp's own limit.
const MAX_SEQUENCES: u32 = 256;

/// llama.cpp rounds contexts up to whole multiples of this.
const CELL_PADDING: u32 = 256;

/// Sizes of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) n_ctx: u32,
    pub(super) n_ctx_seq: u32,
    pub(super) n_batch: u32,
    pub(super) n_ubatch: u32,
    pub(super) n_seq_max: u32,
    /// Buffers of its own for so many sequences at once; `None`: one pool of cells for all.
    pub(super) streams: Option<u32>,
    pub(super) kv_bytes_per_token: u64,
    /// Bytes of the recurrent states of all sequences, which no length of theirs changes.
    pub(super) state_bytes: u64,
}

/// What a model asks of a context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Bytes of K and V of one token.
    pub(super) kv_bytes_per_token: u64,
    /// Bytes of the recurrent state of one sequence.
    pub(super) state_bytes: u64,
    /// Whether its memory can be split into buffers: sequences of plain attention can be moved between them.
    pub(super) splits: bool,
    /// Positions it has at all; `None`: they are computed, and any may be tried.
    pub(super) positions: Option<u32>,
}

impl Needs {
    /// From the file's header. `row_bytes` is the size of so many elements of a side.
    pub(super) fn of(header: &Header, row_bytes: impl Fn(KvSide, u64) -> u64) -> Self {
        let length = header.largest("context_length").and_then(|length| u32::try_from(length).ok());
        Self {
            kv_bytes_per_token: kv_bytes_per_token(header, row_bytes),
            state_bytes: state_bytes(header),
            splits: false,
            positions: length.filter(|_| header.learned_positions),
        }
    }
}

/// Checks every parameter that can be judged without the model.
///
/// # Errors
/// `Parameter` for the first that is out of range.
pub(super) fn check(spec: &LlamaSpec) -> Result<(), LoadError> {
    let sequences = u64::from(spec.running) + u64::from(spec.retained);
    let at_least_one = [
        ("running", spec.running),
        ("max_context_length", spec.max_context_length),
        ("n_ctx", spec.n_ctx.unwrap_or(1)),
        ("n_batch", spec.n_batch),
        ("n_ubatch", spec.n_ubatch),
    ];
    if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
        return refuse(format!("{name} must be at least 1"));
    }
    if sequences > u64::from(MAX_SEQUENCES) {
        return refuse(format!("running + retained is {sequences}, llama.cpp allows {MAX_SEQUENCES} sequences"));
    }
    if u64::from(spec.n_batch) < sequences {
        return refuse(format!("n_batch is {}, it must be at least running + retained, {sequences}", spec.n_batch));
    }
    if spec.n_threads > 512 {
        return refuse(format!("n_threads is {}, llama.cpp allows 512", spec.n_threads));
    }
    if is_quantized(spec.type_v) && spec.flash_attn == FlashAttention::Disabled {
        return refuse("a quantized type_v needs flash_attn".to_owned());
    }
    if spec.split_mode == SplitMode::Tensor && spec.flash_attn == FlashAttention::Disabled {
        return refuse("split_mode tensor needs flash_attn".to_owned());
    }
    if spec.tensor_split.iter().any(|share| !share.is_finite() || *share < 0.0) {
        return refuse("every share in tensor_split must be a number from 0".to_owned());
    }
    Ok(())
}

fn refuse(reason: String) -> Result<(), LoadError> {
    Err(LoadError::Parameter(reason))
}

fn is_quantized(kind: KvType) -> bool {
    !matches!(kind, KvType::F32 | KvType::F16 | KvType::Bf16)
}

/// Chooses the sizes. `spec` has passed `check`; `available` is the memory that may hold KV, in bytes.
pub(super) fn plan(spec: &LlamaSpec, needs: Needs, available: Option<u64>) -> Plan {
    // A position beyond the table would end the process in mid-decode.
    let longest = spec.max_context_length.min(needs.positions.unwrap_or(u32::MAX)).max(1);
    let n_seq_max = spec.running + spec.retained;
    let state_bytes = needs.state_bytes.saturating_mul(u64::from(n_seq_max));
    let n_ctx = spec.n_ctx.unwrap_or_else(|| {
        let wanted = longest.saturating_mul(spec.running);
        let left = available.map(|bytes| bytes.saturating_sub(state_bytes));
        affordable(needs.kv_bytes_per_token, left).min(wanted).max(longest)
    });
    let streams = splits(spec, needs, n_ctx, longest).then_some(spec.running);
    // As llama.cpp rounds them: all cells, or those of each sequence.
    let parts = streams.unwrap_or(1);
    let padded = (n_ctx / parts).checked_next_multiple_of(CELL_PADDING).and_then(|cells| cells.checked_mul(parts));
    let n_ctx = padded.unwrap_or(u32::MAX - u32::MAX % CELL_PADDING);
    let n_batch = spec.n_batch.min(n_ctx);
    Plan {
        n_ctx,
        n_ctx_seq: longest.min(n_ctx),
        n_batch,
        n_ubatch: spec.n_ubatch.min(n_batch),
        n_seq_max,
        streams,
        kv_bytes_per_token: needs.kv_bytes_per_token,
        state_bytes,
    }
}

/// Whether each running sequence gets a buffer of its own: where attention would walk over the cells of all, and each one's
/// share is as long as a request may be.
fn splits(spec: &LlamaSpec, needs: Needs, n_ctx: u32, longest: u32) -> bool {
    let room = n_ctx.checked_div(spec.running).is_some_and(|share| share >= longest);
    // A run has a row of each sequence at least.
    let runs = spec.running > 1 && spec.n_ubatch >= spec.running;
    needs.splits && !spec.kv_unified && spec.n_gpu_layers == 0 && runs && room
}

/// Checks that KV and states can be had at all: the system would grant it, and end the process when it is written to.
///
/// # Errors
/// `Context` with both sizes.
pub(super) fn check_memory(plan: &Plan, available: Option<u64>) -> Result<(), LoadError> {
    let cells = u64::from(plan.n_ctx).saturating_mul(plan.kv_bytes_per_token);
    let needed = cells.saturating_add(plan.state_bytes);
    match available {
        Some(available) if needed > available => {
            let reason = format!("its KV takes {} MiB, {} MiB of memory are available", needed >> 20, available >> 20);
            Err(LoadError::Context { n_ctx: plan.n_ctx, n_seq_max: plan.n_seq_max, reason })
        }
        _ => Ok(()),
    }
}

/// Cells whose KV takes half of the memory at most.
fn affordable(kv_bytes_per_token: u64, available: Option<u64>) -> u32 {
    let cells = available.and_then(|bytes| (bytes / 2).checked_div(kv_bytes_per_token));
    cells.map_or(u32::MAX, |cells| u32::try_from(cells).unwrap_or(u32::MAX))
}

/// One half of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KvSide {
    /// Keys.
    K,
    /// Values.
    V,
}

/// Bytes of K and V of one token over all layers, from the file's header. Too much rather than too little for models
/// that keep less than full attention in some layers. `row_bytes` is the size of so many elements.
fn kv_bytes_per_token(header: &Header, row_bytes: impl Fn(KvSide, u64) -> u64) -> u64 {
    let layers = header.largest("block_count").unwrap_or(0);
    let heads = header.largest("attention.head_count").unwrap_or(0);
    let head_width = header.largest("embedding_length").and_then(|width| width.checked_div(heads)).unwrap_or(0);
    let k = header.largest("attention.key_length").unwrap_or(head_width);
    let v = header.largest("attention.value_length").unwrap_or(head_width);
    let bytes = |heads: u64| {
        row_bytes(KvSide::K, heads.saturating_mul(k)).saturating_add(row_bytes(KvSide::V, heads.saturating_mul(v)))
    };
    match header.of_architecture("attention.head_count_kv") {
        [] => bytes(heads).saturating_mul(layers),
        [heads] => bytes(*heads).saturating_mul(layers),
        by_layer => by_layer.iter().fold(0, |sum, heads| sum.saturating_add(bytes(*heads))),
    }
}

/// Bytes of the recurrent state of one sequence, from the file's header; 0 for a model of attention alone. llama.cpp
/// keeps them in 32 bits. As `n_embd_r` and `n_embd_s` of its `llama-hparams.cpp` have it.
fn state_bytes(header: &Header) -> u64 {
    let of = |key: &str| header.largest(key).unwrap_or(0);
    let (width, heads) = (of("embedding_length"), of("attention.head_count"));
    let (inner, state, groups) = (of("ssm.inner_size"), of("ssm.state_size"), of("ssm.group_count"));
    let (wkv, short, kda) = (of("wkv.head_size"), of("shortconv.l_cache"), of("kda.head_dim"));
    let kernel = of("ssm.conv_kernel");
    let product = |factors: &[u64]| factors.iter().fold(1, |product: u64, factor| product.saturating_mul(*factor));
    let (shifts, state) = if wkv > 0 {
        (product(&[header.largest("token_shift_count").unwrap_or(2), width]), product(&[width, wkv]))
    } else if short > 0 {
        (product(&[short - 1, width]), 0)
    } else if kda > 0 {
        let kernel = if kernel > 0 { kernel } else { 4 };
        (product(&[3, kernel - 1, heads, kda]), product(&[kda, kda, heads]))
    } else {
        let channels = inner.saturating_add(product(&[2, groups, state]));
        (product(&[kernel.saturating_sub(1), channels]), product(&[state, inner]))
    };
    shifts.saturating_add(state).saturating_mul(4).saturating_mul(recurrent_layers(header))
}

/// Layers that keep a state: of a hybrid model those without heads of K and V, or all but one in so many.
fn recurrent_layers(header: &Header) -> u64 {
    let layers = header.largest("block_count").unwrap_or(0);
    let by_layer = header.of_architecture("attention.head_count_kv");
    match header.largest("full_attention_interval") {
        _ if by_layer.len() > 1 => by_layer.iter().filter(|heads| **heads == 0).count() as u64,
        Some(interval) if interval > 0 => layers - layers / interval,
        _ => layers,
    }
}

#[cfg(test)]
mod tests;
