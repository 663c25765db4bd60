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
    pub(super) kv_bytes_per_token: u64,
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
pub(super) fn plan(spec: &LlamaSpec, kv_bytes_per_token: u64, available: Option<u64>) -> Plan {
    let longest = spec.max_context_length;
    let n_ctx = spec.n_ctx.unwrap_or_else(|| {
        let wanted = longest.saturating_mul(spec.running);
        affordable(kv_bytes_per_token, available).min(wanted).max(longest)
    });
    let n_ctx = n_ctx.checked_next_multiple_of(CELL_PADDING).unwrap_or(u32::MAX - u32::MAX % CELL_PADDING);
    let n_batch = spec.n_batch.min(n_ctx);
    Plan {
        n_ctx,
        n_ctx_seq: longest.min(n_ctx),
        n_batch,
        n_ubatch: spec.n_ubatch.min(n_batch),
        n_seq_max: spec.running + spec.retained,
        kv_bytes_per_token,
    }
}

/// Checks that the KV can be had at all: the system would grant it, and end the process when it is written to.
///
/// # Errors
/// `Context` with both sizes.
pub(super) fn check_memory(plan: &Plan, available: Option<u64>) -> Result<(), LoadError> {
    let needed = u64::from(plan.n_ctx).saturating_mul(plan.kv_bytes_per_token);
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
pub(super) fn kv_bytes_per_token(header: &Header, row_bytes: impl Fn(KvSide, u64) -> u64) -> u64 {
    let first = |key: &str| header.of_architecture(key).iter().copied().max();
    let layers = first("block_count").unwrap_or(0);
    let heads = first("attention.head_count").unwrap_or(0);
    let head_width = first("embedding_length").and_then(|width| width.checked_div(heads)).unwrap_or(0);
    let k = first("attention.key_length").unwrap_or(head_width);
    let v = first("attention.value_length").unwrap_or(head_width);
    let bytes = |heads: u64| {
        row_bytes(KvSide::K, heads.saturating_mul(k)).saturating_add(row_bytes(KvSide::V, heads.saturating_mul(v)))
    };
    match header.of_architecture("attention.head_count_kv") {
        [] => bytes(heads).saturating_mul(layers),
        [heads] => bytes(*heads).saturating_mul(layers),
        by_layer => by_layer.iter().fold(0, |sum, heads| sum.saturating_add(bytes(*heads))),
    }
}

#[cfg(test)]
mod tests;
