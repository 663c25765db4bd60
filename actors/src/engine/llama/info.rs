//! What is known of a loaded model.

use std::path::Path;

use llama_cpp_sys_2 as sys;

use crate::engine::protocol::ModelInfo;

use super::backend;
use super::context::Context;
use super::plan::Plan;
use super::vocabulary::LlamaVocabulary;
use super::weights::Weights;

/// What a load has made.
pub(super) struct Loaded<'a> {
    pub(super) path: &'a Path,
    pub(super) plan: &'a Plan,
    pub(super) weights: &'a Weights,
    pub(super) context: &'a Context,
    pub(super) vocabulary: &'a LlamaVocabulary,
}

/// Collects the facts.
pub(super) fn info(loaded: &Loaded<'_>) -> ModelInfo {
    let Loaded { path, plan, weights, context, vocabulary } = *loaded;
    let model = weights.as_ptr();
    let metadata = weights.metadata();
    let value = |key: &str| metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    // SAFETY: the model is alive.
    let (n_vocab, n_ctx_train, n_params, size_bytes, n_embd, n_layer, n_head, n_head_kv) = unsafe {
        (
            sys::llama_vocab_n_tokens(weights.vocab()),
            sys::llama_model_n_ctx_train(model),
            sys::llama_model_n_params(model),
            sys::llama_model_size(model),
            sys::llama_model_n_embd(model),
            sys::llama_model_n_layer(model),
            sys::llama_model_n_head(model),
            sys::llama_model_n_head_kv(model),
        )
    };
    let count = |count: i32| u32::try_from(count).unwrap_or(0);
    ModelInfo {
        name: value("general.name").filter(|name| !name.is_empty()).or_else(stem).unwrap_or_default(),
        architecture: value("general.architecture").unwrap_or_default(),
        description: weights.description(),
        chat_template: value("tokenizer.chat_template"),
        bos_text: vocabulary.bos().map(|token| vocabulary.text(token)),
        eos_text: vocabulary.eos().map(|token| vocabulary.text(token)),
        bos: vocabulary.bos(),
        add_bos: vocabulary.adds_bos(),
        end_tokens: vocabulary.end_tokens(),
        control_tokens: vocabulary.special_texts(),
        n_vocab: count(n_vocab),
        max_token_bytes: vocabulary.max_token_bytes(value("tokenizer.ggml.model").as_deref()),
        lost_bytes: vocabulary.lost_bytes(),
        n_ctx: context.n_ctx(),
        n_ctx_seq: plan.n_ctx_seq,
        streams: plan.streams,
        n_ctx_train: count(n_ctx_train),
        n_seq_max: plan.n_seq_max,
        n_batch: context.n_batch(),
        n_params,
        size_bytes,
        n_embd: count(n_embd),
        n_layer: count(n_layer),
        n_head: count(n_head),
        n_head_kv: count(n_head_kv),
        kv_bytes_per_token: plan.kv_bytes_per_token,
        memory: context.memory(),
        parked_limit: u32::MAX,
        parked_bytes: u64::MAX,
        on_gpu: false,
        system: backend::system(),
        metadata: shown(metadata, weights),
    }
}

/// The metadata without chat templates, which are long and shown elsewhere, and with the file type's name for its number.
fn shown(metadata: Vec<(String, String)>, weights: &Weights) -> Vec<(String, String)> {
    // SAFETY: the model is alive; names are strings that live as long as the process.
    let file_type = unsafe { backend::string(sys::llama_ftype_name(sys::llama_model_ftype(weights.as_ptr()))) };
    let with_name = |(key, value): (String, String)| match key.as_str() {
        "general.file_type" => (key, file_type.clone()),
        _ => (key, value),
    };
    metadata.into_iter().filter(|(key, _)| !key.starts_with("tokenizer.chat_template")).map(with_name).collect()
}
